//! The optional engine: the same handler seam, and the gateway on it.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails where it is surprised"
)]

use test_support as support;

mod engine;
mod gateway;
