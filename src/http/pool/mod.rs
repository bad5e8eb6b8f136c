//! Open connections, the bounds on them, and the threads that serve them.
//!
//! Each connection holds one thread from its first byte to its end. A thread is started when no
//! thread waits for a new connection; a thread whose connection has ended waits a while for
//! another one.

use std::cmp::Reverse;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, MutexGuard};
use std::time::{Duration, Instant};

use rustix::net::Shutdown;

use super::Peer;
use super::socket::Socket;
use crate::fair_shares::{NotTaken, Shares};
use crate::limits::{Limits, POOL_RESERVE_DIVISOR, SHARES_MIN, SPARE_THREAD_LIFE};
use crate::protocol::call::PrincipalId;
use crate::sync::{Condvar, Mutex};
use crate::thread::Joined;

/// A connection may be closed to make room for another if its first head, or the rest of a head
/// that it has begun, has not come after so many microseconds.
const SILENT_MAX_US: u64 = 1_000_000;
/// The same time where no other connection is idle, in microseconds: most clients have sent
/// their head by then.
const HEAD_USUAL_US: u64 = 100_000;

/// [`Conn::idle`] of a connection whose thread is at work.
const BUSY: u64 = u64::MAX;
/// [`Conn::idle`] of a connection that was evicted while it was idle.
const EVICTED: u64 = u64::MAX - 1;
/// [`Conn::idle`] of a connection whose request is in work, for a known principal.
const IN_WORK: u64 = u64::MAX - 2;

/// One connection, shared by its thread, the pool and the watchers of its client.
#[derive(Debug)]
pub(crate) struct Conn {
    pub(crate) socket: Arc<Socket>,
    pub(crate) peer: Peer,
    id: u64,
    /// The time from which on the connection may make room for another while it waits for a head,
    /// in microseconds of the pool's life; or [`BUSY`], [`IN_WORK`] or [`EVICTED`]. The thread
    /// that swaps a time for another value decides what happens next.
    idle: AtomicU64,
    /// True if the connection was evicted: its receiving side is shut by the gateway, or will be
    /// in a moment, so that its hang-up does not mean that the client has gone.
    evicted: AtomicBool,
    /// True while the connection counts against a principal's share.
    charged: AtomicBool,
    /// True while a part of a head is here.
    has_begun_head: AtomicBool,
}

/// The state that a thread finds when its idle connection has bytes, or its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Awake {
    /// No other thread has changed the connection.
    Undisturbed,
    /// The connection was evicted in this very moment.
    Evicted,
}

impl Conn {
    /// True if a hang-up on the socket may have been caused by this side.
    pub(crate) fn is_evicted(&self) -> bool {
        self.evicted.load(Ordering::SeqCst)
    }

    /// Notes that the connection's thread goes to work.
    pub(crate) fn leave_idle(&self) -> Awake {
        self.has_begun_head.store(false, Ordering::SeqCst);
        match self.idle.swap(BUSY, Ordering::SeqCst) {
            EVICTED => {
                // The evicting thread may not have come so far yet.
                self.evicted.store(true, Ordering::SeqCst);
                Awake::Evicted
            }
            _ => Awake::Undisturbed,
        }
    }

    fn evict(&self, idle: u64) -> bool {
        let evicted = self
            .idle
            .compare_exchange(idle, EVICTED, Ordering::SeqCst, Ordering::SeqCst)
            .is_ok();
        if evicted {
            self.evicted.store(true, Ordering::SeqCst);
        }
        evicted
    }

    /// Wakes the thread of an evicted connection, which still reads the bytes that have arrived.
    fn wake(&self) {
        self.socket.shutdown(Shutdown::Read);
    }
}

/// The reason why a connection is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// `limits.connections` are open and none is idle.
    Connections,
    /// `limits.connections_per_address` connections of its address are open.
    Address,
    /// The server has closed the pool.
    Closed,
}

/// The next step for a connection that was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    /// A thread serves the connection, or will in a moment.
    Served,
    /// The caller must start a thread, or call [`Pool::thread_failed`].
    NeedsThread,
}

#[derive(Debug)]
struct State {
    /// Connections that are accepted and not yet with a thread. Never longer than `open`.
    queue: VecDeque<Arc<Conn>>,
    open: HashMap<u64, Arc<Conn>>,
    /// The number of `open` connections that were evicted; their places were given to others.
    evicted: usize,
    per_address: HashMap<Peer, usize>,
    /// The number of connections in work of each principal, and the principal of each connection.
    shares: Shares<PrincipalId>,
    in_work: HashMap<u64, PrincipalId>,
    waiting: usize,
    threads: usize,
    joined: Vec<Joined>,
    last_id: u64,
    closed: bool,
}

