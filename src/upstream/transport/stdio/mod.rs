//! An upstream that runs as a child process: one message a line on its standard input and
//! output. The supervisor's thread owns the child; three more read and write its pipes.
//!
//! The shared session's child is started by its supervisor, and again when it has ended. A
//! client's own one is started when a call wants it: the call asks the supervisor and waits.

pub(super) mod era_noise;
pub(super) mod outbox;
pub(super) mod pipes;
pub(in crate::upstream) mod process;
pub(super) mod start;
pub(in crate::upstream) mod stderr;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::config::StdioTarget;
use crate::error::Stage;
use crate::protocol::call::{CallSink, Outcome, Outgoing, PrincipalId};
use crate::protocol::jsonrpc::RequestId;
use crate::protocol::legacy::Initialized;
use crate::protocol::method::Method;
use crate::protocol::raw::RawObject;
use crate::protocol::revision::Era;
use crate::upstream::handshake;
use crate::upstream::message;
use crate::wait::{Interrupted, Wait};

use crate::upstream::call::circuit_breaker::Opening;
use crate::upstream::failure::{Failure, FailureKind, may_replay};
use crate::upstream::http_client::HttpConnection;
use crate::upstream::session::context::{
    NoSink, Opened, SessionContext, Transport, unless_answered,
};
use crate::upstream::session::correlation::Interest;
use crate::upstream::session::either_era::stateless;
use crate::upstream::session::era::Found;
use crate::upstream::session::listen_filter::listen;
use crate::upstream::session::negotiate::{EraProbe, Known, Negotiation};
use crate::upstream::session::stateless::{answered_here, outcome};
use crate::upstream::supervisor::restarts::{Lived, Restarts};
use process::Child;
use start::{Started, Starter};
use stderr::StderrRing;

/// What a child answers before it is called, at most: two questions about its era.
const HANDSHAKE_ANSWERS: usize = 2;

/// The transport of one upstream.
pub(crate) struct Stdio {
    context: Arc<SessionContext>,
    target: StdioTarget,
    stderr: Arc<StderrRing>,
    /// Shared by all children of the upstream.
    era: Arc<Found>,
    state: Mutex<State>,
}

struct State {
    phase: Phase,
    generation: u64,
    /// Calls that wait for a child that is being started.
    waiting: Vec<Arc<Wait>>,
    /// The pace of a child that is started on demand; that of the shared one is its
    /// supervisor's.
    restarts: Restarts,
}

enum Phase {
    /// None is wanted.
    Unused,
    Starting {
        since: Instant,
    },
    Up {
        generation: u64,
        since: Instant,
        child: Arc<Child>,
        initialized: Arc<Initialized>,
    },
    Down {
        failure: Failure,
        next_try: Instant,
    },
    Stopped,
}

