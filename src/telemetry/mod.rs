//! Telemetry for operators: log lines without secrets, a line for each request, metrics, spans,
//! refusals, and tolerated quirks.

pub mod access;
pub mod activity;
pub mod bodies;
pub mod counters;
mod ids;
pub mod log;
mod names;
pub mod otlp;
pub mod outcome;
pub mod quirks;
pub mod record;
pub mod redact;
pub mod rejected;
pub mod request;
mod seldom;
pub mod timestamp;
pub mod trace;
mod trace_context;
pub mod window;

pub use ids::RequestName;
pub use seldom::Seldom;
