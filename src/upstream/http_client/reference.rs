//! Pure: where a reference that a server gives leads (RFC 3986, section 5), and whether that is
//! still the server that was configured.

use iri_string::convert::MappedToUri;
use iri_string::types::{IriAbsoluteStr, IriReferenceStr, IriStr};
use ureq::http::Uri;

/// The URL that `reference` means where `base` was asked; none if that is no URL. What is not
/// ASCII is percent-encoded (RFC 3987, section 3.1).
pub(crate) fn resolve(base: &Uri, reference: &str) -> Option<Uri> {
    let base = base.to_string();
    let base = IriAbsoluteStr::new(&base).ok()?;
    let reference = IriReferenceStr::new(reference.trim()).ok()?;
    let resolved = reference.resolve_against(base);
    resolved.ensure_rfc3986_normalizable().ok()?;
    let resolved = resolved.to_string();
    let uri = MappedToUri::from(IriStr::new(&resolved).ok()?).to_string();
    uri.split('#').next()?.parse().ok()
}

/// Whether two URLs are of one origin (RFC 6454, section 4), and name the same user if any:
/// only then one may be given what was configured for the other.
pub(crate) fn is_same_origin(one: &Uri, other: &Uri) -> bool {
    let host = |uri: &Uri| uri.host().map(str::to_ascii_lowercase);
    let port = |uri: &Uri| match (uri.port_u16(), uri.scheme_str()) {
        (None, Some("https")) => Some(443),
        (None, Some("http")) => Some(80),
        (port, _) => port,
    };
    let user = |uri: &Uri| {
        let authority = uri.authority().map(|it| it.as_str().to_owned());
        authority.and_then(|it| it.rsplit_once('@').map(|(user, _)| user.to_owned()))
    };
    one.scheme() == other.scheme()
        && host(one).is_some()
        && host(one) == host(other)
        && port(one) == port(other)
        && user(one) == user(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uri(text: &str) -> Uri {
        text.parse().unwrap()
    }

    #[test]
    fn a_reference_is_resolved_as_rfc_3986_says() {
        let base = uri("http://host:8000/a/sse?x=1");
        for (reference, meant) in [
            ("/m?s=1", "http://host:8000/m?s=1"),
            ("m?s=1", "http://host:8000/a/m?s=1"),
            ("../messages", "http://host:8000/messages"),
            ("../../../m", "http://host:8000/m"),
            ("./m/./n/../o", "http://host:8000/a/m/o"),
            ("?s=1", "http://host:8000/a/sse?s=1"),
            ("//host:8000/m", "http://host:8000/m"),
            ("//other/m", "http://other/m"),
            (" /m\n", "http://host:8000/m"),
            ("/m#part", "http://host:8000/m"),
            ("/m?n=http://x", "http://host:8000/m?n=http://x"),
            ("m?n=http://x", "http://host:8000/a/m?n=http://x"),
            ("HTTP://HOST:8000/m", "http://HOST:8000/m"),
            ("/caf\u{e9}?s=\u{1f600}", "http://host:8000/caf%C3%A9?s=%F0%9F%98%80"),
            ("/caf%C3%A9", "http://host:8000/caf%C3%A9"),
        ] {
            let resolved = resolve(&base, reference).map(|it| it.to_string());
            assert_eq!(resolved.as_deref(), Some(meant), "{reference}");
        }
        for reference in ["http://", "/a b", "http://host:port/", "mailto:x@y", "/%zz", "a:b"] {
            let resolved = resolve(&base, reference);
            let leads = resolved.filter(|it| is_same_origin(it, &base));
            assert_eq!(leads, None, "{reference}");
        }
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        let same = |one: &str, other: &str| is_same_origin(&uri(one), &uri(other));
        assert!(same("http://host/a", "http://HOST:80/b"));
        assert!(same("https://host/a", "https://host:443/"));
        assert!(same("http://u:p@host/a", "http://u:p@host/b"));
        assert!(same("http://[::1]:8/a", "http://[::1]:8/b"));
        assert!(!same("http://host/", "https://host/"));
        assert!(!same("http://host:443/", "https://host/"));
        assert!(!same("http://host/", "http://host:8080/"));
        assert!(!same("http://host/", "http://host.evil/"));
        assert!(!same("http://host/", "http://u:p@host/"));
        assert!(!same("/a", "/a"));
    }
}
