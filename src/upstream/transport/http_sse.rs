//! HTTP+SSE (2024-11-05, basic/transports): one stream on which everything comes, and an
//! endpoint to which everything is POSTed.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, bounded};
use ureq::http::{Method as HttpMethod, Uri};

use crate::config::secrets;
use crate::error::Stage;
use crate::limits::UPSTREAM_DRAIN_BYTES_MAX;
use crate::protocol::call::{CallSink, Outcome, Outgoing, PrincipalId};
use crate::protocol::headers::is_event_stream;
use crate::protocol::jsonrpc::{RequestId, RpcError};
use crate::protocol::legacy::Initialized;
use crate::protocol::raw::{Keeper, Raw};
use crate::protocol::sse::Event;
use crate::telemetry::Seldom;
use crate::telemetry::redact;
use crate::thread::spawn;
use crate::upstream::handshake;
use crate::wait::Wait;

use super::http::{HttpContext, Next, StreamThread, Wire, read_events};
use crate::upstream::failure::{Failure, FailureKind, Refusal, cut, may_replay};
use crate::upstream::http_client::redirect::{Endpoint, Redirected};
use crate::upstream::http_client::reference::{is_same_origin, resolve};
use crate::upstream::http_client::{HttpConnection, HttpRequest, HttpResponse};
use crate::upstream::message::{self, Incoming, Stopped};
use crate::upstream::session::context::{NEVER, Opened, Opener, Transport, no_session};
use crate::upstream::session::correlation::Interest;
use crate::upstream::session::dispatch::hear_shared;
use crate::upstream::session::pending::{PendingRequests, Waiting};
use crate::upstream::session::single_flight::SingleFlight;

/// The transport of one upstream.
pub(crate) struct HttpSse {
    http: Arc<HttpContext>,
    single_flight: SingleFlight<Session>,
}

/// An open stream and what belongs to it.
struct Session {
    initialized: Arc<Initialized>,
    wires: Arc<SseChannel>,
    /// Reads the stream; ends with the session.
    stream: Mutex<Option<StreamThread>>,
}

/// What the calls share with the thread that reads.
struct SseChannel {
    wire: Arc<Wire>,
    pending: PendingRequests,
    generation: u64,
}

impl HttpSse {
    pub(crate) fn new(http: Arc<HttpContext>) -> HttpSse {
        let single_flight = SingleFlight::new(http.context.generations.clone());
        HttpSse { http, single_flight }
    }

    fn session(
        &self,
        connection: &mut HttpConnection,
        wait: &Arc<Wait>,
    ) -> Result<(u64, Arc<Session>), Failure> {
        if let Some(open) = self.single_flight.current() {
            return Ok(open);
        }
        self.single_flight.open(wait, |generation| {
            let session = self.connect(connection, wait, generation).map_err(|failure| {
                connection.reset();
                self.http.context.not_opened(generation, failure.in_handshake())
            })?;
            self.http.context.mailbox.opened(generation);
            Ok(session)
        })
    }

    fn connect(
        &self,
        connection: &mut HttpConnection,
        wait: &Arc<Wait>,
        generation: u64,
    ) -> Result<Session, Failure> {
        let (wires, stream) = self.open_stream(wait, generation)?;
        let id = self.http.context.next_id();
        let text = handshake::initialize(id, self.http.context.capabilities());
        let answer = {
            let waiting = wires.pending.enter(id, wait, Interest::Shut)?;
            wires.call(connection, &waiting, &text, wait, &Opener(&self.http.context))?
        };
        let initialized = Arc::new(handshake::read_handshake(answer)?);
        wires.post(connection, &handshake::initialized(), wait)?;
        Ok(Session { initialized, wires, stream: Mutex::new(Some(stream)) })
    }

    /// Starts the thread that reads the stream, and waits for the endpoint that it begins with.
    fn open_stream(
        &self,
        wait: &Arc<Wait>,
        generation: u64,
    ) -> Result<(Arc<SseChannel>, StreamThread), Failure> {
        let failed = |error: std::io::Error| {
            Failure::new(FailureKind::Nonsense, Stage::Connect, error.to_string())
        };
        let (tell, told) = bounded(1);
        let stream_wait = Wait::plain(NEVER).map_err(failed)?;
        let reader = Reader {
            http: self.http.clone(),
            wait: stream_wait.clone(),
            opener: wait.clone(),
            tell,
            generation,
            wires: None,
            nonsense: Seldom::default(),
        };
        let name = self.http.context.thread_name("sse");
        let thread = spawn(&name, move || reader.run()).map_err(failed)?;
        let stream = StreamThread { wait: stream_wait, thread: Some(thread) };
        let wires = endpoint(wait, &told)?;
        Ok((wires, stream))
    }

