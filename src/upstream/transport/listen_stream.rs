//! The stream on which a modern server over HTTP tells of changes: the answer to one
//! `subscriptions/listen` request, read by a thread of its own. When something else is wanted,
//! another one is opened first, and the old one closed soon after the server has agreed to it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use ureq::http::{HeaderMap, Method as HttpMethod};

use crate::error::Stage;
use crate::limits::{SUPERSEDED_STREAM_TIME, SUPERSEDED_STREAMS_MAX};
use crate::protocol::call::Notice;
use crate::protocol::headers::is_event_stream;
use crate::protocol::jsonrpc::{RpcError, code};
use crate::protocol::listening::Filter;
use crate::protocol::method::{Method, notification};
use crate::protocol::sse::Event;
use crate::thread::spawn;
use crate::wait::Wait;

use super::http::{HttpContext, Next, StreamThread, Wire, is_message, read_events};
use super::refused_status::error_text;
use super::stateless_http::{answer_to, refusal};
use super::superseded_stream::Superseded;
use crate::upstream::backoff::{Range, SharedRetry};
use crate::upstream::failure::{Failure, FailureKind, Refusal, cut};
use crate::upstream::http_client::{HttpConnection, HttpRequest};
use crate::upstream::message::{self, Incoming};
use crate::upstream::session::context::{NEVER, pause};
use crate::upstream::session::dispatch::sort;
use crate::upstream::session::subscriptions::listen_filter::{acknowledged, listen};

/// The streams of one upstream.
pub(crate) struct Listening {
    http: Arc<HttpContext>,
    /// What a `subscriptions/listen` request carries.
    headers: HeaderMap,
    state: Mutex<State>,
    /// When a stream that has ended is asked for again.
    retry: SharedRetry,
}

#[derive(Default)]
struct State {
    /// Of the contact that is listened on.
    generation: u64,
    is_on: bool,
    /// Each with its number; one, and another one while that takes its place.
    streams: Vec<(u64, StreamThread)>,
    /// Those whose place another one has taken.
    superseded: VecDeque<StreamThread>,
    /// What those still tell.
    news: Superseded,
    started: u64,
    /// The one that the server has not agreed to yet: it asks for what is wanted last.
    pending: Option<u64>,
}

/// How one stream went.
enum Left {
    /// It broke off, or was refused for now; another one may be asked for.
    Ended,
    /// There is none to be had.
    Unserved,
}

