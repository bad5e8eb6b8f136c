//! The verification of tokens under one configuration, and what it remembers of them.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use super::accepted::{Accepted, Freshness, Introspection, LastAnswer, News, Standing};
use super::decisions::{Decisions, Refusals};
use super::denied::Denied;
use super::introspect;
use super::introspection_turns::Turn;
use super::issuer::Issuer;
use super::keeper::{Keeper, Recheck};
use super::presented::{Now, Presented, Scheme};
use super::rules::Rules;
use super::token_digest::TokenDigest;
use super::users::MeteredUsers;
use crate::access::policy::Principal;
use crate::access::user::{SubjectKind, User};
use crate::config::{IntrospectedTokens, IntrospectionConfig};
use crate::limits::ACCESS_TOKEN_BYTES_MAX;
use crate::oauth::dpop_proof_check::{self, Expected, UsedProofs, WrongProof};
use crate::oauth::introspection::Introspected;
use crate::oauth::jwk::Thumbprint;
use crate::oauth::jws::{self, UnusableJws};
use crate::oauth::jwt::{Claims, Subject, Unverified, Wanted, WrongToken};
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
    /// introspected, waits for its issuer, at most [`crate::limits::KEY_WAIT_TIMEOUT`] or twice
    /// [`crate::limits::INTROSPECTION_TIMEOUT`]. A DPoP proof costs a signature each time.
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
            // Where nobody could be asked, the last answer holds no longer than that.
            Freshness::Old { has_failed: true } => Standing::Ended,
            Freshness::GrowingOld | Freshness::Old { has_failed: false } => {
                self.shared.keeper.recheck(self.this.clone(), accepted);
                Standing::Good
            }
        }
    }

    /// A token that an earlier verifier accepted, under this one's configuration: the same user,
    /// maybe with other rights. One that this verifier has accepted is returned as it is.
    ///
    /// # Errors
    /// It is over, its issuer or audience is not accepted any more, or no rule matches it.
    pub fn reconsider(
        &self,
        accepted: &Arc<Accepted>,
        now: Now,
    ) -> Result<Arc<Accepted>, Denied> {
        let old = &accepted.issuer.config;
        let issuer = self.issuer(&old.issuer)?;
        match accepted.freshness(issuer, now) {
            Freshness::Expired => return Err(Denied::Token(WrongToken::Expired)),
            Freshness::Revoked => return Err(Denied::Token(WrongToken::Inactive)),
            Freshness::Good | Freshness::GrowingOld | Freshness::Old { .. } => (),
        }
        if accepted.by == self.number {
            return Ok(accepted.clone());
        }
        if let Some(known) = self.decisions.read().get(&accepted.digest, now.unix) {
            return Ok(known.clone());
        }
        if (&issuer.config.audience, &issuer.config.base) != (&old.audience, &old.base) {
            return Err(Denied::Token(WrongToken::Audience));
        }
        let needed = issuer.config.introspection.as_ref().map(|it| it.tokens);
        let is_enough = match needed {
            None => accepted.signed_by.is_some(),
            Some(IntrospectedTokens::Opaque) => true,
            Some(IntrospectedTokens::All) => accepted.news.introspected.is_some(),
        };
        if !is_enough {
            // The token itself is needed for that, which its client has.
            return Err(Denied::Token(WrongToken::Inactive));
        }
        let claims = accepted.principal.user.as_ref().map(|user| user.claims.clone());
        let claims = Claims {
            subject: accepted.subject.clone(),
            expires_at: accepted.expires_at,
            scopes: accepted.scopes.to_vec(),
            bound_to: accepted.bound_to,
            resources: accepted.resources.to_vec(),
            text: claims.as_deref().unwrap_or_default().to_owned(),
        };
        // The numbers of two issuers are not comparable: what differs is looked at.
        let key = accepted.signed_by.as_ref().map(|(key, _)| (*key, AtomicU64::new(u64::MAX)));
        let evidence = Evidence { signed_by: key, news: accepted.news.clone() };
        self.accept(accepted.digest, issuer, claims, evidence, now)
    }

    /// The principal of a token that an earlier verifier accepted, under this one's configuration,
    /// whether the token is over or not: for what belongs to the user and not to the token. None
    /// where its issuer or audience is not accepted any more, or no rule matches it.
    pub fn present(&self, accepted: &Accepted, now: Now) -> Option<Arc<Principal>> {
        let old = &accepted.issuer.config;
        let issuer = self.issuer(&old.issuer).ok()?;
        if (&issuer.config.audience, &issuer.config.base) != (&old.audience, &old.base) {
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

    /// The tokens that are remembered.
    pub fn n_remembered(&self) -> usize {
        self.decisions.read().len()
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
                self.shared.keeper.recheck(self.this.clone(), &accepted);
                return Ok(Some(accepted));
            }
            Freshness::Old { .. } | Freshness::Expired | Freshness::Revoked => (),
        }
        drop(decisions);
        self.decisions.write().remove(digest);
        match freshness {
            Freshness::Expired => Err(Denied::Token(WrongToken::Expired)),
            // Whether it is revoked, or only its keys are too old, is decided anew.
            Freshness::Revoked
            | Freshness::Old { .. }
            | Freshness::Good
            | Freshness::GrowingOld => Ok(None),
        }
    }

    /// Decides about a token that is not known.
    fn decide(
        &self,
        token: &str,
        digest: TokenDigest,
        peer: Option<IpAddr>,
        now: Now,
    ) -> Result<Arc<Accepted>, Denied> {
        if let Some(denied) = self.refused(&digest, now) {
            return Err(denied);
        }
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
        let (config, introspection) = (&issuer.config, issuer.config.introspection.as_ref());
        let (audience, base) = (config.audience.as_str(), config.base.as_deref());
        let wanted = Wanted { issuer: &config.issuer, audience, base };
        let claims = unverified.check(wanted, now.unix).map_err(wrong)?;
        let keys = issuer.keys_for(unverified.kid(), peer, now.instant)?;
        let key = unverified.signed_by(&keys.set).map_err(|why| {
            if why == WrongToken::Signature || unverified.kid().is_none() {
                issuer.doubt_keys();
                self.shared.keeper.wake();
            }
            Denied::Token(why)
        })?;
        let signed_by = Some((key, AtomicU64::new(keys.withdrawals)));
        match introspection.filter(|it| it.tokens == IntrospectedTokens::All) {
            Some(config) => self.ask(issuer, config, token, digest, signed_by, peer, now),
            None => {
                let evidence = Evidence { signed_by, news: News::new(None) };
                self.accept(digest, issuer, claims, evidence, now)
            }
        }
    }

    /// Asks the issuers that introspect, one after the other, since the token names none.
    fn decide_opaque(
        &self,
        token: &str,
        digest: TokenDigest,
        peer: Option<IpAddr>,
        now: Now,
    ) -> Result<Arc<Accepted>, Denied> {
        // RFC 6750, section 2.1.
        let is_token_byte = |b: u8| b.is_ascii_alphanumeric() || b"-._~+/=".contains(&b);
        if token.is_empty() || !token.bytes().all(is_token_byte) {
            return Err(Denied::Token(WrongToken::Form(UnusableJws::NotThreeParts)));
        }
        let mut result = Denied::Token(WrongToken::Form(UnusableJws::NotThreeParts));
        for issuer in &self.issuers {
            let Some(config) = &issuer.config.introspection else { continue };
            match self.ask(issuer, config, token, digest, None, peer, now) {
                Ok(accepted) => return Ok(accepted),
                // What says most of the token is told: that another issuer does not know it says
                // nothing.
                Err(Denied::Token(WrongToken::Inactive)) => {
                    if matches!(result, Denied::Token(WrongToken::Form(_))) {
                        result = Denied::Token(WrongToken::Inactive);
                    }
                }
                Err(denied @ Denied::NoRule { .. }) => return Err(denied),
                Err(denied) => result = denied,
            }
        }
        if matches!(result, Denied::Token(_)) {
            self.refusals.lock().insert(digest, result.clone(), now.instant);
        }
        Err(result)
    }

    /// Asks an issuer about a token, or waits for the answer that another request gets.
    #[expect(clippy::too_many_arguments, reason = "a question and what is known of its token")]
    fn ask(
        &self,
        issuer: &Arc<Issuer>,
        config: &IntrospectionConfig,
        token: &str,
        digest: TokenDigest,
        signed_by: Option<(Thumbprint, AtomicU64)>,
        peer: Option<IpAddr>,
        now: Now,
    ) -> Result<Arc<Accepted>, Denied> {
        // With a first request, the metadata that name the endpoint may not be there yet.
        if config.endpoint.is_none() {
            issuer.await_metadata(peer, now.instant)?;
        }
        let _place = issuer
            .all_waiting
            .place(peer)
            .ok_or_else(|| issuer.unavailable("too many requests wait for issuers"))?;
        let turn = issuer.introspecting.turn(digest, peer);
        let _asking = match turn.map_err(|why| issuer.unavailable(why))? {
            Turn::Ask(asking) => asking,
            Turn::Answered => {
                let present = Now::read();
                if let Some(accepted) = self.known(&digest, present)? {
                    return Ok(accepted);
                }
                let refused = self.refused(&digest, present);
                return Err(refused.unwrap_or_else(|| issuer.unavailable("it did not answer")));
            }
        };
        // Another request may have asked while this one waited for its turn.
        if let Some(accepted) = self.known(&digest, Now::read())? {
            return Ok(accepted);
        }
        let secret = Secret::new(token.to_owned());
        let asked_at = Now::read();
        let denied = match introspect::introspect(issuer, config, &secret, asked_at.unix)? {
            Introspected::Active(claims) => {
                let last = Mutex::new(LastAnswer::active(asked_at.instant));
                let news = News::new(Some(Introspection { token: secret, last }));
                let evidence = Evidence { signed_by, news };
                match self.accept(digest, issuer, claims, evidence, now) {
                    Ok(accepted) => return Ok(accepted),
                    Err(denied) => denied,
                }
            }
            Introspected::Refused(wrong) => Denied::Token(wrong),
        };
        // Where one issuer of several does not know a token, another one may.
        let is_last_word = !matches!(denied, Denied::Token(WrongToken::Inactive));
        if is_last_word || self.issuers.len() == 1 {
            self.refusals.lock().insert(digest, denied.clone(), now.instant);
        }
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
            by: self.number,
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
            (None, Scheme::Bearer, _) => return Ok(()),
            (None, Scheme::Dpop, _) => return wrong(WrongProof::NotBound),
            (Some(_), Scheme::Bearer, _) => return wrong(WrongProof::Scheme),
            (Some(_), Scheme::Dpop, []) => return wrong(WrongProof::Missing),
            (Some(key), Scheme::Dpop, [proof]) => (key, proof),
            (Some(_), Scheme::Dpop, [_, _, ..]) => return wrong(WrongProof::Several),
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

    fn refused(&self, digest: &TokenDigest, now: Now) -> Option<Denied> {
        let mut refusals = self.refusals.lock();
        refusals.sweep(now.instant);
        refusals.get(digest).cloned()
    }
}

