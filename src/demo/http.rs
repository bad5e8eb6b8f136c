//! The demo server over Streamable HTTP, on loopback alone.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::bounded;
use ring::rand::{SecureRandom, SystemRandom};

use super::{Answer, Demo, SlowCall};
use crate::access::origin::{HostCheck, Origins};
use crate::http::{self, Handler, Head, Listen, OpenResponse, Request, Responder, Server};
use crate::limits::Limits;
use crate::protocol::call::PrincipalId;
use crate::protocol::headers::{self, EVENT_STREAM, JSON};
use crate::protocol::jsonrpc::{Message, RequestId, RpcError, code, error_response};
use crate::protocol::method::Method;
use crate::protocol::revision::Revision;
use crate::protocol::sse;
use crate::sync::Mutex;
use crate::thread::{self, StopReason};
use crate::wait::{ClientWatch, Interrupted, Wait, Woken};

/// The most connections at once.
const CONNECTIONS_MAX: usize = 256;
/// Bytes of all bodies held at once.
const BUFFERED_BYTES_MAX: usize = 64 * 1024 * 1024;
/// The most sessions at once. One more ends the session that was unused for longest.
const SESSIONS_MAX: usize = 1024;
/// The most slow calls at once; each holds the thread of its connection.
const SLOW_CALLS_MAX: usize = 64;
/// The time that a slow call may take beyond its steps on a busy machine.
const SLOW_CALL_SLACK: Duration = Duration::from_secs(60);
/// The time for answers to go out once the server stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);
/// The reasons to stop that may wait; one is enough.
const STOP_REASONS_MAX: usize = 4;

const _: () = assert!(SLOW_CALLS_MAX < CONNECTIONS_MAX);

const STREAM_HEADERS: [(&str, &str); 2] =
    [("Content-Type", EVENT_STREAM), ("Cache-Control", "no-cache, no-transform")];

/// Every status code of this server.
mod status {
    pub(super) const OK: u16 = 200;
    pub(super) const ACCEPTED: u16 = 202;
    pub(super) const BAD_REQUEST: u16 = 400;
    pub(super) const FORBIDDEN: u16 = 403;
    pub(super) const NOT_FOUND: u16 = 404;
    pub(super) const WRONG_METHOD: u16 = 405;
    pub(super) const NOT_JSON: u16 = 415;
    pub(super) const FAILED: u16 = 500;
}

/// Serves until a signal, or until the engine has ended. `listening` is called with the URL once
/// clients can connect.
///
/// # Errors
/// The address is not on loopback or cannot be bound, or the system refuses threads.
pub fn serve(address: SocketAddr, listening: impl FnOnce(&str)) -> io::Result<StopReason> {
    if !address.ip().to_canonical().is_loopback() {
        let what = format!(
            "{address} can be reached from other machines, and the demo server asks for no key: \
             give it a loopback address, such as 127.0.0.1:{}",
            address.port()
        );
        return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    }
    let (stop, stopped) = bounded(STOP_REASONS_MAX);
    let _signals = thread::watch_signals(stop.clone(), None)?;
    let limits = Limits {
        connections: CONNECTIONS_MAX,
        buffered_bytes: BUFFERED_BYTES_MAX,
        ..Limits::default()
    };
    let server = Server::bind(&Listen::Tcp(address), Arc::new(limits))?;
    let url = format!("http://{}/mcp", server.local_addr_text());
    let shell = Arc::new(Shell::new());
    let running = server.start(shell.clone(), stop)?;
    listening(&url);
    let reason = stopped.recv().unwrap_or(StopReason::Signal);
    shell.slow_calls.stop();
    running.drain(Instant::now() + STOP_TIMEOUT);
    Ok(reason)
}

