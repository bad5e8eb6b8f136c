//! The user for whom an upstream was made, where a server's credentials are each user's own: what
//! its supervisor finds is told as that user's.

use std::sync::Arc;
use std::time::Instant;

use crate::config::UpstreamConfig;
use crate::limits::RELIST_INTERVAL;
use crate::protocol::call::PrincipalId;
use crate::protocol::credentials_id::CredentialsId;
use crate::protocol::view::{LastUse, Untold, ViewId};
use crate::sync::Mutex;

use crate::upstream::supervisor::view_readings::ViewReading;
use crate::upstream::{Event, Report};

/// The user for whom an upstream was made.
pub(crate) struct User {
    pub(crate) id: CredentialsId,
    /// The principal, if there is one.
    pub(crate) principal: Option<PrincipalId>,
    /// The principal in whose share the upstream counts.
    pub(crate) charged: Option<PrincipalId>,
    /// The configuration under which the catalogue knows the server.
    pub(crate) registered: Arc<UpstreamConfig>,
    used: Arc<LastUse>,
    /// The time at which lists were reported last.
    listed: Mutex<Option<Instant>>,
}

impl User {
    pub(crate) fn new(
        id: CredentialsId,
        principal: Option<PrincipalId>,
        charged: Option<PrincipalId>,
        registered: Arc<UpstreamConfig>,
    ) -> User {
        let used = Arc::new(LastUse::new(Instant::now()));
        User { id, principal, charged, registered, used, listed: Mutex::new(None) }
    }

    /// Notes that the user has called.
    pub(crate) fn note_use(&self, now: Instant) {
        self.used.note(now);
    }

    /// Returns true if its lists were told so long ago that they are known no more; they are then
    /// told again, once.
    pub(crate) fn forgets_lists(&self) -> bool {
        let mut listed = self.listed.lock();
        let is_old = listed.is_some_and(|at| at.elapsed() > RELIST_INTERVAL);
        if is_old {
            *listed = None;
        }
        is_old
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
                *self.listed.lock() = Some(read_at);
                let reading = begin(self.charged.as_ref())?;
                Event::View {
                    id: ViewId::of_user(self.id),
                    used: self.used.clone(),
                    lists,
                    freshness,
                    read_at,
                    left_out,
                    untold: Untold { is_missed: true, announced: Vec::new() },
                    reading,
                }
            }
            // Requests that wait for the lists look again.
            Event::Failed { .. } => Event::ViewFailed,
            Event::Ready { .. }
            | Event::View { .. }
            | Event::ViewFailed
            | Event::NoView { .. } => return None,
        };
        Some(Report { config: self.registered.clone(), event })
    }
}
