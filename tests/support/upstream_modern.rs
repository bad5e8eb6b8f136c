//! A scripted MCP server over Streamable HTTP that speaks 2026-07-28 alone: no sessions, no GET,
//! headers that must say what the body says. It notes every request, and when its client closes
//! the connection of one.

use std::io::{self, Write as _};
use std::net::TcpStream;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustix::net::RecvFlags;
use serde_json::{Value, json};

use super::authorization_server::{Guard, Guarded};
use super::http::Head;
use super::listener::{Incoming, Listener, Next};
use super::script::{MODERN, Script, meta};
use super::upstream_http::{Answers, JSON, answer, begin_stream, respond, write_event};
use super::{in_background, unique};

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Recorded {
    /// What the script knows it by.
    pub peer: String,
    pub head: Head,
    /// The message; null where there was no body.
    pub message: Value,
    /// Whether the client closed the connection before the answer was whole.
    pub is_closed: bool,
}

#[derive(Default)]
struct Record {
    requests: Mutex<Vec<Recorded>>,
}

struct Shell {
    script: Arc<Script>,
    record: Arc<Record>,
    answers: Mutex<Answers>,
    guard: Mutex<Option<Arc<Guard>>>,
}

/// The server. It reads as its [`Script`], for switches and counters.
pub struct ModernUpstream {
    script: Arc<Script>,
    shell: Arc<Shell>,
    pub listener: Listener,
}

impl Deref for ModernUpstream {
    type Target = Script;

    fn deref(&self) -> &Script {
        &self.script
    }
}

impl ModernUpstream {
    /// A server that serves at once.
    pub fn start() -> ModernUpstream {
        let script = Arc::new(Script::new());
        let (record, answers) = (Arc::default(), Mutex::new(Answers::Json));
        let guard = Mutex::default();
        let shell = Arc::new(Shell { script: script.clone(), record, answers, guard });
        let serving = shell.clone();
        let listener = Listener::absent(move |request, out| serving.serve(request, out));
        listener.start();
        ModernUpstream { script, shell, listener }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/mcp", self.listener.port())
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.listener.port())
    }

    /// Requests come to this first.
    pub fn guard(&self, guard: impl Fn(&Incoming) -> Option<Guarded> + Send + Sync + 'static) {
        *self.shell.guard.lock().unwrap() = Some(Arc::new(guard));
    }

    pub fn answer_with(&self, answers: Answers) {
        *self.shell.answers.lock().unwrap() = answers;
    }

    /// Every request so far, in its order.
    pub fn requests(&self) -> Vec<Recorded> {
        self.shell.record.requests.lock().unwrap().clone()
    }

    /// Those of that method.
    pub fn requests_of(&self, method: &str) -> Vec<Recorded> {
        let mut requests = self.requests();
        requests.retain(|request| request.message["method"] == method);
        requests
    }
}

impl Drop for ModernUpstream {
    fn drop(&mut self) {
        self.script.end();
    }
}

/// The status of an answer: that of its error (basic/transports/streamable-http).
fn status_of(answer: &str) -> &'static str {
    let answer: Value = serde_json::from_str(answer).unwrap();
    match answer["error"]["code"].as_i64() {
        Some(-32601) => "404 Not Found",
        Some(-32700 | -32600 | -32602 | -32020 | -32021 | -32022) => "400 Bad Request",
        _ => "200 OK",
    }
}

/// Reads a header's value as the revision writes it.
pub fn decoded(value: &str) -> Option<String> {
    let Some(text) = value.strip_prefix("=?base64?").and_then(|it| it.strip_suffix("?="))
    else {
        return Some(value.to_owned());
    };
    String::from_utf8(STANDARD.decode(text).ok()?).ok()
}

/// The headers that a tool's schema asks for, with the values that the arguments have for them.
fn mirrored(schema: &Value, arguments: &Value, found: &mut Vec<(String, Option<String>)>) {
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let argument = &arguments[name];
        if let Some(header) = property["x-mcp-header"].as_str() {
            let value = match argument {
                Value::Null => None,
                Value::String(text) => Some(text.clone()),
                other => Some(other.to_string()),
            };
            found.push((format!("Mcp-Param-{header}"), value));
        }
        mirrored(property, argument, found);
    }
}