impl Recheck for Verifier {
    fn recheck(&self, accepted: &Arc<Accepted>, now: Now) {
        let Some(introspection) = &accepted.news.introspected else { return };
        let issuer = self.issuer(&accepted.issuer.config.issuer).ok();
        let asked = issuer.and_then(|it| Some((it, it.config.introspection.as_ref()?)));
        let Some((issuer, config)) = asked else {
            let mut last = introspection.last.lock();
            (last.is_queued, last.has_failed) = (false, true);
            return;
        };
        // One that does not answer must not hold up the questions to the others.
        let answer = if issuer.introspecting.has_failed_lately(now.instant) {
            Err(issuer.unavailable("it did not answer"))
        } else {
            introspect::introspect(issuer, config, &introspection.token, now.unix)
        };
        let mut last = introspection.last.lock();
        last.is_queued = false;
        match answer {
            Ok(Introspected::Active(claims)) if claims.subject == accepted.subject => {
                (last.active_at, last.has_failed) = (now.instant, false);
                return;
            }
            Ok(Introspected::Active(_) | Introspected::Refused(_)) => (),
            Err(_) => {
                last.has_failed = true;
                return;
            }
        }
        drop(last);
        accepted.news.is_revoked.store(true, Ordering::Relaxed);
        self.decisions.write().remove(&accepted.digest);
    }
}
