//! The stream that answers one POST: progress on the way, then the answer; and taking it up again
//! where the server closed it before.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ureq::http::{HeaderMap, HeaderName, HeaderValue, Method as HttpMethod};

use crate::error::Stage;
use crate::protocol::call::{CallSink, Notice, PrincipalId, Question};
use crate::protocol::jsonrpc::RpcError;
use crate::protocol::raw::{Keeper, Raw};
use crate::protocol::sse::Event;
use crate::wait::{Interrupted, Wait};

use super::http::{Next, StreamEnd, Wire, read_events};
use super::refused_status::{Verdict, verdict};
use super::streamable_http::{LAST_EVENT_ID, StreamableHttp};
use crate::upstream::backoff::{Backoff, Range};
use crate::upstream::failure::{Failure, FailureKind, Refusal, cut, malformed};
use crate::upstream::http_client::{HttpConnection, HttpRequest, HttpResponse, OnBell};
use crate::upstream::message::{self, Incoming, Stopped};
use crate::upstream::session::pending::Waiting;

/// One POST that wants a response.
#[derive(Clone, Copy)]
pub(crate) struct Post<'a> {
    pub(crate) id: u64,
    pub(crate) body: &'a str,
    pub(crate) wire: &'a Arc<Wire>,
    /// Headers of the GET that takes a broken stream up again.
    pub(crate) get: &'a HeaderMap,
    pub(crate) phase: Phase,
    /// The request was refused before, on a session that seemed to be lost.
    pub(crate) again: bool,
}

/// Whether a POST opens a session or belongs to one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Opening,
    WithoutId,
    WithId,
}

/// Where everything for one call goes, from its own stream and from elsewhere.
pub(crate) struct Ear<'a> {
    sink: &'a dyn CallSink,
    pub(crate) wait: &'a Arc<Wait>,
    /// Where another stream's reader puts what belongs to this call; none while a session is
    /// opened.
    waiting: Option<&'a Waiting<'a>>,
    /// Whose the call is.
    pub(crate) charged: Option<&'a PrincipalId>,
}

impl<'a> Ear<'a> {
    pub(crate) fn new(
        sink: &'a dyn CallSink,
        wait: &'a Arc<Wait>,
        waiting: Option<&'a Waiting<'a>>,
    ) -> Ear<'a> {
        Ear { sink, wait, waiting, charged: None }
    }

    /// That of a call which is this principal's.
    pub(crate) fn charged(self, charged: Option<&'a PrincipalId>) -> Ear<'a> {
        Ear { charged, ..self }
    }

    /// Lets `time` pass; what comes on another stream meanwhile is handed on.
    pub(crate) fn rest(&self, time: Duration) -> Result<(), Interrupted> {
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
    pub(crate) fn stopped(&self) -> Failure {
        let reason = self.wait.interrupted().unwrap_or(Interrupted::Deadline);
        Failure::interrupted(reason, Stage::Read, true)
    }

    /// What has come on another stream.
    pub(crate) fn look(&self) {
        if let Some(waiting) = self.waiting {
            // The answer comes on the call's own stream.
            drop(waiting.look(self.wait, self.sink));
        }
    }

    pub(crate) fn notice(&self, notice: Notice) {
        if matches!(notice, Notice::Progress(_)) {
            self.wait.progressed();
        }
        self.sink.notice(notice);
    }

    pub(crate) fn ask(&self, question: Question) {
        self.sink.ask(question);
    }
}

impl OnBell for Ear<'_> {
    fn rang(&self) {
        self.look();
    }
}

/// The stream that answers one POST.
pub(crate) struct PostStream<'a, 'b> {
    pub(crate) transport: &'a StreamableHttp,
    pub(crate) post: Post<'a>,
    pub(crate) ear: &'a Ear<'b>,
}

/// What has come on it.
pub(crate) struct Seen {
    pub(crate) found: Option<Result<Result<Raw, RpcError>, Failure>>,
    pub(crate) last_id: Option<HeaderValue>,
    pub(crate) backoff: Backoff,
}

impl Default for Seen {
    fn default() -> Seen {
        let backoff = Backoff::new(Range::STREAM_OF_CALL);
        Seen { found: None, last_id: None, backoff }
    }
}

impl<'a> PostStream<'a, '_> {
    pub(crate) fn read(
        &mut self,
        answer: &mut HttpResponse<'_>,
        seen: &mut Seen,
    ) -> Result<StreamEnd, Failure> {
        let context = &self.transport.http.context;
        read_events(answer, context, self.ear.charged, &mut |event, keeper| {
            self.take(event, &keeper, seen)
        })
    }

    fn take(&self, event: Event, keeper: &Option<Keeper>, seen: &mut Seen) -> Next {
        if let Some(id) = event.id {
            seen.last_id = HeaderValue::try_from(id).ok();
        }
        if let Some(retry_ms) = event.retry_ms {
            seen.backoff.ask(Duration::from_millis(retry_ms));
        }
        // Events of other names are none of MCP's, whatever they hold.
        if event.data.is_empty() || !matches!(event.name.as_str(), "" | "message") {
            return Next::More;
        }
        seen.backoff.reset();
        let max = self.transport.http.context.limits.upstream_result_bytes;
        if event.data.len() > max {
            let what =
                format!("its answer is larger than limits.upstream_result_bytes ({max} bytes)");
            seen.found = Some(Err(Failure { stage: Stage::Read, ..Failure::nonsense(what) }));
            return Next::Done;
        }
        let text = Arc::new(event.data);
        let go_on = || self.ear.wait.check().is_ok();
        let read = message::read_kept(&text, keeper, &go_on, |incoming| {
            match self.transport.overhear(incoming, self.post.wire, self.ear) {
                Some(Incoming::Progress { id, params }) if id == self.post.id => {
                    self.ear.notice(Notice::Progress(params));
                }
                Some(Incoming::Answer { id, outcome }) if id == Some(self.post.id) => {
                    seen.found = Some(Ok(outcome));
                }
                Some(Incoming::Malformed { id, what }) if id == self.post.id => {
                    seen.found = Some(Err(malformed(&what)));
                }
                Some(
                    Incoming::Answer { id: Some(_), .. }
                    | Incoming::Malformed { .. }
                    | Incoming::Progress { .. },
                ) => (),
                Some(Incoming::Nonsense(what)) => {
                    log::debug!(target: "upstream", "{}: an event is no message: {}",
                        self.transport.http.context.name(), cut(&what));
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
    pub(crate) fn resume(
        &mut self,
        connection: &mut HttpConnection,
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
            let failed = match self.ask_again(connection, last_id.clone()) {
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
                | FailureKind::Nonsense
                | FailureKind::Overloaded => return Err(failure),
            }
        }
    }

    fn ask_again(
        &self,
        connection: &mut HttpConnection,
        last_id: HeaderValue,
    ) -> Result<HttpResponse<'a>, Failure> {
        let http = &self.transport.http;
        let mut headers = self.post.get.clone();
        headers.insert(HeaderName::from_static(LAST_EVENT_ID), last_id);
        let (method, endpoint) = (&HttpMethod::GET, &*http.endpoint);
        let ask = HttpRequest { method, endpoint, headers: &headers, body: None };
        let client = connection.client(&http.factory);
        let answer = client.run_heeding_bell(self.ear.wait, ask, self.ear)?;
        match verdict(&answer, Phase::WithId == self.post.phase) {
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

pub(crate) fn broke_off(what: &str) -> Failure {
    Failure { sent: true, ..Failure::new(FailureKind::Broke, Stage::Read, what) }
}

pub(crate) fn not_ours(incoming: &Incoming) -> Failure {
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
