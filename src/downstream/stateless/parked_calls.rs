//! Calls of stateless clients to servers that ask questions while a call runs. Such a call
//! outlives the request that began it: the client gets the server's questions as
//! `input_required`, and its retry brings the answers (2026-07-28, basic/patterns/mrtr).
//!
//! A thread of its own makes the call, since the connection's thread must answer meanwhile.
//! While no request of the client waits for it, the call is *parked*: bounded in number and time.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, MutexGuard, Weak};
use std::time::{Duration, Instant};

use super::detached_call::Hearing;
pub use super::detached_call::{DetachedCall, News};
use crate::access::policy::OptionalLease;
use crate::error::CallError;
use crate::fair_shares::{NotTaken, Shares};
use crate::protocol::call::{CallSink, Outcome, PrincipalId};
use crate::protocol::jsonrpc::{RpcError, code};
use crate::sync::Mutex;
use crate::thread::{Joined, spawn};
use crate::wait::{Interrupted, Wait};

/// The bounds of parked calls.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// The most calls in all.
    pub calls: usize,
    /// The most calls of one key.
    pub calls_per_key: usize,
    /// The time for which a parked call waits for its client.
    pub life: Duration,
}

/// Every detached call, and the parked ones among them.
#[derive(Debug)]
pub struct ParkedCalls {
    bounds: Bounds,
    /// A number that distinguishes the calls of this process from those of others.
    boot: u64,
    last_id: AtomicU64,
    /// Shared with the threads of the calls, which remove their parked calls. This lock is taken
    /// before a call's own.
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    parked: HashMap<u64, Parked>,
    shares: Shares<PrincipalId>,
    running: Vec<(Weak<DetachedCall>, Joined)>,
    stopped: bool,
}

/// The client whose call it is.
#[derive(Debug, Clone, Default)]
pub struct Holder {
    /// The principal's id.
    pub principal: Option<Arc<str>>,
    /// The principal in whose share the call counts.
    pub charged: Option<PrincipalId>,
    /// The access token with which the client came.
    pub lease: OptionalLease,
}

#[derive(Debug)]
struct Parked {
    call: Arc<DetachedCall>,
    holder: Holder,
    round: u64,
    expires: Instant,
}

impl State {
    fn new(calls_max: usize) -> State {
        State {
            parked: HashMap::new(),
            shares: Shares::new(calls_max),
            running: Vec::new(),
            stopped: false,
        }
    }

    fn remove(&mut self, id: u64) -> Option<Parked> {
        let parked = self.parked.remove(&id)?;
        self.shares.give_back_of(parked.holder.charged.as_ref(), 1);
        Some(parked)
    }

    fn remove_all(&mut self, which: impl Fn(&Parked) -> bool) -> Vec<Parked> {
        let ids = self.parked.iter().filter(|(_, parked)| which(parked)).map(|(id, _)| *id);
        let ids: Vec<u64> = ids.collect();
        ids.into_iter().filter_map(|id| self.remove(id)).collect()
    }

    /// Takes the place of one call. If none is free, the call that has been parked for longest
    /// makes room, of a principal that has more than this one would have then, and is returned.
    fn take_place(&mut self, charged: Option<&PrincipalId>) -> Result<Option<Parked>, Full> {
        let evicted = match self.shares.take_of(charged, 1) {
            Ok(()) => return Ok(None),
            Err(NotTaken::ShareHeld) => {
                return Err(Full::Share(self.shares.share_of(charged)));
            }
            // Beyond its share, a principal could not have a place that another one gives up
            // either.
            Err(NotTaken::Full) if charged.is_some_and(|who| self.shares.has_share(who)) => {
                return Err(Full::Share(self.shares.share_of(charged)));
            }
            Err(NotTaken::Full) => charged.and_then(|who| {
                let has_more =
                    |other: &PrincipalId| self.shares.held(other) > self.shares.held(who) + 1;
                let other = self.shares.in_the_way_of(who, 1).filter(has_more)?;
                let of_other = self.parked.iter();
                let of_other =
                    of_other.filter(|(_, it)| it.holder.charged.as_ref() == Some(&other));
                let (oldest, _) = of_other.min_by_key(|(_, parked)| parked.expires)?;
                let oldest = *oldest;
                self.remove(oldest)
            }),
        };
        let evicted = evicted.ok_or(Full::Calls)?;
        self.shares.take_of(charged, 1).map_err(|_| Full::Calls)?;
        Ok(Some(evicted))
    }
}

