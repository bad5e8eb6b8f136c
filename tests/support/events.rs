//! Server-sent events as a client reads them, each with a deadline.

use std::io;
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::DEADLINE;
use super::http::{Body, Head, Wire, is_timeout};

/// One event of a stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Event {
    pub name: String,
    pub id: Option<String>,
    pub retry: Option<String>,
    pub data: String,
}

impl Event {
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.data).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// Puts events together from bytes.
#[derive(Debug, Default)]
pub struct Events {
    rest: Vec<u8>,
    event: Event,
    has_data: bool,
    ready: Vec<Event>,
    n_comments: usize,
}

impl Events {
    /// The events of a stream that has ended.
    pub fn all_of(bytes: &[u8]) -> Vec<Event> {
        let mut events = Events::default();
        events.feed(bytes);
        events.ready
    }

    fn feed(&mut self, bytes: &[u8]) {
        let looked = self.rest.len();
        self.rest.extend_from_slice(bytes);
        if !self.rest[looked..].contains(&b'\n') {
            return;
        }
        let rest = std::mem::take(&mut self.rest);
        let mut start = 0;
        for (at, _) in rest.iter().enumerate().filter(|(_, byte)| **byte == b'\n') {
            let line = String::from_utf8_lossy(&rest[start..at]);
            self.line(line.trim_end_matches('\r'));
            start = at + 1;
        }
        self.rest = rest[start..].to_owned();
    }

    fn line(&mut self, line: &str) {
        if line.is_empty() {
            let event = std::mem::take(&mut self.event);
            if std::mem::take(&mut self.has_data) {
                self.ready.push(event);
            }
            return;
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "" => self.n_comments += 1,
            "event" => value.clone_into(&mut self.event.name),
            "id" => self.event.id = Some(value.to_owned()),
            "retry" => self.event.retry = Some(value.to_owned()),
            "data" => {
                if self.has_data {
                    self.event.data.push('\n');
                }
                self.event.data.push_str(value);
                self.has_data = true;
            }
            _ => (),
        }
    }
}

/// An open event stream. Dropping it hangs up.
#[derive(Debug)]
pub struct EventStream {
    wire: Wire,
    body: Body,
    pub head: Head,
    events: Events,
}

impl EventStream {
    pub fn new(wire: Wire, body: Body, head: Head) -> EventStream {
        EventStream { wire, body, head, events: Events::default() }
    }

    /// Checks that this is an event stream at all.
    #[track_caller]
    pub fn expect_open(self) -> EventStream {
        assert_eq!(self.head.status(), 200, "{:?}", self.head);
        assert!(self.is_event_stream(), "{:?}", self.head);
        self
    }

    /// Whether the answer is an event stream at all.
    pub fn is_event_stream(&self) -> bool {
        let kind = self.head.header("Content-Type").unwrap_or_default();
        kind.starts_with("text/event-stream")
    }

    /// The bytes that are left, for an answer that is no event stream.
    #[track_caller]
    pub fn rest(&mut self) -> Vec<u8> {
        self.wire.whole(self.body, Instant::now() + DEADLINE).unwrap()
    }

    /// The socket, with which another thread can end the stream.
    pub fn socket(&self) -> TcpStream {
        self.wire.stream.try_clone().unwrap()
    }

    /// The next event, nothing at the stream's end, an error at the deadline.
    pub fn try_next(&mut self, within: Duration) -> io::Result<Option<Event>> {
        let deadline = Instant::now() + within;
        loop {
            if !self.events.ready.is_empty() {
                return Ok(Some(self.events.ready.remove(0)));
            }
            let Some(piece) = self.wire.piece(&mut self.body, deadline)? else {
                return Ok(None);
            };
            self.events.feed(&piece);
        }
    }

    /// True if the stream stays open and no event comes for so long. For absences only.
    pub fn is_silent_for(&mut self, time: Duration) -> bool {
        matches!(self.try_next(time), Err(error) if is_timeout(&error))
    }

    /// Comment lines seen so far.
    pub fn n_comments(&self) -> usize {
        self.events.n_comments
    }

    /// The next event, which must come.
    #[track_caller]
    pub fn next(&mut self) -> Event {
        match self.try_next(DEADLINE) {
            Ok(Some(event)) => event,
            other => panic!("no event came: {other:?}"),
        }
    }

    /// The next event that carries a message. An event with empty data only primes a reconnect.
    #[track_caller]
    pub fn next_message(&mut self) -> Value {
        loop {
            let event = self.next();
            if !event.data.is_empty() {
                return event.json();
            }
        }
    }

    /// The next message that satisfies `wanted`; the others are thrown away.
    #[track_caller]
    pub fn next_message_where(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        loop {
            let message = self.next_message();
            if wanted(&message) {
                return message;
            }
        }
    }

    /// Waits for the proper end of the stream: the last chunk, or the peer's close.
    #[track_caller]
    pub fn expect_end(&mut self) {
        loop {
            match self.try_next(DEADLINE) {
                Ok(Some(event)) if event.data.is_empty() => (),
                Ok(None) => return,
                other => panic!("the stream did not end: {other:?}"),
            }
        }
    }

    /// Leaves without a word.
    pub fn hang_up(self) {
        drop(self.wire.stream.shutdown(Shutdown::Both));
    }
}
