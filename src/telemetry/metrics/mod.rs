//! What is counted and timed. Everything that a call touches is an atomic number; what a scrape shows
//! is gathered when it comes.

pub mod histogram;
pub mod requests;
pub mod servers;
pub mod tools;
