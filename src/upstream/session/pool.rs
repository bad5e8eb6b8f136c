//! The sessions that clients have of their own: each is opened when its client first needs it,
//! with that client's capabilities, and is a link like the shared one. A thread for each looks
//! after it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::error::Stage;
use crate::limits::{PARKED_GRACE, SPOILT_SESSION_GRACE, STATELESS_SESSION_IDLE};
use crate::protocol::call::{AnswerTo, Client, PrincipalId, Question};
use crate::protocol::view::ViewId;
use crate::thread::{Joined, spawn};
use crate::wait::{Interrupted, Wait, Woken};

use super::capacity::{Entry, Room};
use super::context::{Core, Link};
use super::desired_subscriptions::Standing;
use crate::upstream::failure::{Kind, Trouble};
use crate::upstream::supervisor::own_session::Attendant;
use crate::upstream::transport::Links;

/// The clients' own sessions to one upstream.
pub(crate) struct Members {
    /// Of the shared session.
    core: Arc<Core>,
    links: Links,
    state: Mutex<Room>,
}

/// One client's own session, which may be open.
pub(crate) struct Member {
    ended: AtomicBool,
    pub(crate) core: Arc<Core>,
    pub(crate) link: Arc<dyn Link>,
    pub(crate) standing: Arc<Standing>,
    /// What its client sees, as all do whose sessions declare the same.
    pub(crate) view: ViewId,
}

impl Member {
    /// It holds nothing any more.
    pub(crate) fn end(&self) {
        self.ended.store(true, Ordering::Release);
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// Whose share it takes.
    pub(crate) fn charged(&self) -> Option<&PrincipalId> {
        self.core.charged()
    }
}

/// A call's place in its client's session; dropping it leaves the session.
pub(crate) struct Seat<'a> {
    members: &'a Arc<Members>,
    member: Arc<Member>,
    is_spoilt: bool,
}

impl Seat<'_> {
    /// Something may go on there that nobody waits for any more: where a session carries one
    /// call at a time, what it still says or asks would be taken for the next call's.
    pub(crate) fn spoil(&mut self) {
        self.is_spoilt = self.member.core.client.as_ref().is_some_and(|it| it.is_exclusive);
    }

    /// A question whose answer is waited for, with the call's session noted as parked meanwhile.
    pub(crate) fn parked(&self, question: Question, wait: &Arc<Wait>) -> Question {
        let since = Some((Instant::now(), wait.clone()));
        self.members.note_parked(&self.member, since);
        let (members, member) = (self.members.clone(), self.member.clone());
        let Question { server, id, is_of_call, method, params, reply } = question;
        let reply = AnswerTo::new(move |answer| {
            members.note_parked(&member, None);
            reply.send(answer);
        });
        Question { server, id, is_of_call, method, params, reply }
    }

    pub(crate) fn link(&self) -> &dyn Link {
        &*self.member.link
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        let mut state = self.members.lock();
        if let Some(entry) = state.entry(&self.member) {
            entry.in_flight = entry.in_flight.saturating_sub(1);
            entry.used_at = Instant::now();
            entry.parked = None;
            entry.is_spoilt |= self.is_spoilt;
        }
        drop(state);
        if self.is_spoilt {
            // It is ended a little later, so that the cancellation goes out first.
            self.member.core.nudge.idle.bell().ring();
        }
        self.members.wake();
    }
}

/// A call's place in the queue for room, once it has one; dropping it leaves the queue.
struct InQueue<'a> {
    members: &'a Members,
    charged: Option<&'a PrincipalId>,
    wait: &'a Arc<Wait>,
    is_queued: bool,
}

impl Drop for InQueue<'_> {
    fn drop(&mut self) {
        if self.is_queued {
            let is_it = |other: &Arc<Wait>| Arc::ptr_eq(other, self.wait);
            self.members.lock().waiting.remove(self.charged, is_it);
            // There may be room for the next one, too.
            self.members.wake();
        }
    }
}

