//! HTTP/1.1 by hand over a plain socket, so that a test can send what no decent client would,
//! hang up in the middle, and see an answer byte by byte. Every read has a deadline.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::DEADLINE;
use super::events::{EventStream, Events};

/// What is sent.
#[derive(Debug, Clone)]
pub struct Request {
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    body: Option<Vec<u8>>,
    has_host: bool,
}

impl Request {
    pub fn new(method: &str, target: &str) -> Request {
        Request {
            method: method.to_owned(),
            target: target.to_owned(),
            headers: Vec::new(),
            body: None,
            has_host: true,
        }
    }

    pub fn get(target: &str) -> Request {
        Request::new("GET", target)
    }

    /// A POST of JSON with the right content type.
    pub fn post(target: &str, body: &Value) -> Request {
        Request::post_text(target, &body.to_string())
    }

    /// A POST of any text that is declared as JSON.
    pub fn post_text(target: &str, body: &str) -> Request {
        Request::new("POST", target).header("Content-Type", "application/json").body(body)
    }

    pub fn header(mut self, name: &str, value: &str) -> Request {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn headers(mut self, headers: &[(String, String)]) -> Request {
        self.headers.extend_from_slice(headers);
        self
    }

    pub fn body(mut self, body: &str) -> Request {
        self.body = Some(body.as_bytes().to_owned());
        self
    }

    /// Replaces the `Host` that the client would send by itself.
    pub fn host(mut self, host: &str) -> Request {
        self.has_host = false;
        self.header("Host", host)
    }

    pub fn to_bytes(&self, address: &str) -> Vec<u8> {
        let mut head = format!("{} {} HTTP/1.1\r\n", self.method, self.target);
        if self.has_host {
            head.push_str(&format!("Host: {address}\r\n"));
        }
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if let Some(body) = &self.body {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(self.body.as_deref().unwrap_or_default());
        bytes
    }
}

/// The first line and the header fields of a message.
#[derive(Debug, Clone, Default)]
pub struct Head {
    pub start_line: String,
    pub headers: Vec<(String, String)>,
}

impl Head {
    /// The value of the first field of that name.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut fields = self.headers.iter();
        fields.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// The status of a response.
    pub fn status(&self) -> u16 {
        let word = self.start_line.split(' ').nth(1).unwrap_or_default();
        word.parse().unwrap_or_else(|_| panic!("no status line: {:?}", self.start_line))
    }

    fn length(&self) -> Option<usize> {
        self.header("Content-Length").and_then(|text| text.trim().parse().ok())
    }

    fn is_chunked(&self) -> bool {
        self.header("Transfer-Encoding").is_some_and(|v| v.eq_ignore_ascii_case("chunked"))
    }

    /// How the body of a request with this head is framed.
    pub fn request_body(&self) -> Body {
        if self.is_chunked() {
            Body::Chunked(0)
        } else {
            Body::Length(self.length().unwrap_or(0))
        }
    }

    fn response_body(&self, method: &str) -> Body {
        let status = self.status();
        if method == "HEAD" || status == 204 || status == 304 || status < 200 {
            return Body::Length(0);
        }
        if self.is_chunked() {
            return Body::Chunked(0);
        }
        self.length().map_or(Body::UntilClose, Body::Length)
    }
}

/// What is still to come of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// So many bytes.
    Length(usize),
    /// So many bytes of the present chunk, then further chunks.
    Chunked(usize),
    /// Everything until the peer closes.
    UntilClose,
}

/// One end of a connection with what was read ahead.
#[derive(Debug)]
pub struct Wire {
    pub stream: TcpStream,
    buffer: Vec<u8>,
    at: usize,
}

impl Wire {
    pub fn new(stream: TcpStream) -> Wire {
        Wire { stream, buffer: Vec::new(), at: 0 }
    }

    fn ahead(&self) -> &[u8] {
        &self.buffer[self.at..]
    }

