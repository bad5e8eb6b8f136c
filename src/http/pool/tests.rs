//! Tests of the pool alone: bounds, eviction, shares.

use super::*;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

const HEAD_USUAL: Duration = Duration::from_micros(HEAD_USUAL_US);

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
    // The end of a connection gives its place back.
    let first = pool.next().unwrap();
    assert_eq!(first.peer, ip("10.0.0.1"));
    pool.finished(&first);
    assert_eq!(take(&pool, ip("10.0.0.1")).1, Ok(Taken::NeedsThread));
}

#[test]
fn a_new_connection_has_time_to_speak_before_it_makes_room() {
    let pool = pool(1, 1);
    let begun = Instant::now();
    let (_first, taken) = take(&pool, Peer::Unix);
    assert_eq!(taken, Ok(Taken::NeedsThread));
    let next = take(&pool, Peer::Unix).1;
    // If this thread had to wait for too long, the time for a head is over.
    assert!(next == Err(Refused::Connections) || begun.elapsed() >= HEAD_USUAL);
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
    // The thread reads the end; the other side of a shut pair cannot write any more.
    assert_eq!(conns[1].socket.recv_now(&mut [0]).ok(), Some(0));
    assert_eq!(conns[1].leave_idle(), Awake::Evicted);
    // The evicted connection had a request after all, so the new one needs a thread of its own.
    assert!(pool.replace());
    assert!(pool.next().is_some());
    pool.finished(&conns[1]);
    assert_eq!(pool.count(), (2, 1, 3));
}

#[test]
fn a_flood_of_connections_without_heads_makes_room_for_the_next() {
    let pool = pool(16, 16);
    let begun = Instant::now();
    let _theirs: Vec<_> = (0..16).map(|_| take(&pool, Peer::Unix).0).collect();
    let conns: Vec<_> = (0..16).map(|_| pool.next().unwrap()).collect();
    // Two of 16 are half a share. While fewer have no known principal, they have time for their
    // heads.
    for conn in &conns[..15] {
        assert_eq!(conn.leave_idle(), Awake::Undisturbed);
        assert_eq!(pool.charge(conn, None), Ok(()));
    }
    let next = take(&pool, Peer::Unix).1;
    if begun.elapsed() >= HEAD_USUAL {
        return;
    }
    assert_eq!(next, Err(Refused::Connections));
    pool.enter_idle(&conns[0]);
    pool.begin_head(&conns[0]);
    assert_eq!(take(&pool, Peer::Unix).1, Ok(Taken::Served));
    assert_eq!((conns[0].is_evicted(), conns[15].is_evicted()), (false, true));
}

#[test]
fn a_drain_ends_what_was_not_used_for_a_while() {
    let pool = pool(4, 1);
    let _theirs: Vec<_> = (0..3).map(|_| take(&pool, Peer::Unix).0).collect();
    let [new, used, busy] = std::array::from_fn(|_| pool.next().unwrap());
    for conn in [&used, &busy] {
        assert_eq!(conn.leave_idle(), Awake::Undisturbed);
    }
    pool.enter_idle(&used);
    let evicted = || [&new, &used, &busy].map(|conn| conn.is_evicted());
    pool.evict_idle(Duration::from_secs(3600));
    assert_eq!(evicted(), [false; 3]);
    pool.evict_idle(Duration::ZERO);
    assert_eq!(evicted(), [true, true, false]);
}

#[test]
fn how_long_a_connection_waits_is_known() {
    assert_eq!(waited_us(2_000_000, 2_500_000), 500_000);
    // A new connection that came at 2.2 s.
    assert_eq!(waited_us(2_200_000 + SILENT_MAX_US, 2_500_000), 300_000);
    assert_eq!(waited_us(100, 50), 50);
}

#[test]
fn whoever_has_most_connections_makes_room() {
    let pool = pool(4, 4);
    let peers = [ip("10.0.0.1"), ip("10.0.0.2"), ip("10.0.0.2"), ip("10.0.0.2")];
    let _theirs = peers.map(|peer| take(&pool, peer).0);
    let conns: Vec<_> = (0..4).map(|_| pool.next().unwrap()).collect();
    for conn in &conns {
        assert_eq!(conn.leave_idle(), Awake::Undisturbed);
        pool.enter_idle(conn);
    }
    assert_eq!(take(&pool, ip("10.0.0.3")).1, Ok(Taken::Served));
    let evicted = conns.iter().filter(|conn| conn.is_evicted());
    assert_eq!(evicted.map(|conn| conn.peer).collect::<Vec<_>>(), [ip("10.0.0.2")]);
}

#[test]
fn a_principal_has_its_share_of_the_connections_in_work() {
    let pool = pool(8, 8);
    let _theirs: Vec<_> = (0..8).map(|_| take(&pool, Peer::Unix).0).collect();
    let conns: Vec<_> = (0..8).map(|_| pool.next().unwrap()).collect();
    let [hog, victim] = ["hog", "victim"].map(|name| PrincipalId::Key(name.into()));
    for conn in &conns[..6] {
        assert_eq!(pool.charge(conn, Some(&hog)), Ok(()));
        assert_eq!(pool.charge(conn, Some(&hog)), Ok(()), "it counts once");
    }
    assert_eq!(pool.charge(&conns[6], Some(&hog)), Err(NotTaken::ShareHeld));
    assert_eq!(pool.charge(&conns[6], None), Ok(()));
    assert_eq!(pool.charge(&conns[7], Some(&victim)), Ok(()));
    pool.finished(&conns[7]);
    assert_eq!(conns[0].leave_idle(), Awake::Undisturbed);
    pool.enter_idle(&conns[0]);
    assert_eq!(pool.charge(&conns[6], Some(&hog)), Ok(()));
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

#[test]
fn a_thread_that_ends_joins_those_that_have_ended_before() {
    let pool = pool(4, 1);
    for _ in 0..3 {
        pool.keep(crate::thread::spawn("ended", || ()).unwrap());
    }
    let until = Instant::now() + Duration::from_secs(5);
    while !pool.lock().joined.iter().all(Joined::is_finished) {
        assert!(Instant::now() < until, "they end");
        std::thread::yield_now();
    }
    {
        let mut state = pool.lock();
        (state.closed, state.threads) = (true, 1);
    }
    assert!(pool.next().is_none());
    assert!(pool.lock().joined.is_empty());
}
