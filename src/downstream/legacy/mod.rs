//! Clients with sessions (revisions up to 2025-11-25), over each transport.

pub(super) mod call_sink;
pub mod dispatch;
pub mod http_sse;
pub(super) mod input_required;
pub(super) mod outcome;
pub(super) mod response;
pub mod streamable_http;
pub(super) mod subscriptions;
