//! Scripted HTTP servers, and upstreams that talk to them.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, bounded};
use trunkline::budget::Budget;
use trunkline::config::{
    Credentials, HttpKind, HttpTarget, Pin, Role, Secret, SessionSharing, Target,
    UpstreamConfig,
};
use trunkline::error::CallError;
use trunkline::limits::Limits;
use trunkline::pipeline::session_route::route_session;
use trunkline::protocol::call::{About, CallSink, Client, Kind, Notice, Outcome, Outgoing};
use trunkline::protocol::credentials_id::CredentialsId;
use trunkline::protocol::listed_item::ReadItem;
use trunkline::protocol::question::Question;
use trunkline::protocol::raw::{Raw, RawObject};
use trunkline::protocol::server_name::ServerName;
use trunkline::protocol::session_route::SessionRoute;
use trunkline::upstream::authorization::{Authorizations, Setup};
use trunkline::upstream::{Event, Report, ServerEvents, Upstream, Upstreams, Wire};
use trunkline::wait::{Heartbeat, KeepAlive, Wait};

use crate::support::listener::{Incoming, Listener, Next, free_port};

/// Nothing here takes longer unless it is broken.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// A request as the server saw it.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Seen {
    fn of(request: &Incoming) -> Seen {
        Seen {
            method: request.method.clone(),
            path: request.target.clone(),
            headers: request.head.headers.clone(),
            body: request.body.clone(),
        }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let same = |(key, _): &&(String, String)| key.eq_ignore_ascii_case(name);
        self.headers.iter().find(same).map(|(_, value)| value.as_str())
    }

    /// The JSON-RPC method.
    pub(crate) fn rpc(&self) -> String {
        RawObject::parse(&self.body)
            .ok()
            .and_then(|body| body.string("method").ok().flatten())
            .unwrap_or_default()
    }

    /// The session that an HTTP request belongs to.
    pub(crate) fn session(&self) -> String {
        self.header("mcp-session-id").unwrap_or_default().to_owned()
    }

    /// The name of the tool that is called.
    pub(crate) fn tool(&self) -> String {
        let name = self.body.split("\"name\":\"").nth(1).unwrap_or_default();
        name.split('"').next().unwrap_or_default().to_owned()
    }

    /// The JSON-RPC id's text.
    pub(crate) fn id(&self) -> String {
        RawObject::parse(&self.body).unwrap().get("id").unwrap_or("null").to_owned()
    }

    /// A result for this request.
    pub(crate) fn result(&self, result: &str) -> String {
        format!(r#"{{"jsonrpc":"2.0","id":{},"result":{result}}}"#, self.id())
    }
}

type Pour = Box<dyn FnOnce(&mut TcpStream) + Send>;

/// What the server does with a request.
pub(crate) enum Reply {
    /// Status, extra head lines, content type, body.
    Body(u16, String, &'static str, String),
    /// The head of a stream, then whatever is written; the connection is closed afterwards.
    Stream(Pour),
    /// Whatever is written, from the status line on; the connection is closed afterwards.
    Raw(Pour),
    /// The connection is closed without a word.
    Close,
    /// No answer, until the connection is closed by the other side.
    Hang,
}

impl Reply {
    pub(crate) fn json(body: impl Into<String>) -> Reply {
        Reply::Body(200, String::new(), "application/json", body.into())
    }

    pub(crate) fn status(status: u16, body: &str) -> Reply {
        Reply::Body(status, String::new(), "text/plain", body.to_owned())
    }

    /// A whole stream of these events, with a length, so that the connection can be kept.
    pub(crate) fn events(events: &[String]) -> Reply {
        let body = events.iter().map(|data| format!("event: message\ndata: {data}\n\n"));
        Reply::Body(200, String::new(), "text/event-stream", body.collect())
    }

    pub(crate) fn stream(pour: impl FnOnce(&mut TcpStream) + Send + 'static) -> Reply {
        Reply::Stream(Box::new(pour))
    }

