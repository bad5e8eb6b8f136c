//! Pure: the table of sessions: bounds, idle time, audiences. Time is an argument.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use super::entry::Entry;
use super::questions::OpenQuestions;
use super::{
    EventSink, KeptStreams, Left, Owner, Session, SessionId, Subscriptions, Transport,
};
use crate::fair_shares::{NotTaken, Shares};
use crate::limits::SESSION_STREAMS_MAX;
use crate::protocol::call::{Caller, PrincipalId};
use crate::protocol::listening::acknowledged;
use crate::protocol::sse;
use crate::protocol::subscriber::Subscriber;
use crate::sync::{Mutex, RwLock};

/// The bounds that the table keeps.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) sessions: usize,
    pub(super) sessions_per_key: usize,
    pub(super) idle: Duration,
}

/// The bound that a new session would break.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Full {
    Sessions,
    SessionsPerKey,
    /// The principal's share of all sessions, which is this many now.
    Share(usize),
}

/// Every session, by id.
pub(super) struct Table {
    bounds: Bounds,
    pub(super) entries: HashMap<SessionId, Entry>,
    per_key: HashMap<Option<Arc<str>>, usize>,
    /// The places of each principal.
    pub(super) shares: Shares<PrincipalId>,
}

impl Table {
    pub(super) fn new(bounds: Bounds) -> Table {
        let (entries, per_key) = (HashMap::new(), HashMap::new());
        let shares = Shares::long_held(bounds.sessions);
        Table { bounds, entries, per_key, shares }
    }

    /// Adds a session under `id`, which is new.
    pub(super) fn open(
        &mut self,
        now: Instant,
        id: SessionId,
        door: Transport,
        owner: Owner,
        caller: Option<Caller>,
    ) -> Result<Arc<Session>, Full> {
        let visible_servers = owner.visible_servers.clone();
        let held = self.per_key.get(&owner.principal).copied().unwrap_or_default();
        // Without keys no client can be told from another: only the bound on all holds.
        if owner.principal.is_some() && held >= self.bounds.sessions_per_key {
            return Err(Full::SessionsPerKey);
        }
        let charged = owner.charged.as_ref();
        self.shares.take_of(charged, 1).map_err(|why| match why {
            NotTaken::Full => Full::Sessions,
            NotTaken::ShareHeld => Full::Share(self.shares.share_of(charged)),
        })?;
        *self.per_key.entry(owner.principal.clone()).or_default() += 1;
        let holder = match (&owner.charged, &owner.principal) {
            (Some(charged), _) => charged.clone(),
            (None, principal) => PrincipalId::new(principal.as_ref(), &id),
        };
        let session = Arc::new(Session {
            id: id.clone(),
            door,
            visible_servers: RwLock::new(visible_servers),
            charged: RwLock::new(owner.charged.clone()),
            lease: RwLock::new(owner.lease.clone()),
            told: Mutex::new(owner.lease.as_ref().map(|it| it.principal().policy.clone())),
            user: RwLock::new(owner.user.clone()),
            owner,
            subscriber: Subscriber::fresh(),
            kept: KeptStreams::of(holder),
            caller: caller.map(Arc::new).map_or_else(OnceLock::new, OnceLock::from),
            listening: OnceLock::new(),
            views: OnceLock::new(),
            asked: OnceLock::new(),
            stateless: OnceLock::new(),
            stream: OnceLock::new(),
            last_stream: AtomicU64::new(0),
            opened: now,
            last_used_ms: AtomicU64::new(0),
            ended: AtomicBool::new(false),
            log_level: AtomicU8::new(0),
            subscriptions: Subscriptions::new(),
            calls: Mutex::default(),
            questions: OpenQuestions::new(),
        });
        self.entries.insert(id, Entry { session: session.clone(), streams: BTreeMap::new() });
        Ok(session)
    }

    pub(super) fn introduce(&self, id: &str, caller: Caller) -> bool {
        let entry = self.entries.get(id);
        entry.is_some_and(|entry| entry.session.caller.set(Arc::new(caller)).is_ok())
    }

    /// Gives a session the stream of that number; streams that have ended are forgotten.
    pub(super) fn attach(&mut self, id: &str, number: u64, stream: Arc<dyn EventSink>) -> bool {
        let Some(entry) = self.entries.get_mut(id) else { return false };
        if matches!(
            entry.session.door,
            Transport::HttpSse | Transport::Stdio | Transport::Listen
        ) && entry.session.stream.set(stream.clone()).is_err()
        {
            return false;
        }
        entry.streams.retain(|_, stream| stream.is_open());
        entry.streams.insert(number, stream);
        // A client that opens stream after stream has lost the first ones, or wants to cost much.
        while entry.streams.len() > SESSION_STREAMS_MAX {
            let Some((_, oldest)) = entry.streams.pop_first() else { break };
            oldest.close();
        }
        if let Some(listening) = entry.session.listening.get() {
            // This thread sends all messages, so none comes before the acknowledgement and none
            // is missed after it (2026-07-28, basic/patterns/subscriptions).
            let first = sse::event("", &acknowledged(&listening.id, &listening.filter));
            entry.send(&first.into());
        }
        true
    }

