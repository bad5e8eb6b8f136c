//! The `requestState` that the gateway gives a stateless client for its retry (2026-07-28,
//! basic/patterns/mrtr): authenticated, and valid for one principal, one request and some time.

pub(crate) mod digest;
pub(in crate::downstream) mod used;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

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

#[derive(Serialize, Deserialize)]
struct Sealed {
    /// The key's name, or the user's id.
    n: Option<String>,
    /// The request's digest.
    d: String,
    /// The time at which the state expires, in seconds since 1970.
    x: u64,
    q: Sequel,
}

/// Seals and opens states for one request of one principal.
#[derive(Debug)]
pub(crate) struct States<'a> {
    /// The sealer.
    pub(crate) sealer: &'a Sealer,
    /// The name of the request's key, or the id of its user.
    pub(crate) principal: Option<&'a str>,
    /// The request's digest, see [`super::request_state::digest::digest`].
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

    /// The sequel that a state stands for. None if the state was made elsewhere, for another
    /// principal or another request, or has expired: the client is not told which.
    pub(crate) fn open(&self, state: &str) -> Option<Sequel> {
        let sealed: Sealed = serde_json::from_str(&self.sealer.open(state)?).ok()?;
        let same = sealed.n.as_deref() == self.principal && sealed.d == self.digest;
        (same && now_seconds() < sealed.x).then_some(sealed.q)
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
