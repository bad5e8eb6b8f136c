//! One connection's states: idle, head, body, handler, idle again; and its end.

use std::any::Any;
use std::io::{self, ErrorKind, IoSlice};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::net::Shutdown;

use super::bound::{Bound, TOO_MUCH_BUFFERED};
use super::chunked::ChunkDecoder;
use super::framing::{
    self, BodyFraming, HeadScan, Manner, Parsed, Refusal, Rejected, over, refuse,
};
use super::input::Input;
use super::pool::{Awake, Conn};
use super::responder::{Fate, FateCell, Responder, closing_answer, refusal_body};
use super::response;
use super::shared::{SHARE_HELD, Shared, TOO_MANY};
use super::{Answer, Head, Request, rejection};
use crate::budget::{Exhausted, Share};
use crate::limits::{DRAINED_HEAD_TIMEOUT, HEAD_LOOK_INTERVAL, THREAD_STACK_BYTES};
use crate::protocol::headers::REQUEST_ID;
use crate::telemetry::{RequestName, access, request};
use crate::thread;

/// The text for a client whose request comes after the server has begun to end.
const STOPPING: &str = "the server is shutting down";
/// The time in which a client can read an answer that ends its connection.
const LINGER: Duration = Duration::from_millis(500);
/// Bytes of a client that are read and thrown away in that time.
const LINGER_BYTES_MAX: usize = 32 * 1024 * 1024;
/// The smallest step by which a body's memory grows. No step is larger than the bytes that have
/// arrived.
const BODY_STEP_BYTES: usize = 16 * 1024;

/// The reason why reading did not give a request.
enum End {
    /// The connection is closed without an answer.
    Quiet,
    /// The engine answers with the refusal, and closes.
    Refused(Refusal),
    /// As `Refused`, for a request whose head is known.
    RefusedRequest(Refusal, Box<Head>),
    /// The handler has answered after the head, and does not want the body.
    Answered(Answer),
}

impl From<Refusal> for End {
    fn from(refusal: Refusal) -> End {
        End::Refused(refusal)
    }
}

impl From<Rejected> for End {
    fn from(rejected: Rejected) -> End {
        let Rejected { refusal, head } = rejected;
        match head {
            Some(head) => End::RefusedRequest(refusal, head),
            None => End::Refused(refusal),
        }
    }
}

impl End {
    /// The same end, for the request with this head.
    fn of(self, head: &Head) -> End {
        match self {
            End::Refused(refusal) => End::RefusedRequest(refusal, Box::new(head.clone())),
            End::Quiet | End::RefusedRequest(..) | End::Answered(_) => self,
        }
    }
}

impl From<Exhausted> for End {
    fn from(_: Exhausted) -> End {
        End::Refused(over(Bound::BufferedBytes, 503, TOO_MUCH_BUFFERED))
    }
}

/// The refusal of a client that is too slow.
fn or_late(bound: Bound, late: &'static str) -> impl Fn(io::Error) -> End {
    move |error| {
        if error.kind() == ErrorKind::TimedOut {
            End::Refused(over(bound, 408, late))
        } else {
            End::Quiet
        }
    }
}

/// Starts one more thread of the pool; it serves connections until the pool ends it.
///
/// # Errors
/// The system refuses a thread.
pub(crate) fn start_thread(shared: &Arc<Shared>) -> io::Result<()> {
    let number = shared.threads_started.fetch_add(1, Ordering::Relaxed) % 10_000;
    let for_thread = Arc::clone(shared);
    let joined =
        thread::spawn_sized(&format!("http-{number:03}"), THREAD_STACK_BYTES, move || {
            let mut input = Input::new();
            while let Some(conn) = for_thread.pool.next() {
                // The handler's panics are caught nearer; this `catch_unwind` keeps the count of
                // threads true.
                let served =
                    catch_unwind(AssertUnwindSafe(|| serve(&for_thread, &conn, &mut input)));
                if served.is_err() {
                    log::error!("serving a connection panicked");
                }
                for_thread.pool.finished(&conn);
            }
        })?;
    shared.pool.keep(joined);
    Ok(())
}

