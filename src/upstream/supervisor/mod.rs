//! One thread per upstream: makes contact, reads its lists, and goes on trying when it is gone.

mod list_failures;
pub(super) mod list_times;
pub(super) mod lists;
pub(super) mod own_session;
pub(super) mod restarts;
pub(super) mod view_readings;
pub(super) mod views;
pub(super) mod wanted_lists;

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;

use crate::error::Stage;
use crate::limits::{
    CREDENTIALS_LOOK_INTERVAL, REFRESH_INTERVAL, RELIST_INTERVAL, SIGN_INS_OF_CALL_MAX,
    SLOTS_SWEEP_INTERVAL,
};
use crate::protocol::call::Outgoing;
use crate::protocol::method::Method;
use crate::protocol::raw::{RawObject, string};
use crate::protocol::session_route::SessionKind;
use crate::upstream::handshake::{declares, with_tools};
use crate::wait::Wait;

use super::authorization::{Owner, SignInStatus};
use super::backoff::Retry;
use super::call::circuit_breaker::{DeadlineOwner, FailureClass};
use super::call::concurrency::ConcurrencyLimit;
use super::failure::{Failure, FailureKind};
use super::http_client::HttpConnection;
use super::session::Session;
use super::session::context::{GatewaySink, Opened, SessionContext};
use super::session::single_flight::OpenedBy;
use super::session::subscriptions::DesiredSubscriptions;
use super::session::subscriptions::next_step::Step;
use super::session::subscriptions::reconcile::{LogLevelTold, Reconciling, Taken};
use super::session::subscriptions::subscribe::about;
use super::status::SharedHealth;
use super::{Event, FailureReport, Report};
use list_failures::is_unclear;
use list_times::Lists;
use lists::UndeclaredTools;
use restarts::{Lived, Reopenings, Restarts};

/// The time between two looks at an access token that is due.
const TOKEN_LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// What the supervisor's thread owns.
pub(super) struct Supervisor {
    pub(super) context: Arc<SessionContext>,
    pub(super) session: Arc<Session>,
    pub(super) health: Arc<SharedHealth>,
    pub(super) reports: Sender<Report>,
    pub(super) connection: HttpConnection,
    /// Of the calls; what they keep and no longer use is let go here.
    pub(super) concurrency: Arc<ConcurrencyLimit<HttpConnection>>,
    /// Of the session seen last.
    pub(super) generation: Option<u64>,
    /// The session whose failure was logged last: one that fails again and again in the same
    /// way is logged once.
    pub(super) logged: u64,
    pub(super) desired: Arc<DesiredSubscriptions>,
    pub(super) level: LogLevelTold,
    pub(super) reconciling: Reconciling,
    pub(super) lists: Lists,
    pub(super) undeclared: UndeclaredTools,
    /// Before that it is not asked again whether the session is well.
    pub(super) probing: Retry,
    /// When what ended by itself is listened to again.
    pub(super) listening: Retry,
    /// When it was listened to again last.
    pub(super) listened_at: Option<Instant>,
}

/// Why the supervisor no longer looks after a session.
enum Left {
    /// Others saw that it failed.
    Lost(Failure),
    /// An attempt of its own failed, after so long.
    Failed(Failure, Duration),
    Stopped,
}

impl Supervisor {
    /// Runs until the upstream is stopped; ends its session then.
    pub(super) fn run(mut self) {
        let (mut reopenings, mut restarts) = (Reopenings::default(), Restarts::default());
        while !self.context.mailbox.is_stopped() {
            let began = Instant::now();
            self.health.lock().breaker.tries(began);
            let mut made_contact = None;
            let left = match self.contact() {
                Ok(opened) => {
                    made_contact = Some(Instant::now());
                    self.attend(opened)
                }
                Err(failure) => Left::Failed(failure, began.elapsed()),
            };
            if self.context.mailbox.is_stopped() {
                // What fails now fails because of that.
                break;
            }
            let (failure, took) = match left {
                Left::Stopped => break,
                Left::Lost(failure) => (failure, None),
                Left::Failed(failure, took) => (failure, Some(took)),
            };
            let has_served = self.health.lock().breaker.take_served();
            let well_for = made_contact.map(|at| at.elapsed());
            let lived = match well_for {
                Some(time) if has_served => Lived::Served(time),
                Some(time) => Lived::Idle(time),
                None => Lived::Never,
            };
            // One that did what it should is back at once: whoever can make it end must not close
            // the others out by that.
            let delay = match self.session.opener() {
                // A call may be answered before the lists are read.
                OpenedBy::Supervisor if has_served => {
                    restarts.next(Lived::Served(well_for.unwrap_or_default()))
                }
                OpenedBy::Supervisor => restarts.next(lived),
                OpenedBy::Calls | OpenedBy::SupervisorOnDemand => {
                    reopenings.next(lived, failure.asked_pause())
                }
            };
            self.failed(&failure, took, delay);
            if !self.back_off(delay) {
                break;
            }
        }
        self.session.close();
    }

