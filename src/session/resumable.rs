//! A stream of a session that its client may resume after its connection broke (2025-11-25,
//! basic/transports, Resumability and Redelivery): its kept events, and the connection that it is
//! live on.

use std::io;
use std::sync::{Arc, MutexGuard, Weak};
use std::time::{Duration, Instant};

use super::event_log::{EventId, EventLog, StreamId};
use super::event_logs::EventLogs;
use super::{EncodedEvent, EventSink};
use crate::limits::RESUMABLE_STREAM_LIFE;
use crate::protocol::call::PrincipalId;
use crate::protocol::sse;
use crate::sync::Mutex;

/// The writer of the events that are pushed.
enum Live {
    /// The thread of the POST that began the stream writes to its own connection.
    Answer,
    /// The sink writes to a connection that another thread holds.
    Sink(Arc<dyn EventSink>),
    /// There is no writer: the client has gone, or has not come.
    Nobody,
}

/// The way of an event that was pushed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delivery {
    /// The POST's thread writes the event, behind this line.
    Own(String),
    /// The event was queued for another connection, or waits for one.
    Elsewhere,
}

pub(super) struct State {
    pub(super) log: EventLog,
    /// The principal in whose share of all logs the events count, and the log's turn among that
    /// principal's logs while it holds events.
    pub(super) holder: PrincipalId,
    pub(super) turn: Option<u64>,
    pub(super) own: Weak<Mutex<State>>,
    live: Live,
    /// The time at which the last event of a POST's stream was pushed.
    completed: Option<Instant>,
    /// True once the session has ended.
    closed: bool,
}

/// One resumable stream. Its lock is never held across a wait: sinks only queue.
pub struct Resumable {
    id: StreamId,
    logs: EventLogs,
    state: Arc<Mutex<State>>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("log", &self.log).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Resumable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Resumable").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Resumable {
    /// The stream of a POST that is being answered.
    pub(super) fn answering(id: StreamId, holder: &PrincipalId, logs: &EventLogs) -> Resumable {
        Resumable::new(id, holder, logs, Live::Answer)
    }

    /// The stream of a GET; [`Resumable::attach`] brings its connection.
    pub(super) fn listening(id: StreamId, holder: &PrincipalId, logs: &EventLogs) -> Resumable {
        Resumable::new(id, holder, logs, Live::Nobody)
    }

    fn new(id: StreamId, holder: &PrincipalId, logs: &EventLogs, live: Live) -> Resumable {
        let log = EventLog::new(logs.bounds);
        let state = Arc::new_cyclic(|own| {
            let (holder, own) = (holder.clone(), own.clone());
            let (turn, completed, closed) = (None, None, false);
            Mutex::new(State { log, holder, turn, own, live, completed, closed })
        });
        Resumable { id, logs: logs.clone(), state }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// The stream's id.
    pub fn id(&self) -> StreamId {
        self.id
    }

    fn event_id(&self, sequence: u64) -> EventId {
        EventId { stream: self.id, sequence }
    }

    /// The event with which a stream begins: an id to resume from before any message has come
    /// (2025-11-25, basic/transports, Sending Messages).
    pub fn priming(&self, retry: Duration) -> String {
        sse::priming(&self.event_id(EventLog::BEGINNING).to_string(), retry)
    }

    /// Numbers an event, keeps it and queues it where the stream is live. An event that is too
    /// large to be kept is delivered live only; a client that resumes gets the event of
    /// `stand_in`.
    pub fn push(
        &self,
        event: &EncodedEvent,
        stand_in: Option<&dyn Fn() -> String>,
    ) -> Delivery {
        let mut state = self.make_room_for(event);
        let line = sse::id_line(&self.event_id(state.log.next()).to_string());
        let event = event.with_id(&line);
        let logged = self.kept(&state, &event).or_else(|| {
            let text = stand_in.map(|encode| line.clone() + &encode())?;
            self.kept(&state, &EncodedEvent::from(text))
        });
        self.log(&mut state, logged);
        match &state.live {
            Live::Answer => Delivery::Own(line),
            Live::Sink(sink) => {
                if !sink.send(event) {
                    state.live = Live::Nobody;
                }
                Delivery::Elsewhere
            }
            Live::Nobody => Delivery::Elsewhere,
        }
    }

    /// Makes room among all logs for an event, and then locks this stream.
    fn make_room_for(&self, event: &EncodedEvent) -> MutexGuard<'_, State> {
        let state = self.state();
        let line = sse::id_line(&self.event_id(state.log.next()).to_string());
        let said_bytes = if event.is_counted() { 0 } else { event.len() };
        let bytes = line.len() + said_bytes;
        if !state.log.fits(line.len() + event.len()) || self.logs.have_room(bytes) {
            return state;
        }
        let holder = state.holder.clone();
        drop(state);
        self.logs.make_room(&holder, bytes);
        self.state()
    }

