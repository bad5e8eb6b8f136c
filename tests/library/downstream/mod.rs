//! The hub of long-lived responses, and the doors that there are.

pub(crate) mod event_stream;
pub(crate) mod openapi;
