//! Pure: URLs of servers, authorization servers and their documents.

use std::fmt;
use std::net::IpAddr;

use iri_string::types::UriStr;

use super::unusable::{Unusable, shown};
use crate::limits::OAUTH_URL_BYTES_MAX;

/// An `http` or `https` URL with a host, without userinfo and fragment, kept as it was written.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct WebUrl {
    text: String,
    scheme: Scheme,
    /// In lower case; an IPv6 address is in brackets.
    host: String,
    port: u16,
    /// Where the path begins in `text`.
    path_at: usize,
    /// Where the path ends in `text`.
    path_end: usize,
}

/// The schemes of a [`WebUrl`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// Plain HTTP.
    Http,
    /// HTTP over TLS.
    Https,
}

impl Scheme {
    fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

impl WebUrl {
    /// Reads a URL.
    ///
    /// # Errors
    /// Says why the text is none: another scheme, no host, userinfo, a fragment, characters that
    /// RFC 3986 does not have, or more than [`OAUTH_URL_BYTES_MAX`] bytes.
    pub fn parse(text: &str) -> Result<WebUrl, Unusable> {
        if text.len() > OAUTH_URL_BYTES_MAX {
            return Err(Unusable::new(format!("a URL has over {OAUTH_URL_BYTES_MAX} bytes")));
        }
        let refuse = |what: &str| Unusable::new(format!("{} {what}", shown(text)));
        let uri = UriStr::new(text).map_err(|_| refuse("is no URL"))?;
        let scheme = match uri.scheme_str() {
            it if it.eq_ignore_ascii_case("https") => Scheme::Https,
            it if it.eq_ignore_ascii_case("http") => Scheme::Http,
            _ => return Err(refuse("has a scheme other than http and https")),
        };
        let authority = uri.authority_components().ok_or_else(|| refuse("has no host"))?;
        if authority.userinfo().is_some() {
            // The text is not shown: userinfo is often a password.
            return Err(Unusable::new("a URL has a user name or password before its host"));
        }
        if uri.fragment().is_some() {
            return Err(refuse("has a fragment"));
        }
        let host = authority.host().to_ascii_lowercase();
        if !is_host(&host) {
            return Err(refuse("has a host that is neither a name nor an address"));
        }
        let port = match authority.port() {
            None | Some("") => scheme.default_port(),
            Some(digits) => digits.parse().map_err(|_| refuse("has an impossible port"))?,
        };
        let n_authority = uri.authority_str().map_or(0, str::len);
        let before_path = uri.scheme_str().len() + "://".len() + n_authority;
        Ok(WebUrl {
            path_at: before_path,
            path_end: before_path + uri.path_str().len(),
            text: text.to_owned(),
            scheme,
            host,
            port,
        })
    }

    /// The URL as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The scheme.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The host in lower case; an IPv6 address is in brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port, the scheme's own where none is written.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The path, which is empty or begins with `/`.
    pub fn path(&self) -> &str {
        self.text.get(self.path_at..self.path_end).unwrap_or_default()
    }

    /// The query without its `?`.
    pub fn query(&self) -> Option<&str> {
        self.text.get(self.path_end..)?.strip_prefix('?')
    }

    /// The same URL without its query.
    #[must_use]
    pub fn without_query(&self) -> WebUrl {
        let text = self.text.get(..self.path_end).unwrap_or_default().to_owned();
        WebUrl { text, ..self.clone() }
    }

    /// Scheme, host and port, in lower case and without a port that is the scheme's own.
    pub fn origin(&self) -> String {
        let (scheme, host) = (self.scheme.as_str(), &self.host);
        if self.port == self.scheme.default_port() {
            format!("{scheme}://{host}")
        } else {
            format!("{scheme}://{host}:{}", self.port)
        }
    }

    /// This origin with another path and no query. `path` is empty or begins with `/`.
    #[must_use]
    pub fn with_path(&self, path: &str) -> WebUrl {
        let origin = self.origin();
        let text = format!("{origin}{path}");
        WebUrl { path_at: origin.len(), path_end: text.len(), text, ..self.clone() }
    }

    /// True if both have the same scheme, host and port.
    pub fn has_origin_of(&self, other: &WebUrl) -> bool {
        self.scheme == other.scheme && self.host == other.host && self.port == other.port
    }

    /// The host as an address, if it is one.
    pub fn address(&self) -> Option<IpAddr> {
        self.host.trim_start_matches('[').trim_end_matches(']').parse().ok()
    }

    /// True if the host is this machine by its form: a loopback address, `localhost`, or a name
    /// below it (RFC 6761 section 6.3).
    pub fn is_loopback(&self) -> bool {
        let name = self.host.trim_end_matches('.');
        let is_name = name == "localhost" || name.ends_with(".localhost");
        is_name || self.address().is_some_and(|address| address.to_canonical().is_loopback())
    }

    /// True for `https`, and for `http` to this machine: what OAuth 2.1 section 1.5 allows where
    /// secrets travel.
    pub fn is_secure(&self) -> bool {
        self.scheme == Scheme::Https || self.is_loopback()
    }
}

/// True for a name of letters, digits, `-`, `_` and `.`, and for an address in brackets.
fn is_host(host: &str) -> bool {
    if let Some(address) = host.strip_prefix('[') {
        let address = address.strip_suffix(']').map(str::parse::<std::net::Ipv6Addr>);
        return matches!(address, Some(Ok(_)));
    }
    let is_name_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    !host.is_empty() && host.bytes().all(is_name_byte)
}

impl fmt::Display for WebUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
