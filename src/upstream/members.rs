//! The sessions that clients have of their own: each is opened when its client first needs it,
//! with that client's capabilities, and is a link like the shared one. A thread for each does
//! what may wait: it starts a child that is wanted, lets go of what is lost, and ends the
//! session.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::error::Stage;
use crate::protocol::call::Client;
use crate::thread::{Joined, spawn};
use crate::wait::Interrupted;

use super::connection::{Kind, Trouble};
use super::exchange::Lane;
use super::link::{Core, Link};
use super::links::Links;

/// The clients' own sessions to one upstream.
pub(super) struct Members {
    /// Of the shared session.
    core: Arc<Core>,
    links: Links,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    entries: Vec<Entry>,
    /// Threads of sessions that are being ended.
    ending: Vec<Joined>,
    stopped: bool,
}

struct Entry {
    member: Arc<Member>,
    in_flight: usize,
    used_at: Instant,
    thread: Joined,
}

/// One client's own session, which may be open.
struct Member {
    core: Arc<Core>,
    link: Arc<dyn Link>,
}

/// A call's place in its client's session; dropping it leaves the session.
pub(super) struct Seat<'a> {
    members: &'a Members,
    member: Arc<Member>,
}

impl Seat<'_> {
    pub(super) fn link(&self) -> &dyn Link {
        &*self.member.link
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        let mut state = self.members.lock();
        let mine = |entry: &&mut Entry| Arc::ptr_eq(&entry.member, &self.member);
        if let Some(entry) = state.entries.iter_mut().find(mine) {
            entry.in_flight = entry.in_flight.saturating_sub(1);
            entry.used_at = Instant::now();
        }
    }
}

impl State {
    /// Takes a session out and tells its thread to end it.
    fn retire(&mut self, index: usize) {
        let entry = self.entries.swap_remove(index);
        entry.member.core.nudge.stop();
        self.ending.push(entry.thread);
    }

    /// The session without a call that was not used for longest.
    fn longest_idle(&self) -> Option<usize> {
        let idle = self.entries.iter().enumerate().filter(|(_, entry)| entry.in_flight == 0);
        idle.min_by_key(|(_, entry)| entry.used_at).map(|(index, _)| index)
    }
}

