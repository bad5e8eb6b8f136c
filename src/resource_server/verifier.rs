//! The verification of tokens under one configuration, and what it remembers of them.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Instant;

use super::accepted::{Accepted, Freshness, Introspection, LastAnswer, News, Standing};
use super::decisions::{Decisions, Refusals};
use super::denied::Denied;
use super::introspect;
use super::introspection_turns::Turn;
use super::issuer::Issuer;
use super::keeper::{Keeper, Recheck};
use super::presented::{Now, Presented};
use super::rules::Rules;
use super::token_digest::TokenDigest;
use super::token_issuers::TokenIssuers;
use super::users::MeteredUsers;
use crate::access::policy::Principal;
use crate::access::user::{SubjectKind, User};
use crate::config::{IntrospectedTokens, IntrospectionConfig};
use crate::limits::{ACCESS_TOKEN_BYTES_MAX, INTROSPECTION_TIMEOUT, ISSUERS_WAIT_TIMEOUT};
use crate::oauth::dpop_proof_check::{self, Expected, UsedProofs, WrongProof};
use crate::oauth::introspection::Introspected;
use crate::oauth::jwk::Thumbprint;
use crate::oauth::jws::{self, UnusableJws};
use crate::oauth::jwt::{Claims, Subject, Unverified, WrongToken};
use crate::oauth::token::TokenType;
use crate::secret::Secret;
use crate::sync::{Mutex, RwLock};

/// What verifiers of all configurations share.
#[derive(Debug, Default)]
pub(super) struct Shared {
    pub(super) keeper: Arc<Keeper>,
    /// The number of verifiers that were made.
    pub(super) n_verifiers: AtomicU64,
    pub(super) users: Mutex<MeteredUsers>,
    /// A proof that was used before a reload is not good after it.
    pub(super) used_proofs: Mutex<UsedProofs>,
    /// The issuers of opaque tokens, where several are asked about such.
    pub(super) token_issuers: Mutex<TokenIssuers>,
}

/// A JWT that was verified.
pub(super) struct Signed {
    claims: Claims,
    /// The issuer's key that has signed it, and the number of withdrawals when that was seen.
    key: (Thumbprint, AtomicU64),
}

/// Why a token is believed.
struct Evidence {
    signed_by: Option<(Thumbprint, AtomicU64)>,
    news: Arc<News>,
}

/// Verifies tokens under one configuration.
#[derive(Debug)]
pub struct Verifier {
    pub(super) issuers: Vec<Arc<Issuer>>,
    pub(super) rules: Rules,
    pub(super) shared: Arc<Shared>,
    pub(super) decisions: RwLock<Decisions>,
    pub(super) refusals: Mutex<Refusals>,
    /// The number of verifiers before this one.
    pub(super) number: u64,
    pub(super) this: Weak<Verifier>,
}

impl Verifier {
    /// Verifies a request's token. What was accepted before is remembered, so that this costs a
    /// few microseconds; a new JWT costs a signature; one of an unknown key id, or one that is
    /// introspected, waits for its issuer, at most [`ISSUERS_WAIT_TIMEOUT`]. A DPoP proof costs a
    /// signature each time.
    ///
    /// # Errors
    /// The request is not served.
    pub fn verify(&self, presented: &Presented<'_>, now: Now) -> Result<Arc<Accepted>, Denied> {
        let token = presented.token.0;
        if token.len() > ACCESS_TOKEN_BYTES_MAX {
            return Err(Denied::Token(WrongToken::Form(UnusableJws::TooLong)));
        }
        let digest = TokenDigest::of(token);
        let accepted = match self.known(&digest, now)? {
            Some(accepted) => accepted,
            None => self.decide(token, digest, presented.peer, now)?,
        };
        self.check_possession(&accepted, presented, now)?;
        Ok(accepted)
    }

    /// As [`Verifier::verify`] for a token that was accepted before; none for any other one. It
    /// never waits.
    pub fn verify_known(&self, presented: &Presented<'_>, now: Now) -> Option<Arc<Accepted>> {
        let accepted = self.known(&TokenDigest::of(presented.token.0), now).ok()??;
        self.check_possession(&accepted, presented, now).ok()?;
        Some(accepted)
    }

