//! Who sends a request: the key or the access token that came with it, and the refusal where
//! neither is good.

use std::sync::Arc;
use std::time::Instant;

use super::Front;
use super::admission::Admission;
use super::oauth::protected_resource::{PROOF_ALGORITHMS, metadata_url};
use super::second_look::{self, Look};
use super::status_codes::Problem;
use crate::access::authenticate::{self, KeyHeaders};
use crate::access::policy::{Lease, OptionalLease, Principal, Scope};
use crate::http::Head;
use crate::limits::TOKEN_LEASE_MAX;
use crate::oauth::challenge::TokenChallenge;
use crate::oauth::token::TokenType;
use crate::protocol::headers::DPOP;
use crate::resource_server::{
    Accepted, Denied, ErrorCode, Now, Presented, Standing, Token, Verifier, token_in,
};
use crate::sync::RwLock;
use crate::telemetry;
use crate::wait::Wait;

/// Headers by which a proxy shows that it passes another client's request on.
const OF_PROXIES: [&str; 7] = [
    "forwarded",
    "via",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-prefix",
    "x-forwarded-proto",
    "x-real-ip",
];

/// The present verifier of access tokens, shared with whatever outlives a request.
#[derive(Debug, Default)]
pub struct Tokens(RwLock<Option<Arc<Verifier>>>);

impl Tokens {
    /// Sets the verifier of the present configuration; none where it has no issuers.
    pub fn set(&self, verifier: Option<Arc<Verifier>>) {
        *self.0.write() = verifier;
    }

    fn verifier(&self) -> Option<Arc<Verifier>> {
        self.0.read().clone()
    }
}

/// The lease of an access token.
#[derive(Debug)]
struct TokenLease {
    tokens: Arc<Tokens>,
    accepted: Arc<Accepted>,
}

impl Lease for TokenLease {
    fn principal(&self) -> &Arc<Principal> {
        &self.accepted.principal
    }

    fn present(&self) -> Option<Arc<Principal>> {
        self.tokens.verifier()?.present(&self.accepted, Now::read())
    }

    fn is_good(&self) -> bool {
        let now = Now::read();
        self.tokens.verifier().is_some_and(|verifier| {
            verifier.standing(&self.accepted, now) == Standing::Good
                && verifier.admits(&self.accepted, now)
        })
    }

    fn ends(&self) -> Instant {
        let now = Now::read();
        // A token that never ends has a time that no clock can count to.
        now.instant + self.accepted.time_left(now).min(TOKEN_LEASE_MAX)
    }
}

/// The sender of a request.
#[derive(Debug, Clone)]
pub(super) struct Identified {
    pub(super) principal: Arc<Principal>,
    pub(super) lease: OptionalLease,
}

impl Identified {
    pub(super) fn of(principal: Arc<Principal>) -> Identified {
        Identified { principal, lease: None }
    }

    fn with_token(tokens: &Arc<Tokens>, accepted: Arc<Accepted>) -> Identified {
        let principal = accepted.principal.clone();
        let lease = Arc::new(TokenLease { tokens: tokens.clone(), accepted });
        Identified { principal, lease: Some(lease) }
    }
}

/// The reason why a request has no principal.
#[derive(Debug)]
pub(super) enum Unidentified {
    /// The request has neither a key nor a token.
    Nothing,
    /// The request has a key or a token where only keys are known, and it is none of them.
    WrongKey,
    /// The token, which came with that scheme, gives no rights.
    Denied(TokenType, Denied),
    /// The token, which came with that scheme, is for another resource than the one that it came
    /// to.
    OtherResource(TokenType),
}