impl State {
    fn new(connections_max: usize) -> State {
        State {
            queue: VecDeque::new(),
            open: HashMap::new(),
            evicted: 0,
            per_address: HashMap::new(),
            shares: Shares::new(connections_max),
            in_work: HashMap::new(),
            waiting: 0,
            threads: 0,
            joined: Vec::new(),
            last_id: 0,
            closed: false,
        }
    }

    fn release(&mut self, conn: &Conn) {
        if let Some(principal) = self.in_work.remove(&conn.id) {
            self.shares.give_back(&principal, 1);
        }
        conn.charged.store(false, Ordering::Relaxed);
    }

    /// The idle connection to evict: of the address that has most connections, the one that is
    /// idle for longest. A connection has time to send its head, but less where only such
    /// connections are left, and none where the connections without a known principal are half a
    /// share or more.
    fn longest_idle(&self, now: u64, half_share: usize) -> Option<(u64, &Arc<Conn>)> {
        let states = || self.open.values().map(|conn| (conn.idle.load(Ordering::SeqCst), conn));
        let idle = || states().filter(|(since, _)| *since < IN_WORK);
        let of = |conn: &Conn| {
            self.per_address.get(&network(conn.peer)).copied().unwrap_or_default()
        };
        let first = |(since, conn): &(u64, &Arc<Conn>)| (Reverse(of(conn)), *since);
        let until = |end: u64| idle().filter(move |(since, _)| *since <= end).min_by_key(first);
        let silent = until(now).or_else(|| until(now + SILENT_MAX_US - HEAD_USUAL_US));
        silent.or_else(|| {
            let unknown = |(since, _): &(u64, _)| *since < IN_WORK || *since == BUSY;
            let n_unknown = states().filter(unknown).count();
            let is_flood = half_share > 0 && n_unknown >= half_share;
            is_flood.then(|| idle().min_by_key(first)).flatten()
        })
    }
}

/// The peer under which connections count together, as [`PrincipalId::of_address`] says.
fn network(peer: Peer) -> Peer {
    match peer {
        Peer::Ip(ip) => match PrincipalId::of_address(ip) {
            PrincipalId::Address(network) => Peer::Ip(network),
            PrincipalId::Key(_) | PrincipalId::Session(_) | PrincipalId::Credentials(_) => peer,
        },
        Peer::Unix => peer,
    }
}

/// All connections and threads.
#[derive(Debug)]
pub(crate) struct Pool {
    state: Mutex<State>,
    /// Notified when a waiting thread is needed, or the pool closes.
    work: Condvar,
    /// Notified when a connection or a thread has ended.
    ended: Condvar,
    begun: Instant,
    connections_max: usize,
    per_address_max: usize,
    pub(crate) evictions: AtomicU64,
}