impl Stdio {
    pub(crate) fn new(
        context: Arc<SessionContext>,
        target: StdioTarget,
        stderr: Arc<StderrRing>,
        era: Arc<Found>,
    ) -> Stdio {
        let phase = empty(&context);
        let restarts = Restarts::on_demand();
        let state = State { phase, generation: 0, waiting: Vec::new(), restarts };
        Stdio { context, target, stderr, era, state: Mutex::new(state) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters a phase and wakes whoever waited for it; gives back a child that was left.
    fn enter(&self, phase: Phase) -> Option<Arc<Child>> {
        let (old, waiting) = {
            let mut state = self.lock();
            if matches!(state.phase, Phase::Stopped) {
                return None;
            }
            let old = std::mem::replace(&mut state.phase, phase);
            (old, std::mem::take(&mut state.waiting))
        };
        waiting.iter().for_each(|wait| wait.bell().ring());
        match old {
            Phase::Up { child, since, .. } => {
                self.stderr.ended(since.elapsed());
                Some(child)
            }
            Phase::Unused | Phase::Starting { .. } | Phase::Down { .. } | Phase::Stopped => {
                None
            }
        }
    }

    /// The running child; waits for one that is being started. While there is none, a call fails
    /// at once, or has one started if that is what happens on demand.
    fn child(&self, wait: &Arc<Wait>) -> Result<Arc<Child>, Failure> {
        let mut has_waited = false;
        loop {
            let wanted = {
                let mut state = self.lock();
                let on_demand = self.context.client.is_some();
                let wanted = match &state.phase {
                    // Whoever looks after it is about to see it.
                    Phase::Up { child, .. } if child.death().is_some() => false,
                    Phase::Up { child, .. } => return Ok(child.clone()),
                    Phase::Unused => true,
                    Phase::Down { failure, next_try } => {
                        let is_due = *next_try <= Instant::now();
                        // One attempt is enough for a call.
                        if !is_due || on_demand && has_waited {
                            return Err(down(failure));
                        }
                        // Else the supervisor is about to try.
                        on_demand
                    }
                    Phase::Stopped => {
                        let reason = Interrupted::Stopping;
                        return Err(Failure::interrupted(reason, Stage::Spawn, false));
                    }
                    Phase::Starting { .. } => false,
                };
                if wanted {
                    state.phase = starting();
                }
                // The list of those who wait is emptied whenever the phase changes.
                if !state.waiting.iter().any(|other| Arc::ptr_eq(other, wait)) {
                    state.waiting.push(wait.clone());
                }
                wanted
            };
            if wanted {
                self.context.mailbox.wanted();
            }
            has_waited = true;
            wait.until(None, None).map_err(|reason| self.not_started(wait, reason))?;
        }
    }

    /// Leaves those who wait for a child, since the call's wait has ended.
    fn not_started(&self, wait: &Arc<Wait>, reason: Interrupted) -> Failure {
        let mut state = self.lock();
        state.waiting.retain(|other| !Arc::ptr_eq(other, wait));
        let starting = match &state.phase {
            Phase::Starting { since } => Some(since.elapsed()),
            Phase::Unused | Phase::Up { .. } | Phase::Down { .. } | Phase::Stopped => None,
        };
        Failure { starting, ..Failure::interrupted(reason, Stage::Spawn, false) }
    }

    /// Starts a child and makes contact with it.
    fn start(&self, wait: &Arc<Wait>) -> Result<Started, Failure> {
        let starter = Starter {
            context: &self.context,
            target: &self.target,
            stderr: &self.stderr,
            wait,
        };
        if self.is_mirrored() && self.era.is_modern() {
            return self.start_mirrored(&starter);
        }
        let mut negotiation = Negotiation::new(self.era.assumed());
        let started = match starter.run(&mut negotiation) {
            Ok(started) => started,
            Err(failure) => {
                if !matches!(failure.kind, FailureKind::Interrupted(Interrupted::Stopping)) {
                    self.era.assume(negotiation.failed());
                }
                self.stderr.ended(Duration::ZERO);
                return Err(failure.in_handshake());
            }
        };
        let era = started.initialized.revision.era();
        self.era.set(era);
        self.era.assume(Known::new(Some(era)));
        if era == Era::Modern && self.context.client.is_some() {
            started.child.end();
            started.left.iter().for_each(|child| child.end());
            return Err(stateless());
        }
        match started.question {
            EraProbe::Discover => {
                started.child.transport.speak_modern();
                self.context.subscriptions.begin(&started.initialized);
                self.listen(&started.child);
            }
            EraProbe::Initialize => self.tell_initialized(&started)?,
        }
        Ok(started)
    }

    fn tell_initialized(&self, started: &Started) -> Result<(), Failure> {
        started.child.say(handshake::initialized()).map_err(|failure| {
            started.child.end();
            started.left.iter().for_each(|child| child.end());
            failure.in_handshake()
        })
    }

    /// Whether this is the child of a client that keeps sessions itself: it is served in its own
    /// era wherever the upstream knows that.
    fn is_mirrored(&self) -> bool {
        self.context.client.as_ref().is_some_and(|client| !client.is_exclusive)
    }

    /// Starts a child of a modern upstream and initializes it, if it knows that too.
    fn start_mirrored(&self, starter: &Starter<'_>) -> Result<Started, Failure> {
        if self.era.refuses_sessions() {
            return Err(stateless());
        }
        match starter.run(&mut Negotiation::only(EraProbe::Initialize)) {
            Ok(started) => {
                self.tell_initialized(&started)?;
                Ok(started)
            }
            Err(failure) if failure.refuses_sessions() => {
                self.era.has_refused_a_session();
                Err(stateless())
            }
            Err(failure) => Err(failure.in_handshake()),
        }
    }

    /// What comes after a child that was up for so long: nothing where the supervisor says when
    /// the next one is started, else the next call starts it, in time.
    fn after(&self, child: &Child, up_for: Duration, restarts: &mut Restarts) -> Phase {
        let Some(failure) = child.death().filter(|_| self.context.client.is_some()) else {
            return empty(&self.context);
        };
        let has_served = child.transport.pending.n_answered() > HANDSHAKE_ANSWERS;
        let lived = if has_served { Lived::Served(up_for) } else { Lived::Idle(up_for) };
        let delay = restarts.next(lived);
        if delay.is_zero() {
            return empty(&self.context);
        }
        Phase::Down { failure, next_try: Instant::now() + delay }
    }

    fn call(
        &self,
        child: &Child,
        id: u64,
        outgoing: &Outgoing<'_>,
        wait: &Arc<Wait>,
        sink: &dyn CallSink,
    ) -> Result<Outcome, Failure> {
        let charged = outgoing.charged.as_ref();
        if !child.transport.is_modern() {
            let text = outgoing.to_message(&RequestId::from(id));
            let answer = child.call(id, charged, text, Interest::of(sink), wait, sink)?;
            return self.context.outcome(answer);
        }
        let renew = || self.listen(child);
        if let Some(outcome) = answered_here(&self.context, outgoing, wait, &renew)? {
            return Ok(outcome);
        }
        let text = outgoing.to_modern_message(&RequestId::from(id));
        let interest =
            if outgoing.about.log_level.is_some() { Interest::Log } else { Interest::Shut };
        outcome(&self.context, child.call(id, charged, text, interest, wait, sink)?)
    }

    /// Asks a modern child for what is wanted of it; what it was asked for before is taken back
    /// once it has agreed to that.
    fn listen(&self, child: &Child) {
        let subscriptions = &self.context.subscriptions;
        let (version, filter) = subscriptions.wanted();
        let id = self.context.next_id();
        let Some(filter) = filter else {
            for old in subscriptions.older(id) {
                child.say(message::superseded(old)).ok();
            }
            return;
        };
        subscriptions.enter(id, version);
        if child.say(listen(id, &filter)).is_err() {
            // It does not read; the next refresh tries again.
            subscriptions.leave(id);
        }
    }
}

/// What a call hears while there is no child.
fn down(failure: &Failure) -> Failure {
    if failure.is_stateless() {
        return failure.clone();
    }
    Failure::new(FailureKind::Broke, failure.stage, failure.message.clone())
}

fn starting() -> Phase {
    Phase::Starting { since: Instant::now() }
}

/// Where there is no child and none is being started.
fn empty(context: &SessionContext) -> Phase {
    if context.client.is_some() { Phase::Unused } else { starting() }
}

impl Transport for Stdio {
    fn open(&self, _: &mut HttpConnection, wait: &Arc<Wait>) -> Result<Opened, Failure> {
        let generation = {
            let mut state = self.lock();
            if let Phase::Up { generation, initialized, .. } = &state.phase {
                let initialized = initialized.clone();
                return Ok(Opened { generation: *generation, initialized });
            }
            if let Phase::Down { failure, next_try } = &state.phase
                && self.context.client.is_some()
                && *next_try > Instant::now()
            {
                return Err(down(failure));
            }
            state.generation += 1;
            state.generation
        };
        self.enter(starting());
        let Started { child, initialized, left, .. } = self.start(wait)?;
        let initialized = Arc::new(initialized);
        let since = Instant::now();
        let up = Phase::Up { generation, since, child, initialized: initialized.clone() };
        let before = self.enter(up);
        before.into_iter().chain(left).for_each(|child| child.end());
        Ok(Opened { generation, initialized })
    }

    fn request(
        &self,
        _: &mut HttpConnection,
        outgoing: &Outgoing<'_>,
        wait: &Arc<Wait>,
        sink: &dyn CallSink,
    ) -> Result<Outcome, Failure> {
        let is_served_otherwise = if self.is_mirrored() {
            self.refuses_sessions()
        } else {
            self.is_stateless() && self.context.client.is_some()
        };
        if is_served_otherwise {
            return Err(stateless());
        }
        let mut replayed = false;
        loop {
            let child = self.child(wait)?;
            let id = self.context.next_id();
            let failure = match self.call(&child, id, outgoing, wait, sink) {
                Ok(outcome) => return Ok(outcome),
                Err(failure) => failure,
            };
            if let Failure { kind: FailureKind::Interrupted(reason), sent: true, .. } = &failure
            {
                // A full queue means that the child reads nothing; then this would not help
                // either.
                child.say(message::cancelled(id, *reason)).ok();
            }
            // What a shared child was told is left to those who asked.
            let is_safe = outgoing.is_safe_to_repeat && self.context.client.is_some();
            if replayed || !may_replay(&failure, is_safe) {
                return Err(failure);
            }
            replayed = true;
        }
    }

    fn request_open(
        &self,
        _: &mut HttpConnection,
        outgoing: &Outgoing<'_>,
        wait: &Arc<Wait>,
        sink: &dyn CallSink,
    ) -> Result<Outcome, Failure> {
        let child = match &self.lock().phase {
            Phase::Up { child, .. } => child.clone(),
            Phase::Unused | Phase::Starting { .. } | Phase::Down { .. } | Phase::Stopped => {
                return Err(Failure::new(FailureKind::Broke, Stage::Send, "there is no child"));
            }
        };
        self.call(&child, self.context.next_id(), outgoing, wait, sink)
    }

    fn probe(
        &self,
        connection: &mut HttpConnection,
        wait: &Arc<Wait>,
        _: &Failure,
    ) -> Result<(), Failure> {
        let child = match &self.lock().phase {
            Phase::Up { child, .. } if child.transport.is_modern() => Some(child.clone()),
            Phase::Up { .. }
            | Phase::Unused
            | Phase::Starting { .. }
            | Phase::Down { .. }
            | Phase::Stopped => None,
        };
        let answer = match child {
            // It has no ping.
            Some(child) => {
                let id = self.context.next_id();
                let discover = handshake::discover(id);
                child.call(id, None, discover, Interest::Shut, wait, &NoSink).map(drop)
            }
            None => {
                let ping = Outgoing::own(Method::Ping, RawObject::default());
                self.request_open(connection, &ping, wait, &NoSink).map(drop)
            }
        };
        answer.or_else(unless_answered)
    }

    fn is_listening(&self) -> bool {
        let is_modern = matches!(&self.lock().phase,
            Phase::Up { child, .. } if child.transport.is_modern());
        !is_modern || self.context.client.is_some() || self.context.subscriptions.is_served()
    }

    fn forget(&self, generation: u64) {
        let next = {
            let mut state = self.lock();
            let State { phase, restarts, .. } = &mut *state;
            match phase {
                Phase::Up { generation: up, since, child, .. } if *up == generation => {
                    self.after(child, since.elapsed(), restarts)
                }
                Phase::Up { .. }
                | Phase::Unused
                | Phase::Starting { .. }
                | Phase::Down { .. }
                | Phase::Stopped => return,
            }
        };
        if let Some(child) = self.enter(next) {
            child.end();
        }
    }

    fn backing_off(&self, failure: &Failure, next_try: Instant) {
        let mut next_try = next_try;
        if self.context.client.is_some() && !failure.is_stateless() {
            let mut state = self.lock();
            let now = Instant::now();
            if matches!(state.phase, Phase::Down { next_try, .. } if next_try > now) {
                return;
            }
            next_try = next_try.max(now + state.restarts.next(Lived::Never));
        }
        // A child whose lists failed is started anew.
        if let Some(child) = self.enter(Phase::Down { failure: failure.clone(), next_try }) {
            child.end();
        }
    }

    fn hasten(&self) {
        if let Phase::Down { next_try, .. } = &mut self.lock().phase {
            *next_try = Instant::now();
        }
    }

    fn opening(&self) -> Opening {
        if self.context.client.is_some() { Opening::ByCalls } else { Opening::BySupervisor }
    }

    fn died(&self) -> Option<Failure> {
        match &self.lock().phase {
            Phase::Up { child, .. } => child.death(),
            Phase::Unused | Phase::Starting { .. } | Phase::Down { .. } | Phase::Stopped => {
                None
            }
        }
    }

    fn tell(&self, whose: &PrincipalId, text: String) {
        let child = match &self.lock().phase {
            // A modern server is told nothing but what is cancelled.
            Phase::Up { child, .. } if !child.transport.is_modern() => child.clone(),
            Phase::Up { .. }
            | Phase::Unused
            | Phase::Starting { .. }
            | Phase::Down { .. }
            | Phase::Stopped => return,
        };
        // A full queue means that the child does not read; it will not miss this.
        child.notify(whose, text).ok();
    }

    fn is_open(&self) -> bool {
        matches!(&self.lock().phase, Phase::Up { child, .. } if child.death().is_none())
    }

    fn refresh(&self) {
        let child = match &self.lock().phase {
            Phase::Up { child, .. } if child.transport.is_modern() => child.clone(),
            Phase::Up { .. }
            | Phase::Unused
            | Phase::Starting { .. }
            | Phase::Down { .. }
            | Phase::Stopped => return,
        };
        if !self.context.subscriptions.is_asked() {
            self.listen(&child);
        }
    }

    fn is_stateless(&self) -> bool {
        self.era.is_modern()
    }

    fn refuses_sessions(&self) -> bool {
        self.era.refuses_sessions()
    }

    fn close(&self) {
        if let Some(child) = self.enter(Phase::Stopped) {
            child.end();
        }
    }

    fn transport(&self) -> &'static str {
        "stdio"
    }
}
