//! The sessions that clients have of their own: each is opened when its client first needs it,
//! with that client's capabilities, and is a session like the shared one. A thread for each looks
//! after it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::error::Stage;
use crate::limits::{PARKED_GRACE, SPOILT_SESSION_GRACE, STATELESS_SESSION_IDLE};
use crate::protocol::call::{Client, PrincipalId};
use crate::protocol::question::{AnswerTo, Question};
use crate::protocol::view::ViewId;
use crate::thread::{Joined, spawn};
use crate::wait::{Interrupted, Wait};

use super::Session;
use super::capacity::{Entry, PoolCapacity};
use super::context::SessionContext;
use super::factory::SessionFactory;
use super::subscriptions::DesiredSubscriptions;
use crate::upstream::failure::{Failure, FailureKind};
use crate::upstream::supervisor::own_session::OwnSessionSupervisor;

/// The clients' own sessions to one upstream.
pub(crate) struct SessionPool {
    /// Of the shared session.
    context: Arc<SessionContext>,
    sessions: SessionFactory,
    state: Mutex<PoolCapacity>,
}

/// One client's own session, which may be open.
pub(crate) struct PooledSession {
    ended: AtomicBool,
    /// Its client has gone: what was said because of that goes out before it is ended.
    lingers: AtomicBool,
    pub(crate) context: Arc<SessionContext>,
    pub(crate) session: Arc<Session>,
    pub(crate) desired: Arc<DesiredSubscriptions>,
    /// What its client sees, as all do whose sessions declare the same.
    pub(crate) view: ViewId,
}

impl PooledSession {
    /// It holds nothing any more.
    pub(crate) fn end(&self) {
        self.ended.store(true, Ordering::Release);
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    pub(crate) fn lingers(&self) -> bool {
        self.lingers.load(Ordering::Acquire)
    }

    /// Whose share it takes.
    pub(crate) fn charged(&self) -> Option<&PrincipalId> {
        self.context.charged()
    }
}

/// A call's place in its client's session; dropping it leaves the session.
pub(crate) struct Lease<'a> {
    pool: &'a Arc<SessionPool>,
    pooled: Arc<PooledSession>,
    is_tainted: bool,
}

impl Lease<'_> {
    /// Something may go on there that nobody waits for any more: where a session carries one
    /// call at a time, what it still says or asks would be taken for the next call's.
    pub(crate) fn taint(&mut self) {
        self.is_tainted = self.pooled.context.client.as_ref().is_some_and(|it| it.is_exclusive);
    }

    /// A question whose answer is waited for, with the call's session noted as parked meanwhile.
    pub(crate) fn parked(&self, question: Question, wait: &Arc<Wait>) -> Question {
        let since = Some((Instant::now(), wait.clone()));
        self.pool.note_parked(&self.pooled, since);
        let (pool, pooled) = (self.pool.clone(), self.pooled.clone());
        let Question { server, id, is_of_call, method, params, reply } = question;
        let reply = AnswerTo::new(move |answer| {
            pool.note_parked(&pooled, None);
            reply.send(answer);
        });
        Question { server, id, is_of_call, method, params, reply }
    }

    pub(crate) fn session(&self) -> &Session {
        &self.pooled.session
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        let mut state = self.pool.lock();
        if let Some(entry) = state.entry(&self.pooled) {
            entry.in_flight = entry.in_flight.saturating_sub(1);
            entry.used_at = Instant::now();
            entry.parked = None;
            entry.is_tainted |= self.is_tainted;
        }
        drop(state);
        if self.is_tainted {
            // It is ended a little later, so that the cancellation goes out first.
            self.pooled.context.mailbox.idle.bell().ring();
        }
        self.pool.wake();
    }
}

/// A call's place in the queue for room, once it has one; dropping it leaves the queue.
struct InQueue<'a> {
    pool: &'a SessionPool,
    charged: Option<&'a PrincipalId>,
    wait: &'a Arc<Wait>,
    is_queued: bool,
}

impl Drop for InQueue<'_> {
    fn drop(&mut self) {
        if self.is_queued {
            let is_it = |other: &Arc<Wait>| Arc::ptr_eq(other, self.wait);
            self.pool.lock().waiting.remove(self.charged, is_it);
            // There may be room for the next one, too.
            self.pool.wake();
        }
    }
}

impl SessionPool {
    pub(crate) fn new(context: Arc<SessionContext>, sessions: SessionFactory) -> SessionPool {
        let room = PoolCapacity::new(context.config.max_sessions, context.config.max_waiting);
        SessionPool { context, sessions, state: Mutex::new(room) }
    }

