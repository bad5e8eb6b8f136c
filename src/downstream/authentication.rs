//! Who sends a request: the key or the access token that came with it, and the refusal where
//! neither is good.

use std::borrow::Cow;
use std::cell::RefCell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Front;
use super::admission::Admission;
use super::oauth::protected_resource::{PROOF_ALGORITHMS, metadata_url};
use super::status_codes::Problem;
use super::token_problems::BadKey;
use crate::access::authenticate;
use crate::access::policy::{Lease, OptionalLease};
use crate::access::policy::{Principal, Scope};
use crate::http::Head;
use crate::oauth::challenge::TokenChallenge;
use crate::oauth::token::TokenType;
use crate::protocol::headers::DPOP;
use crate::resource_server::{
    Accepted, Denied, ErrorCode, Now, Presented, Scheme, Standing, Token, Verifier,
};
use crate::sync::RwLock;
use crate::telemetry;
use crate::wait::Wait;

/// Headers by which a proxy shows that it passes another client's request on.
const FORWARDED: [&str; 7] = [
    "forwarded",
    "via",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-prefix",
    "x-forwarded-proto",
    "x-real-ip",
];
/// The end of a token without one.
const FAR: Duration = Duration::from_secs(366 * 24 * 3600);

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
                && verifier.present(&self.accepted, now).is_some()
        })
    }

    fn ends(&self) -> Instant {
        let now = Now::read();
        // A token that never ends has a time that no clock can count to.
        now.instant + self.accepted.time_left(now).min(FAR)
    }
}

/// The sender of a request.
#[derive(Debug)]
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
    /// The token gives no rights.
    Denied(Scheme, Denied),
    /// The token is for another resource than the one that it came to.
    OtherResource,
}

thread_local! {
    /// The token and proof that [`Front::admit`] has verified last on this thread, as a digest,
    /// until [`Front::handle`] sees the same request or that is aborted: a proof is good once.
    static ADMITTED: RefCell<Option<([u8; 32], Arc<Accepted>)>> = const { RefCell::new(None) };
}

