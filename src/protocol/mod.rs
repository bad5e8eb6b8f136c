//! MCP as values: no sockets, no threads, no clock, no log.
//!
//! In scope: what a message is, how a name, a revision, an event or a header reads, and the
//! internal model that both eras translate to and from. Out of scope: how bytes arrive, who may
//! call, and whom a call belongs to.

pub mod call;
pub mod capabilities;
pub mod credentials;
pub mod credentials_id;
pub mod cursor;
pub mod for_revision;
pub mod from_server;
pub mod headers;
pub mod jsonrpc;
pub mod legacy;
pub mod links;
pub mod listed_item;
mod listed_schema;
pub mod listening;
pub mod log_level;
pub mod method;
pub mod mirror;
pub mod modern;
pub mod output_schema;
pub mod owners;
pub mod pieces;
pub mod question;
pub mod quirks;
pub mod raw;
pub mod revision;
pub mod revision_differences;
pub mod scan;
pub mod sealed;
pub mod server_capabilities;
pub mod server_introduction;
pub mod server_name;
pub mod session_route;
pub mod sse;
pub mod subscriber;
pub mod view;
