//! The right to answer one request, and the three ways to do it.

use std::cell::RefCell;
use std::io::{self, ErrorKind, IoSlice};
use std::os::fd::AsFd as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::net::Shutdown;

use super::bound::{Bound, TOO_MUCH_BUFFERED};
use super::framing::Manner;
use super::peer_user::{self, PeerUser};
use super::pool::Conn;
use super::response::{self, BodyEnd, Connection};
use super::shared::{SHARE_HELD, Shared};
use super::socket::Socket;
use super::stream::Stream;
use crate::limits::RESULT_BYTES_COUNTED_FROM;
use crate::protocol::call::PrincipalId;
use crate::protocol::headers::REQUEST_ID;
use crate::telemetry::rejected::{self, Reason};
use crate::telemetry::{RequestName, request};
use crate::wait::{Bell, ClientWatch};

/// Bodies up to so many bytes are copied behind their head, which is cheaper than to hand over
/// pieces.
const COPIED_BYTES_MAX: usize = 4096;
/// Bytes of room for a head; larger heads make it grow.
const HEAD_ROOM_BYTES: usize = 256;

/// The state of one request's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// There is no answer yet.
    Pending,
    /// The answer is being written.
    Answering,
    /// The answer is out, and the connection serves the next request.
    Keep,
    /// The connection ends.
    Close,
    /// The connection has become a [`Stream`].
    Detached,
}

/// The fate of one request, shared by its responder and its connection's thread.
#[derive(Debug)]
pub(crate) struct FateCell(AtomicU8);

impl FateCell {
    /// The fate of a request without an answer.
    pub(crate) fn new() -> FateCell {
        FateCell(AtomicU8::new(0))
    }

    /// The present fate.
    pub(crate) fn get(&self) -> Fate {
        match self.0.load(Ordering::Acquire) {
            0 => Fate::Pending,
            1 => Fate::Answering,
            2 => Fate::Keep,
            3 => Fate::Detached,
            _ => Fate::Close,
        }
    }

    fn number(fate: Fate) -> u8 {
        match fate {
            Fate::Pending => 0,
            Fate::Answering => 1,
            Fate::Keep => 2,
            Fate::Detached => 3,
            Fate::Close => 4,
        }
    }

    fn set(&self, fate: Fate) {
        self.0.store(FateCell::number(fate), Ordering::Release);
    }

