//! What the tests stand on: the gateway as a real process, clients that speak by hand, and
//! scripted MCP servers on real sockets.

use std::io::Write as _;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

pub(crate) mod behind;
pub(crate) mod duplex;
pub(crate) mod ears;
pub(crate) mod events;
pub(crate) mod gateway;
pub(crate) mod host;
pub(crate) mod http;
pub(crate) mod listener;
pub(crate) mod markdown;
pub(crate) mod mcp;
pub(crate) mod mcp_sse;
pub(crate) mod modern;
pub(crate) mod script;
pub(crate) mod upstream_http;
pub(crate) mod upstream_modern;
pub(crate) mod upstream_sse;

/// After so long a test has failed. Generous: the machine may be busy.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// Says that a test checks nothing here, past the capture of the test harness.
pub(crate) fn left_out(what: &str, why: &str) {
    writeln!(std::io::stderr().lock(), "!!! SKIPPED: {what}, because {why}.").unwrap();
}

/// Asks again and again until `look` finds something, or fails after [`DEADLINE`].
#[track_caller]
pub(crate) fn wait_for<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    wait_within(DEADLINE, what, look)
}

/// [`wait_for`] with a deadline of its own, for promises about time.
#[track_caller]
pub(crate) fn wait_within<T>(
    limit: Duration,
    what: &str,
    mut look: impl FnMut() -> Option<T>,
) -> T {
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
pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    wait_for(what, || is_so().then_some(()));
}

/// A name that nothing else in this run has.
pub(crate) fn unique(what: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{what}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Runs `body` on a thread of its own; the result is waited for at the scope's end.
pub(crate) fn in_background<T: Send + 'static>(
    body: impl FnOnce() -> T + Send + 'static,
) -> std::thread::JoinHandle<T> {
    std::thread::Builder::new().spawn(body).unwrap()
}

/// Fails if `is_so` stops being true within `time`. For absences, which no event can prove.
#[track_caller]
pub(crate) fn stays_so(what: &str, time: Duration, is_so: impl Fn() -> bool) {
    let end = Instant::now() + time;
    while Instant::now() < end {
        assert!(is_so(), "no longer so: {what}");
        std::thread::park_timeout(Duration::from_millis(10));
    }
}