    /// Sends a request over a session, once.
    fn attempt(
        &self,
        connection: &mut HttpConnection,
        session: &Session,
        outgoing: &Outgoing<'_>,
        wait: &Arc<Wait>,
        sink: &dyn CallSink,
    ) -> Result<Outcome, Failure> {
        let id = self.http.context.next_id();
        let text = outgoing.to_message(&RequestId::from(id));
        let wires = &session.wires;
        let answer = wires
            .pending
            .enter(id, wait, Interest::of(sink))
            .and_then(|waiting| wires.call(connection, &waiting, &text, wait, sink));
        let failure = match answer {
            Ok(answer) => return self.http.context.outcome(answer),
            Err(failure) => failure,
        };
        connection.reset();
        self.after(&failure, session, id, outgoing.charged.as_ref());
        Err(failure)
    }

    /// What a failed request means for the session and for the upstream.
    fn after(
        &self,
        failure: &Failure,
        session: &Session,
        id: u64,
        charged: Option<&PrincipalId>,
    ) {
        let generation = session.wires.generation;
        match &failure.kind {
            // The stream may be well where a POST broke off.
            FailureKind::Broke if !failure.sent || session.wires.pending.is_lost() => {
                drop(self.single_flight.forget(generation));
                self.http.context.mailbox.lost(generation, failure.clone());
            }
            FailureKind::Interrupted(reason) if failure.sent => {
                session.wires.wire.cancel(id, *reason, charged);
            }
            FailureKind::SessionGone
            | FailureKind::Broke
            | FailureKind::Interrupted(_)
            | FailureKind::Refused(_)
            | FailureKind::Nonsense
            | FailureKind::Overloaded => (),
        }
    }
}

/// Waits for the endpoint that a stream begins with.
fn endpoint(
    wait: &Arc<Wait>,
    told: &Receiver<Result<Arc<SseChannel>, Failure>>,
) -> Result<Arc<SseChannel>, Failure> {
    loop {
        if let Ok(told) = told.try_recv() {
            return told;
        }
        wait.until(None, None)
            .map_err(|reason| Failure::interrupted(reason, Stage::Handshake, false))?;
    }
}

impl Transport for HttpSse {
    fn open(
        &self,
        connection: &mut HttpConnection,
        wait: &Arc<Wait>,
    ) -> Result<Opened, Failure> {
        let (generation, session) = self.session(connection, wait)?;
        Ok(Opened { generation, initialized: session.initialized.clone() })
    }

    fn request(
        &self,
        connection: &mut HttpConnection,
        outgoing: &Outgoing<'_>,
        wait: &Arc<Wait>,
        sink: &dyn CallSink,
    ) -> Result<Outcome, Failure> {
        let mut replayed = false;
        loop {
            let (generation, session) = self.session(connection, wait)?;
            let failure = match self.attempt(connection, &session, outgoing, wait, sink) {
                Ok(outcome) => return Ok(outcome),
                Err(failure) => failure,
            };
            if failure.kind == FailureKind::SessionGone {
                drop(self.single_flight.forget(generation));
            }
            if replayed || !may_replay(&failure, outgoing.is_safe_to_repeat) {
                if failure.kind == FailureKind::SessionGone {
                    // Whoever looks after the session opens another.
                    self.http.context.mailbox.lost(generation, failure.clone());
                }
                return Err(failure);
            }
            replayed = true;
        }
    }

    fn request_open(
        &self,
        connection: &mut HttpConnection,
        outgoing: &Outgoing<'_>,
        wait: &Arc<Wait>,
        sink: &dyn CallSink,
    ) -> Result<Outcome, Failure> {
        let (_, session) = self.single_flight.current().ok_or_else(no_session)?;
        self.attempt(connection, &session, outgoing, wait, sink)
    }

    fn forget(&self, generation: u64) {
        drop(self.single_flight.forget(generation));
    }

    fn leave(&self) {
        if let Some((generation, _)) = self.single_flight.current() {
            drop(self.single_flight.forget(generation));
        }
    }

