//! The connections that are open, the bounds on them, and the threads that serve them.
//!
//! Each connection holds one thread from its first byte to its end. Threads are started when a
//! connection finds none that waits, and wait for another one for a while before they end.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::net::Shutdown;

use super::Peer;
use super::socket::Socket;
use crate::limits::{Limits, POOL_RESERVE_DIVISOR, SPARE_THREAD_LIFE};
use crate::thread::Joined;

/// A new connection that says nothing for so long may be closed to make room for another.
const SILENT_MAX: Duration = Duration::from_secs(1);

/// [`Conn::idle`] of a connection whose thread is at work.
const BUSY: u64 = u64::MAX;
/// [`Conn::idle`] of a connection that was told to end while it was idle.
const EVICTED: u64 = u64::MAX - 1;

/// One connection, shared by its thread, the pool and whoever watches its client.
#[derive(Debug)]
pub(crate) struct Conn {
    pub(crate) socket: Arc<Socket>,
    pub(crate) peer: Peer,
    id: u64,
    /// Since when it waits for a request, in microseconds of the pool's life; [`BUSY`];
    /// [`EVICTED`]. Whoever swaps a time for something else has decided what happens next.
    idle: AtomicU64,
    /// It was told to end: its receiving side is shut from here, or will be in a moment, so
    /// that its hang-up says nothing of the client.
    evicted: AtomicBool,
}

/// What a thread finds when its idle connection has bytes, or its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Awake {
    /// Nobody else touched the connection.
    Undisturbed,
    /// It was told to end in this very moment.
    Evicted,
}

impl Conn {
    /// Whether a hang-up on the socket may have been caused by this side.
    pub(crate) fn is_evicted(&self) -> bool {
        self.evicted.load(Ordering::SeqCst)
    }

    /// The connection's thread goes to work.
    pub(crate) fn leave_idle(&self) -> Awake {
        match self.idle.swap(BUSY, Ordering::SeqCst) {
            EVICTED => {
                // Whoever evicts may not have come so far yet.
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

    /// Wakes the thread of an evicted connection. What has arrived already it still reads.
    fn wake(&self) {
        self.socket.shutdown(Shutdown::Read);
    }
}

/// Why a connection is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// `limits.connections` are open and none is idle.
    Connections,
    /// `limits.connections_per_address` are open from there.
    Address,
    /// The server ends.
    Closed,
}

/// What is to be done for a connection that was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    /// A thread has it, or will in a moment.
    Served,
    /// Start a thread, or say [`Pool::thread_failed`].
    NeedsThread,
}

#[derive(Debug, Default)]
struct State {
    /// Accepted and not yet with a thread. Never longer than `open`.
    queue: VecDeque<Arc<Conn>>,
    open: HashMap<u64, Arc<Conn>>,
    /// Of `open`, those told to end; their places were given to others.
    evicted: usize,
    per_address: HashMap<IpAddr, usize>,
    waiting: usize,
    threads: usize,
    joined: Vec<Joined>,
    last_id: u64,
    closed: bool,
}

/// All connections and threads.
#[derive(Debug)]
pub(crate) struct Pool {
    state: Mutex<State>,
    /// A thread that waits is needed, or the pool closes.
    work: Condvar,
    /// A connection or a thread has ended.
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
            state: Mutex::default(),
            work: Condvar::new(),
            ended: Condvar::new(),
            begun: Instant::now(),
            connections_max: limits.connections,
            per_address_max: limits.connections_per_address,
            evictions: AtomicU64::new(0),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing between two changes can panic, so a poisoned state is whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_us(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_micros()).unwrap_or(EVICTED - 1)
    }

