//! The room that clients' own sessions have at one upstream: who may open one more, and whose
//! must make room for it.
//!
//! Sessions are shared by principals (`fair_shares.rs`). Where none is left for somebody, one that is
//! idle is ended: the longest idle one of whoever holds most.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use crate::fair_shares::Shares;
use crate::limits::{PARKED_GRACE, SESSION_SPARED};
use crate::protocol::call::PrincipalId;
use crate::protocol::server_name::ServerName;
use crate::thread::Joined;
use crate::wait::{Interrupted, Wait};

use super::context::SessionContext;
use super::pool::PooledSession;
use super::subscriptions::DesiredSubscriptions;
use crate::upstream::fair_queue::FairQueue;

/// The clients' own sessions to one upstream.
pub(crate) struct PoolCapacity {
    pub(crate) entries: Vec<Entry>,
    /// What clients' own sessions are subscribed to, by client session: that outlives a session
    /// which had to make room, and ends with its client's.
    pub(crate) desired: HashMap<Arc<str>, Arc<DesiredSubscriptions>>,
    /// Whose share of `max_sessions` the entries take. The shared session is nobody's.
    shares: Shares<PrincipalId>,
    max_sessions: usize,
    /// Sessions that are being ended, and their threads.
    pub(crate) ending: Vec<(Arc<PooledSession>, Joined)>,
    /// Calls that wait for room; no more than `max_waiting`.
    pub(crate) waiting: FairQueue<PrincipalId, Arc<Wait>>,
    pub(crate) stopped: bool,
}

pub(crate) struct Entry {
    pub(crate) pooled: Arc<PooledSession>,
    pub(crate) in_flight: usize,
    pub(crate) used_at: Instant,
    /// Something may go on there that nobody waits for any more.
    pub(crate) is_tainted: bool,
    /// Its thread is about to read what its client sees, and has a place for that among the calls.
    pub(crate) is_reserved: bool,
    /// Since when its only call waits for its client to come back with answers.
    pub(crate) parked: Option<(Instant, Arc<Wait>)>,
    thread: Joined,
}

impl SessionContext {
    /// Whose share of what is bounded this session takes; the shared one's is nobody's.
    pub(crate) fn charged(&self) -> Option<&PrincipalId> {
        self.client.as_ref()?.charged.as_ref()
    }
}

impl Entry {
    pub(crate) fn is_of(&self, session: &str) -> bool {
        self.pooled.context.client.as_ref().is_some_and(|client| &*client.session == session)
    }

    pub(crate) fn is_subscribed(&self) -> bool {
        !self.pooled.desired.has_no_subscriptions()
    }

    fn charged(&self) -> Option<&PrincipalId> {
        self.pooled.charged()
    }
}

impl PoolCapacity {
    pub(crate) fn new(max_sessions: usize, max_waiting: usize) -> PoolCapacity {
        PoolCapacity {
            entries: Vec::new(),
            desired: HashMap::new(),
            shares: Shares::new(max_sessions.saturating_sub(1)),
            max_sessions,
            ending: Vec::new(),
            waiting: FairQueue::new(max_waiting),
            stopped: false,
        }
    }

    pub(crate) fn entry(&mut self, pooled: &Arc<PooledSession>) -> Option<&mut Entry> {
        self.entries.iter_mut().find(|entry| Arc::ptr_eq(&entry.pooled, pooled))
    }

    /// Puts a session among the others, in the place that [`PoolCapacity::take_free`] or [`PoolCapacity::make`]
    /// has taken for it.
    pub(crate) fn add(&mut self, pooled: Arc<PooledSession>, thread: Joined, in_flight: usize) {
        self.entries.push(Entry {
            pooled,
            in_flight,
            used_at: Instant::now(),
            is_tainted: false,
            is_reserved: false,
            parked: None,
            thread,
        });
    }

    /// Gives a place back for which no session could be made.
    pub(crate) fn leave(&mut self, who: Option<&PrincipalId>) {
        self.shares.give_back_of(who, 1);
    }

    /// Takes a session out and tells its thread to end it.
    pub(crate) fn retire(&mut self, index: usize) {
        let who = self.retire_in_place(index);
        self.leave(who.as_ref());
    }

    /// The same, but its place stays taken. Gives whose it was.
    fn retire_in_place(&mut self, index: usize) -> Option<PrincipalId> {
        let entry = self.entries.swap_remove(index);
        if let Some(client) = &entry.pooled.context.client
            && entry.pooled.desired.has_no_subscriptions()
        {
            self.desired.remove(&client.session);
        }
        entry.pooled.context.mailbox.stop();
        let who = entry.charged().cloned();
        self.ending.push((entry.pooled, entry.thread));
        who
    }

    /// Takes a place for one more session of `who`, if that needs no other to end, and nobody
    /// waits for it.
    pub(crate) fn take_free(&mut self, who: Option<&PrincipalId>) -> bool {
        self.waiting.is_empty()
            && !self.has_many_ending(who)
            && self.shares.take_of(who, 1).is_ok()
    }

