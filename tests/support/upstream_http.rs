//! A scripted MCP server over Streamable HTTP.

use std::collections::HashSet;
use std::io::{self, Write as _};
use std::net::TcpStream;
use std::ops::Deref;
use std::sync::{Arc, Mutex};

use super::authorization_server::{Guard, Guarded};
use super::listener::{Incoming, Listener, Next};
use super::script::{Reply, Script, error_answer};
use super::unique;

/// How a request is answered when nothing comes before its result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answers {
    Json,
    /// JSON with line breaks and spaces between everything.
    PrettyJson,
    EventStream,
}

/// Whether the server keeps sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sessions {
    Kept,
    None,
}

struct Shell {
    script: Arc<Script>,
    answers: Mutex<Answers>,
    sessions_kept: Mutex<Sessions>,
    sessions: Mutex<HashSet<String>>,
    required_header: Mutex<Option<(String, String)>>,
    failing: Mutex<Option<u16>>,
    /// Further headers of what fails.
    failing_head: Mutex<Vec<(String, String)>>,
    /// What fails for whoever sends this header says its value.
    echoing: Mutex<Option<String>>,
    redirect: Mutex<Option<(u16, String)>>,
    /// What stands before its path.
    prefix: Mutex<String>,
    last_headers: Mutex<Vec<(String, String)>>,
    n_deleted: Mutex<usize>,
    /// Answers in place of the server, whatever is asked for.
    guard: Mutex<Option<Arc<Guard>>>,
}

/// The server. It reads as its [`Script`], for switches and counters.
pub struct HttpUpstream {
    script: Arc<Script>,
    shell: Arc<Shell>,
    pub listener: Listener,
}

impl Deref for HttpUpstream {
    type Target = Script;

    fn deref(&self) -> &Script {
        &self.script
    }
}

impl HttpUpstream {
    /// A server that serves at once.
    pub fn start() -> HttpUpstream {
        let upstream = HttpUpstream::absent();
        upstream.listener.start();
        upstream
    }

    /// A server with these tools alone.
    pub fn with_tools(names: &[&str]) -> HttpUpstream {
        let upstream = HttpUpstream::absent();
        upstream.serve_only_tools(names);
        upstream.listener.start();
        upstream
    }

    /// A server with everything that names itself in what it gives.
    pub fn labelled(label: &str) -> HttpUpstream {
        let upstream = HttpUpstream::start();
        upstream.set_label(label);
        upstream
    }

    /// A server that is not there yet.
    pub fn absent() -> HttpUpstream {
        let script = Arc::new(Script::new());
        let shell = Arc::new(Shell {
            script: script.clone(),
            answers: Mutex::new(Answers::Json),
            sessions_kept: Mutex::new(Sessions::Kept),
            sessions: Mutex::default(),
            required_header: Mutex::new(None),
            failing: Mutex::new(None),
            failing_head: Mutex::default(),
            echoing: Mutex::default(),
            redirect: Mutex::new(None),
            prefix: Mutex::default(),
            last_headers: Mutex::default(),
            n_deleted: Mutex::new(0),
            guard: Mutex::default(),
        });
        let serving = shell.clone();
        let listener = Listener::absent(move |request, out| serving.serve(request, out));
        HttpUpstream { script, shell, listener }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/mcp", self.listener.port())
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.listener.port())
    }

    /// Dies: connections break, new ones are refused, sessions are lost.
    pub fn die(&self) {
        self.script.end();
        self.listener.stop();
        self.forget_sessions();
    }

    /// Comes (back).
    pub fn come(&self) {
        self.script.begin();
        self.listener.start();
    }

    /// Every session is unknown from now on, as after a restart.
    pub fn forget_sessions(&self) {
        for session in self.shell.sessions.lock().unwrap().drain() {
            self.script.forget_peer(&session);
        }
    }

    pub fn answer_with(&self, answers: Answers) {
        *self.shell.answers.lock().unwrap() = answers;
    }

    pub fn keep_sessions(&self, sessions: Sessions) {
        *self.shell.sessions_kept.lock().unwrap() = sessions;
    }

    /// Requests without this header are answered 401.
    pub fn require_header(&self, name: &str, value: &str) {
        let header = Some((name.to_owned(), value.to_owned()));
        *self.shell.required_header.lock().unwrap() = header;
    }

    /// Every request is shown to this one first, which may answer it.
    pub fn guard(&self, guard: impl Fn(&Incoming) -> Option<Guarded> + Send + Sync + 'static) {
        *self.shell.guard.lock().unwrap() = Some(Arc::new(guard));
    }

    /// Every POST gets this status; `None` ends it.
    pub fn fail_with(&self, status: Option<u16>) {
        *self.shell.failing.lock().unwrap() = status;
    }

    /// What fails does so with these headers.
    pub fn fail_with_head(&self, head: &[(&str, &str)]) {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        *self.shell.failing_head.lock().unwrap() = head.iter().map(owned).collect();
    }

    /// What fails says what stands in this header of its request, as careless servers do.
    pub fn fail_with_echo_of(&self, header: &str) {
        *self.shell.echoing.lock().unwrap() = Some(header.to_owned());
    }

    /// Serves below this path from here on. Gives its URL there.
    pub fn serve_below(&self, prefix: &str) -> String {
        prefix.clone_into(&mut self.shell.prefix.lock().unwrap());
        format!("http://{}{prefix}/mcp", self.address())
    }

    /// Serves at `/mcp/` and redirects `/mcp` to this location.
    pub fn redirect(&self, status: u16, location: &str) {
        *self.shell.redirect.lock().unwrap() = Some((status, location.to_owned()));
    }

    /// The headers of the last `tools/call`.
    pub fn last_headers(&self) -> Vec<(String, String)> {
        self.shell.last_headers.lock().unwrap().clone()
    }

    /// Sessions that clients have ended.
    pub fn n_deleted(&self) -> usize {
        *self.shell.n_deleted.lock().unwrap()
    }
}

