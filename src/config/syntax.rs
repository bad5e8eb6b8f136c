//! Pure: the syntax of URLs, headers, origins, globs and hashes.

/// A port number from 0 to 65535.
pub(crate) fn port(text: &str) -> Option<u16> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

/// Checks that `text` is a URL of one of `schemes` with a host.
///
/// # Errors
/// The fault, in words that hold no part of the URL: it may carry a secret.
pub(crate) fn url(text: &str, schemes: &[&str], userinfo: Userinfo) -> Result<(), String> {
    let wanted = || format!("must be a URL that begins with {}", schemes.join(" or "));
    let (scheme, rest) = text.split_once("://").ok_or_else(wanted)?;
    let scheme = format!("{}://", scheme.to_ascii_lowercase());
    if !schemes.contains(&scheme.as_str()) {
        return Err(wanted());
    }
    let odd = |c: char| !c.is_ascii_graphic() || "\"<>\\^`{|}".contains(c);
    if text.chars().any(odd) {
        return Err("has a character that a URL must not have".to_owned());
    }
    if text.contains('#') {
        return Err("must not have a fragment (\"#…\")".to_owned());
    }
    let authority = rest.split(['/', '?']).next().unwrap_or("");
    let host = match (authority.rsplit_once('@'), userinfo) {
        (Some(_), Userinfo::Refused) => {
            return Err("must not have a user or password; use headers".to_owned());
        }
        (Some((_, host)), Userinfo::Admitted) => host,
        (None, Userinfo::Refused | Userinfo::Admitted) => authority,
    };
    if is_host_and_port(host) { Ok(()) } else { Err("has no valid host and port".to_owned()) }
}

/// The rule for a user and a password in a URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Userinfo {
    Admitted,
    Refused,
}

/// True for `host`, `host:port`, `[v6]` and `[v6]:port`.
pub(crate) fn is_host_and_port(text: &str) -> bool {
    let (host, rest) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, rest)) => (host.parse::<std::net::Ipv6Addr>().is_ok(), rest),
        None => {
            let end = text.find(':').unwrap_or(text.len());
            let (host, rest) = text.split_at(end);
            let ok = |b: u8| b.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=".contains(&b);
            (!host.is_empty() && host.bytes().all(ok), rest)
        }
    };
    host && (rest.is_empty()
        || rest.strip_prefix(':').is_some_and(|digits| port(digits).is_some_and(|n| n > 0)))
}

/// True for `scheme://host`, with a port if there is one, and nothing after it.
pub(crate) fn is_origin(text: &str) -> bool {
    let ok = |b: u8| b.is_ascii_alphanumeric() || b"+-.".contains(&b);
    text.split_once("://").is_some_and(|(scheme, host)| {
        !scheme.is_empty() && scheme.bytes().all(ok) && is_host_and_port(host)
    })
}

/// True for a header's name (RFC 9110, 5.1).
pub(crate) fn is_header_name(text: &str) -> bool {
    let ok = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    !text.is_empty() && text.bytes().all(ok)
}

/// True for a header's value (RFC 9110, 5.5), without its obsolete bytes beyond ASCII.
pub(crate) fn is_header_value(text: &str) -> bool {
    text.trim() == text && text.bytes().all(|b| b == b'\t' || (b' '..=b'~').contains(&b))
}

/// True for headers of a message's framing and of the transport, which only the gateway sets.
pub(crate) fn is_own_header(name: &str) -> bool {
    const OWN: [&str; 12] = [
        "accept",
        "connection",
        "content-length",
        "content-type",
        "keep-alive",
        "last-event-id",
        "mcp-protocol-version",
        "mcp-session-id",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ];
    OWN.iter().any(|own| own.eq_ignore_ascii_case(name))
}

/// True for headers that a client may give for a server: none of [`is_own_header`], and none that
/// says where a request goes, by which way it has come, or of which method it is. With these a
/// client could choose which of several services answers, or who it seems to be.
pub(crate) fn is_forwardable_header(name: &str) -> bool {
    const OF_THE_WAY: [&str; 9] = [
        "accept-encoding",
        "content-encoding",
        "expect",
        "forwarded",
        "host",
        "mcp-method",
        "mcp-name",
        "via",
        "x-real-ip",
    ];
    const GROUPS: [&str; 4] = ["mcp-param-", "proxy-", "x-forwarded-", "x-mcp-"];
    let lower = name.to_ascii_lowercase();
    is_header_name(name)
        && !is_own_header(name)
        && !OF_THE_WAY.contains(&lower.as_str())
        && !GROUPS.iter().any(|prefix| lower.starts_with(prefix))
}

