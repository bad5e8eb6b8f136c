//! HTTP+SSE (2024-11-05, basic/transports): one stream on which everything comes, and an
//! endpoint to which everything is POSTed.

use std::sync::{Arc, Mutex, PoisonError};

use crossbeam_channel::{Receiver, Sender, bounded};
use ureq::http::{Method as HttpMethod, Uri};

use crate::config::secrets;
use crate::error::Stage;
use crate::limits::UPSTREAM_DRAIN_BYTES_MAX;
use crate::protocol::call::{CallSink, Outcome, PrincipalId};
use crate::protocol::headers::is_event_stream;
use crate::protocol::jsonrpc::RequestId;
use crate::protocol::legacy::Initialized;
use crate::protocol::raw::Keeper;
use crate::protocol::sse::Event;
use crate::telemetry::Seldom;
use crate::telemetry::redact;
use crate::thread::spawn;
use crate::wait::Wait;

use super::answer::Response;
use super::http::{HttpContext, Next, StreamThread, Wire, is_message, read_events};
use super::refused_status::error_text;
use super::{Channel, Closing, RequestAttempt};
use crate::upstream::failure::{Failure, FailureKind, Refusal, cut};
use crate::upstream::handshake;
use crate::upstream::http_client::redirect::{Endpoint, Redirected};
use crate::upstream::http_client::reference::{is_same_origin, resolve};
use crate::upstream::http_client::{HttpConnection, HttpRequest, HttpResponse};
use crate::upstream::message::{self, Incoming, Stopped};
use crate::upstream::session::context::{NEVER, Opener};
use crate::upstream::session::correlation::Interest;
use crate::upstream::session::dispatch::hear_shared;
use crate::upstream::session::pending::{PendingRequests, Waiting};

/// An open stream and what belongs to it.
struct HttpSse {
    initialized: Arc<Initialized>,
    shared: Arc<SseShared>,
    /// Reads the stream; ends with the session.
    stream: Mutex<Option<StreamThread>>,
}

/// What the calls share with the thread that reads.
struct SseShared {
    wire: Arc<Wire>,
    pending: PendingRequests,
}

/// Opens the stream of a session of that generation, and initializes it.
pub(super) fn connect(
    http: &Arc<HttpContext>,
    connection: &mut HttpConnection,
    wait: &Arc<Wait>,
    generation: u64,
) -> Result<Box<dyn Channel>, Failure> {
    let (shared, stream) = open_stream(http, wait, generation)?;
    let id = http.context.next_id();
    let text = handshake::initialize(id, http.context.capabilities());
    let answer = {
        let waiting = shared.pending.enter(id, wait, Interest::Shut)?;
        shared.call(connection, &waiting, &text, wait, &Opener(&http.context))?
    };
    let initialized = Arc::new(handshake::read_handshake(answer)?);
    shared.post(connection, &handshake::initialized(), wait)?;
    Ok(Box::new(HttpSse { initialized, shared, stream: Mutex::new(Some(stream)) }))
}

/// Starts the thread that reads the stream, and waits for the endpoint that it begins with.
fn open_stream(
    http: &Arc<HttpContext>,
    wait: &Arc<Wait>,
    generation: u64,
) -> Result<(Arc<SseShared>, StreamThread), Failure> {
    let failed = |error: std::io::Error| {
        Failure::new(FailureKind::Nonsense, Stage::Connect, error.to_string())
    };
    let (tell, told) = bounded(1);
    let stream_wait = Wait::plain(NEVER).map_err(failed)?;
    let reader = Reader {
        http: http.clone(),
        wait: stream_wait.clone(),
        opener: wait.clone(),
        tell,
        generation,
        shared: None,
        nonsense: Seldom::default(),
    };
    let thread =
        spawn(&http.context.thread_name("sse"), move || reader.run()).map_err(failed)?;
    let stream = StreamThread { wait: stream_wait, thread: Some(thread) };
    let shared = endpoint(wait, &told)?;
    Ok((shared, stream))
}

/// Waits for the endpoint that a stream begins with.
fn endpoint(
    wait: &Arc<Wait>,
    told: &Receiver<Result<Arc<SseShared>, Failure>>,
) -> Result<Arc<SseShared>, Failure> {
    loop {
        if let Ok(told) = told.try_recv() {
            return told;
        }
        wait.until(None, None)
            .map_err(|reason| Failure::interrupted(reason, Stage::Handshake, false))?;
    }
}

