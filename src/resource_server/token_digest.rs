//! Pure: the digest by which a token is remembered, so that its text is not.

use std::hash::Hash;

use crate::oauth::sha256::sha256;

/// The SHA-256 of a token.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct TokenDigest([u8; 32]);

impl std::fmt::Debug for TokenDigest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The digest of a token that is easily guessed gives it away.
        f.write_str("[digest]")
    }
}

impl Hash for TokenDigest {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        // Eight bytes of a digest are as good as all of them.
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        state.write_u64(u64::from_ne_bytes([a, b, c, d, e, f, g, h]));
    }
}

impl TokenDigest {
    /// The digest of a token.
    pub(super) fn of(token: &str) -> TokenDigest {
        TokenDigest(sha256(token))
    }
}
