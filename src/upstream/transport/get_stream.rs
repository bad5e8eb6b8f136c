//! The stream on which a Streamable HTTP server speaks unasked: one thread, which lives as long
//! as the session.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, bounded};
use ureq::http::{HeaderMap, HeaderName, HeaderValue, Method};

use crate::error::Stage;
use crate::limits::LISTEN_TIMEOUT;
use crate::protocol::raw::Keeper;
use crate::protocol::sse::Event;
use crate::thread::spawn;
use crate::wait::Wait;

use super::http::{
    HttpContext, LAST_EVENT_ID, Next, StreamThread, Wire, is_message, read_events,
};
use super::refused_status::{Verdict, verdict};
use crate::upstream::backoff::SharedRetry;
use crate::upstream::failure::{Failure, FailureKind, Refusal};
use crate::upstream::http_client::{HttpConnection, HttpRequest};
use crate::upstream::message::{self, Incoming};
use crate::upstream::session::context::{NEVER, pause};
use crate::upstream::session::dispatch::{hear_shared, hear_unasked};
use crate::upstream::session::pending::PendingRequests;

/// What the thread needs; nothing of it keeps the session alive.
pub(crate) struct Sources {
    pub(crate) http: Arc<HttpContext>,
    pub(crate) get: HeaderMap,
    pub(crate) wire: Arc<Wire>,
    /// The session's calls in flight.
    pub(crate) pending: Arc<PendingRequests>,
    pub(crate) generation: u64,
    pub(crate) has_session_id: bool,
    /// Of the streams of all sessions of this channel, one after the other.
    pub(crate) retry: SharedRetry,
}

/// How one stream went.
enum Heard {
    /// The server offers no stream, or the session's end was told to the supervisor.
    Nothing,
    /// It broke off; another one may be asked for.
    Ended,
}

/// Starts the thread; without one, changes are noticed at the next refresh. Returns once the
/// server has answered, or [`LISTEN_TIMEOUT`] has passed, where the session is a client's own:
/// its first call, the one of `opener`, may make the server ask on this stream.
pub(crate) fn start(sources: Sources, opener: &Wait) -> Option<StreamThread> {
    let wait = Wait::plain(NEVER).ok()?;
    let name = sources.http.context.thread_name("sse");
    let is_own = sources.http.context.client.is_some();
    let mine = wait.clone();
    let (answered, first) = bounded(0);
    let run = move || Listener::new(sources, mine, answered).run();
    let thread = spawn(&name, run).ok()?;
    if is_own {
        // Nothing is ever sent: the other end is dropped at the server's answer.
        first.recv_timeout(LISTEN_TIMEOUT.min(opener.left())).ok();
    }
    Some(StreamThread { wait, thread: Some(thread) })
}

struct Listener {
    sources: Sources,
    wait: Arc<Wait>,
    last_id: Option<HeaderValue>,
    /// Whether the server has given a stream on this session. Before that, 404 only says that
    /// there is no such page: that a session has ended shows at the next POST.
    was_open: bool,
    /// Since when the last stream that was asked for is given, if it is.
    given_at: Option<Instant>,
    /// How long the server wants to be left alone, where it gave none.
    asked: Option<Duration>,
    /// Dropped when the server has answered for the first time.
    unanswered: Option<Sender<()>>,
}

impl Listener {
    fn new(sources: Sources, wait: Arc<Wait>, unanswered: Sender<()>) -> Listener {
        Listener {
            sources,
            wait,
            last_id: None,
            was_open: false,
            given_at: None,
            asked: None,
            unanswered: Some(unanswered),
        }
    }

    fn run(mut self) {
        loop {
            let left = self.sources.retry.left(Instant::now());
            if pause(&self.wait, left).is_err() {
                return;
            }
            (self.given_at, self.asked) = (None, None);
            let heard = self.listen();
            if let Err(Failure { kind: FailureKind::Interrupted(_), .. }) = &heard {
                return;
            }
            let is_over = !matches!(heard, Ok(Heard::Ended));
            if is_over && !self.was_open {
                // The server offers none, which the next session may be told at once.
                return;
            }
            let lasted = self.given_at.map(|at| at.elapsed()).unwrap_or_default();
            self.sources.retry.failed(Instant::now(), lasted, self.asked);
            if is_over {
                return;
            }
        }
    }