/// The reason why a call could not be parked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// `limits.parked_calls` is reached.
    Calls,
    /// `limits.parked_calls_per_key` is reached.
    CallsPerKey,
    /// The principal holds its share of parked calls, which is this many now.
    Share(usize),
}

impl Full {
    /// The error for the client.
    pub fn to_error(self) -> RpcError {
        let bound = match self {
            Self::Calls => "limits.parked_calls".to_owned(),
            Self::CallsPerKey => "limits.parked_calls_per_key".to_owned(),
            Self::Share(share) => {
                format!("your share of limits.parked_calls, which is {share} now,")
            }
        };
        let what = format!(
            "The server asks for input, but {bound} is reached; the call was cancelled."
        );
        RpcError::new(code::INTERNAL_ERROR, what)
    }
}

impl ParkedCalls {
    /// No calls yet. `boot` is random.
    pub fn new(bounds: Bounds, boot: u64) -> ParkedCalls {
        let state = Arc::new(Mutex::new(State::new(bounds.calls)));
        ParkedCalls { bounds, boot, last_id: AtomicU64::new(0), state }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// The number that distinguishes this process from others.
    pub fn boot(&self) -> u64 {
        self.boot
    }

    /// The time for which a parked call waits for its client.
    pub fn life(&self) -> Duration {
        self.bounds.life
    }

    /// The number of parked calls.
    pub fn count(&self) -> usize {
        let now = Instant::now();
        self.lock().parked.values().filter(|parked| now < parked.expires).count()
    }

    /// Starts a thread that makes a call by `make`.
    ///
    /// # Errors
    /// The process has no thread left, or is stopping.
    pub fn start(
        &self,
        wait: Arc<Wait>,
        make: impl FnOnce(&Arc<Wait>, &dyn CallSink) -> Result<Outcome, CallError> + Send + 'static,
    ) -> Result<Arc<DetachedCall>, CallError> {
        let id = self.last_id.fetch_add(1, Ordering::Relaxed) + 1;
        let call = Arc::new(DetachedCall::new(id, self.bounds.life, wait));
        let mut state = self.lock();
        if state.stopped {
            return Err(CallError::ShuttingDown);
        }
        state.running.retain(|(_, thread)| !thread.is_finished());
        let (mine, shared) = (call.clone(), self.state.clone());
        let thread = spawn(&format!("call-{:06}", id % 1_000_000), move || {
            // This runs in any case: a request that waits for the call must be told of a panic
            // too.
            let mut finish = Finish { call: mine, state: shared, outcome: None };
            finish.outcome = Some(make(finish.call.wait(), &Hearing(&finish.call)));
        })
        .map_err(|_| CallError::Overloaded { what: "no thread is left".to_owned() })?;
        state.running.push((Arc::downgrade(&call), thread));
        Ok(call)
    }

    /// Parks a call, for a retry that names its id and round; no request waits for the call from
    /// then on. False if the call is over already, which its waiting request should be told.
    ///
    /// # Errors
    /// A bound is reached.
    pub fn park(
        &self,
        call: &Arc<DetachedCall>,
        holder: Holder,
        round: u64,
    ) -> Result<bool, Full> {
        let now = Instant::now();
        let mut state = self.lock();
        let gone = state.remove_all(|parked| now >= parked.expires);
        let is_theirs = |it: &&Parked| it.holder.principal == holder.principal;
        let of_key = state.parked.values().filter(is_theirs).count();
        let place = if call.is_over() {
            Ok(None)
        // Without keys no client can be told from another, so the bound on all calls is the only
        // one.
        } else if holder.principal.is_some() && of_key >= self.bounds.calls_per_key {
            Err(Full::CallsPerKey)
        } else {
            state.take_place(holder.charged.as_ref()).map(Some)
        };
        if let Ok(Some(_)) = &place {
            // The call does not expire later than its server's request does.
            let expires = call.wait().deadline().min(now + self.bounds.life);
            let parked = Parked { call: call.clone(), holder, round, expires };
            state.parked.insert(call.id(), parked);
            call.detach();
        }
        // Open questions are dropped where no lock is held, which answers them.
        drop(state);
        for parked in gone {
            parked.call.cancel(Interrupted::Deadline);
        }
        let is_parked = place.as_ref().is_ok_and(Option::is_some);
        let evicted = place?.flatten();
        if let Some(evicted) = evicted {
            log::warn!(target: "sessions", "a parked call was cancelled to make room for one \
                of somebody who has fewer (limits.parked_calls is {})", self.bounds.calls);
            evicted.call.cancel(Interrupted::Cancelled);
        }
        Ok(is_parked)
    }

    /// Takes a parked call for a retry. None if there is none with that id and round, because it
    /// was taken or has expired.
    pub fn take(
        &self,
        id: u64,
        round: u64,
        principal: Option<&Arc<str>>,
    ) -> Option<Arc<DetachedCall>> {
        let mut state = self.lock();
        let parked = state.parked.get(&id)?;
        let fits = parked.round == round
            && parked.holder.principal.as_ref() == principal
            && Instant::now() < parked.expires;
        if !fits {
            return None;
        }
        let call = state.remove(id)?.call;
        call.expect();
        // The call's thread may stay only for this.
        call.wait().bell().ring();
        Some(call)
    }

    /// Takes the parked calls of keys that have ended, which no client may take any more; to be
    /// given to [`ParkedCalls::cancel`] where no lock is held.
    pub(crate) fn take_all_of(&self, principals: &[Arc<str>]) -> Vec<Arc<DetachedCall>> {
        let theirs = |parked: &Parked| {
            parked.holder.principal.as_ref().is_some_and(|it| principals.contains(it))
        };
        let gone = self.lock().remove_all(theirs);
        gone.into_iter().map(|parked| parked.call).collect()
    }

    /// As [`ParkedCalls::take_all_of`], of users to whom the present configuration gives no rights
    /// any more.
    pub(crate) fn take_without_rights(&self) -> Vec<Arc<DetachedCall>> {
        let leases = |(id, parked): (&u64, &Parked)| Some((*id, parked.holder.lease.clone()?));
        // Nothing is locked while a token is asked.
        let mut leased: Vec<_> = self.lock().parked.iter().filter_map(leases).collect();
        leased.retain(|(_, lease)| lease.present().is_none());
        let mut state = self.lock();
        let gone: Vec<_> = leased.iter().filter_map(|(id, _)| state.remove(*id)).collect();
        drop(state);
        gone.into_iter().map(|parked| parked.call).collect()
    }

    /// Ends calls that [`ParkedCalls::take_all_of`] has taken.
    pub(crate) fn cancel(calls: Vec<Arc<DetachedCall>>) {
        calls.iter().for_each(|call| call.cancel(Interrupted::Cancelled));
    }

    /// Ends every call, and waits for their threads. None is started any more.
    pub fn stop(&self) {
        let (running, parked) = {
            let mut state = self.lock();
            state.stopped = true;
            (std::mem::take(&mut state.running), std::mem::take(&mut state.parked))
        };
        for call in running.iter().filter_map(|(call, _)| call.upgrade()) {
            call.cancel(Interrupted::Stopping);
        }
        drop(parked);
        drop(running);
    }
}

/// Ends a call in whatever way its thread ends.
struct Finish {
    call: Arc<DetachedCall>,
    state: Arc<Mutex<State>>,
    outcome: Option<Result<Outcome, CallError>>,
}

impl Drop for Finish {
    fn drop(&mut self) {
        self.call.finish(self.outcome.take().unwrap_or(Err(CallError::Internal)));
        stay_while_parked(&self.state, &self.call);
    }
}

/// Keeps the outcome of a call that ended while it was parked for its retry, and no longer than
/// the retry is awaited: nothing else may happen here that would drop the outcome.
fn stay_while_parked(state: &Mutex<State>, call: &DetachedCall) {
    loop {
        let left = {
            let mut state = state.lock();
            let Some(parked) = state.parked.get(&call.id()) else { return };
            let left = parked.expires.saturating_duration_since(Instant::now());
            if left.is_zero() || call.wait().interrupted().is_some() {
                state.remove(call.id());
                None
            } else {
                Some(left)
            }
        };
        let Some(left) = left else { return call.cancel(Interrupted::Deadline) };
        // The call's own time does not count any more. In any case the loop looks again.
        call.wait().set_timeout(left, left);
        call.wait().until(None, Some(left)).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::downstream::stateless::detached_call::tests::question;
    use crate::protocol::raw::Raw;

    const LONG: Duration = Duration::from_secs(5);

    fn calls(life: Duration) -> ParkedCalls {
        ParkedCalls::new(Bounds { calls: 8, calls_per_key: 8, life }, 1)
    }

    fn eventually(what: &str, check: impl Fn() -> bool) {
        let until = Instant::now() + LONG;
        while !check() {
            assert!(Instant::now() < until, "{what}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn a_parked_call_that_expires_leaves_nothing_behind() {
        let calls = calls(Duration::from_millis(50));
        let (finish, finished) = crossbeam_channel::bounded::<()>(1);
        let result = Raw::from_valid("{}".to_owned());
        let call = calls
            .start(Wait::plain(LONG).unwrap(), move |_, _| {
                finished.recv().ok();
                Ok(Outcome::Complete(result))
            })
            .unwrap();
        assert_eq!(calls.park(&call, Holder::default(), 0), Ok(true));
        finish.send(()).unwrap();
        eventually("it is taken back", || calls.lock().parked.is_empty());
        eventually("the result is dropped", || call.is_given_up());
    }

    #[test]
    fn a_call_that_is_cancelled_while_it_is_parked_is_taken_back() {
        let calls = calls(LONG);
        let call = calls
            .start(Wait::plain(LONG).unwrap(), |wait, sink| {
                sink.ask(question(1));
                while wait.until(None, None).is_ok() {}
                Err(CallError::Cancelled)
            })
            .unwrap();
        eventually("it asks", || call.n_asked() == 1);
        assert_eq!(calls.park(&call, Holder::default(), 0), Ok(true));
        call.cancel(Interrupted::Deadline);
        eventually("it is taken back", || calls.lock().parked.is_empty());
    }

    #[test]
    fn a_parked_call_makes_room_for_one_of_whoever_has_fewer() {
        let calls = calls(LONG);
        let parked = |name: &str| {
            let waiting = |wait: &Arc<Wait>, _: &dyn CallSink| {
                while wait.until(None, None).is_ok() {}
                Err(CallError::Cancelled)
            };
            let call = calls.start(Wait::plain(LONG).unwrap(), waiting).unwrap();
            let (principal, charged) = (Some(name.into()), Some(PrincipalId::Key(name.into())));
            (calls.park(&call, Holder { principal, charged, lease: None }, 0), call)
        };
        let of_hog: Vec<_> = (0..7).map(|_| parked("hog")).collect();
        assert!(of_hog[..6].iter().all(|(is_parked, _)| *is_parked == Ok(true)));
        assert!(matches!(of_hog[6].0, Err(Full::Share(_))));
        let of_victim: Vec<_> = (0..2).map(|_| parked("victim")).collect();
        let third = parked("third");
        assert_eq!(third.0, Ok(true));
        eventually("the hog's first is over", || of_hog[0].1.is_over());
        for (is_parked, call) in of_victim.iter().chain(&of_hog[1..6]).chain([&third]) {
            assert_eq!(*is_parked, Ok(true));
            assert!(!call.is_over());
        }
        calls.stop();
    }

    #[test]
    fn the_calls_of_a_key_that_has_ended_end() {
        let calls = calls(LONG);
        let [ended, other]: [Arc<str>; 2] = ["ended", "other"].map(Into::into);
        let parked = [&ended, &other].map(|key| {
            let wait = Wait::plain(LONG).unwrap();
            let waiting = |wait: &Arc<Wait>, _: &dyn CallSink| {
                while wait.until(None, None).is_ok() {}
                Err(CallError::Cancelled)
            };
            let call = calls.start(wait, waiting).unwrap();
            let holder = Holder { principal: Some(key.clone()), ..Holder::default() };
            assert_eq!(calls.park(&call, holder, 0), Ok(true));
            call
        });
        ParkedCalls::cancel(calls.take_all_of(std::slice::from_ref(&ended)));
        assert!(calls.take(parked[0].id(), 0, Some(&ended)).is_none());
        eventually("it is over", || parked[0].is_over());
        assert!(calls.take(parked[1].id(), 0, Some(&other)).is_some());
        assert!(!parked[1].is_over());
        calls.stop();
    }

    #[test]
    fn what_a_call_came_to_while_it_was_parked_is_there_for_its_retry() {
        let calls = calls(LONG);
        let (finish, finished) = crossbeam_channel::bounded::<()>(1);
        let call = calls
            .start(Wait::plain(LONG).unwrap(), move |_, _| {
                finished.recv().ok();
                Ok(Outcome::Complete(Raw::from_valid("{}".to_owned())))
            })
            .unwrap();
        assert_eq!(calls.park(&call, Holder::default(), 3), Ok(true));
        finish.send(()).unwrap();
        eventually("it is over", || call.is_over());
        let taken = calls.take(call.id(), 3, None).unwrap();
        assert!(matches!(taken.next(), News::Done(Ok(Outcome::Complete(_)))));
        // The call's thread has no reason to stay.
        let begun = Instant::now();
        calls.stop();
        assert!(begun.elapsed() < Duration::from_secs(2));
    }

    #[test]
    fn whoever_holds_its_share_ends_nobody_s_call_for_one_more() {
        let calls = calls(LONG);
        let [hog, victim] = ["hog", "victim"].map(|key| PrincipalId::Key(key.into()));
        let park = |who: &PrincipalId| {
            let waiting = |wait: &Arc<Wait>, _: &dyn CallSink| {
                while wait.until(None, None).is_ok() {}
                Err(CallError::Cancelled)
            };
            let call = calls.start(Wait::plain(LONG).unwrap(), waiting).unwrap();
            let parked = calls.park(
                &call,
                Holder { charged: Some(who.clone()), ..Holder::default() },
                0,
            );
            (call, parked)
        };
        let hogs: Vec<_> = (0..6).map(|_| park(&hog)).collect();
        let victims: Vec<_> = (0..2).map(|_| park(&victim)).collect();
        assert!(hogs.iter().chain(&victims).all(|(_, parked)| *parked == Ok(true)));
        let (call, refused) = park(&victim);
        assert!(matches!(refused, Err(Full::Share(_))), "{refused:?}");
        call.cancel(Interrupted::Cancelled);
        assert!(hogs.iter().all(|(call, _)| calls.take(call.id(), 0, None).is_some()));
        calls.stop();
    }
}
