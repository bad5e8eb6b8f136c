//! One session with a server: opened once however many calls need it, renewed where the server
//! has forgotten it, and asked anew what it speaks where that turns out wrong. A request goes over
//! it once, and once more where that does no harm ([`replay`]). How the server is reached is the
//! affair of `upstream/transport/`.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::error::Stage;
use crate::protocol::call::{CallSink, Outcome, Outgoing, PrincipalId};
use crate::protocol::revision::Era;
use crate::protocol::session_route::SessionSupport;
use crate::wait::Wait;

use crate::upstream::failure::{Failure, FailureKind, Refusal};
use crate::upstream::http_client::HttpConnection;
use crate::upstream::supervisor::restarts::{Lived, Restarts};
use crate::upstream::transport::{
    Channel, Closing, ConnectAttempt, Connected, Death, RequestAttempt, Transport,
};
use context::{Opened, SessionContext};
use era::FoundEra;
use negotiate::{Purpose, Trust};
use renewal::{Pace, Recheck};
use replay::{Facts, Verdict};
use single_flight::{For, OpenedBy, SingleFlight};

pub(super) mod capacity;
pub(super) mod context;
pub(super) mod correlation;
pub(super) mod dispatch;
pub(super) mod era;
pub(super) mod factory;
pub(super) mod negotiate;
pub(super) mod pending;
pub(super) mod pool;
pub(super) mod renewal;
pub(super) mod replay;
pub(super) mod single_flight;
pub(super) mod stateless;
pub(super) mod stateless_dispatch;
pub(super) mod subscriptions;
pub(super) mod user;

/// See above.
pub(crate) struct Session {
    context: Arc<SessionContext>,
    transport: Box<dyn Transport>,
    /// Of all sessions with the server.
    era: Arc<FoundEra>,
    flight: SingleFlight<Open>,
    /// Those who find the era forgotten wait for the one who asks.
    confirming: SingleFlight<()>,
    /// When a session that is refused is replaced.
    renewals: Pace,
    /// The pace of what is started on demand; that of the shared session is its supervisor's.
    restarts: Mutex<Restarts>,
}

/// A session that is open.
struct Open {
    channel: Box<dyn Channel>,
    /// It has answered a request.
    has_worked: AtomicBool,
}

impl Open {
    fn era(&self) -> Era {
        self.channel.initialized().revision.era()
    }
}

/// An open session and its generation.
type Current = single_flight::Opened<Open>;

/// The session that was to be used has ended meanwhile.
pub(crate) fn no_session() -> Failure {
    Failure::new(FailureKind::Broke, Stage::Send, "its session has ended")
}

/// What a call over a client's own session is told: it goes over the shared one.
fn stateless() -> Failure {
    let what = "the server keeps no sessions";
    Failure::new(FailureKind::Refused(Refusal::Stateless), Stage::Handshake, what)
}

impl Session {
    pub(crate) fn new(
        context: Arc<SessionContext>,
        transport: Box<dyn Transport>,
        era: Arc<FoundEra>,
    ) -> Arc<Session> {
        let is_dead = |open: &Open| open.channel.death().is_some();
        let flight =
            SingleFlight::new(transport.opener(), is_dead, context.generations.clone());
        let (renewals, restarts) = (Pace::default(), Mutex::new(Restarts::on_demand()));
        let is_own = context.client.is_some();
        let confirming = SingleFlight::new(OpenedBy::Calls, |()| false, Arc::default());
        let session =
            Session { context, transport, era, flight, confirming, renewals, restarts };
        let session = Arc::new(session);
        if is_own {
            session.era.enter_own(&session);
        }
        session
    }

    /// True over HTTP. A child is started, and its end is seen, by whoever looks after it.
    fn is_opened_by_calls(&self) -> bool {
        self.opener() == OpenedBy::Calls
    }

    /// True if this is the session of a client that keeps sessions itself, with a server that needs
    /// none: the client is served in its own era wherever the server knows that, too.
    fn is_mirrored(&self) -> bool {
        let keeps = self.context.client.as_ref().is_some_and(|client| !client.is_exclusive);
        keeps && self.era.is_modern()
    }

    /// # Errors
    /// The client's requests go over the shared session.
    fn check_is_own(&self) -> Result<(), Failure> {
        let Some(client) = &self.context.client else { return Ok(()) };
        if self.era.session_support().is_for(client) { Ok(()) } else { Err(stateless()) }
    }