    /// The event with its place in this log; none where it is too large, or other logs have taken
    /// the room.
    fn kept(&self, state: &State, event: &EncodedEvent) -> Option<EncodedEvent> {
        let fits = state.log.fits(event.len());
        fits.then(|| self.logs.keep(&state.holder, event)).flatten()
    }

    fn log(&self, state: &mut State, event: Option<EncodedEvent>) {
        match event {
            Some(event) => state.log.push(event),
            None => state.log.skip(),
        };
        self.logs.enlist(state);
    }

    /// Ends the connection on which the stream is live: another one takes it over, and gets the
    /// events that come meanwhile.
    pub fn detach(&self) {
        let live = std::mem::replace(&mut self.state().live, Live::Nobody);
        if let Live::Sink(sink) = live {
            sink.close();
        }
    }

    /// Makes the stream live on a new connection, which gets the events after `sequence`; the
    /// connection before it ends. If the stream is complete, or its session has ended, the new
    /// connection ends after those events.
    pub fn attach(&self, sink: Arc<dyn EventSink>, first: &[u8], sequence: u64) {
        let mut state = self.state();
        // The events are queued all at once: behind a first event that waits there is little room
        // in a queue.
        let mut replay = vec![EncodedEvent::from(first)];
        replay.extend(state.log.after(sequence).cloned());
        let lost = state.log.lost_after(sequence);
        let is_there = sink.send(EncodedEvent::several(replay));
        let over = state.completed.is_some() || state.closed;
        if over {
            sink.close();
        }
        let live = if is_there && !over { Live::Sink(sink) } else { Live::Nobody };
        let before = std::mem::replace(&mut state.live, live);
        drop(state);
        if let Live::Sink(before) = before {
            before.close();
        }
        if lost > 0 {
            log::debug!(target: "sessions", "a resumed stream has lost {lost} events");
        }
    }

    /// True if the POST's own connection still carries the stream.
    pub fn is_own(&self) -> bool {
        matches!(self.state().live, Live::Answer)
    }

    /// Notes that the POST's own connection has broken.
    pub fn lost(&self) {
        let mut state = self.state();
        if matches!(state.live, Live::Answer) {
            state.live = Live::Nobody;
        }
    }

    /// Notes that the response has been pushed, after which no event comes. False if a client
    /// that resumes would wait for the response in vain, because it is not kept.
    pub fn complete(&self) -> bool {
        let mut state = self.state();
        state.completed = Some(Instant::now());
        let live = std::mem::replace(&mut state.live, Live::Nobody);
        let is_kept = state.log.keeps_last();
        drop(state);
        if let Live::Sink(sink) = live {
            sink.close();
        }
        is_kept
    }

    /// Closes the stream because its session has ended, or has no room for it.
    pub(super) fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        // A POST's own connection ends with its call.
        if let Live::Sink(sink) = &state.live {
            sink.close();
            state.live = Live::Nobody;
        }
    }

    /// True if the response was pushed.
    pub(super) fn is_complete(&self) -> bool {
        self.state().completed.is_some()
    }

    /// True if a connection in the hub of streams is open for the stream.
    pub(super) fn has_open_sink(&self) -> bool {
        matches!(&self.state().live, Live::Sink(sink) if sink.is_open())
    }

    /// True if the stream has been complete for so long that no client will resume it.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        let completed = self.state().completed;
        completed.is_some_and(|at| now.saturating_duration_since(at) >= RESUMABLE_STREAM_LIFE)
    }
}

impl Drop for Resumable {
    fn drop(&mut self) {
        let mut state = self.state();
        while state.log.drop_oldest() {}
        self.logs.enlist(&mut state);
    }
}

