//! What is counted and timed. Everything that a call touches is an atomic number; what a scrape shows
//! is gathered when it comes.

pub mod exposition;
pub mod histogram;
pub mod process;
pub mod reloads;
pub mod requests;
pub mod servers;
pub mod state_writes;
pub mod tools;