    fn write(self, out: &mut TcpStream) -> io::Result<Next> {
        match self {
            Reply::Body(status, extra, kind, body) => {
                let head = format!(
                    "HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\n{extra}content-length: {}\r\n\r\n",
                    body.len()
                );
                out.write_all(head.as_bytes())?;
                out.write_all(body.as_bytes())?;
                return Ok(Next::Keep);
            }
            Reply::Stream(pour) => {
                let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";
                out.write_all(head.as_bytes()).ok();
                pour(out);
            }
            Reply::Raw(pour) => pour(out),
            Reply::Close => (),
            Reply::Hang => {
                out.read_to_end(&mut Vec::new()).ok();
            }
        }
        Ok(Next::Close)
    }
}

/// A server on a free port. It answers each request as its script says.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    listener: Listener,
}

impl Server {
    pub(crate) fn start(script: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Server {
        Server::start_at(([127, 0, 0, 1], free_port()).into(), script)
    }

    pub(crate) fn start_at(
        address: SocketAddr,
        script: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
    ) -> Server {
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let all = seen.clone();
        let listener = Listener::absent_at(address.port(), move |request, out| {
            let seen = Seen::of(request);
            all.lock().unwrap().push(seen.clone());
            script(&seen).write(out)
        });
        listener.start();
        Server { address, seen, listener }
    }

    pub(crate) fn accepted(&self) -> usize {
        self.listener.n_connections()
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// How many requests of this JSON-RPC method came.
    pub(crate) fn count(&self, rpc: &str) -> usize {
        self.seen.lock().unwrap().iter().filter(|seen| seen.rpc() == rpc).count()
    }
}

/// Sends one event on a stream.
pub(crate) fn event(stream: &mut TcpStream, data: &str) {
    stream.write_all(format!("data: {data}\n\n").as_bytes()).ok();
}

/// What a well-behaved server answers to everything but `tools/call`.
pub(crate) fn well(seen: &Seen) -> Reply {
    match (seen.method.as_str(), seen.rpc().as_str()) {
        ("GET", _) => Reply::status(405, ""),
        ("DELETE", _) => Reply::status(200, ""),
        (_, "initialize") => Reply::Body(
            200,
            "Mcp-Session-Id: s1\r\n".to_owned(),
            "application/json",
            seen.result(INITIALIZED),
        ),
        (_, "tools/list") => {
            Reply::json(seen.result(r#"{"tools":[{"name":"echo","inputSchema":{}}]}"#))
        }
        (_, "tools/call") => Reply::json(seen.result(r#"{"content":[]}"#)),
        _ => Reply::status(202, ""),
    }
}

pub(crate) const INITIALIZED: &str = r#"{"protocolVersion":"2025-11-25","capabilities":{"tools":{"listChanged":true}},"serverInfo":{"name":"t","version":"1"}}"#;

/// A server that is well but for `tools/call`.
pub(crate) fn calls(script: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Server {
    Server::start(
        move |seen| if seen.rpc() == "tools/call" { script(seen) } else { well(seen) },
    )
}

pub(crate) fn http(address: SocketAddr, kind: HttpKind) -> UpstreamConfig {
    config(Target::Http(HttpTarget {
        kind,
        url: format!("http://{address}/mcp"),
        headers: vec![("X-Secret".to_owned(), Secret::new("hush".to_owned()))],
        forward_headers: Vec::new(),
        proxy: None,
        ca_file: None,
        oauth: None,
    }))
}

pub(crate) fn config(target: Target) -> UpstreamConfig {
    UpstreamConfig {
        name: ServerName::parse("up").unwrap(),
        alias: None,
        description: None,
        target,
        tools: None,
        start_timeout: Duration::from_secs(5),
        timeout: Duration::from_secs(5),
        timeout_max: Duration::from_secs(10),
        connect_timeout: Duration::from_secs(1),
        max_in_flight: 4,
        max_waiting: 4,
        max_sessions: 4,
        required: false,
        session: SessionSharing::Auto,
        pin: Pin::Off,
        credentials: Credentials::Gateway,
        role: Role::Server,
    }
}

/// One upstream, running.
pub(crate) struct Rig {
    pub(crate) upstreams: Upstreams,
    pub(crate) upstream: Arc<Upstream>,
    pub(crate) reports: Receiver<Report>,
    pub(crate) buffered: Budget,
    pub(crate) unasked: Arc<Heard>,
}

impl Rig {
    pub(crate) fn start(config: UpstreamConfig, limits: Limits) -> Rig {
        let (tell, reports) = bounded(100);
        let name = config.name.clone();
        let buffered = Budget::new(limits.buffered_bytes);
        let (limits, unasked) = (Arc::new(limits), Arc::new(Heard::default()));
        let (mine, heard) = (buffered.clone(), unasked.clone());
        let signing_in = Authorizations::start(Setup::default()).unwrap();
        let upstreams = Upstreams::start(
            &[Arc::new(config)],
            limits,
            mine,
            tell,
            heard,
            BTreeMap::new(),
            signing_in,
        )
        .unwrap();
        let upstream = upstreams.get(&name).unwrap().clone();
        Rig { upstreams, upstream, reports, buffered, unasked }
    }

    /// Streamable HTTP to `server`, ready to be called.
    pub(crate) fn ready(server: &Server) -> Rig {
        let config = http(server.address, HttpKind::StreamableHttp);
        Rig::ready_with(config, Limits::default())
    }

    pub(crate) fn ready_with(config: UpstreamConfig, limits: Limits) -> Rig {
        let rig = Rig::start(config, limits);
        rig.tools();
        rig
    }

    /// The next list of tools; failures before it do not matter.
    #[track_caller]
    pub(crate) fn tools(&self) -> Vec<String> {
        let (lists, _) = self.lists();
        let tools = lists.into_iter().find(|(kind, _)| *kind == Kind::Tool);
        tools.expect("a list of tools").1
    }

    /// The next lists, with the names of the items, and how many were left out.
    #[track_caller]
    pub(crate) fn lists(&self) -> (Vec<(Kind, Vec<String>)>, usize) {
        let until = Instant::now() + PATIENCE;
        loop {
            match self.reports.recv_deadline(until).expect("lists").event {
                Event::Lists { lists, left_out, .. } => {
                    let name = |item: ReadItem| match item {
                        Ok((name, _)) => name,
                        Err(malformed) => malformed.name.unwrap(),
                    };
                    let named = |(kind, items): (Kind, Vec<ReadItem>)| {
                        (kind, items.into_iter().map(name).collect())
                    };
                    return (lists.into_iter().map(named).collect(), left_out);
                }
                Event::Ready { .. }
                | Event::View { .. }
                | Event::ViewFailed
                | Event::NoView { .. }
                | Event::Failed { .. } => (),
            }
        }
    }

    /// The next failure.
    #[track_caller]
    pub(crate) fn failure(&self) -> trunkline::upstream::FailureReport {
        let until = Instant::now() + PATIENCE;
        loop {
            match self.reports.recv_deadline(until).expect("a failure").event {
                Event::Failed { failure, .. } => return failure,
                Event::Ready { .. }
                | Event::Lists { .. }
                | Event::View { .. }
                | Event::ViewFailed
                | Event::NoView { .. } => (),
            }
        }
    }

    pub(crate) fn call(&self) -> Result<Outcome, CallError> {
        self.call_with(&wait(5000), &Sink::default())
    }

    pub(crate) fn call_with(
        &self,
        wait: &Arc<Wait>,
        sink: &Sink,
    ) -> Result<Outcome, CallError> {
        self.call_tool("echo", None, wait, sink)
    }

    pub(crate) fn call_tool(
        &self,
        tool: &str,
        through: Option<&Client>,
        wait: &Arc<Wait>,
        sink: &dyn CallSink,
    ) -> Result<Outcome, CallError> {
        let params = format!(r#"{{"name":"{tool}","arguments":{{}}}}"#);
        let outgoing = Outgoing {
            method: "tools/call",
            is_safe_to_repeat: false,
            params: RawObject::parse(&params).unwrap(),
            meta: None,
            wants_progress: true,
            about: About::default(),
            charged: None,
            mirrored: Vec::new(),
        };
        self.upstream.request(self.route(through), &outgoing, wait, sink)
    }

    /// Which session carries the calls of a client, as the pipeline decides it.
    pub(crate) fn route<'a>(&self, client: Option<&'a Client>) -> SessionRoute<'a> {
        let (support, sharing) =
            (self.upstream.session_support(), self.upstream.config().session);
        route_session(client, None, support, sharing)
    }

    /// A call over the client's own session.
    pub(crate) fn call_through(
        &self,
        client: &Client,
        tool: &str,
    ) -> Result<Outcome, CallError> {
        self.call_tool(tool, Some(client), &wait(5000), &Sink::default())
    }
}

/// A client with a capability of its own, by which it is known.
pub(crate) fn client(name: &str) -> Client {
    let capabilities = format!(r#"{{"elicitation":{{}},"experimental":{{"{name}":{{}}}}}}"#);
    Client {
        session: name.into(),
        is_exclusive: false,
        can_be_asked: true,
        capabilities: Raw::from_valid(capabilities),
        charged: None,
    }
}

/// An answer to a question, by which it is known.
pub(crate) fn answer(text: &str) -> Raw {
    Raw::from_valid(format!(r#"{{"said":"{text}"}}"#))
}

pub(crate) fn wait(timeout_ms: u64) -> Arc<Wait> {
    let latest = Duration::from_secs(10);
    Wait::new(Duration::from_millis(timeout_ms), latest, None).unwrap()
}

/// A client whose connection is kept alive.
#[derive(Default)]
pub(crate) struct Beaten(AtomicUsize);

impl Beaten {
    /// How often it was since the last look.
    pub(crate) fn take(&self) -> usize {
        self.0.swap(0, Ordering::SeqCst)
    }
}

impl KeepAlive for Beaten {
    fn keep_alive(&self, every: Duration) -> Instant {
        self.0.fetch_add(1, Ordering::SeqCst);
        Instant::now() + every
    }
}

/// [`wait`] for that client, with a beat after each silence of `every_ms`.
pub(crate) fn beating(client: &Arc<Beaten>, timeout_ms: u64, every_ms: u64) -> Arc<Wait> {
    let client: Arc<dyn KeepAlive> = client.clone();
    let every = Duration::from_millis(every_ms);
    let heartbeat = Some(Heartbeat { every, client: Arc::downgrade(&client) });
    let (timeout, latest) = (Duration::from_millis(timeout_ms), Duration::from_secs(10));
    Wait::with_heartbeat(timeout, latest, None, heartbeat).unwrap()
}

/// What a call's thread heard. Questions are dropped unless somebody takes them.
#[derive(Default)]
pub(crate) struct Sink {
    notices: Mutex<Vec<Notice>>,
    on_ask: Mutex<Option<OnAsk>>,
}

type OnAsk = Box<dyn FnMut(Question) + Send>;

impl Sink {
    pub(crate) fn asked(on_ask: impl FnMut(Question) + Send + 'static) -> Sink {
        Sink { on_ask: Mutex::new(Some(Box::new(on_ask))), ..Sink::default() }
    }

    pub(crate) fn notices(&self) -> Vec<Notice> {
        self.notices.lock().unwrap().clone()
    }
}

/// What was heard outside of calls.
#[derive(Default)]
pub(crate) struct Heard {
    pub(crate) notices: Mutex<Vec<(Option<Arc<str>>, Notice)>>,
    pub(crate) questions: Mutex<Vec<(Arc<str>, Question)>>,
}

impl ServerEvents for Heard {
    fn notice_of_user(
        &self,
        _: &ServerName,
        _: Option<&Arc<str>>,
        _: CredentialsId,
        _: Notice,
    ) {
    }

    fn users_there(&self) -> std::collections::HashSet<(ServerName, CredentialsId)> {
        std::collections::HashSet::new()
    }

    fn notice(&self, _: &ServerName, client: Option<&Arc<str>>, notice: Notice, _: Wire) {
        self.notices.lock().unwrap().push((client.cloned(), notice));
    }

    fn unattributed(&self, _: &ServerName) {}

    fn ask(&self, _: &ServerName, client: &Arc<str>, question: Question) {
        self.questions.lock().unwrap().push((client.clone(), question));
    }
}

impl CallSink for Sink {
    fn notice(&self, notice: Notice) {
        self.notices.lock().unwrap().push(notice);
    }

    fn ask(&self, question: Question) {
        if let Some(on_ask) = &mut *self.on_ask.lock().unwrap() {
            on_ask(question);
        }
    }
}

/// Waits for a condition.
#[track_caller]
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < until, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[track_caller]
pub(crate) fn text(outcome: Result<Outcome, CallError>) -> String {
    match outcome.unwrap() {
        Outcome::Complete(result) => result.get().to_owned(),
        other @ (Outcome::Error { .. } | Outcome::InputRequired { .. }) => panic!("{other:?}"),
    }
}
