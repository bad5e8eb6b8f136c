//! What the tests stand on: the gateway as a real process, clients that speak by hand, and
//! scripted MCP servers on real sockets.
#![expect(
    missing_docs,
    clippy::new_without_default,
    clippy::should_implement_trait,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails where it is surprised, and reads what it stands on"
)]

use std::io::Write as _;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

pub mod authorization_server;
pub mod behind;
pub mod duplex;
pub mod ears;
pub mod events;
pub mod figures;
pub mod gateway;
pub mod host;
pub mod http;
pub mod issuer;
pub mod listener;
pub mod markdown;
pub mod mcp;
pub mod mcp_sse;
pub mod modern;
pub mod pages;
pub mod program;
pub mod relay;
pub mod script;
pub mod stopwatch;
pub mod threads;
pub mod upstream_http;
pub mod upstream_modern;
pub mod upstream_sse;

/// After so long a test has failed. Generous: the machine may be busy.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// Says that a test checks nothing here, past the capture of the test harness.
pub fn left_out(what: &str, why: &str) {
    writeln!(std::io::stderr().lock(), "!!! SKIPPED: {what}, because {why}.").unwrap();
}

/// Asks again and again until `look` finds something, or fails after [`DEADLINE`].
#[track_caller]
pub fn wait_for<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    wait_within(DEADLINE, what, look)
}

/// [`wait_for`] with a deadline of its own, for promises about time.
#[track_caller]
pub fn wait_within<T>(limit: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "not within {limit:?}: {what}");
        // Another process is watched: there is nothing to wait on but its next answer.
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// [`wait_for`] where only yes or no is asked.
#[track_caller]
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    wait_for(what, || is_so().then_some(()));
}

/// A name that nothing else in this run has.
pub fn unique(what: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{what}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Runs `body` on a thread of its own; the result is waited for at the scope's end.
pub fn in_background<T: Send + 'static>(
    body: impl FnOnce() -> T + Send + 'static,
) -> std::thread::JoinHandle<T> {
    std::thread::Builder::new().spawn(body).unwrap()
}

/// Fails if `is_so` stops being true within `time`. For absences, which no event can prove.
#[track_caller]
pub fn stays_so(what: &str, time: Duration, is_so: impl Fn() -> bool) {
    let end = Instant::now() + time;
    while Instant::now() < end {
        assert!(is_so(), "no longer so: {what}");
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

/// Taken by a test that keeps a core busy for seconds, takes much memory, or measures what others
/// would disturb: one of them runs at a time. The tests beside it wait more than they work.
pub fn heavy() -> Turn {
    static HEAVY: Turns = Turns { free: Mutex::new(1), freed: Condvar::new() };
    HEAVY.take()
}

/// Taken by a test that has dozens of servers whose times are short: two of them run at a time.
pub fn crowd() -> Turn {
    static CROWDS: Turns = Turns { free: Mutex::new(2), freed: Condvar::new() };
    CROWDS.take()
}

/// How many tests of one kind may run now.
struct Turns {
    free: Mutex<usize>,
    freed: Condvar,
}

/// The turn of one test, until it is dropped.
pub struct Turn(&'static Turns);

impl Turns {
    fn take(&'static self) -> Turn {
        let free = self.free.lock().unwrap();
        *self.freed.wait_while(free, |free| *free == 0).unwrap() -= 1;
        Turn(self)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *self.0.free.lock().unwrap() += 1;
        self.0.freed.notify_one();
    }
}

/// Fails unless what began then ended at this time, which a second may be added to; tells how
/// late it was.
#[track_caller]
#[expect(clippy::print_stdout, reason = "the figures are shown when they are asked for")]
pub fn in_time(what: &str, began: Instant, limit: Duration) {
    const SLACK: Duration = Duration::from_secs(1);
    let took = began.elapsed();
    println!("{what}: {took:?}, late by {:?}", took.saturating_sub(limit));
    assert!(took < limit + SLACK, "{what}: {took:?}");
}