    /// Takes a new connection. When the pool is full, the longest idle one makes room.
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
            // threads as connections may be, one of them is between two connections.
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
        match peer {
            Peer::Ip(ip) if !peer.is_local() => {
                let open = state.per_address.get(&ip).copied().unwrap_or(0);
                (open >= self.per_address_max).then_some(Refused::Address)
            }
            Peer::Ip(_) | Peer::Unix => None,
        }
    }

    fn admit(&self, state: &mut State, socket: Socket, peer: Peer) {
        state.last_id += 1;
        let id = state.last_id;
        let silent_max = u64::try_from(SILENT_MAX.as_micros()).unwrap_or(0);
        let conn = Arc::new(Conn {
            socket: Arc::new(socket),
            peer,
            id,
            idle: AtomicU64::new(self.now_us() + silent_max),
            evicted: AtomicBool::new(false),
        });
        if let Peer::Ip(ip) = peer {
            *state.per_address.entry(ip).or_default() += 1;
        }
        state.queue.push_back(Arc::clone(&conn));
        state.open.insert(id, conn);
    }

    fn evict_longest_idle(&self, state: &mut State) -> Option<Arc<Conn>> {
        loop {
            let since = |conn: &Arc<Conn>| conn.idle.load(Ordering::SeqCst);
            let now = self.now_us();
            let idle = state.open.values().map(|conn| (since(conn), conn));
            let (since, conn) =
                idle.filter(|(since, _)| *since <= now).min_by_key(|(since, _)| *since)?;
            // When it got a request just now, look for another.
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

    /// The thread that [`Pool::take`] or [`Pool::replace`] asked for did not start. Gives back
    /// the connection it was for, unless another thread has taken that.
    pub(crate) fn thread_failed(&self) -> Option<Arc<Conn>> {
        let mut state = self.lock();
        state.threads -= 1;
        let conn = state.queue.pop_back()?;
        remove(&mut state, &conn);
        Some(conn)
    }

    /// An evicted connection got a request in the same moment and keeps its thread, so the
    /// connection in its place may need another. True when one must be started.
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
        let kept = std::mem::take(&mut state.joined);
        let (ended, mut running): (Vec<_>, Vec<_>) =
            kept.into_iter().partition(Joined::is_finished);
        running.push(joined);
        state.joined = running;
        drop(state);
        drop(ended);
    }

    /// The next connection for a thread of the pool; `None` when the thread shall end.
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
                return None;
            }
            state.waiting += 1;
            let waited = self.work.wait_timeout(state, SPARE_THREAD_LIFE);
            let (woken, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            state = woken;
            state.waiting -= 1;
            spare = !timeout.timed_out();
        }
    }

    /// The connection has ended or left the pool.
    pub(crate) fn finished(&self, conn: &Conn) {
        let mut state = self.lock();
        remove(&mut state, conn);
        if state.open.is_empty() {
            self.ended.notify_all();
        }
    }

    /// The connection's thread is about to wait for a request.
    pub(crate) fn enter_idle(&self, conn: &Conn) {
        // A new connection keeps its time to speak, an evicted one stays so.
        let (now, order) = (self.now_us(), Ordering::SeqCst);
        conn.idle.compare_exchange(BUSY, now, order, order).ok();
    }

    /// Tells every idle connection to end.
    pub(crate) fn evict_idle(&self) {
        let mut idle = Vec::new();
        {
            let mut state = self.lock();
            for conn in state.open.values() {
                let since = conn.idle.load(Ordering::SeqCst);
                if since < EVICTED && conn.evict(since) {
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
        let mut state = self.lock();
        loop {
            if done(&state) {
                return true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let waited = self.ended.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
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

    /// Connections that count against the bound, idle ones, threads.
    pub(crate) fn count(&self) -> (usize, usize, usize) {
        let state = self.lock();
        let idle = |conn: &&Arc<Conn>| conn.idle.load(Ordering::Relaxed) < EVICTED;
        let idle = state.open.values().filter(idle).count();
        (state.open.len() - state.evicted, idle, state.threads)
    }
}

fn remove(state: &mut State, conn: &Conn) {
    if state.open.remove(&conn.id).is_none() {
        return;
    }
    if conn.is_evicted() {
        state.evicted -= 1;
    }
    if let Peer::Ip(ip) = conn.peer
        && let Some(open) = state.per_address.get_mut(&ip)
    {
        *open -= 1;
        if *open == 0 {
            state.per_address.remove(&ip);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;

    fn take(pool: &Pool, peer: Peer) -> (UnixStream, Result<Taken, Refused>) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let taken = pool.take(Socket::from(OwnedFd::from(ours)), peer);
        (theirs, taken.map_err(|(_, refused)| refused))
    }

    fn pool(connections: usize, connections_per_address: usize) -> Pool {
        Pool::new(&Limits { connections, connections_per_address, ..Limits::default() })
    }

    fn ip(text: &str) -> Peer {
        Peer::Ip(text.parse().unwrap())
    }

    #[test]
    fn one_address_has_its_bound_and_this_machine_none() {
        let pool = pool(100, 2);
        let mut open = Vec::new();
        for (peer, expected) in [
            (ip("10.0.0.1"), Ok(Taken::NeedsThread)),
            (ip("10.0.0.1"), Ok(Taken::NeedsThread)),
            (ip("10.0.0.1"), Err(Refused::Address)),
            (ip("10.0.0.2"), Ok(Taken::NeedsThread)),
        ] {
            let (theirs, taken) = take(&pool, peer);
            assert_eq!(taken, expected, "{peer}");
            open.push(theirs);
        }
        for peer in [ip("127.0.0.1"), ip("::1"), Peer::Unix].repeat(3) {
            let (theirs, taken) = take(&pool, peer);
            assert_eq!(taken, Ok(Taken::NeedsThread), "{peer}");
            open.push(theirs);
        }
        // An end gives the place back.
        let first = pool.next().unwrap();
        assert_eq!(first.peer, ip("10.0.0.1"));
        pool.finished(&first);
        assert_eq!(take(&pool, ip("10.0.0.1")).1, Ok(Taken::NeedsThread));
    }

    #[test]
    fn a_new_connection_has_time_to_speak_before_it_makes_room() {
        let pool = pool(1, 1);
        let (_first, taken) = take(&pool, Peer::Unix);
        assert_eq!(taken, Ok(Taken::NeedsThread));
        assert_eq!(take(&pool, Peer::Unix).1, Err(Refused::Connections));
    }

    #[test]
    fn the_longest_idle_connection_makes_room_and_its_thread_takes_over() {
        let pool = pool(2, 1);
        let _theirs: Vec<_> = (0..2).map(|_| take(&pool, Peer::Unix).0).collect();
        let conns = [pool.next().unwrap(), pool.next().unwrap()];
        conns.iter().for_each(|conn| assert_eq!(conn.leave_idle(), Awake::Undisturbed));
        pool.enter_idle(&conns[1]);
        assert_eq!(take(&pool, Peer::Unix).1, Ok(Taken::Served));
        assert_eq!((conns[0].is_evicted(), conns[1].is_evicted()), (false, true));
        // Its thread reads the end; the other side of a shut pair cannot write any more.
        assert_eq!(conns[1].socket.recv_now(&mut [0]).ok(), Some(0));
        assert_eq!(conns[1].leave_idle(), Awake::Evicted);
        // It had a request after all, so the newcomer needs a thread of its own.
        assert!(pool.replace());
        assert!(pool.next().is_some());
        pool.finished(&conns[1]);
        assert_eq!(pool.count(), (2, 1, 3));
    }

    #[test]
    fn a_thread_that_did_not_start_gives_its_connection_back() {
        let pool = pool(2, 1);
        let (_theirs, taken) = take(&pool, Peer::Unix);
        assert_eq!(taken, Ok(Taken::NeedsThread));
        assert!(pool.thread_failed().is_some());
        assert_eq!(pool.count(), (0, 0, 0));
        assert!(pool.wait_empty(Instant::now()));
    }

    #[test]
    fn a_closed_pool_takes_nothing() {
        let pool = pool(2, 1);
        pool.close(Instant::now());
        assert_eq!(take(&pool, Peer::Unix).1, Err(Refused::Closed));
    }
}