    /// Ends a session, and returns its remains. None if there is none of that id.
    pub(super) fn close(&mut self, id: &str) -> Option<Left> {
        let entry = self.entries.remove(id)?;
        if let Some(held) = self.per_key.get_mut(&entry.session.owner.principal) {
            *held -= 1;
            if *held == 0 {
                self.per_key.remove(&entry.session.owner.principal);
            }
        }
        entry.session.end();
        for stream in entry.streams.into_values() {
            stream.close();
        }
        self.shares.give_back_of(entry.session.charged().as_ref(), 1);
        Some(Left {
            session: entry.session.id.clone(),
            subscriber: entry.session.subscriber,
            subscriptions: entry.session.subscriptions.end(),
            servers: None,
        })
    }

    /// Every session.
    pub(super) fn sessions(&self) -> Vec<(SessionId, Arc<Session>)> {
        self.entries.iter().map(|(id, entry)| (id.clone(), entry.session.clone())).collect()
    }

    /// The session of that id.
    pub(super) fn session(&self, id: &str) -> Option<&Arc<Session>> {
        self.entries.get(id).map(|entry| &entry.session)
    }

    /// The sessions to end: idle ones, and those whose stream, with which they live, has ended.
    /// Closes the questions of the others that have waited for too long.
    pub(super) fn over(&mut self, now: Instant) -> Vec<SessionId> {
        let idle = self.bounds.idle;
        let mut over = Vec::new();
        for (id, entry) in &mut self.entries {
            entry.streams.retain(|_, stream| stream.is_open());
            entry.session.kept.sweep(now);
            entry.session.questions.sweep(now);
            let streamless = entry.streams.is_empty() && !entry.session.kept.any_open();
            let unused = now.saturating_duration_since(entry.session.last_used()) >= idle;
            let ended = match entry.session.door {
                Transport::HttpSse | Transport::Stdio | Transport::Listen => {
                    entry.session.stream.get().is_some() && streamless
                }
                Transport::StreamableHttp => false,
            };
            if ended || (unused && streamless && !entry.session.has_calls()) {
                over.push(id.clone());
            }
        }
        over
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::protocol::jsonrpc::RequestId;
    use crate::protocol::server_name::ServerName;
    use crate::protocol::session_route::SessionKind;
    use crate::session::Refused;
    use crate::session::{Audience, EncodedEvent};
    use crate::wait::{Interrupted, Wait};

    #[derive(Default)]
    struct Sink {
        closed: AtomicBool,
        events: Mutex<Vec<EncodedEvent>>,
    }

    impl EventSink for Sink {
        fn send(&self, event: EncodedEvent) -> bool {
            self.events.lock().push(event);
            self.is_open()
        }
        fn close(&self) {
            self.closed.store(true, Ordering::Relaxed);
        }
        fn is_open(&self) -> bool {
            !self.closed.load(Ordering::Relaxed)
        }
    }

    fn table() -> Table {
        Table::new(Bounds { sessions: 3, sessions_per_key: 2, idle: Duration::from_secs(60) })
    }

    /// Ends sessions as the session thread's sweep does; returns how many.
    fn sweep(table: &mut Table, now: Instant) -> usize {
        let over = table.over(now);
        over.iter().for_each(|id| assert!(table.close(id).is_some()));
        over.len()
    }

    fn owner(principal: Option<&str>) -> Owner {
        let visible_servers = [ServerName::parse("a").unwrap()].into();
        let principal = principal.map(Into::into);
        Owner {
            principal,
            only: None,
            narrowed: None,
            visible_servers,
            admission: 0,
            charged: None,
            lease: None,
            user: None,
        }
    }

    fn open(
        table: &mut Table,
        now: Instant,
        id: &str,
        key: &str,
    ) -> Result<Arc<Session>, Full> {
        let caller = Some(Caller::plain());
        table.open(now, id.into(), Transport::StreamableHttp, owner(Some(key)), caller)
    }

    #[test]
    fn idle_session_is_swept_at_the_bound_and_not_before() {
        let start = Instant::now();
        let mut table = table();
        open(&mut table, start, "x", "k").unwrap();
        assert_eq!(sweep(&mut table, start + Duration::from_secs(59)), 0);
        assert_eq!(sweep(&mut table, start + Duration::from_secs(60)), 1);
        assert!(table.close("x").is_none());
    }

    #[test]
    fn an_open_stream_or_a_call_keeps_a_session() {
        let (start, late) = (Instant::now(), Duration::from_secs(600));
        let mut table = table();
        let session = open(&mut table, start, "x", "k").unwrap();
        let sink = Arc::new(Sink::default());
        assert!(table.attach("x", 1, sink.clone()));
        assert_eq!(sweep(&mut table, start + late), 0);
        sink.close();
        let wait = Wait::plain(Duration::from_secs(5)).unwrap();
        let call = session.enter(&RequestId::from(1), &wait).unwrap();
        assert_eq!(sweep(&mut table, start + late), 0);
        drop(call);
        assert_eq!(sweep(&mut table, start + late), 1);
    }

    #[test]
    fn both_bounds_hold_and_a_closed_session_frees_its_place() {
        let now = Instant::now();
        let mut table = table();
        open(&mut table, now, "1", "k").unwrap();
        open(&mut table, now, "2", "k").unwrap();
        assert_eq!(open(&mut table, now, "3", "k").unwrap_err(), Full::SessionsPerKey);
        open(&mut table, now, "3", "l").unwrap();
        assert_eq!(open(&mut table, now, "4", "m").unwrap_err(), Full::Sessions);
        assert!(table.close("1").is_some() && table.close("1").is_none());
        open(&mut table, now, "4", "k").unwrap();
    }

    #[test]
    fn a_session_that_has_ended_subscribes_to_nothing() {
        let mut table = table();
        let session = open(&mut table, Instant::now(), "x", "k").unwrap();
        let server = ServerName::parse("a").unwrap();
        session.subscribe(&server, "x:", "x:", SessionKind::Shared).unwrap();
        let left = table.close("x").unwrap();
        assert_eq!(
            session.subscribe(&server, "y:", "y:", SessionKind::Shared),
            Err(Refused::Ended)
        );
        assert!(!session.is_subscribed(&server, "x:"));
        assert_eq!(left.subscriptions, [(server, "x:".to_owned())]);
        assert!(left.subscriber == session.subscriber && left.servers.is_none());
    }

    #[test]
    fn an_event_goes_to_one_stream_of_each_session_that_hears() {
        let now = Instant::now();
        let mut table = table();
        open(&mut table, now, "x", "k").unwrap();
        let (first, second) = (Arc::new(Sink::default()), Arc::new(Sink::default()));
        table.attach("x", 2, first.clone());
        table.attach("x", 1, second.clone());
        table.tell(&Audience::Hearing(ServerName::parse("a").unwrap()), "{}", Instant::now());
        table.tell(&Audience::Hearing(ServerName::parse("b").unwrap()), "{}", Instant::now());
        // The newest stream got the event, although its number came first.
        assert_eq!(first.events.lock().len(), 1);
        assert_eq!(second.events.lock().len(), 0);
    }

    #[test]
    fn the_oldest_stream_of_a_session_makes_room_for_one_too_many() {
        let mut table = table();
        open(&mut table, Instant::now(), "x", "k").unwrap();
        let sinks: Vec<Arc<Sink>> =
            (0..SESSION_STREAMS_MAX + 2).map(|_| Arc::new(Sink::default())).collect();
        for (number, sink) in (0..).zip(&sinks) {
            assert!(table.attach("x", number, sink.clone()));
        }
        let open = sinks.iter().map(|sink| sink.is_open());
        let expected = (0..SESSION_STREAMS_MAX + 2).map(|at| at >= 2);
        assert_eq!(open.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
    }

    #[test]
    fn ending_a_session_cancels_its_calls() {
        let mut table = table();
        let session = open(&mut table, Instant::now(), "x", "k").unwrap();
        let wait = Wait::plain(Duration::from_secs(5)).unwrap();
        let id = RequestId::from(1);
        let call = session.enter(&id, &wait).unwrap();
        assert_eq!(session.enter(&id, &wait).unwrap_err(), Refused::IdInUse);
        table.close("x");
        assert_eq!(wait.interrupted(), Some(Interrupted::Cancelled));
        drop(call);
        assert_eq!(session.enter(&id, &wait).unwrap_err(), Refused::Ended);
    }

    #[test]
    fn an_http_sse_session_ends_with_its_stream() {
        let now = Instant::now();
        let mut table = table();
        table.open(now, "x".into(), Transport::HttpSse, owner(None), None).unwrap();
        assert_eq!(sweep(&mut table, now), 0);
        let sink = Arc::new(Sink::default());
        assert!(table.attach("x", 1, sink.clone()));
        assert!(!table.attach("x", 2, sink.clone()), "a second stream");
        assert!(table.introduce("x", Caller::plain()));
        assert!(!table.introduce("x", Caller::plain()), "twice");
        sink.close();
        assert_eq!(sweep(&mut table, now), 1);
    }
}
