//! What the children of one upstream write to their standard error: the last lines for
//! `/status`, and which lines the log has had before.

use std::collections::{HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::limits::{CHILD_BACKOFF_RESET_AFTER, CHILD_STDERR_LINES_KNOWN_MAX};

/// See above.
pub(crate) struct StderrRing {
    lines: Mutex<VecDeque<String>>,
    max: usize,
    known: Mutex<Known>,
}

/// Lines of children that ended soon, so that one which is started again and again is logged
/// once; as hashes.
#[derive(Default)]
struct Known {
    /// Of the children that run.
    now: HashSet<u64>,
    /// Of those before them, since one was well for long.
    before: HashSet<u64>,
}

impl StderrRing {
    pub(crate) fn new(max: usize) -> StderrRing {
        StderrRing { lines: Mutex::default(), max, known: Mutex::default() }
    }

    pub(crate) fn push(&self, line: String) {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() >= self.max {
            lines.pop_front();
        }
        if self.max > 0 {
            lines.push_back(line);
        }
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().cloned().collect()
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a child that ended soon has written the same, apart from numbers, which may be
    /// times, ids of processes and addresses.
    pub(crate) fn is_repeated(&self, line: &str) -> bool {
        let mut hasher = DefaultHasher::new();
        line.split(|it: char| it.is_ascii_digit())
            .filter(|part| !part.is_empty())
            .for_each(|part| part.hash(&mut hasher));
        let hash = hasher.finish();
        let mut known = self.known();
        if known.now.len() < CHILD_STDERR_LINES_KNOWN_MAX {
            known.now.insert(hash);
        }
        known.before.contains(&hash)
    }

    /// A child has ended by itself after it was well for so long.
    pub(crate) fn ended(&self, lived: Duration) {
        let mut known = self.known();
        let now = std::mem::take(&mut known.now);
        if lived >= CHILD_BACKOFF_RESET_AFTER {
            known.before.clear();
            return;
        }
        let room = CHILD_STDERR_LINES_KNOWN_MAX.saturating_sub(known.before.len());
        known.before.extend(now.into_iter().take(room));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_at_every_start_is_known_until_a_child_was_well() {
        let ring = StderrRing::new(2);
        assert!(!ring.is_repeated("at 14:03:11 pid 17: Traceback"));
        assert!(!ring.is_repeated("at 14:03:11 pid 17: Traceback"), "the same child goes on");
        ring.ended(Duration::ZERO);
        assert!(ring.is_repeated("at 14:03:12 pid 4711: Traceback"));
        assert!(!ring.is_repeated("another line"));
        ring.ended(Duration::from_secs(1));
        assert!(
            ring.is_repeated("at 1:0:1 pid 1: Traceback") && ring.is_repeated("another line")
        );
        ring.ended(CHILD_BACKOFF_RESET_AFTER);
        assert!(!ring.is_repeated("another line"));
    }
}
