//! Calls by server, tool and key. Names come from the catalogue and the configuration alone, and
//! the number of series is bounded: further calls count as `other`.
//!
//! The table is open-addressed and only grows, so that a call finds its series without a lock: a
//! place is filled once.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::limits::TOOL_SERIES_MAX;
use crate::telemetry::outcome::CallOutcome;

/// Places of the table: half of them stay free, so that a look-up ends soon.
const PLACES: usize = 2 * TOOL_SERIES_MAX;
const OTHER: &str = "other";

/// Calls of one tool by one key.
#[derive(Debug)]
pub struct Series {
    /// The server's name.
    pub server: Box<str>,
    /// The tool's own name.
    pub tool: Box<str>,
    /// The key's name; empty without one.
    pub key: Box<str>,
    outcomes: [AtomicU64; CallOutcome::ALL.len()],
}

impl Series {
    fn new((server, tool, key): (&str, &str, &str)) -> Series {
        let outcomes = [const { AtomicU64::new(0) }; CallOutcome::ALL.len()];
        Series { server: server.into(), tool: tool.into(), key: key.into(), outcomes }
    }

    fn is_of(&self, (server, tool, key): (&str, &str, &str)) -> bool {
        *self.tool == *tool && *self.server == *server && *self.key == *key
    }

    fn add(&self, outcome: CallOutcome) {
        if let Some(count) = self.outcomes.get(outcome.index()) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The number of each outcome.
    pub fn outcomes(&self) -> impl Iterator<Item = (CallOutcome, u64)> {
        let outcomes = CallOutcome::ALL.into_iter().zip(&self.outcomes);
        outcomes.map(|(it, count)| (it, count.load(Ordering::Relaxed)))
    }
}

struct Table {
    /// Boxed, because an empty place is not all zeros, and an unboxed one would fill the binary.
    places: [OnceLock<Box<Series>>; PLACES],
    n_taken: AtomicUsize,
    other: OnceLock<Box<Series>>,
}

static TABLE: Table = Table::new();

impl Table {
    const fn new() -> Table {
        Table {
            places: [const { OnceLock::new() }; PLACES],
            n_taken: AtomicUsize::new(0),
            other: OnceLock::new(),
        }
    }

    fn series(&self, name: (&str, &str, &str)) -> &Series {
        let mut hasher = DefaultHasher::new();
        name.hash(&mut hasher);
        let start = usize::try_from(hasher.finish() & u64::from(u32::MAX)).unwrap_or_default();
        let (before, from) = self.places.split_at(start % PLACES);
        for place in from.iter().chain(before) {
            if let Some(series) = place.get() {
                if series.is_of(name) {
                    return series;
                }
                continue;
            }
            if self.n_taken.fetch_add(1, Ordering::Relaxed) >= TOOL_SERIES_MAX {
                self.n_taken.fetch_sub(1, Ordering::Relaxed);
                break;
            }
            let mut is_mine = false;
            let series = place.get_or_init(|| {
                is_mine = true;
                Box::new(Series::new(name))
            });
            if !is_mine {
                self.n_taken.fetch_sub(1, Ordering::Relaxed);
            }
            if series.is_of(name) {
                return series;
            }
        }
        self.other.get_or_init(|| Box::new(Series::new((OTHER, OTHER, OTHER))))
    }

    fn taken(&self) -> impl Iterator<Item = &Series> {
        self.places.iter().chain([&self.other]).filter_map(OnceLock::get).map(Box::as_ref)
    }
}

/// Counts a call of a tool that is over.
pub fn count(server: &str, tool: &str, key: Option<&str>, outcome: CallOutcome) {
    TABLE.series((server, tool, key.unwrap_or_default())).add(outcome);
}

/// All series so far.
pub fn counted() -> impl Iterator<Item = &'static Series> {
    TABLE.taken()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_counts_with_its_series_and_what_is_too_much_as_other() {
        let table = Box::new(Table::new());
        for n in 0..2 * TOOL_SERIES_MAX {
            for _ in 0..2 {
                table.series(("s", &format!("tool{n}"), "k")).add(CallOutcome::Ok);
            }
        }
        let all: Vec<&Series> = table.taken().collect();
        assert_eq!(all.len(), TOOL_SERIES_MAX + 1);
        let total: u64 = all.iter().flat_map(|it| it.outcomes()).map(|(_, n)| n).sum();
        assert_eq!(total, 4 * u64::try_from(TOOL_SERIES_MAX).unwrap());
        let (other, own) = all.split_last().unwrap();
        assert_eq!(&*other.tool, OTHER);
        assert!(own.iter().all(|it| it.outcomes().map(|(_, n)| n).sum::<u64>() == 2));
        let again = table.series(("s", "tool0", "k"));
        assert_eq!(&*again.tool, "tool0");
        assert_eq!(&*table.series(("s", "tool0", "another")).key, OTHER);
    }
}