    fn lock(&self) -> MutexGuard<'_, PoolCapacity> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place in the client's own session, which is not opened by that; in one where no other
    /// call is, if the client's sessions carry one at a time. At the bound, the session that was
    /// idle for longest makes room; while none is idle, this waits until one is, as for a slot.
    pub(crate) fn enter(
        self: &Arc<Self>,
        client: &Client,
        wait: &Arc<Wait>,
    ) -> Result<Lease<'_>, Failure> {
        let charged = client.charged.as_ref();
        let mut place = InQueue { pool: self, charged, wait, is_queued: false };
        loop {
            if let Some(lease) = self.try_enter(client, &mut place)? {
                return Ok(lease);
            }
            // Nobody rings when a parked call has waited for long.
            wait.until(None, Some(PARKED_GRACE / 4))
                .map_err(|reason| Failure::interrupted(reason, Stage::Slot, false))?;
        }
    }

    /// None if there is no room; then this one is in the queue.
    fn try_enter(
        self: &Arc<Self>,
        client: &Client,
        place: &mut InQueue<'_>,
    ) -> Result<Option<Lease<'_>>, Failure> {
        let mut state = self.lock();
        if state.stopped {
            return Err(Failure::interrupted(Interrupted::Stopping, Stage::Handshake, false));
        }
        let known = state
            .entries
            .iter_mut()
            .filter(|entry| entry.pooled.context.client.as_ref() == Some(client))
            .filter(|entry| !entry.is_tainted)
            .find(|entry| !client.is_exclusive || entry.in_flight == 0);
        if let Some(entry) = known {
            entry.in_flight += 1;
            return Ok(Some(Lease {
                pool: self,
                pooled: entry.pooled.clone(),
                is_tainted: false,
            }));
        }
        // A session that ends interrupts its calls before it is closed here: none of them opens it again.
        if let Some(reason) = place.wait.interrupted() {
            return Err(Failure::interrupted(reason, Stage::Slot, false));
        }
        if !state.make(place.charged, place.wait, self.context.name()) {
            if place.is_queued {
                return Ok(None);
            }
            // The shared session is all there may be.
            let is_hopeless = self.context.config.max_sessions < 2;
            if is_hopeless || state.waiting.push(place.charged, place.wait.clone()).is_err() {
                return Err(self.full());
            }
            place.is_queued = true;
            return Ok(None);
        }
        let pooled = self.open(&mut state, client)?;
        Ok(Some(Lease { pool: self, pooled, is_tainted: false }))
    }

    /// Puts a session of the client's own among the others, with one call in it; there is a place
    /// for it.
    fn open(
        self: &Arc<Self>,
        state: &mut PoolCapacity,
        client: &Client,
    ) -> Result<Arc<PooledSession>, Failure> {
        let desired = state.desired.entry(client.session.clone()).or_default().clone();
        let (pooled, thread) = self.start(client, desired).map_err(|error| {
            state.leave(client.charged.as_ref());
            Failure::new(FailureKind::Nonsense, Stage::Handshake, error.to_string())
        })?;
        state.add(pooled.clone(), thread, 1);
        Ok(pooled)
    }

    /// Has the thread of a session look at what a client sees: the client's own, or another one's
    /// that declares the same. If there is none, the client's is opened where there is room: no
    /// other client's session ends for that, and nobody waits.
    pub(crate) fn want_view(
        self: &Arc<Self>,
        client: &Client,
        id: ViewId,
    ) -> Result<(), Failure> {
        let mut state = self.lock();
        if state.stopped {
            return Err(Failure::interrupted(Interrupted::Stopping, Stage::Handshake, false));
        }
        let is_free = |entry: &Entry| {
            entry.is_reserved || entry.in_flight == 0 || !entry.pooled.context.is_exclusive()
        };
        let known = state
            .entries
            .iter_mut()
            .filter(|entry| entry.pooled.view == id && !entry.is_tainted && is_free(entry))
            .max_by_key(|entry| entry.is_of(&client.session));
        let pooled = if let Some(entry) = known {
            if !std::mem::replace(&mut entry.is_reserved, true) {
                entry.in_flight += 1;
            }
            entry.pooled.clone()
        } else if state.take_free(client.charged.as_ref()) {
            let pooled = self.open(&mut state, client)?;
            if let Some(entry) = state.entry(&pooled) {
                entry.is_reserved = true;
            }
            pooled
        } else {
            return Err(self.full());
        };
        drop(state);
        pooled.context.mailbox.idle.bell().ring();
        Ok(())
    }

    /// The place that was reserved for the thread of a session, or another one if it wants that.
    /// None if it wants none, or its session carries one call at a time and has one.
    pub(crate) fn place_for_view(
        self: &Arc<Self>,
        pooled: &Arc<PooledSession>,
        is_wanted: bool,
    ) -> Option<Lease<'_>> {
        let mut state = self.lock();
        let entry = state.entry(pooled)?;
        if !std::mem::take(&mut entry.is_reserved) {
            let is_exclusive = pooled.context.is_exclusive();
            if !is_wanted || (is_exclusive && entry.in_flight > 0) {
                return None;
            }
            entry.in_flight += 1;
        }
        Some(Lease { pool: self, pooled: pooled.clone(), is_tainted: false })
    }

    fn note_parked(&self, pooled: &Arc<PooledSession>, parked: Option<(Instant, Arc<Wait>)>) {
        let mut state = self.lock();
        if let Some(entry) = state.entry(pooled) {
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
    pub(crate) fn adopt(self: &Arc<Self>, old: &SessionPool) {
        let (desired, subscribed): (_, Vec<Client>) = {
            let old = old.lock();
            let of = |entry: &Entry| entry.pooled.context.client.clone();
            let subscribed = old.entries.iter().filter(|entry| entry.is_subscribed());
            let mut desired = old.desired.clone();
            desired.retain(|_, it| !it.has_no_subscriptions());
            (desired, subscribed.filter_map(of).collect())
        };
        let mut state = self.lock();
        for (session, desired) in &desired {
            let successor = || Arc::new(desired.successor());
            state.desired.entry(session.clone()).or_insert_with(successor);
        }
        for client in subscribed {
            let Some(desired) = state.desired.get(&client.session).cloned() else { continue };
            let has = state.entries.iter().any(|entry| entry.is_of(&client.session));
            if has || state.stopped || !state.take_free(client.charged.as_ref()) {
                continue;
            }
            let Ok((pooled, thread)) = self.start(&client, desired) else {
                state.leave(client.charged.as_ref());
                return;
            };
            state.add(pooled, thread, 0);
        }
    }

    /// What a client subscribes to over its own session, which need not be there yet.
    pub(crate) fn desired(&self, session: &Arc<str>) -> Arc<DesiredSubscriptions> {
        self.lock().desired.entry(session.clone()).or_default().clone()
    }

    /// Forgets the value of [`SessionPool::desired`], if no subscription and no session came of it.
    pub(crate) fn forget_unused(&self, session: &Arc<str>) {
        let mut state = self.lock();
        let has_session = state.entries.iter().any(|entry| entry.is_of(session));
        let unused = |it: &Arc<DesiredSubscriptions>| it.has_no_subscriptions();
        if !has_session && state.desired.get(session).is_some_and(unused) {
            state.desired.remove(session);
        }
    }

    fn full(&self) -> Failure {
        let (max, server) = (self.context.config.max_sessions, self.context.name());
        let what = format!("all {max} sessions of {server} are in use (max_sessions)");
        Failure::new(FailureKind::Overloaded, Stage::Slot, what)
    }

    fn start(
        self: &Arc<Self>,
        client: &Client,
        desired: Arc<DesiredSubscriptions>,
    ) -> std::io::Result<(Arc<PooledSession>, Joined)> {
        let context = Arc::new(self.context.of_client(client.clone())?);
        let session = self.sessions.session(context.clone());
        let view = ViewId::of_session(client.capabilities.get());
        let (ended, lingers) = (AtomicBool::new(false), AtomicBool::new(false));
        let pooled = PooledSession { ended, lingers, context, session, desired, view };
        let pooled = Arc::new(pooled);
        let attendant = OwnSessionSupervisor::new(self.clone(), pooled.clone());
        let thread = spawn(&self.context.thread_name("own"), move || attendant.run())?;
        Ok((pooled, thread))
    }

    /// Queues a client's notification on the client's own session, if it is open. False if it has
    /// none.
    pub(crate) fn tell(&self, whose: &PrincipalId, session: &str, text: &str) -> bool {
        let pool = self.of(|client| &*client.session == session);
        for pooled in &pool {
            pooled.session.notify(whose, text.to_owned());
        }
        !pool.is_empty()
    }

    /// How many are open.
    pub(crate) fn count_open(&self) -> usize {
        self.of(|_| true).iter().filter(|pooled| pooled.session.is_open()).count()
    }

    fn of(&self, wanted: impl Fn(&Client) -> bool) -> Vec<Arc<PooledSession>> {
        let state = self.lock();
        let of_wanted =
            |entry: &&Entry| entry.pooled.context.client.as_ref().is_some_and(&wanted);
        state.entries.iter().filter(of_wanted).map(|entry| entry.pooled.clone()).collect()
    }

    /// Ends the client's own session, some time soon. Does not wait.
    pub(crate) fn close(&self, session: &str) {
        let mut state = self.lock();
        while let Some(index) = state.entries.iter().position(|entry| entry.is_of(session)) {
            if let Some(entry) = state.entries.get(index) {
                entry.pooled.lingers.store(true, Ordering::Release);
            }
            state.retire(index);
        }
        state.desired.remove(session);
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
    pub(crate) fn look_again(&self, pooled: &Arc<PooledSession>) -> Instant {
        let now = Instant::now();
        let idle = self.context.limits.session_idle;
        let is_exclusive = pooled.context.client.as_ref().is_some_and(|it| it.is_exclusive);
        let mut state = self.lock();
        let mine = |entry: &Entry| Arc::ptr_eq(&entry.pooled, pooled);
        let Some(index) = state.entries.iter().position(mine) else { return now };
        match state.entries.get(index) {
            Some(entry) if entry.in_flight == 0 && !entry.is_subscribed() => {
                let until = entry.used_at
                    + match (entry.is_tainted, is_exclusive) {
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
