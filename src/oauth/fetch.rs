//! Pure: the trait `Fetch`, by which the OAuth client and the resource server send their HTTP
//! requests, and the addresses to which a request may go.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use super::json_document::JsonDocument;
use super::unusable::Unusable;
use super::web_url::WebUrl;
use crate::secret::Secret;

#[cfg(test)]
pub(crate) const NOT_FOUND: u16 = 404;
const UNAUTHORIZED: u16 = 401;
const TOO_MANY_REQUESTS: u16 = 429;
const SERVER_ERRORS_FROM: u16 = 500;

/// Sends a request and waits for its answer.
pub trait Fetch: Send + Sync {
    /// Sends one request. A redirect is not followed but returned as the answer that it is; the
    /// answer's body has at most [`crate::limits::OAUTH_DOCUMENT_BYTES_MAX`] bytes.
    ///
    /// # Errors
    /// If no whole answer came, with the reason in plain text.
    fn fetch(&self, request: &FetchRequest<'_>) -> Result<FetchAnswer, FetchError>;
}

/// One request of the OAuth client or of the resource server.
#[derive(Debug)]
pub struct FetchRequest<'a> {
    /// Where it goes.
    pub url: &'a WebUrl,
    /// Its method and body.
    pub content: FetchContent<'a>,
    /// Request headers beside those that follow from `content`, with lower-case names:
    /// `authorization`, `dpop`, `accept`.
    pub headers: &'a [(&'a str, Secret)],
    /// The addresses to which it may go, whatever name the URL has.
    pub reach: Reach,
    /// The time for the whole exchange, from looking up the name to the last byte of the answer.
    pub timeout: Duration,
}

/// The method and the body of a [`FetchRequest`].
#[derive(Debug, Clone, Copy)]
pub enum FetchContent<'a> {
    /// GET, with `Accept: application/json` unless a header says otherwise.
    Get,
    /// POST of `application/x-www-form-urlencoded`.
    Form(&'a Secret),
    /// POST of `application/json`.
    Json(&'a Secret),
}

/// The answer to a [`FetchRequest`].
#[derive(Clone, Default, PartialEq, Eq)]
pub struct FetchAnswer {
    /// The HTTP status code.
    pub status: u16,
    /// `Content-Type`.
    pub content_type: Option<String>,
    /// Every `WWW-Authenticate` field.
    pub www_authenticate: Vec<String>,
    /// `DPoP-Nonce` (RFC 9449 section 8).
    pub dpop_nonce: Option<String>,
    /// `Cache-Control`.
    pub cache_control: Option<String>,
    /// The body, whole.
    pub body: Vec<u8>,
}

impl FetchAnswer {
    /// True for a status from 200 to 299.
    pub fn is_success(&self) -> bool {
        (200..=299).contains(&self.status)
    }

    /// True if the answer may refuse the OAuth client that asks, or the way in which it has
    /// authenticated (RFC 6749, section 5.2).
    pub fn may_refuse_client(&self) -> bool {
        matches!(self.status, 400 | 401)
    }

    /// True if the answer refuses the credentials of the request (RFC 9110, section 15.5.2).
    pub fn refuses_credentials(&self) -> bool {
        self.status == UNAUTHORIZED
    }

    /// True if the server is not well for the moment, or wants to be asked less often.
    pub fn is_unavailable(&self) -> bool {
        self.status == TOO_MANY_REQUESTS || self.status >= SERVER_ERRORS_FROM
    }

    /// The body as a JSON object, whatever its `Content-Type`.
    ///
    /// # Errors
    /// If it is none.
    pub fn document(&self) -> Result<JsonDocument, Unusable> {
        JsonDocument::parse(&self.body)
    }

    /// The seconds of `max-age` in `Cache-Control`, zero for `no-store` and `no-cache`.
    pub fn max_age(&self) -> Option<Duration> {
        let directives = || self.cache_control.iter().flat_map(|all| all.split(','));
        let is_never = |it: &str| {
            let it = it.trim();
            it.eq_ignore_ascii_case("no-store") || it.eq_ignore_ascii_case("no-cache")
        };
        if directives().any(is_never) {
            return Some(Duration::ZERO);
        }
        directives().find_map(|directive| {
            let (name, value) = directive.split_once('=')?;
            let seconds = value.trim().trim_matches('"').parse().ok()?;
            name.trim().eq_ignore_ascii_case("max-age").then(|| Duration::from_secs(seconds))
        })
    }
}

impl fmt::Debug for FetchAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The body often has tokens in it.
        let n_bytes = self.body.len();
        write!(f, "FetchAnswer {{ status: {}, body: {n_bytes} bytes, … }}", self.status)
    }
}

