//! Pure: what another access token is wanted for.

/// What a token is wanted for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Want {
    /// The present one ends soon, or has ended.
    Renewal,
    /// The server has refused the one of this number, or wants one.
    Refused(Option<u64>),
    /// The present one is not good for these scopes.
    Scopes(String),
    /// Nothing: the present one could not be written, and is to be written again.
    Saving,
}
