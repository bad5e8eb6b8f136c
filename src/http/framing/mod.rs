//! Pure: the rules for an acceptable head, and the framing of its body.
//!
//! The rules are stricter than RFC 9112, because a text that two readers understand differently
//! is how one request is smuggled inside another. `httparse` splits the lines; every other rule
//! is here.

use super::bound::Bound;
use super::{Head, Headers, Peer};
use crate::limits::Limits;

/// The reason why a request is not served, and the text for its client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: u16,
    pub(crate) reason: &'static str,
    /// The bound that was reached, if that is the reason.
    pub(crate) bound: Option<Bound>,
}

impl Refusal {
    /// The text for the client, with the name of the bound.
    pub(crate) fn told(&self, limits: &Limits) -> String {
        match self.bound {
            Some(bound) => bound.told(self.reason, limits),
            None => self.reason.to_owned(),
        }
    }
}

/// A refusal; for use with `?` and `Err`.
pub(crate) const fn refuse(status: u16, reason: &'static str) -> Refusal {
    Refusal { status, reason, bound: None }
}

/// A refusal because a bound was reached.
pub(crate) const fn over(bound: Bound, status: u16, reason: &'static str) -> Refusal {
    Refusal { status, reason, bound: Some(bound) }
}

/// A refusal of a head, with the head itself where all of it could be read.
#[derive(Debug)]
pub(crate) struct Rejected {
    pub(crate) refusal: Refusal,
    pub(crate) head: Option<Box<Head>>,
}

impl From<Refusal> for Rejected {
    fn from(refusal: Refusal) -> Rejected {
        Rejected { refusal, head: None }
    }
}

/// Empty lines tolerated in front of a request, for clients that end a body with one too many.
const EMPTY_LINES_MAX: usize = 2;
/// Fields parsed without an allocation; browsers send about twenty.
const FIELDS_USUAL: usize = 48;
/// Digits of a length; a length with more is over any bound.
const LENGTH_DIGITS_MAX: usize = 18;

/// Finds the end of a head in bytes that arrive in pieces, and refuses the first byte that no
/// head may have.
#[derive(Debug, Default)]
pub(crate) struct HeadScan {
    /// The position of the head, behind empty lines.
    start: usize,
    seen: usize,
    line_start: usize,
    previous: u8,
}

impl HeadScan {
    /// Searches `bytes`: the bytes of the last call, and more. Returns the head's begin and end.
    pub(crate) fn find(
        &mut self,
        bytes: &[u8],
        bytes_max: usize,
    ) -> Result<Option<(usize, usize)>, Refusal> {
        let new = bytes.get(self.seen..).unwrap_or(&[]);
        for (at, &byte) in (self.seen..).zip(new) {
            self.check(at, byte)?;
            if byte == b'\n' {
                let empty = at == self.line_start + 1;
                self.line_start = at + 1;
                if empty && self.start + 1 == at {
                    self.start = at + 1;
                    if self.start > 2 * EMPTY_LINES_MAX {
                        return Err(refuse(400, "empty lines before the request"));
                    }
                } else if empty {
                    let long = at + 1 - self.start > bytes_max;
                    return if long { Err(TOO_LONG) } else { Ok(Some((self.start, at + 1))) };
                }
            }
            self.previous = byte;
        }
        self.seen = bytes.len();
        if bytes.len() - self.start > bytes_max { Err(TOO_LONG) } else { Ok(None) }
    }

    fn check(&self, at: usize, byte: u8) -> Result<(), Refusal> {
        match byte {
            b'\n' if self.previous != b'\r' => {
                Err(refuse(400, "a line that ends in a bare LF"))
            }
            b'\n' => Ok(()),
            _ if self.previous == b'\r' => Err(refuse(400, "a bare CR in the head")),
            b'\r' => Ok(()),
            // TLS, other protocols and leading white space are recognized by their first byte.
            _ if at == self.start && !byte.is_ascii_alphabetic() => {
                Err(refuse(400, "not an HTTP request"))
            }
            b' ' | b'\t' if at == self.line_start => Err(refuse(400, "a folded header line")),
            b'\t' | b' '..=b'~' | 0x80.. => Ok(()),
            _ => Err(refuse(400, "a control character in the head")),
        }
    }
}

const TOO_LONG: Refusal = over(Bound::HeadBytes, 431, "the head is too long");
const TOO_MANY_FIELDS: Refusal = over(Bound::Headers, 431, "too many header fields");
/// The refusal of a body that is over its bound.
pub(crate) const BODY_TOO_LONG: Refusal = over(Bound::BodyBytes, 413, "the body is too long");

/// How a body is delimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodyFraming {
    /// There is no body.
    Empty,
    /// The body has this many bytes, at least one.
    Length(usize),
    /// The body is chunked.
    Chunked,
}

