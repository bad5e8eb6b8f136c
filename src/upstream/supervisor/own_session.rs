//! The thread of a client's own session does what may wait: it starts a child that is wanted,
//! lets go of what is lost, subscribes again on what is opened anew, and ends the session.

use std::sync::Arc;
use std::time::Instant;

use crate::limits::RELIST_INTERVAL;
use crate::protocol::method::Method;
use crate::protocol::view::ViewId;
use crate::wait::Wait;

use super::lists::{Asker, ReadLists, read_all, view_event};
use super::view_readings::ViewReading;
use super::{busy, tell};
use crate::upstream::backoff::Retry;
use crate::upstream::failure::{Kind, Trouble};
use crate::upstream::http_client::Lane;
use crate::upstream::session::context::{Link, Own};
use crate::upstream::session::pool::{Member, Members};
use crate::upstream::session::renewal::Pace;
use crate::upstream::session::resubscribe::Resubscribing;
use crate::upstream::session::subscribe::about;

/// What that thread owns.
pub(crate) struct Attendant {
    members: Arc<Members>,
    member: Arc<Member>,
    lane: Lane,
    /// Of the session opened last.
    generation: u64,
    resubscribing: Resubscribing,
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

impl Attendant {
    pub(crate) fn new(members: Arc<Members>, member: Arc<Member>) -> Attendant {
        let view = member.view;
        Attendant {
            members,
            member,
            view,
            lane: Lane::default(),
            generation: 0,
            resubscribing: Resubscribing::default(),
            reopening: Retry::default(),
            probing: Pace::default(),
            opened_at: None,
            noted: None,
        }
    }

    /// Until the session is ended.
    pub(crate) fn run(mut self) {
        let member = self.member.clone();
        let nudge = &member.core.nudge;
        while !nudge.is_stopped() {
            let news = nudge.take();
            if let Some(opened) = news.opened {
                self.opened(opened);
            }
            if news.wanted {
                // Whoever waits is told of a failure there.
                self.open().ok();
            }
            if let Some((lost, trouble)) = news.lost {
                self.note(&trouble);
                member.link.forget(lost);
            }
            if let Some(trouble) = member.link.died() {
                self.note(&trouble);
                member.link.forget(self.generation);
            }
            if let Some((doubted, why)) = news.doubted {
                self.look(doubted, &why);
            }
            self.reopen();
            self.subscribe_again();
            if !news.list_changed.is_empty() {
                member.core.views.changed(self.view, &news.list_changed, Instant::now());
            }
            self.read_view(self.view);
            // What was asked meanwhile may have shown that the session is lost.
            if self.is_missing() && self.reopening.at().is_none() {
                self.lost(Instant::now());
            }
            self.rest();
        }
        member.link.close();
        member.end();
        self.members.wake();
    }

    /// Waits for news, or for what is to be done next.
    fn rest(&self) {
        let idle = self.members.look_again(&self.member);
        let subscribe_at = self.resubscribing.at().filter(|_| self.member.link.is_open());
        let now = Instant::now();
        let view = self.member.core.views.due(self.view, now);
        // One that is due already is read by another one's thread, or cannot be read now.
        let view = view.map(|at| at.max(now + RELIST_INTERVAL));
        let next = self.reopening.at().into_iter().chain(subscribe_at).chain(view);
        let until = next.min().map_or(idle, |at| at.min(idle));
        let left = until.saturating_duration_since(Instant::now());
        // An interruption is the end, which is looked for by the caller.
        self.member.core.nudge.idle.until(None, Some(left)).ok();
    }

    fn opened(&mut self, generation: u64) {
        if self.generation < generation {
            self.generation = generation;
            self.opened_at = Some(Instant::now());
            if self.member.standing.uris_or_coming().is_empty() {
                // Whoever subscribes from here on tells this session, or a later one.
                self.resubscribing.settle(generation);
            }
        }
    }

    /// Sees whether the session is well although it was refused, but not again and again.
    fn look(&mut self, generation: u64, why: &Trouble) {
        let now = Instant::now();
        if !self.probing.is_due(now) {
            return;
        }
        self.note(why);
        let member = self.member.clone();
        let looked = busy(&member.core, member.core.config.timeout)
            .and_then(|wait| member.link.probe(&mut self.lane, &wait, why));
        let asked = looked.as_ref().err().unwrap_or(why).asked_pause();
        self.probing.tried(Instant::now(), asked);
        if let Err(trouble) = looked {
            self.lane.reset();
            if trouble.kind == Kind::SessionGone {
                member.link.forget(generation);
            }
        }
    }