impl Pool {
    /// A pool without threads.
    pub(crate) fn new(limits: &Limits) -> Pool {
        Pool {
            state: Mutex::new(State::new(limits.connections)),
            work: Condvar::new(),
            ended: Condvar::new(),
            begun: Instant::now(),
            connections_max: limits.connections,
            per_address_max: limits.connections_per_address,
            evictions: AtomicU64::new(0),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    fn now_us(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_micros()).unwrap_or(IN_WORK - 1)
    }

    /// Takes a new connection. When the pool is full, the longest idle connection makes room.
    pub(crate) fn take(&self, socket: Socket, peer: Peer) -> Result<Taken, (Socket, Refused)> {
        let mut evicted = None;
        let taken = {
            let mut state = self.lock();
            if let Some(refused) = self.refuses(&state, peer) {
                return Err((socket, refused));
            }
            if state.open.len() - state.evicted >= self.connections_max {
                evicted = self.evict_longest_idle(&mut state);
                if evicted.is_none() {
                    return Err((socket, Refused::Connections));
                }
            }
            self.admit(&mut state, socket, peer);
            // The thread of the evicted connection takes this one. And when there are as many
            // threads as connections may be, one of the threads is between two connections.
            let threads_max = self.connections_max + state.evicted;
            if state.queue.len() <= state.waiting
                || evicted.is_some()
                || state.threads >= threads_max
            {
                Taken::Served
            } else {
                state.threads += 1;
                Taken::NeedsThread
            }
        };
        if let Some(conn) = evicted {
            conn.wake();
        }
        if taken == Taken::Served {
            self.work.notify_one();
        }
        Ok(taken)
    }

    fn refuses(&self, state: &State, peer: Peer) -> Option<Refused> {
        if state.closed {
            return Some(Refused::Closed);
        }
        let open = state.per_address.get(&network(peer)).copied().unwrap_or_default();
        (!peer.is_local() && open >= self.per_address_max).then_some(Refused::Address)
    }

    fn admit(&self, state: &mut State, socket: Socket, peer: Peer) {
        state.last_id += 1;
        let id = state.last_id;
        let conn = Arc::new(Conn {
            socket: Arc::new(socket),
            peer,
            id,
            idle: AtomicU64::new(self.now_us() + SILENT_MAX_US),
            evicted: AtomicBool::new(false),
            charged: AtomicBool::new(false),
            has_begun_head: AtomicBool::new(false),
        });
        *state.per_address.entry(network(peer)).or_default() += 1;
        state.queue.push_back(Arc::clone(&conn));
        state.open.insert(id, conn);
    }

    fn evict_longest_idle(&self, state: &mut State) -> Option<Arc<Conn>> {
        loop {
            let half_share = self.connections_max / SHARES_MIN / 2;
            let (since, conn) = state.longest_idle(self.now_us(), half_share)?;
            // If the connection got a request just now, another one is looked for.
            if conn.evict(since) {
                let conn = Arc::clone(conn);
                state.evicted += 1;
                self.evictions.fetch_add(1, Ordering::Relaxed);
                return Some(conn);
            }
        }
    }

    /// Closes the longest idle connection, to give its descriptor back.
    pub(crate) fn make_room(&self) {
        let evicted = self.evict_longest_idle(&mut self.lock());
        if let Some(conn) = evicted {
            conn.wake();
        }
    }

    /// Notes that the thread that [`Pool::take`] or [`Pool::replace`] asked for did not start.
    /// Gives back the connection it was for, unless another thread has taken that.
    pub(crate) fn thread_failed(&self) -> Option<Arc<Conn>> {
        let mut state = self.lock();
        state.threads -= 1;
        let conn = state.queue.pop_back()?;
        remove(&mut state, &conn);
        Some(conn)
    }

    /// Notes that an evicted connection got a request in the same moment and keeps its thread, so
    /// that the connection in its place may need another. Returns true when a thread must be
    /// started.
    pub(crate) fn replace(&self) -> bool {
        let mut state = self.lock();
        let threads_max = self.connections_max + self.connections_max / POOL_RESERVE_DIVISOR;
        let needed = state.queue.len() > state.waiting && state.threads <= threads_max;
        if needed {
            state.threads += 1;
        }
        needed
    }

    /// Keeps a thread's handle until the thread has ended.
    pub(crate) fn keep(&self, joined: Joined) {
        let mut state = self.lock();
        let ended = take_ended(&mut state);
        state.joined.push(joined);
        drop(state);
        drop(ended);
    }

    /// The next connection for a thread of the pool; none when the thread shall end.
    pub(crate) fn next(&self) -> Option<Arc<Conn>> {
        let mut state = self.lock();
        let mut spare = true;
        loop {
            if let Some(conn) = state.queue.pop_front() {
                return Some(conn);
            }
            if state.closed || !spare {
                state.threads -= 1;
                self.ended.notify_all();
                // The stacks of ended threads are held until they are joined.
                let ended = take_ended(&mut state);
                drop(state);
                drop(ended);
                return None;
            }
            state.waiting += 1;
            let (woken, is_over) = self.work.wait_timeout(state, SPARE_THREAD_LIFE);
            state = woken;
            state.waiting -= 1;
            spare = !is_over;
        }
    }

    /// Notes that the connection has ended or left the pool.
    pub(crate) fn finished(&self, conn: &Conn) {
        let mut state = self.lock();
        remove(&mut state, conn);
        if state.open.is_empty() {
            self.ended.notify_all();
        }
    }

    /// Notes that the connection's thread is about to wait for a request.
    pub(crate) fn enter_idle(&self, conn: &Conn) {
        conn.has_begun_head.store(false, Ordering::SeqCst);
        if conn.charged.load(Ordering::Relaxed) {
            self.lock().release(conn);
        }
        // A new connection keeps its time for a head. A connection that was evicted and served
        // still must not be evicted again.
        if !conn.is_evicted() {
            let (before, now) = (conn.idle.load(Ordering::SeqCst), self.now_us());
            if [BUSY, IN_WORK].contains(&before) {
                conn.idle.store(now, Ordering::SeqCst);
            }
        }
    }

    /// Notes the first byte of a head, and gives the client time for the rest.
    pub(crate) fn begin_head(&self, conn: &Conn) {
        conn.has_begun_head.store(true, Ordering::SeqCst);
        let (before, until) = (conn.idle.load(Ordering::SeqCst), self.now_us() + SILENT_MAX_US);
        if before < IN_WORK {
            // If the swap fails, the connection was evicted in this moment, and stays so.
            conn.idle.compare_exchange(before, until, Ordering::SeqCst, Ordering::SeqCst).ok();
        }
    }

    /// Counts a connection whose head is known against its principal's share, until it is idle
    /// again. Does nothing where the connection counts already.
    ///
    /// # Errors
    /// As many connections of the principal are in work as its share allows.
    pub(crate) fn charge(
        &self,
        conn: &Conn,
        principal: Option<&PrincipalId>,
    ) -> Result<(), NotTaken> {
        if let Some(principal) = principal.filter(|_| !conn.charged.load(Ordering::Relaxed)) {
            let mut state = self.lock();
            state.shares.take(principal, 1)?;
            state.in_work.insert(conn.id, principal.clone());
            conn.charged.store(true, Ordering::Relaxed);
        }
        let order = Ordering::SeqCst;
        conn.idle.compare_exchange(BUSY, IN_WORK, order, order).ok();
        Ok(())
    }

    /// Evicts every connection that has waited at least so long for a request, unless a head is
    /// arriving on it.
    pub(crate) fn evict_idle(&self, at_least: Duration) {
        let at_least = u64::try_from(at_least.as_micros()).unwrap_or(IN_WORK);
        let mut idle = Vec::new();
        {
            let mut state = self.lock();
            let now = self.now_us();
            for conn in state.open.values() {
                let since = conn.idle.load(Ordering::SeqCst);
                let has_begun_head = conn.has_begun_head.load(Ordering::SeqCst);
                let is_idle = since < IN_WORK && !has_begun_head;
                if is_idle && waited_us(since, now) >= at_least && conn.evict(since) {
                    idle.push(Arc::clone(conn));
                }
            }
            state.evicted += idle.len();
        }
        for conn in idle {
            conn.wake();
        }
    }

    /// Waits until no connection is left; false when `deadline` passes before.
    pub(crate) fn wait_empty(&self, deadline: Instant) -> bool {
        self.wait_ended(deadline, |state| state.open.is_empty())
    }

    fn wait_ended(&self, deadline: Instant, done: impl Fn(&State) -> bool) -> bool {
        self.ended.wait_until(self.lock(), deadline, done).1
    }

    /// Cuts every connection and waits for the threads, until `deadline` at most.
    pub(crate) fn close(&self, deadline: Instant) {
        let open: Vec<_> = {
            let mut state = self.lock();
            state.closed = true;
            state.open.values().cloned().collect()
        };
        self.work.notify_all();
        for conn in open {
            conn.socket.shutdown(Shutdown::Both);
        }
        let all_ended = self.wait_ended(deadline, |state| state.threads == 0);
        let joined = std::mem::take(&mut self.lock().joined);
        if all_ended {
            drop(joined);
        } else {
            log::warn!("handlers still at work were left behind at the stop");
            joined.into_iter().filter(|thread| !thread.is_finished()).for_each(Joined::detach);
        }
    }

    /// The numbers of open connections that count, of idle ones, and of threads.
    pub(crate) fn count(&self) -> (usize, usize, usize) {
        let state = self.lock();
        let idle = |conn: &&Arc<Conn>| conn.idle.load(Ordering::Relaxed) < IN_WORK;
        let idle = state.open.values().filter(idle).count();
        (state.open.len() - state.evicted, idle, state.threads)
    }
}

/// The microseconds for which a connection with this [`Conn::idle`] has waited for a request. A
/// new connection has time for its head, and `since` is the end of that time.
fn waited_us(since: u64, now: u64) -> u64 {
    let begun = if since > now { since.saturating_sub(SILENT_MAX_US) } else { since };
    now.saturating_sub(begun)
}

/// The handles of threads that have ended, to be dropped where no lock is held.
fn take_ended(state: &mut State) -> Vec<Joined> {
    let kept = std::mem::take(&mut state.joined);
    let (ended, running) = kept.into_iter().partition(Joined::is_finished);
    state.joined = running;
    ended
}

fn remove(state: &mut State, conn: &Conn) {
    if state.open.remove(&conn.id).is_none() {
        return;
    }
    if conn.is_evicted() {
        state.evicted -= 1;
    }
    state.release(conn);
    let network = network(conn.peer);
    if let Some(open) = state.per_address.get_mut(&network) {
        *open -= 1;
        if *open == 0 {
            state.per_address.remove(&network);
        }
    }
}

#[cfg(test)]
mod tests;
