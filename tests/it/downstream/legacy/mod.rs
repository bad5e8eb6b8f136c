//! Clients that keep a session, over Streamable HTTP and HTTP+SSE.

pub(crate) mod http_sse;
pub(crate) mod initialize;
pub(crate) mod question_ends;
pub(crate) mod questions;
pub(crate) mod resumption;
pub(crate) mod streamable_http;
