//! Pure: the name of an issuer for people, and in the names of its users.

use std::sync::Arc;

use super::web_url::WebUrl;

/// The name of an issuer: its host, with the port where that is not the scheme's own, and its
/// path. Servers know users by it, so nothing counts but the issuer itself: with other issuers
/// beside it, its users are called the same.
pub fn issuer_name(issuer: &str) -> Arc<str> {
    let Ok(url) = WebUrl::parse(issuer) else { return issuer.into() };
    let (origin, path) = (url.origin(), url.path().trim_end_matches('/'));
    let host = origin.split_once("://").map_or(origin.as_str(), |(_, host)| host);
    format!("{host}{path}").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_issuer_is_called_by_its_address() {
        let of = |issuer: &str| issuer_name(issuer).to_string();
        assert_eq!(of("https://a.example"), "a.example");
        assert_eq!(of("https://a.example/one"), "a.example/one");
        assert_eq!(of("https://a.example/two/"), "a.example/two");
        assert_eq!(of("https://a.example:443/"), "a.example");
        assert_eq!(of("http://127.0.0.1:80/x"), "127.0.0.1/x");
        assert_eq!(of("https://a.example:8443/x"), "a.example:8443/x");
        assert_eq!(of("http://127.0.0.1:9000"), "127.0.0.1:9000");
        assert_eq!(of("none"), "none");
    }
}
