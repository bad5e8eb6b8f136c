//! Trusted proxies, and the client that their `X-Forwarded-*` headers name.
//!
//! A client can write such a header itself. Only the part that a trusted proxy has added is true:
//! a proxy adds its peer at the end of the list, so the list is read from its end, for as long as
//! the addresses are trusted proxies.

use std::net::{IpAddr, SocketAddr};

use crate::config::TrustedProxy;

/// Bytes of the longest path under which a proxy serves the gateway.
const PREFIX_BYTES_MAX: usize = 256;

/// The proxies of the configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustedProxies(Vec<TrustedProxy>);

impl TrustedProxies {
    /// The proxies of `trusted_proxies`.
    pub fn new(proxies: Vec<TrustedProxy>) -> TrustedProxies {
        TrustedProxies(proxies)
    }

    /// True if this peer is a proxy whose headers count. None is the peer of a Unix socket.
    pub fn trusts(&self, peer: Option<IpAddr>) -> bool {
        self.0.iter().any(|proxy| proxy.is(peer))
    }

    /// The path under which a proxy serves the gateway (`X-Forwarded-Prefix`), without a slash at
    /// its end. None where no trusted proxy gives one that can stand in a path.
    pub fn prefix<'a>(&self, peer: Option<IpAddr>, field: Option<&'a str>) -> Option<&'a str> {
        let prefix = field?.trim().trim_end_matches('/');
        let usable = |b: u8| b.is_ascii_alphanumeric() || b"-._~/%".contains(&b);
        let is_path = prefix.starts_with('/')
            && !prefix.starts_with("//")
            && prefix.len() <= PREFIX_BYTES_MAX
            && prefix.bytes().all(usable);
        (is_path && self.trusts(peer)).then_some(prefix)
    }

    /// The address of a request's client: the peer, or the address that trusted proxies give.
    /// `forwarded_for` holds the values of all `X-Forwarded-For` headers, in order. None is the
    /// peer of a Unix socket.
    pub fn client<'a>(
        &self,
        peer: Option<IpAddr>,
        forwarded_for: impl IntoIterator<Item = &'a str>,
    ) -> Option<IpAddr> {
        if !self.trusts(peer) {
            return peer;
        }
        let mut client = peer;
        let named: Vec<&str> = forwarded_for.into_iter().flat_map(|v| v.split(',')).collect();
        for name in named.into_iter().rev() {
            // For `unknown` and the like, the proxy that wrote it is the last known address.
            let Some(address) = address(name) else { break };
            client = Some(address);
            if !self.trusts(client) {
                break;
            }
        }
        client
    }
}

/// An address as proxies write it: with or without a port, IPv6 with or without brackets.
fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim().trim_matches('"');
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let plain = bare.parse::<IpAddr>().ok();
    plain.or_else(|| Some(text.parse::<SocketAddr>().ok()?.ip())).map(|ip| ip.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(peer: &str, fields: &[&str]) -> String {
        let entries = ["127.0.0.1", "10.0.0.0/8", "unix"];
        let proxies = entries.iter().map(|entry| TrustedProxy::parse(entry).unwrap());
        let proxies = TrustedProxies::new(proxies.collect());
        let client = proxies.client(peer.parse().ok(), fields.iter().copied());
        client.map_or("unix".to_owned(), |ip| ip.to_string())
    }

    #[test]
    fn a_prefix_is_a_path_that_a_trusted_proxy_says() {
        let proxies = TrustedProxies::new(vec![TrustedProxy::parse("127.0.0.1").unwrap()]);
        let prefix = |text: &'static str| {
            let said = proxies.prefix("127.0.0.1".parse().ok(), Some(text));
            assert_eq!(proxies.prefix("192.0.2.1".parse().ok(), Some(text)), None);
            said
        };
        assert_eq!(prefix("/trunk/"), Some("/trunk"));
        assert_eq!(prefix("/a/b"), Some("/a/b"));
        for wrong in ["", "/", "trunk", "//evil.example", "/a?b", "/a b", "/a#b"] {
            assert_eq!(prefix(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_client_is_the_last_who_was_not_written_by_a_stranger() {
        assert_eq!(client("127.0.0.1", &[]), "127.0.0.1");
        assert_eq!(client("127.0.0.1", &["192.0.2.1"]), "192.0.2.1");
        assert_eq!(client("unix", &["192.0.2.1"]), "192.0.2.1");
        assert_eq!(client("unix", &[]), "unix");
        // Two proxies, in one header and in two.
        assert_eq!(client("127.0.0.1", &["192.0.2.1, 10.1.1.1"]), "192.0.2.1");
        assert_eq!(client("127.0.0.1", &["192.0.2.1", "10.1.1.1"]), "192.0.2.1");
        // A part that the client has written itself stands before the true one.
        assert_eq!(client("127.0.0.1", &["10.9.9.9, 192.0.2.1"]), "192.0.2.1");
        assert_eq!(client("127.0.0.1", &["1.1.1.1,192.0.2.1"]), "192.0.2.1");
        // A header from an untrusted peer does not count.
        assert_eq!(client("192.0.2.9", &["10.0.0.1"]), "192.0.2.9");
        // A proxy that serves its own network.
        assert_eq!(client("127.0.0.1", &["10.0.0.1"]), "10.0.0.1");
        assert_eq!(client("127.0.0.1", &["192.0.2.1, unknown"]), "127.0.0.1");
        assert_eq!(client("127.0.0.1", &["unknown, 10.0.0.1"]), "10.0.0.1");
        for written in ["2001:db8::1", "[2001:db8::1]", "[2001:db8::1]:80", "\"[2001:db8::1]\""]
        {
            assert_eq!(client("127.0.0.1", &[written]), "2001:db8::1", "{written}");
        }
        assert_eq!(client("127.0.0.1", &["192.0.2.1:4711"]), "192.0.2.1");
    }
}
