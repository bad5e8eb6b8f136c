//! Pure: what is known of the credentials of one owner at one server, and what a request does next.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crate::limits::{NEED_BELIEVED, OAUTH_PAUSE_MAX, OAUTH_PAUSE_MIN};
use crate::oauth::challenge::TokenChallenge;
use crate::oauth::scope::Scopes;
use crate::oauth::signing_key::SigningKey;
use crate::upstream::failure::Unauthorized;
use crate::wait::Wait;

use super::SignInStatus;
use super::file_look::FileLook;
use super::flow_error::Remedy;
use super::kept::Kept;
use super::pages::Pages;
use super::refusals::Refusals;
use super::seen_reach::SeenReach;
use super::step_ups::StepUps;
use super::want::Want;

/// Why a sign-in is needed where there never was one.
pub(super) const NOBODY_HAS_SIGNED_IN: &str = "nobody has signed in yet";
/// Why a sign-in is needed where a token cannot be renewed.
pub(super) const TOKEN_HAS_ENDED: &str = "the access token has ended";

/// What is known at present.
#[derive(Default)]
pub(super) struct State {
    pub(super) reach: SeenReach,
    pub(super) kept: Option<Arc<Kept>>,
    /// The number of `kept`: each other access token has another one.
    pub(super) number: u64,
    /// The key of `kept`, if it is bound to one.
    pub(super) key: Option<Arc<SigningKey>>,
    pub(super) refusals: Refusals,
    pub(super) look: FileLook,
    /// An authorization server is asked.
    pub(super) is_asking: bool,
    /// The waits for the end of that, or of a sign-in.
    pub(super) waiting: Vec<Arc<Wait>>,
    pub(super) trouble: Trouble,
    /// Failures in a row.
    n_failed: u32,
    pub(super) pages: Pages,
    pub(super) step_ups: StepUps,
    /// The nonce that the server wants in proofs.
    pub(super) nonce: Option<String>,
    /// So long it is believed that the server is not there to be asked how it wants credentials.
    pub(super) away_until: Option<Instant>,
    /// How the server asked for credentials last.
    pub(super) challenge: Option<TokenChallenge>,
    /// When the authorization server's metadata were read last; none after a failure.
    pub(super) found_at: Option<Instant>,
}

/// Why there are no usable credentials.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum Trouble {
    /// It is not known yet.
    #[default]
    None,
    /// A person must sign in.
    NeedsSignIn { why: String, since: Instant, need: Need },
    /// The same is tried again then, not before.
    Failing { why: String, until: Instant },
}

/// What a sign-in is needed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// There are no usable credentials.
    Credentials,
    /// A request needed more rights than the token gives; others are served with it.
    Rights,
}

/// By whom access tokens are had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TokenSource {
    /// The gateway, by credentials of its own: no person has to do with it.
    Machine,
    /// The gateway, by the sign-in of a person.
    Gateway,
    /// One user, by their sign-in.
    User,
}

/// How credentials were had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// By a sign-in, of this process or another one.
    SignIn,
    /// By a token request without a person.
    Renewal,
}

/// One look at the state.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    pub(super) now: Instant,
    /// Seconds since 1970.
    pub(super) time: u64,
}

/// What a request does next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// It carries the present token, which is renewed besides if it is due.
    Use { number: u64, is_due: bool },
    /// It has a token first.
    Renew(Want),
    /// It waits for the end of the question that is under way.
    Wait,
    /// It carries none: the server says if it wants one, and which.
    Ask,
    /// It fails.
    Fail(Reason),
}

/// Why a request cannot have a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reason {
    pub(super) kind: Unauthorized,
    pub(super) why: String,
}

/// What a request does whose token was refused.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Renewal {
    /// Another token is there.
    IsThere,
    /// Nothing is known that speaks against one more try.
    TryAgain,
    Fail(Reason),
    /// The question that is under way may be for something else: it is waited for.
    Wait,
    /// An authorization server, or a person, is asked.
    Submit,
}

impl Trouble {
    /// True if nothing is tried again yet, and nobody is asked.
    fn is_believed(&self, pages: &Pages, now: Instant) -> bool {
        match self {
            Self::None | Self::NeedsSignIn { need: Need::Rights, .. } => false,
            Self::NeedsSignIn { since, need: Need::Credentials, .. } => {
                let is_fresh = now.saturating_duration_since(*since) < NEED_BELIEVED;
                pages.is_waited_for(now) || is_fresh
            }
            Self::Failing { until, .. } => now < *until,
        }
    }

    /// When a renewal is tried again; none if it may be at once.
    fn retry_at(&self) -> Option<Instant> {
        match self {
            Self::None | Self::NeedsSignIn { need: Need::Rights, .. } => None,
            Self::NeedsSignIn { since, need: Need::Credentials, .. } => {
                Some(*since + NEED_BELIEVED)
            }
            Self::Failing { until, .. } => Some(*until),
        }
    }
}

