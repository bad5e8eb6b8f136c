//! The upstream side against servers and children that follow a script.

mod http_sse;
mod refusals;
mod rig;
mod stdio;
mod streamable_http;
mod streams;
mod unasked;
