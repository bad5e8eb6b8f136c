//! Calls of stateless clients to servers that ask while a call runs. Such a call outlives the
//! request that began it: the client is given what the server asks as `input_required`, and its
//! retry brings the answers (2026-07-28, basic/patterns/mrtr).
//!
//! A thread of its own makes the call, since the connection's thread must answer meanwhile.
//! While no request of the client waits for it, the call is *parked*: bounded in number and time.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use crate::error::CallError;
use crate::limits::{CALL_INBOX_MESSAGES_MAX, CALL_NOTICES_BYTES_MAX};
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
    /// Shared with the threads of the calls, which take back what was parked of them. Locked
    /// before a call's own.
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    parked: HashMap<u64, Parked>,
    running: Vec<(Weak<Apart>, Joined)>,
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
    /// Of those.
    n_notice_bytes: usize,
    /// Whether a request waits for the call, or soon will.
    is_awaited: bool,
    open: Vec<Asked>,
    last_key: u64,
    /// Lets the call's timeout stand still while something is asked.
    held: Option<Held>,
    /// The request that waits at present.
    listener: Option<Arc<Wait>>,
    done: Option<Result<Outcome, CallError>>,
}

impl Inner {
    fn pop_notice(&mut self) -> Option<Notice> {
        let notice = self.notices.pop_front()?;
        self.n_notice_bytes = self.n_notice_bytes.saturating_sub(bytes_of(&notice));
        Some(notice)
    }

    /// Keeps a notice, and of those before it what the bounds admit. While nobody waits only the
    /// latest progress is of use to whoever comes next.
    fn push_notice(&mut self, notice: Notice) {
        let is_progress = matches!(notice, Notice::Progress(_));
        if !self.is_awaited {
            if !is_progress {
                return;
            }
            self.clear_notices();
        }
        let n_bytes = bytes_of(&notice);
        while self.notices.len() >= CALL_INBOX_MESSAGES_MAX
            || self.n_notice_bytes.saturating_add(n_bytes) > CALL_NOTICES_BYTES_MAX
        {
            if self.pop_notice().is_none() {
                break;
            }
        }
        self.n_notice_bytes = self.n_notice_bytes.saturating_add(n_bytes);
        self.notices.push_back(notice);
    }

    fn clear_notices(&mut self) {
        self.notices = VecDeque::new();
        self.n_notice_bytes = 0;
    }
}

