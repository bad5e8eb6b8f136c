//! Checks of `Host` and `Origin` (2025-11-25, basic/transports, Security Warning): against DNS
//! rebinding and foreign pages.

use std::net::{Ipv4Addr, Ipv6Addr};

/// The `Host` values that are admitted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum HostCheck {
    /// Any value.
    #[default]
    Off,
    /// Loopback names and [`Origins::hosts`].
    Names,
    /// The same names, and every IP address. DNS rebinding binds a page's own name to this
    /// machine's address, and the browser sends that name; it sends an IP address only where a
    /// user or a program has asked for this machine.
    NamesOrAddresses,
}

/// The admitted `Host` and `Origin` values.
#[derive(Debug, Clone, Default)]
pub struct Origins {
    /// The `Host` values that are admitted.
    pub check_host: HostCheck,
    /// Host names, with or without a port, besides the loopback ones.
    pub hosts: Vec<String>,
    /// Origins (`scheme://host[:port]`) besides those of the loopback names and of `hosts`.
    pub origins: Vec<String>,
}

/// The header with a foreign value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Foreign {
    /// The `Host` header.
    Host,
    /// The `Origin` header.
    Origin,
}

impl Origins {
    /// Checks both headers.
    ///
    /// # Errors
    /// The header whose value is foreign.
    pub fn check(&self, host: Option<&str>, origin: Option<&str>) -> Result<(), Foreign> {
        let is_address = || host.is_some_and(|host| is_address(host_of(host)));
        let is_ours = match self.check_host {
            HostCheck::Off => true,
            HostCheck::Names => host.is_some_and(|host| self.is_our_host(host)),
            HostCheck::NamesOrAddresses => {
                is_address() || host.is_some_and(|host| self.is_our_host(host))
            }
        };
        if !is_ours {
            return Err(Foreign::Host);
        }
        // The gateway's own page, at the address in the request's `Host`.
        let is_own_page = |origin: &str| {
            let is_admitted = self.check_host == HostCheck::NamesOrAddresses && is_address();
            is_admitted && host.is_some() && authority_of(origin) == host
        };
        match origin {
            Some(origin) if !self.admits(origin) && !is_own_page(origin) => {
                Err(Foreign::Origin)
            }
            _ => Ok(()),
        }
    }

    fn is_our_host(&self, authority: &str) -> bool {
        let name = host_of(authority);
        is_loopback_name(name)
            || self.hosts.iter().any(|ours| {
                ours.eq_ignore_ascii_case(authority) || ours.eq_ignore_ascii_case(name)
            })
    }

    /// True if a page of this origin is admitted.
    pub fn admits(&self, origin: &str) -> bool {
        if self
            .origins
            .iter()
            .any(|ours| ours == "*" || ours.trim_end_matches('/').eq_ignore_ascii_case(origin))
        {
            return true;
        }
        authority_of(origin).is_some_and(|authority| {
            !authority.contains(['/', '@', '?', '#']) && self.is_our_host(authority)
        })
    }
}

fn authority_of(origin: &str) -> Option<&str> {
    origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"))
}

/// The host of `host[:port]`, with the brackets of an IPv6 address. The whole text where the rest
/// behind the host is no port, so that it matches no host.
fn host_of(authority: &str) -> &str {
    // The colons of an IPv6 address stand before its bracket.
    let (address, rest) = match authority.rfind(']') {
        Some(end) => authority.split_at(end + 1),
        None => ("", authority),
    };
    match rest.rsplit_once(':') {
        Some((before, port))
            if port.bytes().all(|b| b.is_ascii_digit())
                && (address.is_empty() || before.is_empty()) =>
        {
            authority.get(..address.len() + before.len()).unwrap_or(authority)
        }
        _ => authority,
    }
}

fn is_loopback_name(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host == "[::1]"
        || host.parse::<Ipv4Addr>().is_ok_and(|address| address.is_loopback())
}

fn is_address(host: &str) -> bool {
    let v6 = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    match v6 {
        Some(v6) => v6.parse::<Ipv6Addr>().is_ok(),
        None => host.parse::<Ipv4Addr>().is_ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(host: &str, origin: Option<&str>) -> Result<(), Foreign> {
        let origins = Origins {
            check_host: HostCheck::Names,
            hosts: vec!["edge.example:4000".into(), "box".into()],
            origins: vec!["https://app.example".into()],
        };
        origins.check(Some(host), origin)
    }

    #[test]
    fn loopback_names_and_configured_hosts_are_ours_at_any_port() {
        for host in
            ["localhost", "LOCALHOST:1", "127.0.0.1:4000", "127.9.9.9", "[::1]:80", "box:9"]
        {
            assert_eq!(check(host, None), Ok(()), "{host}");
        }
        assert_eq!(check("edge.example:4000", None), Ok(()));
        for host in [
            "evil.example",
            "localhost.evil.example",
            "edge.example:4001",
            "",
            "[::2]",
            "[::1]evil.example",
            "[::1]x:80",
            "[::1].evil.example",
        ] {
            assert_eq!(check(host, None), Err(Foreign::Host), "{host}");
        }
        let unchecked = Origins::default();
        assert_eq!(unchecked.check(Some("evil.example"), None), Ok(()));
    }

    #[test]
    fn an_address_is_nobody_s_name() {
        let origins = Origins {
            check_host: HostCheck::NamesOrAddresses,
            hosts: vec!["box".into()],
            ..Origins::default()
        };
        let check = |host: &str, origin| origins.check(Some(host), origin);
        for host in ["192.0.2.7:4000", "192.0.2.7", "[2001:db8::1]:80", "[::1]", "box:1"] {
            assert_eq!(check(host, None), Ok(()), "{host}");
        }
        for host in
            ["evil.example:4000", "192.0.2.7.evil.example", "1.2.3", "2001:db8::1", "", "[x]"]
        {
            assert_eq!(check(host, None), Err(Foreign::Host), "{host}");
        }
        assert_eq!(origins.check(None, None), Err(Foreign::Host));
        // The gateway's own page, and pages of another machine or port.
        assert_eq!(check("192.0.2.7:80", Some("http://192.0.2.7:80")), Ok(()));
        for origin in ["http://192.0.2.8:80", "http://192.0.2.7:81", "192.0.2.7:80", "null"] {
            assert_eq!(check("192.0.2.7:80", Some(origin)), Err(Foreign::Origin), "{origin}");
        }
    }

    #[test]
    fn origins_of_our_hosts_and_configured_ones_are_ours() {
        for origin in ["http://localhost:6274", "https://127.0.0.1", "https://app.example"] {
            assert_eq!(check("localhost", Some(origin)), Ok(()), "{origin}");
        }
        for origin in [
            "null",
            "http://evil.example",
            "http://localhost@evil.example",
            "http://localhost.evil.example",
            "http://app.example",
            "file://localhost",
        ] {
            assert_eq!(check("localhost", Some(origin)), Err(Foreign::Origin), "{origin}");
        }
    }
}
