//! The wait of a call's thread: for a descriptor, its own client, a cancellation and its
//! deadline, all in one `poll`.
//!
//! A call waits for descriptors alone. An answer that another thread reads, and a permit that
//! comes free, ring the call's [`Bell`]. During any wait, the wait itself keeps the client's
//! connection alive ([`Heartbeat`]).

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use heartbeat::Beats;
pub use heartbeat::{Heartbeat, KeepAlive};

mod heartbeat;

/// An eventfd that wakes one waiting thread.
#[derive(Debug)]
pub struct Bell(OwnedFd);

impl Bell {
    /// # Errors
    /// The process has no descriptor left.
    pub fn new() -> io::Result<Bell> {
        Ok(Bell(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
    }

    /// Wakes the thread that polls this bell, now or at its next poll.
    pub fn ring(&self) {
        // The counter can only be full when the bell rings already.
        rustix::io::write(&self.0, &1_u64.to_ne_bytes()).ok();
    }

    /// Silences the bell.
    pub fn clear(&self) {
        // If there is nothing to read, the bell was silent.
        rustix::io::read(&self.0, &mut [0_u8; 8]).ok();
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The reason why a wait ended early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interrupted {
    /// The client said that it no longer wants the answer.
    Cancelled,
    /// The client's connection is gone, and for this client that is a cancellation.
    ClientGone,
    /// The call's time is over.
    Deadline,
    /// The process stops and the time for draining is over.
    Stopping,
    /// A reload has ended the server that was called, and the time for draining is over.
    Retired,
}

/// The reason why one poll of a wait ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Woken {
    /// The watched descriptor is ready.
    Ready,
    /// The bell rang: the waiting thread must look for the cause.
    Bell,
    /// `tick` has passed.
    Tick,
}

/// A client's connection for a wait: a descriptor that reports the hang-up.
pub type ClientWatch = Arc<dyn AsFd + Send + Sync>;

/// A guard: when it is dropped, a wait's timeout starts anew. See [`Wait::hold`].
#[derive(Debug)]
pub struct Held(Arc<Wait>);

impl Drop for Held {
    fn drop(&mut self) {
        let mut deadline = locked(&self.0.deadline);
        deadline.held = deadline.held.saturating_sub(1);
        drop(deadline);
        self.0.progressed();
    }
}

/// A guard: when it is dropped, a part of a wait is not bounded by itself any more. See
/// [`Wait::within`].
#[derive(Debug)]
pub struct Within<'a> {
    wait: &'a Wait,
    /// The end of the part around this one.
    around: Option<Instant>,
}

impl Drop for Within<'_> {
    fn drop(&mut self) {
        locked(&self.wait.deadline).part = self.around;
    }
}

/// The one of a wait's times that was over first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RanOut {
    /// The time since its beginning or its last progress.
    Timeout,
    /// The time that it may take at the latest.
    Latest,
    /// The time that its client had to answer.
    Patience,
}

/// The time limits of a call.
#[derive(Debug, Clone, Copy)]
struct Deadline {
    at: Instant,
    latest: Instant,
    timeout: Duration,
    /// The end of the part of the call that is bounded by itself.
    part: Option<Instant>,
    /// The time at which the client's right to an answer ends.
    entitled: Option<Instant>,
    /// The number of guards for which the timeout stands still.
    held: usize,
    /// The time that the client may take to answer a question.
    patience: Duration,
    /// The time limit that ended the wait, and its length.
    ran_out: Option<(RanOut, Duration)>,
}

/// One call's wait. It is shared between the call's thread and the threads that may cancel it.
pub struct Wait {
    began: Instant,
    bell: Bell,
    client: Option<ClientWatch>,
    beats: Option<Beats>,
    interrupted: Mutex<Option<Interrupted>>,
    raised: AtomicBool,
    deadline: Mutex<Deadline>,
}

impl std::fmt::Debug for Wait {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wait").field("interrupted", &self.interrupted).finish_non_exhaustive()
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // The values behind these locks are plain copies: a panic cannot leave one half-changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Wait {
    /// A wait that ends `timeout` from now, or `timeout` after the last [`Wait::progressed`],
    /// and `latest` from now at the latest. With `client`, its hang-up ends the wait too.
    ///
    /// # Errors
    /// The process has no descriptor left.
    pub fn new(
        timeout: Duration,
        latest: Duration,
        client: Option<ClientWatch>,
    ) -> io::Result<Arc<Wait>> {
        Wait::with_heartbeat(timeout, latest, client, None)
    }

