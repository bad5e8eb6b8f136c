//! The types of the HTTP server on tiny_http, for loopback and Unix sockets only.
//!
//! tiny_http has neither deadlines nor bounds on heads, allocates as much as a client announces,
//! and does not report a client that goes. So only processes of this machine may reach it,
//! streams are answered 405, and an answer written piece by piece goes out when it is finished.

use std::fmt;
use std::io::{self, Cursor, ErrorKind, Read};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use rustix::net::SocketFlags;

use super::bound::{Bound, TOO_MUCH_BUFFERED};
use super::socket_file::{self, SocketFile};
use super::stream::Stream;
use super::{
    Answer, Budget, Counters, Handler, Head, Headers, Inherited, Listen, PassedOn, Peer,
    PeerUser, Request, Share, response,
};
use crate::budget::Exhausted;
use crate::limits::{Limits, RESULT_BYTES_COUNTED_FROM, THREAD_STACK_BYTES};
use crate::protocol::call::PrincipalId;
use crate::protocol::headers::REQUEST_ID;
use crate::sync::{Condvar, Mutex};
use crate::telemetry::rejected::{self, Reason};
use crate::telemetry::{RequestName, request};
use crate::thread::{self, Joined, StopReason};
use crate::wait::{Bell, ClientWatch};

/// Threads that serve requests; tiny_http has others of its own.
const THREADS_MAX: usize = 64;
/// Connections that the kernel holds until they are accepted.
const BACKLOG: i32 = 128;
/// Bytes of a body that are read at once.
const BODY_STEP_BYTES: u64 = 16 * 1024;
/// The time for which threads are waited for at the end.
const CUT_GRACE: Duration = Duration::from_secs(2);

/// The values that the threads of one server share.
struct Shared {
    engine: tiny_http::Server,
    limits: Arc<Limits>,
    budget: Budget,
    handler: Arc<dyn Handler>,
    /// Never rings: this engine does not notice that a client has gone.
    silent: Arc<Bell>,
    stopping: AtomicBool,
    /// Threads that have not ended.
    threads: Mutex<usize>,
    ended: Condvar,
    at_work: AtomicUsize,
    refused: AtomicU64,
    requests: AtomicU64,
    panics: AtomicU64,
}