    /// Reads more; 0 is the end.
    fn fill(&mut self, deadline: Instant) -> io::Result<usize> {
        if self.at == self.buffer.len() {
            self.buffer.clear();
            self.at = 0;
        }
        let left = deadline.saturating_duration_since(Instant::now());
        self.stream.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
        let mut piece = [0; 64 * 1024];
        let n = loop {
            match self.stream.read(&mut piece) {
                // A read with a timeout is not begun again by itself after a signal.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
                read => break read?,
            }
        };
        self.buffer.extend_from_slice(&piece[..n]);
        Ok(n)
    }

    fn line(&mut self, deadline: Instant) -> io::Result<Option<String>> {
        let mut looked = 0;
        loop {
            if let Some(n) = self.ahead()[looked..].iter().position(|byte| *byte == b'\n') {
                let end = self.at + looked + n;
                let line = String::from_utf8_lossy(&self.buffer[self.at..end]);
                let line = line.trim_end_matches('\r').to_owned();
                self.at = end + 1;
                return Ok(Some(line));
            }
            looked = self.ahead().len();
            if self.fill(deadline)? == 0 {
                if looked == 0 {
                    return Ok(None);
                }
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// The next head, or nothing if the peer closed before it.
    pub fn head(&mut self, deadline: Instant) -> io::Result<Option<Head>> {
        let Some(start_line) = self.line(deadline)? else { return Ok(None) };
        let mut head = Head { start_line, headers: Vec::new() };
        loop {
            let line = self.line(deadline)?.ok_or(io::ErrorKind::UnexpectedEof)?;
            if line.is_empty() {
                return Ok(Some(head));
            }
            let (name, value) = line.split_once(':').unwrap_or((&line, ""));
            head.headers.push((name.to_owned(), value.trim().to_owned()));
        }
    }

    /// Some bytes of the body, or nothing at its end.
    pub fn piece(&mut self, body: &mut Body, deadline: Instant) -> io::Result<Option<Vec<u8>>> {
        if let Body::Chunked(0) = *body {
            let line = self.line(deadline)?.ok_or(io::ErrorKind::UnexpectedEof)?;
            let size = line.split(';').next().unwrap_or_default().trim();
            let n = usize::from_str_radix(size, 16).map_err(io::Error::other)?;
            if n == 0 {
                self.line(deadline)?;
                *body = Body::Length(0);
            } else {
                *body = Body::Chunked(n);
            }
        }
        let most = match *body {
            Body::Length(0) => return Ok(None),
            Body::Length(n) | Body::Chunked(n) => n,
            Body::UntilClose => usize::MAX,
        };
        if self.ahead().is_empty() && self.fill(deadline)? == 0 {
            if *body == Body::UntilClose {
                return Ok(None);
            }
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let n = most.min(self.ahead().len());
        let piece = self.ahead()[..n].to_owned();
        self.at += n;
        match body {
            Body::Length(left) => *left -= n,
            Body::Chunked(left) => {
                *left -= n;
                if *left == 0 {
                    self.line(deadline)?;
                }
            }
            Body::UntilClose => (),
        }
        Ok(Some(piece))
    }

    /// The rest of the body.
    pub fn whole(&mut self, mut body: Body, deadline: Instant) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        while let Some(piece) = self.piece(&mut body, deadline)? {
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes)
    }
}

/// A whole answer.
#[derive(Debug, Clone)]
pub struct Response {
    pub head: Head,
    pub body: Vec<u8>,
}

impl Response {
    pub fn status(&self) -> u16 {
        self.head.status()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.header(name)
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("no JSON ({error}): {self}"))
    }

    /// The JSON-RPC message that answers a POST, whether it came as JSON or as an event stream.
    #[track_caller]
    pub fn message(&self) -> Value {
        if !self.header("Content-Type").is_some_and(|v| v.starts_with("text/event-stream")) {
            return self.json();
        }
        let last = Events::all_of(&self.body).pop();
        last.unwrap_or_else(|| panic!("no event: {self}")).json()
    }

    #[track_caller]
    pub fn expect(self, status: u16) -> Response {
        assert_eq!(self.status(), status, "{self}");
        self
    }

    /// The REST error shape of the contract; gives the error object.
    #[track_caller]
    pub fn expect_error(self, status: u16) -> Value {
        let answer = self.expect(status);
        let body = answer.json();
        let error = &body["error"];
        assert!(error["code"].is_string(), "no error.code: {answer}");
        assert!(error["message"].as_str().is_some_and(|m| !m.is_empty()), "{answer}");
        let is_json =
            answer.header("Content-Type").is_some_and(|v| v.starts_with("application/json"));
        assert!(is_json, "an error must be JSON: {answer}");
        error.clone()
    }
}

impl std::fmt::Display for Response {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let body = String::from_utf8_lossy(&self.body);
        let cut: String = body.chars().take(2000).collect();
        write!(f, "{}\n{:?}\n{cut}", self.head.start_line, self.head.headers)
    }
}

/// A client's connection, kept alive as long as the test wants.
#[derive(Debug)]
pub struct Connection {
    wire: Wire,
    address: String,
    method: String,
}

impl Connection {
    #[track_caller]
    pub fn open(address: &str) -> Connection {
        Connection::try_open(address)
            .unwrap_or_else(|error| panic!("connect {address}: {error}"))
    }