impl Members {
    pub(super) fn new(core: Arc<Core>, links: Links) -> Members {
        Members { core, links, state: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place in the client's own session, which is not opened by that; in one where no other
    /// call is, if the client's sessions carry one at a time. At the bound, the
    /// session that was idle for longest makes room.
    pub(super) fn enter(self: &Arc<Self>, client: &Client) -> Result<Seat<'_>, Trouble> {
        let mut state = self.lock();
        if state.stopped {
            return Err(Trouble::interrupted(Interrupted::Stopping, Stage::Handshake, false));
        }
        let known = state
            .entries
            .iter_mut()
            .filter(|entry| entry.member.core.client.as_ref() == Some(client))
            .find(|entry| !client.is_exclusive || entry.in_flight == 0);
        if let Some(entry) = known {
            entry.in_flight += 1;
            return Ok(Seat { members: self, member: entry.member.clone() });
        }
        let max = self.core.config.max_sessions;
        state.ending.retain(|thread| !thread.is_finished());
        // The shared session counts, too; and those that are being ended, as children which
        // take their time, are not to pile up.
        if state.entries.len() + 1 >= max || state.ending.len() >= max {
            let idle = state.longest_idle().filter(|_| state.ending.len() < max);
            state.retire(idle.ok_or_else(|| self.full())?);
        }
        let (member, thread) = self.start(client).map_err(|error| {
            Trouble::new(Kind::Nonsense, Stage::Handshake, error.to_string())
        })?;
        let used_at = Instant::now();
        state.entries.push(Entry { member: member.clone(), in_flight: 1, used_at, thread });
        Ok(Seat { members: self, member })
    }

    fn full(&self) -> Trouble {
        let (max, server) = (self.core.config.max_sessions, self.core.name());
        let what = format!("all {max} sessions of {server} are in use (max_sessions)");
        Trouble::new(Kind::Overloaded, Stage::Slot, what)
    }

    fn start(self: &Arc<Self>, client: &Client) -> std::io::Result<(Arc<Member>, Joined)> {
        let core = Arc::new(self.core.of_client(client.clone())?);
        let link = self.links.link(core.clone());
        let member = Arc::new(Member { core, link });
        let (members, mine) = (self.clone(), member.clone());
        let thread = spawn(&self.core.thread_name("own"), move || attend(&members, &mine))?;
        Ok((member, thread))
    }

    /// Queues a message that wants no answer on the client's own session, if it is open. False
    /// if it has none.
    pub(super) fn tell(&self, session: &str, text: &str) -> bool {
        let members = self.of(|client| &*client.session == session);
        for member in &members {
            member.link.tell(text.to_owned());
        }
        !members.is_empty()
    }

    /// How many are open.
    pub(super) fn count_open(&self) -> usize {
        self.of(|_| true).iter().filter(|member| member.link.is_open()).count()
    }

    fn of(&self, wanted: impl Fn(&Client) -> bool) -> Vec<Arc<Member>> {
        let state = self.lock();
        let of_wanted = |entry: &&Entry| entry.member.core.client.as_ref().is_some_and(&wanted);
        state.entries.iter().filter(of_wanted).map(|entry| entry.member.clone()).collect()
    }

    /// Ends the client's own session, some time soon.
    pub(super) fn close(&self, session: &str) {
        let mut state = self.lock();
        let its = |entry: &Entry| {
            entry.member.core.client.as_ref().is_some_and(|client| &*client.session == session)
        };
        while let Some(index) = state.entries.iter().position(its) {
            state.retire(index);
        }
    }

    /// Lets all sessions be ended; none is opened any more.
    pub(super) fn stop(&self) {
        let mut state = self.lock();
        state.stopped = true;
        while !state.entries.is_empty() {
            state.retire(0);
        }
    }

    /// Waits until all are ended.
    pub(super) fn join(&self) {
        let ending = std::mem::take(&mut self.lock().ending);
        drop(ending);
    }

    /// When a session should be looked at next; one that was idle for too long is ended.
    fn look_again(&self, member: &Arc<Member>) -> Instant {
        let now = Instant::now();
        let patience = self.core.limits.session_idle;
        let mut state = self.lock();
        let mine = |entry: &Entry| Arc::ptr_eq(&entry.member, member);
        let Some(index) = state.entries.iter().position(mine) else { return now };
        match state.entries.get(index) {
            Some(entry) if entry.in_flight == 0 => {
                let until = entry.used_at + patience;
                if now >= until {
                    state.retire(index);
                }
                until
            }
            Some(_) | None => now + patience,
        }
    }
}

/// What the thread of a client's own session does until that is ended.
fn attend(members: &Members, member: &Arc<Member>) {
    let nudge = &member.core.nudge;
    let mut generation = 0;
    while !nudge.is_stopped() {
        let news = nudge.take();
        if news.wanted
            && let Some(opened) = open(member)
        {
            generation = opened;
        }
        if let Some((lost, trouble)) = news.lost {
            note(member, &trouble);
            member.link.forget(lost);
        }
        if let Some(trouble) = member.link.died() {
            note(member, &trouble);
            member.link.forget(generation);
        }
        let left = members.look_again(member).saturating_duration_since(Instant::now());
        // An interruption is the end, which is looked for above.
        nudge.idle.until(None, Some(left)).ok();
    }
    member.link.close();
}

/// Opens the session for the calls that wait for it; its generation.
fn open(member: &Member) -> Option<u64> {
    let busy = member.core.nudge.busy(member.core.config.timeout);
    let opened = busy
        .map_err(|error| Trouble::new(Kind::Nonsense, Stage::Connect, error.to_string()))
        .and_then(|wait| member.link.open(&mut Lane::default(), &wait));
    match opened {
        Ok(opened) => Some(opened.generation),
        Err(trouble) => {
            note(member, &trouble);
            member.link.backing_off(&trouble, Instant::now());
            None
        }
    }
}

fn note(member: &Member, trouble: &Trouble) {
    log::info!(target: "upstream", "{}: a client's own session failed ({}): {}",
        member.core.name(), trouble.stage, member.core.scrubbed(trouble.clone()).message);
}