/// A refusal of a request.
struct Refusal {
    status: u16,
    error: RpcError,
    id: Option<RequestId>,
    headers: Vec<(&'static str, String)>,
}

impl Refusal {
    fn new(status: u16, code: i64, what: impl Into<String>) -> Refusal {
        let headers = vec![("Content-Type", JSON.to_owned())];
        Refusal { status, error: RpcError::new(code, what), id: None, headers }
    }

    fn bad_request(what: impl Into<String>) -> Refusal {
        Refusal::new(status::BAD_REQUEST, code::BAD_REQUEST, what)
    }

    fn into_answer(self) -> http::Answer {
        let body = error_response(self.id.as_ref(), &self.error).into_bytes();
        http::Answer { status: self.status, headers: self.headers, body }
    }
}

/// The result of a POST.
struct Post {
    session: Arc<str>,
    /// True if this POST has opened the session, so that the answer carries its id.
    is_new: bool,
    /// True if the answer may be an event stream.
    may_stream: bool,
    answers: Vec<Answer>,
}

/// The values that the connections' threads share.
struct Shell {
    origins: Origins,
    sessions: Mutex<Sessions>,
    slow_calls: SlowCalls,
}

impl Shell {
    fn new() -> Shell {
        Shell {
            // Without configured names, only those of loopback are admitted.
            origins: Origins { check_host: HostCheck::Names, ..Origins::default() },
            sessions: Mutex::default(),
            slow_calls: SlowCalls::default(),
        }
    }

    /// Checks a request before its body is there.
    fn gate(&self, head: &Head) -> Result<(), Refusal> {
        let (host, origin) = (head.headers.get("host"), head.headers.get("origin"));
        if self.origins.check(host, origin).is_err() {
            let what = "The Host or Origin header is foreign: this server serves loopback.";
            return Err(Refusal::new(status::FORBIDDEN, code::BAD_REQUEST, what));
        }
        if !matches!(head.path.as_str(), "/" | "/mcp" | "/mcp/") {
            let what = "There is nothing at this path. Served is /mcp.";
            return Err(Refusal::new(status::NOT_FOUND, code::BAD_REQUEST, what));
        }
        if head.method != "POST" {
            let what = "This path serves POST.";
            let mut refusal = Refusal::new(status::WRONG_METHOD, code::BAD_REQUEST, what);
            refusal.headers.push(("Allow", "POST".to_owned()));
            return Err(refusal);
        }
        if !head.headers.get("content-type").is_some_and(headers::is_json) {
            let what = "The body must be declared as \"Content-Type: application/json\".";
            return Err(Refusal::new(status::NOT_JSON, code::BAD_REQUEST, what));
        }
        Ok(())
    }

    fn read(&self, request: &Request) -> Result<Post, Refusal> {
        let fields = &request.head.headers;
        let may_stream =
            fields.get_all("accept").any(|v| headers::accepts(Some(v), EVENT_STREAM))
                || fields.get("accept").is_none();
        let text = std::str::from_utf8(&request.body).map_err(|_| {
            let what = "The body is not in UTF-8.";
            Refusal::new(status::BAD_REQUEST, code::PARSE_ERROR, what)
        })?;
        // The session's revision decides if a batch is one.
        if !text.trim_start().starts_with('[') {
            let message = Message::parse(text).map_err(|malformed| Refusal {
                id: malformed.id,
                ..Refusal::new(
                    status::BAD_REQUEST,
                    malformed.error.code,
                    malformed.error.message,
                )
            })?;
            if matches!(message, Message::Request { method, .. }
                if method == Method::Initialize.as_str())
            {
                return self.initialize(text);
            }
        }
        let version = fields.get(headers::PROTOCOL_VERSION).map(str::trim);
        if version.is_some_and(|version| Revision::parse_legacy(version).is_none()) {
            let what = "Bad Request: the revision in MCP-Protocol-Version is not supported.";
            return Err(Refusal::bad_request(what));
        }
        let id = fields.get(headers::SESSION_ID).ok_or_else(|| {
            Refusal::bad_request(
                "Bad Request: the Mcp-Session-Id header is missing. Open a session with \
                 initialize.",
            )
        })?;
        let (session, mut demo) = self.sessions.lock().find(id).ok_or_else(|| {
            let what = "Session not found. Open a new one with initialize.";
            Refusal::new(status::NOT_FOUND, code::SESSION_NOT_FOUND, what)
        })?;
        let answers = demo.answer(text, SystemTime::now());
        Ok(Post { session, is_new: false, may_stream, answers })
    }

