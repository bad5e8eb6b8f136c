//! Pure: the address by which clients and browsers reach the gateway, split into host and path.

use crate::config::syntax;

/// `scheme://host[:port][/path]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicUrl {
    url: String,
    path_at: usize,
}

impl PublicUrl {
    /// Reads a URL, and drops a slash at its end.
    ///
    /// # Errors
    /// The reason why the text is no such URL.
    pub(crate) fn parse(text: &str) -> Result<PublicUrl, String> {
        syntax::url(text, &["http://", "https://"], syntax::Userinfo::Refused)?;
        if text.contains('?') {
            return Err("must not have a query".to_owned());
        }
        let url = text.trim_end_matches('/').to_owned();
        let authority_at = url.find("://").map_or(0, |at| at + 3);
        let behind = url.get(authority_at..).unwrap_or_default();
        let path_at = behind.find('/').map_or(url.len(), |at| authority_at + at);
        Ok(PublicUrl { url, path_at })
    }

    /// The whole URL, without a slash at its end.
    pub fn as_str(&self) -> &str {
        &self.url
    }

    /// Host and port.
    pub fn authority(&self) -> &str {
        let origin = self.origin();
        origin.split_once("://").map_or(origin, |(_, authority)| authority)
    }

    /// Scheme, host and port.
    pub fn origin(&self) -> &str {
        self.url.get(..self.path_at).unwrap_or_default()
    }

    /// True for `https`, and for this machine by its form: codes of sign-ins may come back there
    /// (security considerations, Communication Security).
    pub fn is_secure(&self) -> bool {
        let authority = self.authority();
        let host = match authority.strip_prefix('[') {
            Some(rest) => rest.split(']').next().unwrap_or_default(),
            None => authority.split(':').next().unwrap_or_default(),
        };
        let host = host.to_ascii_lowercase();
        let is_here = host == "localhost"
            || host.ends_with(".localhost")
            || host.parse::<std::net::IpAddr>().is_ok_and(|it| it.is_loopback());
        is_here || self.url.starts_with("https://")
    }

    /// The path before the gateway's own paths: empty, or `/trunk`.
    pub fn path(&self) -> &str {
        self.url.get(self.path_at..).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_public_url_comes_apart() {
        for (text, origin, authority, path) in [
            ("https://a.example/trunk/", "https://a.example", "a.example", "/trunk"),
            ("http://a.example:81/x/y", "http://a.example:81", "a.example:81", "/x/y"),
            ("https://a.example", "https://a.example", "a.example", ""),
            ("https://[::1]:4/", "https://[::1]:4", "[::1]:4", ""),
        ] {
            let url = PublicUrl::parse(text).unwrap();
            assert_eq!((url.origin(), url.authority(), url.path()), (origin, authority, path));
        }
        for (text, is_secure) in [
            ("https://a.example", true),
            ("http://a.example", false),
            ("http://10.0.0.1:4000", false),
            ("http://localhost.example", false),
            ("http://LOCALHOST:4000", true),
            ("http://127.0.0.2/x", true),
            ("http://[::1]:4", true),
        ] {
            assert_eq!(PublicUrl::parse(text).unwrap().is_secure(), is_secure, "{text}");
        }
        for wrong in
            ["", "a.example", "ftp://a/", "https://a/?b", "https://a/#b", "https://u@a/"]
        {
            assert!(PublicUrl::parse(wrong).is_err(), "{wrong}");
        }
    }
}