impl Channel for HttpSse {
    fn initialized(&self) -> &Arc<Initialized> {
        &self.initialized
    }

    // Everything comes on the stream that is open already.
    fn begin(&self, _: u64, _: &Wait) {}

    fn request(
        &self,
        connection: &mut HttpConnection,
        attempt: RequestAttempt<'_>,
    ) -> Result<Outcome, Failure> {
        let RequestAttempt { outgoing, wait, sink, .. } = attempt;
        let SseShared { wire, pending } = &*self.shared;
        let context = &wire.http.context;
        let id = context.next_id();
        let text = outgoing.to_message(&RequestId::from(id));
        let answer = pending
            .enter(id, wait, Interest::of(sink))
            .and_then(|waiting| self.shared.call(connection, &waiting, &text, wait, sink));
        answer.and_then(|answer| context.outcome(answer)).inspect_err(|failure| {
            connection.reset();
            wire.cancel_if_sent(failure, id, outgoing.charged.as_ref());
        })
    }

    fn notify(&self, whose: &PrincipalId, text: String) {
        self.shared.wire.notify(whose, text);
    }

    fn close(&self, why: Closing) {
        // The end of the stream is the end of the session. One that was forgotten, or is not
        // used, ends with the last call on it.
        if why == Closing::Ended {
            drop(self.stream.lock().unwrap_or_else(PoisonError::into_inner).take());
        }
    }

    fn word(&self) -> &'static str {
        "sse"
    }

    // It may be well where a POST broke off.
    fn is_lost(&self) -> bool {
        self.shared.pending.is_lost()
    }
}

impl SseShared {
    /// POSTs a request and waits for its answer on the stream.
    fn call(
        &self,
        connection: &mut HttpConnection,
        waiting: &Waiting<'_>,
        text: &str,
        wait: &Arc<Wait>,
        sink: &dyn CallSink,
    ) -> Result<Response, Failure> {
        self.post(connection, text, wait)?;
        waiting.answer(wait, sink)
    }

    fn post(
        &self,
        connection: &mut HttpConnection,
        text: &str,
        wait: &Arc<Wait>,
    ) -> Result<(), Failure> {
        let Wire { http, endpoint, post } = &*self.wire;
        let ask = HttpRequest {
            method: &HttpMethod::POST,
            endpoint,
            headers: post,
            body: Some(text),
        };
        let mut answer = connection.client(&http.factory).run(wait, ask)?;
        let body = answer.read_to_end(UPSTREAM_DRAIN_BYTES_MAX, "a bound");
        match answer.status {
            200..300 => body.map(drop),
            404 => Err(http.refused(FailureKind::SessionGone, &answer, "")),
            status => {
                let text = String::from_utf8_lossy(&body.unwrap_or_default()).into_owned();
                let gone = status == 400 && text.to_ascii_lowercase().contains("session");
                let kind = if gone {
                    FailureKind::SessionGone
                } else {
                    FailureKind::Refused(Refusal::Plain)
                };
                Err(http.refused(kind, &answer, &text))
            }
        }
    }
}

/// What the thread of the stream owns.
struct Reader {
    http: Arc<HttpContext>,
    wait: Arc<Wait>,
    /// Rung when there is something to tell.
    opener: Arc<Wait>,
    tell: Sender<Result<Arc<SseShared>, Failure>>,
    generation: u64,
    shared: Option<Arc<SseShared>>,
    /// Lines about what is no message.
    nonsense: Seldom,
}

impl Reader {
    fn run(mut self) {
        let failure = self.read();
        let Some(shared) = &self.shared else { return self.told(Err(failure)) };
        shared.pending.lose(&failure);
        if !matches!(failure.kind, FailureKind::Interrupted(_)) {
            self.http.context.mailbox.lost(self.generation, failure);
        }
    }

    fn told(&self, news: Result<Arc<SseShared>, Failure>) {
        // Nobody listens any more if the opener's wait has ended.
        self.tell.try_send(news).ok();
        self.opener.bell().ring();
    }

