//! The answer to one POST over HTTP, of either era: as JSON, or at the end of a stream, which is
//! taken up again where the server closed it before.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ureq::http::{HeaderMap, HeaderName, HeaderValue, Method as HttpMethod};

use crate::error::Stage;
use crate::protocol::call::{CallSink, Notice, PrincipalId};
use crate::protocol::headers::{is_event_stream, is_json};
use crate::protocol::jsonrpc::RpcError;
use crate::protocol::question::Question;
use crate::protocol::raw::{Keeper, Raw};
use crate::protocol::sse::Event;
use crate::wait::{Interrupted, Wait};

use super::http::{HttpContext, LAST_EVENT_ID, Next, Wire, is_message, read_events};
use super::refused_status::{Verdict, verdict};
use crate::upstream::backoff::{Backoff, Range};
use crate::upstream::failure::{Failure, FailureKind, Refusal, cut, malformed};
use crate::upstream::http_client::message_bytes::Held;
use crate::upstream::http_client::{HttpConnection, HttpRequest, HttpResponse, OnBell};
use crate::upstream::message::{self, Incoming, Stopped};
use crate::upstream::session::dispatch::{Sorted, sort};
use crate::upstream::session::pending::Waiting;

/// Where everything for one call goes, from its own stream and from elsewhere.
pub(super) struct Ear<'a> {
    sink: &'a dyn CallSink,
    pub(super) wait: &'a Arc<Wait>,
    /// Where another stream's reader puts what belongs to this call; none while a session is
    /// opened.
    waiting: Option<&'a Waiting<'a>>,
    /// Whose the call is.
    pub(super) charged: Option<&'a PrincipalId>,
}

impl<'a> Ear<'a> {
    pub(super) fn new(
        sink: &'a dyn CallSink,
        wait: &'a Arc<Wait>,
        waiting: Option<&'a Waiting<'a>>,
    ) -> Ear<'a> {
        Ear { sink, wait, waiting, charged: None }
    }

    /// That of a call which is this principal's.
    pub(super) fn charged(self, charged: Option<&'a PrincipalId>) -> Ear<'a> {
        Ear { charged, ..self }
    }

    /// Lets `time` pass; what comes on another stream meanwhile is handed on.
    pub(super) fn rest(&self, time: Duration) -> Result<(), Interrupted> {
        let until = Instant::now() + time;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            self.wait.until(None, Some(left))?;
            self.look();
        }
    }

    /// Why what was being read for the call is not read to its end.
    pub(super) fn stopped(&self) -> Failure {
        let reason = self.wait.interrupted().unwrap_or(Interrupted::Deadline);
        Failure::interrupted(reason, Stage::Read, true)
    }

    /// What has come on another stream.
    pub(super) fn look(&self) {
        if let Some(waiting) = self.waiting {
            // The answer comes on the call's own stream.
            drop(waiting.look(self.wait, self.sink));
        }
    }

    pub(super) fn notice(&self, notice: Notice) {
        if matches!(notice, Notice::Progress(_)) {
            self.wait.progressed();
        }
        self.sink.notice(notice);
    }

    pub(super) fn ask(&self, question: Question) {
        self.sink.ask(question);
    }
}

impl OnBell for Ear<'_> {
    fn rang(&self) {
        self.look();
    }
}

/// A request that was POSTed, and whose answer is read.
pub(super) struct Exchange<'a, 'b> {
    pub(super) http: &'a HttpContext,
    pub(super) id: u64,
    pub(super) ear: &'a Ear<'b>,
    /// None of a server without sessions.
    pub(super) session: Option<InSession<'a>>,
}

/// The session that a request belongs to.
#[derive(Clone, Copy)]
pub(super) struct InSession<'a> {
    /// The way on which the server's own requests are answered.
    pub(super) wire: &'a Arc<Wire>,
    /// Headers of the GET that takes a broken stream up again.
    pub(super) get: &'a HeaderMap,
    pub(super) has_id: bool,
}

/// The answer, be it an error.
pub(super) type Response = Result<Raw, RpcError>;

/// What has come on the stream that answers it.
struct Seen {
    found: Option<Result<Response, Failure>>,
    last_id: Option<HeaderValue>,
    backoff: Backoff,
}

impl Default for Seen {
    fn default() -> Seen {
        let backoff = Backoff::new(Range::STREAM_OF_CALL);
        Seen { found: None, last_id: None, backoff }
    }
}

