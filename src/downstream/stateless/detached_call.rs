//! A call that runs apart from the requests of its client: its messages for a waiting request,
//! and its server's questions.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use crate::error::CallError;
use crate::limits::{CALL_INBOX_MESSAGES_MAX, CALL_NOTICES_BYTES_MAX};
use crate::protocol::call::{CallSink, Notice, Outcome};
use crate::protocol::for_revision::{self, Fit};
use crate::protocol::question::Question;
use crate::protocol::raw::{Raw, RawObject, push_string};
use crate::protocol::revision::Revision;
use crate::protocol::server_name::ServerName;
use crate::sync::Mutex;
use crate::wait::{Held, Interrupted, Wait};

/// A call that runs on its own thread, apart from the requests of its client.
#[derive(Debug)]
pub struct DetachedCall {
    id: u64,
    life: Duration,
    /// The wait of the call, not of the requests that wait for it.
    wait: Arc<Wait>,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// The messages for the client, the oldest first.
    notices: VecDeque<Notice>,
    /// Bytes of the messages.
    n_notice_bytes: usize,
    /// True if a request waits for the call, or soon will.
    is_awaited: bool,
    open: Vec<KeyedQuestion>,
    last_key: u64,
    /// Keeps the call's timeout still while questions are open.
    held: Option<Held>,
    /// The wait of the request that waits at present.
    listener: Option<Arc<Wait>>,
    done: Option<Result<Outcome, CallError>>,
}

impl Inner {
    fn pop_notice(&mut self) -> Option<Notice> {
        let notice = self.notices.pop_front()?;
        self.n_notice_bytes = self.n_notice_bytes.saturating_sub(bytes_of(&notice));
        Some(notice)
    }

    /// Keeps a notice, and of those before it as many as the bounds admit. While no request
    /// waits, only the latest progress is of use to the next one.
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

/// The bytes of a notice.
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

/// A question of the server, with the key that the client sees.
#[derive(Debug)]
struct KeyedQuestion {
    key: String,
    question: Question,
}

/// The next event for a request that waits for a call.
#[derive(Debug)]
pub enum News {
    /// A message for the caller.
    Notice(Notice),
    /// There are open questions.
    Asked,
    /// The call is over.
    Done(Result<Outcome, CallError>),
    /// No event yet.
    None,
}

impl DetachedCall {
    /// The id with which the call can be parked.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// A call for which a request is about to wait. `life` is the time that its client may take
    /// to answer.
    pub(crate) fn new(id: u64, life: Duration, wait: Arc<Wait>) -> DetachedCall {
        let inner = Mutex::new(Inner { is_awaited: true, ..Inner::default() });
        DetachedCall { id, life, wait, inner }
    }

    /// The wait of the call.
    pub(crate) fn wait(&self) -> &Arc<Wait> {
        &self.wait
    }

    /// Notes that a request will wait for the call soon.
    pub(crate) fn expect(&self) {
        self.lock().is_awaited = true;
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock()
    }

    /// Notes that a request waits for the call from here on; its bell rings for each event.
    pub fn attach(&self, listener: &Arc<Wait>) {
        let mut inner = self.lock();
        inner.is_awaited = true;
        inner.listener = Some(listener.clone());
    }

    /// Notes that no request waits for the call any more.
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

    /// True if the call is over.
    pub(crate) fn is_over(&self) -> bool {
        self.lock().done.is_some()
    }

    /// The number of the server's questions so far.
    pub fn n_asked(&self) -> u64 {
        self.lock().last_key
    }

    /// Takes the next event.
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

    /// The names of the capabilities that the open questions need and `capabilities` has not.
    pub fn missing(&self, capabilities: &str) -> Vec<&'static str> {
        let inner = self.lock();
        let lacking = inner.open.iter().filter_map(|it| it.question.lacking(capabilities));
        let mut missing: Vec<_> = lacking.collect();
        missing.dedup();
        missing
    }