impl Shell {
    fn serve(&self, request: &Incoming, out: &mut TcpStream) -> io::Result<Next> {
        let peer = unique("request");
        let message: Value = serde_json::from_str(&request.body).unwrap_or_default();
        self.record.requests.lock().unwrap().push(Recorded {
            peer: peer.clone(),
            head: request.head.clone(),
            message: message.clone(),
            is_closed: false,
        });
        let guard = self.guard.lock().unwrap().clone();
        if let Some(answer) = guard.and_then(|guard| guard(request)) {
            return answer.write(out);
        }
        if request.path() != "/mcp" {
            return respond(out, "404 Not Found", &[], "no such page");
        }
        if request.method != "POST" {
            return respond(out, "405 Method Not Allowed", &[("Allow", "POST")], "");
        }
        if let Err((code, what)) = self.check(&request.head, &message) {
            let mut error = json!({ "code": code, "message": what });
            if code == -32022 {
                let requested = request.head.header("MCP-Protocol-Version");
                error["data"] = json!({ "supported": [MODERN], "requested": requested });
            }
            let id = &message["id"];
            let body = json!({ "jsonrpc": "2.0", "id": id, "error": error }).to_string();
            return respond(out, "400 Bad Request", &[JSON], &body);
        }
        self.script.reached_by(&peer, &request.head);
        let _watch = Watch::begin(self, &peer, out)?;
        if let Some(messages) = self.script.open_listen(&peer, &request.body) {
            begin_stream(out, &[])?;
            while let Ok(message) = messages.recv() {
                write_event(out, "message", &message)?;
            }
            out.write_all(b"0\r\n\r\n")?;
            return Ok(Next::Keep);
        }
        let answers = *self.answers.lock().unwrap();
        answer(out, answers, &[], status_of, |tell| {
            self.script.handle_modern(&peer, &request.body, tell)
        })
    }

    /// Whether the headers say what the body says, and at all.
    fn check(&self, head: &Head, message: &Value) -> Result<(), (i64, String)> {
        let mismatch = |what: String| Err((-32020, format!("Header mismatch: {what}")));
        let version = head.header("MCP-Protocol-Version");
        match version {
            None => return mismatch("no MCP-Protocol-Version".to_owned()),
            Some(MODERN) => (),
            Some(other) => return Err((-32022, format!("{other} is not served"))),
        }
        let accept = head.header("Accept").unwrap_or_default();
        if !(accept.contains("application/json") && accept.contains("text/event-stream")) {
            return Err((-32600, "Accept lacks a type".to_owned()));
        }
        if message.get("id").is_none() {
            return Ok(());
        }
        let params = &message["params"];
        if let Some(own) = params["_meta"][meta("protocolVersion")].as_str()
            && version != Some(own)
        {
            return mismatch(format!("_meta says {own}"));
        }
        if head.header("Mcp-Method") != message["method"].as_str() {
            return mismatch(format!("Mcp-Method is {:?}", head.header("Mcp-Method")));
        }
        let name = match message["method"].as_str().unwrap_or_default() {
            "tools/call" | "prompts/get" => params["name"].as_str(),
            "resources/read" => params["uri"].as_str(),
            _ => return Ok(()),
        };
        let said = head.header("Mcp-Name").and_then(decoded);
        if said.as_deref() != name {
            return mismatch(format!("Mcp-Name is {said:?}, not {name:?}"));
        }
        if message["method"] != "tools/call" {
            return Ok(());
        }
        let mut wanted = Vec::new();
        if let Some(schema) = self.script.schema_of(name.unwrap_or_default()) {
            mirrored(&schema, &params["arguments"], &mut wanted);
        }
        for (header, value) in wanted {
            let said = head.header(&header).and_then(decoded);
            if said != value {
                return mismatch(format!("{header} is {said:?}, not {value:?}"));
            }
        }
        Ok(())
    }
}

/// Looks whether the client of a request closes its connection while the request is served.
struct Watch(Arc<AtomicBool>);

impl Watch {
    fn begin(shell: &Shell, peer: &str, stream: &TcpStream) -> io::Result<Watch> {
        let is_over = Arc::new(AtomicBool::new(false));
        let (watched, peer, stream) = (is_over.clone(), peer.to_owned(), stream.try_clone()?);
        let (script, record) = (shell.script.clone(), shell.record.clone());
        drop(in_background(move || {
            let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
            loop {
                let mut byte = [0];
                let seen = rustix::net::recv(&stream, &mut byte, flags);
                if watched.load(Ordering::SeqCst) {
                    return;
                }
                match seen {
                    Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {
                        std::thread::park_timeout(Duration::from_millis(5));
                    }
                    Ok((_, 1..)) => return,
                    Ok(_) | Err(_) => break,
                }
            }
            let mut requests = record.requests.lock().unwrap();
            requests
                .iter_mut()
                .filter(|it| it.peer == peer)
                .for_each(|request| request.is_closed = true);
            drop(requests);
            script.hang_up(&peer);
        }));
        Ok(Watch(is_over))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}
