//! The hub of long-lived responses.

#[cfg(not(feature = "tiny_http"))]
pub(crate) mod event_stream;
