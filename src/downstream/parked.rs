//! Calls of stateless clients to servers that ask while a call runs. Such a call outlives the
//! request that began it: the client is given what the server asks as `input_required`, and its
//! retry brings the answers (2026-07-28, basic/patterns/mrtr).
//!
//! A thread of its own makes the call, since the connection's thread must answer meanwhile.
//! While no request of the client waits for it, the call is *parked*: bounded in number and time.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::error::CallError;
use crate::limits::CALL_INBOX_MESSAGES_MAX;
use crate::protocol::call::{CallSink, Notice, Outcome, Question};
use crate::protocol::capabilities::{have, needed_for};
use crate::protocol::jsonrpc::{RpcError, code};
use crate::protocol::raw::{Raw, RawObject, push_string};
use crate::thread::{Joined, spawn};
use crate::wait::{Held, Interrupted, Wait};

/// The bounds of parked calls.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// In all.
    pub calls: usize,
    /// Of one key.
    pub calls_per_key: usize,
    /// How long one waits for its client.
    pub life: Duration,
}

/// Every call that runs apart from its client's requests.
#[derive(Debug)]
pub struct ParkedCalls {
    bounds: Bounds,
    /// Tells the calls of this process from those of others.
    boot: u64,
    last_id: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    parked: HashMap<u64, Parked>,
    running: Vec<(Arc<Apart>, Joined)>,
    stopped: bool,
}

#[derive(Debug)]
struct Parked {
    call: Arc<Apart>,
    principal: Option<Arc<str>>,
    round: u64,
    expires: Instant,
}

/// A call that runs apart.
#[derive(Debug)]
pub struct Apart {
    id: u64,
    life: Duration,
    /// Of the call, not of the requests that wait for it.
    wait: Arc<Wait>,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// What has come for the client, oldest first.
    notices: VecDeque<Notice>,
    open: Vec<Asked>,
    last_key: u64,
    /// Lets the call's timeout stand still while something is asked.
    held: Option<Held>,
    /// The request that waits at present.
    listener: Option<Arc<Wait>>,
    done: Option<Result<Outcome, CallError>>,
}

/// One request of the server, under the key that the client sees.
#[derive(Debug)]
struct Asked {
    key: String,
    question: Question,
}

/// What a request that waits for a call hears next.
#[derive(Debug)]
pub enum News {
    /// A message for the caller.
    Notice(Notice),
    /// Something is asked.
    Asked,
    /// The call is over.
    Done(Result<Outcome, CallError>),
    /// Nothing yet.
    None,
}

/// Why a call could not be parked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// `limits.parked_calls` is reached.
    Calls,
    /// `limits.parked_calls_per_key` is reached.
    CallsPerKey,
}

impl Full {
    /// What the client is told.
    pub fn to_error(self) -> RpcError {
        let bound = match self {
            Self::Calls => "limits.parked_calls",
            Self::CallsPerKey => "limits.parked_calls_per_key",
        };
        let what = format!(
            "The server asks for input, but {bound} is reached; the call was cancelled."
        );
        RpcError::new(code::INTERNAL_ERROR, what)
    }
}

