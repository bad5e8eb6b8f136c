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

    /// The same with a query.
    #[must_use]
    pub fn with_path_and_query(&self, path: &str, query: Option<&str>) -> WebUrl {
        let mut url = self.with_path(path);
        if let Some(query) = query {
            url.text.extend(["?", query]);
        }
        url
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_apart() {
        let url = WebUrl::parse("HTTPS://Host.Example:8443/a/b?c=d?e").unwrap();
        assert_eq!(url.as_str(), "HTTPS://Host.Example:8443/a/b?c=d?e");
        assert_eq!((url.host(), url.port(), url.path()), ("host.example", 8443, "/a/b"));
        assert_eq!(url.query(), Some("c=d?e"));
        assert_eq!(url.origin(), "https://host.example:8443");
        assert_eq!(url.without_query().as_str(), "HTTPS://Host.Example:8443/a/b");
        assert_eq!(url.without_query().query(), None);
        let other = url.with_path_and_query("/x", Some("y"));
        assert_eq!((other.as_str(), other.path()), ("https://host.example:8443/x?y", "/x"));
        let bare = WebUrl::parse("http://h").unwrap();
        assert_eq!((bare.port(), bare.path(), bare.query()), (80, "", None));
        assert_eq!(WebUrl::parse("http://h:80/x").unwrap().origin(), "http://h");
        let v6 = WebUrl::parse("http://[::1]:9/x").unwrap();
        assert_eq!((v6.host(), v6.port(), v6.is_loopback()), ("[::1]", 9, true));
    }

    #[test]
    fn what_is_no_url_of_a_server_is_refused() {
        for text in [
            "",
            "h",
            "//h/x",
            "/x",
            "ftp://h/",
            "javascript:alert(1)",
            "data:text/html,x",
            "file:///etc/passwd",
            "https:",
            "https:///x",
            "https://",
            "https://u@h/",
            "https://u:p@h/",
            "https://@h/",
            "https://h/#",
            "https://h/#x",
            "https://h:99999/",
            "https://h:x/",
            "https://h /",
            "https://h\\@evil/",
            "https://h/\r\nX: y",
            "https://é.example/",
            "https://%65vil.example/",
            "https://h,evil/",
            "https://[v1.x]/",
        ] {
            assert!(WebUrl::parse(text).is_err(), "{text}");
        }
        let secret = WebUrl::parse("https://user:sekrit@h/").unwrap_err();
        assert!(!secret.as_str().contains("sekrit"));
        let long = format!("https://h/{}", "x".repeat(OAUTH_URL_BYTES_MAX));
        assert!(WebUrl::parse(&long).is_err());
    }

    #[test]
    fn secrets_go_over_tls_or_to_this_machine() {
        for (text, secure) in [
            ("https://h", true),
            ("http://h", false),
            ("http://localhost:1", true),
            ("http://a.localhost", true),
            ("http://localhost.evil.example", false),
            ("http://127.0.0.1:1", true),
            ("http://127.8.0.1", true),
            ("http://[::1]", true),
            ("http://[::ffff:127.0.0.1]", true),
            ("http://10.0.0.1", false),
            ("http://127.1", false),
            ("http://127.0.0.1.evil.example", false),
        ] {
            assert_eq!(WebUrl::parse(text).unwrap().is_secure(), secure, "{text}");
        }
    }
}