    /// Opens the session.
    fn open(&mut self) -> Result<(), Trouble> {
        let opened = busy(&self.member.core, self.member.core.config.start_timeout)
            .and_then(|wait| self.member.link.open(&mut self.lane, &wait));
        match opened {
            Ok(opened) => {
                self.opened(opened.generation);
                Ok(())
            }
            Err(trouble) => {
                self.note(&trouble);
                self.lane.reset();
                self.member.link.backing_off(&trouble, Instant::now());
                Err(trouble)
            }
        }
    }

    /// Reads the lists of this session, if somebody wants them, and tells of them.
    fn read_view(&mut self, id: ViewId) {
        let member = self.member.clone();
        let (core, now) = (&member.core, Instant::now());
        let is_due = core.views.due(id, now).is_some_and(|at| at <= now);
        let members = self.members.clone();
        let Some(_place) = members.place_for_view(&member, is_due) else { return };
        let Some(reading) = core.views.take(id, now, &core.nudge) else { return };
        let read = self.read_lists(&reading);
        let event = view_event(core, id, read, reading);
        if let Some(reports) = core.views.reports() {
            tell(core, &reports, event);
        }
    }

    fn read_lists(&mut self, reading: &ViewReading) -> Result<ReadLists, Trouble> {
        let member = self.member.clone();
        let wait = busy(&self.member.core, self.member.core.config.timeout)?;
        let opened = member.link.open(&mut self.lane, &wait).inspect_err(|trouble| {
            self.lane.reset();
            member.link.backing_off(trouble, Instant::now());
        })?;
        self.opened(opened.generation);
        let asker = Asker { charged: reading.by(), ..Asker::default() };
        read_all(&member.core, &opened.initialized, asker, &mut |outgoing| {
            let wait = busy(&self.member.core, self.member.core.config.timeout)?;
            let (lane, own) = (&mut self.lane, &mut Own(&member.core));
            let answer = member.link.request_open(lane, outgoing, &wait, own);
            answer.inspect_err(|it| forget_if_gone(&*member.link, opened.generation, it))
        })
    }

    /// Whether the session is not open and should be.
    fn is_missing(&self) -> bool {
        let link = &self.member.link;
        !link.is_open() && !link.refuses_sessions() && !self.member.standing.uris().is_empty()
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
        if !self.member.link.is_open() {
            let asked = opened.err().and_then(|trouble| trouble.asked_pause());
            self.reopening.failed(Instant::now(), asked);
        }
    }

    /// Tells a session that was opened anew of all subscriptions.
    fn subscribe_again(&mut self) {
        if !self.member.link.is_open()
            || !self.resubscribing.is_due(self.generation, Instant::now())
        {
            return;
        }
        let Attendant { resubscribing, member, lane, generation, .. } = self;
        let core = member.core.clone();
        let busy = || busy(&core, core.config.timeout);
        let mut subscribe = |uri: &str, wait: &Arc<Wait>| {
            let outgoing = about(Method::ResourcesSubscribe, uri);
            let answer = member.link.request_open(lane, &outgoing, wait, &mut Own(&core));
            answer.inspect_err(|it| forget_if_gone(&*member.link, *generation, it))
        };
        let tick = core.limits.heartbeat;
        let failed =
            resubscribing.run(*generation, &member.standing, tick, &busy, &mut subscribe);
        if let Some(what) = failed.filter(|_| !core.nudge.is_stopped()) {
            log::warn!(target: "upstream", "{}: a client's own session could not be \
                subscribed again: {}", core.name(), core.secrets.scrub_for_operator(&what));
        }
    }

    fn note(&mut self, trouble: &Trouble) {
        let core = &self.member.core;
        let message = core.scrubbed(trouble.clone()).message;
        let what = format!(
            "{}: a client's own session failed ({}): {message}",
            core.name(),
            trouble.stage
        );
        let noted = Some((self.generation, what));
        if self.noted != noted && !core.nudge.is_stopped() {
            self.noted = noted;
            if let Some((_, what)) = &self.noted {
                log::info!(target: "upstream", "{what}");
            }
        }
    }
}

/// Lets go of a session that its server does not know any more: whoever needs one opens another.
fn forget_if_gone(link: &dyn Link, generation: u64, trouble: &Trouble) {
    if trouble.kind == Kind::SessionGone {
        link.forget(generation);
    }
}