/// What a notice takes, in bytes.
fn bytes_of(notice: &Notice) -> usize {
    match notice {
        Notice::Progress(params) | Notice::Log(params) | Notice::ResourceUpdated(params) => {
            params.get().len()
        }
        Notice::Other { method, params } => {
            method.len() + params.as_ref().map_or(0, |params| params.get().len())
        }
        Notice::Withdrawn { .. } => 0,
    }
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
        ParkedCalls { bounds, boot, last_id: AtomicU64::new(0), state: Arc::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        locked(&self.state)
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
        let now = Instant::now();
        self.lock().parked.values().filter(|parked| now < parked.expires).count()
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
        // Whoever starts it waits for it.
        let inner = Mutex::new(Inner { is_awaited: true, ..Inner::default() });
        let life = self.bounds.life;
        let call = Arc::new(Apart { id, life, wait, inner });
        let mut state = self.lock();
        if state.stopped {
            return Err(CallError::ShuttingDown);
        }
        state.running.retain(|(_, thread)| !thread.is_finished());
        let (mine, shared) = (call.clone(), self.state.clone());
        let thread = spawn(&format!("call-{:06}", id % 1_000_000), move || {
            // Done in any case: whoever waits for it must hear of a panic too.
            let mut finish = Finish { call: mine, state: shared, outcome: None };
            finish.outcome = Some(make(&finish.call.wait, &mut Hearing(&finish.call)));
        })
        .map_err(|_| CallError::Overloaded { what: "no thread is left".to_owned() })?;
        state.running.push((Arc::downgrade(&call), thread));
        Ok(call)
    }

    /// Parks a call, for a retry that names its id and round; nobody waits for it from then on.
    /// False if it is over already, and whoever waits for it should hear so.
    ///
    /// # Errors
    /// A bound is reached.
    pub fn park(
        &self,
        call: &Arc<Apart>,
        principal: Option<&Arc<str>>,
        round: u64,
    ) -> Result<bool, Full> {
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
            if call.is_over() {
                Ok(false)
            } else if state.parked.len() >= self.bounds.calls {
                Err(Full::Calls)
            // Without keys nobody can be told apart, so the bound on all is the only one.
            } else if principal.is_some() && of_key >= self.bounds.calls_per_key {
                Err(Full::CallsPerKey)
            } else {
                // Not later than its server's request does.
                let expires = call.wait.deadline().min(now + self.bounds.life);
                let principal = principal.cloned();
                let parked = Parked { call: call.clone(), principal, round, expires };
                state.parked.insert(call.id, parked);
                call.detach();
                Ok(true)
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
        if !fits {
            return None;
        }
        let call = state.parked.remove(&id)?.call;
        call.lock().is_awaited = true;
        // Its thread may stay for nothing but this.
        call.wait.bell().ring();
        Some(call)
    }

    /// Ends every call, and waits for their threads. None is started any more.
    pub fn stop(&self) {
        let (running, parked) = {
            let mut state = self.lock();
            state.stopped = true;
            (std::mem::take(&mut state.running), std::mem::take(&mut state.parked))
        };
        for call in running.iter().filter_map(|(call, _)| call.upgrade()) {
            call.cancel(Interrupted::Stopping);
        }
        drop(parked);
        drop(running);
    }
}

fn locked(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ends a call in whatever way its thread ends.
struct Finish {
    call: Arc<Apart>,
    state: Arc<Mutex<State>>,
    outcome: Option<Result<Outcome, CallError>>,
}

impl Drop for Finish {
    fn drop(&mut self) {
        self.call.finish(self.outcome.take().unwrap_or(Err(CallError::Internal)));
        stay_while_parked(&self.state, &self.call);
    }
}

/// What a call that ended while it was parked came to is kept for its retry, and no longer than
/// the retry is waited for: nothing else may happen here that would take it away.
fn stay_while_parked(state: &Mutex<State>, call: &Apart) {
    loop {
        let left = {
            let mut state = locked(state);
            let Some(parked) = state.parked.get(&call.id) else { return };
            let left = parked.expires.saturating_duration_since(Instant::now());
            if left.is_zero() || call.wait.interrupted().is_some() {
                state.parked.remove(&call.id);
                None
            } else {
                Some(left)
            }
        };
        let Some(left) = left else { return call.cancel(Interrupted::Deadline) };
        // The call's own time no longer counts. However this ends, the loop looks again.
        call.wait.set_timeout(left, left);
        call.wait.until(None, Some(left)).ok();
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
        let mut inner = self.lock();
        inner.is_awaited = true;
        inner.listener = Some(listener.clone());
    }

    /// No request waits for the call any more.
    pub fn detach(&self) {
        let mut inner = self.lock();
        inner.is_awaited = false;
        inner.listener = None;
        let latest =
            inner.notices.iter().rfind(|it| matches!(it, Notice::Progress(_))).cloned();
        inner.clear_notices();
        if let Some(latest) = latest {
            inner.push_notice(latest);
        }
    }

    fn is_over(&self) -> bool {
        self.lock().done.is_some()
    }

    /// How many requests of the server there have been.
    pub fn n_asked(&self) -> u64 {
        self.lock().last_key
    }

    /// What has come next.
    pub fn next(&self) -> News {
        let mut inner = self.lock();
        if let Some(notice) = inner.pop_notice() {
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

    /// What is asked, as `inputRequests`. None if nothing is.
    pub fn requests(&self) -> Option<String> {
        let inner = self.lock();
        if inner.open.is_empty() {
            return None;
        }
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
        Some(out)
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

    /// Ends the call; its server is told. What was kept of it for a request that will not come
    /// is dropped.
    pub fn cancel(&self, reason: Interrupted) {
        self.wait.interrupt(reason);
        let dropped = {
            let mut inner = self.lock();
            inner.clear_notices();
            let done = if inner.is_awaited { None } else { inner.done.take() };
            if done.is_some() {
                inner.done = Some(Err(CallError::Cancelled));
            }
            (std::mem::take(&mut inner.open), inner.held.take(), done)
        };
        // Where no lock is held: what is open is answered by that.
        drop(dropped);
    }

    /// Ends the call of a request that waits for it no longer.
    pub fn abandon(&self, reason: Interrupted) {
        self.detach();
        self.cancel(reason);
    }

    fn ring(inner: &Inner) {
        if let Some(listener) = &inner.listener {
            listener.bell().ring();
        }
    }

    fn finish(&self, outcome: Result<Outcome, CallError>) {
        let is_unwanted = self.wait.interrupted().is_some();
        let dropped = {
            let mut inner = self.lock();
            let mut unwanted = None;
            inner.done = if is_unwanted && !inner.is_awaited {
                unwanted = Some(outcome);
                Some(Err(CallError::Cancelled))
            } else {
                Some(outcome)
            };
            if !inner.is_awaited {
                inner.clear_notices();
            }
            Apart::ring(&inner);
            (std::mem::take(&mut inner.open), inner.held.take(), unwanted)
        };
        drop(dropped);
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
                // Nobody thinks any more, so the call's time runs again.
                let held = if inner.open.is_empty() { inner.held.take() } else { None };
                (gone, held)
            } else {
                inner.push_notice(notice);
                Apart::ring(&inner);
                (Vec::new(), None)
            }
        };
        drop(withdrawn);
    }

    fn asked(&self, question: Question) {
        let held = self.wait.hold(self.life);
        let dropped = {
            let mut inner = self.lock();
            if inner.open.len() >= QUESTIONS_PER_CALL_MAX {
                (Some(question), Some(held))
            } else {
                inner.last_key += 1;
                let key = format!("input-{}", inner.last_key);
                inner.open.push(Asked { key, question });
                let before = inner.held.replace(held);
                Apart::ring(&inner);
                (None, before)
            }
        };
        drop(dropped);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::call::AnswerTo;
    use crate::protocol::jsonrpc::RequestId;
    use crate::protocol::server_name::ServerName;

    const LONG: Duration = Duration::from_secs(5);

    fn calls(life: Duration) -> ParkedCalls {
        ParkedCalls::new(Bounds { calls: 8, calls_per_key: 8, life }, 1)
    }

    fn apart() -> Apart {
        let inner = Mutex::new(Inner { is_awaited: true, ..Inner::default() });
        Apart { id: 1, life: LONG, wait: Wait::plain(LONG).unwrap(), inner }
    }

    fn log(text: &str) -> Notice {
        Notice::Log(Raw::from_valid(format!("\"{text}\"")))
    }

    fn progress(n: u32) -> Notice {
        Notice::Progress(Raw::from_valid(n.to_string()))
    }

    fn question(id: u64) -> Question {
        Question {
            server: ServerName::parse("s").unwrap(),
            id: RequestId::from(id),
            is_of_call: true,
            method: "roots/list".to_owned(),
            params: None,
            reply: AnswerTo::new(|_| ()),
        }
    }

    fn eventually(what: &str, check: impl Fn() -> bool) {
        let until = Instant::now() + LONG;
        while !check() {
            assert!(Instant::now() < until, "{what}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn of_what_is_said_while_nobody_waits_the_latest_progress_stays() {
        let call = apart();
        call.hear(log("before"));
        call.hear(progress(1));
        call.detach();
        call.hear(log("meanwhile"));
        call.hear(progress(2));
        call.hear(progress(3));
        call.hear(log("after"));
        assert!(matches!(call.next(), News::Notice(notice) if notice == progress(3)));
        assert!(matches!(call.next(), News::None));
        assert_eq!(call.lock().n_notice_bytes, 0);
    }

    #[test]
    fn notices_that_wait_are_bounded_in_bytes() {
        let call = apart();
        let text = "x".repeat(CALL_NOTICES_BYTES_MAX / 4);
        for _ in 0..8 {
            call.hear(log(&text));
        }
        assert_eq!(call.lock().notices.len(), 3);
        call.hear(log(&text.repeat(8)));
        assert_eq!(call.lock().notices.len(), 1, "one alone may be larger");
    }

    #[test]
    fn a_question_that_is_withdrawn_lets_the_time_run_again() {
        let call = apart();
        call.wait.set_timeout(Duration::from_millis(10), LONG);
        call.asked(question(1));
        assert!(call.wait.left() > Duration::from_secs(1));
        call.hear(Notice::Withdrawn {
            server: ServerName::parse("s").unwrap(),
            id: RequestId::from(1),
        });
        assert!(call.wait.left() <= Duration::from_millis(10));
        assert_eq!(call.requests(), None);
    }

    #[test]
    fn a_parked_call_that_expires_leaves_nothing_behind() {
        let calls = calls(Duration::from_millis(50));
        let (finish, finished) = crossbeam_channel::bounded::<()>(1);
        let result = Raw::from_valid("{}".to_owned());
        let call = calls
            .start(Wait::plain(LONG).unwrap(), move |_, _| {
                finished.recv().ok();
                Ok(Outcome::Complete(result))
            })
            .unwrap();
        assert_eq!(calls.park(&call, None, 0), Ok(true));
        finish.send(()).unwrap();
        eventually("it is taken back", || calls.lock().parked.is_empty());
        eventually("the result is dropped", || {
            matches!(call.lock().done, Some(Err(CallError::Cancelled)))
        });
    }

    #[test]
    fn a_call_that_is_cancelled_while_it_is_parked_is_taken_back() {
        let calls = calls(LONG);
        let call = calls
            .start(Wait::plain(LONG).unwrap(), |wait, sink| {
                sink.ask(question(1));
                while wait.until(None, None).is_ok() {}
                Err(CallError::Cancelled)
            })
            .unwrap();
        eventually("it asks", || call.n_asked() == 1);
        assert_eq!(calls.park(&call, None, 0), Ok(true));
        call.cancel(Interrupted::Deadline);
        eventually("it is taken back", || calls.lock().parked.is_empty());
    }

    #[test]
    fn what_a_call_came_to_while_it_was_parked_is_there_for_its_retry() {
        let calls = calls(LONG);
        let (finish, finished) = crossbeam_channel::bounded::<()>(1);
        let call = calls
            .start(Wait::plain(LONG).unwrap(), move |_, _| {
                finished.recv().ok();
                Ok(Outcome::Complete(Raw::from_valid("{}".to_owned())))
            })
            .unwrap();
        assert_eq!(calls.park(&call, None, 3), Ok(true));
        finish.send(()).unwrap();
        eventually("it is over", || call.is_over());
        let taken = calls.take(call.id(), 3, None).unwrap();
        assert!(matches!(taken.next(), News::Done(Ok(Outcome::Complete(_)))));
        // Its thread has no reason to stay.
        let begun = Instant::now();
        calls.stop();
        assert!(begun.elapsed() < Duration::from_secs(2));
    }
}