    /// Tells if the token is still good. It never waits: an introspected token whose answer has
    /// grown old is asked about again by the thread `identity`, and what comes of it is told the
    /// next time.
    pub fn standing(&self, accepted: &Arc<Accepted>, now: Now) -> Standing {
        let Ok(issuer) = self.issuer(&accepted.issuer.config.issuer) else {
            return Standing::Ended;
        };
        match accepted.freshness(issuer, now) {
            Freshness::Good => Standing::Good,
            Freshness::Expired | Freshness::Revoked => Standing::Ended,
            Freshness::GrowingOld => {
                self.recheck(accepted, now);
                Standing::Good
            }
            // Where nobody could be asked, the last answer holds no longer than that. Where nobody
            // has asked because nobody looked, there is time for it.
            Freshness::Old { has_failed: true } => Standing::Ended,
            Freshness::Old { has_failed: false } => {
                self.recheck(accepted, now);
                if accepted.is_answer_overdue(now) { Standing::Ended } else { Standing::Good }
            }
        }
    }

    /// True if the rules of this verifier give rights to a token that was accepted. They are asked
    /// once after each reload.
    pub fn admits(&self, accepted: &Accepted, now: Now) -> bool {
        if accepted.admitted_by.load(Ordering::Relaxed) == self.number {
            return true;
        }
        let is_admitted = self.present(accepted, now).is_some();
        if is_admitted {
            accepted.admitted_by.store(self.number, Ordering::Relaxed);
        }
        is_admitted
    }

    /// The principal of a token that an earlier verifier accepted, under this one's configuration,
    /// even if the token is over: for what belongs to the user and not to the token. None where its
    /// issuer, its audience or its OAuth client without users is not accepted any more, or no rule
    /// matches it.
    pub fn present(&self, accepted: &Accepted, now: Now) -> Option<Arc<Principal>> {
        let old = &accepted.issuer.config;
        let issuer = self.issuer(&old.issuer).ok()?;
        if (&issuer.config.audience, &issuer.config.base) != (&old.audience, &old.base) {
            return None;
        }
        if let Subject::Client(client) = &accepted.subject
            && !issuer.config.machine_clients.contains(client)
        {
            return None;
        }
        let claims = accepted.principal.user.as_ref()?.claims.clone();
        self.principal(issuer, &accepted.subject, claims, &accepted.scopes, now).ok()
    }

    /// The principal with the rights that the rules give.
    fn principal(
        &self,
        issuer: &Issuer,
        subject: &Subject,
        claims: Arc<str>,
        scopes: &[String],
        now: Now,
    ) -> Result<Arc<Principal>, Denied> {
        let (kind, subject) = match subject {
            Subject::User(subject) => (SubjectKind::Subject, subject),
            Subject::Client(client) => (SubjectKind::Client, client),
        };
        let name = User::name(kind, subject, &issuer.config.issuer, &issuer.name);
        let Some(rights) = self.rules.rights(&claims, scopes) else {
            return Err(Denied::NoRule {
                user: name,
                scopes: self.rules.asked().cloned().into_iter().collect(),
            });
        };
        let id = User::id(&issuer.config.issuer, kind, subject);
        let quota = rights
            .calls_per_minute
            .map(|calls| self.shared.users.lock().bucket(&id, calls, now.instant));
        let user = User {
            issuer: issuer.config.issuer.as_str().into(),
            issuer_name: issuer.name.clone(),
            subject: subject.as_str().into(),
            kind,
            claims,
            quota,
        };
        Ok(Arc::new(Principal {
            name: Some(name),
            id: Some(id),
            policy: rights.policy.clone(),
            is_admin: rights.is_admin,
            key: None,
            user: Some(user),
        }))
    }

    /// The issuers in the order of the configuration, for the metadata of the protected resource
    /// (RFC 9728, `authorization_servers`).
    pub fn issuers(&self) -> impl Iterator<Item = &str> {
        self.issuers.iter().map(|issuer| issuer.config.issuer.as_str())
    }

    /// The scopes of which rules speak, each once, in their order: for `scopes_supported`.
    pub fn scopes(&self) -> &[Arc<str>] {
        self.rules.scopes()
    }

    /// The scope of a challenge: clients take all of its scopes for required (MCP authorization,
    /// scope selection), and one gives rights.
    pub fn asked_scope(&self) -> Option<&Arc<str>> {
        self.rules.asked()
    }

