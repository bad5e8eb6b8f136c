//! An upstream that runs as a child process: one message a line on its standard input and
//! output. The supervisor's thread owns the child; three more read and write its pipes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::config::StdioTarget;
use crate::error::Stage;
use crate::protocol::call::{CallSink, Outcome, Outgoing};
use crate::protocol::jsonrpc::RequestId;
use crate::protocol::legacy::Initialized;
use crate::wait::{Interrupted, Wait, Woken};

use super::child::{Child, StderrRing};
use super::connection::{self, Kind, Trouble};
use super::exchange::Lane;
use super::link::{Core, Deaf, Link, Opened};

/// The transport of one upstream.
pub(super) struct Stdio {
    core: Arc<Core>,
    target: StdioTarget,
    stderr: Arc<StderrRing>,
    state: Mutex<State>,
}

struct State {
    phase: Phase,
    generation: u64,
    /// Calls that wait for a child that is being started.
    waiting: Vec<Arc<Wait>>,
}

enum Phase {
    Starting,
    Up { generation: u64, child: Arc<Child>, initialized: Arc<Initialized> },
    Down { trouble: Trouble, next_try: Instant },
    Stopped,
}

impl Stdio {
    pub(super) fn new(core: Arc<Core>, target: StdioTarget, stderr: Arc<StderrRing>) -> Stdio {
        let phase = Phase::Starting;
        let state = State { phase, generation: 0, waiting: Vec::new() };
        Stdio { core, target, stderr, state: Mutex::new(state) }
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
            Phase::Up { child, .. } => Some(child),
            Phase::Starting | Phase::Down { .. } | Phase::Stopped => None,
        }
    }

    /// The running child; waits for one that is being started, and fails at once while there is
    /// none.
    fn child(&self, wait: &Arc<Wait>, idle: &mut dyn FnMut()) -> Result<Arc<Child>, Trouble> {
        let mut queued = false;
        loop {
            {
                let mut state = self.lock();
                match &state.phase {
                    Phase::Up { child, .. } => return Ok(child.clone()),
                    Phase::Down { trouble, next_try } => return Err(down(trouble, *next_try)),
                    Phase::Stopped => {
                        let reason = Interrupted::Stopping;
                        return Err(Trouble::interrupted(reason, Stage::Spawn, false));
                    }
                    Phase::Starting if queued => (),
                    Phase::Starting => {
                        state.waiting.push(wait.clone());
                        queued = true;
                    }
                }
            }
            match wait.until(None, Some(self.core.limits.heartbeat)) {
                Ok(Woken::Tick) => idle(),
                // The list of those who wait is emptied whenever the phase changes.
                Ok(Woken::Bell | Woken::Ready) => queued = false,
                Err(reason) => {
                    self.lock().waiting.retain(|other| !Arc::ptr_eq(other, wait));
                    return Err(Trouble::interrupted(reason, Stage::Spawn, false));
                }
            }
        }
    }

    fn start(&self, wait: &Arc<Wait>) -> Result<(Arc<Child>, Initialized), Trouble> {
        let child = Child::start(&self.core, &self.target, &self.stderr)?;
        let id = self.core.next_id();
        let text = connection::initialize(id);
        let initialized = child
            .call(id, text, wait, &mut Deaf)
            .and_then(connection::read_handshake)
            .and_then(|initialized| child.say(connection::initialized()).map(|()| initialized));
        match initialized {
            Ok(initialized) => Ok((child, initialized)),
            Err(trouble) => {
                child.end();
                Err(trouble.in_handshake())
            }
        }
    }
}

/// What a call hears while there is no child.
fn down(trouble: &Trouble, next_try: Instant) -> Trouble {
    let left = next_try.saturating_duration_since(Instant::now());
    let left = Duration::from_millis(u64::try_from(left.as_millis()).unwrap_or(u64::MAX));
    let message = format!("{}; next try in {left:?}", trouble.message);
    Trouble { message, sent: false, ..Trouble::new(Kind::Broke, trouble.stage, "") }
}

impl Link for Stdio {
    fn open(&self, _: &mut Lane, wait: &Arc<Wait>) -> Result<Opened, Trouble> {
        let generation = {
            let mut state = self.lock();
            if let Phase::Up { generation, initialized, .. } = &state.phase {
                let initialized = initialized.clone();
                return Ok(Opened { generation: *generation, initialized });
            }
            state.generation += 1;
            state.generation
        };
        self.enter(Phase::Starting);
        let (child, initialized) = self.start(wait)?;
        let initialized = Arc::new(initialized);
        let up = Phase::Up { generation, child, initialized: initialized.clone() };
        if let Some(child) = self.enter(up) {
            child.end();
        }
        Ok(Opened { generation, initialized })
    }

    fn request(
        &self,
        _: &mut Lane,
        outgoing: &Outgoing<'_>,
        wait: &Arc<Wait>,
        sink: &mut dyn CallSink,
    ) -> Result<Outcome, Trouble> {
        let child = self.child(wait, &mut || sink.silence())?;
        let id = self.core.next_id();
        let text = outgoing.to_message(&RequestId::from(id));
        let answer = child.call(id, text, wait, sink);
        if let Err(Trouble { kind: Kind::Interrupted(reason), sent: true, .. }) = &answer {
            // A full queue means that the child reads nothing; then this would not help either.
            child.say(connection::cancelled(id, *reason)).ok();
        }
        Ok(self.core.outcome(answer?))
    }

    fn forget(&self, generation: u64) {
        let same =
            matches!(&self.lock().phase, Phase::Up { generation: up, .. } if *up == generation);
        if same && let Some(child) = self.enter(Phase::Starting) {
            child.end();
        }
    }

    fn backing_off(&self, trouble: &Trouble, next_try: Instant) {
        // A child whose lists failed is started anew.
        if let Some(child) = self.enter(Phase::Down { trouble: trouble.clone(), next_try }) {
            child.end();
        }
    }

    fn died(&self) -> Option<Trouble> {
        match &self.lock().phase {
            Phase::Up { child, .. } => child.death(),
            Phase::Starting | Phase::Down { .. } | Phase::Stopped => None,
        }
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