    /// True of a session of the era that the server was found to be of, on whatever session that
    /// was. A child is of the era that it has answered itself.
    fn is_of_era(&self, open: &Open) -> bool {
        !self.is_opened_by_calls()
            || self.is_mirrored()
            || self.era.get().is_none_or(|era| era == open.era())
    }

    /// The open session, opened if there is none.
    fn current(
        &self,
        who: For,
        connection: &mut HttpConnection,
        wait: &Arc<Wait>,
    ) -> Result<Current, Failure> {
        loop {
            let want = || self.context.mailbox.wanted();
            let current = self.flight.open(who, wait, want, |generation| {
                let purpose =
                    if self.is_mirrored() { Purpose::WithSession } else { Purpose::Open };
                let connecting = ConnectAttempt { purpose, generation, wait };
                self.connect(&connecting, connection)
            })?;
            let is_unknown = self.is_opened_by_calls() && self.era.get().is_none();
            if is_unknown && self.context.client.is_none() {
                self.confirm(&current, connection, wait)?;
            } else if self.is_of_era(&current.1) {
                return Ok(current);
            } else {
                // First contact shows what changed with the era.
                self.forget(current.0);
            }
        }
    }

    /// Asks the server of an open session again which era it is of, because it was away. Those who
    /// need the session meanwhile wait for the one who asks.
    fn confirm(
        &self,
        (generation, open): &Current,
        connection: &mut HttpConnection,
        wait: &Arc<Wait>,
    ) -> Result<(), Failure> {
        let confirmed = self.confirming.open(
            For::Call,
            wait,
            || (),
            |_| {
                if self.era.get().is_some() {
                    // Found between two looks.
                    return Ok(());
                }
                let era = open.era();
                self.recheck(*generation, (era, Trust::Unknown), connection, wait).map(drop)
            },
        );
        let (confirmed, _) =
            confirmed.map_err(|failure| self.context.not_opened(*generation, failure))?;
        // Only those who waited meanwhile share the answer.
        drop(self.confirming.forget(confirmed, |()| None));
        Ok(())
    }

    /// Makes contact.
    fn connect(
        &self,
        connecting: &ConnectAttempt<'_>,
        connection: &mut HttpConnection,
    ) -> Result<Open, Failure> {
        let is_mirrored = self.is_mirrored();
        if is_mirrored && self.era.session_support() == SessionSupport::Refused {
            return Err(stateless());
        }
        let connected = self.transport.connect(connecting, connection).map_err(|failure| {
            let failure = failure.in_handshake();
            if self.is_opened_by_calls() {
                self.context.not_opened(connecting.generation, failure.clone());
            }
            self.unless_mirrored(failure)
        })?;
        let Connected::New(channel) = connected else { return Err(no_session()) };
        let open = self.begin(channel, connecting)?;
        if self.is_opened_by_calls() {
            self.context.mailbox.opened(connecting.generation);
        }
        Ok(open)
    }

    /// Uses a channel from here on.
    ///
    /// # Errors
    /// It is a client's own, and the server needs no sessions.
    fn begin(
        &self,
        channel: Box<dyn Channel>,
        connecting: &ConnectAttempt<'_>,
    ) -> Result<Open, Failure> {
        let era = channel.initialized().revision.era();
        if !self.is_mirrored() || era == Era::Modern {
            self.era.set(era);
        }
        if era == Era::Modern && self.context.client.is_some() {
            channel.close(Closing::Unused);
            return Err(stateless());
        }
        channel.begin(connecting.generation, connecting.wait);
        Ok(Open { channel, has_worked: AtomicBool::new(false) })
    }

    /// A failure as it is told where a server that needs no sessions was asked for one: one that
    /// says that it has none is remembered.
    fn unless_mirrored(&self, failure: Failure) -> Failure {
        if !self.is_mirrored() || !failure.refuses_sessions() {
            return failure;
        }
        self.era.has_refused_a_session();
        if let Some((generation, _)) = self.flight.current() {
            self.forget(generation);
        }
        stateless()
    }

    /// For the supervisor: the open session, opened if there is none. For a session that opens on
    /// demand, somebody must have asked for it before.
    pub(crate) fn open(
        &self,
        connection: &mut HttpConnection,
        wait: &Arc<Wait>,
    ) -> Result<Opened, Failure> {
        self.check_is_own()?;
        let (generation, open) = self.current(For::Supervisor, connection, wait)?;
        open.channel.has_begun();
        Ok(Opened { generation, initialized: open.channel.initialized().clone() })
    }