    /// Opens a session, unless the request was wrong. A client that begins anew may still carry
    /// the id of an earlier session.
    fn initialize(&self, text: &str) -> Result<Post, Refusal> {
        let mut demo = Demo::new();
        let answers = demo.answer(text, SystemTime::now());
        let is_new = demo.revision.is_some();
        let session = if is_new { new_session_id()? } else { Arc::from("") };
        if is_new {
            self.sessions.lock().insert(session.clone(), demo);
        }
        Ok(Post { session, is_new, may_stream: false, answers })
    }

    /// Answers a POST.
    fn take(&self, post: Post, responder: Responder) {
        let Post { session, is_new, may_stream, answers } = post;
        let (mut texts, mut calls) = (Vec::new(), Vec::new());
        for answer in answers {
            match answer {
                Answer::Text(text) => texts.push(text),
                Answer::Cancel(id) => self.slow_calls.cancel((session.clone(), id)),
                Answer::Slow(call) => {
                    match self.slow_calls.enter(&session, call, responder.client()) {
                        Ok(call) => calls.push(call),
                        Err(refused) => texts.push(refused),
                    }
                }
            }
        }
        let wants_stream = calls.iter().any(|call| call.plan.wants_progress());
        let responder = if is_new {
            responder.always([(headers::SESSION_ID, session.to_string())])
        } else {
            responder
        };
        match (texts.as_slice(), calls.as_slice()) {
            ([], []) => {
                responder.respond(status::ACCEPTED, &[], &[]).ok();
            }
            ([text], []) => respond_json(responder, text),
            ([], [call]) if !(wants_stream && may_stream) => answer_plainly(call, responder),
            _ => answer_as_stream(&texts, &calls, responder),
        }
    }
}

impl Handler for Shell {
    fn admit(&self, head: &Head) -> Result<Option<PrincipalId>, http::Answer> {
        self.gate(head).map(|()| None).map_err(Refusal::into_answer)
    }

    fn handle(&self, request: Request, responder: Responder) {
        match self.gate(&request.head).and_then(|()| self.read(&request)) {
            Ok(post) => self.take(post, responder),
            Err(refusal) => {
                let answer = refusal.into_answer();
                let fields: Vec<_> = answer
                    .headers
                    .iter()
                    .map(|(name, value)| (*name, value.as_str()))
                    .collect();
                // If the client has gone, the answer is not missed, here and below.
                responder.respond(answer.status, &fields, &[&answer.body]).ok();
            }
        }
    }