impl Drop for HttpUpstream {
    fn drop(&mut self) {
        self.script.end();
    }
}

/// Writes a whole response.
pub fn respond(
    out: &mut TcpStream,
    status: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> io::Result<Next> {
    let mut head = format!("HTTP/1.1 {status}\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str(&format!("Content-Length: {}\r\n\r\n", body.len()));
    let mut bytes = head.into_bytes();
    bytes.extend_from_slice(body.as_bytes());
    out.write_all(&bytes)?;
    Ok(Next::Keep)
}

/// Begins an event stream in chunks.
pub fn begin_stream(out: &mut TcpStream, headers: &[(&str, &str)]) -> io::Result<()> {
    let mut head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\
                    Cache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n"
        .to_owned();
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    out.write_all(head.as_bytes())
}

/// Writes one event as one chunk, a field for each line of its data.
pub fn write_event(out: &mut TcpStream, name: &str, data: &str) -> io::Result<()> {
    let data = data.replace("\r\n", "\n").replace(['\r', '\n'], "\ndata: ");
    let event = format!("event: {name}\ndata: {data}\n\n");
    out.write_all(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes())
}

pub(crate) const JSON: (&str, &str) = ("Content-Type", "application/json");

/// Writes what the script says to a request: notifications first, on a stream, and the answer
/// behind them or as JSON, with the status that is its own.
pub(crate) fn answer(
    out: &mut TcpStream,
    answers: Answers,
    headers: &[(&str, &str)],
    status_of: impl Fn(&str) -> &'static str,
    handle: impl FnOnce(&mut dyn FnMut(&str)) -> Reply,
) -> io::Result<Next> {
    let mut begun = false;
    let reply = handle(&mut |notification| {
        if !begun {
            drop(begin_stream(out, headers));
            begun = true;
        }
        drop(write_event(out, "message", notification));
    });
    let mut json_headers = headers.to_vec();
    json_headers.push(JSON);
    match reply {
        Reply::Answer(text) => {
            let status = status_of(&text);
            if begun || answers == Answers::EventStream && status == "200 OK" {
                if !begun {
                    begin_stream(out, headers)?;
                }
                write_event(out, "message", &text)?;
                out.write_all(b"0\r\n\r\n")?;
                return Ok(Next::Keep);
            }
            let text = if answers == Answers::PrettyJson { spread(&text) } else { text };
            respond(out, status, &json_headers, &text)
        }
        Reply::Accepted => respond(out, "202 Accepted", headers, ""),
        Reply::Garbage => respond(out, "200 OK", &json_headers, "<html>not JSON</html>"),
        Reply::BreakOff => {
            let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\
                        Content-Length: 1000\r\n\r\n{\"jsonrpc\":\"2.0\",";
            out.write_all(head.as_bytes())?;
            Ok(Next::Close)
        }
        Reply::Nothing | Reply::OfTheTransport { .. } => Ok(Next::Close),
    }
}

impl Shell {
    fn serve(&self, request: &Incoming, out: &mut TcpStream) -> io::Result<Next> {
        let guard = self.guard.lock().unwrap().clone();
        if let Some(answer) = guard.and_then(|guard| guard(request)) {
            return answer.write(out);
        }
        let path = match &*self.redirect.lock().unwrap() {
            Some((status, location)) if request.path() == "/mcp" => {
                let head = [("Location", location.as_str())];
                return respond(out, &format!("{status} Elsewhere"), &head, "");
            }
            Some(_) => "/mcp/",
            None => "/mcp",
        };
        if request.path() != self.prefix.lock().unwrap().clone() + path {
            return respond(out, "404 Not Found", &[], "no such page");
        }
        if let Some((name, value)) = &*self.required_header.lock().unwrap()
            && request.head.header(name) != Some(value)
        {
            let challenge = [("WWW-Authenticate", "Bearer")];
            return respond(out, "401 Unauthorized", &challenge, "who are you?");
        }
        let session = request.head.header("Mcp-Session-Id").unwrap_or_default().to_owned();
        match request.method.as_str() {
            "POST" => self.post(request, &session, out),
            "GET" => self.get(request, &session, out),
            "DELETE" => {
                if !self.sessions.lock().unwrap().remove(&session) {
                    return respond(out, "404 Not Found", &[], "");
                }
                self.script.forget_peer(&session);
                *self.n_deleted.lock().unwrap() += 1;
                respond(out, "200 OK", &[], "")
            }
            _ => respond(out, "405 Method Not Allowed", &[("Allow", "GET, POST, DELETE")], ""),
        }
    }

    fn knows(&self, session: &str) -> Option<&'static str> {
        if *self.sessions_kept.lock().unwrap() == Sessions::None {
            return None;
        }
        if session.is_empty() {
            return Some("400 Bad Request");
        }
        let known = self.sessions.lock().unwrap().contains(session);
        (!known).then_some("404 Not Found")
    }

    fn post(&self, request: &Incoming, session: &str, out: &mut TcpStream) -> io::Result<Next> {
        if let Some(status) = *self.failing.lock().unwrap() {
            let head = self.failing_head.lock().unwrap();
            let head: Vec<(&str, &str)> =
                head.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            let echoed = self.echoing.lock().unwrap().clone();
            let echoed = echoed.and_then(|it| request.head.header(&it).map(str::to_owned));
            let text = format!("as the test wants it {}", echoed.unwrap_or_default());
            return respond(out, &format!("{status} Failing"), &head, text.trim_end());
        }
        let accept = request.head.header("Accept").unwrap_or_default();
        if !(accept.contains("application/json") && accept.contains("text/event-stream")) {
            return respond(out, "406 Not Acceptable", &[], "");
        }
        let opens = request.body.contains("\"method\":\"initialize\"");
        if !opens && let Some(status) = self.knows(session) {
            let body = error_answer("null", -32600, "Session not found");
            return respond(out, status, &[JSON], &body);
        }
        if request.body.contains("\"method\":\"tools/call\"") {
            self.last_headers.lock().unwrap().clone_from(&request.head.headers);
        }
        let kept = *self.sessions_kept.lock().unwrap() == Sessions::Kept;
        let fresh = (opens && kept).then(|| unique("scripted-session"));
        if let Some(id) = &fresh {
            self.sessions.lock().unwrap().insert(id.clone());
        }
        let headers: Vec<(&str, &str)> =
            fresh.iter().map(|id| ("Mcp-Session-Id", id.as_str())).collect();
        let peer = fresh.as_deref().unwrap_or(session);
        self.script.reached_by(peer, &request.head);
        let answers = *self.answers.lock().unwrap();
        answer(
            out,
            answers,
            &headers,
            |_| "200 OK",
            |tell| self.script.handle(peer, &request.body, tell),
        )
    }

    fn get(&self, request: &Incoming, session: &str, out: &mut TcpStream) -> io::Result<Next> {
        if let Some(status) = self.knows(session) {
            return respond(out, status, &[], "");
        }
        self.script.reached_by(session, &request.head);
        let messages = self.script.open_stream(session);
        begin_stream(out, &[])?;
        while let Ok(message) = messages.recv() {
            write_event(out, "message", &message)?;
        }
        Ok(Next::Close)
    }
}

/// The same JSON with white space wherever it may stand; texts and numbers stay as they are.
pub fn spread(json: &str) -> String {
    let mut out = String::with_capacity(json.len() * 2);
    let mut in_string = false;
    let mut escaped = false;
    for c in json.chars() {
        if in_string {
            out.push(c);
            in_string = escaped || c != '"';
            escaped = c == '\\' && !escaped;
            continue;
        }
        match c {
            '"' => {
                in_string = true;
                out.push(c);
            }
            '{' | '[' | ',' => {
                out.push(c);
                out.push_str("\n  ");
            }
            '}' | ']' => {
                out.push_str("\r\n");
                out.push(c);
            }
            ':' => out.push_str(" :\t"),
            _ => out.push(c),
        }
    }
    out.push('\n');
    out
}