/// True for one scope (RFC 6749, section 3.3).
pub(crate) fn is_scope(text: &str) -> bool {
    let ok = |b: u8| b.is_ascii_graphic() && b != b'"' && b != b'\\';
    !text.is_empty() && text.bytes().all(ok)
}

/// True for a text that can stand in offered names: an alias, a separator.
pub(crate) fn is_name_part(text: &str) -> bool {
    let ok = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    !text.is_empty() && text.chars().all(ok)
}

/// True for a glob that can match some name.
pub(crate) fn is_glob(text: &str) -> bool {
    let pattern = text.strip_prefix('!').unwrap_or(text);
    !pattern.is_empty() && !pattern.chars().any(char::is_control)
}

/// Reads 64 hexadecimal digits.
pub(crate) fn sha256(text: &str) -> Option<[u8; 32]> {
    let digits: Vec<u8> = text
        .chars()
        .map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
        .collect::<Option<_>>()?;
    let (pairs, []) = digits.as_chunks::<2>() else { return None };
    let bytes: Vec<u8> = pairs.iter().map(|[high, low]| high * 16 + low).collect();
    bytes.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_has_a_scheme_and_a_host() {
        let check = |text| url(text, &["http://", "https://"], Userinfo::Refused);
        for good in [
            "http://localhost:8001/mcp",
            "HTTPS://example.org",
            "http://[::1]:80/?key=a%20b",
            "http://a_b.internal/x",
        ] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "example.org",
            "ftp://a/",
            "http://",
            "http:///x",
            "http://:80/",
            "http://a:b/",
            "http://a:0/",
            "http://a:65536/",
            "http://[::1/",
            "http://a b/",
            "http://é/",
            "http://u:p@a/",
            "http://a/#f",
            "http://a/\r\nX: y",
        ] {
            assert!(check(bad).is_err(), "{bad}");
        }
        assert_eq!(url("http://u:p@proxy:3128", &["http://"], Userinfo::Admitted), Ok(()));
    }

    #[test]
    fn an_origin_has_no_path() {
        for good in ["https://a.example", "http://localhost:3000", "vscode-webview://abc"] {
            assert!(is_origin(good), "{good}");
        }
        for bad in ["*", "a.example", "https://a.example/", "https://", "null"] {
            assert!(!is_origin(bad), "{bad}");
        }
    }

    #[test]
    fn a_header_cannot_end_its_line() {
        assert!(is_header_name("X-Api-Key") && is_header_value("Bearer a b"));
        assert!(!is_header_name("X Y") && !is_header_name("") && !is_header_name("X:"));
        assert!(!is_header_value("a\r\nb") && !is_header_value(" a") && !is_header_value("é"));
    }

    #[test]
    fn a_header_that_frames_or_routes_a_request_is_not_forwarded() {
        for good in ["Authorization", "x-api-key", "Cookie", "X-Host", "traceparent"] {
            assert!(is_forwardable_header(good), "{good}");
        }
        for bad in [
            "Host",
            "HOST",
            "Content-Length",
            "transfer-encoding",
            "Expect",
            "X-Forwarded-For",
            "Forwarded",
            "Proxy-Authorization",
            "Mcp-Session-Id",
            "Mcp-Method",
            "Mcp-Param-Region",
            "a b",
            "",
        ] {
            assert!(!is_forwardable_header(bad), "{bad}");
        }
    }

    #[test]
    fn a_hash_has_64_digits() {
        let mut bytes = [0; 32];
        bytes[0] = 0xaf;
        bytes[31] = 1;
        assert_eq!(sha256(&format!("AF{}01", "0".repeat(60))), Some(bytes));
        for bad in [String::new(), "0".repeat(63), "0".repeat(66), "g".repeat(64)] {
            assert_eq!(sha256(&bad), None);
        }
    }
}