    fn backing_off(&self, _: &Failure, _: Instant) {
        // It may be another one when it is back.
        self.http.context.redirected.forget();
    }

    fn tell(&self, whose: &PrincipalId, text: String) {
        if let Some((_, session)) = self.single_flight.current() {
            session.wires.wire.notify(whose, text);
        }
    }

    fn is_open(&self) -> bool {
        self.single_flight.current().is_some()
    }

    fn close(&self) {
        if let Some(session) = self.single_flight.close() {
            let stream = session.stream.lock().unwrap_or_else(PoisonError::into_inner).take();
            // The end of the stream is the end of the session.
            drop(stream);
        }
        self.http.close_control();
    }

    fn transport(&self) -> &'static str {
        "sse"
    }
}

impl SseChannel {
    /// POSTs a request and waits for its answer on the stream.
    fn call(
        &self,
        connection: &mut HttpConnection,
        waiting: &Waiting<'_>,
        text: &str,
        wait: &Arc<Wait>,
        sink: &dyn CallSink,
    ) -> Result<Result<Raw, RpcError>, Failure> {
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
    tell: Sender<Result<Arc<SseChannel>, Failure>>,
    generation: u64,
    wires: Option<Arc<SseChannel>>,
    /// Lines about what is no message.
    nonsense: Seldom,
}

impl Reader {
    fn run(mut self) {
        let failure = self.read();
        let Some(wires) = &self.wires else { return self.told(Err(failure)) };
        wires.pending.lose(&failure);
        if !matches!(failure.kind, FailureKind::Interrupted(_)) {
            self.http.context.mailbox.lost(self.generation, failure);
        }
    }

    fn told(&self, news: Result<Arc<SseChannel>, Failure>) {
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
        let Some(wires) = &self.wires else {
            // Whatever comes before it cannot be answered.
            if event.name != "endpoint" {
                return Ok(Next::More);
            }
            let endpoint = self.endpoint(base, &event.data)?;
            let (http, post) = (self.http.clone(), Arc::new(self.http.post.clone()));
            let wires = Arc::new(SseChannel {
                wire: Arc::new(Wire { http, endpoint: Arc::new(endpoint), post }),
                pending: PendingRequests::default(),
                generation: self.generation,
            });
            self.wires = Some(wires.clone());
            self.told(Ok(wires));
            return Ok(Next::More);
        };
        // Events of other names are none of MCP's, whatever they hold.
        if !matches!(event.name.as_str(), "" | "message") {
            return Ok(Next::More);
        }
        let max = self.http.context.limits.upstream_result_bytes;
        let text = Arc::new(event.data);
        let answered = wires.pending.n_answered();
        let go_on = || !self.http.context.mailbox.is_stopped();
        let read = message::read_kept(&text, keeper, &go_on, |incoming| {
            if let Incoming::Answer { id: Some(id), outcome: Ok(result) } = &incoming
                && result.get().len() > max
            {
                let what = format!(
                    "its answer is larger than limits.upstream_result_bytes ({max} bytes)"
                );
                let failure = Failure { stage: Stage::Read, ..Failure::nonsense(what) };
                return wires.pending.fail(Some(*id), &failure);
            }
            let context = &self.http.context;
            match hear_shared(context, &wires.pending, incoming, &wires.wire) {
                Some(Incoming::Nonsense(what)) => {
                    if let Some(more) = self.nonsense.turn() {
                        log::warn!(target: "upstream", "{}: an event is no message: {what}{more}",
                            context.name());
                    }
                }
                Some(
                    Incoming::Answer { .. }
                    | Incoming::Malformed { .. }
                    | Incoming::Progress { .. }
                    | Incoming::ListChanged(_)
                    | Incoming::Withdrawn(_)
                    | Incoming::Notice(_)
                    | Incoming::Misread { .. }
                    | Incoming::Ask { .. },
                )
                | None => (),
            }
        });
        if let Err(Stopped) = read {
            return Ok(Next::Done);
        }
        let is_answer = wires.pending.n_answered() != answered;
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
            let body = answer.read_to_end(UPSTREAM_DRAIN_BYTES_MAX, "a bound");
            let text = String::from_utf8_lossy(&body.unwrap_or_default()).into_owned();
            Err(http.refused(FailureKind::Refused(Refusal::Plain), answer, &text))
        }
    }
}
