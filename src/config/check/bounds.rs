//! Checks of the relations between the bounds of `limits`.

use crate::config::file::json::pointer;
use crate::config::file::reader::Reader;
use crate::limits::{Limits, SHARES_MIN};

/// Warns of allowed values that do not do what they seem to.
pub(crate) fn warn(reader: &Reader<'_>, limits: &Limits, n_keys: usize) {
    // No principal ever gets the share that is kept for others.
    let most = limits.buffered_bytes - limits.buffered_bytes / SHARES_MIN;
    if n_keys > 1 && limits.body_bytes > most {
        let what = format!(
            "{} is more than one of several keys may have of \
             /limits/buffered_bytes ({}): a body of more than {most} bytes is always refused (503)",
            limits.body_bytes, limits.buffered_bytes
        );
        reader.warn("/limits/body_bytes", what);
    }
}

/// The relations between bounds; a pair that breaks one is a problem that names both.
pub(crate) fn check(reader: &Reader<'_>, limits: &Limits) {
    let pairs = [
        ("body_bytes", limits.body_bytes, "buffered_bytes", limits.buffered_bytes),
        (
            "upstream_result_bytes",
            limits.upstream_result_bytes,
            "buffered_bytes",
            limits.buffered_bytes,
        ),
    ];
    for (key, value, other_key, other) in pairs {
        if value > other {
            let what = format!("{key} ({value}) is more than {other_key} ({other})");
            reader.problem(pointer("/limits", key), what);
        }
    }
}
