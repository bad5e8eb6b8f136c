//! An MCP server of which one answer is faulty, byte by byte as the test writes it.

use std::io::{self, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::listener::{Incoming, Listener, Next};
use crate::support::upstream_http::{begin_stream, respond, write_event};
use crate::upstream::speech::{error_text, hang, result_text};

pub(super) use crate::upstream::speech::Speech;

/// The request whose answer is faulty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum At {
    Contact,
    List,
    Call,
}

/// The connection on which a faulty answer is due.
pub(super) struct Peer<'a> {
    /// The request's id, a JSON text.
    pub(super) id: String,
    /// Where the answer is due.
    pub(super) out: &'a mut TcpStream,
    /// The stream of an HTTP+SSE session.
    pub(super) stream: Option<TcpStream>,
}

pub(super) type Fault = fn(&mut Peer<'_>) -> io::Result<Next>;

/// Nothing faulty goes on for longer: the gateway should have gone away by then.
const PATIENCE: Duration = Duration::from_secs(20);

impl Peer<'_> {
    pub(super) fn write(&mut self, text: &str) -> io::Result<()> {
        self.out.write_all(text.as_bytes())
    }

    /// Says nothing more, until the other side has gone.
    pub(super) fn hang(&mut self) -> io::Result<Next> {
        hang(self.out, Some(PATIENCE))
    }

    /// Writes the same thing again and again, until the other side has gone.
    pub(super) fn flood(&mut self, piece: &str, pause: Duration) -> io::Result<Next> {
        self.out.set_write_timeout(Some(PATIENCE))?;
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            self.write(piece)?;
            if !pause.is_zero() {
                std::thread::park_timeout(pause);
            }
        }
        Ok(Next::Close)
    }

    /// A head with this first line and these lines, and a body as long as it says.
    pub(super) fn answer(&mut self, status: &str, kind: &str, body: &str) -> io::Result<Next> {
        respond(self.out, status, &[("Content-Type", kind)], body)
    }

    pub(super) fn result(&self, result: &str) -> String {
        result_text(&self.id, result)
    }
}

struct Shell {
    speech: Speech,
    at: At,
    fault: Fault,
    tools: String,
    is_faulty: AtomicBool,
    /// Every session is unknown.
    has_forgotten: AtomicBool,
    stream: Mutex<Option<TcpStream>>,
}

/// The server.
pub(super) struct Faulty {
    shell: Arc<Shell>,
    pub(super) listener: Listener,
}

impl Faulty {
    /// A server that is faulty from the start.
    pub(super) fn start(speech: Speech, at: At, fault: Fault) -> Faulty {
        let tools = r#"[{"name":"echo","inputSchema":{"type":"object"}}]"#;
        Faulty::with_tools(speech, at, fault, tools.to_owned())
    }

    /// The same, with these tools, a JSON text.
    pub(super) fn with_tools(speech: Speech, at: At, fault: Fault, tools: String) -> Faulty {
        let shell = Arc::new(Shell {
            speech,
            at,
            fault,
            tools,
            is_faulty: AtomicBool::new(true),
            has_forgotten: AtomicBool::new(false),
            stream: Mutex::new(None),
        });
        let serving = shell.clone();
        let listener = Listener::absent(move |request, out| serving.serve(request, out));
        listener.start();
        Faulty { shell, listener }
    }

    /// Behaves for the time being.
    pub(super) fn well(self) -> Faulty {
        self.shell.is_faulty.store(false, Ordering::SeqCst);
        self
    }

    /// Loses its sessions and is faulty from now on.
    pub(super) fn turn(&self) {
        self.shell.has_forgotten.store(true, Ordering::SeqCst);
        self.shell.is_faulty.store(true, Ordering::SeqCst);
    }

    /// Its entry in the configuration.
    pub(super) fn config(&self, timeout_ms: u64) -> Value {
        self.shell.speech.config(self.listener.port(), "mcp", timeout_ms)
    }
}

impl Shell {
    fn serve(&self, request: &Incoming, out: &mut TcpStream) -> io::Result<Next> {
        let is_faulty = |at: At| at == self.at && self.is_faulty.load(Ordering::SeqCst);
        let message: Value = serde_json::from_str(&request.body).unwrap_or_default();
        let id = message["id"].to_string();
        let stream = self.stream.lock().unwrap().as_ref().map(TcpStream::try_clone);
        let stream = stream.transpose()?;
        let mut peer = Peer { id, out, stream };
        match request.method.as_str() {
            "GET" if self.speech == Speech::HttpSse => {
                if is_faulty(At::Contact) {
                    return (self.fault)(&mut peer);
                }
                begin_stream(peer.out, &[])?;
                write_event(peer.out, "endpoint", "/mcp/messages")?;
                *self.stream.lock().unwrap() = Some(peer.out.try_clone()?);
                return hang(peer.out, None);
            }
            "POST" => (),
            "DELETE" => return respond(peer.out, "200 OK", &[], ""),
            _ => return respond(peer.out, "405 Method Not Allowed", &[("Allow", "POST")], ""),
        }
        let method = message["method"].as_str().unwrap_or_default();
        let at = match method {
            "initialize" | "server/discover" => Some(At::Contact),
            "tools/list" => Some(At::List),
            "tools/call" => Some(At::Call),
            _ => None,
        };
        if at.is_some_and(|at| is_faulty(at) && self.is_served(method)) {
            return (self.fault)(&mut peer);
        }
        if self.has_forgotten.load(Ordering::SeqCst) && at != Some(At::Contact) {
            return respond(peer.out, "404 Not Found", &[], "Session not found");
        }
        let Some(result) = self.result(method) else {
            if message["id"].is_null() {
                return respond(peer.out, "202 Accepted", &[], "");
            }
            let body = error_text(&peer.id, -32601, "Method not found");
            return peer.answer("400 Bad Request", "application/json", &body);
        };
        let text = peer.result(&result);
        if self.speech == Speech::HttpSse {
            if let Some(stream) = &mut peer.stream {
                write_event(stream, "message", &text)?;
            }
            return respond(peer.out, "202 Accepted", &[], "");
        }
        let session = [
            ("Content-Type", "application/json"),
            ("Mcp-Session-Id", "the-session-of-a-faulty-server"),
        ];
        let opens = method == "initialize";
        respond(peer.out, "200 OK", &session[..1 + usize::from(opens)], &text)
    }

    /// Whether the method is one of its era, or a question which era that is.
    fn is_served(&self, method: &str) -> bool {
        method != "initialize" || self.speech != Speech::Modern
    }

    fn result(&self, method: &str) -> Option<String> {
        let is_modern = self.speech == Speech::Modern;
        let dress = if is_modern { r#""resultType":"complete","# } else { "" };
        Some(match method {
            "initialize" if !is_modern => {
                r#"{"protocolVersion":"2025-06-18","capabilities":{"tools":{}},"serverInfo":{"name":"faulty","version":"1"}}"#.to_owned()
            }
            "server/discover" if is_modern => {
                r#"{"resultType":"complete","supportedVersions":["2026-07-28"],"capabilities":{"tools":{}},"ttlMs":60000,"cacheScope":"public"}"#.to_owned()
            }
            "tools/list" => {
                format!(
                    r#"{{{dress}"ttlMs":60000,"cacheScope":"public","tools":{}}}"#,
                    self.tools
                )
            }
            "tools/call" => {
                format!(r#"{{{dress}"content":[{{"type":"text","text":"well"}}]}}"#)
            }
            "ping" => "{}".to_owned(),
            _ => return None,
        })
    }
}
