//! Pure: when the file of credentials was looked at, and what it was like.

use std::time::{Duration, Instant};

use crate::limits::UNSAVED_CREDENTIALS_INTERVAL;

use super::store::Stamp;

/// What is known of the file.
#[derive(Debug, Default)]
pub(super) struct FileLook {
    /// The file as it was read or written last; none where there was none.
    seen: Option<Stamp>,
    looked_at: Option<Instant>,
    /// When the present credentials could not be written last, if they are newer than the file.
    unsaved_at: Option<Instant>,
    /// Why the file could not be read, as it was told last.
    told: Option<String>,
}

impl FileLook {
    /// The file as it was read or written last.
    pub(super) fn seen(&self) -> Option<Stamp> {
        self.seen
    }

    /// The file was read or written, and is like that.
    pub(super) fn saw(&mut self, stamp: Option<Stamp>) {
        (self.seen, self.told) = (stamp, None);
    }

    /// The present credentials are those of the file.
    pub(super) fn is_saved(&mut self) {
        self.unsaved_at = None;
    }

    /// The present credentials could not be written.
    pub(super) fn could_not_save(&mut self, now: Instant) {
        self.unsaved_at = Some(now);
    }

    /// True if the present credentials are newer than the file.
    pub(super) fn is_unsaved(&self) -> bool {
        self.unsaved_at.is_some()
    }

    /// True if it is time to write them again.
    pub(super) fn is_to_be_saved(&self, now: Instant) -> bool {
        let is_long_ago =
            |at: Instant| now.saturating_duration_since(at) >= UNSAVED_CREDENTIALS_INTERVAL;
        self.unsaved_at.is_some_and(is_long_ago)
    }

    /// The file could not be read. True if that is news.
    pub(super) fn could_not_read(&mut self, why: &str) -> bool {
        let is_news = self.told.as_deref() != Some(why);
        self.told = Some(why.to_owned());
        is_news
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

    #[test]
    fn what_could_not_be_written_is_written_again_after_a_while_and_what_not_read_is_told_once()
    {
        let (mut look, now) = (FileLook::default(), Instant::now());
        assert!(!look.is_unsaved() && !look.is_to_be_saved(now));
        look.could_not_save(now);
        assert!(look.is_unsaved() && !look.is_to_be_saved(now));
        assert!(look.is_to_be_saved(now + UNSAVED_CREDENTIALS_INTERVAL));
        look.is_saved();
        assert!(!look.is_unsaved());
        assert!(look.could_not_read("no") && !look.could_not_read("no"));
        look.saw(None);
        assert!(look.could_not_read("no"));
    }
}
