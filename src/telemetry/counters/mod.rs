//! Metrics: counters and times. A call touches only atomic numbers; a scrape gathers the values
//! when it comes.

pub mod histogram;
pub mod process;
pub mod prometheus_text;
pub mod reloads;
pub mod requests;
pub mod servers;
pub mod state_writes;
pub mod tools;
