//! What operators see: log lines without secrets in them, and what was turned away.

pub mod log;
pub mod redact;
pub mod rejected;
mod seldom;
pub mod timestamp;

pub use seldom::Seldom;
