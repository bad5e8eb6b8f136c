//! The thread of a client's own session does what may wait: it starts a child that is wanted,
//! lets go of what is lost, subscribes again on what is opened anew, and ends the session.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::Stage;
use crate::limits::{CONTROL_TIMEOUT, RELIST_INTERVAL};
use crate::protocol::call::{About, Outcome};
use crate::protocol::method::Method;
use crate::protocol::view::ViewId;
use crate::wait::Wait;

use super::backoff::{Backoff, Range};
use super::connection::{Kind, Trouble, cut};
use super::exchange::Lane;
use super::link::Own;
use super::lists::{ReadLists, read_all, view_event};
use super::members::{Member, Members};
use super::subscribing::about;
use super::supervisor::tell;

/// What that thread owns.
pub(super) struct Attendant {
    members: Arc<Members>,
    member: Arc<Member>,
    lane: Lane,
    /// Of the session opened last.
    generation: u64,
    /// Of the session that was told of all subscriptions.
    subscribed: u64,
    backoff: Backoff,
    /// When a session that is lost, and subscribed to something, is opened anew: its client may
    /// only be waiting, so that no call would.
    reopen_at: Option<Instant>,
    /// The lists of this session, which all see whose sessions declare the same.
    view: Option<ViewId>,
    /// The failure logged last, and the session before it: one that goes on is logged once.
    noted: Option<(u64, String)>,
}

impl Attendant {
    pub(super) fn new(members: Arc<Members>, member: Arc<Member>) -> Attendant {
        let client = member.core.client.as_ref();
        let view = client.map(|client| ViewId::of_session(client.capabilities.get()));
        Attendant {
            members,
            member,
            view,
            lane: Lane::default(),
            generation: 0,
            subscribed: 0,
            backoff: Backoff::new(Range::UPSTREAM),
            reopen_at: None,
            noted: None,
        }
    }

    /// Until the session is ended.
    pub(super) fn run(mut self) {
        let member = self.member.clone();
        let nudge = &member.core.nudge;
        while !nudge.is_stopped() {
            let news = nudge.take();
            self.generation = self.generation.max(news.opened.unwrap_or_default());
            if news.wanted {
                self.open();
            }
            if let Some((lost, trouble)) = news.lost {
                self.note(&trouble);
                member.link.forget(lost);
            }
            if let Some(trouble) = member.link.died() {
                self.note(&trouble);
                member.link.forget(self.generation);
            }
            self.reopen();
            self.subscribe_again();
            if let Some(id) = self.view {
                if !news.list_changed.is_empty() {
                    member.core.views.changed(id);
                }
                self.read_view(id);
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
        let until = self.reopen_at.map_or(idle, |at| at.min(idle));
        let now = Instant::now();
        let view = self.view.and_then(|id| self.member.core.views.due(id, now));
        // One that is due already is read by another one's thread, or cannot be read now.
        let until = view.map_or(until, |at| at.max(now + RELIST_INTERVAL).min(until));
        let left = until.saturating_duration_since(Instant::now());
        // An interruption is the end, which is looked for by the caller.
        self.member.core.nudge.idle.until(None, Some(left)).ok();
    }

    fn busy(&self) -> Result<Arc<Wait>, Trouble> {
        self.busy_for(self.member.core.config.timeout)
    }

    fn busy_for(&self, patience: Duration) -> Result<Arc<Wait>, Trouble> {
        let busy = self.member.core.nudge.busy(patience);
        busy.map_err(|error| Trouble::new(Kind::Nonsense, Stage::Connect, error.to_string()))
    }

    /// Opens the session for the calls that wait for it.
    fn open(&mut self) {
        let patience = self.member.core.config.start_timeout;
        let busy = self.busy_for(patience);
        let opened = busy.and_then(|wait| self.member.link.open(&mut self.lane, &wait));
        match opened {
            Ok(opened) => self.generation = self.generation.max(opened.generation),
            Err(trouble) => {
                self.note(&trouble);
                self.lane.reset();
                self.member.link.backing_off(&trouble, Instant::now());
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
        if !core.views.take(id, now) {
            return;
        }
        let read = self.read_lists();
        let event = view_event(core, id, read);
        if let Some(reports) = core.views.reports() {
            tell(core, &reports, event);
        }
    }

    fn read_lists(&mut self) -> Result<ReadLists, Trouble> {
        let member = self.member.clone();
        let wait = self.busy()?;
        let opened = member.link.open(&mut self.lane, &wait).inspect_err(|trouble| {
            self.lane.reset();
            member.link.backing_off(trouble, Instant::now());
        })?;
        self.generation = self.generation.max(opened.generation);
        read_all(&member.core, &opened.initialized, About::default(), &mut |outgoing| {
            let wait = self.busy()?;
            member.link.request_open(&mut self.lane, outgoing, &wait, &mut Own(&member.core))
        })
    }

    /// Opens a session that is not open and should be, when its time has come.
    fn reopen(&mut self) {
        let link = &self.member.link;
        if link.is_open() || link.refuses_sessions() || self.member.standing.uris().is_empty() {
            self.reopen_at = None;
            return;
        }
        let now = Instant::now();
        let at = *self.reopen_at.get_or_insert_with(|| now + self.backoff.next());
        if now < at {
            return;
        }
        self.open();
        self.reopen_at = None;
        if self.member.link.is_open() {
            self.backoff.reset();
        } else {
            self.reopen_at = Some(now + self.backoff.next());
        }
    }

    /// Tells a session that was opened anew of all subscriptions.
    fn subscribe_again(&mut self) {
        if self.subscribed == self.generation {
            return;
        }
        // A session that is lost meanwhile has another generation when it is open again.
        self.subscribed = self.generation;
        let member = self.member.clone();
        for uri in member.standing.uris_or_coming() {
            let Ok(wait) = self.busy() else { return };
            let tick = member.core.limits.heartbeat;
            // Not for long: the one whose turn it is may be waiting for this thread.
            let bound = wait.within(CONTROL_TIMEOUT);
            let turn = member.standing.turn(&uri, &wait, tick);
            drop(bound);
            let Ok(turn) = turn else {
                self.subscribed = 0;
                continue;
            };
            if turn.is_wanted()
                && let Err(what) = self.subscribe(&uri, &wait)
            {
                if member.core.nudge.is_stopped() {
                    return;
                }
                log::warn!(target: "upstream", "{}: a client's own session could not be \
                    subscribed again: {}", member.core.name(), member.core.secrets.scrub_cut(&what));
                return;
            }
        }
    }

    fn subscribe(&mut self, uri: &str, wait: &Arc<Wait>) -> Result<(), String> {
        let core = self.member.core.clone();
        let outgoing = about(Method::ResourcesSubscribe, uri);
        let link = &self.member.link;
        match link.request_open(&mut self.lane, &outgoing, wait, &mut Own(&core)) {
            Ok(Outcome::Complete(_)) => Ok(()),
            Ok(Outcome::InputRequired { .. }) => Err("it wants input".to_owned()),
            Ok(Outcome::Error { error, .. }) => {
                Err(format!("{} ({})", cut(&error.message), error.code))
            }
            Err(trouble) => Err(trouble.message),
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