    /// A token that was accepted before and still is.
    fn known(&self, digest: &TokenDigest, now: Now) -> Result<Option<Arc<Accepted>>, Denied> {
        let decisions = self.decisions.read();
        let Some(accepted) = decisions.get(digest, now.unix) else { return Ok(None) };
        let freshness = accepted.freshness(&accepted.issuer, now);
        match freshness {
            Freshness::Good => return Ok(Some(accepted.clone())),
            Freshness::GrowingOld => {
                let accepted = accepted.clone();
                drop(decisions);
                self.recheck(&accepted, now);
                return Ok(Some(accepted));
            }
            Freshness::Old { .. } | Freshness::Expired | Freshness::Revoked => (),
        }
        drop(decisions);
        self.decisions.write().remove(digest);
        match freshness {
            Freshness::Expired => Err(Denied::Token(WrongToken::Expired)),
            // It is decided anew if it is revoked, or only its keys are too old.
            Freshness::Revoked
            | Freshness::Old { .. }
            | Freshness::Good
            | Freshness::GrowingOld => Ok(None),
        }
    }

    /// Has the issuer of an introspected token asked about it again soon.
    fn recheck(&self, accepted: &Arc<Accepted>, now: Now) {
        self.shared.keeper.recheck(self.this.clone(), accepted, now.instant);
    }

    /// Decides about a token that is not known.
    fn decide(
        &self,
        token: &str,
        digest: TokenDigest,
        peer: Option<IpAddr>,
        now: Now,
    ) -> Result<Arc<Accepted>, Denied> {
        if jws::has_form(token) {
            self.decide_jwt(token, digest, peer, now)
        } else {
            self.decide_opaque(token, digest, peer, now)
        }
    }

    fn decide_jwt(
        &self,
        token: &str,
        digest: TokenDigest,
        peer: Option<IpAddr>,
        now: Now,
    ) -> Result<Arc<Accepted>, Denied> {
        let wrong = Denied::Token;
        let unverified = Unverified::read(token).map_err(wrong)?;
        let issuer = self.issuer(unverified.issuer())?;
        if let Some(denied) = self.refused(&digest, issuer, now) {
            return Err(denied);
        }
        let claims = unverified.check(issuer.wanted(), now.unix).map_err(wrong)?;
        let keys = issuer.keys_for(unverified.kid(), peer, now.instant)?;
        let key = unverified.signed_by(&keys.set).map_err(|why| {
            if why == WrongToken::Signature || unverified.kid().is_none() {
                issuer.doubt_keys();
            }
            Denied::Token(why)
        })?;
        let key = (key, AtomicU64::new(keys.withdrawals));
        let introspection = issuer.config.introspection.as_ref();
        match introspection.filter(|it| it.tokens == IntrospectedTokens::All) {
            Some(config) => {
                let signed = Some(Signed { claims, key });
                self.ask(issuer, config, token, digest, signed, peer, now)
            }
            None => {
                let evidence = Evidence { signed_by: Some(key), news: News::new(None) };
                self.accept(digest, issuer, claims, evidence, now)
            }
        }
    }

