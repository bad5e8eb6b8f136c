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
use crate::wait::{Wait, Woken};

use super::http::{HttpCore, Next, StreamThread, Wire, read_events};
use crate::upstream::failure::{self, Kind, Refusal, Trouble, cut, may_replay};
use crate::upstream::http_client::redirect::{Endpoint, Redirected};
use crate::upstream::http_client::reference::{is_same_origin, resolve};
use crate::upstream::http_client::{Answer, Ask, Lane};
use crate::upstream::message::{self, Incoming, Stopped};
use crate::upstream::session::context::{Link, NEVER, Opened, Opener, no_session};
use crate::upstream::session::correlation::Ears;
use crate::upstream::session::dispatch::hear_shared;
use crate::upstream::session::pending::{Inboxes, Waiting};
use crate::upstream::session::single_flight::Door;

/// The transport of one upstream.
pub(crate) struct HttpSse {
    http: Arc<HttpCore>,
    door: Door<Session>,
}

/// An open stream and what belongs to it.
struct Session {
    initialized: Arc<Initialized>,
    wires: Arc<Wires>,
    /// Reads the stream; ends with the session.
    stream: Mutex<Option<StreamThread>>,
}

/// What the calls share with the thread that reads.
struct Wires {
    wire: Arc<Wire>,
    inboxes: Inboxes,
    generation: u64,
}

impl HttpSse {
    pub(crate) fn new(http: Arc<HttpCore>) -> HttpSse {
        let door = Door::new(http.core.generations.clone());
        HttpSse { http, door }
    }

    fn session(
        &self,
        lane: &mut Lane,
        wait: &Arc<Wait>,
        idle: &mut dyn FnMut(),
    ) -> Result<(u64, Arc<Session>), Trouble> {
        if let Some(open) = self.door.current() {
            return Ok(open);
        }
        let tick = self.http.core.limits.heartbeat;
        self.door.open(wait, tick, idle, |generation, idle| {
            let session = self.connect(lane, wait, generation, idle).map_err(|trouble| {
                lane.reset();
                self.http.core.not_opened(generation, trouble.in_handshake())
            })?;
            self.http.core.nudge.opened(generation);
            Ok(session)
        })
    }

    fn connect(
        &self,
        lane: &mut Lane,
        wait: &Arc<Wait>,
        generation: u64,
        idle: &mut dyn FnMut(),
    ) -> Result<Session, Trouble> {
        let (wires, stream) = self.open_stream(wait, generation, idle)?;
        let id = self.http.core.next_id();
        let text = failure::initialize(id, self.http.core.capabilities());
        let answer = {
            let waiting = wires.inboxes.enter(id, wait, Ears::Shut)?;
            let mut sink = Opener { core: &self.http.core, idle };
            wires.call(lane, &waiting, &text, wait, &mut sink)?
        };
        let initialized = Arc::new(failure::read_handshake(answer)?);
        wires.post(lane, &failure::initialized(), wait, &mut || ())?;
        Ok(Session { initialized, wires, stream: Mutex::new(Some(stream)) })
    }

    /// Starts the thread that reads the stream, and waits for the endpoint that it begins with.
    fn open_stream(
        &self,
        wait: &Arc<Wait>,
        generation: u64,
        idle: &mut dyn FnMut(),
    ) -> Result<(Arc<Wires>, StreamThread), Trouble> {
        let failed = |error: std::io::Error| {
            Trouble::new(Kind::Nonsense, Stage::Connect, error.to_string())
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
        let name = self.http.core.thread_name("sse");
        let thread = spawn(&name, move || reader.run()).map_err(failed)?;
        let stream = StreamThread { wait: stream_wait, thread: Some(thread) };
        let wires = self.endpoint(wait, &told, idle)?;
        Ok((wires, stream))
    }

    fn endpoint(
        &self,
        wait: &Arc<Wait>,
        told: &Receiver<Result<Arc<Wires>, Trouble>>,
        idle: &mut dyn FnMut(),
    ) -> Result<Arc<Wires>, Trouble> {
        loop {
            if let Ok(told) = told.try_recv() {
                return told;
            }
            match wait.until(None, Some(self.http.core.limits.heartbeat)) {
                Ok(Woken::Tick) => idle(),
                Ok(Woken::Bell | Woken::Ready) => (),
                Err(reason) => {
                    return Err(Trouble::interrupted(reason, Stage::Handshake, false));
                }
            }
        }
    }

    /// Sends a request over a session, once.
    fn attempt(
        &self,
        lane: &mut Lane,
        session: &Session,
        outgoing: &Outgoing<'_>,
        wait: &Arc<Wait>,
        sink: &mut dyn CallSink,
    ) -> Result<Outcome, Trouble> {
        let id = self.http.core.next_id();
        let text = outgoing.to_message(&RequestId::from(id));
        let wires = &session.wires;
        let answer = wires
            .inboxes
            .enter(id, wait, Ears::of(sink))
            .and_then(|waiting| wires.call(lane, &waiting, &text, wait, sink));
        let trouble = match answer {
            Ok(answer) => return self.http.core.outcome(answer),
            Err(trouble) => trouble,
        };
        lane.reset();
        self.after(&trouble, session, id, outgoing.charged.as_ref());
        Err(trouble)
    }

    /// What a failed request means for the session and for the upstream.
    fn after(
        &self,
        trouble: &Trouble,
        session: &Session,
        id: u64,
        charged: Option<&PrincipalId>,
    ) {
        let generation = session.wires.generation;
        match &trouble.kind {
            // The stream may be well where a POST broke off.
            Kind::Broke if !trouble.sent || session.wires.inboxes.is_lost() => {
                drop(self.door.forget(generation));
                self.http.core.nudge.lost(generation, trouble.clone());
            }
            Kind::Interrupted(reason) if trouble.sent => {
                session.wires.wire.cancel(id, *reason, charged);
            }
            Kind::SessionGone
            | Kind::Broke
            | Kind::Interrupted(_)
            | Kind::Refused(_)
            | Kind::Nonsense
            | Kind::Overloaded => (),
        }
    }
}

impl Link for HttpSse {
    fn open(&self, lane: &mut Lane, wait: &Arc<Wait>) -> Result<Opened, Trouble> {
        let (generation, session) = self.session(lane, wait, &mut || ())?;
        Ok(Opened { generation, initialized: session.initialized.clone() })
    }

