//! Pure: the issuers of opaque tokens, each remembered by the token's digest.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::token_digest::TokenDigest;
use crate::limits::TOKEN_ISSUERS_MAX;

/// The issuer that has called each token active first. A reload and the end of the token change
/// nothing of it: a token of one issuer is never one of another.
#[derive(Debug, Default)]
pub(super) struct TokenIssuers {
    by_token: HashMap<TokenDigest, Arc<str>>,
    /// The tokens in the order in which they came.
    order: VecDeque<TokenDigest>,
}

impl TokenIssuers {
    /// The issuer of that token, if one has known it.
    pub(super) fn get(&self, digest: &TokenDigest) -> Option<Arc<str>> {
        self.by_token.get(digest).cloned()
    }

    /// Remembers the issuer of a token; the token that came first makes room.
    pub(super) fn insert(&mut self, digest: TokenDigest, issuer: &str) {
        if self.by_token.get(&digest).is_some_and(|it| **it == *issuer) {
            return;
        }
        if self.by_token.len() >= TOKEN_ISSUERS_MAX
            && let Some(first) = self.order.pop_front()
        {
            self.by_token.remove(&first);
        }
        if self.by_token.insert(digest, issuer.into()).is_none() {
            self.order.push_back(digest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_token_makes_room() {
        let mut issuers = TokenIssuers::default();
        let digest = |n: usize| TokenDigest::of(&n.to_string());
        (0..TOKEN_ISSUERS_MAX).for_each(|n| issuers.insert(digest(n), "a"));
        issuers.insert(digest(1), "a");
        assert_eq!(issuers.get(&digest(0)).as_deref(), Some("a"));
        issuers.insert(digest(TOKEN_ISSUERS_MAX), "b");
        assert_eq!(issuers.get(&digest(0)), None);
        assert_eq!(issuers.get(&digest(1)).as_deref(), Some("a"));
        assert_eq!(issuers.get(&digest(TOKEN_ISSUERS_MAX)).as_deref(), Some("b"));
        assert_eq!(
            (issuers.by_token.len(), issuers.order.len()),
            (TOKEN_ISSUERS_MAX, TOKEN_ISSUERS_MAX)
        );
    }
}
