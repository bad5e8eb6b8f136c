//! Many MCP servers at one port, each of which fails in one way at one request: a cell of the
//! table. They count what reaches them.

use std::collections::HashMap;
use std::io;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::faults::{Fault, Peer};
use crate::support::listener::{Incoming, Listener, Next};
use crate::support::upstream_http::{begin_stream, respond, write_event};
use crate::upstream::speech::{error_text, hang, result_text};

pub(super) use crate::upstream::speech::Speech;

/// The request at which it fails: the way on which that is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Path {
    /// `initialize`, the question of the era before it, or the stream of HTTP+SSE.
    Handshake,
    Tools,
    Prompts,
    Resources,
    Templates,
    /// The stream on which a server with sessions speaks unasked.
    Stream,
    /// `subscriptions/listen`.
    Listen,
    LogLevel,
    /// `resources/subscribe` on a session that was opened anew.
    Subscribe,
    /// The answer to a `ping` of the server's.
    Answer,
}

impl Path {
    /// The method, and the list in its result.
    pub(super) fn list(self) -> Option<(&'static str, &'static str)> {
        match self {
            Path::Tools => Some(("tools/list", "tools")),
            Path::Prompts => Some(("prompts/list", "prompts")),
            Path::Resources => Some(("resources/list", "resources")),
            Path::Templates => Some(("resources/templates/list", "resourceTemplates")),
            Path::Handshake
            | Path::Stream
            | Path::Listen
            | Path::LogLevel
            | Path::Subscribe
            | Path::Answer => None,
        }
    }

    /// Whether what came is such a request.
    fn is(self, speech: Speech, kind: &str) -> bool {
        match self {
            Path::Handshake if speech == Speech::HttpSse => kind == "GET",
            Path::Handshake => ["initialize", "server/discover"].contains(&kind),
            Path::Stream => kind == "GET",
            Path::Listen => kind == "subscriptions/listen",
            Path::LogLevel => kind == "logging/setLevel",
            Path::Subscribe => kind == "resources/subscribe",
            Path::Answer => kind == "answer",
            Path::Tools | Path::Prompts | Path::Resources | Path::Templates => {
                self.list().is_some_and(|(method, _)| method == kind)
            }
        }
    }
}

/// One server.
pub(super) struct Cell {
    pub(super) name: String,
    pub(super) speech: Speech,
    pub(super) path: Path,
    pub(super) fault: Fault,
    is_faulty: AtomicBool,
    /// What it declares; that it has tools, if it is not told otherwise.
    declares: &'static str,
    /// Of what came, by method; GET, DELETE and answers apart.
    counts: Mutex<HashMap<String, usize>>,
    /// When it was asked what it failed at, by method as well.
    failed_at: Mutex<HashMap<String, Vec<Instant>>>,
    /// Sessions before this one are unknown.
    session: AtomicUsize,
    /// Where it can speak unasked, and the one of HTTP+SSE.
    streams: Mutex<Vec<TcpStream>>,
}

impl Cell {
    pub(super) fn new(speech: Speech, path: Path, fault: Fault) -> Cell {
        Cell {
            name: format!("{speech:?}-{path:?}-{}", fault.name),
            speech,
            path,
            fault,
            is_faulty: AtomicBool::new(true),
            declares: r#""tools":{"listChanged":true},"#,
            counts: Mutex::default(),
            failed_at: Mutex::default(),
            session: AtomicUsize::new(1),
            streams: Mutex::default(),
        }
    }

    /// Does not declare that it has tools.
    pub(super) fn without_tools_declared(self) -> Cell {
        Cell { declares: "", ..self }
    }

    /// Behaves for the time being, under that name.
    pub(super) fn well(self, name: &str) -> Cell {
        self.is_faulty.store(false, Ordering::SeqCst);
        Cell { name: format!("{}-{name}", self.name), ..self }
    }

    /// Is faulty from now on; what was counted before does not count.
    pub(super) fn turn(&self) {
        self.is_faulty.store(true, Ordering::SeqCst);
        self.counts.lock().unwrap().clear();
    }