    /// Sends a request over the open session, opened if there is none, and waits for its answer;
    /// once more where that does no harm.
    pub(crate) fn request(
        &self,
        connection: &mut HttpConnection,
        outgoing: &Outgoing<'_>,
        wait: &Arc<Wait>,
        sink: &dyn CallSink,
    ) -> Result<Outcome, Failure> {
        let mut attempt = RequestAttempt { outgoing, wait, sink, is_replay: false };
        let (mut at_hand, mut may_recheck) = (None, self.is_opened_by_calls());
        loop {
            self.check_is_own()?;
            let (generation, open) = match at_hand.take() {
                Some(current) => current,
                None => self.current(For::Call, connection, wait)?,
            };
            sink.sent_over(generation);
            let failure = match self.attempt(connection, generation, &open, attempt) {
                Ok(outcome) => {
                    if attempt.is_replay {
                        self.renewals.helped();
                    }
                    return Ok(outcome);
                }
                Err(failure) => failure,
            };
            let facts = self.facts(generation, &open, attempt, may_recheck);
            let verdict = Verdict::of(&failure, facts);
            match verdict {
                Verdict::Tell => return Err(self.unless_mirrored(failure)),
                Verdict::TellAndDoubt => {
                    let kind = FailureKind::Refused(Refusal::Plain);
                    let failure = Failure { kind, ..failure };
                    self.doubt(generation, &open, failure.clone());
                    return Err(failure);
                }
                Verdict::TellAndForget => {
                    self.forget(generation);
                    self.renewals.tried(Instant::now(), failure.asked_pause());
                    // Whoever looks after the session opens another.
                    self.context.mailbox.lost(generation, failure.clone());
                    return Err(failure);
                }
                Verdict::ForgetAndReplay => self.forget(generation),
                // A server without sessions can be asked again at once.
                Verdict::Replay if self.is_opened_by_calls() && open.era() == Era::Modern => {
                    at_hand = Some((generation, open));
                }
                Verdict::Replay => (),
                Verdict::AskEra => {
                    let doubted = (open.era(), Trust::Doubted);
                    if self.recheck(generation, doubted, connection, wait)? == Recheck::Same {
                        return Err(failure);
                    }
                    may_recheck = false;
                }
            }
            attempt.is_replay = verdict != Verdict::AskEra;
        }
    }

    fn facts(
        &self,
        generation: u64,
        open: &Open,
        attempt: RequestAttempt<'_>,
        may_recheck: bool,
    ) -> Facts {
        // What a shared child was told is left to those who asked.
        let is_left = self.opener() == OpenedBy::Supervisor;
        Facts {
            is_safe_to_repeat: attempt.outgoing.is_safe_to_repeat && !is_left,
            is_replay: attempt.is_replay,
            may_be_forgotten: open.channel.may_be_forgotten(),
            may_renew: self.renewals.is_due(Instant::now())
                || self.flight.is_replaced(generation),
            may_recheck: may_recheck && !self.is_mirrored(),
        }
    }

    /// [`Session::request`] for whoever looks after the session: over the one that is open, and
    /// once. What fails is tried again at its pace, and may say nothing of the session.
    pub(crate) fn request_open(
        &self,
        connection: &mut HttpConnection,
        outgoing: &Outgoing<'_>,
        wait: &Arc<Wait>,
        sink: &dyn CallSink,
    ) -> Result<Outcome, Failure> {
        let (generation, open) = self.usable()?;
        let attempt = RequestAttempt { outgoing, wait, sink, is_replay: false };
        self.attempt(connection, generation, &open, attempt).map_err(|failure| {
            if failure.kind == FailureKind::Refused(Refusal::Plain) {
                self.doubt(generation, &open, failure.clone());
            }
            self.unless_mirrored(failure)
        })
    }

    fn usable(&self) -> Result<Current, Failure> {
        let current = self.flight.current();
        current.filter(|(_, open)| self.is_of_era(open)).ok_or_else(no_session)
    }

    /// Sends a request over a session, once.
    fn attempt(
        &self,
        connection: &mut HttpConnection,
        generation: u64,
        open: &Open,
        attempt: RequestAttempt<'_>,
    ) -> Result<Outcome, Failure> {
        let outcome = self.send(connection, generation, open, attempt);
        if let Ok(outcome) = &outcome {
            self.answered(generation, open, outcome);
        }
        outcome
    }

