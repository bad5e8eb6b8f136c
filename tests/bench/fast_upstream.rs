//! The benchmark's upstream: an MCP server over Streamable HTTP that does next to nothing, so
//! that what is measured is what stands in front of it.
//!
//! `fast_upstream [ADDRESS [hang]]` listens there (default `127.0.0.1:0`), prints the address and
//! serves until it is killed; with `hang` it takes calls and never answers them. A thread per connection; one read and one write per request as long as
//! the client sends a request in one piece. It looks at a message no closer than it needs: a
//! scan for `"method":` and `"id":`, which is enough for what the benchmark and a gateway send.

#![expect(clippy::print_stdout, reason = "the address is this program's result")]

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

/// Requests are small here; a longer one is no benchmark's.
const REQUEST_BYTES_MAX: usize = 256 * 1024;

const SESSION: &str = "Mcp-Session-Id: 00000000-bench\r\n";
const INITIALIZE: &str = r#""result":{"protocolVersion":"2025-06-18","capabilities":{"tools":{}},"serverInfo":{"name":"fast-upstream","version":"1"}}"#;
const TOOLS_LIST: &str = r#""result":{"tools":[{"name":"echo","description":"Answers with a short text.","inputSchema":{"type":"object","properties":{"message":{"type":"string"}}}}]}"#;
const TOOLS_CALL: &str = r#""result":{"content":[{"type":"text","text":"hello from the fast upstream"}],"isError":false}"#;
const PING: &str = r#""result":{}"#;
const UNKNOWN: &str = r#""error":{"code":-32601,"message":"Method not found"}"#;

fn main() -> io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:0".to_owned());
    let listener = TcpListener::bind(address)?;
    let hangs = std::env::args().nth(2).is_some_and(|word| word == "hang");
    println!("{}", listener.local_addr()?);
    for stream in listener.incoming() {
        let stream = stream?;
        // A connection that breaks off is the other side's affair; the next one is served.
        thread::Builder::new().spawn(move || serve(stream, hangs).ok())?;
    }
    Ok(())
}

/// Answers one request after the other until the client closes the connection.
fn serve(mut stream: TcpStream, hangs: bool) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut received = Vec::with_capacity(8 * 1024);
    let mut piece = [0; 8 * 1024];
    let mut answer = Vec::with_capacity(1024);
    loop {
        while let Some(request) = Request::parse(&received) {
            if hangs && request.body.contains("\"tools/call\"") {
                // Until the other side goes.
                while stream.read(&mut piece)? > 0 {}
                return Ok(());
            }
            answer.clear();
            request.answer(&mut answer)?;
            stream.write_all(&answer)?;
            let end = request.end;
            received.drain(..end);
        }
        let n = stream.read(&mut piece)?;
        if n == 0 || received.len() > REQUEST_BYTES_MAX {
            return Ok(());
        }
        received.extend_from_slice(piece.get(..n).unwrap_or_default());
    }
}

/// A whole request at the beginning of what was received.
struct Request<'a> {
    head: &'a str,
    body: &'a str,
    /// Where the next one begins.
    end: usize,
}

impl<'a> Request<'a> {
    fn parse(received: &'a [u8]) -> Option<Request<'a>> {
        let head_end = received.windows(4).position(|w| w == b"\r\n\r\n")? + 4;
        let head = std::str::from_utf8(received.get(..head_end)?).ok()?;
        let length = head
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
            .map_or(Some(0), |(_, value)| value.trim().parse::<usize>().ok())?;
        let end = head_end.checked_add(length)?;
        let body = std::str::from_utf8(received.get(head_end..end)?).ok()?;
        Some(Request { head, body, end })
    }

    fn answer(&self, out: &mut Vec<u8>) -> io::Result<()> {
        if self.head.starts_with("GET ") {
            return write!(
                out,
                "HTTP/1.1 405 Method Not Allowed\r\nAllow: POST, DELETE\r\nContent-Length: 0\r\n\r\n"
            );
        }
        if self.head.starts_with("DELETE ") {
            return write!(out, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        }
        let method = after(self.body, "\"method\":").and_then(|rest| rest.split('"').nth(1));
        let method = method.unwrap_or_default();
        if method.starts_with("notifications/") {
            return write!(out, "HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n");
        }
        let (status, header, outcome) = match method {
            "initialize" => ("200 OK", SESSION, INITIALIZE),
            "tools/list" => ("200 OK", "", TOOLS_LIST),
            "tools/call" => ("200 OK", "", TOOLS_CALL),
            "ping" => ("200 OK", "", PING),
            // What a server of the handshake's revisions says to a client that probes for newer ones.
            _ => ("400 Bad Request", "", UNKNOWN),
        };
        let id = id_of(self.body);
        // {"jsonrpc":"2.0","id":ID,OUTCOME}
        let length = r#"{"jsonrpc":"2.0","id":,}"#.len() + id.len() + outcome.len();
        write!(
            out,
            "HTTP/1.1 {status}\r\nContent-Type: application/json\r\n{header}Content-Length: {length}\r\n\r\n\
             {{\"jsonrpc\":\"2.0\",\"id\":{id},{outcome}}}"
        )
    }
}

/// The id as it was written, a number or a string.
fn id_of(body: &str) -> &str {
    let Some(rest) = after(body, "\"id\":") else { return "null" };
    let rest = rest.trim_start();
    let end = match rest.strip_prefix('"') {
        Some(text) => text.find('"').map(|at| at + 2),
        None => rest.find([',', '}', ' ']),
    };
    end.and_then(|end| rest.get(..end)).unwrap_or("null")
}

fn after<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.find(key).and_then(|at| text.get(at + key.len()..))
}