    /// As [`Wait::new`], for a call whose client's connection is kept alive meanwhile.
    ///
    /// # Errors
    /// The process has no descriptor left.
    pub fn with_heartbeat(
        timeout: Duration,
        latest: Duration,
        client: Option<ClientWatch>,
        heartbeat: Option<Heartbeat>,
    ) -> io::Result<Arc<Wait>> {
        let now = Instant::now();
        let latest = now + latest.max(timeout);
        Ok(Arc::new(Wait {
            began: now,
            bell: Bell::new()?,
            client,
            beats: heartbeat.map(|heartbeat| Beats::new(heartbeat, now)),
            interrupted: Mutex::new(None),
            raised: AtomicBool::new(false),
            deadline: Mutex::new(Deadline {
                at: now + timeout,
                latest,
                timeout,
                part: None,
                entitled: None,
                held: 0,
                patience: Duration::ZERO,
                ran_out: None,
            }),
        }))
    }

    /// A wait that cannot be cancelled, for the gateway's own requests.
    ///
    /// # Errors
    /// The process has no descriptor left.
    pub fn plain(timeout: Duration) -> io::Result<Arc<Wait>> {
        Wait::new(timeout, timeout, None)
    }

    /// Sets the wait's times to a server's own, from now on.
    pub fn set_timeout(&self, timeout: Duration, latest: Duration) {
        let now = Instant::now();
        let mut deadline = locked(&self.deadline);
        deadline.latest = now + latest;
        deadline.timeout = timeout;
        deadline.at = (now + timeout).min(deadline.latest);
    }

    /// Sets a call's times to its server's own: `timeout` from now on, but `latest` from the
    /// beginning of the wait, however often the server is asked for this one call.
    pub fn set_call_timeout(&self, timeout: Duration, latest: Duration) {
        let mut deadline = locked(&self.deadline);
        deadline.latest = self.began + latest;
        deadline.timeout = timeout;
        deadline.at = (Instant::now() + timeout).min(deadline.latest);
    }

    /// Notes the call's progress: its timeout starts anew.
    pub fn progressed(&self) {
        let mut deadline = locked(&self.deadline);
        if deadline.held == 0 {
            deadline.at = (Instant::now() + deadline.timeout).min(deadline.latest);
        }
    }

    /// Holds the timeout while the client considers a question, for `patience` at most: the
    /// client's time does not run against the call's.
    pub fn hold(self: &Arc<Wait>, patience: Duration) -> Held {
        let mut deadline = locked(&self.deadline);
        deadline.held += 1;
        deadline.patience = patience;
        deadline.at = (Instant::now() + patience).min(deadline.latest);
        drop(deadline);
        Held(self.clone())
    }

