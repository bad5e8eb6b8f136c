//! Pure: session ids that carry their session's properties as a sealed token, which only the
//! gateway can read.

use serde::{Deserialize, Serialize};

use crate::limits::SESSION_TOKEN_CAPABILITIES_BYTES_MAX;
use crate::protocol::call::Caller;
use crate::protocol::raw::{Raw, RawObject};
use crate::protocol::revision::Revision;
use crate::protocol::sealed::Sealer;
use crate::protocol::server_name::ServerName;

/// The claims of a token.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Claims {
    /// A random text, which makes the session's id unique.
    pub(crate) id: String,
    /// The process that issued the token.
    pub(crate) boot: String,
    /// The name of the key, or the id of the user, that opened the session.
    pub(crate) principal: Option<String>,
    /// The negotiated revision.
    pub(crate) revision: Revision,
    /// The client's capabilities; none if they were too large to carry.
    pub(crate) capabilities: Option<String>,
    /// The one server of a per-server endpoint.
    pub(crate) only: Option<ServerName>,
    /// The servers of the narrowing header.
    pub(crate) narrowed: Option<Vec<ServerName>>,
    /// Seconds since the epoch at which the token ends for good.
    pub(crate) expires: u64,
}

impl Claims {
    /// The caller of the session, as far as a token carries it; none where the capabilities were
    /// too large.
    pub(crate) fn caller(&self) -> Option<Caller> {
        let capabilities = self.capabilities.clone()?;
        RawObject::parse(&capabilities).ok()?;
        Some(Caller {
            revision: self.revision,
            capabilities: Raw::from_valid(capabilities),
            log_level: None,
            client: None,
        })
    }
}

/// The claims as the token encodes them: with short keys, because every request carries them.
#[derive(Serialize, Deserialize)]
struct Wire {
    i: String,
    b: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    p: Option<String>,
    r: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    c: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    o: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    n: Option<Vec<String>>,
    e: u64,
}

/// Makes and reads tokens.
#[derive(Debug)]
pub(crate) struct Signer(Sealer);

impl Signer {
    /// A signer with the gateway's key.
    pub(crate) fn new(key: &[u8; 32]) -> Signer {
        Signer(Sealer::new(key, "session"))
    }

    /// The token that carries `claims`: visible ASCII, as the specification wants session ids.
    pub(crate) fn sign(&self, claims: &Claims) -> String {
        let small = |text: &String| text.len() <= SESSION_TOKEN_CAPABILITIES_BYTES_MAX;
        let wire = Wire {
            i: claims.id.clone(),
            b: claims.boot.clone(),
            p: claims.principal.clone(),
            r: claims.revision.as_str().to_owned(),
            c: claims.capabilities.clone().filter(small),
            o: claims.only.as_ref().map(ToString::to_string),
            n: claims
                .narrowed
                .as_ref()
                .map(|list| list.iter().map(ToString::to_string).collect()),
            e: claims.expires,
        };
        // A struct of strings and numbers always serialises.
        self.0.seal(&serde_json::to_string(&wire).unwrap_or_default())
    }

    /// The claims of a token, if this key signed it and it has not expired.
    pub(crate) fn read(&self, token: &str, now_seconds: u64) -> Option<Claims> {
        let wire: Wire = serde_json::from_str(&self.0.open(token)?).ok()?;
        let names = |list: Vec<String>| -> Option<Vec<ServerName>> {
            list.iter().map(|name| ServerName::parse(name)).collect()
        };
        let claims = Claims {
            id: wire.i,
            boot: wire.b,
            principal: wire.p,
            revision: Revision::parse_legacy(&wire.r)?,
            capabilities: wire.c,
            only: match wire.o {
                Some(name) => Some(ServerName::parse(&name)?),
                None => None,
            },
            narrowed: match wire.n {
                Some(list) => Some(names(list)?),
                None => None,
            },
            expires: wire.e,
        };
        (claims.expires > now_seconds).then_some(claims)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims() -> Claims {
        Claims {
            id: "abc".to_owned(),
            boot: "boot".to_owned(),
            principal: Some("laptop".to_owned()),
            revision: Revision::V2025_06_18,
            capabilities: Some(r#"{"roots":{}}"#.to_owned()),
            only: ServerName::parse("a"),
            narrowed: Some(vec![ServerName::parse("a").unwrap()]),
            expires: 100,
        }
    }

    #[test]
    fn a_token_reads_back_until_it_expires() {
        let signer = Signer::new(&[7; 32]);
        let token = signer.sign(&claims());
        assert_eq!(signer.read(&token, 99), Some(claims()));
        assert_eq!(signer.read(&token, 100), None);
    }

    #[test]
    fn capabilities_over_the_bound_are_not_carried() {
        let signer = Signer::new(&[7; 32]);
        let large = "x".repeat(SESSION_TOKEN_CAPABILITIES_BYTES_MAX + 1);
        let token = signer.sign(&Claims { capabilities: Some(large), ..claims() });
        let read = signer.read(&token, 0).unwrap();
        assert_eq!(read.capabilities, None);
        assert_eq!(read.caller(), None);
    }
}
