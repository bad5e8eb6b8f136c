//! The admission of clients: keys, origins, proxies, paths and transports. Swapped whole at a
//! reload.

use std::sync::{Arc, Once};

use crate::access::authenticate::{self, KeyHeaders, KnownKey};
use crate::access::origin::{HostCheck, Origins};
use crate::access::policy::Principal;
use crate::access::proxies::TrustedProxies;
use crate::config::{PublicUrl, Transports};
use crate::http::{Head, Peer};
use crate::limits::HOST_BYTES_MAX;
use crate::protocol::call::PrincipalId;
use crate::protocol::quirks::Tolerance;
use crate::resource_server::Verifier;

/// The client that a proxy serves, and the proxies before it, in the order in which they passed
/// the request on.
const FORWARDED_FOR: &str = "x-forwarded-for";
/// The path under which a proxy serves the gateway.
const FORWARDED_PREFIX: &str = "x-forwarded-prefix";

/// The scheme that a proxy's client used.
const FORWARDED_PROTO: &str = "x-forwarded-proto";

/// Headers of proxies about their client and their own address. Only the first and the last
/// count.
const FORWARDED: [&str; 4] =
    [FORWARDED_FOR, "x-forwarded-host", FORWARDED_PROTO, FORWARDED_PREFIX];

/// The settings of clients' admission that a reload may change.
#[derive(Debug)]
pub struct Admission {
    /// The admitted values of `Host` and `Origin`.
    pub origins: Origins,
    /// The proxies whose `X-Forwarded-*` headers count.
    pub proxies: TrustedProxies,
    /// The path under which clients reach the gateway; empty where there is none.
    pub prefix: String,
    /// The address that clients use, where it is configured.
    pub public_url: Option<PublicUrl>,
    /// The host and port at which the gateway listens, where a client can reach them as they stand.
    pub address: Option<String>,
    /// The known keys; if there is neither one nor an issuer, none is required.
    pub keys: Vec<KnownKey>,
    /// The verifier of access tokens; none where no issuer is configured.
    pub verifier: Option<Arc<Verifier>>,
    /// The transports that serve.
    pub transports: Transports,
    /// The quirks of clients that are tolerated.
    pub tolerance: Tolerance,
    /// The number of admissions before this one, counted by [`super::Front::readmit`].
    pub generation: u64,
}

impl Admission {
    /// The client of a request: the one that a trusted proxy names, else the peer.
    pub(super) fn peer(&self, head: &Head) -> Peer {
        let named = head.headers.get_all(FORWARDED_FOR);
        self.proxies.client(head.peer.ip(), named).map_or(Peer::Unix, Peer::Ip)
    }

    /// Logs once that a proxy's headers do not count, because the proxy is not trusted: else
    /// every client would seem to be at the proxy's address, without an explanation.
    pub(super) fn note_forwarded(&self, head: &Head) {
        static SAID: Once = Once::new();
        if SAID.is_completed() {
            return;
        }
        let said = FORWARDED.into_iter().find(|name| head.headers.get(name).is_some());
        let peer = head.peer.ip();
        if let Some(name) = said.filter(|_| !self.proxies.trusts(peer)) {
            SAID.call_once(|| {
                let peer = peer.map_or_else(|| "unix".to_owned(), |ip| ip.to_string());
                log::warn!(
                    "{name} of {peer} counts for nothing, since \"trusted_proxies\" does not name \
                     it: where that is a proxy, its clients all seem to be at its address, and \
                     \"public_url\" says what they call the gateway. This is said once."
                );
            });
        }
    }

    /// True if clients need neither a key nor a token.
    pub(super) fn is_open(&self) -> bool {
        self.keys.is_empty() && self.verifier.is_none()
    }

