//! What operators see: log lines without secrets in them.

pub mod log;
pub mod redact;
pub mod timestamp;