/// Starts a thread for a connection that took the place of an evicted one which keeps its
/// thread.
fn replace_thread(shared: &Arc<Shared>) {
    if shared.pool.replace() && start_thread(shared).is_err() {
        // The connection is served by the next thread that comes free, or cut.
        drop(shared.pool.thread_failed());
    }
}

/// Serves a connection to its end, or until it leaves the pool as a stream.
fn serve(shared: &Arc<Shared>, conn: &Arc<Conn>, input: &mut Input) {
    input.reset();
    if conn.socket.set_idle_timeout(shared.limits.idle).is_err() {
        return;
    }
    let mut server = Serving { shared, conn, input };
    let said_goodbye = loop {
        match server.next_request() {
            Ok((request, manner)) => match server.dispatch(request, manner) {
                Fate::Keep => (),
                Fate::Detached => return,
                // A client that asked to close the connection sends nothing more.
                Fate::Pending | Fate::Answering | Fate::Close => {
                    break manner.keep_alive || !server.input.is_empty();
                }
            },
            Err(End::Quiet) => break false,
            Err(End::Refused(refusal)) => {
                // From here on the connection may be closed to make room for another.
                shared.pool.enter_idle(conn);
                server.refuse(refusal);
                break true;
            }
            Err(End::RefusedRequest(refusal, head)) => {
                shared.pool.enter_idle(conn);
                server.refuse_request(refusal, &head);
                break true;
            }
            Err(End::Answered(answer)) => {
                shared.pool.enter_idle(conn);
                server.send_answer(&answer);
                break true;
            }
        }
    };
    if said_goodbye {
        server.linger();
    }
    conn.socket.shutdown(Shutdown::Both);
}

/// The values that a thread uses while it serves one connection.
struct Serving<'a> {
    shared: &'a Arc<Shared>,
    conn: &'a Arc<Conn>,
    input: &'a mut Input,
}