impl Front {
    /// The sender of a request.
    ///
    /// Keys come first, and cost what they cost without issuers. A text that is no key is looked
    /// at as an access token only in `Authorization`, and only where issuers are configured.
    pub(super) fn identify(
        &self,
        admission: &Admission,
        head: &Head,
        look: Look,
    ) -> Result<Identified, Unidentified> {
        if admission.is_open() {
            return Ok(Identified::of(self.without_key(head)));
        }
        if look == Look::Whole
            && let Some(sender) = second_look::recall(head, admission.generation)
        {
            return Ok(sender);
        }
        if let Some(principal) = admission.principal(head) {
            return Ok(Identified::of(principal));
        }
        let authorization = head.headers.get("authorization");
        match (&admission.verifier, authorization.and_then(token_in)) {
            (Some(verifier), Some((scheme, token))) if !token.0.is_empty() => {
                let verify = |presented: &Presented<'_>| {
                    let accepted = verifier.verify(presented, Now::read());
                    accepted.map_err(|denied| Unidentified::Denied(scheme, denied))
                };
                let accepted = with_token(admission, head, (scheme, token), verify)?;
                let sender = Identified::with_token(&self.tokens, accepted);
                if look == Look::BeforeBody {
                    second_look::remember(head, admission.generation, &sender);
                }
                Ok(sender)
            }
            _ if authenticate::has_key(Admission::key_headers(head)) => {
                Err(Unidentified::WrongKey)
            }
            _ => Err(Unidentified::Nothing),
        }
    }

    /// The sender of a request that is served to anybody, and tells some more: nobody where it is
    /// not known at once. No issuer is asked, since a health check must not wait for one.
    pub(super) fn identify_at_once(&self, admission: &Admission, head: &Head) -> Identified {
        if admission.is_open() {
            return Identified::of(self.without_key(head));
        }
        if let Some(principal) = admission.principal(head) {
            return Identified::of(principal);
        }
        let presented = head.headers.get("authorization").and_then(token_in);
        let known =
            admission.verifier.as_ref().zip(presented).and_then(|(verifier, presented)| {
                let known = |presented: &Presented<'_>| {
                    verifier.verify_known(presented, Now::read()).ok_or(Unidentified::WrongKey)
                };
                with_token(admission, head, presented, known).ok()
            });
        known.map_or_else(
            || Identified::of(self.anonymous.clone()),
            |accepted| Identified::with_token(&self.tokens, accepted),
        )
    }

    /// The principal of a client where neither a key nor a token is needed.
    fn without_key(&self, head: &Head) -> Arc<Principal> {
        // The client of a proxy on this machine is somewhere else.
        let is_forwarded = OF_PROXIES.into_iter().any(|it| head.headers.get(it).is_some());
        let is_here = head.peer.is_local() && !is_forwarded;
        if is_here { self.operator.clone() } else { self.anonymous.clone() }
    }

    /// The principal of a key, or of an access token, that a person has typed into a page. The
    /// token may be for any resource of the gateway: here it only shows who the person is.
    pub(super) fn principal_of(&self, typed: &str, head: &Head) -> Option<Arc<Principal>> {
        let admission = self.admission();
        let as_key = KeyHeaders { api_key: Some(typed), ..KeyHeaders::default() };
        if let Some(principal) = authenticate::authenticate(&admission.keys, as_key) {
            return Some(principal);
        }
        let presented = Presented {
            scheme: TokenType::Bearer,
            token: Token(typed.trim()),
            method: &head.method,
            url: &admission.client_url(head),
            proofs: &[],
            peer: admission.peer(head).ip(),
        };
        let accepted = admission.verifier.as_ref()?.verify(&presented, Now::read()).ok()?;
        Some(accepted.principal.clone())
    }

    /// True if access tokens are taken besides keys.
    pub(super) fn takes_tokens(&self) -> bool {
        self.admission().verifier.is_some()
    }

    /// The principal of a request that only an admin may make.
    pub(super) fn admin(&self, head: &Head, look: Look) -> Result<Arc<Principal>, Problem> {
        let admission = self.admission();
        let identified = match self.identify(&admission, head, look) {
            // Whoever reaches the listener from elsewhere needs a key or a token.
            Ok(_) if admission.is_open() => Err(Unidentified::Nothing),
            identified => identified,
        };
        let principal = identified.map_err(|why| refusal(&why, &admission, head))?.principal;
        note(&principal);
        if principal.is_admin { Ok(principal) } else { Err(Problem::not_admin()) }
    }
}