    /// The URL under which the client of a request has the gateway, without a slash at its end.
    /// Where it is not configured, it is made of the request's `Host`, if that is checked: else
    /// whoever stands between could choose it, and pass a client's token and proof on (RFC 9449,
    /// section 4.3). None where no URL is known.
    pub(super) fn base_url(&self, head: &Head) -> Option<String> {
        if let Some(url) = &self.public_url {
            return Some(url.as_str().to_owned());
        }
        let host = match self.origins.check_host {
            HostCheck::Off => self.address.as_deref()?,
            HostCheck::Names | HostCheck::NamesOrAddresses => head.headers.get("host")?.trim(),
        };
        let may_stand = |b: u8| b.is_ascii_alphanumeric() || b"-._[]:".contains(&b);
        if host.is_empty() || host.len() > HOST_BYTES_MAX || !host.bytes().all(may_stand) {
            return None;
        }
        let is_https = head.headers.get(FORWARDED_PROTO).is_some_and(|it| it.trim() == "https")
            && self.proxies.trusts(head.peer.ip());
        let scheme = if is_https { "https" } else { "http" };
        Some(format!("{scheme}://{host}{}", self.prefix_for(head)))
    }

    /// The URL of a request as its client has it; without a host where none is known.
    pub(super) fn client_url(&self, head: &Head) -> String {
        let base = self.base_url(head).unwrap_or_default();
        format!("{base}{}", self.own_path(&head.path))
    }

    /// The principal of a request's key.
    pub(super) fn principal(&self, head: &Head) -> Option<Arc<Principal>> {
        authenticate::authenticate(&self.keys, Admission::key_headers(head))
    }

    pub(super) fn key_headers(head: &Head) -> KeyHeaders<'_> {
        KeyHeaders {
            authorization: head.headers.get("authorization"),
            litellm: head.headers.get("x-litellm-api-key"),
            api_key: head.headers.get("x-api-key"),
        }
    }

    /// The principal in whose share a request counts: its key or user, and without either the
    /// address that it came from. None where no other principal can come: where there is one key,
    /// and without keys for this machine, whose owner's processes cannot be told apart.
    pub(super) fn charged(&self, principal: &Principal, peer: Peer) -> Option<PrincipalId> {
        match (&principal.id, peer) {
            (Some(id), _) => self.charged_identity(id),
            (None, Peer::Ip(ip)) if !ip.is_loopback() => Some(PrincipalId::of_address(ip)),
            (None, Peer::Ip(_) | Peer::Unix) => None,
        }
    }

    /// A path as the gateway knows it, with or without the prefix that a proxy may remove.
    pub(super) fn own_path<'a>(&self, path: &'a str) -> &'a str {
        match path.strip_prefix(self.prefix.as_str()) {
            Some("") => "/",
            Some(own) if own.starts_with('/') => own,
            Some(_) | None => path,
        }
    }

    /// The path before the gateway's own paths, in texts for this client.
    pub(super) fn prefix_for<'a>(&'a self, head: &'a Head) -> &'a str {
        let said = head.headers.get(FORWARDED_PREFIX);
        self.proxies.prefix(head.peer.ip(), said).unwrap_or(&self.prefix)
    }

    /// As [`Admission::charged`], for a key or a user.
    pub(super) fn charged_identity(&self, id: &Arc<str>) -> Option<PrincipalId> {
        let is_one_of_many = self.keys.len() > 1 || self.verifier.is_some();
        is_one_of_many.then(|| PrincipalId::Key(id.clone()))
    }

    pub(super) fn principal_named(&self, name: &str) -> Option<&Arc<Principal>> {
        let mut principals = self.keys.iter().map(|key| &key.principal);
        principals.find(|it| it.id.as_deref() == Some(name))
    }

    /// The names of the keys whose rights differ.
    pub(super) fn differing_from(&self, old: &Admission) -> Vec<Arc<str>> {
        let names = self.keys.iter().filter_map(|key| key.principal.id.as_ref());
        let policy = |of: &Admission, name: &str| {
            of.principal_named(name).map(|principal| principal.policy.clone())
        };
        names.filter(|name| policy(self, name) != policy(old, name)).cloned().collect()
    }
}