/// A bound address that is not served yet.
pub struct Server {
    engine: tiny_http::Server,
    file: Option<SocketFile>,
    address: Listen,
    limits: Arc<Limits>,
    budget: Budget,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Server {
    /// Binds a loopback address or a socket file.
    ///
    /// # Errors
    /// The address is another one, or cannot be bound; the text names it.
    pub fn bind(listen: &Listen, limits: Arc<Limits>) -> io::Result<Server> {
        let bound = bind(listen).map_err(|error| {
            io::Error::new(error.kind(), format!("cannot listen on {listen}: {error}"))
        });
        let (listener, file, address) = bound?;
        let engine =
            tiny_http::Server::from_listener(listener, None).map_err(io::Error::other)?;
        let budget = Budget::new(limits.buffered_bytes);
        Ok(Server { engine, file, address, limits, budget })
    }

    /// Fails: this engine takes no socket over.
    ///
    /// # Errors
    /// Always.
    pub fn take(inherited: Inherited, _limits: Arc<Limits>) -> io::Result<Server> {
        let address = inherited.address();
        Err(io::Error::other(format!("this engine cannot take {address} over")))
    }

    /// Returns none: this engine hands no socket over.
    ///
    /// # Errors
    /// Never.
    pub fn pass_on(&self) -> io::Result<Option<PassedOn>> {
        Ok(None)
    }

    /// The address for people: `127.0.0.1:4000` or `unix:/path`.
    pub fn local_addr_text(&self) -> String {
        self.address.to_string()
    }

    /// The port, unless it is a Unix socket.
    pub fn local_port(&self) -> Option<u16> {
        match &self.address {
            Listen::Tcp(address) => Some(address.port()),
            Listen::Unix { .. } => None,
        }
    }

    /// The budget of bytes that may be buffered, for other parts that buffer for clients.
    pub fn budget(&self) -> Budget {
        self.budget.clone()
    }

    /// Accepts and serves. `stop` is told when the first thread ends, whatever the reason.
    ///
    /// # Errors
    /// The system gives no thread or descriptor.
    pub fn start(
        self,
        handler: Arc<dyn Handler>,
        stop: Sender<StopReason>,
    ) -> io::Result<Running> {
        let shared = Arc::new(Shared {
            engine: self.engine,
            budget: self.budget,
            handler,
            silent: Arc::new(Bell::new()?),
            stopping: AtomicBool::new(false),
            threads: Mutex::new(0),
            ended: Condvar::new(),
            at_work: AtomicUsize::new(0),
            refused: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            panics: AtomicU64::new(0),
            limits: self.limits,
        });
        let count = shared.limits.connections.clamp(1, THREADS_MAX);
        let mut running = Running { shared, threads: Mutex::default(), _file: self.file };
        for number in 0..count {
            let shared = Arc::clone(&running.shared);
            *shared.threads.lock() += 1;
            let counted = Counted(Arc::clone(&shared));
            let body = move || {
                let _counted = counted;
                serve(&shared);
            };
            let joined = if number == 0 {
                thread::spawn_owner("accept", stop.clone(), body)?
            } else {
                thread::spawn_sized(&format!("http-{number:03}"), THREAD_STACK_BYTES, body)?
            };
            running.threads.get_mut().push(joined);
        }
        Ok(running)
    }
}

type Listening = (tiny_http::Listener, Option<SocketFile>, Listen);

fn bind(listen: &Listen) -> io::Result<Listening> {
    match listen {
        Listen::Tcp(address) if !address.ip().to_canonical().is_loopback() => {
            Err(io::Error::new(
                ErrorKind::PermissionDenied,
                "the tiny_http engine has known holes, so it serves loopback and Unix sockets \
                 only; build without the feature tiny_http",
            ))
        }
        Listen::Tcp(address) => {
            let listener = TcpListener::bind(address)?;
            let bound = Listen::Tcp(listener.local_addr()?);
            Ok((listener.into(), None, bound))
        }
        Listen::Unix { path, mode, group } => {
            let (fd, file) =
                socket_file::bind(path, *mode, group.as_deref(), SocketFlags::CLOEXEC)?;
            rustix::net::listen(&fd, BACKLOG)?;
            Ok((UnixListener::from(fd).into(), Some(file), listen.clone()))
        }
    }
}

/// Counts a thread down however it ends.
struct Counted(Arc<Shared>);

impl Drop for Counted {
    fn drop(&mut self) {
        *self.0.threads.lock() -= 1;
        self.0.ended.notify_all();
    }
}

fn serve(shared: &Arc<Shared>) {
    while !shared.stopping.load(Ordering::SeqCst) {
        // An error is the call that ends the threads, or an accept that failed.
        let Ok(incoming) = shared.engine.recv() else { continue };
        shared.at_work.fetch_add(1, Ordering::Relaxed);
        if catch_unwind(AssertUnwindSafe(|| serve_one(shared, incoming))).is_err() {
            shared.panics.fetch_add(1, Ordering::Relaxed);
            log::error!("a request's handler panicked");
        }
        shared.at_work.fetch_sub(1, Ordering::Relaxed);
    }
}

fn serve_one(shared: &Arc<Shared>, mut incoming: tiny_http::Request) {
    let head = head_of(&incoming);
    let has_body =
        incoming.body_length().is_none_or(|length| length > 0) && has_framing(&head.headers);
    let admitted = if has_body { shared.handler.admit(&head) } else { Ok(None) };
    if let Err(answer) = admitted {
        let Answer { status, headers, body } = answer;
        let headers: Vec<_> =
            headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        // If the client has gone, the answer is not missed.
        drop(send(incoming, status, &headers, body));
        return;
    }
    let mut share = shared.budget.share();
    match read_body(&mut incoming, shared.limits.body_bytes, &mut share) {
        Ok(body) => {
            shared.requests.fetch_add(1, Ordering::Relaxed);
            let responder = Responder {
                incoming: Some(incoming),
                shared: Arc::clone(shared),
                always: Vec::new(),
            };
            shared.handler.handle(Request { head, body, share }, responder);
        }
        Err((status, what, bound)) => {
            shared.handler.aborted();
            shared.refused.fetch_add(u64::from(status == 503), Ordering::Relaxed);
            let told = match bound {
                Some(bound) => bound.told(what, &shared.limits),
                None => what.to_owned(),
            };
            let served = shared.handler.refused(&head, super::rejection(status), &told);
            request::answers(status);
            let body = shared.handler.refusal(status, &told);
            let headers =
                [("Content-Type", "application/json"), (REQUEST_ID, served.name.as_str())];
            drop(send(incoming, status, &headers, body));
        }
    }
}

fn has_framing(headers: &Headers) -> bool {
    headers.get("content-length").is_some() || headers.get("transfer-encoding").is_some()
}

fn head_of(incoming: &tiny_http::Request) -> Head {
    let url = incoming.url();
    let (path, query) = match url.split_once('?') {
        Some((path, query)) => (path, Some(query.to_owned())),
        None => (url, None),
    };
    let peer = incoming
        .remote_addr()
        .map_or(Peer::Unix, |address| Peer::Ip(address.ip().to_canonical()));
    let fields = incoming.headers().iter();
    Head {
        method: incoming.method().as_str().to_owned(),
        path: path.to_owned(),
        query,
        headers: fields
            .map(|field| (field.field.as_str().as_str(), field.value.as_str()))
            .collect(),
        peer,
    }
}

fn read_body(
    incoming: &mut tiny_http::Request,
    bytes_max: usize,
    share: &mut Share,
) -> Result<Vec<u8>, (u16, &'static str, Option<Bound>)> {
    const TOO_LONG: (u16, &str, Option<Bound>) =
        (413, "the body is too long", Some(Bound::BodyBytes));
    const TOO_MUCH: (u16, &str, Option<Bound>) =
        (503, TOO_MUCH_BUFFERED, Some(Bound::BufferedBytes));
    if incoming.body_length().is_some_and(|length| length > bytes_max) {
        return Err(TOO_LONG);
    }
    let mut body = Vec::new();
    loop {
        let read = incoming.as_reader().take(BODY_STEP_BYTES).read_to_end(&mut body);
        if body.len() > bytes_max {
            return Err(TOO_LONG);
        }
        share.grow_to(body.len()).map_err(|Exhausted| TOO_MUCH)?;
        match read {
            Ok(0) => return Ok(body),
            Ok(_) => (),
            Err(_) => return Err((400, "the body broke off", None)),
        }
    }
}

fn send(
    incoming: tiny_http::Request,
    status: u16,
    headers: &[(&str, &str)],
    body: Vec<u8>,
) -> io::Result<()> {
    let headers = headers
        .iter()
        .filter(|(name, value)| response::is_sendable(name, value))
        .filter_map(|(name, value)| {
            tiny_http::Header::from_bytes(name.as_bytes(), value.as_bytes()).ok()
        })
        .collect();
    let length = Some(body.len());
    let status = tiny_http::StatusCode(status);
    let answer = tiny_http::Response::new(status, headers, Cursor::new(body), length, None);
    // No chunks are written: the length is known.
    incoming.respond(answer.with_chunked_threshold(usize::MAX))
}

/// The right to answer one request once. Dropped unanswered, it answers 500.
pub struct Responder {
    incoming: Option<tiny_http::Request>,
    shared: Arc<Shared>,
    /// Headers that every answer carries.
    always: Vec<(&'static str, String)>,
}

impl fmt::Debug for Responder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Responder").field("incoming", &self.incoming).finish_non_exhaustive()
    }
}