    /// Opens the session if nobody has, and reads the lists. While the person at this machine signs
    /// in at the server, it waits, which is a part of first contact.
    fn contact(&mut self) -> Result<Opened, Failure> {
        let mut n_sign_ins = 0;
        loop {
            let contact = self.contact_now();
            let waits = contact.as_ref().is_err_and(Failure::is_of_sign_in_under_way);
            let authorization = self.context.authorization.clone().filter(|_| waits);
            let Some(authorization) =
                authorization.filter(|_| n_sign_ins < SIGN_INS_OF_CALL_MAX)
            else {
                return contact;
            };
            n_sign_ins += 1;
            let wait = self.busy_for(self.context.limits.parked)?;
            if authorization.wait_for_person(&wait, || false).is_err() {
                return contact;
            }
        }
    }

    fn contact_now(&mut self) -> Result<Opened, Failure> {
        let wait = self.busy_for(self.start_patience())?;
        let opened = self.session.open(&mut self.connection, &wait).inspect_err(|_| {
            self.lists.hasten();
        })?;
        let is_new = self.generation != Some(opened.generation);
        self.health.lock().opened += u64::from(is_new);
        self.generation = Some(opened.generation);
        if is_new {
            self.desired.opened(opened.generation, &self.context.mailbox.idle);
        }
        self.introduce(&opened);
        if is_new {
            // It has answered: whatever its lists are like, it can be called.
            self.made_contact(&opened);
            self.probing.give_up();
        }
        let kinds = self.lists.not_waiting(Instant::now());
        self.list(&opened, &kinds)?;
        self.made_contact(&opened);
        self.tell_again(&opened)?;
        Ok(opened)
    }

    /// Tells what the upstream says of itself.
    pub(super) fn introduce(&self, opened: &Opened) {
        let mut initialized = self.context.introduction(&opened.initialized);
        if self.undeclared == UndeclaredTools::Some {
            initialized = with_tools(&initialized);
        }
        self.health.lock().initialized = Some(Arc::new(initialized.clone()));
        self.tell(Event::Ready { server: self.context.name().clone(), initialized });
    }

    fn made_contact(&self, opened: &Opened) {
        let was_lost = {
            let breaker = &mut self.health.lock().breaker;
            let was_lost = !breaker.has_contact();
            breaker.made_contact();
            was_lost
        };
        if was_lost && let Some(more) = self.context.told.turn() {
            let revision = opened.initialized.revision;
            let transport = self.session.transport();
            log::info!(target: "upstream", "{} is ready: {transport}, {revision}{more}", self.context.name());
        }
    }

    /// Why calls are refused at present, if they are.
    pub(super) fn why_down(&self) -> Option<Failure> {
        let down = self.health.lock().breaker.down(Instant::now(), SessionKind::Own)?;
        Some(Failure::new(FailureKind::Broke, down.last.stage, down.last.message))
    }

    /// Sees whether the session is well although `why` casts doubt on it, but not again and again.
    ///
    /// # Errors
    /// It is not, because of `why`.
    pub(super) fn look(&mut self, opened: &Opened, why: Failure) -> Result<(), Failure> {
        let has_contact = self.health.lock().breaker.has_contact();
        if has_contact && self.probing.is_waiting(Instant::now()) {
            return Ok(());
        }
        let wait = self.busy()?;
        let Err(failure) = self.session.probe(&mut self.connection, &wait, &why) else {
            self.probing.failed(Instant::now(), why.asked_pause());
            self.health.lock().breaker.well();
            return Ok(());
        };
        self.connection.reset();
        self.probing.give_up();
        if failure.kind == FailureKind::SessionGone {
            self.session.forget(opened.generation);
        }
        Err(why)
    }

