//! Accepts connections, hands them to the pool, and ends them in order.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::Shutdown;

use super::bound::Bound;
use super::connection::start_thread;
use super::framing::{Refusal, over, refuse};
use super::inherited::{Inherited, PassedOn};
use super::listener::{Listener, raise_descriptor_limit};
use super::pool::{Pool, Refused, Taken};
use super::responder::{closing_answer, refusal_body};
use super::shared::{Shared, TOO_MANY};
use super::socket::Socket;
use super::{Budget, Counters, Handler, Listen, Peer};
use crate::limits::{DRAIN_LOOK_INTERVAL, DRAINED_IDLE, Limits};
use crate::protocol::headers::REQUEST_ID;
use crate::sync::Mutex;
use crate::telemetry::rejected::Reason;
use crate::telemetry::{RequestName, Seldom, access};
use crate::thread::{self, Joined, StopReason};
use crate::wait::Bell;

/// The pause of accepting when the system gives no descriptor or memory.
const ACCEPT_REST: Duration = Duration::from_millis(20);
/// The time in which a refused client can read the reason.
const FAREWELL: Duration = Duration::from_millis(500);
/// Refused clients that have this time at once.
const FAREWELLS_MAX: usize = 64;
/// The time for which threads are waited for once their connections are cut.
const CUT_GRACE: Duration = Duration::from_secs(2);

/// A bound address that is not served yet.
#[derive(Debug)]
pub struct Server {
    listener: Listener,
    limits: Arc<Limits>,
    budget: Budget,
}

impl Server {
    /// Binds the address. Connections are accepted from [`Server::start`] on.
    ///
    /// # Errors
    /// The address cannot be bound; the text names it.
    pub fn bind(listen: &Listen, limits: Arc<Limits>) -> io::Result<Server> {
        raise_descriptor_limit(&limits);
        Ok(Server::of(Listener::bind(listen)?, limits))
    }

    /// Serves a socket that already listens.
    ///
    /// # Errors
    /// The system refuses to set up the socket.
    pub fn take(inherited: Inherited, limits: Arc<Limits>) -> io::Result<Server> {
        raise_descriptor_limit(&limits);
        Ok(Server::of(Listener::take(inherited)?, limits))
    }

    fn of(listener: Listener, limits: Arc<Limits>) -> Server {
        let budget = Budget::new(limits.buffered_bytes);
        Server { listener, limits, budget }
    }

    /// The listening socket, for another process.
    ///
    /// # Errors
    /// The system gives no descriptor.
    pub fn pass_on(&self) -> io::Result<Option<PassedOn>> {
        self.listener.pass_on().map(Some)
    }

    /// The address for people: `127.0.0.1:4000` or `unix:/path`.
    pub fn local_addr_text(&self) -> String {
        self.listener.address_text()
    }

    /// The port, unless it is a Unix socket.
    pub fn local_port(&self) -> Option<u16> {
        self.listener.port()
    }

    /// The budget of bytes that may be buffered, for other parts that buffer for clients.
    pub fn budget(&self) -> Budget {
        self.budget.clone()
    }

    /// Accepts and serves. `stop` is told when accepting ends, whatever the reason.
    ///
    /// # Errors
    /// The system gives no thread or descriptor.
    pub fn start(
        self,
        handler: Arc<dyn Handler>,
        stop: Sender<StopReason>,
    ) -> io::Result<Running> {
        let shared = Arc::new(Shared {
            pool: Pool::new(&self.limits),
            limits: self.limits,
            handler,
            budget: self.budget,
            leaving: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            wake_accept: Bell::new()?,
            threads_started: AtomicU64::new(0),
            accepted: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            panics: AtomicU64::new(0),
        });
        let (listener, for_thread) = (self.listener, Arc::clone(&shared));
        let accept = thread::spawn_owner("accept", stop, move || {
            Accepting::new(&for_thread, listener).run();
        })?;
        Ok(Running { shared, accept: Mutex::new(Some(accept)) })
    }
}