/// Why no answer came, in plain text without secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FetchError {
    /// The request was not sent, because the address is outside its [`Reach`] or the URL is not
    /// one to send such a request to. Another try ends the same way.
    Refused(String),
    /// The request or its answer failed: no connection, no answer in time, too large an answer.
    Failed(String),
}

impl fmt::Display for FetchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(text) | Self::Failed(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for FetchError {}

/// The addresses to which a request may go. A URL out of a document must not lead the gateway to
/// machines that only the gateway can reach (MCP security best practices, server-side request
/// forgery), unless the server that names them is as near itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reach {
    /// Public addresses only.
    PublicOnly,
    /// Also the private networks (RFC 1918, RFC 6598, RFC 4193).
    PrivateNetworks,
    /// Also this machine.
    Loopback,
}

impl Reach {
    /// The reach of documents that a server at these addresses names. It is that of the farthest
    /// of the addresses, so that a name that resolves to a public and to a private address gains
    /// nothing; without any address it is the narrowest.
    pub fn of_server(addresses: impl IntoIterator<Item = IpAddr>) -> Reach {
        let of_one = |address| match Place::of(address) {
            Place::Loopback => Self::Loopback,
            Place::Private => Self::PrivateNetworks,
            Place::Public | Place::Never => Self::PublicOnly,
        };
        addresses.into_iter().map(of_one).min().unwrap_or(Self::PublicOnly)
    }

    /// True if a request may go to this address.
    pub fn allows(self, address: IpAddr) -> bool {
        match Place::of(address) {
            Place::Public => true,
            Place::Private => self >= Self::PrivateNetworks,
            Place::Loopback => self == Self::Loopback,
            Place::Never => false,
        }
    }
}

/// Where an address is, seen from the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Public,
    Private,
    Loopback,
    /// Addresses at which clouds answer with the machine's own credentials, link-local or not, and
    /// those that are no host's.
    Never,
}

impl Place {
    fn of(address: IpAddr) -> Place {
        match address {
            IpAddr::V4(address) => Self::of_v4(address),
            IpAddr::V6(address) => Self::of_v6(address),
        }
    }

    fn of_v4(address: Ipv4Addr) -> Place {
        let [a, b, c, d] = address.octets();
        // Where Azure, Alibaba and Oracle configure the machines of their clouds.
        if [[168, 63, 129, 16], [100, 100, 100, 200], [192, 0, 0, 192]].contains(&[a, b, c, d])
        {
            return Self::Never;
        }
        match (a, b, c) {
            // RFC 1122 section 3.2.1.3: "this host"; Linux connects it to itself.
            (0, ..) if address.is_unspecified() => Self::Loopback,
            (127, ..) => Self::Loopback,
            (0 | 224..=255, ..) | (169, 254, _) => Self::Never,
            (10, ..) | (172, 16..=31, _) | (192, 168, _) => Self::Private,
            // RFC 6598 (shared by carriers), RFC 6890 (protocol assignments), RFC 2544 (tests).
            (100, 64..=127, _) | (192, 0, 0) | (198, 18..=19, _) => Self::Private,
            _ => Self::Public,
        }
    }

