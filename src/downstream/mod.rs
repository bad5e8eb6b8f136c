//! Faces MCP clients: bytes in, calls, outcomes, bytes out.

pub mod event_stream;
