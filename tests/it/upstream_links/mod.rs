//! The upstream side against servers and children that follow a script.

mod http_sse;
mod questions;
mod rig;
mod sessions;
mod standing;
mod stdio;
mod streamable_http;
mod streams;
mod worlds;
