//! The transports.

pub(crate) mod clean_up;
pub(crate) mod foreign_events;
pub(crate) mod http_sse;
pub(crate) mod outbox;
pub(crate) mod refusals;
pub(crate) mod refused_heads;
pub(crate) mod stateless_http;
pub(crate) mod stdio;
pub(crate) mod streamable_http;
pub(crate) mod streams;
pub(crate) mod unasked;
