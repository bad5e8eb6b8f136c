//! The sessions and their rules: bounds, idle time, who hears what. Pure: time is an argument.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use super::{Door, EventSink, KeptStreams, Owner, Session, SessionId};
use crate::protocol::call::Caller;
use crate::protocol::server_name::ServerName;

/// The bounds that the table keeps.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) sessions: usize,
    pub(super) sessions_per_key: usize,
    pub(super) idle: Duration,
}

/// Which bound a new session would break.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Full {
    Sessions,
    SessionsPerKey,
}

struct Entry {
    session: Arc<Session>,
    /// Streams that cannot be resumed: that of HTTP+SSE, and all where no events are kept.
    streams: Vec<Arc<dyn EventSink>>,
}

impl Entry {
    /// Sends an event on one stream only (2025-11-25, basic/transports, Multiple Connections):
    /// the newest, one that can be resumed before one that cannot.
    fn tell(&mut self, event: &Arc<[u8]>) {
        if self.session.kept.tell(event) {
            return;
        }
        while let Some(stream) = self.streams.last() {
            if stream.send(event.clone()) {
                break;
            }
            self.streams.pop();
        }
    }
}

/// Every session, by id.
pub(super) struct Table {
    bounds: Bounds,
    entries: HashMap<SessionId, Entry>,
    per_key: HashMap<Option<Arc<str>>, usize>,
}

impl Table {
    pub(super) fn new(bounds: Bounds) -> Table {
        Table { bounds, entries: HashMap::new(), per_key: HashMap::new() }
    }

    /// Adds a session under `id`, which is new.
    pub(super) fn open(
        &mut self,
        now: Instant,
        id: SessionId,
        door: Door,
        owner: Owner,
        caller: Option<Caller>,
    ) -> Result<Arc<Session>, Full> {
        if self.entries.len() >= self.bounds.sessions {
            return Err(Full::Sessions);
        }
        let held = self.per_key.entry(owner.principal.clone()).or_default();
        // Without keys nobody can be told apart, so the bound on all sessions is the only one.
        if owner.principal.is_some() && *held >= self.bounds.sessions_per_key {
            return Err(Full::SessionsPerKey);
        }
        *held += 1;
        let session = Arc::new(Session {
            id: id.clone(),
            door,
            owner,
            kept: KeptStreams::default(),
            caller: caller.map(Arc::new).map_or_else(OnceLock::new, OnceLock::from),
            stream: OnceLock::new(),
            opened: now,
            last_used_ms: AtomicU64::new(0),
            ended: AtomicBool::new(false),
            calls: Mutex::default(),
        });
        self.entries.insert(id, Entry { session: session.clone(), streams: Vec::new() });
        Ok(session)
    }

    pub(super) fn introduce(&self, id: &str, caller: Caller) -> bool {
        let entry = self.entries.get(id);
        entry.is_some_and(|entry| entry.session.caller.set(Arc::new(caller)).is_ok())
    }

    /// Gives a session one more stream; streams that have ended are forgotten.
    pub(super) fn attach(&mut self, id: &str, stream: Arc<dyn EventSink>) -> bool {
        let Some(entry) = self.entries.get_mut(id) else { return false };
        if entry.session.door == Door::HttpSse
            && entry.session.stream.set(stream.clone()).is_err()
        {
            return false;
        }
        entry.streams.retain(|stream| stream.is_open());
        entry.streams.push(stream);
        true
    }

    /// Ends a session. False if there is none of that id.
    pub(super) fn close(&mut self, id: &str) -> bool {
        let Some(entry) = self.entries.remove(id) else { return false };
        if let Some(held) = self.per_key.get_mut(&entry.session.owner.principal) {
            *held -= 1;
            if *held == 0 {
                self.per_key.remove(&entry.session.owner.principal);
            }
        }
        entry.session.end();
        for stream in entry.streams {
            stream.close();
        }
        true
    }

    /// Sends an event to every session that hears of `server`.
    pub(super) fn tell(&mut self, server: &ServerName, event: &Arc<[u8]>) {
        for entry in self.entries.values_mut() {
            if entry.session.owner.hears.contains(server) && entry.session.caller().is_some() {
                entry.tell(event);
            }
        }
    }

