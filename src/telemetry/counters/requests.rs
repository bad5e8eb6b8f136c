//! Requests by door, method and outcome, and the times that they took.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::histogram::{Counted, Histogram};
use crate::protocol::method::Method;
use crate::telemetry::outcome::{CallOutcome, Door};

const DOORS: usize = Door::ALL.len();
/// The methods that the gateway knows, and all others together.
const METHODS: usize = Method::ALL.len() + 1;
const OUTCOMES: usize = CallOutcome::ALL.len();
/// The label of the methods that the gateway does not know.
const OTHER: &str = "other";

static COUNTS: [[[AtomicU64; OUTCOMES]; METHODS]; DOORS] =
    [const { [const { [const { AtomicU64::new(0) }; OUTCOMES] }; METHODS] }; DOORS];
static SECONDS: [[Histogram; METHODS]; DOORS] =
    [const { [const { Histogram::new() }; METHODS] }; DOORS];

/// Counts a request that is answered.
pub(crate) fn count(door: Door, method: Option<Method>, outcome: CallOutcome, took: Duration) {
    let place = method.and_then(|method| Method::ALL.iter().position(|it| *it == method));
    let place = place.unwrap_or(METHODS - 1);
    let of_door = (COUNTS.get(door.index()), SECONDS.get(door.index()));
    let (Some(counts), Some(seconds)) = of_door else { return };
    if let Some(count) = counts.get(place).and_then(|it| it.get(outcome.index())) {
        count.fetch_add(1, Ordering::Relaxed);
    }
    if let Some(histogram) = seconds.get(place) {
        histogram.add(took);
    }
}

/// The counts of one method by one door.
#[derive(Debug, Clone)]
pub struct OfMethod {
    /// The door by which the requests came in.
    pub door: Door,
    /// The method, or `other`.
    pub method: &'static str,
    /// The number of each outcome.
    pub outcomes: Vec<(CallOutcome, u64)>,
    /// The times that the requests took.
    pub seconds: Counted,
}

/// The counts so far, of doors and methods that were used.
pub fn counted() -> Vec<OfMethod> {
    let mut all = Vec::new();
    for ((door, counts), seconds) in Door::ALL.into_iter().zip(&COUNTS).zip(&SECONDS) {
        let methods = Method::ALL.iter().map(|method| method.as_str()).chain([OTHER]);
        for ((method, counts), histogram) in methods.zip(counts).zip(seconds) {
            let seconds = histogram.counted();
            if seconds.count == 0 {
                continue;
            }
            let outcomes = CallOutcome::ALL.into_iter().zip(counts);
            let outcomes = outcomes.map(|(it, count)| (it, count.load(Ordering::Relaxed)));
            let outcomes = outcomes.filter(|(_, count)| *count > 0).collect();
            all.push(OfMethod { door, method, outcomes, seconds });
        }
    }
    all
}
