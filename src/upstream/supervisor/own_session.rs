//! The thread of a client's own session does what may wait: it starts a child that is wanted,
//! lets go of what is lost, subscribes again on what is opened anew, and ends the session.

use std::sync::Arc;
use std::time::Instant;

use crate::limits::{ENDED_SESSION_GRACE, RELIST_INTERVAL};
use crate::protocol::session_route::SessionSupport;
use crate::protocol::view::ViewId;
use crate::wait::Wait;

use super::lists::{Asker, ReadLists, read_all, view_event};
use super::view_readings::ViewReading;
use super::{busy, tell};
use crate::upstream::backoff::Retry;
use crate::upstream::failure::{Failure, FailureKind};
use crate::upstream::http_client::HttpConnection;
use crate::upstream::session::Session;
use crate::upstream::session::context::{GatewaySink, pause};
use crate::upstream::session::pool::{PooledSession, SessionPool};
use crate::upstream::session::renewal::Pace;
use crate::upstream::session::subscriptions::next_step::Step;
use crate::upstream::session::subscriptions::reconcile::Reconciling;
use crate::upstream::session::subscriptions::subscribe::about;

/// What that thread owns.
pub(crate) struct OwnSessionSupervisor {
    pool: Arc<SessionPool>,
    pooled: Arc<PooledSession>,
    connection: HttpConnection,
    /// Of the session opened last.
    generation: u64,
    reconciling: Reconciling,
    /// When a session that is lost, and subscribed to something, is opened anew: its client may
    /// only be waiting, so that no call would.
    reopening: Retry,
    /// Before that it is not asked again whether the session is well.
    probing: Pace,
    /// When the session was opened last.
    opened_at: Option<Instant>,
    /// The lists of this session, which all see whose sessions declare the same.
    view: ViewId,
    /// The failure logged last, and the session before it: one that goes on is logged once.
    noted: Option<(u64, String)>,
}

impl OwnSessionSupervisor {
    pub(crate) fn new(
        pool: Arc<SessionPool>,
        pooled: Arc<PooledSession>,
    ) -> OwnSessionSupervisor {
        let view = pooled.view;
        OwnSessionSupervisor {
            pool,
            pooled,
            view,
            connection: HttpConnection::default(),
            generation: 0,
            reconciling: Reconciling::default(),
            reopening: Retry::default(),
            probing: Pace::default(),
            opened_at: None,
            noted: None,
        }
    }

    /// Until the session is ended.
    pub(crate) fn run(mut self) {
        let pooled = self.pooled.clone();
        let mailbox = &pooled.context.mailbox;
        while !mailbox.is_stopped() {
            let news = mailbox.take();
            if let Some(opened) = news.opened {
                self.opened(opened);
            }
            if news.wanted {
                // Whoever waits is told of a failure there.
                self.open().ok();
            }
            if let Some((lost, failure)) = news.lost {
                self.note(&failure);
                pooled.session.forget(lost);
            }
            if let Some(failure) = pooled.session.died() {
                self.note(&failure);
                pooled.session.forget(self.generation);
            }
            if let Some((doubted, why)) = news.doubted {
                self.look(doubted, &why);
            }
            self.reopen();
            self.reconcile();
            if !news.list_changed.is_empty() {
                pooled.context.views.changed(self.view, &news.list_changed, Instant::now());
            }
            self.read_view(self.view);
            // What was asked meanwhile may have shown that the session is lost.
            if self.is_missing() && self.reopening.at().is_none() {
                self.lost(Instant::now());
            }
            self.rest();
        }
        if pooled.lingers()
            && let Ok(wait) = Wait::plain(ENDED_SESSION_GRACE)
        {
            // Nobody interrupts it: it ends at its deadline.
            pause(&wait, ENDED_SESSION_GRACE).ok();
        }
        pooled.session.close();
        pooled.end();
        self.pool.wake();
    }

    /// Waits for news, or for what is to be done next.
    fn rest(&self) {
        let idle = self.pool.look_again(&self.pooled);
        let now = Instant::now();
        let tell_at = self.reconciling.at(&self.pooled.desired, now);
        let tell_at = tell_at.filter(|_| self.pooled.session.is_open());
        let view = self.pooled.context.views.due(self.view, now);
        // One that is due already is read by another one's thread, or cannot be read now.
        let view = view.map(|at| at.max(now + RELIST_INTERVAL));
        let next = self.reopening.at().into_iter().chain(tell_at).chain(view);
        let until = next.min().map_or(idle, |at| at.min(idle));
        let left = until.saturating_duration_since(Instant::now());
        // An interruption is the end, which is looked for by the caller.
        self.pooled.context.mailbox.idle.until(None, Some(left)).ok();
    }

    fn opened(&mut self, generation: u64) {
        if self.generation < generation {
            self.generation = generation;
            self.opened_at = Some(Instant::now());
            self.pooled.desired.opened(generation, &self.pooled.context.mailbox.idle);
        }
    }

    /// Sees whether the session is well although it was refused, but not again and again.
    fn look(&mut self, generation: u64, why: &Failure) {
        let now = Instant::now();
        if !self.probing.is_due(now) {
            return;
        }
        self.note(why);
        let pooled = self.pooled.clone();
        let looked = busy(&pooled.context, pooled.context.config.timeout)
            .and_then(|wait| pooled.session.probe(&mut self.connection, &wait, why));
        let asked = looked.as_ref().err().unwrap_or(why).asked_pause();
        self.probing.tried(Instant::now(), asked);
        if let Err(failure) = looked {
            self.connection.reset();
            if failure.kind == FailureKind::SessionGone {
                pooled.session.forget(generation);
            }
        }
    }

