//! A server that runs as a child process: one message a line on its standard input and output.
//! Whoever looks after the session owns the child; three more threads read and write its pipes.
//!
//! The shared session's child is started by its supervisor, and again when it has ended. A
//! client's own one is started when a call wants it: the call asks the supervisor and waits.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::config::StdioTarget;
use crate::protocol::call::{Outcome, PrincipalId};
use crate::protocol::jsonrpc::RequestId;
use crate::protocol::legacy::Initialized;
use crate::protocol::revision::Era;
use crate::wait::{Interrupted, Wait};

use super::{Channel, Closing, ConnectAttempt, Connected, Death, RequestAttempt, Transport};
use crate::upstream::failure::{Failure, FailureKind};
use crate::upstream::handshake;
use crate::upstream::http_client::HttpConnection;
use crate::upstream::message;
use crate::upstream::session::context::SessionContext;
use crate::upstream::session::correlation::Interest;
use crate::upstream::session::era::FoundEra;
use crate::upstream::session::negotiate::{ChildNegotiation, Known, Probe, Purpose};
use crate::upstream::session::single_flight::OpenedBy;
use crate::upstream::session::stateless::{answered_here, outcome};
use crate::upstream::session::subscriptions::listen_filter::listen;
use crate::upstream::supervisor::restarts::Lived;
use process::Child;
use start::{Started, Starter};
use stderr::StderrRing;

mod era_noise;
mod outbox;
mod pipes;
pub(in crate::upstream) mod process;
mod start;
pub(in crate::upstream) mod stderr;

/// What a child answers before it is called, at most: two questions about its era.
const HANDSHAKE_ANSWERS: usize = 2;

/// Starts the children of one session, one after the other.
pub(crate) struct Stdio {
    pub(crate) context: Arc<SessionContext>,
    pub(crate) target: StdioTarget,
    pub(crate) stderr: Arc<StderrRing>,
    /// Of all children of the server.
    pub(crate) era: Arc<FoundEra>,
}

/// A child that has answered.
struct OverPipes {
    context: Arc<SessionContext>,
    stderr: Arc<StderrRing>,
    child: Arc<Child>,
    since: Instant,
    initialized: Arc<Initialized>,
    /// Other processes of the same start, to be ended.
    left: Mutex<Vec<Arc<Child>>>,
}

impl Transport for Stdio {
    fn connect(
        &self,
        connecting: &ConnectAttempt<'_>,
        _: &mut HttpConnection,
    ) -> Result<Connected, Failure> {
        let is_single = connecting.purpose == Purpose::WithSession;
        let mut negotiation = if is_single {
            ChildNegotiation::only(Probe::Initialize)
        } else {
            ChildNegotiation::new(self.era.assumed())
        };
        let Stdio { context, target, stderr, .. } = self;
        let starter = Starter { context, target, stderr, wait: connecting.wait };
        let started = starter.run(&mut negotiation);
        if !is_single {
            match &started {
                Ok(it) => self.era.assume(Known::new(Some(it.initialized.revision.era()))),
                Err(failure) => {
                    if failure.kind != FailureKind::Interrupted(Interrupted::Stopping) {
                        self.era.assume(negotiation.failed());
                    }
                    stderr.ended(Duration::ZERO);
                }
            }
        }
        let Started { child, question, initialized, left } = started?;
        let (context, stderr, left) = (context.clone(), stderr.clone(), Mutex::new(left));
        let (since, initialized) = (Instant::now(), Arc::new(initialized));
        let it = OverPipes { context, stderr, child, since, initialized, left };
        if question == Probe::Initialize {
            it.child.say(handshake::initialized()).inspect_err(|_| it.end())?;
        }
        Ok(Connected::New(Box::new(it)))
    }

    fn opener(&self) -> OpenedBy {
        match &self.context.client {
            Some(_) => OpenedBy::SupervisorOnDemand,
            None => OpenedBy::Supervisor,
        }
    }

