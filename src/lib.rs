//! Trunkline: an MCP gateway in one small static binary.

pub mod downstream;
pub mod http;
pub mod limits;
pub mod thread;
pub mod wait;