    fn refusal(&self, _status: u16, reason: &str) -> Vec<u8> {
        error_response(None, &RpcError::new(code::BAD_REQUEST, reason)).into_bytes()
    }
}

fn respond_json(responder: Responder, text: &str) {
    responder.respond(status::OK, &[("Content-Type", JSON)], &[text.as_bytes()]).ok();
}

fn answer_plainly(call: &Entered<'_>, responder: Responder) {
    match call.run(|_| Ok(())) {
        Ok(Some(text)) => respond_json(responder, &text),
        // An event stream without events is the one answer that holds no response.
        Ok(None) => {
            responder.open(status::OK, &STREAM_HEADERS).and_then(OpenResponse::finish).ok();
        }
        Err(ClientGone) => (),
    }
}

/// Answers with an event stream. Calls of a batch run one after another, since they share a
/// thread.
fn answer_as_stream(texts: &[String], calls: &[Entered<'_>], responder: Responder) {
    let Ok(mut open) = responder.open(status::OK, &STREAM_HEADERS) else { return };
    let mut tell =
        |text: &str| open.write(&[sse::event("", text).as_bytes()]).map_err(|_| ClientGone);
    let told = texts.iter().try_for_each(|text| tell(text)).and_then(|()| {
        calls.iter().try_for_each(|call| match call.run(&mut tell)? {
            Some(text) => tell(&text),
            None => Ok(()),
        })
    });
    if told.is_ok() {
        open.finish().ok();
    }
}

/// 128 random bits in hexadecimal.
fn new_session_id() -> Result<Arc<str>, Refusal> {
    let mut bytes = [0; 16];
    SystemRandom::new().fill(&mut bytes).map_err(|_| {
        let what = "The system gives no random numbers.";
        Refusal::new(status::FAILED, code::INTERNAL_ERROR, what)
    })?;
    let mut id = String::with_capacity(32);
    for byte in bytes {
        // Writing to a string cannot fail.
        write!(id, "{byte:02x}").ok();
    }
    Ok(id.into())
}

/// The open sessions. Clients may leave without ending theirs, so a full table gives up the
/// session that was unused for longest; its client gets 404 and begins anew.
#[derive(Default)]
struct Sessions {
    open: HashMap<Arc<str>, (Demo, u64)>,
    /// The number of uses so far: a later use has a larger number.
    n_uses: u64,
}

impl Sessions {
    fn insert(&mut self, id: Arc<str>, demo: Demo) {
        if self.open.len() >= SESSIONS_MAX {
            let oldest = self.open.iter().min_by_key(|(_, (_, used))| *used);
            if let Some(oldest) = oldest.map(|(id, _)| id.clone()) {
                self.open.remove(&oldest);
            }
        }
        self.n_uses += 1;
        self.open.insert(id, (demo, self.n_uses));
    }

    fn find(&mut self, id: &str) -> Option<(Arc<str>, Demo)> {
        let key = self.open.get_key_value(id)?.0.clone();
        let (demo, used) = self.open.get_mut(id)?;
        self.n_uses += 1;
        *used = self.n_uses;
        Some((key, demo.clone()))
    }
}

/// The session of a request, and the request's id there.
type CallKey = (Arc<str>, RequestId);

/// The slow calls in work, which can be cancelled.
#[derive(Default)]
struct SlowCalls(Mutex<Running>);

#[derive(Default)]
struct Running {
    waits: HashMap<CallKey, Arc<Wait>>,
    is_stopping: bool,
}

impl SlowCalls {
    /// Enters a call.
    ///
    /// # Errors
    /// The text of the answer when the call cannot run.
    fn enter(
        &self,
        session: &Arc<str>,
        plan: SlowCall,
        client: ClientWatch,
    ) -> Result<Entered<'_>, String> {
        let refuse =
            |code, what: &str| Err(error_response(Some(plan.id()), &RpcError::new(code, what)));
        let mut running = self.0.lock();
        let key = (session.clone(), plan.id().clone());
        if running.is_stopping {
            return refuse(code::INTERNAL_ERROR, "The server stops.");
        }
        if running.waits.contains_key(&key) {
            let what = "A request with this id is being answered.";
            return refuse(code::INVALID_REQUEST, what);
        }
        if running.waits.len() >= SLOW_CALLS_MAX {
            let what = format!("{SLOW_CALLS_MAX} slow calls are running already.");
            return refuse(code::INTERNAL_ERROR, &what);
        }
        let time = plan.time() + SLOW_CALL_SLACK;
        // Streams cannot be resumed here, so an answer whose client has gone is not needed.
        let Ok(wait) = Wait::new(time, time, Some(client)) else {
            return refuse(code::INTERNAL_ERROR, "The system gives no descriptor.");
        };
        running.waits.insert(key.clone(), wait.clone());
        drop(running);
        Ok(Entered { calls: self, key, plan, wait })
    }

    fn cancel(&self, key: CallKey) {
        if let Some(wait) = self.0.lock().waits.get(&key) {
            wait.interrupt(Interrupted::Cancelled);
        }
    }

    fn stop(&self) {
        let mut running = self.0.lock();
        running.is_stopping = true;
        running.waits.values().for_each(|wait| wait.interrupt(Interrupted::Stopping));
    }
}

/// A slow call that can be cancelled until it is dropped.
struct Entered<'a> {
    calls: &'a SlowCalls,
    key: CallKey,
    plan: SlowCall,
    wait: Arc<Wait>,
}

