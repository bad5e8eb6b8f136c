//! Whose `X-Forwarded-*` count, and what they say then.
//!
//! A client can write such a header itself. Only what a trusted proxy has added is true: the
//! proxy's own peer stands last in the list, so that the list is read from its end, for as long
//! as those who wrote it are trusted.

use std::net::{IpAddr, SocketAddr};

use crate::config::TrustedProxy;

/// The proxies of the configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustedProxies(Vec<TrustedProxy>);

impl TrustedProxies {
    /// Those of `trusted_proxies`.
    pub fn new(proxies: Vec<TrustedProxy>) -> TrustedProxies {
        TrustedProxies(proxies)
    }

    /// Whether this peer is a proxy whose headers count. None is the peer of a Unix socket.
    pub fn trusts(&self, peer: Option<IpAddr>) -> bool {
        self.0.iter().any(|proxy| proxy.is(peer))
    }

    /// Who sends a request: the peer, or whom trusted proxies say that they serve.
    /// `forwarded_for` are the values of all fields `X-Forwarded-For`, in their order. None is
    /// the peer of a Unix socket.
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
            // `unknown` and the like: whoever wrote it is the last who is known.
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
    fn the_client_is_the_last_who_was_not_written_by_a_stranger() {
        assert_eq!(client("127.0.0.1", &[]), "127.0.0.1");
        assert_eq!(client("127.0.0.1", &["192.0.2.1"]), "192.0.2.1");
        assert_eq!(client("unix", &["192.0.2.1"]), "192.0.2.1");
        assert_eq!(client("unix", &[]), "unix");
        // Over two proxies, and in two fields.
        assert_eq!(client("127.0.0.1", &["192.0.2.1, 10.1.1.1"]), "192.0.2.1");
        assert_eq!(client("127.0.0.1", &["192.0.2.1", "10.1.1.1"]), "192.0.2.1");
        // What the client has written itself stands before it.
        assert_eq!(client("127.0.0.1", &["10.9.9.9, 192.0.2.1"]), "192.0.2.1");
        assert_eq!(client("127.0.0.1", &["1.1.1.1,192.0.2.1"]), "192.0.2.1");
        // A stranger's header is nothing.
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