/// The properties of a request to which the answer must keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Manner {
    /// The request was HEAD: the answer has no body.
    pub(crate) head_only: bool,
    /// The client speaks HTTP/1.0: the answer has no chunks, and announces a connection that
    /// stays open.
    pub(crate) http10: bool,
    /// The client wants to send another request.
    pub(crate) keep_alive: bool,
}

/// An acceptable head.
#[derive(Debug)]
pub(crate) struct Parsed {
    pub(crate) head: Head,
    pub(crate) body: BodyFraming,
    pub(crate) manner: Manner,
    /// The client waits for `100 Continue` before it sends the body.
    pub(crate) expects_continue: bool,
}

/// Reads a whole head, from the method to the empty line.
pub(crate) fn parse(raw: &[u8], limits: &Limits, peer: Peer) -> Result<Parsed, Rejected> {
    let mut usual = [httparse::EMPTY_HEADER; FIELDS_USUAL];
    let mut request = httparse::Request::new(&mut usual);
    match request.parse(raw) {
        Err(httparse::Error::TooManyHeaders) => {
            let mut many = vec![httparse::EMPTY_HEADER; limits.headers];
            let mut request = httparse::Request::new(&mut many);
            let status = request.parse(raw).map_err(|error| malformed(error, raw))?;
            accept(&request, status, raw.len(), limits, peer)
        }
        Err(error) => Err(malformed(error, raw).into()),
        Ok(status) => accept(&request, status, raw.len(), limits, peer),
    }
}

fn malformed(error: httparse::Error, raw: &[u8]) -> Refusal {
    match error {
        httparse::Error::TooManyHeaders => TOO_MANY_FIELDS,
        httparse::Error::Version if names_http(raw) => {
            refuse(505, "only HTTP/1.0 and HTTP/1.1 are served")
        }
        httparse::Error::Version => refuse(400, "a malformed request line"),
        httparse::Error::HeaderName | httparse::Error::NewLine => {
            refuse(400, "a malformed header name")
        }
        httparse::Error::HeaderValue => refuse(400, "a malformed header value"),
        httparse::Error::Status | httparse::Error::Token => {
            refuse(400, "a malformed request line")
        }
    }
}

/// True if the request line ends in a version of HTTP.
fn names_http(raw: &[u8]) -> bool {
    let line = raw.split(|&byte| byte == b'\r').next().unwrap_or(&[]);
    let version = line.rsplit(|&byte| byte == b' ').next().unwrap_or(&[]);
    version.strip_prefix(b"HTTP/").and_then(<[u8]>::first).is_some_and(u8::is_ascii_digit)
}

fn accept(
    request: &httparse::Request<'_, '_>,
    status: httparse::Status<usize>,
    bytes: usize,
    limits: &Limits,
    peer: Peer,
) -> Result<Parsed, Rejected> {
    let (httparse::Status::Complete(_), Some(method), Some(target), Some(minor)) =
        (status, request.method, request.path, request.version)
    else {
        return Err(refuse(400, "a malformed head").into());
    };
    if request.headers.len() > limits.headers {
        return Err(TOO_MANY_FIELDS.into());
    }
    let http10 = minor == 0;
    let mut headers = Headers::with_capacity(request.headers.len(), bytes);
    let mut rules = Rules { keep_alive: !http10, ..Rules::default() };
    for field in request.headers.iter() {
        let value = std::str::from_utf8(field.value)
            .map_err(|_| refuse(400, "a header value that is not UTF-8"))?
            .trim_matches([' ', '\t']);
        rules.read(field.name, value)?;
        headers.push(field.name, value);
    }
    let body = rules.body(http10, limits.body_bytes);
    let (path, query) = split_target(method, target, rules.check_host(http10)?)?;
    let manner = Manner { head_only: method == "HEAD", http10, keep_alive: rules.keep_alive };
    let expects_continue = rules.expects_continue && !http10;
    let head = Head { method: method.to_owned(), path, query, headers, peer };
    let body = match body {
        Ok(body) => body,
        Err(refusal) => return Err(Rejected { refusal, head: Some(Box::new(head)) }),
    };
    Ok(Parsed { head, body, manner, expects_continue })
}

/// The header fields that the engine itself obeys.
#[derive(Debug, Default)]
struct Rules<'a> {
    length: Option<u64>,
    chunked: bool,
    host: Option<&'a str>,
    expects_continue: bool,
    keep_alive: bool,
    /// The reason why no body is read, though the head can be.
    refused: Option<Refusal>,
}

