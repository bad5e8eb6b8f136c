//! A token that was accepted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::issuer::{Issuer, StillThere};
use super::presented::Now;
use super::token_digest::TokenDigest;
use crate::access::policy::Principal;
use crate::limits::{INTROSPECTION_FRESH, INTROSPECTION_LIFE, RECHECK_TIMEOUT, TOKEN_LEEWAY};
use crate::oauth::jwk::Thumbprint;
use crate::oauth::jwt::{Subject, is_at_or_below};
use crate::secret::Secret;
use crate::sync::Mutex;

/// An accepted token: whose it is, what it allows, and how long. Whatever outlives its request (a
/// stream, a session) keeps it to ask [`super::Verifier::standing`] from time to time, and
/// [`super::Verifier::present`] after a reload.
#[derive(Debug)]
pub struct Accepted {
    /// The user with the rights that the rules give.
    pub principal: Arc<Principal>,
    /// The end of the token (`exp`), in seconds since the epoch; [`u64::MAX`] where an introspected
    /// token has none. The token is good for [`TOKEN_LEEWAY`] longer, as clocks differ.
    pub expires_at: u64,
    pub(super) digest: TokenDigest,
    pub(super) issuer: Arc<Issuer>,
    pub(super) subject: Subject,
    pub(super) scopes: Box<[String]>,
    /// The resources that the token is for; empty if it is for all.
    pub(super) resources: Box<[String]>,
    /// The client's key to which the token is bound.
    pub(super) bound_to: Option<Thumbprint>,
    /// The issuer's key that has signed it, and how many times keys had been withdrawn when that
    /// was looked at last.
    pub(super) signed_by: Option<(Thumbprint, AtomicU64)>,
    /// What is known of the token since; the same for whatever was accepted with it.
    pub(super) news: Arc<News>,
    /// The number of the last verifier whose rules are known to give it rights.
    pub(super) admitted_by: AtomicU64,
}

/// What has become of a token since it was accepted.
#[derive(Debug)]
pub(super) struct News {
    /// What an introspection needs, where the token is introspected.
    pub(super) introspected: Option<Introspection>,
    /// True once it is known that the token has ended before its time.
    pub(super) is_revoked: AtomicBool,
}

impl News {
    /// Nothing yet.
    pub(super) fn new(introspected: Option<Introspection>) -> Arc<News> {
        Arc::new(News { introspected, is_revoked: AtomicBool::new(false) })
    }
}

/// The introspection of a token.
#[derive(Debug)]
pub(super) struct Introspection {
    pub(super) token: Secret,
    pub(super) last: Mutex<LastAnswer>,
}

/// The last answers to the question about a token.
#[derive(Debug, Clone, Copy)]
pub(super) struct LastAnswer {
    /// The time of the last answer that called it active.
    pub(super) active_at: Instant,
    /// True if the issuer could not be asked since.
    pub(super) has_failed: bool,
    /// The time since which another answer is wanted.
    pub(super) wanted_at: Option<Instant>,
    /// True while the token waits to be asked about again.
    pub(super) is_queued: bool,
}

/// The present state of a token that was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It is good, as far as is known.
    Good,
    /// It has ended: its time is over, it was revoked, or its issuer has withdrawn the key that
    /// signed it.
    Ended,
}

/// How an accepted token stands when it is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Freshness {
    /// It is good.
    Good,
    /// It is good, and its issuer should be asked about it again soon.
    GrowingOld,
    /// Its issuer has to be asked before it is accepted again.
    Old {
        /// True if the issuer could not be asked since the last answer.
        has_failed: bool,
    },
    /// Its time is over.
    Expired,
    /// It was revoked, or the key that signed it was.
    Revoked,
}

impl Accepted {
    /// How the token stands, by what is known of its issuer at present. Neither the issuer nor the
    /// disk is asked.
    pub(super) fn freshness(&self, issuer: &Issuer, now: Now) -> Freshness {
        if now.unix >= self.expires_at.saturating_add(TOKEN_LEEWAY.as_secs()) {
            return Freshness::Expired;
        }
        let is_revoked = self.news.is_revoked.load(Ordering::Relaxed);
        if is_revoked || !self.is_key_there(issuer, now.instant) {
            return Freshness::Revoked;
        }
        let Some(introspection) = &self.news.introspected else { return Freshness::Good };
        let last = *introspection.last.lock();
        let age = now.instant.saturating_duration_since(last.active_at);
        match age {
            age if age >= INTROSPECTION_LIFE => Freshness::Old { has_failed: last.has_failed },
            age if age >= INTROSPECTION_FRESH => Freshness::GrowingOld,
            _ => Freshness::Good,
        }
    }

    /// True if another answer of the issuer is wanted for so long that it does not seem to come.
    pub(super) fn is_answer_overdue(&self, now: Now) -> bool {
        let Some(introspection) = &self.news.introspected else { return false };
        let wanted_at = introspection.last.lock().wanted_at;
        wanted_at.is_some_and(|at| now.instant.saturating_duration_since(at) >= RECHECK_TIMEOUT)
    }

    /// The claims of the token: a JSON object.
    pub(super) fn claims(&self) -> Option<&Arc<str>> {
        self.principal.user.as_ref().map(|user| &user.claims)
    }

    fn is_key_there(&self, issuer: &Issuer, now: Instant) -> bool {
        let Some((key, withdrawals)) = &self.signed_by else { return true };
        // The number is that of the issuer by which the token was accepted.
        let is_same = std::ptr::eq(issuer, Arc::as_ptr(&self.issuer));
        let known = if is_same { withdrawals.load(Ordering::Relaxed) } else { u64::MAX };
        match issuer.still_has(key, known, now) {
            StillThere::Yes => true,
            StillThere::Since(n) => {
                if is_same {
                    withdrawals.store(n, Ordering::Relaxed);
                }
                true
            }
            StillThere::No => false,
        }
    }

    /// True if the token may be used at that URL, which is made only if needed: the token is for
    /// all resources of the gateway, or for the one at the URL, or one above it.
    pub fn is_for(&self, url: impl FnOnce() -> String) -> bool {
        if self.resources.is_empty() {
            return true;
        }
        let url = url();
        self.resources.iter().any(|it| is_at_or_below(&url, it))
    }

    /// The time for which the token is good at most, from now.
    pub fn time_left(&self, now: Now) -> Duration {
        let end = self.expires_at.saturating_add(TOKEN_LEEWAY.as_secs());
        Duration::from_secs(end.saturating_sub(now.unix))
    }

    /// Bytes that are held for the token, but for what is the same for all.
    pub(super) fn n_bytes(&self) -> usize {
        let claims = self.principal.user.as_ref().map_or(0, |user| user.claims.len());
        let token = self.news.introspected.as_ref().map_or(0, |it| it.token.expose().len());
        let scopes: usize = self.scopes.iter().map(String::len).sum();
        claims + token + scopes
    }
}

impl LastAnswer {
    /// An answer that calls the token active.
    pub(super) fn active(at: Instant) -> LastAnswer {
        LastAnswer { active_at: at, has_failed: false, wanted_at: None, is_queued: false }
    }

    /// Notes another answer that calls the token active.
    pub(super) fn note_active(&mut self, at: Instant) {
        (self.active_at, self.has_failed, self.wanted_at) = (at, false, None);
    }
}