    /// Takes the right to answer, or to give up, if it is not taken yet.
    pub(crate) fn claim(&self, next: Fate) -> bool {
        let (from, to) = (FateCell::number(Fate::Pending), FateCell::number(next));
        self.0.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

/// The right to answer one request once, before [`super::Handler::handle`] returns. Dropped
/// unanswered, it answers 500 and the connection is closed.
#[derive(Debug)]
pub struct Responder {
    shared: Arc<Shared>,
    conn: Arc<Conn>,
    fate: Arc<FateCell>,
    manner: Manner,
    /// Headers that the answer carries in any case.
    always: Vec<(&'static str, String)>,
    /// The request's id, which the answer carries.
    name: Option<RequestName>,
    /// The principal in whose share the answer counts.
    charged: Option<PrincipalId>,
}

impl Responder {
    /// The right to answer the request that is being read from `conn`.
    pub(crate) fn new(
        shared: Arc<Shared>,
        conn: Arc<Conn>,
        fate: Arc<FateCell>,
        manner: Manner,
    ) -> Responder {
        let (always, name, charged) = (Vec::new(), None, None);
        Responder { shared, conn, fate, manner, always, name, charged }
    }

    /// Counts the connection against its principal's share until the request is answered, where
    /// that was not done before the body was read. The answer counts in the principal's share
    /// too.
    ///
    /// # Errors
    /// The principal's requests hold its share already; the text names the bound.
    pub fn charge(&mut self, principal: Option<&PrincipalId>) -> Result<(), String> {
        self.charged = principal.cloned();
        let held = self.shared.pool.charge(&self.conn, principal);
        held.map_err(|_| Bound::Connections.told(SHARE_HELD, &self.shared.limits))
    }

    /// Adds headers that the answer carries in any case.
    pub fn always(mut self, headers: impl IntoIterator<Item = (&'static str, String)>) -> Self {
        self.always.extend(headers);
        self
    }

    /// Sets the request's id, which the answer carries.
    pub fn named(mut self, name: RequestName) -> Self {
        self.name = Some(name);
        self
    }

    fn head(
        &self,
        status: u16,
        headers: &[(&str, &str)],
        end: BodyEnd,
        connection: Connection,
    ) -> Vec<u8> {
        request::answers(status);
        let always = self.always.iter().map(|(name, value)| (*name, value.as_str()));
        let always = always.chain(self.name.iter().map(|name| (REQUEST_ID, name.as_str())));
        head(status, headers.iter().copied().chain(always), end, connection)
    }

    /// Answers. `body` may come in pieces; its length is their sum. While the answer is written
    /// it counts against the bytes that may be held at once, from [`RESULT_BYTES_COUNTED_FROM`]
    /// on; where those are used up, the answer is 503.
    ///
    /// # Errors
    /// The client has gone or does not read. The caller has nothing left to do.
    pub fn respond(
        self,
        status: u16,
        headers: &[(&str, &str)],
        body: &[&[u8]],
    ) -> io::Result<()> {
        let own_bytes = body.iter().map(|piece| piece.len()).sum();
        self.respond_counted(status, headers, body, own_bytes)
    }

    /// As [`Responder::respond`], where all but `own_bytes` of the body are counted already by
    /// their owner.
    ///
    /// # Errors
    /// As [`Responder::respond`].
    pub fn respond_counted(
        self,
        status: u16,
        headers: &[(&str, &str)],
        body: &[&[u8]],
        own_bytes: usize,
    ) -> io::Result<()> {
        let connection = self.connection();
        if own_bytes <= RESULT_BYTES_COUNTED_FROM {
            return self.answer(status, headers, body, connection);
        }
        let mut share = self.shared.budget.share_of(self.charged.clone());
        if share.grow_to(own_bytes).is_ok() {
            return self.answer(status, headers, body, connection);
        }
        self.shared.refused.fetch_add(1, Ordering::Relaxed);
        let what = Bound::BufferedBytes.told(TOO_MUCH_BUFFERED, &self.shared.limits);
        request::turned_away(Reason::Overloaded, None, &what);
        let body = refusal_body(&self.shared, 503, &what);
        let headers = [("Content-Type", "application/json"), ("Retry-After", "1")];
        self.answer(503, &headers, &[&body], connection)
    }

    /// Answers and ends the connection at once, so that the client does not wait for the
    /// handler's further work.
    ///
    /// # Errors
    /// As [`Responder::respond`].
    pub fn respond_and_close(
        self,
        status: u16,
        headers: &[(&str, &str)],
        body: &[&[u8]],
    ) -> io::Result<()> {
        let sent = self.answer(status, headers, body, Connection::Close);
        self.conn.socket.shutdown(Shutdown::Write);
        sent
    }

    /// Begins an answer whose body this thread writes piece by piece. The head goes out now.
    ///
    /// # Errors
    /// As [`Responder::respond`].
    pub fn open(self, status: u16, headers: &[(&str, &str)]) -> io::Result<OpenResponse> {
        self.claim()?;
        let (end, connection) = if self.manner.http10 {
            (BodyEnd::Close, Connection::Close)
        } else {
            (BodyEnd::Chunks, self.connection())
        };
        let head = self.head(status, headers, end, connection);
        let sent = self.send(&mut [IoSlice::new(&head)]);
        let body = if self.manner.head_only || !response::may_have_body(status) {
            Body::None
        } else if self.manner.http10 {
            Body::UntilClose
        } else {
            Body::Chunks
        };
        let open = OpenResponse { body, keeps: connection != Connection::Close, inner: self };
        sent.map(|()| open)
    }

    /// Answers with a head and `first`, and takes the connection out of the pool: the body goes
    /// on for as long as the [`Stream`] lives. Its thread and its place are free again when the
    /// handler returns.
    ///
    /// # Errors
    /// The client has gone, or this engine cannot detach a connection and has answered 405
    /// itself. The caller has nothing left to do.
    pub fn into_stream(
        self,
        status: u16,
        headers: &[(&str, &str)],
        first: &[u8],
    ) -> io::Result<Stream> {
        self.claim()?;
        let mut out = self.head(status, headers, BodyEnd::Close, Connection::Close);
        out.extend_from_slice(first);
        self.send(&mut [IoSlice::new(&out)])?;
        self.fate.set(Fate::Detached);
        Ok(Stream::new(Arc::clone(&self.conn.socket)))
    }

    /// A watch that reports the client's hang-up while the answer is awaited.
    pub fn client(&self) -> ClientWatch {
        if self.conn.is_evicted()
            && let Ok(silent) = Bell::new()
        {
            // This side has shut the receiving direction: a hang-up does not mean that the client
            // has gone.
            return Arc::new(silent);
        }
        let socket: Arc<Socket> = Arc::clone(&self.conn.socket);
        socket
    }

    /// The user of this system at the other end.
    pub fn peer_user(&self) -> PeerUser {
        peer_user::of(self.conn.socket.as_fd())
    }

    /// True if the client has gone.
    pub fn client_gone(&self) -> bool {
        !self.conn.is_evicted() && self.conn.socket.hung_up()
    }

    fn connection(&self) -> Connection {
        if !self.manner.keep_alive || self.shared.is_leaving() || self.conn.is_evicted() {
            Connection::Close
        } else if self.manner.http10 {
            Connection::KeepSaid
        } else {
            Connection::Keep
        }
    }

    fn claim(&self) -> io::Result<()> {
        if self.fate.claim(Fate::Answering) {
            Ok(())
        } else {
            Err(io::Error::new(ErrorKind::NotConnected, "the handler returned unanswered"))
        }
    }

    /// Writes the pieces; a failure ends the connection.
    fn send(&self, pieces: &mut [IoSlice<'_>]) -> io::Result<()> {
        let bytes = pieces.iter().map(|piece| piece.len()).sum();
        let sent = self.conn.socket.send_all(pieces, self.shared.limits.write);
        match &sent {
            Ok(()) => request::wrote(bytes),
            Err(error) => {
                self.fate.set(Fate::Close);
                if error.kind() == ErrorKind::TimedOut {
                    rejected::count(Reason::NotReading);
                }
            }
        }
        sent
    }

    fn answer(
        &self,
        status: u16,
        headers: &[(&str, &str)],
        body: &[&[u8]],
        connection: Connection,
    ) -> io::Result<()> {
        self.claim()?;
        let bytes = body.iter().map(|piece| piece.len()).sum();
        let mut out = self.head(status, headers, BodyEnd::Length(bytes), connection);
        let body =
            if self.manner.head_only || !response::may_have_body(status) { &[] } else { body };
        if bytes <= COPIED_BYTES_MAX {
            body.iter().for_each(|piece| out.extend_from_slice(piece));
            self.send(&mut [IoSlice::new(&out)])?;
        } else {
            let pieces = std::iter::once(out.as_slice()).chain(body.iter().copied());
            self.send(&mut pieces.map(IoSlice::new).collect::<Vec<_>>())?;
        }
        self.fate.set(match connection {
            Connection::Keep | Connection::KeepSaid => Fate::Keep,
            Connection::Close => Fate::Close,
        });
        Ok(())
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        if self.fate.get() == Fate::Pending {
            let body = refusal_body(&self.shared, 500, "the request was left unanswered");
            let headers = [("Content-Type", "application/json")];
            // If the client has gone, the answer is not missed.
            drop(self.answer(500, &headers, &[&body], Connection::Close));
        }
    }
}

/// The way in which an [`OpenResponse`] writes its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Body {
    None,
    Chunks,
    UntilClose,
}

/// An answer that is being written. Dropped without [`OpenResponse::finish`], the connection
/// ends in the middle, which a client of HTTP/1.1 can tell from the end.
#[derive(Debug)]
pub struct OpenResponse {
    inner: Responder,
    body: Body,
    keeps: bool,
}

impl OpenResponse {
    /// Sends more of the body, now.
    ///
    /// # Errors
    /// The client has gone or does not read.
    pub fn write(&mut self, pieces: &[&[u8]]) -> io::Result<()> {
        let bytes: usize = pieces.iter().map(|piece| piece.len()).sum();
        if bytes == 0 || self.body == Body::None {
            return Ok(());
        }
        if self.body == Body::UntilClose {
            let mut pieces: Vec<_> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
            return self.inner.send(&mut pieces);
        }
        let line = response::chunk_size_line(bytes);
        if bytes <= COPIED_BYTES_MAX {
            let chunk = [line.as_bytes(), &pieces.concat(), b"\r\n"].concat();
            return self.inner.send(&mut [IoSlice::new(&chunk)]);
        }
        let mut slices = Vec::with_capacity(pieces.len() + 2);
        slices.push(IoSlice::new(line.as_bytes()));
        slices.extend(pieces.iter().map(|piece| IoSlice::new(piece)));
        slices.push(IoSlice::new(b"\r\n"));
        self.inner.send(&mut slices)
    }

    /// Ends the body properly; the connection serves on.
    ///
    /// # Errors
    /// As [`OpenResponse::write`].
    pub fn finish(self) -> io::Result<()> {
        if self.inner.fate.get() == Fate::Close {
            return Err(ErrorKind::BrokenPipe.into());
        }
        if self.body == Body::Chunks {
            self.inner.send(&mut [IoSlice::new(response::LAST_CHUNK)])?;
        }
        let keeps = self.keeps && !self.inner.conn.is_evicted();
        self.inner.fate.set(if keeps { Fate::Keep } else { Fate::Close });
        Ok(())
    }

    /// A watch that reports the client's hang-up.
    pub fn client(&self) -> ClientWatch {
        self.inner.client()
    }
}

impl Drop for OpenResponse {
    fn drop(&mut self) {
        if self.inner.fate.get() == Fate::Answering {
            self.inner.fate.set(Fate::Close);
        }
    }
}

/// The head of an answer, with the present date.
pub(crate) fn head<'a>(
    status: u16,
    headers: impl IntoIterator<Item = (&'a str, &'a str)>,
    end: BodyEnd,
    connection: Connection,
) -> Vec<u8> {
    let body_bytes = match end {
        BodyEnd::Length(bytes) if bytes <= COPIED_BYTES_MAX => bytes,
        BodyEnd::Length(_) | BodyEnd::Chunks | BodyEnd::Close => 0,
    };
    let mut out = Vec::with_capacity(HEAD_ROOM_BYTES + body_bytes);
    with_date(|date| response::push_head(&mut out, status, headers, end, connection, date));
    out
}

/// Calls `use_date` with the date of this second, which each thread writes once a second.
fn with_date(use_date: impl FnOnce(&[u8])) {
    thread_local! {
        static DATE: RefCell<(u64, String)> = const { RefCell::new((0, String::new())) };
    }
    let now = SystemTime::now();
    let second = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    DATE.with_borrow_mut(|(written, text)| {
        if *written != second || text.is_empty() {
            *text = response::date_text(now);
            *written = second;
        }
        use_date(text.as_bytes());
    });
}

/// A whole answer that the engine gives in JSON before it closes the connection.
pub(crate) fn closing_answer<'a>(
    status: u16,
    headers: impl IntoIterator<Item = (&'a str, &'a str)>,
    body: &[u8],
) -> Vec<u8> {
    let mut out = head(status, headers, BodyEnd::Length(body.len()), Connection::Close);
    if response::may_have_body(status) {
        out.extend_from_slice(body);
    }
    out
}

/// [`super::Handler::refusal`]; a panic in it must not end a thread that is about to answer.
pub(crate) fn refusal_body(shared: &Shared, status: u16, reason: &str) -> Vec<u8> {
    catch_unwind(AssertUnwindSafe(|| shared.handler.refusal(status, reason)))
        .unwrap_or_default()
}
