//! Pure: what the statuses of servers say of credentials.

/// The status with which a server asks for credentials.
pub(super) const UNAUTHORIZED: u16 = 401;

/// A server's judgement on the credentials of a request, by the status of its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing.
    Passed,
    /// There are none, or they are not taken (RFC 6750, section 3.1).
    Unauthorized,
    /// They are not good for this request; the challenge says if others would be.
    Forbidden,
}

/// The judgement of an answer with this status.
pub(super) fn verdict(status: u16) -> Verdict {
    match status {
        UNAUTHORIZED => Verdict::Unauthorized,
        403 => Verdict::Forbidden,
        _ => Verdict::Passed,
    }
}