    /// Waits for whatever happens to an open session.
    fn attend(&mut self, mut opened: Opened) -> Left {
        let mut refresh_at = Instant::now() + REFRESH_INTERVAL;
        let mut sweep_at = Instant::now() + SLOTS_SWEEP_INTERVAL;
        loop {
            self.renew_token();
            let news = self.context.mailbox.take();
            self.lists.note_changed(&news.list_changed);
            self.lists.note_wanted(&news.list_wanted);
            if self.context.mailbox.is_stopped() {
                return Left::Stopped;
            }
            if let Some(failure) = self.session.died() {
                self.session.forget(opened.generation);
                return Left::Lost(failure);
            }
            if let Some((generation, failure)) = news.lost
                && generation >= opened.generation
                // One that a call has opened since is looked at below.
                && news.opened.is_none_or(|newer| newer <= generation)
            {
                self.session.forget(generation);
                return Left::Lost(failure);
            }
            let doubt = news.doubted.filter(|(generation, _)| *generation == opened.generation);
            let reopened = news.opened.is_some_and(|generation| generation > opened.generation);
            let now = Instant::now();
            if now >= sweep_at {
                self.concurrency.sweep();
                sweep_at = now + SLOTS_SWEEP_INTERVAL;
            }
            let is_refresh = reopened || news.stale || now >= refresh_at;
            if is_refresh || !news.list_changed.is_empty() {
                self.context.views.requests_changed(&news.list_changed, now);
            }
            let due = self.lists.due(now);
            let step = if reopened {
                self.contact().map(|newer| opened = newer)
            } else if let Some((_, why)) = doubt {
                self.remember_refusal(&why);
                self.look(&opened, why)
            } else if is_refresh {
                self.session.refresh();
                self.list(&opened, &self.lists.not_waiting(now))
            } else if !due.is_empty() {
                self.list(&opened, &due)
            } else if let Some(taken) =
                self.context.views.take_of_requests(now, &self.context.mailbox)
            {
                let (id, capabilities, reading) = taken;
                self.read_view(&opened, id, &capabilities, reading);
                continue;
            } else if let Err(failure) = self.tell_again(&opened) {
                Err(failure)
            } else {
                self.listen_again(now);
                let views = self.context.views.next_due_of_requests(now);
                // One that is due already waits for another reading's end, which rings.
                let views = views.map(|at| if at <= now { now + RELIST_INTERVAL } else { at });
                let told = self.reconciling.at(&self.desired, now);
                let retries = [self.level.at(), told, self.listening.at()];
                let lists = [self.lists.next_due(now), views, self.token_due(now)];
                let ends = [Some(refresh_at), Some(sweep_at)];
                let next = retries.into_iter().chain(lists).chain(ends).flatten();
                self.rest(next.min().unwrap_or(refresh_at));
                continue;
            };
            if is_refresh {
                refresh_at = Instant::now() + REFRESH_INTERVAL;
            }
            if let Err(failure) = step {
                return Left::Failed(failure, now.elapsed());
            }
        }
    }

    fn renew_token(&self) {
        if let Some(authorization) = &self.context.authorization {
            authorization.renew_if_due();
        }
    }

    /// When the access token is due, if it is to be renewed. One that is due is being renewed.
    fn token_due(&self, now: Instant) -> Option<Instant> {
        let at = self.context.authorization.as_ref()?.renew_at()?;
        Some(at.max(now + TOKEN_LOOK_INTERVAL))
    }

    /// Waits until there is news or `until` has come.
    fn rest(&self, until: Instant) {
        let left = until.saturating_duration_since(Instant::now());
        // An interruption is a stop, which the caller looks for.
        self.context.mailbox.idle.until(None, Some(left)).ok();
    }

    /// How long contact may take: a child's first answer, and the first handshake with any
    /// other upstream, have a bound of their own.
    fn start_patience(&self) -> Duration {
        let is_start =
            self.session.opener() == OpenedBy::Supervisor || self.generation.is_none();
        let config = &self.context.config;
        if is_start { config.start_timeout } else { config.timeout }
    }

