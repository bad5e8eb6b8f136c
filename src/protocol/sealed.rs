//! Texts that only this gateway can have written: authenticated, not secret.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;

/// Seals texts and opens them again. What was sealed for one purpose opens for no other.
pub struct Sealer(hmac::Key);

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sealer")
    }
}

impl Sealer {
    /// A sealer for one purpose, from the gateway's key.
    pub fn new(key: &[u8; 32], purpose: &str) -> Sealer {
        let master = hmac::Key::new(hmac::HMAC_SHA256, key);
        let derived = hmac::sign(&master, purpose.as_bytes());
        Sealer(hmac::Key::new(hmac::HMAC_SHA256, derived.as_ref()))
    }

    /// The sealed form of `text`: visible ASCII, fit for a header.
    pub fn seal(&self, text: &str) -> String {
        let body = URL_SAFE_NO_PAD.encode(text);
        let tag = hmac::sign(&self.0, body.as_bytes());
        format!("{body}.{}", URL_SAFE_NO_PAD.encode(tag.as_ref()))
    }

    /// The text that was sealed; none if it was not sealed by this sealer, or was changed.
    pub fn open(&self, sealed: &str) -> Option<String> {
        let (body, tag) = sealed.split_once('.')?;
        let tag = URL_SAFE_NO_PAD.decode(tag).ok()?;
        hmac::verify(&self.0, body.as_bytes(), &tag).ok()?;
        String::from_utf8(URL_SAFE_NO_PAD.decode(body).ok()?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::Sealer;

    #[test]
    fn what_was_sealed_opens_and_nothing_else_does() {
        let sealer = Sealer::new(&[7; 32], "test");
        let sealed = sealer.seal("héllo");
        assert!(sealed.bytes().all(|b| (0x21..=0x7e).contains(&b)), "{sealed}");
        assert_eq!(sealer.open(&sealed).as_deref(), Some("héllo"));
        assert_eq!(Sealer::new(&[8; 32], "test").open(&sealed), None);
        assert_eq!(Sealer::new(&[7; 32], "other").open(&sealed), None);
        for at in 0..sealed.len() {
            let mut forged = sealed.clone().into_bytes();
            forged[at] = if forged[at] == b'A' { b'B' } else { b'A' };
            let forged = String::from_utf8(forged).unwrap();
            assert_eq!(sealer.open(&forged), None, "byte {at}");
            assert_eq!(sealer.open(&sealed[..at]), None, "cut at {at}");
        }
    }
}