    /// Ends what is idle, and HTTP+SSE sessions whose stream has ended; gives their ids.
    pub(super) fn sweep(&mut self, now: Instant) -> Vec<SessionId> {
        let idle = self.bounds.idle;
        let mut over = Vec::new();
        for (id, entry) in &mut self.entries {
            entry.streams.retain(|stream| stream.is_open());
            entry.session.kept.sweep(now);
            let streamless = entry.streams.is_empty() && !entry.session.kept.any_open();
            let unused = now.saturating_duration_since(entry.session.last_used()) >= idle;
            let ended = match entry.session.door {
                Door::HttpSse => entry.session.stream.get().is_some() && streamless,
                Door::StreamableHttp => false,
            };
            if ended || (unused && streamless && !entry.session.has_calls()) {
                over.push(id.clone());
            }
        }
        for id in &over {
            self.close(id);
        }
        over
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::jsonrpc::RequestId;
    use crate::session::Refused;
    use crate::wait::{Interrupted, Wait};
    use std::sync::atomic::Ordering;

    #[derive(Default)]
    struct Sink {
        closed: AtomicBool,
        events: Mutex<Vec<Arc<[u8]>>>,
    }

    impl EventSink for Sink {
        fn send(&self, event: Arc<[u8]>) -> bool {
            self.events.lock().unwrap().push(event);
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

    fn owner(principal: Option<&str>) -> Owner {
        let hears = [ServerName::parse("a").unwrap()].into();
        Owner { principal: principal.map(Into::into), only: None, narrowed: None, hears }
    }

    fn open(
        table: &mut Table,
        now: Instant,
        id: &str,
        key: &str,
    ) -> Result<Arc<Session>, Full> {
        let caller = Some(Caller::plain());
        table.open(now, id.into(), Door::StreamableHttp, owner(Some(key)), caller)
    }

    #[test]
    fn idle_session_is_swept_at_the_bound_and_not_before() {
        let start = Instant::now();
        let mut table = table();
        open(&mut table, start, "x", "k").unwrap();
        assert_eq!(table.sweep(start + Duration::from_secs(59)).len(), 0);
        assert_eq!(table.sweep(start + Duration::from_secs(60)).len(), 1);
        assert!(!table.close("x"));
    }

    #[test]
    fn an_open_stream_or_a_call_keeps_a_session() {
        let (start, late) = (Instant::now(), Duration::from_secs(600));
        let mut table = table();
        let session = open(&mut table, start, "x", "k").unwrap();
        let sink = Arc::new(Sink::default());
        assert!(table.attach("x", sink.clone()));
        assert_eq!(table.sweep(start + late).len(), 0);
        sink.close();
        let wait = Wait::plain(Duration::from_secs(5)).unwrap();
        let call = session.enter(&RequestId::from(1), &wait).unwrap();
        assert_eq!(table.sweep(start + late).len(), 0);
        drop(call);
        assert_eq!(table.sweep(start + late).len(), 1);
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
        assert!(table.close("1"));
        open(&mut table, now, "4", "k").unwrap();
    }

    #[test]
    fn an_event_goes_to_one_stream_of_each_session_that_hears() {
        let now = Instant::now();
        let mut table = table();
        open(&mut table, now, "x", "k").unwrap();
        let (first, second) = (Arc::new(Sink::default()), Arc::new(Sink::default()));
        table.attach("x", first.clone());
        table.attach("x", second.clone());
        table.tell(&ServerName::parse("a").unwrap(), &Arc::from(*b"event"));
        table.tell(&ServerName::parse("b").unwrap(), &Arc::from(*b"event"));
        assert_eq!(first.events.lock().unwrap().len(), 0);
        assert_eq!(second.events.lock().unwrap().len(), 1);
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
        table.open(now, "x".into(), Door::HttpSse, owner(None), None).unwrap();
        assert_eq!(table.sweep(now).len(), 0);
        let sink = Arc::new(Sink::default());
        assert!(table.attach("x", sink.clone()));
        assert!(!table.attach("x", sink.clone()), "a second stream");
        assert!(table.introduce("x", Caller::plain()));
        assert!(!table.introduce("x", Caller::plain()), "twice");
        sink.close();
        assert_eq!(table.sweep(now).len(), 1);
    }
}