    pub(super) fn busy(&self) -> Result<Arc<Wait>, Failure> {
        self.busy_for(self.context.config.timeout)
    }

    fn busy_for(&self, patience: Duration) -> Result<Arc<Wait>, Failure> {
        busy(&self.context, patience)
    }

    /// Tells a session what it has not taken yet of what holds for all of them.
    ///
    /// # Errors
    /// The session is gone, or answers nothing else either.
    fn tell_again(&mut self, opened: &Opened) -> Result<(), Failure> {
        self.tell_level(opened)?;
        self.reconcile(opened)
    }

    /// Tells the session the level of its log messages, if it has not taken it.
    fn tell_level(&mut self, opened: &Opened) -> Result<(), Failure> {
        let Some(level) = self.desired.level() else { return Ok(()) };
        let generation = opened.generation;
        if !declares(&opened.initialized, "logging") {
            self.level.give_up();
            return Ok(());
        }
        if !self.level.is_due(generation, &level, Instant::now()) {
            return Ok(());
        }
        let mut params = RawObject::default();
        params.set("level", string(&level));
        let outgoing = Outgoing::own(Method::LoggingSetLevel, params);
        let answer = self.busy().and_then(|wait| {
            self.session.request_open(
                &mut self.connection,
                &outgoing,
                &wait,
                &GatewaySink(&self.context),
            )
        });
        let doubt = answer.as_ref().err().filter(|it| is_unclear(it)).cloned();
        if let Some(what) = self.level.told(generation, &level, Taken::of(answer)) {
            self.warn_of(Method::LoggingSetLevel, &what);
        }
        doubt.map_or(Ok(()), |why| self.look(opened, why))
    }

    /// Tells the session of subscriptions that it does not know of, and of those that nobody wants.
    fn reconcile(&mut self, opened: &Opened) -> Result<(), Failure> {
        let now = Instant::now();
        if !self.reconciling.is_due(&self.desired, now) {
            return Ok(());
        }
        let mut doubt = None;
        let Supervisor { reconciling, desired, context, session, connection, .. } = self;
        let mut tell = |step: Step, uri: &str| {
            let wait = busy(context, step.patience(&context.config))?;
            let (outgoing, own) = (about(step, uri), &GatewaySink(context));
            let answer = session.request_open(connection, &outgoing, &wait, own);
            // Nobody waits for the end of a subscription, and it has little time: that it is late says
            // nothing of the session.
            let is_late = |it: &Failure| {
                step == Step::Unsubscribe && matches!(it.kind, FailureKind::Interrupted(_))
            };
            let says_something = |it: &&Failure| is_unclear(it) && !is_late(it);
            doubt = answer.as_ref().err().filter(says_something).cloned();
            answer
        };
        if let Some(what) = reconciling.run(desired, opened.generation, now, &mut tell) {
            self.warn_of(Method::ResourcesSubscribe, &what);
        }
        doubt.map_or(Ok(()), |why| self.look(opened, why))
    }

    /// Has the session listen again where that has ended by itself.
    fn listen_again(&mut self, now: Instant) {
        if self.session.is_listening() {
            return self.listening.give_up();
        }
        match self.listening.at() {
            None => {
                let lasted = self.listened_at.map(|at| now.saturating_duration_since(at));
                self.listening.backoff.lasted(lasted.unwrap_or_default());
                self.listening.failed(now, None);
            }
            Some(at) if at <= now => {
                self.listening.give_up();
                self.listened_at = Some(now);
                self.session.refresh();
            }
            Some(_) => (),
        }
    }

    fn warn_of(&self, method: Method, what: &str) {
        // A session that the gateway itself ends has nothing to tell.
        if self.context.mailbox.is_stopped() {
            return;
        }
        let what = self.context.secrets.scrub_for_operator(what);
        log::warn!(target: "upstream", "{}: {} failed: {what}",
            self.context.name(), method.as_str());
    }

    /// Remembers and tells a failure.
    pub(super) fn note(&self, failure: &Failure) {
        let failure = self.remember(failure);
        self.tell(Event::Failed { server: self.context.name().clone(), failure });
    }