    pub fn try_open(address: &str) -> io::Result<Connection> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(DEADLINE))?;
        Ok(Connection {
            wire: Wire::new(stream),
            address: address.to_owned(),
            method: String::new(),
        })
    }

    pub fn try_send(&mut self, request: &Request) -> io::Result<()> {
        request.method.clone_into(&mut self.method);
        self.wire.stream.write_all(&request.to_bytes(&self.address))
    }

    #[track_caller]
    pub fn send(&mut self, request: &Request) {
        self.try_send(request).unwrap();
    }

    /// Any bytes, well-formed or not.
    #[track_caller]
    pub fn send_bytes(&mut self, bytes: &[u8]) {
        self.wire.stream.write_all(bytes).unwrap();
    }

    pub fn try_head(&mut self, deadline: Instant) -> io::Result<Head> {
        loop {
            let head = self.wire.head(deadline)?.ok_or(io::ErrorKind::UnexpectedEof)?;
            if head.status() >= 200 {
                return Ok(head);
            }
        }
    }

    pub fn try_answer(&mut self) -> io::Result<Response> {
        let deadline = Instant::now() + DEADLINE;
        let head = self.try_head(deadline)?;
        let body = head.response_body(&self.method);
        let body = self.wire.whole(body, deadline)?;
        Ok(Response { head, body })
    }

    /// Waits for the whole answer.
    #[track_caller]
    pub fn answer(&mut self) -> Response {
        let method = self.method.clone();
        self.try_answer().unwrap_or_else(|error| panic!("no answer to {method}: {error}"))
    }

    #[track_caller]
    pub fn exchange(&mut self, request: &Request) -> Response {
        self.send(request);
        self.answer()
    }

    /// Reads the head of an event stream that the last request opened.
    #[track_caller]
    pub fn into_events(mut self) -> EventStream {
        let deadline = Instant::now() + DEADLINE;
        let head = self.try_head(deadline).unwrap_or_else(|error| panic!("no head: {error}"));
        let body = head.response_body(&self.method);
        EventStream::new(self.wire, body, head)
    }

    /// True if the peer closes before the deadline; bytes that still come are thrown away.
    pub fn is_closed_by_peer(&mut self, within: Duration) -> bool {
        let deadline = Instant::now() + within;
        loop {
            self.wire.at = self.wire.buffer.len();
            match self.wire.fill(deadline) {
                Ok(0) => return true,
                Ok(_) => (),
                Err(error) => return !is_timeout(&error),
            }
        }
    }

    /// Leaves without a word.
    pub fn hang_up(self) {
        drop(self.wire.stream.shutdown(Shutdown::Both));
    }
}

pub fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

/// One request on a connection of its own.
#[track_caller]
pub fn exchange(address: &str, request: &Request) -> Response {
    Connection::open(address).exchange(request)
}

/// [`exchange`] where no connection, or no whole answer, is an acceptable end.
pub fn try_exchange(address: &str, request: &Request) -> io::Result<Response> {
    let mut connection = Connection::try_open(address)?;
    connection.try_send(request)?;
    connection.try_answer()
}
