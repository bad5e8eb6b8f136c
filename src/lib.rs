//! Trunkline: an MCP gateway in one small static binary.

pub mod access;
pub mod catalogue;
pub mod config;
pub mod error;
pub mod limits;
pub mod protocol;
pub mod session;
pub mod thread;
pub mod upstream;
pub mod wait;
