//! Trunkline: an MCP gateway in one small static binary.

pub mod access;
pub mod catalogue;
pub mod config;
pub mod demo;
pub mod downstream;
pub mod error;
pub mod gateway;
pub mod http;
pub mod limits;
pub mod pipeline;
pub mod protocol;
pub mod session;
pub mod telemetry;
pub mod thread;
pub mod upstream;
pub mod wait;
