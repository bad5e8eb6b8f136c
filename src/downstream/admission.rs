//! Who is admitted, from where and under which path. Swapped whole at a reload.

use std::sync::{Arc, Once};

use crate::access::authenticate::{self, KnownKey, Presented};
use crate::access::origin::Origins;
use crate::access::policy::Principal;
use crate::access::proxies::TrustedProxies;
use crate::config::Transports;
use crate::http::{Head, Peer};
use crate::protocol::call::PrincipalId;
use crate::protocol::quirks::Tolerance;

/// Whom a proxy serves, and those before it, in the order in which they passed it on.
const FORWARDED_FOR: &str = "x-forwarded-for";
/// The path under which a proxy serves the gateway.
const FORWARDED_PREFIX: &str = "x-forwarded-prefix";

/// What proxies say of whom they serve, and where. Only the first and the last count.
const FORWARDED: [&str; 4] =
    [FORWARDED_FOR, "x-forwarded-host", "x-forwarded-proto", FORWARDED_PREFIX];

/// Who is admitted, and where: what a reload may change of the doors.
#[derive(Debug)]
pub struct Admission {
    /// Who may come from where.
    pub origins: Origins,
    /// Whose `X-Forwarded-*` count.
    pub proxies: TrustedProxies,
    /// The path under which clients reach the gateway; empty where there is none.
    pub prefix: String,
    /// Keys; empty means that none is asked for.
    pub keys: Vec<KnownKey>,
    /// Which transports serve.
    pub transports: Transports,
    /// Whether known quirks of clients are tolerated.
    pub tolerance: Tolerance,
    /// How many came before it. Counted by [`super::Front::readmit`].
    pub generation: u64,
}

impl Admission {
    /// Who sent a request: where it came from a proxy that is trusted, whom that names.
    pub(super) fn peer(&self, head: &Head) -> Peer {
        let named = head.headers.get_all(FORWARDED_FOR);
        self.proxies.client(head.peer.ip(), named).map_or(Peer::Unix, Peer::Ip)
    }

    /// Says once that a proxy's headers count for nothing, because nobody trusts it: else every
    /// client would seem to be at the proxy's address, and nobody would know why.
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

    /// Whose key a request has.
    pub(super) fn principal(&self, head: &Head) -> Option<Arc<Principal>> {
        authenticate::authenticate(&self.keys, Admission::presented(head))
    }

    pub(super) fn presented(head: &Head) -> Presented<'_> {
        Presented {
            authorization: head.headers.get("authorization"),
            litellm: head.headers.get("x-litellm-api-key"),
            api_key: head.headers.get("x-api-key"),
        }
    }

    /// Whose share of what is bounded a request takes: its key's, and without one that of the
    /// address that it came from. None where nobody else can come: where there is one key, and
    /// without keys for this machine, whose owner's processes nothing tells apart.
    pub(super) fn charged(&self, principal: &Principal, peer: Peer) -> Option<PrincipalId> {
        match (&principal.name, peer) {
            (Some(name), _) => self.charged_key(name),
            (None, Peer::Ip(ip)) if !ip.is_loopback() => Some(PrincipalId::of_address(ip)),
            (None, Peer::Ip(_) | Peer::Unix) => None,
        }
    }

    /// A path as the gateway knows it, whether or not a proxy has taken the prefix away.
    pub(super) fn own_path<'a>(&self, path: &'a str) -> &'a str {
        match path.strip_prefix(self.prefix.as_str()) {
            Some("") => "/",
            Some(own) if own.starts_with('/') => own,
            Some(_) | None => path,
        }
    }

    /// What stands before the gateway's own paths in what this client is told.
    pub(super) fn prefix_for<'a>(&'a self, head: &'a Head) -> &'a str {
        let said = head.headers.get(FORWARDED_PREFIX);
        self.proxies.prefix(head.peer.ip(), said).unwrap_or(&self.prefix)
    }

    pub(super) fn charged_key(&self, name: &Arc<str>) -> Option<PrincipalId> {
        (self.keys.len() > 1).then(|| PrincipalId::Key(name.clone()))
    }

    pub(super) fn principal_named(&self, name: &str) -> Option<&Arc<Principal>> {
        let mut principals = self.keys.iter().map(|key| &key.principal);
        principals.find(|it| it.name.as_deref() == Some(name))
    }

    /// The names of the keys that may use something else than before.
    pub(super) fn differing_from(&self, old: &Admission) -> Vec<Arc<str>> {
        let names = self.keys.iter().filter_map(|key| key.principal.name.as_ref());
        let policy = |of: &Admission, name: &str| {
            of.principal_named(name).map(|principal| principal.policy.clone())
        };
        names.filter(|name| policy(self, name) != policy(old, name)).cloned().collect()
    }
}