/// A random number for a new stream.
///
/// # Errors
/// The system gives no randomness.
pub(super) fn random_number() -> io::Result<u64> {
    use ring::rand::{SecureRandom, SystemRandom};
    let mut bytes = [0; 8];
    let filled = SystemRandom::new().fill(&mut bytes);
    filled.map_err(|_| io::Error::other("the system gives no randomness"))?;
    Ok(u64::from_ne_bytes(bytes))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::limits::EVENT_LOGS_BYTES_MAX;
    use crate::session::event_log::{Bounds, Origin};
    use std::sync::atomic::{AtomicBool, Ordering};

    /// A connection that takes every event.
    #[derive(Default)]
    pub(in crate::session) struct Sink {
        gone: AtomicBool,
        bytes: Mutex<Vec<u8>>,
    }

    impl Sink {
        pub(in crate::session) fn hang_up(&self) {
            self.gone.store(true, Ordering::Relaxed);
        }

        /// The received text, without ids.
        pub(in crate::session) fn text(&self) -> String {
            let text = String::from_utf8(self.bytes.lock().clone()).unwrap();
            let lines = text.lines().filter(|line| !line.starts_with("id: "));
            lines.collect::<Vec<_>>().join("|")
        }
    }

    impl EventSink for Sink {
        fn send(&self, event: EncodedEvent) -> bool {
            if self.is_open() {
                self.bytes.lock().extend_from_slice(event.to_text().as_bytes());
            }
            self.is_open()
        }
        fn close(&self) {
            self.hang_up();
        }
        fn is_open(&self) -> bool {
            !self.gone.load(Ordering::Relaxed)
        }
    }

    pub(in crate::session) fn logs(events: usize, bytes: usize) -> EventLogs {
        EventLogs::new(Bounds { events, bytes })
    }

    fn answering(logs: &EventLogs) -> Resumable {
        answering_for("k", logs)
    }

    fn answering_for(key: &str, logs: &EventLogs) -> Resumable {
        let id = StreamId { origin: Origin::Post, number: 7 };
        Resumable::answering(id, &PrincipalId::Key(key.into()), logs)
    }

    fn push(stream: &Resumable, text: &str) -> Delivery {
        stream.push(&EncodedEvent::from(format!("{text}\n")), None)
    }

    #[test]
    fn a_call_writes_its_own_events_until_another_connection_has_the_stream() {
        let stream = answering(&logs(10, 1000));
        assert_eq!(push(&stream, "a"), Delivery::Own("id: p0000000000000007-1\n".to_owned()));
        assert!(matches!(push(&stream, "b"), Delivery::Own(_)) && stream.is_own());
        let sink = Arc::new(Sink::default());
        stream.attach(sink.clone(), b"", 1);
        assert!(!stream.is_own());
        assert_eq!(push(&stream, "c"), Delivery::Elsewhere);
        assert_eq!(sink.text(), "b|c");
        assert!(stream.complete() && !sink.is_open());
        let late = Arc::new(Sink::default());
        stream.attach(late.clone(), b"", 0);
        assert_eq!(late.text(), "a|b|c");
        assert!(!late.is_open(), "nothing more comes");
    }

    #[test]
    fn what_is_pushed_while_nobody_is_there_waits() {
        let stream = answering(&logs(10, 1000));
        push(&stream, "a");
        stream.lost();
        assert_eq!(push(&stream, "b"), Delivery::Elsewhere);
        let first = Arc::new(Sink::default());
        stream.attach(first.clone(), b"", 1);
        first.hang_up();
        push(&stream, "c");
        push(&stream, "d");
        let second = Arc::new(Sink::default());
        stream.attach(second.clone(), b"hello\n", 2);
        assert_eq!((first.text(), second.text()), ("b".to_owned(), "hello|c|d".to_owned()));
    }

    #[test]
    fn the_newer_connection_takes_over() {
        let stream = answering(&logs(10, 1000));
        let (first, second) = (Arc::new(Sink::default()), Arc::new(Sink::default()));
        stream.attach(first.clone(), b"", 0);
        push(&stream, "a");
        stream.attach(second.clone(), b"", 1);
        push(&stream, "b");
        assert_eq!((first.text(), second.text()), ("a".to_owned(), "b".to_owned()));
        assert!(!first.is_open() && second.is_open());
        stream.close();
        assert!(!second.is_open());
        let late = Arc::new(Sink::default());
        stream.attach(late.clone(), b"", 2);
        assert!(!late.is_open(), "the session has ended");
    }

    #[test]
    fn what_is_too_large_is_delivered_live_and_has_a_stand_in() {
        let stream = answering(&logs(10, 60));
        let sink = Arc::new(Sink::default());
        stream.attach(sink.clone(), b"", 0);
        let large = "x".repeat(61);
        stream.push(&format!("{large}\n").into(), Some(&|| "too large\n".to_owned()));
        assert!(stream.complete());
        let late = Arc::new(Sink::default());
        stream.attach(late.clone(), b"", 0);
        assert_eq!((sink.text(), late.text()), (large.clone(), "too large".to_owned()));
        let without = answering(&logs(10, 60));
        push(&without, &large);
        assert!(!without.complete(), "there is nothing to come back for");
    }

    #[test]
    fn what_is_told_to_many_streams_is_held_once() {
        let logs = logs(10, 1000);
        let event = EncodedEvent::of("{}");
        let held = [answering(&logs), answering(&logs)].map(|stream| {
            stream.push(&event, None);
            let kept = stream.state().log.after(0).next().cloned().unwrap();
            let mut pieces = Vec::new();
            kept.add_to(&mut pieces);
            (pieces.len(), pieces[1].as_ptr())
        });
        assert_eq!(held[0], held[1]);
        assert_eq!(held[0].0, 2, "the id and what all share");
    }

    #[test]
    fn what_all_logs_hold_is_counted_and_bounded() {
        let logs = logs(10, usize::MAX);
        let (one, two) = (answering(&logs), answering(&logs));
        push(&one, "a");
        let held = logs.held_bytes();
        push(&two, &"x".repeat(EVENT_LOGS_BYTES_MAX));
        assert!(!two.complete(), "no room");
        push(&two, "a");
        assert!(logs.held_bytes() <= 2 * held);
        drop(one);
        drop(two);
        assert_eq!(logs.held_bytes(), 0);
        assert!(!logs.is_any_log());
    }

    #[test]
    fn what_several_logs_hold_is_counted_once_for_one_who_holds_it() {
        let logs = logs(10, usize::MAX);
        let event = EncodedEvent::of(&"x".repeat(1000));
        let keys = ["a", "a", "b", "c"];
        let streams = keys.map(|key| answering_for(key, &logs));
        streams.iter().for_each(|stream| _ = stream.push(&event, None));
        let ids = |n: usize| n * "id: p0000000000000007-1\n".len();
        assert_eq!(logs.held_bytes(), event.len() + ids(4));
        let [first, second, third, fourth] = streams;
        drop((first, third));
        assert_eq!(logs.held_bytes(), event.len() + ids(2));
        drop(second);
        assert_eq!(logs.held_bytes(), event.len() + ids(1));
        drop(fourth);
        assert_eq!(logs.held_bytes(), 0);
        // The event can be sent again.
        let again = answering(&logs);
        again.push(&event, None);
        assert_eq!(logs.held_bytes(), event.len() + ids(1));
    }

    #[test]
    fn what_is_said_to_many_drives_nothing_out_of_a_log() {
        const LARGE: usize = EVENT_LOGS_BYTES_MAX / 4;
        let logs = logs(10, usize::MAX);
        let event = EncodedEvent::of(&"x".repeat(LARGE));
        let streams: Vec<Resumable> = (0..20).map(|_| answering(&logs)).collect();
        push(&streams[0], "the oldest");
        for stream in &streams {
            stream.push(&event, None);
        }
        let sink = Arc::new(Sink::default());
        streams[0].attach(sink.clone(), b"", 0);
        assert!(sink.text().starts_with("the oldest|"), "twenty times it would be too much");
    }

    /// A connection that takes every event and writes none.
    #[derive(Default)]
    struct Queue(Mutex<Vec<EncodedEvent>>);

    impl EventSink for Queue {
        fn send(&self, event: EncodedEvent) -> bool {
            self.0.lock().push(event);
            true
        }
        fn close(&self) {}
        fn is_open(&self) -> bool {
            true
        }
    }

    #[test]
    fn what_is_replayed_counts_until_it_is_written_though_the_log_drops_it() {
        let logs = logs(1, usize::MAX);
        let stream = answering(&logs);
        push(&stream, &"x".repeat(5000));
        let queue = Arc::new(Queue::default());
        stream.attach(queue.clone(), b"", 0);
        push(&stream, "y");
        assert!(logs.held_bytes() > 5000, "{}", logs.held_bytes());
        queue.0.lock().clear();
        assert!(logs.held_bytes() < 100, "{}", logs.held_bytes());
    }

    #[test]
    fn whoever_holds_most_makes_room() {
        const PIECE: usize = EVENT_LOGS_BYTES_MAX / 64;
        let logs = logs(1000, usize::MAX);
        let (first, second) = (answering_for("hog", &logs), answering_for("hog", &logs));
        let victim = answering_for("victim", &logs);
        push(&victim, "a result");
        for stream in [&first, &second].repeat(100) {
            push(stream, &"x".repeat(PIECE));
        }
        assert!(logs.held_bytes() <= EVENT_LOGS_BYTES_MAX);
        for _ in 0..16 {
            push(&victim, &"y".repeat(PIECE));
        }
        let third = answering_for("third", &logs);
        push(&third, "another");
        victim.complete();
        let (sink, other) = (Arc::new(Sink::default()), Arc::new(Sink::default()));
        victim.attach(sink.clone(), b"", 0);
        third.attach(other.clone(), b"", 0);
        assert_eq!(sink.text().split('|').count(), 17, "nothing of it is lost");
        assert!(sink.text().starts_with("a result|"));
        assert_eq!(other.text(), "another");
        push(&first, "the newest");
        assert!(first.complete(), "it is the hog's own oldest that go");
        drop((first, second, victim, third));
        assert_eq!(logs.held_bytes(), 0);
    }
}
