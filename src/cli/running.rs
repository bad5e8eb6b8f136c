//! One request to a running gateway: to the operator's endpoints, by plain HTTP on the address
//! that the gateway listens on.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde_json::Value;

use super::command::At;
use super::schema::member;
use super::{KEY_VARIABLE, complain, refused, shown, usage};
use crate::config::{Config, Listen};
use crate::limits::{OPERATOR_ANSWER_BYTES_MAX, OPERATOR_CONNECT_TIMEOUT};

/// HTTP's status for a path that is not served (RFC 9110, 15.5.5).
pub(super) const NOT_FOUND: u16 = 404;

/// HTTP's status for a request without a valid key (RFC 9110, 15.5.2).
const UNAUTHORIZED: u16 = 401;

/// A gateway's address.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Running {
    target: Target,
    /// The source of the address.
    source: AddressSource,
    /// The value of the request's `Host`.
    host: String,
    /// The text before the path.
    prefix: String,
}

#[derive(Debug, PartialEq, Eq)]
enum Target {
    Tcp(String),
    Unix(std::path::PathBuf),
}

/// The source of a gateway's address.
#[derive(Debug, PartialEq, Eq)]
enum AddressSource {
    /// The file: the gateway may have been started with another address, by `--listen`, or by a
    /// socket unit.
    File,
    CommandLine,
}

/// The reason why there is no answer.
#[derive(Debug)]
pub(super) enum Unanswered {
    /// No program listens there.
    Unreached(String),
    /// A program listens there, and gives no answer, or none that a gateway gives.
    Other(String),
}

impl fmt::Display for Unanswered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreached(what) | Self::Other(what) => f.write_str(what),
        }
    }
}

/// The gateway's answer.
#[derive(Debug)]
pub(super) struct Said {
    pub(super) status: u16,
    pub(super) body: Value,
}

impl Said {
    /// True if the gateway did what the request asked for.
    pub(super) fn is_fine(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// True if the gateway serves nothing at the requested path.
    pub(super) fn is_not_there(&self) -> bool {
        self.status == NOT_FOUND
    }

    /// The refusal, in the gateway's own words.
    pub(super) fn refusal(&self) -> String {
        let error = member(&self.body, "error");
        match error["message"].as_str() {
            Some(message) if self.status == UNAUTHORIZED => {
                format!("{} What is sent is ${KEY_VARIABLE}.", shown(message))
            }
            Some(message) => shown(message),
            None => format!("it answered with the status {}", self.status),
        }
    }
}

impl Running {
    /// The addresses of a configuration's gateway that serve a request, or of the gateway at a
    /// URL. Other values of the file may be invalid: it may have been edited since the gateway
    /// read it, and its variables may be set for the gateway alone.
    ///
    /// # Errors
    /// The exit code.
    pub(super) fn find(at: &At, served: ServedAt) -> Result<Vec<Running>, u8> {
        let path = match at {
            At::Url(url) => {
                return Running::at(url).map(|it| vec![it]).map_err(|what| usage(&what));
            }
            At::Config(path) => path,
        };
        let found = Config::addresses(path).map_err(|problem| refused(path, &[problem]))?;
        let admin = found.admin_listen.filter(|_| served == ServedAt::BothListeners);
        let listen = match (found.listen, &admin) {
            (Ok(listen), _) => Some(listen),
            (Err(_), Some(_)) => None,
            (Err(problem), None) => {
                let code = refused(path, &[problem]);
                complain("trunkline: --url http://HOST:PORT names the address of the gateway");
                return Err(code);
            }
        };
        Ok(listen.iter().chain(&admin).map(Running::listening_on).collect())
    }

    fn listening_on(listen: &Listen) -> Running {
        let (target, host) = match listen {
            Listen::Unix(path) => (Target::Unix(path.clone()), "localhost".to_owned()),
            Listen::Tcp(address) => {
                // The unspecified address is reached by this machine's own.
                let ip = match address.ip() {
                    IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
                    IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
                    ip @ (IpAddr::V4(_) | IpAddr::V6(_)) => ip,
                };
                let text = SocketAddr::new(ip, address.port()).to_string();
                (Target::Tcp(text.clone()), text)
            }
        };
        Running { target, source: AddressSource::File, host, prefix: String::new() }
    }

    fn at(url: &str) -> Result<Running, String> {
        let rest = url.strip_prefix("http://").ok_or_else(|| {
            format!("--url {url}: it must begin with http://: ask the gateway itself, on the address that it listens on")
        })?;
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        let has_port =
            host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let address = if has_port { host.to_owned() } else { format!("{host}:80") };
        // People have the clients' endpoint at hand.
        let path = path.trim_end_matches('/');
        let path = path
            .strip_suffix("mcp")
            .filter(|it| it.is_empty() || it.ends_with('/'))
            .unwrap_or(path);
        let path = path.trim_end_matches('/');
        let prefix = if path.is_empty() { String::new() } else { format!("/{path}") };
        let (target, source) = (Target::Tcp(address), AddressSource::CommandLine);
        Ok(Running { target, source, host: host.to_owned(), prefix })
    }

    /// The address, for people.
    pub(super) fn place(&self) -> String {
        match &self.target {
            Target::Tcp(address) => address.clone(),
            Target::Unix(path) => format!("unix:{}", path.display()),
        }
    }

