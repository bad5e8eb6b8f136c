//! The gateway as a real process, between clients that speak by hand and scripted servers.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails where it is surprised"
)]

use test_support as support;

mod access;
mod catalogue;
mod cli;
mod demo;
mod docs;
mod downstream;
mod gateway;
mod http;
mod identity;
mod pipeline;
mod protocol;
mod selftest;
mod session;
mod state;
mod telemetry;
mod upstream;
