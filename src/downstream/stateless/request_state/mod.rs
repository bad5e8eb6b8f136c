//! The `requestState` that the gateway gives a stateless client for its retry (2026-07-28,
//! basic/patterns/mrtr): authenticated, and valid for one principal, one request and some time.

pub(crate) mod digest;
pub(in crate::downstream) mod used;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use crate::protocol::credentials::UserCredentials;
use crate::protocol::modern::RETRY_MEMBERS;
use crate::protocol::raw::{self, RawObject};
use crate::protocol::sealed::Sealer;

/// The call that a retry continues.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Sequel {
    /// A call that waits for its answers in this process.
    #[serde(rename = "p")]
    Parked {
        /// The number of the process.
        boot: u64,
        /// The id of the call.
        id: u64,
        /// The number of rounds of questions before.
        round: u64,
        /// The server that asks.
        #[serde(default, rename = "server")]
        asker: String,
    },
    /// A call that its server asks to be made again, with the server's own state.
    #[serde(rename = "s")]
    Server {
        /// The server.
        server: String,
        /// The server's state, if it gave one.
        state: Option<String>,
        /// A number that differs from every other state's.
        serial: u64,
        /// The number of free retries since a call was paid for.
        round: usize,
    },
}

impl Sequel {
    /// The server whose call it is.
    fn server(&self) -> &str {
        match self {
            Sequel::Parked { asker, .. } => asker,
            Sequel::Server { server, .. } => server,
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Sealed {
    /// The key's name, or the user's id.
    n: Option<String>,
    /// The digest of the user's credentials at the server, where these are the user's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    c: Option<String>,
    /// The request's digest.
    d: String,
    /// The time at which the state expires, in seconds since 1970.
    x: u64,
    q: Sequel,
}

/// Seals and opens states for one request of one principal, with that principal's credentials.
#[derive(Debug)]
pub(crate) struct States<'a> {
    /// The sealer.
    pub(crate) sealer: &'a Sealer,
    /// The name of the request's key, or the id of its user.
    pub(crate) principal: Option<&'a str>,
    /// The credentials of the request's user. A state is good for nobody with others at its
    /// server: a key may be shared by several who each forward their own.
    pub(crate) user: Option<&'a UserCredentials>,
    /// The request's digest, see [`super::request_state::digest::digest`].
    pub(crate) digest: String,
}

impl States<'_> {
    /// The state for a sequel that may follow within `life`.
    pub(crate) fn seal(&self, sequel: Sequel, life: Duration) -> String {
        let sealed = Sealed {
            n: self.principal.map(str::to_owned),
            c: self.credentials_at(sequel.server()),
            d: self.digest.clone(),
            x: now_seconds().saturating_add(life.as_secs().max(1)),
            q: sequel,
        };
        // A value made of strings and numbers always has a text.
        self.sealer.seal(&serde_json::to_string(&sealed).unwrap_or_default())
    }

    /// The sequel that a state stands for. None if the state was made elsewhere, for another
    /// principal, other credentials or another request, or has expired: the client is not told
    /// which.
    pub(crate) fn open(&self, state: &str) -> Option<Sequel> {
        let sealed: Sealed = serde_json::from_str(&self.sealer.open(state)?).ok()?;
        let same = sealed.n.as_deref() == self.principal
            && sealed.c == self.credentials_at(sealed.q.server())
            && sealed.d == self.digest;
        (same && now_seconds() < sealed.x).then_some(sealed.q)
    }

    fn credentials_at(&self, server: &str) -> Option<String> {
        let id = self.user?.own_id_at(server)?;
        Some(URL_SAFE_NO_PAD.encode(id.as_bytes()))
    }
}

fn now_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Puts a server's own state into the parameters.
pub(crate) fn give_back(params: &mut RawObject<'_>, state: Option<String>) {
    match state {
        Some(state) => params.set("requestState", raw::string(&state)),
        None => drop(params.remove("requestState")),
    }
}

/// Removes the parameters that a retry has added.
pub(crate) fn without_added(params: &mut RawObject<'_>) {
    for name in RETRY_MEMBERS {
        params.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::credentials::PerUser;
    use crate::protocol::server_name::ServerName;

    #[test]
    fn a_state_opens_for_its_own_request_and_principal_until_it_expires() {
        let sealer = Sealer::new(&[3; 32], "state");
        let states = |principal, digest: &str| States {
            sealer: &sealer,
            principal,
            user: None,
            digest: digest.to_owned(),
        };
        let sequel = Sequel::Server {
            server: "a".into(),
            state: Some("its own".into()),
            serial: 1,
            round: 0,
        };
        let mine = states(Some("k"), "d");
        let state = mine.seal(sequel.clone(), Duration::from_secs(60));
        assert_eq!(mine.open(&state), Some(sequel));
        assert_eq!(states(Some("l"), "d").open(&state), None);
        assert_eq!(states(None, "d").open(&state), None);
        assert_eq!(states(Some("k"), "e").open(&state), None);
        assert_eq!(mine.open(&format!("{state}x")), None);
    }

    #[test]
    fn a_state_opens_for_the_same_credentials_at_its_server_alone() {
        let sealer = Sealer::new(&[3; 32], "state");
        let [of, other] = ["of", "other"].map(|name| ServerName::parse(name).unwrap());
        let names = vec!["authorization".to_owned()];
        let per_user = PerUser {
            forwarding: vec![(of, names.clone()), (other, names)],
            naming: Vec::new(),
        };
        let user = |fields: &[(&'static str, &'static str)]| {
            let fields = fields.iter().copied();
            per_user.credentials(UserCredentials::default(), |_| None, fields)
        };
        let states = |user| States {
            sealer: &sealer,
            principal: Some("k"),
            user,
            digest: "d".to_owned(),
        };
        let (one, two) = (
            user(&[("x-mcp-of-authorization", "1"), ("x-mcp-other-authorization", "1")]),
            user(&[("x-mcp-of-authorization", "2"), ("x-mcp-other-authorization", "1")]),
        );
        let renewed =
            user(&[("x-mcp-of-authorization", "1"), ("x-mcp-other-authorization", "2")]);
        let asker = "of".to_owned();
        let parked = Sequel::Parked { boot: 1, id: 2, round: 0, asker };
        let server = Sequel::Server {
            server: "of".into(),
            state: Some("its own".into()),
            serial: 1,
            round: 0,
        };
        for sequel in [parked, server] {
            let state = states(one.as_ref()).seal(sequel.clone(), Duration::from_secs(60));
            assert_eq!(states(one.as_ref()).open(&state), Some(sequel.clone()));
            // What the user has at another server is no matter of this one.
            assert_eq!(states(renewed.as_ref()).open(&state), Some(sequel.clone()));
            assert_eq!(states(two.as_ref()).open(&state), None);
            assert_eq!(states(None).open(&state), None);
            let of_nobody = states(None).seal(sequel, Duration::from_secs(60));
            assert_eq!(states(one.as_ref()).open(&of_nobody), None);
        }
    }
}
