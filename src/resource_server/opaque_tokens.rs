//! Opaque tokens: which issuers such a token is shown to. It does not say who has issued it, and
//! whoever sees it could use it (RFC 7662, section 4). So where several issuers introspect, they are
//! asked one after the other, in the order of the configuration, until one knows the token; from
//! then on that one alone is asked about it.

use std::net::IpAddr;
use std::sync::Arc;

use super::accepted::Accepted;
use super::denied::Denied;
use super::issuer::Issuer;
use super::presented::Now;
use super::token_digest::TokenDigest;
use super::verifier::Verifier;
use crate::oauth::jws::UnusableJws;
use crate::oauth::jwt::WrongToken;

/// What the denial by one issuer means for the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Says {
    /// It does not know the token.
    Nothing,
    /// It calls the token another issuer's, for which it cannot speak.
    OfAnother,
    /// It could not be asked.
    Unanswered,
    /// The token is its own, and of no use here.
    ItsOwn,
}

impl Says {
    fn of(denied: &Denied) -> Says {
        match denied {
            Denied::Token(WrongToken::Inactive) => Self::Nothing,
            Denied::Token(WrongToken::Issuer(_)) => Self::OfAnother,
            Denied::Unavailable { .. } => Self::Unanswered,
            Denied::Token(_) | Denied::Proof(_) | Denied::NoRule { .. } => Self::ItsOwn,
        }
    }
}

impl Verifier {
    /// Decides about an opaque token that is not known.
    pub(super) fn decide_opaque(
        &self,
        token: &str,
        digest: TokenDigest,
        peer: Option<IpAddr>,
        now: Now,
    ) -> Result<Arc<Accepted>, Denied> {
        let mut denied = Denied::Token(WrongToken::Form(UnusableJws::NotThreeParts));
        // RFC 6750, section 2.1.
        let is_token_byte = |b: u8| b.is_ascii_alphanumeric() || b"-._~+/=".contains(&b);
        if token.is_empty() || !token.bytes().all(is_token_byte) {
            return Err(denied);
        }
        let mut most = None;
        for issuer in self.issuers_of(&digest) {
            let Some(config) = &issuer.config.introspection else { continue };
            let why = match self.refused(&digest, issuer, now) {
                Some(why) => why,
                None => match self.ask(issuer, config, token, digest, None, peer, now) {
                    Ok(accepted) => {
                        self.note_issuer(digest, issuer);
                        return Ok(accepted);
                    }
                    Err(why) => why,
                },
            };
            // What says most of the token is told.
            let says = Says::of(&why);
            if most.is_none_or(|most| says > most) {
                (most, denied) = (Some(says), why);
            }
            if says == Says::ItsOwn {
                self.note_issuer(digest, issuer);
                break;
            }
        }
        Err(denied)
    }

    /// The issuers that are asked about an opaque token, in their order: the one that has known it
    /// before, else all that introspect. One that does not answer at present comes last, so that it
    /// holds up no tokens but its own.
    fn issuers_of(&self, digest: &TokenDigest) -> Vec<&Arc<Issuer>> {
        let of = |issuer: &&Arc<Issuer>| issuer.config.introspection.is_some();
        let mut all: Vec<_> = self.issuers.iter().filter(of).collect();
        if all.len() < 2 {
            return all;
        }
        if let Some(known) = self.shared.token_issuers.lock().get(digest)
            && let Some(issuer) = all.iter().find(|it| it.config.issuer == *known)
        {
            return vec![*issuer];
        }
        all.sort_by_cached_key(|issuer| issuer.introspecting.is_in_trouble());
        all
    }

    fn note_issuer(&self, digest: TokenDigest, issuer: &Issuer) {
        let introspect = self.issuers.iter().filter(|it| it.config.introspection.is_some());
        if introspect.count() > 1 {
            self.shared.token_issuers.lock().insert(digest, &issuer.config.issuer);
        }
    }
}
