//! The identity of a user's credentials for one server, without the credentials.

use std::fmt;

/// A digest of one principal's credentials for one server. Sessions, connections, lists and
/// children that were made with credentials are kept under it, so that nobody else uses them. Its
/// text is the digest in lower-case hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CredentialsId([u8; 16]);

impl CredentialsId {
    /// The id with these bytes of a digest.
    pub(super) fn new(digest: [u8; 16]) -> CredentialsId {
        CredentialsId(digest)
    }

    /// The id with this text; none if it is no text of an id.
    pub fn parse(text: &str) -> Option<CredentialsId> {
        let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if text.len() != 32 || !text.bytes().all(is_digit) {
            return None;
        }
        Some(CredentialsId(u128::from_str_radix(text, 16).ok()?.to_be_bytes()))
    }

    /// The bytes of the digest.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for CredentialsId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_from_its_text_and_from_no_other() {
        let id = CredentialsId::new([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 255]);
        let text = id.to_string();
        assert_eq!(text, "000102030405060708090a0b0c0d0eff");
        assert_eq!(CredentialsId::parse(&text), Some(id));
        for other in ["", "gateway", &text[1..], &text.to_uppercase(), &format!("{text}.lock")]
        {
            assert_eq!(CredentialsId::parse(other), None, "{other}");
        }
        assert_eq!(CredentialsId::parse(&format!("+{}", &text[1..])), None);
    }
}