    /// Says that its list has changed.
    pub(super) fn announce(&self) {
        self.announce_that(match self.path {
            Path::Tools => "tools",
            Path::Prompts => "prompts",
            _ => "resources",
        });
    }

    /// Says that one of its lists has changed.
    pub(super) fn announce_that(&self, what: &str) {
        let text =
            format!(r#"{{"jsonrpc":"2.0","method":"notifications/{what}/list_changed"}}"#);
        for stream in self.streams.lock().unwrap().iter_mut() {
            write_event(stream, "message", &text).ok();
        }
    }

    /// Forgets its sessions, and ends their streams.
    pub(super) fn lose_sessions(&self) {
        self.session.fetch_add(1, Ordering::SeqCst);
        for stream in self.streams.lock().unwrap().drain(..) {
            stream.shutdown(std::net::Shutdown::Both).ok();
        }
    }

    /// What came since it turned.
    pub(super) fn counts(&self) -> HashMap<String, usize> {
        self.counts.lock().unwrap().clone()
    }

    /// Requests at which it is faulty, by kind.
    pub(super) fn tries(&self) -> HashMap<String, usize> {
        let mut counts = self.counts();
        counts.retain(|kind, _| self.path.is(self.speech, kind));
        counts
    }

    /// How long it was left alone after it had failed for the first time, by kind, where it was
    /// asked again.
    pub(super) fn pauses(&self) -> HashMap<String, Duration> {
        let failed_at = self.failed_at.lock().unwrap();
        let pause = |at: &Vec<Instant>| Some(*at.get(1)? - *at.first()?);
        failed_at.iter().filter_map(|(kind, at)| Some((kind.clone(), pause(at)?))).collect()
    }

    /// Whether it has a stream on which it can speak.
    pub(super) fn is_heard(&self) -> bool {
        !self.streams.lock().unwrap().is_empty()
    }

    pub(super) fn config(&self, port: u16) -> Value {
        self.speech.config(port, &self.name, super::TIMEOUT_MS)
    }

    fn serve(&self, request: &Incoming, out: &mut TcpStream) -> io::Result<Next> {
        let message: Value = serde_json::from_str(&request.body).unwrap_or_default();
        let kind = match (request.method.as_str(), message["method"].as_str()) {
            ("POST", Some(method)) => method.to_owned(),
            ("POST", None) => "answer".to_owned(),
            (method, _) => method.to_owned(),
        };
        *self.counts.lock().unwrap().entry(kind.clone()).or_default() += 1;
        let id = message["id"].to_string();
        if self.is_faulty.load(Ordering::SeqCst) && self.path.is(self.speech, &kind) {
            self.failed_at.lock().unwrap().entry(kind).or_default().push(Instant::now());
            let is_sse = self.speech == Speech::HttpSse && request.method == "POST";
            let stream = self.streams.lock().unwrap().last().map(TcpStream::try_clone);
            let stream = stream.filter(|_| is_sse).transpose()?;
            let key = self.path.list().map_or("nothing", |(_, key)| key);
            return (self.fault.does)(&mut Peer { id, key, out, stream });
        }
        let session = format!("s{}", self.session.load(Ordering::SeqCst));
        let said = request.head.header("mcp-session-id");
        if self.speech == Speech::Sessions && said.is_some_and(|said| said != session) {
            return respond(out, "404 Not Found", &[], "Session not found");
        }
        if kind == "GET" && self.speech != Speech::Modern {
            return self.speak(out, None);
        }
        if kind == "subscriptions/listen" && self.speech == Speech::Modern {
            let agreed = message["params"]["notifications"].to_string();
            return self.speak(out, Some((&id, &agreed)));
        }
        let Some(result) = self.result(&kind) else {
            if request.method == "DELETE" || message["id"].is_null() || kind == "answer" {
                return respond(out, "202 Accepted", &[], "");
            }
            let text = error_text(&id, -32601, "Method not found");
            let status = if self.speech == Speech::Modern { "404 Not Found" } else { "200 OK" };
            return self.answer(out, status, &session, &text);
        };
        self.answer(out, "200 OK", &session, &result_text(&id, &result))
    }

    fn answer(
        &self,
        out: &mut TcpStream,
        status: &str,
        session: &str,
        text: &str,
    ) -> io::Result<Next> {
        if self.speech == Speech::HttpSse {
            if let Some(stream) = self.streams.lock().unwrap().last_mut() {
                write_event(stream, "message", text)?;
            }
            return respond(out, "202 Accepted", &[], "");
        }
        let headers = [("Content-Type", "application/json"), ("Mcp-Session-Id", session)];
        let n = if self.speech == Speech::Sessions { 2 } else { 1 };
        respond(out, status, &headers[..n], text)
    }

    /// Gives a stream until the other side has gone.
    fn speak(&self, out: &mut TcpStream, agreed: Option<(&str, &str)>) -> io::Result<Next> {
        begin_stream(out, &[])?;
        match agreed {
            Some((id, filter)) => {
                let meta = format!(r#"{{"io.modelcontextprotocol/subscriptionId":{id}}}"#);
                let params = format!(r#"{{"notifications":{filter},"_meta":{meta}}}"#);
                let method = "notifications/subscriptions/acknowledged";
                let text =
                    format!(r#"{{"jsonrpc":"2.0","method":"{method}","params":{params}}}"#);
                write_event(out, "message", &text)?;
            }
            None if self.speech == Speech::HttpSse => {
                write_event(out, "endpoint", &format!("/{}", self.name))?;
            }
            None => (),
        }
        self.streams.lock().unwrap().push(out.try_clone()?);
        if self.path == Path::Answer {
            let ping = r#"{"jsonrpc":"2.0","id":"p","method":"ping"}"#;
            write_event(out, "message", ping)?;
        }
        hang(out, None)
    }

    fn result(&self, method: &str) -> Option<String> {
        let is_modern = self.speech == Speech::Modern;
        let declared = self.declares;
        let capabilities = format!(
            r#"{{{declared}"prompts":{{"listChanged":true}},"resources":{{"listChanged":true,"subscribe":true}},"logging":{{}}}}"#
        );
        let rest = r#""resultType":"complete","ttlMs":600000,"cacheScope":"public""#;
        Some(match method {
            "initialize" if !is_modern => {
                format!(
                    r#"{{"protocolVersion":"2025-11-25","capabilities":{capabilities},"serverInfo":{{"name":"cell","version":"1"}}}}"#
                )
            }
            "server/discover" if is_modern => {
                format!(
                    r#"{{{rest},"supportedVersions":["2026-07-28"],"capabilities":{capabilities}}}"#
                )
            }
            "tools/list" => {
                format!(
                    r#"{{{rest},"tools":[{{"name":"echo","inputSchema":{{"type":"object"}}}}]}}"#
                )
            }
            "prompts/list" => format!(r#"{{{rest},"prompts":[]}}"#),
            "resources/list" => {
                let uri = format!("cell:{}", self.name);
                format!(r#"{{{rest},"resources":[{{"uri":"{uri}","name":"cell"}}]}}"#)
            }
            "resources/templates/list" => format!(r#"{{{rest},"resourceTemplates":[]}}"#),
            "tools/call" => {
                format!(r#"{{{rest},"content":[{{"type":"text","text":"well"}}]}}"#)
            }
            "ping" | "logging/setLevel" | "resources/subscribe" | "resources/unsubscribe" => {
                "{}".to_owned()
            }
            _ => return None,
        })
    }
}

/// All cells at one port.
pub(super) struct Cells {
    pub(super) cells: Vec<Arc<Cell>>,
    pub(super) port: u16,
    _listener: Listener,
}

impl Cells {
    pub(super) fn start(cells: Vec<Cell>) -> Cells {
        let cells: Vec<Arc<Cell>> = cells.into_iter().map(Arc::new).collect();
        let by_path: HashMap<String, Arc<Cell>> =
            cells.iter().map(|cell| (format!("/{}", cell.name), cell.clone())).collect();
        let listener =
            Listener::absent(move |request, out| match by_path.get(request.path()) {
                Some(cell) => cell.serve(request, out),
                None => respond(out, "404 Not Found", &[], "no such cell"),
            });
        listener.start();
        Cells { cells, port: listener.port(), _listener: listener }
    }
}