    /// Sends a request, with the key of the environment.
    ///
    /// # Errors
    /// The gateway cannot be reached, or answers nonsense; the text says which.
    pub(super) fn ask(
        &self,
        method: &str,
        path: &str,
        patience: Duration,
    ) -> Result<Said, Unanswered> {
        self.ask_with(method, path, None, patience)
    }

    /// As [`Running::ask`], with a body.
    ///
    /// # Errors
    /// As [`Running::ask`].
    pub(super) fn ask_with(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
        patience: Duration,
    ) -> Result<Said, Unanswered> {
        let key =
            own_key().map(|key| format!("Authorization: Bearer {key}\r\n")).unwrap_or_default();
        if key.contains(['\r', '\n']) && key.matches("\r\n").count() > 1 {
            return Err(Unanswered::Other(format!("${KEY_VARIABLE} is no key")));
        }
        let (prefix, host) = (&self.prefix, &self.host);
        // With HTTP/1.0 the answer is not chunked.
        let (kind, body) = match body {
            Some(body) => ("Content-Type: application/json\r\n", body.to_string()),
            None => ("", String::new()),
        };
        let head = format!(
            "{method} {prefix}{path} HTTP/1.0\r\nHost: {host}\r\n{key}{kind}Content-Length: \
             {}\r\n\r\n{body}",
            body.len()
        );
        let stream = self.connect().map_err(|error| self.unreached(&error))?;
        let answer = stream.exchange(head.as_bytes(), patience);
        let answer =
            answer.map_err(|error| Unanswered::Other(format!("{}: {error}", self.place())))?;
        let is_none = || format!("{}: no gateway answers there", self.place());
        read(&answer).ok_or_else(|| Unanswered::Other(is_none()))
    }

    fn unreached(&self, error: &io::Error) -> Unanswered {
        let place = self.place();
        Unanswered::Unreached(match self.source {
            AddressSource::File => format!(
                "{place}: {error}; that is the address in the configuration: if the gateway \
                 listens elsewhere, --url http://HOST:PORT names it"
            ),
            AddressSource::CommandLine => format!("{place}: {error}"),
        })
    }

    fn connect(&self) -> io::Result<Stream> {
        match &self.target {
            Target::Unix(path) => UnixStream::connect(path).map(Stream::Unix),
            Target::Tcp(address) => {
                let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
                for address in address.to_socket_addrs()? {
                    match TcpStream::connect_timeout(&address, OPERATOR_CONNECT_TIMEOUT) {
                        Ok(stream) => return Ok(Stream::Tcp(stream)),
                        Err(error) => last = error,
                    }
                }
                Err(last)
            }
        }
    }
}

/// The listeners that serve a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ServedAt {
    /// The listener of `listen` alone.
    MainListener,
    /// The listener of `admin_listen`, too.
    BothListeners,
}

/// The key in the environment.
pub(super) fn own_key() -> Option<String> {
    std::env::var(KEY_VARIABLE).ok().filter(|key| !key.is_empty())
}

/// A connection.
#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    fn exchange(self, request: &[u8], patience: Duration) -> io::Result<Vec<u8>> {
        match self {
            Self::Tcp(stream) => {
                stream.set_read_timeout(Some(patience))?;
                answer(stream, request)
            }
            Self::Unix(stream) => {
                stream.set_read_timeout(Some(patience))?;
                answer(stream, request)
            }
        }
    }
}

fn answer(mut stream: impl Read + Write, request: &[u8]) -> io::Result<Vec<u8>> {
    stream.write_all(request)?;
    let mut answer = Vec::new();
    stream.take(OPERATOR_ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
    Ok(answer)
}

/// Parses an answer: `HTTP/1.1 200 OK`, the head, the body.
fn read(answer: &[u8]) -> Option<Said> {
    let text = std::str::from_utf8(answer).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
    Some(Said { status, body: serde_json::from_str(body).unwrap_or_default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_is_found_by_what_people_have_at_hand() {
        for (url, host, prefix) in [
            ("http://h:1", "h:1", ""),
            ("http://h:1/mcp", "h:1", ""),
            ("http://h:1/trunk/mcp/", "h:1", "/trunk"),
            ("http://h:1/trunk", "h:1", "/trunk"),
        ] {
            let found = Running::at(url).unwrap();
            assert_eq!((found.host.as_str(), found.prefix.as_str()), (host, prefix), "{url}");
        }
        assert_eq!(Running::at("http://h").unwrap().place(), "h:80");
        assert!(Running::at("https://h").is_err());
        let all = Running::listening_on(&Listen::parse("0.0.0.0:4000").unwrap());
        assert_eq!(all.place(), "127.0.0.1:4000");
        let six = Running::listening_on(&Listen::parse("[::]:4000").unwrap());
        assert_eq!(six.place(), "[::1]:4000");
        let unix = Running::listening_on(&Listen::parse("unix:/run/x").unwrap());
        assert_eq!(unix.place(), "unix:/run/x");
    }

    #[test]
    fn an_answer_is_read_and_nonsense_is_none() {
        let said = read(b"HTTP/1.1 200 OK\r\na: b\r\n\r\n{\"a\":1}").unwrap();
        assert!(said.is_fine() && said.body["a"] == 1);
        assert!(read(b"").is_none() && read(b"SSH-2.0\r\n\r\n").is_none());
    }
}