    fn of_v6(address: Ipv6Addr) -> Place {
        let groups = address.segments();
        let v4 = Self::of_embedded_v4;
        match groups {
            [0, 0, 0, 0, 0, 0, 0, 0 | 1] => Self::Loopback,
            // Addresses with an IPv4 address in them are where that one is: mapped, compatible,
            // RFC 7915 (translated), RFC 6052 (NAT64), RFC 3056 (6to4).
            [0, 0, 0, 0, 0, 0 | 0xffff, high, low] => v4(high, low),
            [0, 0, 0, 0, 0xffff, 0, high, low] => v4(high, low),
            [0x64, 0xff9b, 0, 0, 0, 0, high, low] => v4(high, low),
            [0x2002, high, low, ..] => v4(high, low),
            [0x64, 0xff9b, 1, ..] => Self::of_local_nat64(groups),
            // RFC 4380 (Teredo) hides the address of a machine behind a relay.
            [0x2001, 0, ..] => Self::Never,
            // The metadata of Amazon's and Google's clouds.
            [0xfd00, 0xec2, ..] | [0xfd20, 0xce, ..] => Self::Never,
            [first, ..] if first & 0xfe00 == 0xfc00 => Self::Private,
            [first, ..] if first & 0xffc0 == 0xfe80 || first & 0xff00 == 0xff00 => Self::Never,
            // RFC 3879: site-local, out of use.
            [first, ..] if first & 0xffc0 == 0xfec0 => Self::Private,
            _ => Self::Public,
        }
    }

    fn of_embedded_v4(high: u16, low: u16) -> Place {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        Self::of_v4(Ipv4Addr::new(a, b, c, d))
    }