/// The client has gone.
struct ClientGone;

impl Entered<'_> {
    /// Runs the call to its end, and sends its progress. Returns the text of its answer, or none
    /// if it was cancelled (2025-11-25, basic/utilities/cancellation).
    fn run(
        &self,
        mut tell: impl FnMut(&str) -> Result<(), ClientGone>,
    ) -> Result<Option<String>, ClientGone> {
        let time = self.plan.time() + SLOW_CALL_SLACK;
        self.wait.set_timeout(time, time);
        let started = Instant::now();
        for step in 1..=self.plan.steps() {
            match self.sleep_until(started + self.plan.step_time() * step) {
                Ok(()) => (),
                Err(Interrupted::Cancelled) => return Ok(None),
                Err(Interrupted::ClientGone) => return Err(ClientGone),
                Err(Interrupted::Deadline | Interrupted::Stopping | Interrupted::Retired) => {
                    let error = RpcError::new(code::INTERNAL_ERROR, "The server stops.");
                    return Ok(Some(error_response(Some(self.plan.id()), &error)));
                }
            }
            if let Some(progress) = self.plan.progress(step) {
                tell(&progress)?;
            }
        }
        Ok(Some(self.plan.result()))
    }

    fn sleep_until(&self, at: Instant) -> Result<(), Interrupted> {
        loop {
            let left = at.saturating_duration_since(Instant::now());
            if self.wait.until(None, Some(left))? == Woken::Tick {
                return Ok(());
            }
        }
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.calls.0.lock().waits.remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_table_gives_up_the_session_unused_for_longest() {
        let mut sessions = Sessions::default();
        for number in 0..SESSIONS_MAX {
            sessions.insert(number.to_string().into(), Demo::new());
        }
        assert!(sessions.find("0").is_some());
        sessions.insert("new".into(), Demo::new());
        assert_eq!(sessions.open.len(), SESSIONS_MAX);
        for (id, is_open) in [("0", true), ("1", false), ("2", true), ("new", true)] {
            assert_eq!(sessions.find(id).is_some(), is_open, "{id}");
        }
    }

    #[test]
    fn a_call_is_known_until_it_is_dropped() {
        let calls = SlowCalls::default();
        let session: Arc<str> = "s".into();
        let text = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call",
            "params":{"name":"slow","arguments":{"seconds":600}}}"#;
        let enter = || {
            let [Answer::Slow(plan)] = &*Demo::new().answer(text, SystemTime::UNIX_EPOCH)
            else {
                panic!("no slow call")
            };
            let (client, _) = std::os::unix::net::UnixStream::pair().unwrap();
            calls.enter(&session, plan.clone(), Arc::new(client))
        };
        let Ok(first) = enter() else { panic!("refused") };
        assert!(enter().is_err_and(|text| text.contains("-32600")));
        calls.cancel((session.clone(), 1.into()));
        assert!(first.run(|_| Ok(())).is_ok_and(|text| text.is_none()));
        drop(first);
        drop(enter().unwrap_or_else(|text| panic!("{text}")));
        calls.stop();
        assert!(enter().is_err_and(|text| text.contains("stops")));
    }
}
