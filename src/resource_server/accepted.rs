//! A token that was accepted.

use std::sync::Arc;

use crate::access::policy::Principal;

/// An accepted token: whose it is, what it allows, and how long. Whatever outlives its request (a
/// stream, a session) keeps it to ask [`super::Verifier::standing`] from time to time, and
/// [`super::Verifier::reconsider`] after a reload.
#[derive(Debug)]
pub struct Accepted {
    /// The user with the rights that the rules give.
    pub principal: Arc<Principal>,
    /// The end of the token (`exp`), in seconds since the epoch. It is good for
    /// [`crate::limits::TOKEN_LEEWAY`] longer, as the clocks of issuers differ.
    pub expires_at: u64,
}

/// The present state of a token that was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It is good, as far as is known.
    Good,
    /// It has ended: its time is over, it was revoked, or its issuer has withdrawn the key that
    /// signed it.
    Ended,
}
