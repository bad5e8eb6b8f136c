//! Pure: one entry of `trusted_proxies`, as text and as the peers that it matches.

use std::net::IpAddr;

/// A peer that is a trusted proxy, whose `X-Forwarded-*` headers count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrustedProxy {
    /// An address, or a network of addresses.
    Network {
        /// The first address.
        address: IpAddr,
        /// The number of leading bits that all addresses share.
        bits: u8,
    },
    /// Any peer of the Unix socket.
    Unix,
}

impl TrustedProxy {
    /// Reads `10.0.0.7`, `10.0.0.0/8`, `::1`, `fd00::/8` or `unix`.
    pub fn parse(text: &str) -> Option<TrustedProxy> {
        if text == "unix" {
            return Some(Self::Unix);
        }
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            None => most,
            Some(digits) if digits.bytes().all(|digit| digit.is_ascii_digit()) => {
                digits.parse().ok().filter(|bits| *bits <= most)?
            }
            Some(_) => return None,
        };
        Some(Self::Network { address, bits })
    }

    /// True if the peer with this address matches; None is the peer of a Unix socket.
    pub fn is(self, peer: Option<IpAddr>) -> bool {
        match (self, peer.map(|ip| ip.to_canonical())) {
            (Self::Unix, None) => true,
            (Self::Network { address: IpAddr::V4(network), bits }, Some(IpAddr::V4(ip))) => {
                (network.to_bits() ^ ip.to_bits()).leading_zeros() >= u32::from(bits)
            }
            (Self::Network { address: IpAddr::V6(network), bits }, Some(IpAddr::V6(ip))) => {
                (network.to_bits() ^ ip.to_bits()).leading_zeros() >= u32::from(bits)
            }
            (Self::Unix, Some(_)) | (Self::Network { .. }, _) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is(entry: &str, peer: &str) -> bool {
        TrustedProxy::parse(entry).unwrap().is(peer.parse().ok())
    }

    #[test]
    fn an_entry_is_an_address_a_network_or_the_unix_socket() {
        assert!(is("10.0.0.7", "10.0.0.7") && !is("10.0.0.7", "10.0.0.8"));
        assert!(is("10.0.0.0/8", "10.255.1.2") && !is("10.0.0.0/8", "11.0.0.1"));
        assert!(is("10.1.2.3/8", "10.0.0.1"), "the bits behind the network do not count");
        assert!(is("::1", "::1") && is("fd00::/8", "fd12::7") && !is("fd00::/8", "fe80::1"));
        assert!(is("0.0.0.0/0", "192.0.2.1") && !is("0.0.0.0/0", "::1"));
        assert!(is("127.0.0.1", "::ffff:127.0.0.1"), "a mapped address is that of IPv4");
        assert!(TrustedProxy::Unix.is(None) && !is("unix", "127.0.0.1"));
        assert!(!TrustedProxy::parse("0.0.0.0/0").unwrap().is(None));
        for wrong in ["", "localhost", "10.0.0.0/33", "10.0.0.0/", "10.0.0.0/+8", "::/129", "*"]
        {
            assert_eq!(TrustedProxy::parse(wrong), None, "{wrong}");
        }
    }
}
