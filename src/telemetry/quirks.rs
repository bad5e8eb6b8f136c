//! Counts of tolerated quirks of clients, and a log line the first time that a client shows one.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::limits::{CLIENT_NAME_CHARS_MAX, QUIRK_LINES_MAX};
use crate::protocol::quirks::Quirk;
use crate::sync::Mutex;

/// One counter for each of [`Quirk::ALL`].
static COUNTERS: [AtomicU64; Quirk::ALL.len()] =
    [const { AtomicU64::new(0) }; Quirk::ALL.len()];

/// The clients and quirks that were logged: [`QUIRK_LINES_MAX`] at most, because a client may
/// give itself any name.
static TOLD: Mutex<Option<HashSet<(Quirk, String)>>> = Mutex::new(None);

/// Counts the quirks of one message, and logs those that are new for the client of that name.
pub fn tolerated(quirks: &[Quirk], client: Option<&str>) {
    for quirk in quirks {
        if let Some(counter) = counter(*quirk) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
        let name: String =
            client.unwrap_or("without a name").chars().take(CLIENT_NAME_CHARS_MAX).collect();
        if is_new(*quirk, &name) {
            log::info!(target: "quirks", "the client {name:?} {}", quirk.told());
        }
    }
}

/// The number of times that a quirk was tolerated since the process began.
pub fn count(quirk: Quirk) -> u64 {
    counter(quirk).map_or(0, |counter| counter.load(Ordering::Relaxed))
}

fn counter(quirk: Quirk) -> Option<&'static AtomicU64> {
    let at = Quirk::ALL.iter().position(|it| *it == quirk)?;
    COUNTERS.get(at)
}

fn is_new(quirk: Quirk, name: &str) -> bool {
    let mut told = TOLD.lock();
    let told = told.get_or_insert_default();
    if told.contains(&(quirk, name.to_owned())) || told.len() >= QUIRK_LINES_MAX {
        return false;
    }
    told.insert((quirk, name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_quirk_is_counted_and_is_new_once_a_name_and_within_a_bound() {
        for quirk in Quirk::ALL {
            let before = count(quirk);
            tolerated(&[quirk], Some("some client"));
            assert!(count(quirk) > before, "{quirk:?}");
            assert!(!is_new(quirk, "some client"));
        }
        assert!(is_new(Quirk::NullId, "another client"));
        for n in 0..2 * QUIRK_LINES_MAX {
            is_new(Quirk::NullId, &format!("client {n}"));
        }
        assert!(!is_new(Quirk::NullId, "one too many"));
    }
}