impl Listening {
    pub(crate) fn new(http: Arc<HttpContext>, headers: HeaderMap) -> Arc<Listening> {
        let retry = SharedRetry::new(Range::STREAM);
        Arc::new(Listening { http, headers, state: Mutex::default(), retry })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Contact was made: from here on it is listened to.
    pub(crate) fn begin(self: &Arc<Self>, generation: u64) {
        let old = {
            let mut state = self.lock();
            (state.generation, state.is_on, state.pending) = (generation, true, None);
            (std::mem::take(&mut state.streams), std::mem::take(&mut state.superseded))
        };
        drop(old);
        self.renew();
    }

    /// Nothing is listened to any more.
    pub(crate) fn end(&self) {
        let old = {
            let mut state = self.lock();
            (state.is_on, state.pending) = (false, None);
            (std::mem::take(&mut state.streams), std::mem::take(&mut state.superseded))
        };
        drop(old);
    }

    /// Something else is wanted.
    pub(crate) fn renew(self: &Arc<Self>) {
        let (_, filter) = self.http.context.subscriptions.wanted();
        let mut old = Vec::new();
        let mut state = self.lock();
        if filter.is_none() {
            state.pending = None;
            old = std::mem::take(&mut state.streams);
        } else if state.is_on && state.pending.is_none() {
            state.started += 1;
            let number = state.started;
            if let Some(stream) = self.start(number, state.generation) {
                state.pending = Some(number);
                state.streams.push((number, stream));
            }
        }
        drop(state);
        drop(old);
    }

    /// Without a thread, changes are noticed at the next refresh.
    fn start(self: &Arc<Self>, number: u64, generation: u64) -> Option<StreamThread> {
        let wait = Wait::plain(NEVER).ok()?;
        let listener = Listener {
            listening: Arc::downgrade(self),
            http: self.http.clone(),
            headers: self.headers.clone(),
            retry: self.retry.clone(),
            wait: wait.clone(),
            number,
            generation,
            had_one: false,
            given_at: None,
            asked: None,
        };
        let name = self.http.context.thread_name("sse");
        let thread = spawn(&name, move || listener.run()).ok()?;
        Some(StreamThread { wait, thread: Some(thread) })
    }

    /// The server has agreed to what stream `number` asked for: those before it are closed once
    /// what it said on them before has come.
    fn settled(self: &Arc<Self>, number: u64, version: u64) {
        let old: Vec<StreamThread>;
        {
            let mut state = self.lock();
            let streams = std::mem::take(&mut state.streams);
            for (other, stream) in streams {
                if other < number {
                    stream.end_after(SUPERSEDED_STREAM_TIME);
                    state.news.enter(other);
                    state.superseded.push_back(stream);
                } else {
                    state.streams.push((other, stream));
                }
            }
            let n_too_many = state.superseded.len().saturating_sub(SUPERSEDED_STREAMS_MAX);
            old = state.superseded.drain(..n_too_many).collect();
            if state.pending == Some(number) {
                state.pending = None;
            }
        }
        drop(old);
        if self.http.context.subscriptions.has_changed(version) {
            self.renew();
        }
    }

    /// Whether stream `number` is one that is asked for again when it ends.
    fn is_current(&self, number: u64) -> bool {
        self.lock().streams.iter().any(|(other, _)| *other == number)
    }

    /// What came on stream `number`.
    fn take(&self, number: u64, incoming: Incoming) {
        let told = self.lock().news.take(number, incoming);
        if let Some(incoming) = told {
            self.tell(incoming);
        }
    }

    fn tell(&self, incoming: Incoming) {
        drop(sort::<Wire>(&self.http.context, incoming, None));
    }

    /// Stream `number` has ended, and is not asked for again.
    fn gave_up(&self, number: u64) {
        let late = {
            let mut state = self.lock();
            if state.pending == Some(number) {
                state.pending = None;
            }
            state.news.leave(number)
        };
        late.into_iter().for_each(|incoming| self.tell(incoming));
    }
}

/// What the thread owns; nothing of it keeps the channel alive.
struct Listener {
    listening: Weak<Listening>,
    http: Arc<HttpContext>,
    headers: HeaderMap,
    retry: SharedRetry,
    wait: Arc<Wait>,
    number: u64,
    generation: u64,
    /// There was a stream before this one: what happened in between was not heard.
    had_one: bool,
    /// Since when the last stream that was asked for is given, if it is.
    given_at: Option<Instant>,
    /// How long the server wants to be left alone, where it gave none.
    asked: Option<Duration>,
}

impl Listener {
    fn run(mut self) {
        loop {
            if pause(&self.wait, self.retry.left(Instant::now())).is_err() || !self.is_current()
            {
                break;
            }
            let (version, filter) = self.http.context.subscriptions.wanted();
            let Some(filter) = filter else { break };
            (self.given_at, self.asked) = (None, None);
            let left = self.listen(version, &filter);
            match left {
                Ok(Left::Unserved) => break,
                Err(Failure { kind: FailureKind::Interrupted(_), .. }) => break,
                Ok(Left::Ended) | Err(_) => {
                    let lasted = self.given_at.map(|at| at.elapsed()).unwrap_or_default();
                    self.retry.failed(Instant::now(), lasted, self.asked);
                }
            }
            if left.is_err() {
                break;
            }
        }
        if let Some(listening) = self.listening.upgrade() {
            listening.gave_up(self.number);
        }
    }

    fn is_current(&self) -> bool {
        self.listening.upgrade().is_some_and(|listening| listening.is_current(self.number))
    }

