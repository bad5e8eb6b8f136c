//! The keys of `limits`: their ranges, and the fields for their values.

use std::ops::RangeInclusive;
use std::sync::LazyLock;
use std::time::Duration;

use super::reader::Fields;
use crate::limits::Limits;

/// The field for a bound's value.
enum Place {
    Count(fn(&mut Limits) -> &mut usize),
    Time(fn(&mut Limits) -> &mut Duration),
}

struct Bound {
    key: &'static str,
    range: RangeInclusive<u64>,
    place: Place,
}

const fn count(
    key: &'static str,
    range: RangeInclusive<u64>,
    place: fn(&mut Limits) -> &mut usize,
) -> Bound {
    Bound { key, range, place: Place::Count(place) }
}

const fn time(
    key: &'static str,
    range: RangeInclusive<u64>,
    place: fn(&mut Limits) -> &mut Duration,
) -> Bound {
    Bound { key, range, place: Place::Time(place) }
}

/// A day, in milliseconds: the longest bound in time, except for idle sessions.
pub(crate) const DAY_MS: u64 = 24 * 3600 * 1000;
/// 16 GiB: the largest bound in bytes.
const BYTES_MAX: u64 = 16 * 1024 * 1024 * 1024;
const COUNT_MAX: u64 = 1_000_000;

/// The bounds in the order of the documentation.
const BOUNDS: [Bound; 28] = [
    // An eighth of the pool is kept free of calls that wait, so a pool has eight threads at
    // least.
    count("connections", 8..=65_536, |l| &mut l.connections),
    count("connections_per_address", 1..=65_536, |l| &mut l.connections_per_address),
    count("buffered_bytes", 1024..=BYTES_MAX, |l| &mut l.buffered_bytes),
    count("head_bytes", 256..=1_048_576, |l| &mut l.head_bytes),
    count("headers", 1..=10_000, |l| &mut l.headers),
    count("body_bytes", 1..=BYTES_MAX, |l| &mut l.body_bytes),
    time("head_ms", 1..=DAY_MS, |l| &mut l.head),
    time("body_ms", 1..=DAY_MS, |l| &mut l.body),
    time("idle_ms", 1..=DAY_MS, |l| &mut l.idle),
    time("write_ms", 1..=DAY_MS, |l| &mut l.write),
    count("sessions", 1..=COUNT_MAX, |l| &mut l.sessions),
    count("sessions_per_key", 1..=COUNT_MAX, |l| &mut l.sessions_per_key),
    time("session_idle_ms", 1..=7 * DAY_MS, |l| &mut l.session_idle),
    count("streams", 1..=COUNT_MAX, |l| &mut l.streams),
    count("stream_queue_bytes", 4096..=BYTES_MAX, |l| &mut l.stream_queue_bytes),
    time("heartbeat_ms", 10..=DAY_MS, |l| &mut l.heartbeat),
    count("event_log_events", 0..=COUNT_MAX, |l| &mut l.event_log_events),
    count("event_log_bytes", 0..=BYTES_MAX, |l| &mut l.event_log_bytes),
    count("page_items", 1..=COUNT_MAX, |l| &mut l.page_items),
    count("views", 1..=COUNT_MAX, |l| &mut l.views),
    count("parked_calls", 0..=COUNT_MAX, |l| &mut l.parked_calls),
    count("parked_calls_per_key", 0..=COUNT_MAX, |l| &mut l.parked_calls_per_key),
    time("parked_ms", 1..=DAY_MS, |l| &mut l.parked),
    count("upstream_result_bytes", 1..=BYTES_MAX, |l| &mut l.upstream_result_bytes),
    count("upstream_event_bytes", 1..=BYTES_MAX, |l| &mut l.upstream_event_bytes),
    count("upstream_tools", 1..=COUNT_MAX, |l| &mut l.upstream_tools),
    count("child_stderr_lines", 0..=COUNT_MAX, |l| &mut l.child_stderr_lines),
    time("drain_ms", 0..=DAY_MS, |l| &mut l.drain),
];

/// The keys of `limits`.
pub fn limit_keys() -> &'static [&'static str] {
    static KEYS: LazyLock<Vec<&'static str>> =
        LazyLock::new(|| BOUNDS.iter().map(|bound| bound.key).collect());
    &KEYS
}

/// Reads the bounds that are given; the others keep their defaults.
pub(crate) fn read(fields: &Fields<'_>) -> Limits {
    let mut limits = Limits::default();
    for bound in &BOUNDS {
        let Some(number) = fields.number(bound.key, &bound.range) else { continue };
        match bound.place {
            Place::Count(place) => {
                // On 32 bits a bound beyond the address space bounds nothing.
                *place(&mut limits) = usize::try_from(number).unwrap_or(usize::MAX);
            }
            Place::Time(place) => *place(&mut limits) = Duration::from_millis(number),
        }
    }
    limits
}
