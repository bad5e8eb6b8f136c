//! What can be tested of the library alone: the engine, upstreams, configurations. The rest is
//! tested in `tests/it`, which is not compiled anew when the sources change.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails where it is surprised"
)]

use test_support as support;

mod config;
mod docs;
mod downstream;
mod figures;
mod http;
mod upstream;