impl<'a> Exchange<'a, '_> {
    /// Reads an answer with success: JSON, or a stream of events that ends with it.
    pub(super) fn read(
        &self,
        connection: &mut HttpConnection,
        mut answer: HttpResponse<'a>,
    ) -> Result<Response, Failure> {
        let context = &self.http.context;
        let content_type = answer.header("content-type").unwrap_or_default();
        if is_event_stream(content_type) {
            return self.read_stream(connection, answer);
        }
        if is_json(content_type) {
            let max = context.limits.upstream_result_bytes;
            let bound = "limits.upstream_result_bytes";
            let mut held = Held::new(&context.buffered, self.ear.charged);
            let body = answer.read_whole(max, bound, &mut held)?;
            return self.find(body, &held.take());
        }
        if answer.status == 202 {
            return Err(Failure::nonsense("it accepted the request but gave no answer"));
        }
        let what = format!("its answer is neither JSON nor a stream: {content_type:?}");
        Err(Failure::nonsense(cut(&what)))
    }

    /// Finds the answer in a JSON body.
    fn find(&self, body: Vec<u8>, keeper: &Option<Keeper>) -> Result<Response, Failure> {
        let text = String::from_utf8(body)
            .map_err(|_| Failure::nonsense("its answer is not UTF-8"))?;
        let mut found = None;
        let go_on = || self.ear.wait.check().is_ok();
        let read = message::read_kept(&Arc::new(text), keeper, &go_on, |incoming| {
            match self.overhear(incoming) {
                Some(Incoming::Answer { id, outcome }) if id == Some(self.id) => {
                    found = Some(Ok(outcome));
                }
                Some(incoming) => {
                    found.get_or_insert(Err(not_ours(&incoming)));
                }
                None => (),
            }
        });
        read.map_err(|Stopped| self.ear.stopped())?;
        found.unwrap_or_else(|| Err(Failure::nonsense("its answer holds no response")))
    }

    /// Deals with what is no answer; gives back what is, or makes no sense.
    fn overhear(&self, incoming: Incoming) -> Option<Incoming> {
        let context = &self.http.context;
        match sort(context, incoming, self.session.map(|session| session.wire)) {
            Sorted::Done => (),
            // It concerns whoever is subscribed, whatever call it was said in.
            Sorted::Notice(notice @ Notice::ResourceUpdated(_)) => context.notice(notice),
            Sorted::Notice(notice) => self.ear.notice(notice),
            Sorted::Ask(question) => {
                self.ear.ask(Question { is_of_call: true, ..question });
            }
            Sorted::Rest(Incoming::Progress { id, params }) if id == self.id => {
                self.ear.notice(Notice::Progress(params));
            }
            Sorted::Rest(incoming) => return Some(incoming),
        }
        None
    }

    /// Reads a stream until the answer has come; takes it up again where the server lets it.
    fn read_stream(
        &self,
        connection: &mut HttpConnection,
        mut answer: HttpResponse<'a>,
    ) -> Result<Response, Failure> {
        let mut seen = Seen::default();
        loop {
            let began = Instant::now();
            let (context, charged) = (&self.http.context, self.ear.charged);
            let ended = read_events(&mut answer, context, charged, &mut |event, keeper| {
                self.take(event, &keeper, &mut seen)
            });
            if let Some(found) = seen.found.take() {
                // Its end is on the way; the slot's next user reads it.
                connection.keep(answer.into_rest());
                return found;
            }
            let failure = match ended {
                Ok(_) => broke_off("the stream ended without an answer"),
                Err(failure) => failure,
            };
            let (Some(last), Some(session)) = (seen.last_id.clone(), self.session) else {
                return Err(failure);
            };
            if failure.kind != FailureKind::Broke {
                return Err(failure);
            }
            let lasted = began.elapsed();
            answer = self.resume(connection, session, &last, lasted, &mut seen, failure)?;
        }
    }

    fn take(&self, event: Event, keeper: &Option<Keeper>, seen: &mut Seen) -> Next {
        let is_message = is_message(&event);
        if let Some(id) = event.id {
            seen.last_id = HeaderValue::try_from(id).ok();
        }
        if let Some(retry_ms) = event.retry_ms {
            seen.backoff.ask(Duration::from_millis(retry_ms));
        }
        if !is_message {
            return Next::More;
        }
        seen.backoff.reset();
        let max = self.http.context.limits.upstream_result_bytes;
        if event.data.len() > max {
            seen.found = Some(Err(Failure::too_large(max)));
            return Next::Done;
        }
        let text = Arc::new(event.data);
        let go_on = || self.ear.wait.check().is_ok();
        let read = message::read_kept(&text, keeper, &go_on, |incoming| {
            match self.overhear(incoming) {
                Some(Incoming::Answer { id, outcome }) if id == Some(self.id) => {
                    seen.found = Some(Ok(outcome));
                }
                Some(Incoming::Malformed { id, what }) if id == self.id => {
                    seen.found = Some(Err(malformed(&what)));
                }
                Some(Incoming::Progress { .. }) => (),
                // Without sessions, what answers a request holds nothing of others.
                Some(Incoming::Answer { id: Some(_), .. } | Incoming::Malformed { .. })
                    if self.session.is_some() => {}
                Some(Incoming::Nonsense(what)) => {
                    log::debug!(target: "upstream", "{}: an event is no message: {}",
                        self.http.context.name(), cut(&what));
                }
                Some(incoming) => seen.found = Some(Err(not_ours(&incoming))),
                None => (),
            }
        });
        if let Err(Stopped) = read {
            seen.found = Some(Err(self.ear.stopped()));
        }
        if seen.found.is_some() { Next::Done } else { Next::More }
    }

    /// Asks for the rest of a stream that the server closed before the answer (2025-11-25,
    /// basic/transports, Resumability and Redelivery), until it gives that, has none, or the
    /// call's time is over. Fails with `failure`, which broke the stream, unless it is the time.
    fn resume(
        &self,
        connection: &mut HttpConnection,
        session: InSession<'_>,
        last_id: &HeaderValue,
        mut lasted: Duration,
        seen: &mut Seen,
        failure: Failure,
    ) -> Result<HttpResponse<'a>, Failure> {
        let mut asked = None;
        loop {
            seen.backoff.lasted(lasted);
            let delay = seen.backoff.next_asked(asked);
            self.ear
                .rest(delay)
                .map_err(|reason| Failure::interrupted(reason, Stage::Read, true))?;
            connection.reset();
            let failed = match self.ask_again(connection, session, last_id.clone()) {
                Ok(answer) => return Ok(answer),
                Err(failed) => failed,
            };
            match failed.kind {
                FailureKind::Interrupted(_) => return Err(Failure { sent: true, ..failed }),
                // It was reached, and may do better later.
                FailureKind::Broke if failed.sent => {
                    (lasted, asked) = (Duration::ZERO, failed.asked_pause());
                }
                FailureKind::SessionGone
                | FailureKind::Broke
                | FailureKind::Refused(_)
                | FailureKind::Unauthorized(_)
                | FailureKind::Nonsense
                | FailureKind::Overloaded => return Err(failure),
            }
        }
    }

    fn ask_again(
        &self,
        connection: &mut HttpConnection,
        session: InSession<'_>,
        last_id: HeaderValue,
    ) -> Result<HttpResponse<'a>, Failure> {
        let http = self.http;
        let mut headers = session.get.clone();
        headers.insert(HeaderName::from_static(LAST_EVENT_ID), last_id);
        let (method, endpoint) = (&HttpMethod::GET, &*http.endpoint);
        let ask = HttpRequest { method, endpoint, headers: &headers, body: None };
        let client = connection.client(&http.factory);
        let answer = client.run_heeding_bell(self.ear.wait, ask, self.ear)?;
        match verdict(&answer, session.has_id) {
            Verdict::Stream => Ok(answer),
            Verdict::Later => {
                let refusal = Some(Box::new(answer.refusal()));
                Err(Failure { refusal, ..broke_off("the stream is not given at present") })
            }
            Verdict::NoStream | Verdict::Doubtful | Verdict::SessionGone => {
                let kind = FailureKind::Refused(Refusal::Plain);
                Err(Failure::new(kind, Stage::Read, "the stream is not given"))
            }
        }
    }
}

fn broke_off(what: &str) -> Failure {
    Failure { sent: true, ..Failure::new(FailureKind::Broke, Stage::Read, what) }
}

fn not_ours(incoming: &Incoming) -> Failure {
    match incoming {
        Incoming::Answer { outcome: Err(error), .. } => {
            let what =
                format!("it refused the request: {} ({})", cut(&error.message), error.code);
            Failure {
                sent: true,
                ..Failure::new(FailureKind::Refused(Refusal::Plain), Stage::Answer, what)
            }
        }
        Incoming::Malformed { what, .. } | Incoming::Nonsense(what) => malformed(what),
        Incoming::Answer { .. }
        | Incoming::Progress { .. }
        | Incoming::ListChanged(_)
        | Incoming::Withdrawn(_)
        | Incoming::Notice(_)
        | Incoming::Misread { .. }
        | Incoming::Ask { .. } => Failure::nonsense("its answer is for another request"),
    }
}