impl ParkedCalls {
    /// None yet. `boot` is random.
    pub fn new(bounds: Bounds, boot: u64) -> ParkedCalls {
        ParkedCalls { bounds, boot, last_id: AtomicU64::new(0), state: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What tells this process from others.
    pub fn boot(&self) -> u64 {
        self.boot
    }

    /// How long a parked call waits for its client.
    pub fn life(&self) -> Duration {
        self.bounds.life
    }

    /// How many calls are parked.
    pub fn count(&self) -> usize {
        self.lock().parked.len()
    }

    /// Starts a call on a thread of its own. `make` makes it.
    ///
    /// # Errors
    /// The process has no thread left, or is stopping.
    pub fn start(
        &self,
        wait: Arc<Wait>,
        make: impl FnOnce(&Arc<Wait>, &mut dyn CallSink) -> Result<Outcome, CallError>
        + Send
        + 'static,
    ) -> Result<Arc<Apart>, CallError> {
        let id = self.last_id.fetch_add(1, Ordering::Relaxed) + 1;
        let (life, inner) = (self.bounds.life, Mutex::default());
        let call = Arc::new(Apart { id, life, wait, inner });
        let mut state = self.lock();
        if state.stopped {
            return Err(CallError::ShuttingDown);
        }
        state.running.retain(|(_, thread)| !thread.is_finished());
        let mine = call.clone();
        let thread = spawn(&format!("call-{:06}", id % 1_000_000), move || {
            // Done in any case: whoever waits for it must hear of a panic too.
            let unfinished = Finish(mine.clone());
            let outcome = make(&mine.wait, &mut Hearing(&mine));
            unfinished.with(outcome);
        })
        .map_err(|_| CallError::Overloaded { what: "no thread is left".to_owned() })?;
        state.running.push((call.clone(), thread));
        Ok(call)
    }

    /// Parks a call, for a retry that names its id and round.
    ///
    /// # Errors
    /// A bound is reached.
    pub fn park(
        &self,
        call: &Arc<Apart>,
        principal: Option<&Arc<str>>,
        round: u64,
    ) -> Result<(), Full> {
        let now = Instant::now();
        let gone: Vec<Parked>;
        let parked = {
            let mut state = self.lock();
            gone = state
                .parked
                .extract_if(|_, parked| now >= parked.expires)
                .map(|(_, parked)| parked)
                .collect();
            let of_key =
                state.parked.values().filter(|it| it.principal.as_ref() == principal).count();
            if state.parked.len() >= self.bounds.calls {
                Err(Full::Calls)
            } else if of_key >= self.bounds.calls_per_key {
                Err(Full::CallsPerKey)
            } else {
                // Not later than its server's request does.
                let expires = call.wait.deadline().min(now + self.bounds.life);
                let principal = principal.cloned();
                let parked = Parked { call: call.clone(), principal, round, expires };
                state.parked.insert(call.id, parked);
                Ok(())
            }
        };
        // Where no lock is held: what they are still asked is answered by that.
        for parked in gone {
            parked.call.cancel(Interrupted::Deadline);
        }
        parked
    }

    /// Takes a parked call for a retry. None if there is none of that id and round, as it was
    /// taken or has expired.
    pub fn take(
        &self,
        id: u64,
        round: u64,
        principal: Option<&Arc<str>>,
    ) -> Option<Arc<Apart>> {
        let mut state = self.lock();
        let parked = state.parked.get(&id)?;
        let fits = parked.round == round
            && parked.principal.as_ref() == principal
            && Instant::now() < parked.expires;
        if fits { state.parked.remove(&id).map(|parked| parked.call) } else { None }
    }

    /// Ends every call, and waits for their threads. None is started any more.
    pub fn stop(&self) {
        let (running, parked) = {
            let mut state = self.lock();
            state.stopped = true;
            (std::mem::take(&mut state.running), std::mem::take(&mut state.parked))
        };
        for (call, _) in &running {
            call.cancel(Interrupted::Stopping);
        }
        drop(parked);
        drop(running);
    }
}

/// Ends a call in whatever way its thread ends.
struct Finish(Arc<Apart>);

impl Finish {
    fn with(self, outcome: Result<Outcome, CallError>) {
        self.0.finish(outcome);
    }
}

impl Drop for Finish {
    fn drop(&mut self) {
        self.0.finish(Err(CallError::Internal));
    }
}

impl Apart {
    /// The id under which it can be parked.
    pub fn id(&self) -> u64 {
        self.id
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request waits for the call from here on; its bell rings when there is news.
    pub fn attach(&self, listener: &Arc<Wait>) {
        self.lock().listener = Some(listener.clone());
    }

    /// No request waits for the call any more.
    pub fn detach(&self) {
        self.lock().listener = None;
    }

    /// What has come next.
    pub fn next(&self) -> News {
        let mut inner = self.lock();
        if let Some(notice) = inner.notices.pop_front() {
            return News::Notice(notice);
        }
        if let Some(outcome) = inner.done.take() {
            return News::Done(outcome);
        }
        if inner.open.is_empty() { News::None } else { News::Asked }
    }

    /// Names of capabilities that what is asked needs and these have not.
    pub fn missing(&self, capabilities: &str) -> Vec<&'static str> {
        let inner = self.lock();
        let needed = inner.open.iter().filter_map(|it| needed_for(&it.question.method));
        let mut missing: Vec<_> = needed.filter(|name| !have(capabilities, name)).collect();
        missing.dedup();
        missing
    }

    /// What is asked, as `inputRequests`.
    pub fn requests(&self) -> String {
        let inner = self.lock();
        let mut out = String::from("{");
        for (index, asked) in inner.open.iter().enumerate() {
            if index > 0 {
                out.push(',');
            }
            push_string(&mut out, &asked.key);
            out.push_str(":{\"method\":");
            push_string(&mut out, &asked.question.method);
            if let Some(params) = &asked.question.params {
                out.push_str(",\"params\":");
                out.push_str(params.get());
            }
            out.push('}');
        }
        out.push('}');
        out
    }

    /// Gives the server the answers that are there for what it asked; what it did not ask is
    /// passed over.
    pub fn answer(&self, responses: &RawObject<'_>) {
        let (answered, held) = {
            let mut inner = self.lock();
            let (answered, open) = std::mem::take(&mut inner.open)
                .into_iter()
                .partition(|asked| responses.get(&asked.key).is_some());
            inner.open = open;
            let held = if inner.open.is_empty() { inner.held.take() } else { None };
            (answered, held)
        };
        let answered: Vec<Asked> = answered;
        for Asked { key, question } in answered {
            let text = responses.get(&key).unwrap_or("null").to_owned();
            question.reply.send(Ok(Raw::from_valid(text)));
        }
        drop(held);
    }

    /// Ends the call; its server is told.
    pub fn cancel(&self, reason: Interrupted) {
        self.wait.interrupt(reason);
        let open = std::mem::take(&mut self.lock().open);
        // Where no lock is held: dropped, they are answered.
        drop(open);
    }

    fn ring(inner: &Inner) {
        if let Some(listener) = &inner.listener {
            listener.bell().ring();
        }
    }

    fn finish(&self, outcome: Result<Outcome, CallError>) {
        let open = {
            let mut inner = self.lock();
            if inner.done.is_none() {
                inner.done = Some(outcome);
            }
            Apart::ring(&inner);
            std::mem::take(&mut inner.open)
        };
        drop(open);
    }

    fn hear(&self, notice: Notice) {
        let withdrawn = {
            let mut inner = self.lock();
            if let Notice::Withdrawn { server, id } = &notice {
                let (gone, open): (Vec<_>, Vec<_>) =
                    std::mem::take(&mut inner.open).into_iter().partition(|asked| {
                        asked.question.server == *server && asked.question.id == *id
                    });
                inner.open = open;
                gone
            } else {
                // Nobody hears what is said while the call is parked, but the latest of it.
                if inner.notices.len() >= CALL_INBOX_MESSAGES_MAX {
                    inner.notices.pop_front();
                }
                inner.notices.push_back(notice);
                Apart::ring(&inner);
                Vec::new()
            }
        };
        drop(withdrawn);
    }

    fn asked(&self, question: Question) {
        let held = self.wait.hold(self.life);
        let refused = {
            let mut inner = self.lock();
            if inner.open.len() >= QUESTIONS_PER_CALL_MAX {
                Some(question)
            } else {
                inner.last_key += 1;
                let key = format!("input-{}", inner.last_key);
                inner.open.push(Asked { key, question });
                inner.held = Some(held);
                Apart::ring(&inner);
                None
            }
        };
        drop(refused);
    }
}

/// Requests of a server that one call may have open at once; a further one is refused.
const QUESTIONS_PER_CALL_MAX: usize = 32;

/// What the call's own thread hears.
struct Hearing<'a>(&'a Apart);

impl CallSink for Hearing<'_> {
    fn notice(&mut self, notice: Notice) {
        self.0.hear(notice);
    }

    fn ask(&mut self, question: Question) {
        self.0.asked(question);
    }

    fn silence(&mut self) {}
}
