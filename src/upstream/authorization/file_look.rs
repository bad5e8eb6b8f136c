//! Pure: when the file of credentials was looked at, and what it was like.

use std::time::{Duration, Instant};

use super::store::Stamp;

/// What is known of the file.
#[derive(Debug, Default)]
pub(super) struct FileLook {
    /// The file as it was read or written last; none where there was none.
    seen: Option<Stamp>,
    looked_at: Option<Instant>,
}

impl FileLook {
    /// The file as it was read or written last.
    pub(super) fn seen(&self) -> Option<Stamp> {
        self.seen
    }

    /// The file was read or written, and is like that.
    pub(super) fn saw(&mut self, stamp: Option<Stamp>) {
        self.seen = stamp;
    }

    /// True if the last look is so long ago. It is looked at then.
    pub(super) fn begin(&mut self, now: Instant, interval: Duration) -> bool {
        let is_recent = |at: Instant| now.saturating_duration_since(at) < interval;
        if self.looked_at.is_some_and(is_recent) {
            return false;
        }
        self.looked_at = Some(now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_looked_at_once_in_an_interval() {
        let (mut look, now) = (FileLook::default(), Instant::now());
        let second = Duration::from_secs(1);
        assert!(look.begin(now, second));
        assert!(!look.begin(now + second / 2, second));
        assert!(look.begin(now + second, second));
    }
}