    /// Asks an issuer about a token, or waits for the answer that another request gets.
    #[expect(clippy::too_many_arguments, reason = "a question and what is known of its token")]
    pub(super) fn ask(
        &self,
        issuer: &Arc<Issuer>,
        config: &IntrospectionConfig,
        token: &str,
        digest: TokenDigest,
        signed: Option<Signed>,
        peer: Option<IpAddr>,
        now: Now,
    ) -> Result<Arc<Accepted>, Denied> {
        // With a first request, the metadata that name the endpoint may not be there yet.
        if config.endpoint.is_none() {
            issuer.await_metadata(peer, now.instant).inspect_err(|_| {
                issuer.introspecting.note(Some(Instant::now()));
            })?;
        }
        let _place = issuer
            .all_waiting
            .place(peer)
            .ok_or_else(|| issuer.unavailable("too many requests wait for issuers"))?;
        let deadline = now.instant + ISSUERS_WAIT_TIMEOUT;
        let turn = issuer.introspecting.turn(digest, peer, deadline);
        let _asking = match turn.map_err(|why| issuer.unavailable(why))? {
            Turn::Ask(asking) => asking,
            Turn::Answered => {
                let present = Now::read();
                if let Some(accepted) = self.known(&digest, present)? {
                    return Ok(accepted);
                }
                let refused = self.refused(&digest, issuer, present);
                return Err(refused.unwrap_or_else(|| issuer.unavailable("it did not answer")));
            }
        };
        // Another request may have asked while this one waited for its turn.
        let present = Now::read();
        if let Some(accepted) = self.known(&digest, present)? {
            return Ok(accepted);
        }
        if let Some(denied) = self.refused(&digest, issuer, present) {
            return Err(denied);
        }
        let secret = Secret::new(token.to_owned());
        let asked_at = Now::read();
        let claims = signed.as_ref().map(|it| &it.claims);
        let times = (asked_at.unix, deadline);
        let answer = introspect::introspect(issuer, config, &secret, claims, times)?;
        let denied = match answer {
            Introspected::Active(claims) => {
                let last = Mutex::new(LastAnswer::active(asked_at.instant));
                let news = News::new(Some(Introspection { token: secret, last }));
                let signed_by = signed.map(|it| it.key);
                let evidence = Evidence { signed_by, news };
                match self.accept(digest, issuer, claims, evidence, now) {
                    Ok(accepted) => return Ok(accepted),
                    Err(denied) => denied,
                }
            }
            Introspected::Refused(wrong) => Denied::Token(wrong),
        };
        self.refusals.lock().insert(
            (digest, self.place_of(issuer)),
            denied.clone(),
            now.instant,
        );
        Err(denied)
    }

    /// Gives a token that was verified the rights of the rules, and remembers it.
    fn accept(
        &self,
        digest: TokenDigest,
        issuer: &Arc<Issuer>,
        claims: Claims,
        evidence: Evidence,
        now: Now,
    ) -> Result<Arc<Accepted>, Denied> {
        let text: Arc<str> = claims.text.into();
        let principal = self.principal(issuer, &claims.subject, text, &claims.scopes, now)?;
        let accepted = Arc::new(Accepted {
            principal,
            expires_at: claims.expires_at,
            digest,
            issuer: issuer.clone(),
            subject: claims.subject,
            scopes: claims.scopes.into(),
            bound_to: claims.bound_to,
            resources: claims.resources.into(),
            signed_by: evidence.signed_by,
            news: evidence.news,
            admitted_by: AtomicU64::new(self.number),
        });
        self.decisions.write().insert(accepted.clone(), now.unix);
        Ok(accepted)
    }

    /// RFC 9449, sections 7.1 and 7.2: a token that is bound to a key comes with the scheme DPoP
    /// and a proof, any other one with Bearer.
    fn check_possession(
        &self,
        accepted: &Accepted,
        presented: &Presented<'_>,
        now: Now,
    ) -> Result<(), Denied> {
        let wrong = |why| Err(Denied::Proof(why));
        let (key, proof) = match (accepted.bound_to, presented.scheme, presented.proofs) {
            (None, TokenType::Bearer, _) => return Ok(()),
            (None, TokenType::DPoP, _) => return wrong(WrongProof::NotBound),
            (Some(_), TokenType::Bearer, _) => return wrong(WrongProof::Scheme),
            (Some(_), TokenType::DPoP, []) => return wrong(WrongProof::Missing),
            (Some(key), TokenType::DPoP, [proof]) => (key, proof),
            (Some(_), TokenType::DPoP, [_, _, ..]) => return wrong(WrongProof::Several),
        };
        let expected = Expected {
            method: presented.method,
            url: presented.url,
            token: presented.token.0,
            key,
            now: now.unix,
        };
        let proof = dpop_proof_check::check(proof, &expected).map_err(Denied::Proof)?;
        self.shared.used_proofs.lock().enter(&proof, now.unix).map_err(Denied::Proof)
    }

    fn issuer(&self, issuer: &str) -> Result<&Arc<Issuer>, Denied> {
        let found = self.issuers.iter().find(|it| it.config.issuer == issuer);
        found.ok_or_else(|| Denied::Token(WrongToken::Issuer(crate::oauth::jws::told(issuer))))
    }

    /// What an issuer has said a short while ago of a token that it does not accept.
    pub(super) fn refused(
        &self,
        digest: &TokenDigest,
        issuer: &Arc<Issuer>,
        now: Now,
    ) -> Option<Denied> {
        let key = (*digest, self.place_of(issuer));
        let mut refusals = self.refusals.lock();
        refusals.sweep(now.instant);
        refusals.get(&key).cloned()
    }

