//! Trunkline: an MCP gateway in one small static binary.

pub mod cli;
pub mod config;
pub mod demo;
pub mod error;
pub mod limits;
pub mod protocol;
pub mod telemetry;
pub mod thread;
pub mod upstream;
pub mod wait;