impl Members {
    pub(crate) fn new(core: Arc<Core>, links: Links) -> Members {
        let room = Room::new(core.config.max_sessions, core.config.max_waiting);
        Members { core, links, state: Mutex::new(room) }
    }

    fn lock(&self) -> MutexGuard<'_, Room> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place in the client's own session, which is not opened by that; in one where no other
    /// call is, if the client's sessions carry one at a time. At the bound, the session that was
    /// idle for longest makes room; while none is idle, this waits until one is, as for a slot.
    /// `idle` is called every `tick` meanwhile.
    pub(crate) fn enter(
        self: &Arc<Self>,
        client: &Client,
        wait: &Arc<Wait>,
        tick: Duration,
        idle: &mut dyn FnMut(),
    ) -> Result<Seat<'_>, Trouble> {
        let charged = client.charged.as_ref();
        let mut place = InQueue { members: self, charged, wait, is_queued: false };
        let mut heard_at = Instant::now();
        loop {
            if let Some(seat) = self.try_enter(client, &mut place)? {
                return Ok(seat);
            }
            // Nobody rings when a parked call has waited for long.
            match wait.until(None, Some(tick.min(PARKED_GRACE / 4))) {
                Ok(Woken::Tick) if heard_at.elapsed() >= tick => {
                    heard_at = Instant::now();
                    idle();
                }
                Ok(Woken::Tick | Woken::Ready | Woken::Bell) => (),
                Err(reason) => return Err(Trouble::interrupted(reason, Stage::Slot, false)),
            }
        }
    }

    /// None if there is no room; then this one is in the queue.
    fn try_enter(
        self: &Arc<Self>,
        client: &Client,
        place: &mut InQueue<'_>,
    ) -> Result<Option<Seat<'_>>, Trouble> {
        let mut state = self.lock();
        if state.stopped {
            return Err(Trouble::interrupted(Interrupted::Stopping, Stage::Handshake, false));
        }
        let known = state
            .entries
            .iter_mut()
            .filter(|entry| entry.member.core.client.as_ref() == Some(client))
            .filter(|entry| !entry.is_spoilt)
            .find(|entry| !client.is_exclusive || entry.in_flight == 0);
        if let Some(entry) = known {
            entry.in_flight += 1;
            return Ok(Some(Seat {
                members: self,
                member: entry.member.clone(),
                is_spoilt: false,
            }));
        }
        if !state.make(place.charged, place.wait, self.core.name()) {
            if place.is_queued {
                return Ok(None);
            }
            // The shared session is all there may be.
            let is_hopeless = self.core.config.max_sessions < 2;
            if is_hopeless || state.waiting.push(place.charged, place.wait.clone()).is_err() {
                return Err(self.full());
            }
            place.is_queued = true;
            return Ok(None);
        }
        let member = self.open(&mut state, client)?;
        Ok(Some(Seat { members: self, member, is_spoilt: false }))
    }

    /// Puts a session of the client's own among the others, with one call in it; there is a place
    /// for it.
    fn open(
        self: &Arc<Self>,
        state: &mut Room,
        client: &Client,
    ) -> Result<Arc<Member>, Trouble> {
        let standing = state.standing.entry(client.session.clone()).or_default().clone();
        let (member, thread) = self.start(client, standing).map_err(|error| {
            state.leave(client.charged.as_ref());
            Trouble::new(Kind::Nonsense, Stage::Handshake, error.to_string())
        })?;
        state.add(member.clone(), thread, 1);
        Ok(member)
    }

    /// Has the thread of a session look at what a client sees: the client's own, or another one's
    /// that declares the same. If there is none, the client's is opened where there is room: no
    /// other client's session ends for that, and nobody waits.
    pub(crate) fn want_view(
        self: &Arc<Self>,
        client: &Client,
        id: ViewId,
    ) -> Result<(), Trouble> {
        let mut state = self.lock();
        if state.stopped {
            return Err(Trouble::interrupted(Interrupted::Stopping, Stage::Handshake, false));
        }
        let is_free = |entry: &Entry| {
            entry.is_reserved || entry.in_flight == 0 || !entry.member.core.is_exclusive()
        };
        let known = state
            .entries
            .iter_mut()
            .filter(|entry| entry.member.view == id && !entry.is_spoilt && is_free(entry))
            .max_by_key(|entry| entry.is_of(&client.session));
        let member = if let Some(entry) = known {
            if !std::mem::replace(&mut entry.is_reserved, true) {
                entry.in_flight += 1;
            }
            entry.member.clone()
        } else if state.take_free(client.charged.as_ref()) {
            let member = self.open(&mut state, client)?;
            if let Some(entry) = state.entry(&member) {
                entry.is_reserved = true;
            }
            member
        } else {
            return Err(self.full());
        };
        drop(state);
        member.core.nudge.idle.bell().ring();
        Ok(())
    }

    /// The place that was reserved for the thread of a session, or another one if it wants that.
    /// None if it wants none, or its session carries one call at a time and has one.
    pub(crate) fn place_for_view(
        self: &Arc<Self>,
        member: &Arc<Member>,
        is_wanted: bool,
    ) -> Option<Seat<'_>> {
        let mut state = self.lock();
        let entry = state.entry(member)?;
        if !std::mem::take(&mut entry.is_reserved) {
            let is_exclusive = member.core.is_exclusive();
            if !is_wanted || (is_exclusive && entry.in_flight > 0) {
                return None;
            }
            entry.in_flight += 1;
        }
        Some(Seat { members: self, member: member.clone(), is_spoilt: false })
    }

    fn note_parked(&self, member: &Arc<Member>, parked: Option<(Instant, Arc<Wait>)>) {
        let mut state = self.lock();
        if let Some(entry) = state.entry(member) {
            entry.parked = parked;
        }
    }

    /// Whoever has waited longest for room looks again, of each principal.
    pub(crate) fn wake(&self) {
        let firsts: Vec<_> =
            self.lock().waiting.firsts().map(|(_, first)| first.clone()).collect();
        firsts.iter().for_each(|first| first.bell().ring());
    }

    /// Opens sessions here for those clients that are subscribed to something over theirs at an
    /// upstream whose place this one takes, as far as there is room; the others' are opened by
    /// their next call.
    pub(crate) fn adopt(self: &Arc<Self>, old: &Members) {
        let (standing, subscribed): (_, Vec<Client>) = {
            let old = old.lock();
            let of = |entry: &Entry| entry.member.core.client.clone();
            let subscribed = old.entries.iter().filter(|entry| entry.is_subscribed());
            let mut standing = old.standing.clone();
            standing.retain(|_, it| !it.has_no_subscriptions());
            (standing, subscribed.filter_map(of).collect())
        };
        let mut state = self.lock();
        for (session, standing) in &standing {
            state.standing.entry(session.clone()).or_insert_with(|| standing.clone());
        }
        for client in subscribed {
            let Some(standing) = standing.get(&client.session) else { continue };
            let has = state.entries.iter().any(|entry| entry.is_of(&client.session));
            if has || state.stopped || !state.take_free(client.charged.as_ref()) {
                continue;
            }
            let Ok((member, thread)) = self.start(&client, standing.clone()) else {
                state.leave(client.charged.as_ref());
                return;
            };
            state.add(member, thread, 0);
        }
    }

    /// What a client subscribes to over its own session, which need not be there yet.
    pub(crate) fn standing(&self, session: &Arc<str>) -> Arc<Standing> {
        self.lock().standing.entry(session.clone()).or_default().clone()
    }

    /// Forgets what [`Members::standing`] gave, if that came to nothing.
    pub(crate) fn tidy(&self, session: &Arc<str>) {
        let mut state = self.lock();
        let has_session = state.entries.iter().any(|entry| entry.is_of(session));
        let unused = |it: &Arc<Standing>| it.has_no_subscriptions();
        if !has_session && state.standing.get(session).is_some_and(unused) {
            state.standing.remove(session);
        }
    }

    fn full(&self) -> Trouble {
        let (max, server) = (self.core.config.max_sessions, self.core.name());
        let what = format!("all {max} sessions of {server} are in use (max_sessions)");
        Trouble::new(Kind::Overloaded, Stage::Slot, what)
    }

    fn start(
        self: &Arc<Self>,
        client: &Client,
        standing: Arc<Standing>,
    ) -> std::io::Result<(Arc<Member>, Joined)> {
        let core = Arc::new(self.core.of_client(client.clone())?);
        let link = self.links.link(core.clone());
        let (ended, view) =
            (AtomicBool::new(false), ViewId::of_session(client.capabilities.get()));
        let member = Arc::new(Member { ended, core, link, standing, view });
        let attendant = Attendant::new(self.clone(), member.clone());
        let thread = spawn(&self.core.thread_name("own"), move || attendant.run())?;
        Ok((member, thread))
    }

    /// Queues a client's notification on the client's own session, if it is open. False if it has
    /// none.
    pub(crate) fn tell(&self, whose: &PrincipalId, session: &str, text: &str) -> bool {
        let members = self.of(|client| &*client.session == session);
        for member in &members {
            member.link.tell(whose, text.to_owned());
        }
        !members.is_empty()
    }

    /// How many are open.
    pub(crate) fn count_open(&self) -> usize {
        self.of(|_| true).iter().filter(|member| member.link.is_open()).count()
    }

    fn of(&self, wanted: impl Fn(&Client) -> bool) -> Vec<Arc<Member>> {
        let state = self.lock();
        let of_wanted = |entry: &&Entry| entry.member.core.client.as_ref().is_some_and(&wanted);
        state.entries.iter().filter(of_wanted).map(|entry| entry.member.clone()).collect()
    }

    /// Ends the client's own session, some time soon.
    pub(crate) fn close(&self, session: &str) {
        let mut state = self.lock();
        while let Some(index) = state.entries.iter().position(|entry| entry.is_of(session)) {
            state.retire(index);
        }
        state.standing.remove(session);
        drop(state);
        self.wake();
    }

    /// Lets all sessions be ended; none is opened any more.
    pub(crate) fn stop(&self) {
        let mut state = self.lock();
        state.stopped = true;
        while !state.entries.is_empty() {
            state.retire(0);
        }
    }

    /// Waits until all are ended.
    pub(crate) fn join(&self) {
        let ending = std::mem::take(&mut self.lock().ending);
        drop(ending);
    }

    /// When a session should be looked at next; one that was idle for too long, and is subscribed
    /// to nothing, is ended.
    pub(crate) fn look_again(&self, member: &Arc<Member>) -> Instant {
        let now = Instant::now();
        let idle = self.core.limits.session_idle;
        let is_exclusive = member.core.client.as_ref().is_some_and(|it| it.is_exclusive);
        let mut state = self.lock();
        let mine = |entry: &Entry| Arc::ptr_eq(&entry.member, member);
        let Some(index) = state.entries.iter().position(mine) else { return now };
        match state.entries.get(index) {
            Some(entry) if entry.in_flight == 0 && !entry.is_subscribed() => {
                let until = entry.used_at
                    + match (entry.is_spoilt, is_exclusive) {
                        (true, _) => SPOILT_SESSION_GRACE.min(idle),
                        // Whoever has none with the gateway never says that it ends.
                        (false, true) => STATELESS_SESSION_IDLE.min(idle),
                        (false, false) => idle,
                    };
                if now >= until {
                    state.retire(index);
                }
                until
            }
            Some(_) | None => now + idle,
        }
    }
}
