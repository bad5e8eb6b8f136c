//! The answer to a POST while its call runs: the call's thread writes to it, and the call's wait
//! keeps its connection alive.

use std::time::{Duration, Instant};

use crate::sync::Mutex;
use crate::wait::KeepAlive;

/// An answer whose connection can be kept alive.
pub(crate) trait Beating: Send {
    /// The time of the last bytes to the client; none before the first.
    fn sent_at(&self) -> Option<Instant>;

    /// Sends the client bytes without a meaning.
    fn beat(&mut self);
}

/// An answer that is shared by the call's thread and its wait. A user takes the answer out while
/// it writes, so that no lock is held then; another user finds none meanwhile, and need not wait.
pub(crate) struct KeptAlive<T>(Mutex<Option<T>>);

impl<T> KeptAlive<T> {
    /// Shares `answer`.
    pub(crate) fn new(answer: T) -> KeptAlive<T> {
        KeptAlive(Mutex::new(Some(answer)))
    }

    /// Takes the answer for good.
    pub(crate) fn take(&self) -> Option<T> {
        self.0.lock().take()
    }

    /// Calls `using` with the answer, if it is not taken.
    pub(crate) fn with<R>(&self, using: impl FnOnce(&mut T) -> R) -> Option<R> {
        let mut answer = self.take()?;
        let out = using(&mut answer);
        *self.0.lock() = Some(answer);
        Some(out)
    }
}

impl<T: Beating> KeepAlive for KeptAlive<T> {
    fn keep_alive(&self, every: Duration) -> Instant {
        let sent_at = self.with(|answer| match answer.sent_at() {
            Some(at) if at.elapsed() < every => at,
            Some(_) | None => {
                answer.beat();
                Instant::now()
            }
        });
        sent_at.unwrap_or_else(Instant::now) + every
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Counted {
        sent_at: Option<Instant>,
        beats: usize,
    }

    impl Beating for Counted {
        fn sent_at(&self) -> Option<Instant> {
            self.sent_at
        }

        fn beat(&mut self) {
            self.beats += 1;
        }
    }

    const EVERY: Duration = Duration::from_secs(5);

    fn beats(answer: &KeptAlive<Counted>) -> usize {
        answer.with(|it| it.beats).unwrap()
    }

    #[test]
    fn a_beat_comes_so_long_after_what_was_sent_last() {
        let answer = KeptAlive::new(Counted { sent_at: None, beats: 0 });
        assert!(answer.keep_alive(EVERY) > Instant::now() + EVERY / 2);
        assert_eq!(beats(&answer), 1);
        let just_now = Instant::now();
        answer.with(|it| it.sent_at = Some(just_now)).unwrap();
        assert_eq!(answer.keep_alive(EVERY), just_now + EVERY);
        assert_eq!(beats(&answer), 1);
        assert!(answer.keep_alive(Duration::ZERO) >= just_now);
        assert_eq!(beats(&answer), 2);
    }

    #[test]
    fn an_answer_that_is_given_or_in_use_is_not_beaten_and_not_waited_for() {
        let answer = KeptAlive::new(Counted { sent_at: None, beats: 0 });
        answer.with(|_| assert!(answer.keep_alive(EVERY) > Instant::now())).unwrap();
        assert_eq!(beats(&answer), 0);
        assert_eq!(answer.take().map(|it| it.beats), Some(0));
        assert!(answer.keep_alive(EVERY) > Instant::now() && answer.take().is_none());
    }
}
