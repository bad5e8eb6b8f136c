//! The identity of a user's credentials for one server, without the credentials.

/// A digest of one principal's credentials for one server. Sessions, connections, lists and
/// children that were made with credentials are kept under it, so that nobody else uses them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CredentialsId([u8; 16]);

impl CredentialsId {
    /// The id with these bytes of a digest.
    pub(super) fn new(digest: [u8; 16]) -> CredentialsId {
        CredentialsId(digest)
    }

    /// The bytes of the digest.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}
