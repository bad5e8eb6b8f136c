//! A scripted MCP server over HTTP+SSE (2024-11-05).

use std::collections::HashMap;
use std::io::{self, Read as _};
use std::net::TcpStream;
use std::ops::Deref;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};

use super::authorization_server::{Guard, Guarded};
use super::listener::{Incoming, Listener, Next};
use super::script::{Reply, Script};
use super::upstream_http::{begin_stream, respond, write_event};
use super::{in_background, unique};

struct Shell {
    script: Arc<Script>,
    sessions: Mutex<HashMap<String, Sender<String>>>,
    n_streams: Mutex<usize>,
    n_ended: Mutex<usize>,
    /// Answers in place of the server, whatever is asked for.
    guard: Mutex<Option<Arc<Guard>>>,
}

/// The server. It reads as its [`Script`], for switches and counters.
pub struct SseUpstream {
    script: Arc<Script>,
    shell: Arc<Shell>,
    pub listener: Listener,
}

impl Deref for SseUpstream {
    type Target = Script;

    fn deref(&self) -> &Script {
        &self.script
    }
}

impl SseUpstream {
    /// A server that serves at once.
    pub fn start() -> SseUpstream {
        let upstream = SseUpstream::absent();
        upstream.listener.start();
        upstream
    }

    /// A server that is not there yet.
    pub fn absent() -> SseUpstream {
        let script = Arc::new(Script::new());
        let shell = Arc::new(Shell {
            script: script.clone(),
            sessions: Mutex::default(),
            n_streams: Mutex::new(0),
            n_ended: Mutex::new(0),
            guard: Mutex::default(),
        });
        let serving = shell.clone();
        let listener = Listener::absent(move |request, out| serving.serve(request, out));
        SseUpstream { script, shell, listener }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/sse", self.listener.port())
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.listener.port())
    }

    /// Dies: connections break, new ones are refused.
    pub fn die(&self) {
        self.script.end();
        self.shell.sessions.lock().unwrap().clear();
        self.listener.stop();
    }

    /// Comes (back).
    pub fn come(&self) {
        self.script.begin();
        self.listener.start();
    }

    /// Every request is shown to this one first, which may answer it.
    pub fn guard(&self, guard: impl Fn(&Incoming) -> Option<Guarded> + Send + Sync + 'static) {
        *self.shell.guard.lock().unwrap() = Some(Arc::new(guard));
    }

    /// Event streams that their clients have closed, and with them their sessions.
    pub fn n_ended(&self) -> usize {
        *self.shell.n_ended.lock().unwrap()
    }

    /// Event streams opened so far.
    pub fn n_event_streams(&self) -> usize {
        *self.shell.n_streams.lock().unwrap()
    }
}

impl Drop for SseUpstream {
    fn drop(&mut self) {
        self.script.end();
        self.shell.sessions.lock().unwrap().clear();
    }
}

impl Shell {
    fn serve(self: &Arc<Shell>, request: &Incoming, out: &mut TcpStream) -> io::Result<Next> {
        let guard = self.guard.lock().unwrap().clone();
        if let Some(answer) = guard.and_then(|guard| guard(request)) {
            return answer.write(out);
        }
        match (request.method.as_str(), request.path()) {
            ("GET", "/sse") => self.stream(request, out),
            ("POST", "/messages") => self.post(request, out),
            (_, "/sse") => respond(out, "405 Method Not Allowed", &[("Allow", "GET")], ""),
            _ => respond(out, "404 Not Found", &[], ""),
        }
    }

    fn stream(self: &Arc<Shell>, request: &Incoming, out: &mut TcpStream) -> io::Result<Next> {
        *self.n_streams.lock().unwrap() += 1;
        let id = unique("sse");
        self.script.reached_by(&id, &request.head);
        let (sender, messages) = channel();
        self.sessions.lock().unwrap().insert(id.clone(), sender.clone());
        begin_stream(out, &[])?;
        write_event(out, "endpoint", &format!("/messages?session_id={id}"))?;
        let announcements = self.script.open_stream(&id);
        self.watch(&id, out)?;
        drop(in_background(move || {
            while let Ok(message) = announcements.recv() {
                if sender.send(message).is_err() {
                    return;
                }
            }
        }));
        while let Ok(message) = messages.recv() {
            if write_event(out, "message", &message).is_err() {
                break;
            }
        }
        Ok(Next::Close)
    }

    /// Ends the session when its client closes the stream.
    fn watch(self: &Arc<Shell>, id: &str, out: &TcpStream) -> io::Result<()> {
        let (shell, id, mut input) = (self.clone(), id.to_owned(), out.try_clone()?);
        input.set_read_timeout(None)?;
        drop(in_background(move || {
            let mut byte = [0];
            while matches!(input.read(&mut byte), Ok(1)) {}
            shell.sessions.lock().unwrap().remove(&id);
            shell.script.forget_peer(&id);
            *shell.n_ended.lock().unwrap() += 1;
        }));
        Ok(())
    }

    fn post(&self, request: &Incoming, out: &mut TcpStream) -> io::Result<Next> {
        let id = request.target.split("session_id=").nth(1).unwrap_or_default().to_owned();
        let Some(stream) = self.sessions.lock().unwrap().get(&id).cloned() else {
            return respond(out, "404 Not Found", &[], "Could not find session");
        };
        self.script.reached_by(&id, &request.head);
        let script = self.script.clone();
        let body = request.body.clone();
        drop(in_background(move || {
            let reply =
                script.handle(&id, &body, &mut |text| drop(stream.send(text.to_owned())));
            match reply {
                Reply::Answer(text) => drop(stream.send(text)),
                Reply::Garbage => drop(stream.send("<html>not JSON</html>".to_owned())),
                Reply::Accepted
                | Reply::Nothing
                | Reply::BreakOff
                | Reply::OfTheTransport { .. } => (),
            }
        }));
        respond(out, "202 Accepted", &[("Content-Type", "text/plain")], "Accepted")
    }
}
