//! What is told of requests: lines, metrics, spans, and events as they happen.

pub(crate) mod access_log;
pub(crate) mod metrics;
pub(crate) mod refusal_lines;
pub(crate) mod traces;
pub(crate) mod watching;
