//! Pure: a network of addresses, as `10.0.0.0/8`, or one address.

use std::net::IpAddr;

/// See above.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u32,
}

impl Network {
    /// Reads it. None also where the address says more than the network has.
    pub fn parse(text: &str) -> Option<Network> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) if bits.bytes().all(|it| it.is_ascii_digit()) => {
                (address, Some(bits.parse().ok()?))
            }
            Some(_) => return None,
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let all = if address.is_ipv4() { 32 } else { 128 };
        let network = Network { address, bits: bits.unwrap_or(all) };
        (network.bits <= all && network.rest_of(address) == 0).then_some(network)
    }

    /// Whether an address is in it.
    pub fn contains(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        ip.is_ipv4() == self.address.is_ipv4()
            && bits_of(ip) - self.rest_of(ip) == bits_of(self.address)
    }

    /// What of an address is not the network's.
    fn rest_of(&self, ip: IpAddr) -> u128 {
        let all = if ip.is_ipv4() { 32 } else { 128 };
        let host_bits = all - self.bits.min(all);
        let mask = 1_u128.checked_shl(host_bits).map_or(u128::MAX, |bit| bit - 1);
        bits_of(ip) & mask
    }
}

fn bits_of(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u128::from(ip.to_bits()),
        IpAddr::V6(ip) => ip.to_bits(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_has_its_addresses_and_no_others() {
        for (network, inside, outside) in [
            ("10.0.0.0/8", "10.255.1.2", "11.0.0.0"),
            ("192.0.2.7", "192.0.2.7", "192.0.2.8"),
            ("192.0.2.7/32", "::ffff:192.0.2.7", "::1"),
            ("0.0.0.0/0", "198.51.100.1", "2001:db8::1"),
            ("::/0", "2001:db8::1", "10.0.0.1"),
            ("2001:db8::/32", "2001:db8:ffff::1", "2001:db9::"),
        ] {
            let network = Network::parse(network).unwrap();
            assert!(network.contains(inside.parse().unwrap()), "{network:?} {inside}");
            assert!(!network.contains(outside.parse().unwrap()), "{network:?} {outside}");
        }
        for text in
            ["", "10.0.0.1/8", "10.0.0.0/33", "::/129", "10.0.0.0/-1", "host", "1.2.3.4/"]
        {
            assert_eq!(Network::parse(text), None, "{text:?}");
        }
    }
}
