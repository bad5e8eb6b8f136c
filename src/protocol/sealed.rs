//! Sealed texts, which only this gateway can write and read: clients carry them and learn only
//! their length.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hmac;

/// Seals texts and opens them again. A text that was sealed for one purpose opens for no other.
/// The same text is sealed alike each time.
pub struct Sealer {
    /// None only for a key of a wrong length, which a digest never is.
    sealing: Option<LessSafeKey>,
    /// Makes the nonce of a text from the text: two texts share a nonce as seldom as a keyed hash
    /// cut to the nonce's length has the same value twice.
    nonces: hmac::Key,
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sealer")
    }
}

impl Sealer {
    /// A sealer for one purpose, from the gateway's key.
    pub fn new(key: &[u8; 32], purpose: &str) -> Sealer {
        let master = hmac::Key::new(hmac::HMAC_SHA256, key);
        let derived = |what: &str| hmac::sign(&master, format!("{purpose}\0{what}").as_bytes());
        let sealing = UnboundKey::new(&CHACHA20_POLY1305, derived("seal").as_ref());
        let nonces = hmac::Key::new(hmac::HMAC_SHA256, derived("nonce").as_ref());
        Sealer { sealing: sealing.ok().map(LessSafeKey::new), nonces }
    }

    /// The sealed form of `text`: visible ASCII, fit for a header.
    pub fn seal(&self, text: &str) -> String {
        self.seal_as("", text)
    }

    /// As [`Sealer::seal`], for the one place of that name: the text opens nowhere else.
    pub fn seal_as(&self, place: &str, text: &str) -> String {
        let mut nonce_input = hmac::Context::with_key(&self.nonces);
        if !place.is_empty() {
            nonce_input.update(place.as_bytes());
            nonce_input.update(&[0]);
        }
        nonce_input.update(text.as_bytes());
        let tag = nonce_input.sign();
        let mut nonce = [0; NONCE_LEN];
        nonce.iter_mut().zip(tag.as_ref()).for_each(|(to, from)| *to = *from);
        let mut sealed = text.as_bytes().to_vec();
        let unique = Nonce::assume_unique_for_key(nonce);
        let done = self.sealing.as_ref().map(|sealing| {
            sealing.seal_in_place_append_tag(unique, Aad::from(place), &mut sealed)
        });
        // This does not happen: sealing fails only for texts of more than 256 GiB.
        if !matches!(done, Some(Ok(()))) {
            return String::new();
        }
        format!("{}.{}", URL_SAFE_NO_PAD.encode(nonce), URL_SAFE_NO_PAD.encode(sealed))
    }

    /// The text that was sealed; none if it was not sealed by this sealer, or was changed.
    pub fn open(&self, sealed: &str) -> Option<String> {
        self.open_as("", sealed)
    }

    /// The text that was sealed by [`Sealer::seal_as`] for the place of that name.
    pub fn open_as(&self, place: &str, sealed: &str) -> Option<String> {
        let (nonce, sealed) = sealed.split_once('.')?;
        let nonce = URL_SAFE_NO_PAD.decode(nonce).ok()?;
        let nonce = Nonce::try_assume_unique_for_key(&nonce).ok()?;
        let mut sealed = URL_SAFE_NO_PAD.decode(sealed).ok()?;
        let opened = self.sealing.as_ref()?.open_in_place(nonce, Aad::from(place), &mut sealed);
        String::from_utf8(opened.ok()?.to_vec()).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sealed_for_one_place_opens_nowhere_else() {
        let sealer = Sealer::new(&[7; 32], "test");
        let sealed = sealer.seal_as("a", "hello");
        assert_eq!(sealer.open_as("a", &sealed).as_deref(), Some("hello"));
        assert_eq!(sealer.open_as("b", &sealed), None);
        assert_eq!(sealer.open(&sealed), None);
        assert_eq!(sealer.open_as("a", &sealer.seal("hello")), None);
    }

    #[test]
    fn what_was_sealed_opens_and_nothing_else_does() {
        let sealer = Sealer::new(&[7; 32], "test");
        let sealed = sealer.seal("héllo");
        assert!(sealed.bytes().all(|b| (0x21..=0x7e).contains(&b)), "{sealed}");
        assert_eq!(sealer.open(&sealed).as_deref(), Some("héllo"));
        assert_eq!(sealer.open(&sealer.seal("")).as_deref(), Some(""));
        assert_eq!(sealer.seal("héllo"), sealed, "pages are rendered once");
        assert_ne!(sealer.seal("hello"), sealed);
        assert_eq!(Sealer::new(&[8; 32], "test").open(&sealed), None);
        assert_eq!(Sealer::new(&[7; 32], "other").open(&sealed), None);
        for part in sealed.split('.') {
            let bytes = URL_SAFE_NO_PAD.decode(part).unwrap();
            assert!(!bytes.windows(2).any(|two| two == b"ll"), "it can be read");
        }
        for at in 0..sealed.len() {
            let mut forged = sealed.clone().into_bytes();
            forged[at] = if forged[at] == b'A' { b'B' } else { b'A' };
            let forged = String::from_utf8(forged).unwrap();
            assert_eq!(sealer.open(&forged), None, "byte {at}");
            assert_eq!(sealer.open(&sealed[..at]), None, "cut at {at}");
        }
    }
}