    /// Opens the session.
    fn open(&mut self) -> Result<(), Failure> {
        let opened = busy(&self.pooled.context, self.pooled.context.config.start_timeout)
            .and_then(|wait| self.pooled.session.open(&mut self.connection, &wait));
        match opened {
            Ok(opened) => {
                self.opened(opened.generation);
                Ok(())
            }
            Err(failure) => {
                self.note(&failure);
                self.connection.reset();
                self.pooled.session.back_off(&failure, Instant::now());
                Err(failure)
            }
        }
    }

    /// Reads the lists of this session, if somebody wants them, and tells of them.
    fn read_view(&mut self, id: ViewId) {
        let pooled = self.pooled.clone();
        let (context, now) = (&pooled.context, Instant::now());
        let is_due = context.views.due(id, now).is_some_and(|at| at <= now);
        let pool = self.pool.clone();
        let Some(_place) = pool.place_for_view(&pooled, is_due) else { return };
        let Some(reading) = context.views.take(id, now, &context.mailbox) else { return };
        let read = self.read_lists(&reading);
        let event = view_event(context, id, read, reading);
        if let Some(reports) = context.views.reports() {
            tell(context, &reports, event);
        }
    }

    fn read_lists(&mut self, reading: &ViewReading) -> Result<ReadLists, Failure> {
        let pooled = self.pooled.clone();
        let wait = busy(&self.pooled.context, self.pooled.context.config.timeout)?;
        let opened =
            pooled.session.open(&mut self.connection, &wait).inspect_err(|failure| {
                self.connection.reset();
                pooled.session.back_off(failure, Instant::now());
            })?;
        self.opened(opened.generation);
        let asker = Asker { charged: reading.by(), ..Asker::default() };
        read_all(&pooled.context, &opened.initialized, asker, &mut |outgoing| {
            let wait = busy(&self.pooled.context, self.pooled.context.config.timeout)?;
            let (connection, own) = (&mut self.connection, &GatewaySink(&pooled.context));
            let answer = pooled.session.request_open(connection, outgoing, &wait, own);
            answer.inspect_err(|it| forget_if_gone(&pooled.session, opened.generation, it))
        })
    }

    /// Whether the session is not open and should be.
    fn is_missing(&self) -> bool {
        let session = &self.pooled.session;
        !session.is_open()
            && session.session_support() != SessionSupport::Refused
            && self.pooled.desired.has_subscriptions()
    }

    /// A session that should be open is not: another one is opened after a while.
    fn lost(&mut self, now: Instant) {
        let lasted = self.opened_at.take().map(|at| now.saturating_duration_since(at));
        self.reopening.backoff.lasted(lasted.unwrap_or_default());
        self.reopening.failed(now, None);
    }

    /// Opens a session that is not open and should be, when its time has come.
    fn reopen(&mut self) {
        if !self.is_missing() {
            self.reopening.give_up();
            return;
        }
        let now = Instant::now();
        let Some(at) = self.reopening.at() else { return self.lost(now) };
        if now < at {
            return;
        }
        self.reopening.give_up();
        let opened = self.open();
        if !self.pooled.session.is_open() {
            let asked = opened.err().and_then(|failure| failure.asked_pause());
            self.reopening.failed(Instant::now(), asked);
        }
    }

    /// Tells the session of subscriptions that it does not know of, and of those that nobody wants.
    fn reconcile(&mut self) {
        let OwnSessionSupervisor { reconciling, pooled, connection, generation, .. } = self;
        let now = Instant::now();
        if !pooled.session.is_open() || !reconciling.is_due(&pooled.desired, now) {
            return;
        }
        let context = &pooled.context;
        let mut tell = |step: Step, uri: &str| {
            let wait = busy(context, step.patience(&context.config))?;
            let (outgoing, own) = (about(step, uri), &GatewaySink(context));
            let answer = pooled.session.request_open(connection, &outgoing, &wait, own);
            answer.inspect_err(|it| forget_if_gone(&pooled.session, *generation, it))
        };
        let failed = reconciling.run(&pooled.desired, *generation, now, &mut tell);
        if let Some(what) = failed.filter(|_| !context.mailbox.is_stopped()) {
            log::warn!(target: "upstream", "{}: a client's own session could not be \
                subscribed again: {}", context.name(), context.secrets.scrub_for_operator(&what));
        }
    }

    fn note(&mut self, failure: &Failure) {
        let context = &self.pooled.context;
        let message = context.scrubbed(failure.clone()).message;
        let what = format!(
            "{}: a client's own session failed ({}): {message}",
            context.name(),
            failure.stage
        );
        let noted = Some((self.generation, what));
        if self.noted != noted && !context.mailbox.is_stopped() {
            self.noted = noted;
            if let Some((_, what)) = &self.noted {
                log::info!(target: "upstream", "{what}");
            }
        }
    }
}

/// Lets go of a session that its server does not know any more: whoever needs one opens another.
fn forget_if_gone(session: &Session, generation: u64, failure: &Failure) {
    if failure.kind == FailureKind::SessionGone {
        session.forget(generation);
    }
}