impl State {
    /// The access token that the server has not refused.
    pub(super) fn unrefused(&self) -> Option<&Arc<Kept>> {
        self.kept.as_ref().filter(|_| !self.refusals.is_refused())
    }

    /// The credentials with which requests can be sent, now or once they are renewed. `time`: in
    /// seconds since 1970.
    pub(super) fn usable(&self, time: u64) -> Option<&Arc<Kept>> {
        // A refresh token that is kept although it was refused is tried again, and hoped for by
        // nobody.
        let need = Need::Credentials;
        let needs_person =
            matches!(self.trouble, Trouble::NeedsSignIn { need: it, .. } if it == need);
        self.unrefused().filter(|kept| {
            !kept.is_over(time) || (kept.refresh_token.is_some() && !needs_person)
        })
    }

    /// True if there are such credentials, and no request was refused for their scopes.
    pub(super) fn has_enough(&self, time: u64) -> bool {
        self.is_signed_in() && self.usable(time).is_some()
    }

    /// True if the present credentials are good for all that a request has needed.
    pub(super) fn is_signed_in(&self) -> bool {
        self.unrefused().is_some_and(|kept| kept.wanted.is_empty())
    }

    /// What the present trouble means for a request; none if nothing is known.
    pub(super) fn reason(&self, now: Instant) -> Option<Reason> {
        let (kind, why) = match &self.trouble {
            Trouble::None => return None,
            Trouble::NeedsSignIn { why, .. } if self.pages.is_waited_for(now) => {
                (Unauthorized::SigningIn, why)
            }
            Trouble::NeedsSignIn { why, .. } => (Unauthorized::NeedsSignIn, why),
            Trouble::Failing { why, .. } => (Unauthorized::Unavailable, why),
        };
        Some(Reason { kind, why: why.clone() })
    }

    /// What the next request does. `has_renewed`: it has had a token renewed before.
    pub(super) fn step(&self, source: TokenSource, at: Moment, has_renewed: bool) -> Step {
        let Moment { now, time } = at;
        if let Some(kept) = self.unrefused().filter(|kept| !kept.is_over(time)) {
            let may_retry = self.trouble.retry_at().is_none_or(|at| now >= at);
            let is_due = kept.renew_at().is_some_and(|at| time >= at);
            let is_due = is_due && can_renew(kept, source) && may_retry && !self.is_asking;
            return Step::Use { number: self.number, is_due };
        }
        if self.is_asking {
            return Step::Wait;
        }
        let reason = self.reason(now);
        if self.trouble.is_believed(&self.pages, now)
            && let Some(reason) = reason
        {
            return Step::Fail(reason);
        }
        if !has_renewed && let Some(want) = self.want(source, now) {
            return Step::Renew(want);
        }
        match source {
            TokenSource::Machine | TokenSource::Gateway => Step::Ask,
            TokenSource::User => Step::Fail(reason.unwrap_or_else(|| Reason {
                kind: Unauthorized::NeedsSignIn,
                why: NOBODY_HAS_SIGNED_IN.to_owned(),
            })),
        }
    }

    /// What is wanted in place of a token that is over or was refused, without a request that asks
    /// the server for it: another token, or the person's sign-in where it cannot be renewed. A
    /// machine has its first token before it connects, too (extensions, OAuth Client Credentials,
    /// Implementation Guide): the server may answer less to those who have none.
    fn want(&self, source: TokenSource, now: Instant) -> Option<Want> {
        let Some(kept) = &self.kept else {
            let is_away = self.away_until.is_some_and(|until| now < until);
            return (source == TokenSource::Machine && !is_away).then_some(Want::Renewal);
        };
        if !self.refusals.is_refused() {
            return Some(Want::Renewal);
        }
        let may_be_better = can_renew(kept, source) && !self.refusals.refuses_all(now);
        may_be_better.then_some(Want::Refused(None))
    }

    /// What a request does whose token, of this number, was refused or is not good for enough.
    /// `has_asked`: it has had another one asked for before.
    pub(super) fn another(&self, number: Option<u64>, at: Moment, has_asked: bool) -> Renewal {
        let is_good = self.unrefused().is_some_and(|kept| !kept.is_over(at.time));
        if is_good && number != Some(self.number) {
            return Renewal::IsThere;
        }
        match (self.is_asking, has_asked) {
            (true, _) => Renewal::Wait,
            (false, false) => Renewal::Submit,
            (false, true) => self.reason(at.now).map_or(Renewal::TryAgain, Renewal::Fail),
        }
    }

    /// The reason why a request cannot have these scopes at present, where its user has been asked
    /// for them before and has not signed in since.
    pub(super) fn still_wanted(
        &self,
        source: TokenSource,
        scopes: &str,
        now: Instant,
    ) -> Option<Reason> {
        let kept =
            self.unrefused().filter(|_| source == TokenSource::User && !self.is_asking)?;
        let is_known = kept.wanted.covers(&Scopes::parse(scopes));
        let reason = self.reason(now).filter(|_| is_known)?;
        (reason.kind == Unauthorized::NeedsSignIn).then_some(reason)
    }