/// The state of the accepting thread.
struct Accepting<'a> {
    shared: &'a Arc<Shared>,
    listener: Listener,
    farewells: VecDeque<(Socket, Instant)>,
    failing: bool,
    /// Limits the log lines about missing resources, which come and go as connections do.
    told: Seldom,
}

impl<'a> Accepting<'a> {
    fn new(shared: &'a Arc<Shared>, listener: Listener) -> Accepting<'a> {
        let (farewells, told) = (VecDeque::new(), Seldom::default());
        Accepting { shared, listener, farewells, failing: false, told }
    }

    fn run(mut self) {
        while !self.shared.is_leaving() {
            self.wait();
            self.accept_waiting();
            self.end_farewells();
        }
    }

    /// Waits for a connection, the bell, or the end of a refused client's time.
    fn wait(&self) {
        let rest = if self.failing { ACCEPT_REST } else { Duration::from_millis(100) };
        let timeout = Timespec::try_from(rest).ok();
        let timeout = timeout.filter(|_| self.failing || !self.farewells.is_empty());
        let bell = PollFd::from_borrowed_fd(self.shared.wake_accept.as_fd(), PollFlags::IN);
        let listener = PollFd::from_borrowed_fd(self.listener.as_fd(), PollFlags::IN);
        let mut fds = [bell, listener];
        // While accepting fails, the listener would be ready all the time.
        let watched = if self.failing { 1 } else { fds.len() };
        // An interruption is only one more turn of the loop.
        poll(fds.get_mut(..watched).unwrap_or(&mut []), timeout.as_ref()).ok();
    }

    /// Accepts all connections that wait. A drain begins after those that have arrived before.
    fn accept_waiting(&mut self) {
        loop {
            let error = match self.listener.accept() {
                Ok((socket, peer)) => {
                    self.failing = false;
                    self.take(socket, peer);
                    continue;
                }
                Err(error) => error,
            };
            let kind = error.kind();
            if kind == ErrorKind::WouldBlock {
                self.failing = false;
                return;
            }
            if kind != ErrorKind::Interrupted && kind != ErrorKind::ConnectionAborted {
                self.out_of_resources(&error);
                return;
            }
        }
    }

    /// Notes an error. No error ends accepting: a missing resource may be there in a moment.
    fn out_of_resources(&mut self, error: &io::Error) {
        let is_news = !std::mem::replace(&mut self.failing, true);
        if is_news && let Some(more) = self.told.turn() {
            log::warn!("cannot accept connections at the moment: {error}{more}");
        }
        let full = [Errno::MFILE, Errno::NFILE].map(|errno| Some(errno.raw_os_error()));
        if full.contains(&error.raw_os_error()) {
            self.farewells.clear();
            self.shared.pool.make_room();
        }
    }

    fn take(&mut self, socket: Socket, peer: Peer) {
        self.shared.accepted.fetch_add(1, Ordering::Relaxed);
        match self.shared.pool.take(socket, peer) {
            Ok(Taken::Served) => (),
            Ok(Taken::NeedsThread) => {
                if let Err(error) = start_thread(self.shared) {
                    if let Some(more) = self.told.turn() {
                        log::warn!("cannot start a thread for a connection: {error}{more}");
                    }
                    if let Some(conn) = self.shared.pool.thread_failed() {
                        self.shared.refused.fetch_add(1, Ordering::Relaxed);
                        let what = "the system refuses a thread";
                        let name = RequestName::random();
                        access::refused(peer.ip(), name, Reason::Connections, 503, what);
                        // The descriptor closes when its last holder drops it.
                        let full = self.full(refuse(503, what), name);
                        drop(conn.socket.send_now(&[IoSlice::new(&full)]));
                        conn.socket.shutdown(Shutdown::Both);
                    }
                }
            }
            Err((socket, Refused::Connections)) => {
                self.turn_away(socket, peer, over(Bound::Connections, 503, TOO_MANY));
            }
            Err((socket, Refused::Address)) => {
                let refusal = over(Bound::ConnectionsPerAddress, 503, TOO_MANY);
                self.turn_away(socket, peer, refusal);
            }
            Err((socket, Refused::Closed)) => drop(socket),
        }
    }

    fn turn_away(&mut self, socket: Socket, peer: Peer, refusal: Refusal) {
        self.shared.refused.fetch_add(1, Ordering::Relaxed);
        let told = refusal.told(&self.shared.limits);
        let name = RequestName::random();
        access::refused(peer.ip(), name, Reason::Connections, refusal.status, &told);
        self.say_farewell(socket, refusal, name);
    }

    /// The answer to a connection over a bound.
    fn full(&self, refusal: Refusal, name: RequestName) -> Vec<u8> {
        let told = refusal.told(&self.shared.limits);
        let body = refusal_body(self.shared, refusal.status, &told);
        let headers = [
            ("Content-Type", "application/json"),
            ("Retry-After", "1"),
            (REQUEST_ID, name.as_str()),
        ];
        closing_answer(refusal.status, headers, &body)
    }

    /// Answers with the reason, and keeps the socket a while: closing it with the client's
    /// request unread would reset the connection and could destroy the answer.
    fn say_farewell(&mut self, socket: Socket, refusal: Refusal, name: RequestName) {
        drop(socket.send_now(&[IoSlice::new(&self.full(refusal, name))]));
        socket.shutdown(Shutdown::Write);
        if self.farewells.len() >= FAREWELLS_MAX {
            self.farewells.pop_front();
        }
        self.farewells.push_back((socket, Instant::now() + FAREWELL));
    }

    fn end_farewells(&mut self) {
        let now = Instant::now();
        self.farewells.retain(|(socket, until)| {
            let mut waste = [0; 4096];
            match socket.recv_now(&mut waste) {
                Ok(0) => false,
                Ok(_) => now < *until,
                Err(error) => error.kind() == ErrorKind::WouldBlock && now < *until,
            }
        });
    }
}

/// A running server. Dropping it cuts the connections that are left and waits for its threads.
#[derive(Debug)]
pub struct Running {
    shared: Arc<Shared>,
    accept: Mutex<Option<Joined>>,
}

impl Running {
    /// The server's counts.
    pub fn counters(&self) -> Counters {
        let shared = &self.shared;
        let (open, idle, threads) = shared.pool.count();
        Counters {
            open,
            idle,
            threads,
            buffered_bytes: shared.budget.taken(),
            accepted: shared.accepted.load(Ordering::Relaxed),
            refused: shared.refused.load(Ordering::Relaxed),
            evicted: shared.pool.evictions.load(Ordering::Relaxed),
            requests: shared.requests.load(Ordering::Relaxed),
            panics: shared.panics.load(Ordering::Relaxed),
        }
    }