    fn request(
        &self,
        lane: &mut Lane,
        outgoing: &Outgoing<'_>,
        wait: &Arc<Wait>,
        sink: &mut dyn CallSink,
    ) -> Result<Outcome, Trouble> {
        let mut replayed = false;
        loop {
            let (generation, session) = self.session(lane, wait, &mut || sink.silence())?;
            let trouble = match self.attempt(lane, &session, outgoing, wait, sink) {
                Ok(outcome) => return Ok(outcome),
                Err(trouble) => trouble,
            };
            if trouble.kind == Kind::SessionGone {
                drop(self.door.forget(generation));
            }
            if replayed || !may_replay(&trouble, outgoing.is_safe_to_repeat) {
                if trouble.kind == Kind::SessionGone {
                    // Whoever looks after the session opens another.
                    self.http.core.nudge.lost(generation, trouble.clone());
                }
                return Err(trouble);
            }
            replayed = true;
        }
    }

    fn request_open(
        &self,
        lane: &mut Lane,
        outgoing: &Outgoing<'_>,
        wait: &Arc<Wait>,
        sink: &mut dyn CallSink,
    ) -> Result<Outcome, Trouble> {
        let (_, session) = self.door.current().ok_or_else(no_session)?;
        self.attempt(lane, &session, outgoing, wait, sink)
    }

    fn forget(&self, generation: u64) {
        drop(self.door.forget(generation));
    }

    fn leave(&self) {
        if let Some((generation, _)) = self.door.current() {
            drop(self.door.forget(generation));
        }
    }

    fn backing_off(&self, _: &Trouble, _: Instant) {
        // It may be another one when it is back.
        self.http.core.redirected.forget();
    }

    fn tell(&self, whose: &PrincipalId, text: String) {
        if let Some((_, session)) = self.door.current() {
            session.wires.wire.notify(whose, text);
        }
    }

    fn is_open(&self) -> bool {
        self.door.current().is_some()
    }

