//! Pure: what the statuses of servers say of credentials.

/// The status with which a server asks for credentials.
pub(super) const UNAUTHORIZED: u16 = 401;

/// What a server's status says of the credentials of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing.
    Passed,
    /// There are none, or they are not taken (RFC 6750, section 3.1).
    Unauthorized,
    /// They are not good for this request; the challenge says if others would be.
    Forbidden,
}

/// See [`Verdict`].
pub(super) fn verdict(status: u16) -> Verdict {
    match status {
        UNAUTHORIZED => Verdict::Unauthorized,
        403 => Verdict::Forbidden,
        _ => Verdict::Passed,
    }
}