    /// The place of an issuer in the configuration.
    fn place_of(&self, issuer: &Arc<Issuer>) -> usize {
        self.issuers.iter().take_while(|it| !Arc::ptr_eq(it, issuer)).count()
    }
}

/// Asks an issuer about a token that was accepted before.
fn introspect_again(
    issuer: &Issuer,
    config: &IntrospectionConfig,
    accepted: &Accepted,
    token: &Secret,
    now: Now,
) -> Result<Introspected, Denied> {
    // Its signature was verified, and its text is the same.
    let signed = accepted.signed_by.as_ref().map(|_| {
        let unverified = Unverified::read(token.expose())?;
        unverified.check(issuer.wanted(), now.unix)
    });
    match signed.transpose() {
        Ok(signed) => {
            let times = (now.unix, now.instant + INTROSPECTION_TIMEOUT);
            introspect::introspect(issuer, config, token, signed.as_ref(), times)
        }
        Err(wrong) => Ok(Introspected::Refused(wrong)),
    }
}

impl Recheck for Verifier {
    fn ask_again(&self, accepted: &Arc<Accepted>, now: Now) {
        let Some(introspection) = &accepted.news.introspected else { return };
        let issuer = self.issuer(&accepted.issuer.config.issuer).ok();
        let asked = issuer.and_then(|it| Some((it, it.config.introspection.as_ref()?)));
        let Some((issuer, config)) = asked else {
            let mut last = introspection.last.lock();
            last.has_failed = true;
            return;
        };
        // One that does not answer must not hold up the questions to the others. Whoever looks at
        // the token next has it asked about again.
        if issuer.introspecting.has_failed_lately(now.instant) {
            return;
        }
        match introspect_again(issuer, config, accepted, &introspection.token, now) {
            Ok(Introspected::Active(claims)) if self.still_allows(accepted, &claims) => {
                introspection.last.lock().note_active(now.instant);
                self.renew(accepted, issuer, claims, now);
            }
            // Whatever comes with it is decided anew.
            Ok(Introspected::Active(_) | Introspected::Refused(_)) => {
                accepted.news.is_revoked.store(true, Ordering::Relaxed);
                self.decisions.write().remove(&accepted.digest);
            }
            Err(_) => introspection.last.lock().has_failed = true,
        }
    }
}

impl Verifier {
    /// True if an accepted token is the same one, and allows the same, by what its issuer says of
    /// it now.
    fn still_allows(&self, accepted: &Accepted, claims: &Claims) -> bool {
        let before = accepted.claims().and_then(|it| self.rules.rights(it, &accepted.scopes));
        let after = self.rules.rights(&claims.text, &claims.scopes);
        claims.subject == accepted.subject
            && claims.bound_to == accepted.bound_to
            && *claims.resources == *accepted.resources
            && before.zip(after).is_some_and(|(before, after)| std::ptr::eq(before, after))
    }

    /// Remembers what else has changed in the claims of an accepted token.
    fn renew(&self, accepted: &Accepted, issuer: &Arc<Issuer>, claims: Claims, now: Now) {
        // Whoever had the issuer asked may have the token as it was before the last change.
        let known = self.decisions.read().get(&accepted.digest, now.unix).cloned();
        let known = known.as_deref().filter(|it| Arc::ptr_eq(&it.news, &accepted.news));
        let known = known.unwrap_or(accepted);
        let is_unchanged = claims.expires_at == known.expires_at
            && *claims.scopes == *known.scopes
            && known.claims().is_some_and(|it| **it == claims.text);
        if is_unchanged {
            return;
        }
        // The numbers of two issuers are not comparable: what differs is looked at.
        let is_same = Arc::ptr_eq(issuer, &accepted.issuer);
        let number = |n: &AtomicU64| if is_same { n.load(Ordering::Relaxed) } else { u64::MAX };
        let signed_by = accepted.signed_by.as_ref();
        let signed_by = signed_by.map(|(key, n)| (*key, AtomicU64::new(number(n))));
        let evidence = Evidence { signed_by, news: accepted.news.clone() };
        // The rules give the same rights as before, so that it is not refused.
        self.accept(accepted.digest, issuer, claims, evidence, now).ok();
    }
}
