//! The upstream side against servers and children that follow a script.

mod clean_up;
mod connecting;
mod eras;
mod foreign_events;
mod http_sse;
mod listening;
mod lists;
mod memory;
mod modern;
mod modern_rig;
mod outbox;
mod questions;
mod refusals;
mod repeated;
mod rig;
mod secrets;
mod sessions;
mod standing;
mod stdio;
mod streamable_http;
mod streams;
mod subscriptions;
mod unasked;
mod worlds;
