//! The library without its program.

pub(crate) mod config;
pub(crate) mod downstream;
pub(crate) mod http;
pub(crate) mod upstream;