/// Which of the two looks at a request this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// At its head, before its body is read.
    BeforeBody,
    /// At the whole request.
    Whole,
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
            // The client of a proxy on this machine is somewhere else.
            let is_forwarded = FORWARDED.into_iter().any(|it| head.headers.get(it).is_some());
            let is_here = head.peer.is_local() && !is_forwarded;
            let principal = if is_here { &self.operator } else { &self.anonymous };
            return Ok(Identified::of(principal.clone()));
        }
        if let Some(principal) = admission.principal(head) {
            return Ok(Identified::of(principal));
        }
        let authorization = head.headers.get("authorization");
        let token = authorization.and_then(Scheme::of_header);
        match (&admission.verifier, token) {
            (Some(verifier), Some((scheme, token))) if !token.0.is_empty() => {
                let proofs: Vec<&str> = head.headers.get_all(DPOP).collect();
                let presented = Presented {
                    scheme,
                    token,
                    method: &head.method,
                    url: &admission.client_url(head),
                    proofs: &proofs,
                    peer: admission.peer(head).ip(),
                };
                let accepted = verify_once(verifier, &presented, look)
                    .map_err(|denied| Unidentified::Denied(scheme, denied))?;
                if !accepted.is_for(presented.url) {
                    return Err(Unidentified::OtherResource);
                }
                Ok(Identified::with_token(&self.tokens, accepted))
            }
            _ if authenticate::has_key(Admission::presented(head)) => {
                Err(Unidentified::WrongKey)
            }
            _ => Err(Unidentified::Nothing),
        }
    }

    /// The principal of a key, or of an access token, that a person has typed into a page. The
    /// token may be for any resource of the gateway: here it only shows who the person is.
    pub(super) fn principal_of(&self, typed: &str, head: &Head) -> Option<Arc<Principal>> {
        let admission = self.admission();
        let as_key = authenticate::Presented {
            api_key: Some(typed),
            ..authenticate::Presented::default()
        };
        if let Some(principal) = authenticate::authenticate(&admission.keys, as_key) {
            return Some(principal);
        }
        let presented = Presented {
            scheme: Scheme::Bearer,
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

/// Forgets what [`Front::admit`] has verified last on this thread: its request does not come, and
/// no other one may use the proof.
pub(super) fn forget_admitted() {
    ADMITTED.with(RefCell::take);
}

/// Verifies a token; one with a proof only at the first look at its request.
fn verify_once(
    verifier: &Verifier,
    presented: &Presented<'_>,
    look: Look,
) -> Result<Arc<Accepted>, Denied> {
    if presented.proofs.is_empty() {
        return verifier.verify(presented, Now::read());
    }
    let this = digest_of(presented);
    let before = ADMITTED.with(RefCell::take);
    if let (Look::Whole, Some((digest, accepted))) = (look, before)
        && digest == this
    {
        return Ok(accepted);
    }
    let accepted = verifier.verify(presented, Now::read())?;
    if look == Look::BeforeBody {
        ADMITTED.with(|admitted| *admitted.borrow_mut() = Some((this, accepted.clone())));
    }
    Ok(accepted)
}

/// A digest of everything that a proof is about.
fn digest_of(presented: &Presented<'_>) -> [u8; 32] {
    let mut digest = ring::digest::Context::new(&ring::digest::SHA256);
    let parts = [presented.token.0, presented.method, presented.url];
    for part in parts.iter().chain(presented.proofs) {
        digest.update(&part.len().to_be_bytes());
        digest.update(part.as_bytes());
    }
    let mut bytes = [0; 32];
    bytes.iter_mut().zip(digest.finish().as_ref()).for_each(|(to, from)| *to = *from);
    bytes
}

/// The refusal of a request without a principal. Where issuers are configured it says how to get
/// a token (RFC 6750, section 3; RFC 9728, section 5.1).
pub(super) fn refusal(why: &Unidentified, admission: &Admission, head: &Head) -> Problem {
    let Some(verifier) = &admission.verifier else {
        let key = match why {
            Unidentified::Nothing => BadKey::Missing,
            Unidentified::WrongKey | Unidentified::Denied(..) | Unidentified::OtherResource => {
                BadKey::Wrong
            }
        };
        return Problem::unauthorized(key);
    };
    let challenge = |scheme: Scheme| {
        let token_type = match scheme {
            Scheme::Bearer => TokenType::Bearer,
            Scheme::Dpop => TokenType::DPoP,
        };
        TokenChallenge {
            resource_metadata: metadata_url(admission, head),
            scope: verifier.asked_scope().map(|scope| scope.to_string()),
            algorithms: (scheme == Scheme::Dpop).then(|| PROOF_ALGORITHMS.join(" ")),
            ..TokenChallenge::new(token_type)
        }
    };
    let with = |scheme, error: ErrorCode, description: Cow<'static, str>| TokenChallenge {
        error: Some(error.as_str().to_owned()),
        error_description: Some(description.into_owned()),
        ..challenge(scheme)
    };
    match why {
        Unidentified::Nothing => Problem::no_token(&challenge(Scheme::Bearer).field()),
        Unidentified::WrongKey => {
            let what = "The key that came with this is none of the gateway's";
            Problem::bad_token(&challenge(Scheme::Bearer).field(), "unauthorized", what, what)
        }
        Unidentified::OtherResource => {
            let what = "the token is for another resource of the gateway";
            let field = with(Scheme::Bearer, ErrorCode::InvalidToken, what.into()).field();
            Problem::bad_token(&field, ErrorCode::InvalidToken.as_str(), what, what)
        }
        Unidentified::Denied(scheme, denied) => {
            let (error, what) = (denied.error(), denied.description());
            let told = denied.to_string();
            match denied {
                Denied::Token(_) | Denied::Proof(_) => {
                    // A proof belongs to the other scheme, whichever was used.
                    let scheme = match denied {
                        Denied::Proof(_) => Scheme::Dpop,
                        Denied::Token(_)
                        | Denied::NoRule { .. }
                        | Denied::Unavailable { .. } => *scheme,
                    };
                    let field = with(scheme, error, what.into()).field();
                    Problem::bad_token(&field, error.as_str(), what, &told)
                }
                Denied::NoRule { scopes, .. } => {
                    let field = TokenChallenge {
                        scope: (!scopes.is_empty()).then(|| scopes.join(" ")),
                        ..with(*scheme, error, what.into())
                    };
                    Problem::insufficient_scope(&field.field(), what, &told)
                }
                Denied::Unavailable { retry_after, .. } => {
                    Problem::issuer_unavailable(what, &told, *retry_after)
                }
            }
        }
    }
}
