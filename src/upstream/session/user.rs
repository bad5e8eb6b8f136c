//! The user for whom an upstream was made, where a server's credentials are each user's own: what
//! its supervisor finds is told as that user's.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crate::access::policy::OptionalLease;
use crate::config::UpstreamConfig;
use crate::protocol::call::PrincipalId;
use crate::protocol::credentials::UserCredentials;
use crate::protocol::credentials_id::CredentialsId;
use crate::protocol::view::{LastUse, Untold, ViewId};
use crate::sync::Mutex;

use crate::upstream::supervisor::view_readings::ViewReading;
use crate::upstream::{Event, FailureReport, Report};

/// The user for whom an upstream was made.
pub(crate) struct User {
    pub(crate) id: CredentialsId,
    pub(crate) credentials: Arc<UserCredentials>,
    /// The principal in whose share the upstream counts.
    pub(crate) charged: Option<PrincipalId>,
    /// The access token with which the user came last.
    lease: Mutex<OptionalLease>,
    /// The configuration under which the catalogue knows the server.
    pub(crate) registered: Arc<UpstreamConfig>,
    used: Arc<LastUse>,
    /// True if lists were reported since they were wanted last.
    is_listed: AtomicBool,
    /// True if clients were served before the lists were known, and are to be notified of them.
    is_missed: AtomicBool,
    /// True if clients were served the gateway's own tool for signing in since lists came last.
    is_sign_in_offered: AtomicBool,
    /// The last failure, while the server cannot be used.
    failure: Mutex<Option<FailureReport>>,
}

impl User {
    pub(crate) fn new(
        credentials: Arc<UserCredentials>,
        charged: Option<PrincipalId>,
        lease: OptionalLease,
        registered: Arc<UpstreamConfig>,
    ) -> User {
        let id = credentials.id(&registered.name);
        let used = Arc::new(LastUse::new(Instant::now()));
        let (is_listed, is_missed) = (AtomicBool::new(false), AtomicBool::new(false));
        let (is_sign_in_offered, failure) = (AtomicBool::new(false), Mutex::new(None));
        User {
            id,
            credentials,
            charged,
            lease: Mutex::new(lease),
            registered,
            used,
            is_listed,
            is_missed,
            is_sign_in_offered,
            failure,
        }
    }

    /// Notes that the user has called, with that access token if it is one.
    pub(crate) fn note_use(&self, now: Instant, lease: &OptionalLease) {
        self.used.note(now);
        if lease.is_some() {
            self.lease.lock().clone_from(lease);
        }
    }

    /// The access token with which the user came last.
    pub(crate) fn lease(&self) -> OptionalLease {
        self.lease.lock().clone()
    }

    /// Returns true if lists were told that are to be read again, and have not been wanted again
    /// since.
    pub(crate) fn wants_lists_again(&self) -> bool {
        self.is_listed.swap(false, Ordering::Relaxed)
    }

    /// True if clients were served without the lists, which have not come since.
    pub(crate) fn is_missed(&self) -> bool {
        self.is_missed.load(Ordering::Relaxed)
    }

    /// Notes that clients were served without the lists.
    pub(crate) fn missed(&self) {
        self.is_missed.store(true, Ordering::Relaxed);
    }

    /// Notes that clients were served the gateway's own tool for signing in.
    pub(crate) fn offered_sign_in(&self) {
        self.is_sign_in_offered.store(true, Ordering::Relaxed);
    }

    /// True if clients were served that tool since lists came last.
    pub(crate) fn is_sign_in_offered(&self) -> bool {
        self.is_sign_in_offered.load(Ordering::Relaxed)
    }

    /// The failure that keeps the user from the server at present.
    pub(crate) fn failure(&self) -> Option<FailureReport> {
        self.failure.lock().clone()
    }

    /// What the user's supervisor has found, as the catalogue takes it: lists are a view of the
    /// server. None where the catalogue needs nothing of it. `begin` gives a place for the reading.
    pub(crate) fn report(
        &self,
        event: Event,
        begin: impl FnOnce(Option<&PrincipalId>) -> Option<ViewReading>,
    ) -> Option<Report> {
        let event = match event {
            Event::Lists { lists, freshness, read_at, left_out, .. } => {
                self.is_listed.store(true, Ordering::Relaxed);
                *self.failure.lock() = None;
                let reading = begin(self.charged.as_ref())?;
                let is_missed = self.is_missed.swap(false, Ordering::Relaxed);
                let is_sign_in_over = self.is_sign_in_offered.swap(false, Ordering::Relaxed);
                Event::View {
                    id: ViewId::of_user(self.id),
                    used: self.used.clone(),
                    lists,
                    freshness,
                    read_at,
                    left_out,
                    untold: Untold { is_missed, announced: Vec::new(), is_sign_in_over },
                    reading,
                }
            }
            // Requests that wait for the lists look again.
            Event::Failed { failure, .. } => {
                *self.failure.lock() = Some(failure);
                Event::ViewFailed
            }
            Event::Ready { .. } => {
                *self.failure.lock() = None;
                return None;
            }
            Event::View { .. } | Event::ViewFailed | Event::NoView { .. } => return None,
        };
        Some(Report { config: self.registered.clone(), event })
    }
}