    /// Remembers and logs a failure.
    pub(super) fn remember(&self, failure: &Failure) -> FailureReport {
        let failure = self.context.report(failure);
        let server = self.context.name();
        let last = self.health.lock().last_failure.replace(failure.clone());
        let same = |last: FailureReport| {
            last.stage == failure.stage && last.message == failure.message
        };
        let is_news =
            !last.is_some_and(same) || self.generation.is_some_and(|it| self.logged < it);
        if is_news
            && !self.context.mailbox.is_stopped()
            && let Some(more) = self.context.told.turn()
        {
            log::warn!(target: "upstream", "{server} failed ({}): {}{more}", failure.stage, failure.message);
        }
        failure
    }

    /// Remembers and logs that a session was refused, unless that is known from a list.
    fn remember_refusal(&self, why: &Failure) {
        let message = self.context.report(why).message;
        let is_known = |last: &FailureReport| last.message == message;
        let is_known = self.health.lock().last_failure.as_ref().is_some_and(is_known);
        if !is_known {
            self.remember(why);
        }
    }

    /// `took`: how long an attempt of its own took, if that is what failed.
    fn failed(&mut self, failure: &Failure, took: Option<Duration>, delay: Duration) {
        self.connection.reset();
        let now = Instant::now();
        let next_try = now + delay;
        self.session.back_off(failure, next_try);
        {
            let report = self.context.report(failure);
            let breaker = &mut self.health.lock().breaker;
            if let Some(took) = took
                && FailureClass::of(failure, DeadlineOwner::Full) == FailureClass::Failed
            {
                breaker.failed(now, took, report.clone());
            }
            breaker.waits(now, next_try, took, report);
        }
        self.note(failure);
        self.logged = self.generation.unwrap_or_default();
    }

    /// Waits for the next attempt; a call that opened a session in the meantime, or waits for
    /// one, is a reason to look at once. False at a stop.
    fn back_off(&self, delay: Duration) -> bool {
        let until = Instant::now() + delay;
        let mut seen = self.generation;
        let mut is_first_look = true;
        loop {
            if self.context.mailbox.is_stopped() {
                return false;
            }
            let news = self.context.mailbox.take();
            // What the attempt that failed has opened itself is no news.
            let is_opened = !is_first_look && news.opened > seen;
            seen = seen.max(news.opened);
            is_first_look = false;
            if is_opened || news.wanted || Instant::now() >= until {
                return true;
            }
            let look =
                self.looks_for_sign_in().then(|| Instant::now() + CREDENTIALS_LOOK_INTERVAL);
            self.rest(look.map_or(until, |at| at.min(until)));
        }
    }

    /// Looks if somebody has signed in by another process, which is news then. True if that is still
    /// to be looked for.
    fn looks_for_sign_in(&self) -> bool {
        let authorization = self.context.authorization.as_ref();
        let authorization = authorization.filter(|it| it.owner() == Owner::Gateway);
        authorization.is_some_and(|it| match it.status() {
            SignInStatus::NeedsSignIn { .. } | SignInStatus::UnderWay { .. } => true,
            SignInStatus::Unknown
            | SignInStatus::SignedIn { .. }
            | SignInStatus::Failing { .. } => false,
        })
    }

    pub(super) fn tell(&self, event: Event) {
        tell(&self.context, &self.reports, event);
    }
}

/// Whoever listens may be busy for a while, or gone; a stop ends the wait.
pub(super) fn tell(context: &SessionContext, reports: &Sender<Report>, event: Event) {
    let Some(mut report) = context.reported(event) else { return };
    loop {
        let patience = Duration::from_millis(100);
        match reports.send_timeout(report, patience) {
            Ok(()) => return,
            Err(crossbeam_channel::SendTimeoutError::Timeout(again)) => report = again,
            Err(crossbeam_channel::SendTimeoutError::Disconnected(_)) => return,
        }
        if context.mailbox.is_stopped() {
            return;
        }
    }
}

/// A wait for what the one who looks after this session does itself.
pub(super) fn busy(context: &SessionContext, patience: Duration) -> Result<Arc<Wait>, Failure> {
    let busy = context.mailbox.busy(patience);
    busy.map_err(|error| Failure::new(FailureKind::Nonsense, Stage::Connect, error.to_string()))
}
