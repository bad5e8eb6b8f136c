//! What the gateway gives a stateless client to bring back with its retry (2026-07-28,
//! basic/patterns/mrtr): authenticated, and good for one principal, one request and some time.

pub(crate) mod digest;
pub(in crate::downstream) mod used;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::protocol::raw::{self, RawObject};
use crate::protocol::sealed::Sealer;

/// Members of a request's parameters that a retry adds.
pub(crate) const ADDED: [&str; 2] = ["inputResponses", "requestState"];

/// What a retry goes on with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Sequel {
    /// A call that waits for its answers in this process.
    #[serde(rename = "p")]
    Parked {
        /// Which process.
        boot: u64,
        /// Which call.
        id: u64,
        /// How many times it was asked for answers before.
        round: u64,
    },
    /// A call that its server wants made again, with the server's own state.
    #[serde(rename = "s")]
    Server {
        /// Which server.
        server: String,
        /// Its state, if it gave one.
        state: Option<String>,
        /// Tells it from every other state.
        serial: u64,
        /// How many retries were free since a call was paid for.
        round: usize,
    },
}

#[derive(Serialize, Deserialize)]
struct Sealed {
    /// The key's name.
    n: Option<String>,
    /// The request's digest.
    d: String,
    /// When it expires, in seconds since 1970.
    x: u64,
    q: Sequel,
}

/// Makes and reads states for one request of one principal.
#[derive(Debug)]
pub(crate) struct States<'a> {
    /// What seals them.
    pub(crate) sealer: &'a Sealer,
    /// The name of the key that asks.
    pub(crate) principal: Option<&'a str>,
    /// See [`super::request_state::digest::digest`].
    pub(crate) digest: String,
}

impl States<'_> {
    /// The state for a sequel that may follow within `life`.
    pub(crate) fn seal(&self, sequel: Sequel, life: Duration) -> String {
        let sealed = Sealed {
            n: self.principal.map(str::to_owned),
            d: self.digest.clone(),
            x: now_seconds().saturating_add(life.as_secs().max(1)),
            q: sequel,
        };
        // A value made of strings and numbers always has a text.
        self.sealer.seal(&serde_json::to_string(&sealed).unwrap_or_default())
    }

    /// The sequel that a state stands for. None if it was made by somebody else, for another
    /// principal or another request, or has expired: which of these is nobody's business.
    pub(crate) fn open(&self, state: &str) -> Option<Sequel> {
        let sealed: Sealed = serde_json::from_str(&self.sealer.open(state)?).ok()?;
        let same = sealed.n.as_deref() == self.principal && sealed.d == self.digest;
        (same && now_seconds() < sealed.x).then_some(sealed.q)
    }
}

fn now_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Gives a server its own state back.
pub(crate) fn give_back(params: &mut RawObject<'_>, state: Option<String>) {
    match state {
        Some(state) => params.set("requestState", raw::string(&state)),
        None => drop(params.remove("requestState")),
    }
}

/// Takes what a retry has added away.
pub(crate) fn without_added(params: &mut RawObject<'_>) {
    for name in ADDED {
        params.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_opens_for_its_own_request_and_principal_until_it_expires() {
        let sealer = Sealer::new(&[3; 32], "state");
        let states = |principal, digest: &str| States {
            sealer: &sealer,
            principal,
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
}