    fn send(
        &self,
        connection: &mut HttpConnection,
        generation: u64,
        open: &Open,
        attempt: RequestAttempt<'_>,
    ) -> Result<Outcome, Failure> {
        let outcome = open.channel.request(connection, attempt);
        if let Err(failure) = &outcome
            && failure.kind == FailureKind::Broke
            && (!failure.sent || open.channel.is_lost())
            // A child's end is seen by whoever looks after it.
            && self.is_opened_by_calls()
        {
            self.forget(generation);
            self.context.mailbox.lost(generation, failure.clone());
        }
        outcome
    }

    /// Lets go of a session that failed; the next one who needs it opens another.
    pub(crate) fn forget(&self, generation: u64) {
        let left = self.flight.forget(generation, |open| self.rest_after(open));
        if let Some((_, open)) = left {
            open.channel.close(Closing::Forgotten);
        }
    }

    /// Why what has ended is not started again at once, where calls have it started, and when it
    /// is.
    fn rest_after(&self, open: &Open) -> Option<(Failure, Instant)> {
        let on_demand = self.opener() == OpenedBy::SupervisorOnDemand;
        let Death { failure, lived } = open.channel.death().filter(|_| on_demand)?;
        let delay = self.restart_in(lived);
        (!delay.is_zero()).then(|| (failure, Instant::now() + delay))
    }

    fn restart_in(&self, lived: Lived) -> Duration {
        self.restarts.lock().unwrap_or_else(PoisonError::into_inner).next(lived)
    }

    /// The supervisor will try again then.
    pub(crate) fn back_off(&self, failure: &Failure, mut next_try: Instant) {
        if self.is_opened_by_calls() {
            self.context.redirected.forget();
            // It may be another server when it is back; if it is gone, the supervisor says so.
            self.era.forget_transport();
            if self.context.client.is_none() {
                self.era.forget_unless_in_use();
            }
            return;
        }
        let on_demand = self.opener() == OpenedBy::SupervisorOnDemand;
        if on_demand && !failure.is_stateless() {
            let now = Instant::now();
            if self.flight.next_try().is_some_and(|at| at > now) {
                return;
            }
            next_try = next_try.max(now + self.restart_in(Lived::Never));
        }
        // A child whose lists failed is started anew.
        if let Some((_, open)) = self.flight.wait_until(failure.clone(), next_try) {
            open.channel.close(Closing::Forgotten);
        }
    }

    /// The supervisor tries again now: calls may wait for it.
    pub(crate) fn hasten(&self) {
        self.flight.hasten();
    }

    /// Who opens a session that is missing.
    pub(crate) fn opener(&self) -> OpenedBy {
        self.flight.opener()
    }

    /// Why the process behind the session has ended, if it has one and that has.
    pub(crate) fn died(&self) -> Option<Failure> {
        let (_, open) = self.flight.current()?;
        open.channel.death().map(|death| death.failure)
    }

    /// Queues a client's notification, if a session is open.
    pub(crate) fn notify(&self, whose: &PrincipalId, text: String) {
        if let Some((_, open)) = self.flight.current() {
            open.channel.notify(whose, text);
        }
    }

    /// True if a session is open.
    pub(crate) fn is_open(&self) -> bool {
        let current = self.flight.current();
        current.is_some_and(|(_, open)| open.channel.death().is_none())
    }

    /// True if requests over this session say themselves whose they are, so that those of all
    /// stateless clients go over it.
    pub(crate) fn is_stateless(&self) -> bool {
        self.era.is_modern()
    }

    /// What is known of the server's sessions, on whatever session that was found.
    pub(crate) fn session_support(&self) -> SessionSupport {
        self.era.session_support()
    }

    /// True if what the server tells by itself is heard, as far as it can be.
    pub(crate) fn is_listening(&self) -> bool {
        self.flight.current().is_none_or(|(_, open)| open.channel.is_listening())
    }

    /// The supervisor looks after a server that is well.
    pub(crate) fn refresh(&self) {
        if let Some((_, open)) = self.flight.current() {
            open.channel.listen_again();
        }
    }

    /// Ends the session, in bounded time. Nothing is opened afterwards.
    pub(crate) fn close(&self) {
        self.confirming.close();
        if let Some((_, open)) = self.flight.close() {
            open.channel.close(Closing::Ended);
        }
        self.transport.close();
    }

    /// The word for `/status`.
    pub(crate) fn transport(&self) -> &'static str {
        let open = || self.flight.current().map(|(_, open)| open.channel.word());
        self.transport.word().or_else(open).unwrap_or("auto")
    }
}