    /// Stops accepting, since another process accepts. Connections stay until their next request
    /// has been answered, or their idle time is over, so that no request meets a connection that
    /// closes.
    pub fn leave(&self) {
        self.stop_accepting();
    }

    /// Waits until no connection is left; false when `deadline` passes before.
    pub fn wait_empty(&self, deadline: Instant) -> bool {
        self.shared.pool.wait_empty(deadline)
    }

    /// Stops accepting, closes connections that have been idle for a moment, lets requests in
    /// work and those that arrive in that moment be answered, and waits for them until
    /// `deadline`. True when no connection is left.
    pub fn drain(&self, deadline: Instant) -> bool {
        self.shared.draining.store(true, Ordering::SeqCst);
        self.stop_accepting();
        let unused = DRAINED_IDLE.min(self.shared.limits.drain / 2);
        loop {
            self.shared.pool.evict_idle(unused);
            let now = Instant::now();
            if self.shared.pool.wait_empty(deadline.min(now + DRAIN_LOOK_INTERVAL)) {
                return true;
            }
            if now >= deadline {
                return false;
            }
        }
    }

    fn stop_accepting(&self) {
        self.shared.leaving.store(true, Ordering::SeqCst);
        self.shared.wake_accept.ring();
        let accept = self.accept.lock().take();
        drop(accept);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shared.draining.store(true, Ordering::SeqCst);
        self.stop_accepting();
        self.shared.pool.close(Instant::now() + CUT_GRACE);
    }
}