    fn listen(&mut self) -> Result<Heard, Failure> {
        let http = self.sources.http.clone();
        let mut headers = self.sources.get.clone();
        if let Some(id) = &self.last_id {
            headers.insert(HeaderName::from_static(LAST_EVENT_ID), id.clone());
        }
        let (method, endpoint) = (&Method::GET, &*http.endpoint);
        let ask = HttpRequest { method, endpoint, headers: &headers, body: None };
        let mut connection = HttpConnection::default();
        let wait = self.wait.clone();
        let answer = connection.client(&http.factory).run(&wait, ask);
        self.unanswered = None;
        let mut answer = match answer {
            Ok(answer) => answer,
            Err(failure) => return self.failed(failure),
        };
        match verdict(&answer, self.sources.has_session_id && self.was_open) {
            Verdict::Stream => (self.was_open, self.given_at) = (true, Some(Instant::now())),
            Verdict::NoStream => return Ok(Heard::Nothing),
            Verdict::Later => {
                self.asked = answer.refusal().asked_pause();
                return Ok(Heard::Ended);
            }
            // If only the stream is refused, it is asked for again by and by.
            Verdict::Doubtful => {
                let what = "the stream is not given any more";
                let why = http.refused(FailureKind::Refused(Refusal::Plain), &answer, what);
                http.context.mailbox.doubted(self.sources.generation, why);
                return Ok(Heard::Ended);
            }
            Verdict::SessionGone => {
                let what = "the session has ended";
                let failure = Failure::new(FailureKind::SessionGone, Stage::Read, what);
                http.context.mailbox.lost(self.sources.generation, failure);
                return Ok(Heard::Nothing);
            }
        }
        let context = &http.context;
        let read = read_events(&mut answer, context, None, &mut |event, keeper| {
            self.take(event, &keeper)
        });
        match read {
            Ok(_) => Ok(Heard::Ended),
            Err(failure) => self.failed(failure),
        }
    }

    fn failed(&self, failure: Failure) -> Result<Heard, Failure> {
        match failure.kind {
            FailureKind::Interrupted(_) => Err(failure),
            // Nobody is there any more, which concerns more than this stream.
            FailureKind::Broke if !failure.sent => {
                let http = &self.sources.http;
                http.context.mailbox.lost(self.sources.generation, failure.clone());
                Err(failure)
            }
            // It redirects to where nothing is asked for.
            FailureKind::Refused(_) => Ok(Heard::Nothing),
            FailureKind::Broke
            | FailureKind::SessionGone
            | FailureKind::Unauthorized(_)
            | FailureKind::Nonsense
            | FailureKind::Overloaded => Ok(Heard::Ended),
        }
    }

    fn take(&mut self, event: Event, keeper: &Option<Keeper>) -> Next {
        let is_message = is_message(&event);
        if let Some(id) = event.id {
            self.last_id = HeaderValue::try_from(id).ok();
        }
        if let Some(retry_ms) = event.retry_ms {
            self.sources.retry.ask(Duration::from_millis(retry_ms));
        }
        if !event.data.is_empty() {
            self.sources.retry.bore_fruit();
        }
        if !is_message {
            return Next::More;
        }
        let http = &self.sources.http;
        let wire = &self.sources.wire;
        let (text, go_on) = (Arc::new(event.data), || !http.context.mailbox.is_stopped());
        let read = message::read_kept(&text, keeper, &go_on, |incoming| match incoming {
            // Some servers send all progress here.
            Incoming::Progress { .. } => drop(self.sources.pending.take_in(incoming)),
            // Where a session carries one call at a time, what names no call is about that one.
            _ if http.context.is_exclusive() => {
                drop(hear_shared(&http.context, &self.sources.pending, incoming, wire));
            }
            Incoming::Answer { .. }
            | Incoming::Malformed { .. }
            | Incoming::Nonsense(_)
            | Incoming::ListChanged(_)
            | Incoming::Withdrawn(_)
            | Incoming::Notice(_)
            | Incoming::Misread { .. }
            | Incoming::Ask { .. } => hear_unasked(&http.context, incoming, wire),
        });
        if read.is_ok() { Next::More } else { Next::Done }
    }
}