    /// The server that asks, and its open questions as `inputRequests` of that revision. None if
    /// there are none.
    pub fn requests(&self, client: Revision) -> Option<(ServerName, String)> {
        let inner = self.lock();
        let server = inner.open.first()?.question.server.clone();
        let mut out = String::from("{");
        for (index, asked) in inner.open.iter().enumerate() {
            if index > 0 {
                out.push(',');
            }
            push_string(&mut out, &asked.key);
            out.push_str(":{\"method\":");
            push_string(&mut out, &asked.question.method);
            let (method, params) = (&asked.question.method, asked.question.params.as_ref());
            let params = params.map(Raw::get);
            let params = match for_revision::question(client, method, params) {
                Fit::With(changed) => Some(Cow::Owned(changed)),
                Fit::AsItIs | Fit::Refused(_) => params.map(Cow::Borrowed),
            };
            if let Some(params) = params {
                out.push_str(",\"params\":");
                out.push_str(&params);
            }
            out.push('}');
        }
        out.push('}');
        Some((server, out))
    }

    /// Gives the server the client's answers to its questions; answers to others are ignored.
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
        let answered: Vec<KeyedQuestion> = answered;
        for KeyedQuestion { key, question } in answered {
            let text = responses.get(&key).unwrap_or("null").to_owned();
            question.reply.send(Ok(Raw::from_valid(text)));
        }
        drop(held);
    }

    /// Ends the call; its server is told. An outcome that was kept for a request that will not
    /// come is dropped.
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
        // Open questions are dropped where no lock is held, which answers them.
        drop(dropped);
    }

    /// Ends the call of a request that no longer waits for it.
    pub fn abandon(&self, reason: Interrupted) {
        self.detach();
        self.cancel(reason);
    }

    fn ring(inner: &Inner) {
        if let Some(listener) = &inner.listener {
            listener.bell().ring();
        }
    }

    #[cfg(test)]
    pub(crate) fn is_given_up(&self) -> bool {
        matches!(self.lock().done, Some(Err(CallError::Cancelled)))
    }

    /// Notes the outcome of the call.
    pub(crate) fn finish(&self, outcome: Result<Outcome, CallError>) {
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
            DetachedCall::ring(&inner);
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
                // The client has no question left, so the call's time runs again.
                let held = if inner.open.is_empty() { inner.held.take() } else { None };
                (gone, held)
            } else {
                inner.push_notice(notice);
                DetachedCall::ring(&inner);
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
                inner.open.push(KeyedQuestion { key, question });
                let before = inner.held.replace(held);
                DetachedCall::ring(&inner);
                (None, before)
            }
        };
        drop(dropped);
    }
}

/// Questions that one call may have open at once; a further one is refused.
const QUESTIONS_PER_CALL_MAX: usize = 32;

/// The sink of the call's own thread.
pub(crate) struct Hearing<'a>(pub(crate) &'a DetachedCall);

impl CallSink for Hearing<'_> {
    fn notice(&self, notice: Notice) {
        self.0.hear(notice);
    }

    fn ask(&self, question: Question) {
        self.0.asked(question);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::protocol::jsonrpc::RequestId;
    use crate::protocol::question::AnswerTo;
    use crate::protocol::server_name::ServerName;

    const LONG: Duration = Duration::from_secs(5);

    fn detached() -> DetachedCall {
        DetachedCall::new(1, LONG, Wait::plain(LONG).unwrap())
    }

    fn log(text: &str) -> Notice {
        Notice::Log(Raw::from_valid(format!("\"{text}\"")))
    }

    fn progress(n: u32) -> Notice {
        Notice::Progress(Raw::from_valid(n.to_string()))
    }

    pub(crate) fn question(id: u64) -> Question {
        Question {
            server: ServerName::parse("s").unwrap(),
            id: RequestId::from(id),
            is_of_call: true,
            method: "roots/list".to_owned(),
            params: None,
            reply: AnswerTo::new(|_| ()),
        }
    }

    #[test]
    fn of_what_is_said_while_nobody_waits_the_latest_progress_stays() {
        let call = detached();
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
        let call = detached();
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
        let call = detached();
        call.wait.set_timeout(Duration::from_millis(10), LONG);
        call.asked(question(1));
        assert!(call.wait.left() > Duration::from_secs(1));
        call.hear(Notice::Withdrawn {
            server: ServerName::parse("s").unwrap(),
            id: RequestId::from(1),
        });
        assert!(call.wait.left() <= Duration::from_millis(10));
        assert_eq!(call.requests(Revision::LATEST_MODERN), None);
    }
}
