//! Pure: signed texts in compact form (JWS, RFC 7515), read within bounds. What they say is not
//! true before their signature has been checked.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::jwk::algorithm_named;
use super::signing_key::Algorithm;
use crate::limits::{JOSE_HEADER_BYTES_MAX, KEY_ID_BYTES_MAX, TOLD_NAME_CHARS_MAX};
use crate::protocol::raw::RawObject;

/// A text in compact form, taken apart.
#[derive(Clone)]
pub struct Jws<'a> {
    /// The text that is signed: header and payload as they were written.
    pub signed: &'a str,
    /// The algorithm that the header names.
    pub algorithm: Algorithm,
    /// The id of the key that the header names.
    pub kid: Option<String>,
    /// The media type that the header names, in lower case and without `application/`.
    pub typ: Option<String>,
    /// The key in the header, a JSON text: nothing says yet whose it is.
    pub jwk: Option<String>,
    /// The payload: a JSON object's text.
    pub payload: String,
    /// The signature.
    pub signature: Vec<u8>,
}

impl std::fmt::Debug for Jws<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Jws").field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

/// Why a text is no JWS of use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UnusableJws {
    /// It is longer than it may be.
    TooLong,
    /// It does not have three parts.
    NotThreeParts,
    /// It is encrypted (JWE, RFC 7516).
    Encrypted,
    /// A part is no base64url, or a header or payload is no JSON object, has a member twice, or a
    /// member of the wrong type.
    Malformed(&'static str),
    /// The algorithm is none of [`Algorithm`]: `none`, one with a shared secret, or an unknown one.
    Algorithm(String),
    /// It has extensions that a reader must understand (RFC 7515, section 4.1.11).
    Critical,
}

impl std::fmt::Display for UnusableJws {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::TooLong => f.write_str("it is too long"),
            Self::NotThreeParts => f.write_str("it does not have three parts"),
            Self::Encrypted => f.write_str("it is encrypted"),
            Self::Malformed(what) => f.write_str(what),
            Self::Algorithm(name) => write!(f, "its algorithm is {name:?}"),
            Self::Critical => f.write_str("its header has critical extensions"),
        }
    }
}

/// True if a text has the form of a JWS: three parts, of which the first begins as the base64url of
/// a JSON object does, with or without white space in it.
pub fn has_form(text: &str) -> bool {
    let begins = text.starts_with("ey") || text.starts_with("ew");
    begins && text.bytes().filter(|byte| *byte == b'.').count() == 2
}

impl<'a> Jws<'a> {
    /// Takes a text of at most `bytes_max` bytes apart.
    ///
    /// # Errors
    /// It is none of use.
    pub fn parse(text: &'a str, bytes_max: usize) -> Result<Jws<'a>, UnusableJws> {
        if text.len() > bytes_max {
            return Err(UnusableJws::TooLong);
        }
        let parts = text.bytes().filter(|byte| *byte == b'.').count() + 1;
        let split = text.rsplit_once('.');
        let (signed, signature) = match (split, parts) {
            (Some(split), 3) => split,
            (_, 5) => return Err(UnusableJws::Encrypted),
            (Some(_) | None, _) => return Err(UnusableJws::NotThreeParts),
        };
        let (header, payload) = signed.split_once('.').ok_or(UnusableJws::NotThreeParts)?;
        let header = decode(header, "its header is no base64url")?;
        if header.len() > JOSE_HEADER_BYTES_MAX {
            return Err(UnusableJws::TooLong);
        }
        let header = text_of(header, "its header is no text")?;
        let header = RawObject::parse(&header)
            .map_err(|_| UnusableJws::Malformed("its header is no JSON object"))?;
        let member = |name: &str| {
            header
                .string(name)
                .map_err(|_| UnusableJws::Malformed("a member of its header is no string"))
        };
        let algorithm = algorithm(member("alg")?)?;
        if header.get("crit").is_some() {
            return Err(UnusableJws::Critical);
        }
        let kid = member("kid")?;
        if kid.as_ref().is_some_and(|kid| kid.len() > KEY_ID_BYTES_MAX) {
            return Err(UnusableJws::Malformed("its key id is too long"));
        }
        let payload = decode(payload, "its payload is no base64url")?;
        Ok(Jws {
            signed,
            algorithm,
            kid,
            typ: member("typ")?.map(|typ| media_type(&typ)),
            jwk: header.get("jwk").map(str::to_owned),
            payload: text_of(payload, "its payload is no text")?,
            signature: decode(signature, "its signature is no base64url")?,
        })
    }
}

fn algorithm(name: Option<String>) -> Result<Algorithm, UnusableJws> {
    let name = name.ok_or(UnusableJws::Malformed("its header names no algorithm"))?;
    algorithm_named(&name).ok_or_else(|| UnusableJws::Algorithm(told(&name)))
}

fn decode(part: &str, what: &'static str) -> Result<Vec<u8>, UnusableJws> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| UnusableJws::Malformed(what))
}

fn text_of(bytes: Vec<u8>, what: &'static str) -> Result<String, UnusableJws> {
    String::from_utf8(bytes).map_err(|_| UnusableJws::Malformed(what))
}

/// RFC 7515, section 4.1.9: `application/` may be left out; media types have no case.
fn media_type(typ: &str) -> String {
    let typ = typ.to_ascii_lowercase();
    typ.strip_prefix("application/").map_or(typ.clone(), str::to_owned)
}

/// The beginning of a name that somebody else has chosen, good for a line.
pub(crate) fn told(name: &str) -> String {
    let shown = |c: char| if c.is_ascii_graphic() && c != '"' && c != '\\' { c } else { '_' };
    name.chars().take(TOLD_NAME_CHARS_MAX).map(shown).collect()
}