    /// Takes a place for one more session of `who` if that can be, and it is the turn of whoever
    /// waits on `wait`. The shared session counts, too.
    pub(crate) fn make(
        &mut self,
        who: Option<&PrincipalId>,
        wait: &Arc<Wait>,
        server: &ServerName,
    ) -> bool {
        if self.would_overtake(who, wait) || self.has_many_ending(who) {
            return false;
        }
        if self.shares.take_of(who, 1).is_ok() {
            return true;
        }
        let Some(idle) = self.dispensable(who) else {
            self.end_longest_parked(who, server);
            return false;
        };
        let what = self.entries.get(idle).is_some_and(Entry::is_subscribed);
        let what = if what { " with subscriptions, which its next call takes up" } else { "" };
        log::info!(target: "upstream", "{server}: an idle session of a client's own{what} is \
            ended to make room for another client's (max_sessions is {})", self.max_sessions);
        let whose = self.retire_in_place(idle);
        self.shares.hand_over(whose.as_ref(), who, 1);
        true
    }

    /// Whether somebody else in the queue can have the next place.
    fn would_overtake(&self, who: Option<&PrincipalId>, wait: &Arc<Wait>) -> bool {
        for (other, first) in self.waiting.firsts() {
            if other == who {
                return !Arc::ptr_eq(first, wait);
            }
            if self.n_ending_of(other) < self.max_sessions
                && (self.shares.may_take_of(other, 1).is_ok()
                    || self.dispensable(other).is_some())
            {
                return true;
            }
        }
        false
    }

    /// Sessions that are being ended, as children which take their time, are not to pile up; and
    /// those of one principal do not keep the others waiting.
    fn has_many_ending(&mut self, who: Option<&PrincipalId>) -> bool {
        self.ending.retain(|(_, thread)| !thread.is_finished());
        let n_ending = self.ending.iter().filter(|(pooled, _)| !pooled.has_ended()).count();
        self.n_ending_of(who) >= self.max_sessions
            || n_ending >= self.max_sessions.saturating_mul(2)
    }

    fn n_ending_of(&self, who: Option<&PrincipalId>) -> usize {
        let ending = self.ending.iter().filter(|(pooled, _)| !pooled.has_ended());
        ending.filter(|(pooled, _)| pooled.charged() == who).count()
    }

    /// What `who` may have of the others' sessions: of those who hold more than it does; and of
    /// those that were idle for long, as long as it leaves a share.
    fn may_have(&self, who: Option<&PrincipalId>, entry: &Entry) -> bool {
        let whose = entry.charged();
        if whose == who || self.n_of(whose) > self.n_of(who) {
            return true;
        }
        let is_spared = entry.used_at.elapsed() < SESSION_SPARED && !entry.is_tainted;
        entry.in_flight == 0 && !is_spared && self.leaves_share(who)
    }

    /// Whether a share is left to others where `who` has one more.
    fn leaves_share(&self, who: Option<&PrincipalId>) -> bool {
        who.is_none_or(|who| self.shares.held(who) + self.shares.share(who) < self.shares.max())
    }

    fn n_of(&self, who: Option<&PrincipalId>) -> usize {
        who.map_or_else(|| self.shares.held_by_nobody(), |who| self.shares.held(who))
    }

    /// The session without a call that ends for one more of `who`: one that nobody can use any
    /// more, else the longest idle one of whoever holds most; one that is subscribed to something
    /// only where that one has no other.
    fn dispensable(&self, who: Option<&PrincipalId>) -> Option<usize> {
        let idle = self
            .entries
            .iter()
            .enumerate()
            .filter(|(_, entry)| entry.in_flight == 0 && self.may_have(who, entry));
        let rank = |entry: &Entry| {
            let n_held = Reverse(self.n_of(entry.charged()));
            (!entry.is_tainted, n_held, entry.is_subscribed(), entry.used_at)
        };
        idle.min_by_key(|(_, entry)| rank(entry)).map(|(index, _)| index)
    }

    /// Ends the call whose client has taken longest to come back with answers, if it has taken
    /// long; its session is free a little later.
    fn end_longest_parked(&self, who: Option<&PrincipalId>, server: &ServerName) {
        let long = Instant::now().checked_sub(PARKED_GRACE);
        let is_long = |since: &Instant| long.is_some_and(|long| *since <= long);
        let parked = self.entries.iter().filter(|entry| self.may_have(who, entry));
        let parked = parked.filter_map(|entry| Some((entry, entry.parked.as_ref()?)));
        let longest = parked
            .min_by_key(|(entry, (since, _))| (Reverse(self.n_of(entry.charged())), *since));
        if let Some((_, (since, wait))) = longest
            && is_long(since)
            && wait.interrupted().is_none()
        {
            log::info!(target: "upstream", "{server}: a call whose client has not come back with \
                answers is ended to make room (max_sessions)");
            wait.interrupt(Interrupted::Cancelled);
        }
    }
}
