//! Pure: what is known of the credentials of one owner at one server, and what a request does next.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::limits::{NEED_BELIEVED, OAUTH_PAUSE_MAX, OAUTH_PAUSE_MIN};
use crate::oauth::challenge::TokenChallenge;
use crate::oauth::fetch::Reach;
use crate::oauth::signing_key::SigningKey;
use crate::upstream::failure::Unauthorized;
use crate::wait::Wait;

use super::file_look::FileLook;
use super::flow_error::Remedy;
use super::kept::Kept;
use super::pages::Pages;
use super::refusals::Refusals;
use super::step_ups::StepUps;
use super::want::Want;

/// Why a sign-in is needed where there never was one.
pub(super) const NOBODY_HAS_SIGNED_IN: &str = "nobody has signed in yet";

/// What is known at present.
#[derive(Default)]
pub(super) struct State {
    /// The narrowest reach that the server's name has led to.
    pub(super) reach: Option<Reach>,
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
    /// The scopes that a request needed and the token was not good for.
    pub(super) wanted_scopes: Option<String>,
    /// The nonce that the server wants in proofs.
    pub(super) nonce: Option<String>,
    /// How the server asked for credentials last.
    pub(super) challenge: Option<TokenChallenge>,
}

/// Why there are no usable credentials.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum Trouble {
    /// It is not known yet.
    #[default]
    None,
    /// A person must sign in.
    NeedsSignIn { why: String, since: Instant },
    /// The same is tried again then, not before.
    Failing { why: String, until: Instant },
}

/// By whom access tokens are had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holder {
    /// The gateway, by credentials of its own: no person has to do with it.
    Machine,
    /// The gateway, by the sign-in of a person.
    Gateway,
    /// One user, by their sign-in.
    User,
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
    Renew,
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
            Self::None => false,
            Self::NeedsSignIn { since, .. } => {
                let is_fresh = now.saturating_duration_since(*since) < NEED_BELIEVED;
                pages.is_waited_for(now) || is_fresh
            }
            Self::Failing { until, .. } => now < *until,
        }
    }

    fn is_pause(&self, now: Instant) -> bool {
        matches!(self, Self::Failing { until, .. } if now < *until)
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
        self.unrefused().filter(|kept| !kept.is_over(time) || kept.refresh_token.is_some())
    }

    /// True if there are such credentials, and no request was refused for their scopes.
    pub(super) fn has_enough(&self, time: u64) -> bool {
        self.usable(time).is_some() && self.wanted_scopes.is_none()
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
    pub(super) fn step(&self, holder: Holder, at: Moment, has_renewed: bool) -> Step {
        let Moment { now, time } = at;
        if let Some(kept) = self.unrefused() {
            let can_renew = kept.refresh_token.is_some() || holder == Holder::Machine;
            let is_paused = self.trouble.is_pause(now);
            if !kept.is_over(time) {
                let is_due = kept.renew_at().is_some_and(|at| time >= at);
                let is_due = is_due && can_renew && !self.is_asking && !is_paused;
                return Step::Use { number: self.number, is_due };
            }
            if can_renew && !is_paused && !has_renewed {
                return if self.is_asking { Step::Wait } else { Step::Renew };
            }
        }
        if self.is_asking {
            return Step::Wait;
        }
        if self.trouble.is_believed(&self.pages, now)
            && let Some(reason) = self.reason(now)
        {
            return Step::Fail(reason);
        }
        match holder {
            Holder::Machine | Holder::Gateway => Step::Ask,
            Holder::User => {
                let (kind, why) = (Unauthorized::NeedsSignIn, NOBODY_HAS_SIGNED_IN.to_owned());
                Step::Fail(Reason { kind, why })
            }
        }
    }

    /// What a request does whose token, of this number, was refused or is not good for enough.
    /// `has_asked`: it has had another one asked for before.
    pub(super) fn another(
        &self,
        number: Option<u64>,
        now: Instant,
        has_asked: bool,
    ) -> Renewal {
        if self.unrefused().is_some() && number != Some(self.number) {
            return Renewal::IsThere;
        }
        match (self.is_asking, has_asked) {
            (true, _) => Renewal::Wait,
            (false, false) => Renewal::Submit,
            (false, true) => self.reason(now).map_or(Renewal::TryAgain, Renewal::Fail),
        }
    }

    /// The reason why a request cannot have these scopes at present, where its user has been asked
    /// for them before and has not signed in since.
    pub(super) fn still_wanted(
        &self,
        holder: Holder,
        scopes: &str,
        now: Instant,
    ) -> Option<Reason> {
        let is_known = self.wanted_scopes.as_deref() == Some(scopes) && !self.is_asking;
        let reason = self.reason(now).filter(|_| holder == Holder::User && is_known)?;
        (reason.kind == Unauthorized::NeedsSignIn).then_some(reason)
    }

    /// An authorization server is about to be asked. False if one is asked already.
    pub(super) fn begin(&mut self, want: &Want, now: Instant) -> bool {
        if self.is_asking {
            return false;
        }
        self.is_asking = true;
        match want {
            Want::Refused(number) if *number == Some(self.number) => self.refusals.refused(),
            Want::Renewal | Want::Refused(_) => (),
            Want::Scopes(scopes) => {
                self.wanted_scopes = Some(scopes.clone());
                self.step_ups.begun(now);
            }
        }
        true
    }

    /// These credentials are used from here on.
    pub(super) fn adopt(&mut self, kept: Kept, key: Option<Arc<SigningKey>>) {
        self.key = key;
        self.kept = Some(Arc::new(kept));
        self.number += 1;
        self.refusals.replaced();
        (self.trouble, self.n_failed) = (Trouble::None, 0);
        self.pages.signed_in();
        self.wanted_scopes = None;
    }

    /// There are no credentials any more.
    pub(super) fn forget(&mut self) {
        (self.kept, self.key) = (None, None);
        self.number += 1;
        self.look.saw(None);
    }

    /// A person must sign in. True if that is news.
    pub(super) fn need_sign_in(&mut self, why: &str, now: Instant) -> bool {
        let is_known =
            matches!(&self.trouble, Trouble::NeedsSignIn { why: known, .. } if known == why);
        self.trouble = Trouble::NeedsSignIn { why: why.to_owned(), since: now };
        !is_known
    }

    /// No token could be had, and the same is tried again after a while.
    pub(super) fn failed(&mut self, why: &str, remedy: Remedy, now: Instant) {
        self.n_failed = self.n_failed.saturating_add(1);
        let doubled = OAUTH_PAUSE_MIN * 2_u32.saturating_pow(self.n_failed.min(16) - 1);
        let pause = match remedy {
            Remedy::TryLater => doubled.min(OAUTH_PAUSE_MAX),
            Remedy::SignInAnew | Remedy::RegisterAnew | Remedy::Nothing => OAUTH_PAUSE_MAX,
        };
        self.trouble = Trouble::Failing { why: why.to_owned(), until: now + pause };
    }

    /// When the access token is due to be renewed; none if it cannot be, or does not end.
    pub(super) fn renew_at(&self, holder: Holder, at: Moment) -> Option<Instant> {
        let kept = self.unrefused()?;
        if kept.refresh_token.is_none() && holder != Holder::Machine {
            return None;
        }
        let left = kept.renew_at()?.saturating_sub(at.time);
        let due = at.now + Duration::from_secs(left);
        Some(match &self.trouble {
            Trouble::Failing { until, .. } => due.max(*until),
            Trouble::None | Trouble::NeedsSignIn { .. } => due,
        })
    }
}
