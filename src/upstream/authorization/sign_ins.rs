//! The sign-ins that are under way, by their state: bounded in number and time, each good once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ring::digest::{SHA256, digest};

use crate::config::Secret;
use crate::limits::{SIGN_INS_MAX, SIGN_INS_OF_OWNER_MAX};
use crate::oauth::scope::Scopes;
use crate::sync::Mutex;

use super::kept::Grantor;
use super::{FinishedSignIn, ServerAuthorization};

/// A sign-in that has begun, as it was recorded before its browser was sent away.
pub(super) struct Begun {
    pub(super) whose: Arc<ServerAuthorization>,
    /// The one who is asked for the token: of its validated metadata alone (authorization,
    /// Authorization Response Validation).
    pub(super) grantor: Grantor,
    /// Its answers name the issuer (RFC 9207).
    pub(super) names_issuer: bool,
    pub(super) redirect_uri: String,
    pub(super) verifier: Secret,
    pub(super) scopes: Scopes,
    pub(super) until: Instant,
}

/// The sign-ins that are under way, each with the digest of its state.
#[derive(Default)]
pub(super) struct SignIns(Mutex<Vec<(Digest, Begun)>>);

/// A state is looked for by its digest, so that how long that takes tells nothing of others.
type Digest = [u8; 32];

fn digest_of(state: &str) -> Digest {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, state.as_bytes()).as_ref());
    out
}

/// The server and the owner of a sign-in.
pub(super) fn begun_by(begun: &Begun) -> FinishedSignIn {
    FinishedSignIn { server: begun.whose.server.clone(), owner: begun.whose.owner }
}

impl SignIns {
    /// Adds one. The oldest of its owner's, and of all, make room.
    pub(super) fn add(&self, state: &str, begun: Begun) {
        let mut gone = Vec::new();
        {
            let mut all = self.0.lock();
            let now = Instant::now();
            gone.extend(all.extract_if(.., |(_, it)| now >= it.until));
            let is_theirs = |it: &Begun| Arc::ptr_eq(&it.whose, &begun.whose);
            let n_theirs = all.iter().filter(|(_, it)| is_theirs(it)).count();
            if n_theirs >= SIGN_INS_OF_OWNER_MAX
                && let Some(at) = all.iter().position(|(_, it)| is_theirs(it))
            {
                gone.push(all.remove(at));
            } else if all.len() >= SIGN_INS_MAX {
                gone.push(all.remove(0));
            }
            all.push((digest_of(state), begun));
        }
        // What they hold is let go of where no lock is held.
        drop(gone);
    }

    /// Takes one out, which cannot be taken again.
    pub(super) fn take(&self, state: &str) -> Option<Begun> {
        let digest = digest_of(state);
        let (_, begun) = {
            let mut all = self.0.lock();
            let at = all.iter().position(|(it, _)| *it == digest)?;
            all.remove(at)
        };
        (Instant::now() < begun.until).then_some(begun)
    }

    /// Looks at one.
    pub(super) fn look<T>(&self, state: &str, look: impl FnOnce(&Begun) -> T) -> Option<T> {
        let digest = digest_of(state);
        let all = self.0.lock();
        let (_, begun) = all.iter().find(|(it, _)| *it == digest)?;
        (Instant::now() < begun.until).then(|| look(begun))
    }

    /// The time that is left to the last of an owner's; none if none is under way.
    pub(super) fn left_to(&self, whose: &ServerAuthorization) -> Option<Duration> {
        let now = Instant::now();
        let mut all = self.0.lock();
        // What is over holds secrets of which nobody has any use.
        let gone: Vec<_> = all.extract_if(.., |(_, it)| now >= it.until).collect();
        let theirs = all.iter().filter(|(_, it)| std::ptr::eq(&*it.whose, whose));
        let left = theirs.map(|(_, it)| it.until.saturating_duration_since(now)).max();
        drop(all);
        drop(gone);
        left
    }

    /// Forgets an owner's, because they are signed in or out.
    pub(super) fn forget(&self, whose: &ServerAuthorization) {
        let gone: Vec<_> =
            self.0.lock().extract_if(.., |(_, it)| std::ptr::eq(&*it.whose, whose)).collect();
        drop(gone);
    }

    /// Forgets all.
    pub(super) fn clear(&self) {
        let gone = std::mem::take(&mut *self.0.lock());
        drop(gone);
    }
}