    /// Bounds a part of the call, until the returned guard is dropped: when `patience` is over,
    /// [`Wait::until`] fails with [`Interrupted::Deadline`], but the wait itself is not ended. A part
    /// of a part ends with that one at the latest.
    pub fn within(&self, patience: Duration) -> Within<'_> {
        let end = Instant::now() + patience;
        let mut deadline = locked(&self.deadline);
        let around = deadline.part;
        deadline.part = Some(around.map_or(end, |around| around.min(end)));
        Within { wait: self, around }
    }

    /// Ends the wait at `at` as if its client had cancelled it, whatever its times are: from then
    /// on the client has no right to an answer.
    pub fn entitle_until(&self, at: Instant) {
        locked(&self.deadline).entitled = Some(at);
    }

    /// The present end of the wait.
    pub fn deadline(&self) -> Instant {
        locked(&self.deadline).at
    }

    /// The time left until the deadline; zero when the deadline has passed.
    pub fn left(&self) -> Duration {
        self.deadline().saturating_duration_since(Instant::now())
    }

    /// Ends the wait for `reason`. The first reason stands.
    pub fn interrupt(&self, reason: Interrupted) {
        locked(&self.interrupted).get_or_insert(reason);
        self.raised.store(true, Ordering::Release);
        self.bell.ring();
    }

    /// The reason why the wait was ended, if it was.
    pub fn interrupted(&self) -> Option<Interrupted> {
        if self.raised.load(Ordering::Acquire) { *locked(&self.interrupted) } else { None }
    }

    /// The bell of this wait, for another thread that brings an answer or a permit.
    pub fn bell(&self) -> &Bell {
        &self.bell
    }

    /// Waits until `fd` is ready for `flags`, the bell rings, or `tick` has passed. Beats that are
    /// due meanwhile are run, and end nothing.
    ///
    /// # Errors
    /// The wait was interrupted, its client has gone or its deadline has passed.
    pub fn until(
        &self,
        fd: Option<(BorrowedFd<'_>, PollFlags)>,
        tick: Option<Duration>,
    ) -> Result<Woken, Interrupted> {
        let tick_at = tick.map(|tick| Instant::now() + tick);
        loop {
            let now = Instant::now();
            let end = self.check_at(now)?;
            let beat_at = self.beats.as_ref().and_then(Beats::next);
            if beat_at.is_some_and(|at| now >= at) {
                self.beats.iter().for_each(Beats::run);
                continue;
            }
            let wake_at = tick_at.into_iter().chain(beat_at).fold(end, Instant::min);
            match self.poll_once(fd, wake_at.saturating_duration_since(now)) {
                Some(woken) => return woken,
                None if tick_at.is_some_and(|at| Instant::now() >= at) => {
                    return Ok(Woken::Tick);
                }
                None => (),
            }
        }
    }

    /// Checks that the wait goes on, without waiting, for a thread that is busy. Returns the
    /// present end of the wait.
    ///
    /// # Errors
    /// The wait was interrupted or its deadline has passed.
    pub fn check(&self) -> Result<Instant, Interrupted> {
        self.check_at(Instant::now())
    }

    fn check_at(&self, now: Instant) -> Result<Instant, Interrupted> {
        if let Some(reason) = self.interrupted() {
            return Err(reason);
        }
        let Deadline { at: deadline, part, entitled, .. } = *locked(&self.deadline);
        if entitled.is_some_and(|at| now >= at) {
            self.interrupt(Interrupted::Cancelled);
            return Err(Interrupted::Cancelled);
        }
        if now >= deadline {
            self.note_what_ran_out();
            self.interrupt(Interrupted::Deadline);
            return Err(Interrupted::Deadline);
        }
        if part.is_some_and(|part| now >= part) {
            return Err(Interrupted::Deadline);
        }
        Ok([part, entitled].into_iter().flatten().fold(deadline, Instant::min))
    }

    fn note_what_ran_out(&self) {
        let mut deadline = locked(&self.deadline);
        let Deadline { at, latest, timeout, held, patience, .. } = *deadline;
        let ran_out = if at >= latest {
            (RanOut::Latest, latest.saturating_duration_since(self.began))
        } else if held > 0 {
            (RanOut::Patience, patience)
        } else {
            (RanOut::Timeout, timeout)
        };
        deadline.ran_out.get_or_insert(ran_out);
    }

    /// The time limit that was over when the wait ended at its deadline, and its length.
    pub fn ran_out(&self) -> Option<(RanOut, Duration)> {
        locked(&self.deadline).ran_out
    }

    /// Polls once; `None` when the poll ended without a cause.
    fn poll_once(
        &self,
        fd: Option<(BorrowedFd<'_>, PollFlags)>,
        left: Duration,
    ) -> Option<Result<Woken, Interrupted>> {
        let own = self.bell.as_fd();
        let (fd, flags) = fd.unwrap_or((own, PollFlags::empty()));
        let client = self.client.as_ref().map(|client| client.as_fd());
        let (client, hang_up) =
            client.map_or((own, PollFlags::empty()), |client| (client, PollFlags::RDHUP));
        let mut fds = [
            PollFd::from_borrowed_fd(own, PollFlags::IN),
            // An unwatched descriptor is replaced by the bell, without events.
            PollFd::from_borrowed_fd(fd, flags),
            PollFd::from_borrowed_fd(client, hang_up),
        ];
        let timeout = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        };
        if !matches!(poll(&mut fds, Some(&timeout)), Ok(ready) if ready > 0) {
            return None;
        }
        let [rung, ready, gone] = fds.map(|fd| !fd.revents().is_empty());
        if rung {
            self.bell.clear();
            return match self.interrupted() {
                Some(reason) => Some(Err(reason)),
                None => Some(Ok(Woken::Bell)),
            };
        }
        if ready {
            return Some(Ok(Woken::Ready));
        }
        if gone {
            self.interrupt(Interrupted::ClientGone);
            return Some(Err(Interrupted::ClientGone));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_whose_client_has_no_right_any_more_is_cancelled() {
        let wait = Wait::plain(Duration::from_secs(60)).unwrap();
        wait.entitle_until(Instant::now() + Duration::from_millis(20));
        // Neither progress nor another timeout gives it more time.
        wait.progressed();
        wait.set_call_timeout(Duration::from_secs(60), Duration::from_secs(60));
        assert_eq!(wait.until(None, None), Err(Interrupted::Cancelled));
        assert_eq!(wait.interrupted(), Some(Interrupted::Cancelled));
    }

    #[test]
    fn a_deadline_ends_the_wait() {
        let wait = Wait::plain(Duration::from_millis(20)).unwrap();
        assert_eq!(wait.until(None, None), Err(Interrupted::Deadline));
        assert_eq!(wait.interrupted(), Some(Interrupted::Deadline));
    }

    #[test]
    fn a_bell_rung_before_the_wait_is_heard_once() {
        let wait = Wait::plain(Duration::from_millis(50)).unwrap();
        wait.bell().ring();
        assert_eq!(wait.until(None, None), Ok(Woken::Bell));
        assert_eq!(wait.until(None, Some(Duration::from_millis(1))), Ok(Woken::Tick));
    }

    #[test]
    fn the_first_reason_stands() {
        let wait = Wait::plain(Duration::from_secs(5)).unwrap();
        wait.interrupt(Interrupted::Cancelled);
        wait.interrupt(Interrupted::Stopping);
        assert_eq!(wait.until(None, None), Err(Interrupted::Cancelled));
    }

    #[test]
    fn a_client_that_hangs_up_ends_the_wait() {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let wait =
            Wait::new(Duration::from_secs(5), Duration::from_secs(5), Some(Arc::new(ours)))
                .unwrap();
        drop(theirs);
        assert_eq!(wait.until(None, None), Err(Interrupted::ClientGone));
    }

    #[test]
    fn a_held_timeout_stands_still_and_starts_anew() {
        let (short, long) = (Duration::from_millis(30), Duration::from_secs(5));
        let wait = Wait::new(short, long, None).unwrap();
        let held = wait.hold(long);
        assert!(wait.left() > Duration::from_secs(4));
        wait.progressed();
        assert!(wait.left() > Duration::from_secs(4));
        drop(held);
        assert!(wait.left() <= short);
    }

    #[test]
    fn a_call_that_is_made_again_has_no_more_time_at_the_latest() {
        let (short, long) = (Duration::from_millis(200), Duration::from_secs(5));
        let wait = Wait::plain(long).unwrap();
        std::thread::sleep(Duration::from_millis(20));
        wait.set_call_timeout(long, short);
        assert!(wait.left() <= Duration::from_millis(180), "{:?}", wait.left());
    }

    #[test]
    fn a_part_that_is_over_does_not_end_the_wait() {
        let wait = Wait::plain(Duration::from_secs(5)).unwrap();
        let part = wait.within(Duration::from_millis(10));
        assert_eq!(wait.until(None, None), Err(Interrupted::Deadline));
        drop(part);
        assert_eq!(wait.interrupted(), None);
        assert_eq!(wait.until(None, Some(Duration::from_millis(1))), Ok(Woken::Tick));
    }

    #[test]
    fn a_part_of_a_part_ends_with_it_and_leaves_it_as_it_was() {
        let wait = Wait::plain(Duration::from_secs(5)).unwrap();
        let outer = wait.within(Duration::from_millis(10));
        drop(wait.within(Duration::from_millis(1)));
        assert_eq!(wait.check().map(drop), Ok(()));
        let inner = wait.within(Duration::from_secs(3));
        assert_eq!(wait.until(None, None), Err(Interrupted::Deadline));
        drop(inner);
        assert_eq!(wait.check().map(drop), Err(Interrupted::Deadline));
        drop(outer);
        assert_eq!(wait.check().map(drop), Ok(()));
    }

    #[test]
    fn progress_moves_the_deadline_but_not_past_the_latest() {
        let wait =
            Wait::new(Duration::from_millis(50), Duration::from_millis(60), None).unwrap();
        let first = wait.deadline();
        std::thread::sleep(Duration::from_millis(5));
        wait.progressed();
        assert!(wait.deadline() > first);
        let latest = wait.deadline();
        std::thread::sleep(Duration::from_millis(10));
        wait.progressed();
        assert!(wait.deadline() <= latest + Duration::from_millis(6));
    }
}
