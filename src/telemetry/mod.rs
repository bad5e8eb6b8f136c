//! What operators see: log lines without secrets in them.

pub mod log;
pub mod redact;
mod seldom;
pub mod timestamp;

pub use seldom::Seldom;
