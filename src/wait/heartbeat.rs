//! The heartbeat that keeps a client's connection alive while its call waits.

use std::sync::Weak;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A call's client, as far as its connection is to be kept alive.
pub trait KeepAlive: Send + Sync {
    /// Sends the client a keep-alive if nothing was sent to it for as long as `every`. Returns
    /// the time of the next check. The call may take as long as any write to the client.
    fn keep_alive(&self, every: Duration) -> Instant;
}

/// The interval of keep-alives on a client's connection. The waiting thread runs a beat, with no
/// lock held, and the wait goes on after it.
#[derive(Clone)]
pub struct Heartbeat {
    /// The longest silence. The first beat comes so long after the beginning of the wait.
    pub every: Duration,
    /// The client of the beats. There are no beats once it has been dropped.
    pub client: Weak<dyn KeepAlive>,
}

impl std::fmt::Debug for Heartbeat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Heartbeat").field("every", &self.every).finish_non_exhaustive()
    }
}

/// A wait's heartbeat, and the time of the next beat.
pub(super) struct Beats {
    heartbeat: Heartbeat,
    began: Instant,
    /// The time of the next beat, in microseconds after the beginning. [`NO_BEAT`] while a beat
    /// is run, and once there are no more.
    due_us: AtomicU64,
}

const NO_BEAT: u64 = u64::MAX;

impl Beats {
    /// The beats of a wait that begins now.
    pub(super) fn new(heartbeat: Heartbeat, now: Instant) -> Beats {
        let due_us = AtomicU64::new(in_us(heartbeat.every));
        Beats { heartbeat, began: now, due_us }
    }

    /// The time of the next beat, if there is one.
    pub(super) fn next(&self) -> Option<Instant> {
        match self.due_us.load(Ordering::Acquire) {
            NO_BEAT => None,
            due_us => self.began.checked_add(Duration::from_micros(due_us)),
        }
    }

    /// Runs a beat that is due.
    pub(super) fn run(&self) {
        // While this beat is run no other begins, even if another thread waits on the same wait.
        if self.due_us.swap(NO_BEAT, Ordering::AcqRel) == NO_BEAT {
            return;
        }
        let Some(client) = self.heartbeat.client.upgrade() else { return };
        let next = client.keep_alive(self.heartbeat.every);
        let due_us = in_us(next.saturating_duration_since(self.began));
        self.due_us.store(due_us, Ordering::Release);
    }
}