impl Responder {
    /// Sets the request's id, which the answer carries.
    pub fn named(self, name: RequestName) -> Self {
        self.always([(REQUEST_ID, name.as_str().to_owned())])
    }

    /// Adds headers that the answer carries in any case.
    pub fn always(mut self, headers: impl IntoIterator<Item = (&'static str, String)>) -> Self {
        self.always.extend(headers);
        self
    }

    /// Answers. `body` may come in pieces; its length is their sum.
    ///
    /// # Errors
    /// The client has gone. The caller has nothing left to do.
    pub fn respond(
        self,
        status: u16,
        headers: &[(&str, &str)],
        body: &[&[u8]],
    ) -> io::Result<()> {
        self.respond_counted(status, headers, body, 0)
    }

    /// As [`Responder::respond`]: tiny_http wants a copy of all pieces, which counts whole.
    ///
    /// # Errors
    /// As [`Responder::respond`].
    pub fn respond_counted(
        mut self,
        status: u16,
        headers: &[(&str, &str)],
        body: &[&[u8]],
        _own_bytes: usize,
    ) -> io::Result<()> {
        let bytes: usize = body.iter().map(|piece| piece.len()).sum();
        let mut share = self.shared.budget.share();
        if bytes <= RESULT_BYTES_COUNTED_FROM || share.grow_to(bytes).is_ok() {
            return self.answer(status, headers, body.concat());
        }
        rejected::count(Reason::Overloaded);
        self.shared.refused.fetch_add(1, Ordering::Relaxed);
        let what = Bound::BufferedBytes.told(TOO_MUCH_BUFFERED, &self.shared.limits);
        let body = self.shared.handler.refusal(503, &what);
        let headers = [("Content-Type", "application/json"), ("Retry-After", "1")];
        self.answer(503, &headers, body)
    }

    /// As [`Responder::respond`]: tiny_http decides itself when a connection ends.
    ///
    /// # Errors
    /// As [`Responder::respond`].
    pub fn respond_and_close(
        self,
        status: u16,
        headers: &[(&str, &str)],
        body: &[&[u8]],
    ) -> io::Result<()> {
        self.respond(status, headers, body)
    }

    /// Does nothing: tiny_http does not share its connections.
    ///
    /// # Errors
    /// None.
    pub fn charge(&mut self, _principal: Option<&PrincipalId>) -> Result<(), String> {
        Ok(())
    }

    /// Begins an answer that is sent when it is finished.
    ///
    /// # Errors
    /// None.
    pub fn open(self, status: u16, headers: &[(&str, &str)]) -> io::Result<OpenResponse> {
        let headers =
            headers.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
        let share = self.shared.budget.share();
        Ok(OpenResponse { inner: self, status, headers, body: Vec::new(), share })
    }

    /// Answers 405: tiny_http does not give a connection away.
    ///
    /// # Errors
    /// Always [`ErrorKind::Unsupported`]. The caller has nothing left to do.
    pub fn into_stream(
        mut self,
        _status: u16,
        _headers: &[(&str, &str)],
        _first: &[u8],
    ) -> io::Result<Stream> {
        let body = self.shared.handler.refusal(405, "this build serves no streams");
        self.answer(405, &[("Content-Type", "application/json"), ("Allow", "POST")], body)?;
        Err(ErrorKind::Unsupported.into())
    }

    /// A descriptor that reports nothing.
    pub fn client(&self) -> ClientWatch {
        let silent: Arc<Bell> = Arc::clone(&self.shared.silent);
        silent
    }

    /// Always unknown: tiny_http shows no socket.
    #[expect(clippy::unused_self, reason = "it stands in for the other server's")]
    pub fn peer_user(&self) -> PeerUser {
        PeerUser::Unknown
    }

    /// Always false: tiny_http does not notice it.
    pub fn client_gone(&self) -> bool {
        false
    }

    fn answer(
        &mut self,
        status: u16,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> io::Result<()> {
        let incoming = self.incoming.take().ok_or(ErrorKind::NotConnected)?;
        request::answers(status);
        request::wrote(body.len());
        let always = self.always.iter().map(|(name, value)| (*name, value.as_str()));
        let headers: Vec<_> = headers.iter().copied().chain(always).collect();
        send(incoming, status, &headers, body)
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        if self.incoming.is_some() {
            let refusal =
                || self.shared.handler.refusal(500, "the request was left unanswered");
            let body = catch_unwind(AssertUnwindSafe(refusal)).unwrap_or_default();
            // If the client has gone, the answer is not missed.
            drop(self.answer(500, &[("Content-Type", "application/json")], body));
        }
    }
}

/// An answer that is collected. Dropped without [`OpenResponse::finish`], it becomes a 500.
#[derive(Debug)]
pub struct OpenResponse {
    inner: Responder,
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    share: Share,
}

impl OpenResponse {
    /// Adds to the body.
    ///
    /// # Errors
    /// Too many bytes are buffered.
    pub fn write(&mut self, pieces: &[&[u8]]) -> io::Result<()> {
        let bytes: usize = pieces.iter().map(|piece| piece.len()).sum();
        self.share
            .grow_to(self.body.len() + bytes)
            .map_err(|Exhausted| io::Error::from(ErrorKind::OutOfMemory))?;
        pieces.iter().for_each(|piece| self.body.extend_from_slice(piece));
        Ok(())
    }

    /// Sends the whole answer.
    ///
    /// # Errors
    /// The client has gone.
    pub fn finish(mut self) -> io::Result<()> {
        let headers: Vec<_> =
            self.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        self.inner.answer(self.status, &headers, std::mem::take(&mut self.body))
    }

    /// A descriptor that reports nothing.
    pub fn client(&self) -> ClientWatch {
        self.inner.client()
    }
}

/// A running server. Dropping it waits for its threads.
pub struct Running {
    shared: Arc<Shared>,
    threads: Mutex<Vec<Joined>>,
    _file: Option<SocketFile>,
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running").field("counters", &self.counters()).finish_non_exhaustive()
    }
}

impl Running {
    /// The server's counts. tiny_http tells nothing of its connections, so the connections
    /// counted are requests in work.
    pub fn counters(&self) -> Counters {
        let shared = &self.shared;
        Counters {
            open: shared.at_work.load(Ordering::Relaxed),
            threads: *shared.threads.lock(),
            buffered_bytes: shared.budget.taken(),
            refused: shared.refused.load(Ordering::Relaxed),
            requests: shared.requests.load(Ordering::Relaxed),
            panics: shared.panics.load(Ordering::Relaxed),
            ..Counters::default()
        }
    }

    /// Does nothing: this engine hands no socket over.
    pub fn leave(&self) {}

    /// As [`Running::drain`], which is all that this engine can do.
    pub fn wait_empty(&self, deadline: Instant) -> bool {
        self.drain(deadline)
    }

    /// Lets requests in work be answered, serves no more, and waits until `deadline`. True when
    /// no request is left.
    pub fn drain(&self, deadline: Instant) -> bool {
        self.shared.stopping.store(true, Ordering::SeqCst);
        let threads = self.shared.threads.lock();
        // Each call of `unblock` ends one thread's wait.
        (0..*threads).for_each(|_| self.shared.engine.unblock());
        self.shared.ended.wait_until(threads, deadline, |threads| *threads == 0).1
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let all_ended = self.drain(Instant::now() + CUT_GRACE);
        let joined = std::mem::take(&mut *self.threads.lock());
        if !all_ended {
            log::warn!("handlers still at work were left behind at the stop");
            joined.into_iter().filter(|thread| !thread.is_finished()).for_each(Joined::detach);
        }
    }
}
