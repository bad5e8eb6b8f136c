//! What operators see: log lines without secrets in them, and what was turned away, and what
//! was tolerated.

pub mod log;
pub mod quirks;
pub mod redact;
pub mod rejected;
mod seldom;
pub mod timestamp;

pub use seldom::Seldom;