/// Whole microseconds, rounded up, so that no beat is due a moment too early.
fn in_us(time: Duration) -> u64 {
    u64::try_from(time.as_nanos().div_ceil(1000)).unwrap_or(NO_BEAT)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::wait::{Interrupted, Wait, Woken};

    const EVERY: Duration = Duration::from_millis(60);
    const LONG: Duration = Duration::from_secs(5);

    /// A client that notes its beats. Other messages may be sent to it, and its beats may run
    /// code.
    #[derive(Default)]
    struct Beaten {
        beats: Mutex<Vec<Instant>>,
        sent_at: Mutex<Option<Instant>>,
        during: Mutex<Option<Box<dyn Fn() + Send>>>,
    }

    impl Beaten {
        fn count(&self) -> usize {
            self.beats.lock().unwrap().len()
        }

        fn send(&self) {
            *self.sent_at.lock().unwrap() = Some(Instant::now());
        }
    }

    impl KeepAlive for Beaten {
        fn keep_alive(&self, every: Duration) -> Instant {
            let now = Instant::now();
            let sent_at = *self.sent_at.lock().unwrap();
            if let Some(due) = sent_at.map(|at| at + every).filter(|due| *due > now) {
                return due;
            }
            self.beats.lock().unwrap().push(now);
            // The lock is taken already where a beat is run inside another.
            if let Ok(during) = self.during.try_lock()
                && let Some(during) = &*during
            {
                during();
            }
            self.send();
            Instant::now() + every
        }
    }

    fn beating(timeout: Duration) -> (Arc<Beaten>, Arc<Wait>) {
        let client = Arc::new(Beaten::default());
        let as_seen: Arc<dyn KeepAlive> = client.clone();
        let heartbeat = Heartbeat { every: EVERY, client: Arc::downgrade(&as_seen) };
        (client, Wait::with_heartbeat(timeout, timeout, None, Some(heartbeat)).unwrap())
    }

    #[test]
    fn a_silent_wait_beats_at_its_times_and_no_more_often() {
        let (client, wait) = beating(LONG);
        assert_eq!(wait.until(None, Some(EVERY * 5 + EVERY / 2)), Ok(Woken::Tick));
        assert!((2..=5).contains(&client.count()), "{}", client.count());
        let mut before = wait.began;
        for beat in &*client.beats.lock().unwrap() {
            assert!(*beat >= before + EVERY, "{:?}", beat.duration_since(before));
            before = *beat;
        }
    }

    #[test]
    fn a_wait_that_is_woken_again_and_again_beats_too() {
        let (client, wait) = beating(LONG);
        let until = Instant::now() + EVERY * 4;
        while Instant::now() < until {
            wait.bell().ring();
            assert_eq!(wait.until(None, None), Ok(Woken::Bell));
        }
        assert!((1..=4).contains(&client.count()), "{}", client.count());
    }

    #[test]
    fn what_is_sent_puts_the_next_beat_off() {
        let (client, wait) = beating(LONG);
        for _ in 0..20 {
            client.send();
            wait.until(None, Some(EVERY / 10)).unwrap();
        }
        // On a busy machine the sleep may have lasted longer than a beat's time.
        assert!(client.count() <= 1, "{}", client.count());
    }

    #[test]
    fn a_beat_neither_ends_nor_lengthens_the_wait() {
        let (client, wait) = beating(EVERY * 4);
        let began = Instant::now();
        assert_eq!(wait.until(None, None), Err(Interrupted::Deadline));
        assert!(client.count() >= 1);
        assert!(began.elapsed() >= EVERY * 4 - Duration::from_millis(1));
        assert!(wait.deadline() <= wait.began + EVERY * 4);
    }

    #[test]
    fn a_beat_that_takes_long_does_not_hide_the_deadline() {
        // So long that a busy machine runs the first beat before it is over.
        let timeout = EVERY * 20;
        let (client, wait) = beating(timeout);
        let takes = timeout + EVERY;
        *client.during.lock().unwrap() = Some(Box::new(move || std::thread::sleep(takes)));
        let began = Instant::now();
        assert_eq!(wait.until(None, Some(LONG)), Err(Interrupted::Deadline));
        assert!(began.elapsed() < LONG, "{:?}", began.elapsed());
        assert_eq!(client.count(), 1);
    }

    #[test]
    fn a_beat_is_run_without_a_lock_and_never_inside_another() {
        let (client, wait) = beating(LONG);
        let same = wait.clone();
        *client.during.lock().unwrap() = Some(Box::new(move || {
            same.set_timeout(LONG, LONG);
            same.progressed();
            // The beat itself waits for a long time.
            same.until(None, Some(EVERY * 2)).unwrap();
            same.interrupt(Interrupted::Cancelled);
        }));
        assert_eq!(wait.until(None, None), Err(Interrupted::Cancelled));
        assert_eq!(client.count(), 1);
    }

    #[test]
    fn there_is_no_beat_once_the_client_s_end_is_gone() {
        let (client, wait) = beating(LONG);
        let seen = Arc::downgrade(&client);
        drop(client);
        assert_eq!(wait.until(None, Some(EVERY * 3)), Ok(Woken::Tick));
        assert!(seen.upgrade().is_none());
        assert_eq!(wait.beats.as_ref().and_then(Beats::next), None);
    }
}