    /// An authorization server is about to be asked. False if one is asked already.
    pub(super) fn begin(&mut self, want: &Want, now: Instant) -> bool {
        if self.is_asking {
            return false;
        }
        self.is_asking = true;
        match want {
            Want::Refused(number) if *number == Some(self.number) => self.refusals.refused(now),
            Want::Renewal | Want::Refused(_) | Want::Saving => (),
            Want::Scopes(_) => self.step_ups.begun(now),
        }
        true
    }

    /// These credentials are used from here on.
    pub(super) fn adopt(&mut self, kept: Kept, key: Option<Arc<SigningKey>>) {
        let is_signed_in = kept.wanted.is_empty();
        self.key = key;
        self.kept = Some(Arc::new(kept));
        self.number += 1;
        self.refusals.replaced();
        self.n_failed = 0;
        let needs_rights =
            matches!(self.trouble, Trouble::NeedsSignIn { need: Need::Rights, .. });
        // A renewal gives a request no more rights: the person still has to sign in for it.
        if is_signed_in || !needs_rights {
            self.trouble = Trouble::None;
            self.pages.signed_in();
        }
    }

    /// There are no credentials any more.
    pub(super) fn forget(&mut self) {
        (self.kept, self.key) = (None, None);
        self.number += 1;
        self.look.saw(None);
        self.look.is_saved();
    }

    /// A person must sign in. True if that is news.
    pub(super) fn need_sign_in(&mut self, why: &str, need: Need, now: Instant) -> bool {
        let is_known =
            matches!(&self.trouble, Trouble::NeedsSignIn { why: known, .. } if known == why);
        self.trouble = Trouble::NeedsSignIn { why: why.to_owned(), since: now, need };
        !is_known
    }

    /// What a sign-in is needed for at present.
    pub(super) fn need(&self) -> Need {
        match &self.trouble {
            Trouble::NeedsSignIn { need, .. } => *need,
            Trouble::None | Trouble::Failing { .. } => Need::Credentials,
        }
    }

    /// No token could be had, and the same is tried again after a while.
    pub(super) fn failed(&mut self, why: &str, remedy: Remedy, now: Instant) {
        self.n_failed = self.n_failed.saturating_add(1);
        self.found_at = None;
        let doubled = OAUTH_PAUSE_MIN * 2_u32.saturating_pow(self.n_failed.min(16) - 1);
        let pause = match remedy {
            Remedy::TryLater => doubled.min(OAUTH_PAUSE_MAX),
            Remedy::SignInAnew | Remedy::AskPerson | Remedy::RegisterAnew | Remedy::Nothing => {
                OAUTH_PAUSE_MAX
            }
        };
        self.trouble = Trouble::Failing { why: why.to_owned(), until: now + pause };
    }

    /// When the access token is due to be renewed; none if it cannot be, or does not end.
    pub(super) fn renew_at(&self, source: TokenSource, at: Moment) -> Option<Instant> {
        let kept = self.unrefused()?;
        if !can_renew(kept, source) {
            return None;
        }
        let left = kept.renew_at()?.saturating_sub(at.time);
        let due = at.now + Duration::from_secs(left);
        Some(self.trouble.retry_at().map_or(due, |at| due.max(at)))
    }

    /// How the sign-in is. `under_way_until`: when the sign-in that is under way is given up.
    pub(super) fn status(
        &self,
        source: TokenSource,
        time: u64,
        under_way_until: Option<SystemTime>,
    ) -> SignInStatus {
        let needed = |why: &str| SignInStatus::NeedsSignIn { why: why.to_owned() };
        let kept = self.unrefused();
        let is_renewed =
            |kept: &Kept| can_renew(kept, source) && self.trouble.retry_at().is_none();
        if let Some(kept) = kept.filter(|kept| !kept.is_over(time) || is_renewed(kept)) {
            let at = |at| SystemTime::UNIX_EPOCH + Duration::from_secs(at);
            let (issuer, scopes) = (kept.grantor.with(), kept.scopes.to_string());
            return SignInStatus::SignedIn { until: kept.expires_at.map(at), issuer, scopes };
        }
        if let Some(until) = under_way_until {
            return SignInStatus::UnderWay { until };
        }
        match (&self.trouble, source) {
            (Trouble::NeedsSignIn { why, .. }, _) => needed(why),
            (Trouble::Failing { why, .. }, _) => SignInStatus::Failing { why: why.clone() },
            (Trouble::None, TokenSource::Gateway | TokenSource::User) if kept.is_some() => {
                needed(TOKEN_HAS_ENDED)
            }
            (Trouble::None, TokenSource::Machine | TokenSource::Gateway) => {
                SignInStatus::Unknown
            }
            (Trouble::None, TokenSource::User) => needed(NOBODY_HAS_SIGNED_IN),
        }
    }
}

/// True if another token may be had in place of this one without a person.
fn can_renew(kept: &Kept, source: TokenSource) -> bool {
    kept.refresh_token.is_some() || source == TokenSource::Machine
}

#[cfg(test)]
mod tests;