    fn word(&self) -> Option<&'static str> {
        Some("stdio")
    }
}

impl OverPipes {
    fn end(&self) {
        self.child.end();
        self.has_begun();
    }

    fn call(&self, id: u64, attempt: RequestAttempt<'_>) -> Result<Outcome, Failure> {
        let RequestAttempt { outgoing, wait, sink, .. } = attempt;
        let charged = outgoing.charged.as_ref();
        if !self.child.shared.is_modern() {
            let text = outgoing.to_message(&RequestId::from(id));
            let answer = self.child.call(id, charged, text, Interest::of(sink), wait, sink)?;
            return self.context.outcome(answer);
        }
        let renew = || self.listen();
        if let Some(outcome) = answered_here(&self.context, outgoing, wait, &renew)? {
            return Ok(outcome);
        }
        let text = outgoing.to_modern_message(&RequestId::from(id));
        let interest =
            if outgoing.about.log_level.is_some() { Interest::Log } else { Interest::Shut };
        outcome(&self.context, self.child.call(id, charged, text, interest, wait, sink)?)
    }

    /// Asks a child without sessions for what is wanted of it; what it was asked for before is
    /// taken back once it has agreed to that.
    fn listen(&self) {
        let subscriptions = &self.context.subscriptions;
        let (version, filter) = subscriptions.wanted();
        let id = self.context.next_id();
        let Some(filter) = filter else {
            for old in subscriptions.older(id) {
                self.child.say(message::superseded(old)).ok();
            }
            return;
        };
        subscriptions.enter(id, version);
        if self.child.say(listen(&filter).to_modern_message(&RequestId::from(id))).is_err() {
            // It does not read; the next refresh tries again.
            subscriptions.leave(id);
        }
    }
}

impl Channel for OverPipes {
    fn initialized(&self) -> &Arc<Initialized> {
        &self.initialized
    }

    fn begin(&self, _: u64, _: &Wait) {
        if self.initialized.revision.era() == Era::Modern {
            self.child.shared.speak_modern();
            self.context.subscriptions.begin(&self.initialized);
            self.listen();
        }
    }

    fn has_begun(&self) {
        let left =
            std::mem::take(&mut *self.left.lock().unwrap_or_else(PoisonError::into_inner));
        left.iter().for_each(|child| child.end());
    }

    fn request(
        &self,
        _: &mut HttpConnection,
        attempt: RequestAttempt<'_>,
    ) -> Result<Outcome, Failure> {
        let id = self.context.next_id();
        self.call(id, attempt).inspect_err(|failure| {
            if let (FailureKind::Interrupted(reason), true) = (&failure.kind, failure.sent) {
                // A full queue means that the child reads nothing; then this would not help
                // either.
                self.child.say(message::cancelled(id, *reason)).ok();
            }
        })
    }

    fn notify(&self, whose: &PrincipalId, text: String) {
        // A server without sessions is told nothing but what is cancelled.
        if !self.child.shared.is_modern() {
            // A full queue means that the child does not read; it will not miss this.
            self.child.notify(whose, text).ok();
        }
    }

    fn close(&self, why: Closing) {
        if why != Closing::Unused {
            self.stderr.ended(self.since.elapsed());
        }
        self.end();
    }

    fn word(&self) -> &'static str {
        "stdio"
    }

    fn death(&self) -> Option<Death> {
        let failure = self.child.death()?;
        let (up_for, shared) = (self.since.elapsed(), &self.child.shared);
        let has_served = shared.pending.n_answered() > HANDSHAKE_ANSWERS;
        let lived = if has_served { Lived::Served(up_for) } else { Lived::Idle(up_for) };
        Some(Death { failure, lived })
    }

    fn is_listening(&self) -> bool {
        !self.child.shared.is_modern()
            || self.context.client.is_some()
            || self.context.subscriptions.is_served()
    }

    fn listen_again(&self) {
        if self.child.shared.is_modern() && !self.context.subscriptions.is_asked() {
            self.listen();
        }
    }
}
