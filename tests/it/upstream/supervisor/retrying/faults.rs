//! Every kind of failure that an answer over HTTP can be.

use std::io::{self, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use crate::support::listener::Next;
use crate::support::upstream_http::{begin_stream, respond, write_event};
use crate::upstream::speech::{error_text, hang, result_text};

/// The connection on which a faulty answer is due.
pub(super) struct Peer<'a> {
    /// The request's id, a JSON text.
    pub(super) id: String,
    /// The member of the result that is a list.
    pub(super) key: &'static str,
    pub(super) out: &'a mut TcpStream,
    /// Where the answer is due over HTTP+SSE.
    pub(super) stream: Option<TcpStream>,
}

/// Whether what was asked for by GET, or by `subscriptions/listen`, is asked for again: a server
/// may have no such stream, and says so in one way or another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    Again,
    /// Of a GET it means that there is no stream.
    NoStream,
    /// Nothing says that there will be none.
    Waits,
}

/// One kind of failure.
#[derive(Clone, Copy)]
pub(super) struct Fault {
    pub(super) name: &'static str,
    /// What becomes of a stream that was answered so.
    pub(super) stream: Asked,
    pub(super) does: fn(&mut Peer<'_>) -> io::Result<Next>,
}

impl Fault {
    /// Whether only what should hold a list is wrong so.
    pub(super) fn is_of_lists(&self) -> bool {
        ["null_list", "no_list", "numeric_cursor"].contains(&self.name)
    }
}

/// Nothing hangs for longer than any test.
const PATIENCE: Duration = Duration::from_secs(40);
const JSON: (&str, &str) = ("Content-Type", "application/json");

impl Peer<'_> {
    /// An answer as it is due, with that text.
    fn deliver(&mut self, text: &str) -> io::Result<Next> {
        match &mut self.stream {
            Some(stream) => {
                write_event(stream, "message", text)?;
                respond(self.out, "202 Accepted", &[], "")
            }
            None => respond(self.out, "200 OK", &[JSON], text),
        }
    }

    fn result(&mut self, result: &str) -> io::Result<Next> {
        let text = result_text(&self.id, result);
        self.deliver(&text)
    }

    fn error(&mut self, code: i64) -> io::Result<Next> {
        let text = error_text(&self.id, code, "not now");
        self.deliver(&text)
    }

    fn asks_for_time(&mut self, status: &str) -> io::Result<Next> {
        respond(self.out, status, &[("Retry-After", ASKED_S)], "later")
    }

    fn status(&mut self, status: &str) -> io::Result<Next> {
        respond(self.out, status, &[("Content-Type", "text/plain")], "go away")
    }

    /// What a list of two pages is without its second one.
    fn well(&self) -> String {
        format!(r#"{{"resultType":"complete","{}":[]}}"#, self.key)
    }
}

macro_rules! fault {
    ($name:literal, $stream:ident, $does:expr) => {
        Fault { name: $name, stream: Asked::$stream, does: $does }
    };
}

/// What those ask for that say when they are to be asked again.
pub(super) const ASKED_S: &str = "5";
pub(super) const ASKED: Duration = Duration::from_secs(5);

/// Failures that say for how long the server wants to be left alone.
pub(super) const ASKING_FOR_TIME: [Fault; 2] = [
    fault!("says_429_for_5_s", Again, |peer| peer.asks_for_time("429 Too Many Requests")),
    fault!("says_503_for_5_s", Again, |peer| peer.asks_for_time("503 Service Unavailable")),
];

/// The table's columns.
pub(super) const FAULTS: &[Fault] = &[
    // Of the connection.
    fault!("resets", Again, |peer| {
        rustix::net::connect_unspec(&*peer.out)?;
        Ok(Next::Close)
    }),
    fault!("closes", Again, |_| Ok(Next::Close)),
    fault!("hangs", Waits, |peer| { hang(peer.out, Some(PATIENCE)) }),
    fault!("cut_in_body", NoStream, |peer| {
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n";
        peer.out.write_all(format!("{head}Content-Length: 100\r\n\r\n{{").as_bytes())?;
        Ok(Next::Close)
    }),
    fault!("stream_ends", Again, |peer| {
        begin_stream(peer.out, &[])?;
        peer.out.write_all(b"0\r\n\r\n")?;
        Ok(Next::Keep)
    }),
    // Of HTTP.
    fault!("says_401", NoStream, |peer| peer.status("401 Unauthorized")),
    fault!("says_403", NoStream, |peer| peer.status("403 Forbidden")),
    fault!("says_404", NoStream, |peer| peer.status("404 Not Found")),
    fault!("says_405", NoStream, |peer| peer.status("405 Method Not Allowed")),
    fault!("says_429", Again, |peer| peer.status("429 Too Many Requests")),
    fault!("says_500", Again, |peer| peer.status("500 Internal Server Error")),
    fault!("says_503", Again, |peer| peer.status("503 Service Unavailable")),
    fault!("redirects", NoStream, |peer| {
        respond(peer.out, "302 Found", &[("Location", "http://127.0.0.1:9/")], "")
    }),
    fault!("accepts", NoStream, |peer| respond(peer.out, "202 Accepted", &[], "")),
    // Of what stands in the body.
    fault!("html", NoStream, |peer| {
        respond(peer.out, "200 OK", &[("Content-Type", "text/html")], "<h1>Hello</h1>")
    }),
    fault!("no_type", NoStream, |peer| respond(peer.out, "200 OK", &[], "{}")),
    fault!("gzip", NoStream, |peer| {
        peer.out.write_all(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Encoding: gzip\r\n\
              Content-Length: 10\r\n\r\n\x1f\x8b\x08\0\0\0\0\0\0\x03",
        )?;
        Ok(Next::Keep)
    }),
    // Of JSON-RPC.
    fault!("wrong_id", NoStream, |peer| {
        peer.id = "987654321".to_owned();
        let well = peer.well();
        peer.result(&well)
    }),
    fault!("null_error", NoStream, |peer| {
        let (id, well) = (peer.id.clone(), peer.well());
        let text = format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{well},"error":null}}"#);
        peer.deliver(&text)
    }),
    fault!("refuses", NoStream, |peer| peer.error(-32603)),
    fault!("unknown_method", NoStream, |peer| peer.error(-32601)),
    // Of MCP.
    fault!("no_object", NoStream, |peer| peer.result("[]")),
    fault!("null_list", NoStream, |peer| {
        let result = format!(r#"{{"resultType":"complete","{}":null}}"#, peer.key);
        peer.result(&result)
    }),
    fault!("no_list", NoStream, |peer| peer.result(r#"{"resultType":"complete"}"#)),
    fault!("numeric_cursor", NoStream, |peer| {
        let result = format!(r#"{{"resultType":"complete","{}":[],"nextCursor":7}}"#, peer.key);
        peer.result(&result)
    }),
];