    /// Reads the stream to its end; why it ended.
    fn read(&mut self) -> Failure {
        let http = self.http.clone();
        let (method, endpoint) = (&HttpMethod::GET, &*http.endpoint);
        let ask = HttpRequest { method, endpoint, headers: &http.get, body: None };
        let mut connection = HttpConnection::default();
        let wait = self.wait.clone();
        let mut answer = match connection.client(&http.factory).run(&wait, ask) {
            Ok(answer) => answer,
            Err(failure) => return failure,
        };
        if let Err(failure) = check(&http, &mut answer) {
            return failure;
        }
        let (mut wrong, base) = (None, answer.uri.clone());
        let ended =
            read_events(&mut answer, &http.context, None, &mut |event, keeper| match self
                .take(&base, event, &keeper)
            {
                Ok(next) => next,
                Err(failure) => {
                    wrong = Some(failure);
                    Next::Done
                }
            });
        match (wrong, ended) {
            (Some(failure), _) | (None, Err(failure)) => failure,
            (None, Ok(_)) => Failure::new(FailureKind::Broke, Stage::Read, "its stream ended"),
        }
    }

    /// Where the messages of the session go. Another origin is refused: the configured headers
    /// must not go elsewhere (as the official clients do).
    fn endpoint(&self, base: &Uri, reference: &str) -> Result<Endpoint, Failure> {
        // It names the session, and is as good as a key there.
        let context = &self.http.context;
        secrets::in_reference(reference).into_iter().for_each(|it| context.secrets.learn(it));
        let uri = resolve(base, reference).filter(|uri| is_same_origin(uri, base));
        let uri = uri.ok_or_else(|| {
            let told = cut(&redact::url(reference));
            Failure::nonsense(format!("its endpoint is no URL of the same origin: {told}"))
        })?;
        // It is the session's own, and so is where it redirects to.
        let redirected = Redirected::new(context.name().clone(), context.secrets.clone());
        Ok(Endpoint::new(uri, Arc::new(redirected)))
    }

    /// `base` is where the stream comes from.
    fn take(
        &mut self,
        base: &Uri,
        event: Event,
        keeper: &Option<Keeper>,
    ) -> Result<Next, Failure> {
        // What has no data is no event (HTML, section 9.2.6).
        if event.data.is_empty() {
            return Ok(Next::More);
        }
        let Some(shared) = &self.shared else {
            // Whatever comes before it cannot be answered.
            if event.name != "endpoint" {
                return Ok(Next::More);
            }
            let endpoint = self.endpoint(base, &event.data)?;
            let (http, post) = (self.http.clone(), Arc::new(self.http.post.clone()));
            let shared = Arc::new(SseShared {
                wire: Arc::new(Wire { http, endpoint: Arc::new(endpoint), post }),
                pending: PendingRequests::default(),
            });
            self.shared = Some(shared.clone());
            self.told(Ok(shared));
            return Ok(Next::More);
        };
        if !is_message(&event) {
            return Ok(Next::More);
        }
        let max = self.http.context.limits.upstream_result_bytes;
        let text = Arc::new(event.data);
        let answered = shared.pending.n_answered();
        let go_on = || !self.http.context.mailbox.is_stopped();
        let read = message::read_kept(&text, keeper, &go_on, |incoming| {
            if let Incoming::Answer { id: Some(id), outcome: Ok(result) } = &incoming
                && result.get().len() > max
            {
                return shared.pending.fail(Some(*id), &Failure::too_large(max));
            }
            let context = &self.http.context;
            let left = hear_shared(context, &shared.pending, incoming, &shared.wire);
            if let Some(Incoming::Nonsense(what)) = left
                && let Some(more) = self.nonsense.turn()
            {
                log::warn!(target: "upstream", "{}: an event is no message: {what}{more}",
                    context.name());
            }
        });
        if let Err(Stopped) = read {
            return Ok(Next::Done);
        }
        let is_answer = shared.pending.n_answered() != answered;
        Ok(if is_answer { Next::Answered } else { Next::More })
    }
}

/// Whether an answer to the GET is the stream.
fn check(http: &HttpContext, answer: &mut HttpResponse<'_>) -> Result<(), Failure> {
    let streams = answer.header("content-type").is_some_and(is_event_stream);
    match answer.status {
        200 if streams => Ok(()),
        200 => Err(Failure::nonsense("its answer to GET is no stream")),
        _ => {
            let text = error_text(answer);
            Err(http.refused(FailureKind::Refused(Refusal::Plain), answer, &text))
        }
    }
}
