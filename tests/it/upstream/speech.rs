//! What servers of the tests speak that fail at one request, byte by byte as the test writes it.

use std::io::{self, Read as _};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::listener::Next;

/// What a server speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Speech {
    /// Streamable HTTP with sessions.
    Sessions,
    /// HTTP+SSE.
    HttpSse,
    /// The stateless revision.
    Modern,
}

impl Speech {
    /// The entry of such a server in the configuration, with one time for all that it does.
    pub(crate) fn config(self, port: u16, path: &str, timeout_ms: u64) -> Value {
        json!({
            "url": format!("http://127.0.0.1:{port}/{path}"),
            "transport": if self == Speech::HttpSse { "sse" } else { "http" },
            "timeout_ms": timeout_ms,
            "start_timeout_ms": timeout_ms,
            "connect_timeout_ms": timeout_ms,
        })
    }
}

/// A result for the request of that id.
pub(crate) fn result_text(id: &str, result: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#)
}

/// An error for the request of that id.
pub(crate) fn error_text(id: &str, code: i64, message: &str) -> String {
    let error = format!(r#"{{"code":{code},"message":"{message}"}}"#);
    format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{error}}}"#)
}

/// Says nothing more until the other side has gone, for so long at most.
pub(crate) fn hang(out: &mut TcpStream, limit: Option<Duration>) -> io::Result<Next> {
    out.set_read_timeout(limit)?;
    while out.read(&mut [0; 1024])? > 0 {}
    Ok(Next::Close)
}
