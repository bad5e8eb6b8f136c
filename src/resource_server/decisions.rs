//! Pure: the tokens that were accepted, and those that were refused, each remembered by its digest.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::accepted::Accepted;
use super::denied::Denied;
use super::token_digest::TokenDigest;
use crate::limits::{
    DECISIONS_BYTES_MAX, DECISIONS_MAX, DECISIONS_PER_USER_MAX, REFUSAL_LIFE, REFUSALS_MAX,
};

/// The tokens that were accepted.
#[derive(Debug, Default)]
pub(super) struct Decisions {
    by_token: HashMap<TokenDigest, Decision>,
    /// The tokens of each user, the oldest first.
    by_user: HashMap<Arc<str>, VecDeque<TokenDigest>>,
    /// Bytes of all claims.
    pub(super) bytes: usize,
}

#[derive(Debug)]
struct Decision {
    accepted: Arc<Accepted>,
    /// The second of its last use, since the epoch.
    used_at: AtomicU64,
}

impl Decisions {
    /// The token of that digest, if it was accepted.
    pub(super) fn get(&self, digest: &TokenDigest, now: u64) -> Option<&Arc<Accepted>> {
        let decision = self.by_token.get(digest)?;
        // Most uses come in the same second as another one, and a store would make the processors
        // pass the line around.
        if decision.used_at.load(Ordering::Relaxed) != now {
            decision.used_at.store(now, Ordering::Relaxed);
        }
        Some(&decision.accepted)
    }

    /// Remembers a token, in the place of what was remembered of it. Others make room: those of
    /// the same user first, then those that were used longest ago.
    pub(super) fn insert(&mut self, accepted: Arc<Accepted>, now: u64) {
        let digest = accepted.digest;
        self.remove(&digest);
        let Some(user) = accepted.principal.id.clone() else { return };
        let n_of_user = self.by_user.get(&user).map_or(0, VecDeque::len);
        if n_of_user >= DECISIONS_PER_USER_MAX
            && let Some(oldest) = self.by_user.get(&user).and_then(|all| all.front().copied())
        {
            self.remove(&oldest);
        }
        self.bytes += accepted.n_bytes();
        while self.by_token.len() >= DECISIONS_MAX
            || self.bytes > DECISIONS_BYTES_MAX && !self.by_token.is_empty()
        {
            self.make_room();
        }
        self.by_user.entry(user).or_default().push_back(digest);
        self.by_token.insert(digest, Decision { accepted, used_at: AtomicU64::new(now) });
    }

    /// Forgets a token.
    pub(super) fn remove(&mut self, digest: &TokenDigest) {
        let Some(Decision { accepted, .. }) = self.by_token.remove(digest) else { return };
        self.bytes -= accepted.n_bytes();
        let Some(user) = &accepted.principal.id else { return };
        if let Some(tokens) = self.by_user.get_mut(user) {
            tokens.retain(|it| it != digest);
            if tokens.is_empty() {
                self.by_user.remove(user);
            }
        }
    }

    /// Forgets the eighth that was used longest ago: seldom, and many at once, because all are
    /// looked through.
    fn make_room(&mut self) {
        let used_at = |it: &Decision| it.used_at.load(Ordering::Relaxed);
        let mut all: Vec<_> =
            self.by_token.iter().map(|(key, it)| (used_at(it), *key)).collect();
        let n_forgotten = (all.len() / 8).max(1);
        all.sort_unstable_by_key(|(used_at, _)| *used_at);
        for (_, digest) in all.into_iter().take(n_forgotten) {
            self.remove(&digest);
        }
    }

    /// The number of tokens that are remembered.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.by_token.len()
    }
}

/// A token, and the place in the configuration of an issuer that was asked about it.
pub(super) type Asked = (TokenDigest, usize);

/// The tokens that were refused after an issuer was asked, for a short while.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    by_token: HashMap<Asked, Denied>,
    order: VecDeque<(Instant, Asked)>,
}

impl Refusals {
    /// The refusal of that token, if it was refused a short while ago.
    pub(super) fn get(&self, asked: &Asked) -> Option<&Denied> {
        self.by_token.get(asked)
    }

    /// Remembers a refusal; the oldest makes room.
    pub(super) fn insert(&mut self, asked: Asked, denied: Denied, now: Instant) {
        self.sweep(now);
        if self.by_token.len() >= REFUSALS_MAX
            && let Some((_, oldest)) = self.order.pop_front()
        {
            self.by_token.remove(&oldest);
        }
        if self.by_token.insert(asked, denied).is_none() {
            self.order.push_back((now, asked));
        }
    }

    /// Forgets what was refused too long ago.
    pub(super) fn sweep(&mut self, now: Instant) {
        let is_over = |at: &Instant| now.saturating_duration_since(*at) >= REFUSAL_LIFE;
        while let Some((_, asked)) = self.order.pop_front_if(|(at, _)| is_over(at)) {
            self.by_token.remove(&asked);
        }
    }
}