    fn close(&self) {
        if let Some(session) = self.door.close() {
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

impl Wires {
    /// POSTs a request and waits for its answer on the stream.
    fn call(
        &self,
        lane: &mut Lane,
        waiting: &Waiting<'_>,
        text: &str,
        wait: &Arc<Wait>,
        sink: &mut dyn CallSink,
    ) -> Result<Result<Raw, RpcError>, Trouble> {
        self.post(lane, text, wait, &mut || sink.silence())?;
        waiting.answer(wait, self.wire.http.core.limits.heartbeat, sink)
    }

    fn post(
        &self,
        lane: &mut Lane,
        text: &str,
        wait: &Arc<Wait>,
        idle: &mut dyn FnMut(),
    ) -> Result<(), Trouble> {
        let Wire { http, endpoint, post } = &*self.wire;
        let ask = Ask { method: &HttpMethod::POST, endpoint, headers: post, body: Some(text) };
        let mut answer = lane.client(&http.factory).run(wait, ask, idle)?;
        let body = answer.read_to_end(UPSTREAM_DRAIN_BYTES_MAX, "a bound", idle);
        match answer.status {
            200..300 => body.map(drop),
            404 => Err(http.refused(Kind::SessionGone, &answer, "")),
            status => {
                let text = String::from_utf8_lossy(&body.unwrap_or_default()).into_owned();
                let gone = status == 400 && text.to_ascii_lowercase().contains("session");
                let kind = if gone { Kind::SessionGone } else { Kind::Refused(Refusal::Plain) };
                Err(http.refused(kind, &answer, &text))
            }
        }
    }
}

/// What the thread of the stream owns.
struct Reader {
    http: Arc<HttpCore>,
    wait: Arc<Wait>,
    /// Rung when there is something to tell.
    opener: Arc<Wait>,
    tell: Sender<Result<Arc<Wires>, Trouble>>,
    generation: u64,
    wires: Option<Arc<Wires>>,
    /// Lines about what is no message.
    nonsense: Seldom,
}

impl Reader {
    fn run(mut self) {
        let trouble = self.read();
        let Some(wires) = &self.wires else { return self.told(Err(trouble)) };
        wires.inboxes.lose(&trouble);
        if !matches!(trouble.kind, Kind::Interrupted(_)) {
            self.http.core.nudge.lost(self.generation, trouble);
        }
    }

    fn told(&self, news: Result<Arc<Wires>, Trouble>) {
        // Nobody listens any more if the opener's wait has ended.
        self.tell.try_send(news).ok();
        self.opener.bell().ring();
    }

    /// Reads the stream to its end; why it ended.
    fn read(&mut self) -> Trouble {
        let http = self.http.clone();
        let (method, endpoint) = (&HttpMethod::GET, &*http.endpoint);
        let ask = Ask { method, endpoint, headers: &http.get, body: None };
        let mut lane = Lane::default();
        let wait = self.wait.clone();
        let mut answer = match lane.client(&http.factory).run(&wait, ask, &mut || ()) {
            Ok(answer) => answer,
            Err(trouble) => return trouble,
        };
        if let Err(trouble) = check(&http, &mut answer) {
            return trouble;
        }
        let (mut wrong, base) = (None, answer.uri.clone());
        let ended =
            read_events(&mut answer, &http.core, None, &mut || (), &mut |event, keeper| {
                match self.take(&base, event, &keeper) {
                    Ok(next) => next,
                    Err(trouble) => {
                        wrong = Some(trouble);
                        Next::Done
                    }
                }
            });
        match (wrong, ended) {
            (Some(trouble), _) | (None, Err(trouble)) => trouble,
            (None, Ok(_)) => Trouble::new(Kind::Broke, Stage::Read, "its stream ended"),
        }
    }

    /// Where the messages of the session go. Another origin is refused: the configured headers
    /// must not go elsewhere (as the official clients do).
    fn endpoint(&self, base: &Uri, reference: &str) -> Result<Endpoint, Trouble> {
        // It names the session, and is as good as a key there.
        let core = &self.http.core;
        secrets::in_reference(reference).into_iter().for_each(|it| core.secrets.learn(it));
        let uri = resolve(base, reference).filter(|uri| is_same_origin(uri, base));
        let uri = uri.ok_or_else(|| {
            let told = cut(&redact::url(reference));
            Trouble::nonsense(format!("its endpoint is no URL of the same origin: {told}"))
        })?;
        // It is the session's own, and so is where it redirects to.
        let redirected = Redirected::new(core.name().clone(), core.secrets.clone());
        Ok(Endpoint::new(uri, Arc::new(redirected)))
    }

    /// `base` is where the stream comes from.
    fn take(
        &mut self,
        base: &Uri,
        event: Event,
        keeper: &Option<Keeper>,
    ) -> Result<Next, Trouble> {
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
            let wires = Arc::new(Wires {
                wire: Arc::new(Wire { http, endpoint: Arc::new(endpoint), post }),
                inboxes: Inboxes::default(),
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
        let max = self.http.core.limits.upstream_result_bytes;
        let text = Arc::new(event.data);
        let answered = wires.inboxes.n_answered();
        let go_on = || !self.http.core.nudge.is_stopped();
        let read = message::read_kept(&text, keeper, &go_on, |incoming| {
            if let Incoming::Answer { id: Some(id), outcome: Ok(result) } = &incoming
                && result.get().len() > max
            {
                let what = format!(
                    "its answer is larger than limits.upstream_result_bytes ({max} bytes)"
                );
                let trouble = Trouble { stage: Stage::Read, ..Trouble::nonsense(what) };
                return wires.inboxes.fail(Some(*id), &trouble);
            }
            let core = &self.http.core;
            match hear_shared(core, &wires.inboxes, incoming, &wires.wire) {
                Some(Incoming::Nonsense(what)) => {
                    if let Some(more) = self.nonsense.turn() {
                        log::warn!(target: "upstream", "{}: an event is no message: {what}{more}",
                            core.name());
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
        let is_answer = wires.inboxes.n_answered() != answered;
        Ok(if is_answer { Next::Answered } else { Next::More })
    }
}

/// Whether an answer to the GET is the stream.
fn check(http: &HttpCore, answer: &mut Answer) -> Result<(), Trouble> {
    let streams = answer.header("content-type").is_some_and(is_event_stream);
    match answer.status {
        200 if streams => Ok(()),
        200 => Err(Trouble::nonsense("its answer to GET is no stream")),
        _ => {
            let body = answer.read_to_end(UPSTREAM_DRAIN_BYTES_MAX, "a bound", &mut || ());
            let text = String::from_utf8_lossy(&body.unwrap_or_default()).into_owned();
            Err(http.refused(Kind::Refused(Refusal::Plain), answer, &text))
        }
    }
}
