//! Who sent a request that came through proxies.

use std::net::IpAddr;

use crate::config::Network;

/// The one that a request came from last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hop {
    /// An address.
    Ip(IpAddr),
    /// A process of this machine, over a Unix socket.
    Unix,
}

/// The proxies whose word counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustedProxies {
    /// Where they are.
    pub networks: Vec<Network>,
    /// Whether whoever connects to the Unix socket is one.
    pub unix: bool,
}

impl TrustedProxies {
    /// Whether that is one of them.
    pub fn has(&self, hop: Hop) -> bool {
        match hop {
            Hop::Ip(ip) => self.networks.iter().any(|network| network.contains(ip)),
            Hop::Unix => self.unix,
        }
    }

    /// The client, of those whom `X-Forwarded-For` names in the order in which they passed the
    /// request on: the last one that is no proxy of ours, since whatever stands before it is its own
    /// word. None where nobody is named.
    pub fn client<'a>(&self, named: impl Iterator<Item = &'a str>) -> Option<IpAddr> {
        let named: Vec<&str> = named.collect();
        let mut client = None;
        for text in named.into_iter().rev() {
            let Some(ip) = address(text.trim()) else { break };
            client = Some(ip);
            if !self.has(Hop::Ip(ip)) {
                break;
            }
        }
        client
    }
}

/// An address as proxies write it: some add the port, and brackets around one of IPv6.
fn address(text: &str) -> Option<IpAddr> {
    let ip = text.parse::<IpAddr>().ok();
    let ip = ip.or_else(|| text.parse::<std::net::SocketAddr>().ok().map(|it| it.ip()));
    let bare = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    ip.or_else(bare).map(|ip| ip.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_is_the_last_who_is_no_proxy() {
        let networks = ["10.0.0.0/8", "::1"].map(|text| Network::parse(text).unwrap());
        let proxies = TrustedProxies { networks: networks.into(), unix: false };
        for (header, client) in [
            ("192.0.2.7", Some("192.0.2.7")),
            ("192.0.2.66, 192.0.2.7, 10.1.2.3", Some("192.0.2.7")),
            ("10.9.9.9, 10.1.2.3", Some("10.9.9.9")),
            ("192.0.2.7:4711", Some("192.0.2.7")),
            ("[2001:db8::1]:4711, [::1]", Some("2001:db8::1")),
            ("::ffff:192.0.2.7", Some("192.0.2.7")),
            ("192.0.2.7, nonsense", None),
            ("nonsense, 10.1.2.3", Some("10.1.2.3")),
            ("", None),
        ] {
            let expected = client.map(|text| text.parse::<IpAddr>().unwrap());
            assert_eq!(proxies.client(header.split(',')), expected, "{header}");
        }
        assert!(!proxies.has(Hop::Unix) && proxies.has(Hop::Ip("10.255.0.1".parse().unwrap())));
    }
}