impl Serving<'_> {
    fn next_request(&mut self) -> Result<(Request, Manner), End> {
        self.shared.pool.enter_idle(self.conn);
        if self.input.is_empty() {
            self.await_bytes()?;
        }
        // Before its head is whole a request has no principal, and may be closed to make room for
        // others.
        self.shared.pool.begin_head(self.conn);
        let parsed = self.read_head()?;
        if self.conn.leave_idle() == Awake::Evicted {
            if !self.shared.is_draining() {
                // Its place and its thread were given to another connection.
                let end = End::from(over(Bound::Connections, 503, TOO_MANY));
                return Err(end.of(&parsed.head));
            }
            // This request is still served, so its thread is not free, as the pool has assumed.
            replace_thread(self.shared);
        }
        let (body, share) = self.read_body(&parsed).map_err(|end| {
            self.shared.handler.aborted();
            end.of(&parsed.head)
        })?;
        Ok((Request { head: parsed.head, body, share }, parsed.manner))
    }

    /// Waits until the first byte of a request, the client's end, or an eviction.
    fn await_bytes(&mut self) -> Result<(), End> {
        let socket = &self.conn.socket;
        // The eviction is read after the connection has become idle: the evicting thread either
        // finds it idle or is noticed here. A drain looks again and again.
        let received = if self.conn.is_evicted() {
            self.input.fill_now(socket)
        } else {
            self.input.fill_idle(socket)
        };
        match received {
            Ok(0) | Err(_) => Err(End::Quiet),
            Ok(_) => Ok(()),
        }
    }

    fn read_head(&mut self) -> Result<Parsed, End> {
        let limits = &self.shared.limits;
        let mut scan = HeadScan::default();
        let begun = Instant::now();
        let mut draining_since = None;
        loop {
            let bytes = self.input.bytes();
            if let Some((start, end)) = scan.find(bytes, limits.head_bytes)? {
                let raw = bytes.get(start..end).unwrap_or(&[]);
                let parsed = framing::parse(raw, limits, self.conn.peer)?;
                self.input.consume(end);
                return Ok(parsed);
            }
            let now = Instant::now();
            if self.shared.is_draining() {
                let since = *draining_since.get_or_insert(now);
                if now.saturating_duration_since(since) >= DRAINED_HEAD_TIMEOUT {
                    return Err(refuse(503, STOPPING).into());
                }
            }
            let deadline = begun + limits.head;
            let look = deadline.min(now + HEAD_LOOK_INTERVAL);
            match self.input.fill_until(&self.conn.socket, look) {
                Ok(0) => return Err(self.no_more_of_a_head()),
                Ok(_) => (),
                Err(error) if error.kind() == ErrorKind::TimedOut && look < deadline => (),
                Err(error) => {
                    return Err(or_late(Bound::HeadTime, "the head did not arrive in time")(
                        error,
                    ));
                }
            }
        }
    }

    /// The end of a connection without a whole head: a client whose connection was evicted is
    /// told the reason.
    fn no_more_of_a_head(&self) -> End {
        if !self.conn.is_evicted() {
            End::Quiet
        } else if self.shared.is_draining() {
            refuse(503, STOPPING).into()
        } else {
            over(Bound::Connections, 503, TOO_MANY).into()
        }
    }

    /// Reads the body. Bytes that arrived with the head are charged to no principal before the
    /// handler has named one; more bytes are charged from the first on.
    fn read_body(&mut self, parsed: &Parsed) -> Result<(Vec<u8>, Share), End> {
        let mut share = self.shared.budget.share();
        let body = match parsed.body {
            BodyFraming::Empty => Vec::new(),
            BodyFraming::Length(length) => self.read_length(parsed, length, &mut share)?,
            BodyFraming::Chunked => self.read_chunks(parsed, &mut share)?,
        };
        Ok((body, share))
    }

    fn read_length(
        &mut self,
        parsed: &Parsed,
        length: usize,
        share: &mut Share,
    ) -> Result<Vec<u8>, End> {
        if let Some(whole) = self.input.bytes().get(..length) {
            share.grow_to(length)?;
            let body = whole.to_vec();
            self.input.consume(length);
            return Ok(body);
        }
        self.admit(parsed, share)?;
        let deadline = Instant::now() + self.shared.limits.body;
        let mut body = Vec::new();
        share.grow_to(self.input.bytes().len())?;
        body.extend_from_slice(self.input.bytes());
        self.input.reset();
        while body.len() < length {
            if body.len() == body.capacity() {
                let step = body.len().max(BODY_STEP_BYTES).min(length - body.len());
                share.grow_to(body.len() + step)?;
                body.reserve_exact(step);
            }
            let received = self.conn.socket.append_until(&mut body, deadline);
            if received.map_err(or_late(Bound::BodyTime, "the body did not arrive in time"))?
                == 0
            {
                return Err(End::Quiet);
            }
        }
        // The last piece may hold the beginning of the next request.
        self.input.put_back(body.get(length..).unwrap_or(&[]));
        body.truncate(length);
        Ok(body)
    }

    fn read_chunks(&mut self, parsed: &Parsed, share: &mut Share) -> Result<Vec<u8>, End> {
        let mut decoder = ChunkDecoder::new(self.shared.limits.body_bytes);
        let mut body = Vec::new();
        let mut deadline = None;
        loop {
            // The bytes are charged before the memory is taken: no chunk's data is longer than
            // its wire form.
            share.grow_to(body.len() + self.input.bytes().len())?;
            let taken = decoder.feed(self.input.bytes(), &mut body)?;
            self.input.consume(taken);
            if decoder.is_done() {
                return Ok(body);
            }
            let deadline = match deadline {
                Some(deadline) => deadline,
                None => {
                    self.admit(parsed, share)?;
                    *deadline.insert(Instant::now() + self.shared.limits.body)
                }
            };
            let received = self.input.fill_until(&self.conn.socket, deadline);
            if received.map_err(or_late(Bound::BodyTime, "the body did not arrive in time"))?
                == 0
            {
                return Err(End::Quiet);
            }
        }
    }

    /// Asks the handler to admit a request whose body is not here yet, and the client to send the
    /// body.
    fn admit(&self, parsed: &Parsed, share: &mut Share) -> Result<(), End> {
        let handler = &self.shared.handler;
        let charged = match catch_unwind(AssertUnwindSafe(|| handler.admit(&parsed.head))) {
            Ok(Ok(charged)) => charged,
            Ok(Err(answer)) => return Err(End::Answered(answer)),
            Err(panic) => {
                self.note_panic(panic.as_ref());
                return Err(End::Refused(refuse(500, "internal error")));
            }
        };
        let held = self.shared.pool.charge(self.conn, charged.as_ref());
        held.map_err(|_| over(Bound::Connections, 503, SHARE_HELD))?;
        share.charge(charged.as_ref())?;
        if parsed.expects_continue {
            self.send(response::CONTINUE).map_err(|_| End::Quiet)?;
        }
        Ok(())
    }

    fn dispatch(&self, request: Request, manner: Manner) -> Fate {
        self.shared.requests.fetch_add(1, Ordering::Relaxed);
        let fate = Arc::new(FateCell::new());
        let responder = Responder::new(
            Arc::clone(self.shared),
            Arc::clone(self.conn),
            Arc::clone(&fate),
            manner,
        );
        let handler = &self.shared.handler;
        // A bug in one request must not take the others with it: a handler has only handles
        // and its own values, so nothing half-changed is left behind.
        let served = catch_unwind(AssertUnwindSafe(|| handler.handle(request, responder)));
        let panicked = match served {
            Ok(()) => false,
            Err(panic) => {
                self.note_panic(panic.as_ref());
                true
            }
        };
        match fate.get() {
            Fate::Keep if panicked => Fate::Close,
            Fate::Pending | Fate::Answering => {
                // Another thread holds the responder, and no client may wait for it.
                fate.claim(Fate::Close);
                log::error!("a handler returned before its request was answered");
                Fate::Close
            }
            fate @ (Fate::Keep | Fate::Close | Fate::Detached) => fate,
        }
    }

    fn note_panic(&self, panic: &(dyn Any + Send)) {
        self.shared.panics.fetch_add(1, Ordering::Relaxed);
        let text = panic
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        log::error!("a request's handler panicked: {}", text.unwrap_or("(no text)"));
    }

    /// Refuses a request whose head could not be read. It is given a random id, so that the
    /// answer leads to its line in the log.
    fn refuse(&self, refusal: Refusal) {
        let told = refusal.told(&self.shared.limits);
        let name = RequestName::random();
        if let Some(reason) = rejection(refusal.status) {
            access::refused(self.conn.peer.ip(), name, reason, refusal.status, &told);
        }
        self.send_refusal(refusal, &told, name);
    }

    /// Refuses a request with a known head; the handler logs it as any request that it refuses.
    fn refuse_request(&self, refusal: Refusal, head: &Head) {
        let told = refusal.told(&self.shared.limits);
        let reason = rejection(refusal.status);
        let handler = &self.shared.handler;
        let refused = || handler.refused(head, reason, &told);
        let served = catch_unwind(AssertUnwindSafe(refused));
        let Ok(served) = served else { return self.refuse(refusal) };
        request::answers(refusal.status);
        self.send_refusal(refusal, &told, served.name);
    }

    fn send_refusal(&self, refusal: Refusal, told: &str, name: RequestName) {
        let body = refusal_body(self.shared, refusal.status, told);
        let mut headers =
            vec![("Content-Type", "application/json"), (REQUEST_ID, name.as_str())];
        if refusal.status == 503 {
            self.shared.refused.fetch_add(1, Ordering::Relaxed);
            headers.push(("Retry-After", "1"));
        }
        let answer = closing_answer(refusal.status, headers, &body);
        // If the client has gone, the answer is not missed.
        if self.send(&answer).is_ok() {
            request::wrote(answer.len());
        }
    }

    fn send_answer(&self, answer: &Answer) {
        let headers = answer.headers.iter().map(|(name, value)| (*name, value.as_str()));
        drop(self.send(&closing_answer(answer.status, headers, &answer.body)));
    }

    fn send(&self, bytes: &[u8]) -> io::Result<()> {
        self.conn.socket.send_all(&mut [IoSlice::new(bytes)], self.shared.limits.write)
    }

    /// Gives the client time to read its answer: closing with its bytes unread would reset the
    /// connection and could destroy the answer on its way.
    fn linger(&mut self) {
        let socket = &self.conn.socket;
        socket.shutdown(Shutdown::Write);
        self.shared.pool.enter_idle(self.conn);
        let deadline = Instant::now() + LINGER;
        let mut left = LINGER_BYTES_MAX;
        self.input.reset();
        while left > 0
            && let Ok(received @ 1..) = self.input.fill_until(socket, deadline)
        {
            left = left.saturating_sub(received);
            self.input.reset();
        }
    }
}