impl<'a> Rules<'a> {
    fn read(&mut self, name: &str, value: &'a str) -> Result<(), Refusal> {
        // Lengths are compared first: most fields are none of these, and comparing names costs.
        match name.len() {
            14 if name.eq_ignore_ascii_case("content-length") => self.read_length(value),
            17 if name.eq_ignore_ascii_case("transfer-encoding") => self.read_coding(value),
            4 if name.eq_ignore_ascii_case("host") => match self.host.replace(value) {
                Some(_) => Err(refuse(400, "more than one Host")),
                None => Ok(()),
            },
            6 if name.eq_ignore_ascii_case("expect") => {
                self.expects_continue = true;
                if !value.eq_ignore_ascii_case("100-continue") {
                    self.refused = Some(refuse(417, "only 100-continue may be expected"));
                }
                Ok(())
            }
            10 if name.eq_ignore_ascii_case("connection") => {
                self.read_connection(value);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn read_length(&mut self, value: &str) -> Result<(), Refusal> {
        if self.length.is_some() {
            return Err(refuse(400, "more than one Content-Length"));
        }
        if value.is_empty() || !value.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(refuse(400, "a malformed Content-Length"));
        }
        if value.len() > LENGTH_DIGITS_MAX {
            self.refused = Some(BODY_TOO_LONG);
        }
        // A length with too many digits counts as the largest number: there is a length.
        self.length = Some(value.parse().unwrap_or(u64::MAX));
        Ok(())
    }

    fn read_coding(&mut self, value: &str) -> Result<(), Refusal> {
        if self.chunked {
            return Err(refuse(400, "more than one Transfer-Encoding"));
        }
        if !value.eq_ignore_ascii_case("chunked") {
            self.refused = Some(refuse(501, "the only transfer coding is chunked"));
        }
        self.chunked = true;
        Ok(())
    }

    fn read_connection(&mut self, value: &str) {
        for token in value.split(',') {
            let token = token.trim_matches([' ', '\t']);
            if token.eq_ignore_ascii_case("close") {
                self.keep_alive = false;
            } else if token.eq_ignore_ascii_case("keep-alive") {
                self.keep_alive = true;
            }
        }
    }

    fn body(&self, http10: bool, bytes_max: usize) -> Result<BodyFraming, Refusal> {
        if let Some(refused) = self.refused {
            return Err(refused);
        }
        match (self.chunked, self.length) {
            (true, Some(_)) => Err(refuse(400, "both Content-Length and Transfer-Encoding")),
            (true, None) if http10 => Err(refuse(400, "Transfer-Encoding in HTTP/1.0")),
            (true, None) => Ok(BodyFraming::Chunked),
            (false, None | Some(0)) => Ok(BodyFraming::Empty),
            (false, Some(length)) => usize::try_from(length)
                .ok()
                .filter(|&length| length <= bytes_max)
                .map(BodyFraming::Length)
                .ok_or(BODY_TOO_LONG),
        }
    }

    fn check_host(&self, http10: bool) -> Result<&'a str, Refusal> {
        let odd = |byte: u8| byte <= b' ' || byte >= 0x7f || b"/?#@\\,\"<>".contains(&byte);
        match self.host {
            None if http10 => Ok(""),
            None => Err(refuse(400, "no Host")),
            Some(host) if host.bytes().any(odd) => Err(refuse(400, "a malformed Host")),
            Some(host) => Ok(host),
        }
    }
}

/// Path and query of a target in origin form, in absolute form for this very host, or `*`.
fn split_target(
    method: &str,
    target: &str,
    host: &str,
) -> Result<(String, Option<String>), Refusal> {
    const MALFORMED: Refusal = refuse(400, "a malformed target");
    if target.bytes().any(|byte| !byte.is_ascii_graphic() || byte == b'#') {
        return Err(MALFORMED);
    }
    if target == "*" && method == "OPTIONS" {
        return Ok((target.to_owned(), None));
    }
    let scheme = target.get(..7).filter(|scheme| scheme.eq_ignore_ascii_case("http://"));
    let origin = match scheme.and_then(|scheme| target.get(scheme.len()..)) {
        Some(absolute) => {
            let end = absolute.find(['/', '?']).unwrap_or(absolute.len());
            let (authority, origin) = absolute.split_at(end);
            // A proxy that checks Host must not be evaded by a target that overrides it.
            if authority.is_empty() || !authority.eq_ignore_ascii_case(host) {
                return Err(refuse(400, "the target names another host than Host"));
            }
            origin
        }
        None if target.starts_with('/') => target,
        None => return Err(MALFORMED),
    };
    let (path, query) = match origin.split_once('?') {
        Some((path, query)) => (path, Some(query.to_owned())),
        None => (origin, None),
    };
    let path = if path.is_empty() { "/" } else { path };
    Ok((path.to_owned(), query))
}

#[cfg(test)]
mod tests;