/// Ends the wait of a call when its access token ends.
pub(super) fn bound(wait: &Wait, scope: &Scope) {
    if let Some(lease) = &scope.lease {
        wait.entitle_until(lease.ends());
    }
}

/// Notes whose the request is.
pub(super) fn note(principal: &Principal) {
    telemetry::request::principal(principal.name.as_deref(), principal.id.as_deref());
}

/// The token of a request, once `verify` has accepted it, if it is for the resource that the request
/// came to.
fn with_token(
    admission: &Admission,
    head: &Head,
    (scheme, token): (TokenType, Token<'_>),
    verify: impl FnOnce(&Presented<'_>) -> Result<Arc<Accepted>, Unidentified>,
) -> Result<Arc<Accepted>, Unidentified> {
    let proofs: Vec<&str> = head.headers.get_all(DPOP).collect();
    // The URL is made only where something is about it.
    let url = (scheme == TokenType::DPoP).then(|| admission.client_url(head));
    let accepted = verify(&Presented {
        scheme,
        token,
        method: &head.method,
        url: url.as_deref().unwrap_or_default(),
        proofs: &proofs,
        peer: admission.peer(head).ip(),
    })?;
    if accepted.is_for(|| url.unwrap_or_else(|| admission.client_url(head))) {
        Ok(accepted)
    } else {
        Err(Unidentified::OtherResource(scheme))
    }
}

/// The refusal of a request without a principal. Where issuers are configured it says how to get
/// a token (RFC 6750, section 3; RFC 9728, section 5.1).
pub(super) fn refusal(why: &Unidentified, admission: &Admission, head: &Head) -> Problem {
    let Some(verifier) = &admission.verifier else {
        return match why {
            Unidentified::Nothing => Problem::no_key(),
            Unidentified::WrongKey
            | Unidentified::Denied(..)
            | Unidentified::OtherResource(_) => Problem::wrong_key(),
        };
    };
    let challenge = |scheme: TokenType, error: Option<(ErrorCode, &str)>| TokenChallenge {
        resource_metadata: metadata_url(admission, head),
        scope: verifier.asked_scope().map(ToString::to_string),
        algorithms: (scheme == TokenType::DPoP).then(|| PROOF_ALGORITHMS.join(" ")),
        error: error.map(|(code, _)| code.as_str().to_owned()),
        error_description: error.map(|(_, description)| description.to_owned()),
        ..TokenChallenge::new(scheme)
    };
    match why {
        Unidentified::Nothing => Problem::no_token(&challenge(TokenType::Bearer, None).field()),
        Unidentified::WrongKey => {
            let what = "The key that came with this is none of the gateway's";
            let field = challenge(TokenType::Bearer, None).field();
            Problem::bad_token(&field, "unauthorized", what, what)
        }
        Unidentified::OtherResource(scheme) => {
            let (error, what) =
                (ErrorCode::InvalidToken, "the token is for another resource of the gateway");
            let field = challenge(*scheme, Some((error, what))).field();
            Problem::bad_token(&field, error.as_str(), what, what)
        }
        Unidentified::Denied(scheme, denied) => {
            let (error, what, told) =
                (denied.error(), denied.description(), denied.to_string());
            let challenge = challenge(denied.scheme(*scheme), Some((error, what)));
            match denied {
                Denied::Token(_) | Denied::Proof(_) => {
                    Problem::bad_token(&challenge.field(), error.as_str(), what, &told)
                }
                Denied::NoRule { scopes, .. } => {
                    let challenge = TokenChallenge { scope: joined(scopes), ..challenge };
                    Problem::insufficient_scope(&challenge.field(), what, &told)
                }
                Denied::Unavailable { retry_after, .. } => {
                    Problem::issuer_unavailable(what, &told, *retry_after)
                }
            }
        }
    }
}

/// The value of `scope` in a challenge.
fn joined(scopes: &[Arc<str>]) -> Option<String> {
    (!scopes.is_empty()).then(|| scopes.join(" "))
}