    fn listen(&mut self, version: u64, filter: &Filter) -> Result<Left, Failure> {
        let context = self.http.context.clone();
        let id = context.next_id();
        let body = self.http.message(&listen(filter), id);
        let endpoint = &*self.http.endpoint;
        let (method, headers, body) = (&HttpMethod::POST, &self.headers, Some(body.as_str()));
        let mut connection = HttpConnection::default();
        let client = connection.client(&self.http.factory);
        let ask = HttpRequest { method, endpoint, headers, body };
        let asked = client.run(&self.wait, ask);
        let mut answer = match asked {
            Ok(answer) => answer,
            Err(failure) => return self.failed(failure),
        };
        let content_type = answer.header("content-type").unwrap_or_default();
        if answer.status != 200 || !is_event_stream(content_type) {
            self.asked = answer.refusal().asked_pause();
            let text = error_text(&mut answer);
            return match answer_to(&text, id) {
                Some(Err(error)) => Ok(self.refused(version, &error)),
                Some(Ok(_)) => Ok(Left::Ended),
                None => self.failed(refusal(&self.http, &answer, &text)),
            };
        }
        self.given_at = Some(Instant::now());
        let mut left = Left::Ended;
        let read = read_events(&mut answer, &context, None, &mut |event, _| {
            self.take(event, id, version, &mut left)
        });
        match read {
            Ok(_) => Ok(left),
            Err(failure) => self.failed(failure),
        }
    }

    fn refused(&mut self, version: u64, error: &RpcError) -> Left {
        // However long the server took to say so, there was no such stream.
        self.given_at = None;
        let context = &self.http.context;
        context.subscriptions.refused(version);
        let what = context.secrets.scrub_for_operator(&cut(&error.message)).into_owned();
        // At the end of the gateway it may refuse because of that.
        if !context.mailbox.is_stopped() {
            log::warn!(target: "upstream", "{}: {} failed: {what} ({})",
                context.name(), Method::SubscriptionsListen.as_str(), error.code);
        }
        if error.code == code::METHOD_NOT_FOUND { Left::Unserved } else { Left::Ended }
    }

    fn failed(&self, failure: Failure) -> Result<Left, Failure> {
        let mailbox = &self.http.context.mailbox;
        match &failure.kind {
            FailureKind::Interrupted(_) => return Err(failure),
            // Nobody is there any more, which concerns more than this stream.
            FailureKind::Broke if !failure.sent => (),
            // Somebody else may be there.
            FailureKind::Refused(Refusal::OtherEra) => {
                mailbox.doubted(self.generation, failure);
                return Ok(Left::Ended);
            }
            FailureKind::Broke
            | FailureKind::SessionGone
            | FailureKind::Unauthorized(_)
            | FailureKind::Refused(
                Refusal::MaybeHttpSse | Refusal::Stateless | Refusal::Plain,
            )
            | FailureKind::Nonsense
            | FailureKind::Overloaded => return Ok(Left::Ended),
        }
        let lost = Failure { stage: Stage::Connect, ..failure.clone() };
        mailbox.lost(self.generation, lost);
        Err(failure)
    }

    fn take(&mut self, event: Event, id: u64, version: u64, left: &mut Left) -> Next {
        let mut next = Next::More;
        if !is_message(&event) {
            return next;
        }
        let (text, http) = (Arc::new(event.data), self.http.clone());
        let go_on = || !http.context.mailbox.is_stopped();
        let read = message::read(&text, &go_on, |incoming| match incoming {
            Incoming::Notice(Notice::Other { method, params })
                if method == notification::SUBSCRIPTIONS_ACKNOWLEDGED =>
            {
                // The stream is this request's own, whatever the id.
                if let Some((_, filter)) = acknowledged(params.as_ref()) {
                    self.agreed(version, filter);
                }
            }
            Incoming::Answer { id: to, outcome } if to == Some(id) => {
                if let Err(error) = outcome {
                    *left = self.refused(version, &error);
                }
                next = Next::Done;
            }
            incoming @ (Incoming::Answer { .. }
            | Incoming::Malformed { .. }
            | Incoming::Progress { .. }
            | Incoming::ListChanged(_)
            | Incoming::Notice(_)
            | Incoming::Withdrawn(_)
            | Incoming::Misread { .. }
            | Incoming::Ask { .. }
            | Incoming::Nonsense(_)) => {
                if let Some(listening) = self.listening.upgrade() {
                    listening.take(self.number, incoming);
                }
            }
        });
        if read.is_ok() { next } else { Next::Done }
    }

    fn agreed(&mut self, version: u64, filter: Filter) {
        let context = &self.http.context;
        context.subscriptions.agreed(version, filter);
        if std::mem::replace(&mut self.had_one, true) {
            context.mailbox.stale();
        }
        if let Some(listening) = self.listening.upgrade() {
            listening.settled(self.number, version);
        }
    }
}