    /// RFC 8215: the translator is on this network, whatever it leads to. The IPv4 address is in
    /// the last 32 bits, or around the octet behind the first 64, with zeros at the end (RFC 6052,
    /// section 2.2).
    fn of_local_nat64([_, _, _, high, middle, end, last_high, last_low]: [u16; 8]) -> Place {
        let leads_to = match (last_high, last_low) {
            (0, 0) => Self::of_embedded_v4(high, middle << 8 | end >> 8),
            (high, low) => Self::of_embedded_v4(high, low),
        };
        match leads_to {
            Self::Never => Self::Never,
            Self::Public | Self::Private | Self::Loopback => Self::Private,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_request_goes_no_nearer_than_its_reach() {
        for (text, least) in [
            ("8.8.8.8", Some(Reach::PublicOnly)),
            ("172.32.0.1", Some(Reach::PublicOnly)),
            ("2606:4700::1111", Some(Reach::PublicOnly)),
            ("10.1.2.3", Some(Reach::PrivateNetworks)),
            ("172.16.0.1", Some(Reach::PrivateNetworks)),
            ("192.168.1.1", Some(Reach::PrivateNetworks)),
            ("100.64.0.1", Some(Reach::PrivateNetworks)),
            ("198.18.0.1", Some(Reach::PrivateNetworks)),
            ("fd00::1", Some(Reach::PrivateNetworks)),
            ("fec0::1", Some(Reach::PrivateNetworks)),
            ("127.0.0.1", Some(Reach::Loopback)),
            ("127.255.0.1", Some(Reach::Loopback)),
            ("0.0.0.0", Some(Reach::Loopback)),
            ("::", Some(Reach::Loopback)),
            ("::1", Some(Reach::Loopback)),
            // IPv4 in IPv6.
            ("::ffff:127.0.0.1", Some(Reach::Loopback)),
            ("::ffff:10.0.0.1", Some(Reach::PrivateNetworks)),
            ("::127.0.0.1", Some(Reach::Loopback)),
            ("::ffff:8.8.8.8", Some(Reach::PublicOnly)),
            ("::ffff:0:127.0.0.1", Some(Reach::Loopback)),
            ("::ffff:0:10.0.0.1", Some(Reach::PrivateNetworks)),
            ("64:ff9b::808:808", Some(Reach::PublicOnly)),
            ("64:ff9b::a9fe:a9fe", None),
            ("64:ff9b:1::7f00:1", Some(Reach::PrivateNetworks)),
            ("64:ff9b:1::808:808", Some(Reach::PrivateNetworks)),
            ("64:ff9b:1::a9fe:a9fe", None),
            ("64:ff9b:1:a9fe:a9:fe00::", None),
            ("64:ff9b:1:a00:0:100::", Some(Reach::PrivateNetworks)),
            ("2002:a00:1::", Some(Reach::PrivateNetworks)),
            ("2002:a9fe:a9fe::1", None),
            ("2002:a83f:8110::", None),
            ("2001::", None),
            ("2001:0:4136:e378:8000:63bf:3fff:fdd2", None),
            ("2001:4860:4860::8888", Some(Reach::PublicOnly)),
            ("168.63.129.16", None),
            ("168.63.129.15", Some(Reach::PublicOnly)),
            ("::ffff:168.63.129.16", None),
            ("::168.63.129.16", None),
            ("64:ff9b::168.63.129.16", None),
            ("100.100.100.200", None),
            ("192.0.0.192", None),
            ("192.0.0.8", Some(Reach::PrivateNetworks)),
            ("fd00:ec2::254", None),
            ("fd20:ce::254", None),
            ("fd00:ec3::254", Some(Reach::PrivateNetworks)),
            ("64:ff9b::7f00:1", Some(Reach::Loopback)),
            ("64:ff9b::a00:1", Some(Reach::PrivateNetworks)),
            ("64:ff9b:1::1", None),
            ("2002:7f00:1::", Some(Reach::Loopback)),
            ("2002:808:808::", Some(Reach::PublicOnly)),
            ("169.254.169.254", None),
            ("::ffff:169.254.169.254", None),
            ("fe80::1", None),
            ("ff02::1", None),
            ("224.0.0.1", None),
            ("255.255.255.255", None),
            ("0.1.2.3", None),
        ] {
            for reach in [Reach::PublicOnly, Reach::PrivateNetworks, Reach::Loopback] {
                let allowed = least.is_some_and(|least| reach >= least);
                assert_eq!(reach.allows(address(text)), allowed, "{text} {reach:?}");
            }
        }
    }

    #[test]
    fn a_server_s_documents_reach_as_near_as_its_farthest_address() {
        let of = |all: &[&str]| Reach::of_server(all.iter().map(|text| address(text)));
        assert_eq!(of(&["127.0.0.1", "::1"]), Reach::Loopback);
        assert_eq!(of(&["127.0.0.1", "192.168.0.1"]), Reach::PrivateNetworks);
        assert_eq!(of(&["127.0.0.1", "8.8.8.8"]), Reach::PublicOnly);
        assert_eq!(of(&["169.254.169.254"]), Reach::PublicOnly);
        assert_eq!(of(&[]), Reach::PublicOnly);
    }

    #[test]
    fn the_age_of_an_answer_is_read_from_its_cache_control() {
        for (field, expected) in [
            (None, None),
            (Some("max-age=60"), Some(60)),
            (Some("public, Max-Age = \"60\""), Some(60)),
            (Some("max-age=60, no-store"), Some(0)),
            (Some("No-Cache"), Some(0)),
            (Some("max-age=x"), None),
            (Some("max-age=-1"), None),
            (Some("private"), None),
        ] {
            let cache_control = field.map(str::to_owned);
            let answer = FetchAnswer { cache_control, ..FetchAnswer::default() };
            assert_eq!(answer.max_age(), expected.map(Duration::from_secs), "{field:?}");
        }
    }

    #[test]
    fn an_answer_s_body_is_not_printed() {
        let body = br#"{"access_token":"sekrit"}"#.to_vec();
        let answer = FetchAnswer { status: 200, body, ..FetchAnswer::default() };
        assert!(answer.is_success() && !format!("{answer:?}").contains("sekrit"));
        let document = answer.document().unwrap();
        assert_eq!(document.text("access_token", 100), Ok(Some("sekrit")));
        assert!(!format!("{document:?}").contains("sekrit"));
    }
}
