//! Log lines about events that others can repeat: a few are logged, then they are counted.

use std::time::Instant;

use crate::limits::{LOG_REPEATS_MAX, LOG_REPEATS_WITHIN};
use crate::sync::Mutex;

/// One kind of line.
#[derive(Debug)]
pub struct Seldom {
    lines_max: usize,
    said: Mutex<Said>,
}

impl Default for Seldom {
    fn default() -> Seldom {
        Seldom::up_to(LOG_REPEATS_MAX)
    }
}

#[derive(Debug, Default)]
struct Said {
    /// The time at which the first line of the present interval was logged.
    since: Option<Instant>,
    logged: usize,
    left_out: usize,
}

impl Seldom {
    /// Logs at most `lines_max` lines in [`LOG_REPEATS_WITHIN`].
    pub fn up_to(lines_max: usize) -> Seldom {
        Seldom { lines_max, said: Mutex::default() }
    }

    /// The text to add to the line, if it is to be logged: empty, or with the number of lines
    /// that were left out since the last one. None if this one is only counted.
    pub fn turn(&self) -> Option<String> {
        self.turn_at(Instant::now())
    }

    fn turn_at(&self, now: Instant) -> Option<String> {
        let mut said = self.said.lock();
        if said.since.is_none_or(|since| now.duration_since(since) >= LOG_REPEATS_WITHIN) {
            (said.since, said.logged) = (Some(now), 0);
        }
        if said.logged >= self.lines_max {
            said.left_out += 1;
            return None;
        }
        said.logged += 1;
        let left_out = std::mem::take(&mut said.left_out);
        Some(if left_out == 0 {
            String::new()
        } else {
            format!(" ({left_out} more like it were not logged)")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_are_logged_and_the_rest_is_counted() {
        let (seldom, start) = (Seldom::default(), Instant::now());
        let logged = (0..100).filter_map(|_| seldom.turn_at(start)).count();
        assert_eq!(logged, LOG_REPEATS_MAX);
        let later = start + LOG_REPEATS_WITHIN;
        let counted = format!("{} more", 100 - LOG_REPEATS_MAX);
        assert!(seldom.turn_at(later).is_some_and(|behind| behind.contains(&counted)));
        assert_eq!(seldom.turn_at(later).as_deref(), Some(""));
    }
}
