//! The queue of lines to a client: bounded, and written by one thread. A sender of an answer
//! waits for room; a message outside of requests does not wait and may find none.

use std::collections::VecDeque;
use std::sync::MutexGuard;
use std::time::Instant;

use crate::session::EncodedEvent;
use crate::sync::{Condvar, Mutex};

/// The queue. As with streams, one message of any size enters an empty queue, and the bound
/// counts the bytes behind it.
#[derive(Debug)]
pub struct LineQueue {
    waiting: Mutex<Waiting>,
    changed: Condvar,
    bytes_max: usize,
}

#[derive(Debug, Default)]
struct Waiting {
    events: VecDeque<EncodedEvent>,
    bytes: usize,
    /// True if the queue takes no more messages.
    is_closed: bool,
}

impl Waiting {
    fn has_room(&self, bytes: usize, bytes_max: usize) -> bool {
        self.events.is_empty() || self.bytes + bytes <= bytes_max
    }

    fn push(&mut self, event: EncodedEvent) {
        self.bytes += event.len();
        self.events.push_back(event);
    }
}

/// The result of reading the queue.
#[derive(Debug)]
pub enum Next {
    /// The oldest message.
    Event(EncodedEvent),
    /// No message came in time.
    Nothing,
    /// No message will come any more.
    End,
}

impl LineQueue {
    /// An empty queue.
    pub fn new(bytes_max: usize) -> LineQueue {
        LineQueue { waiting: Mutex::default(), changed: Condvar::new(), bytes_max }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock()
    }

    /// Queues a message and waits for room. False where the queue is closed.
    pub fn put(&self, event: EncodedEvent) -> bool {
        let mut waiting = self.lock();
        while !waiting.is_closed && !waiting.has_room(event.len(), self.bytes_max) {
            waiting = self.changed.wait(waiting);
        }
        self.push(waiting, event)
    }

    /// Queues a message if there is room.
    pub fn offer(&self, event: EncodedEvent) -> bool {
        let waiting = self.lock();
        if !waiting.has_room(event.len(), self.bytes_max) {
            log::warn!(target: "stdio", "a message was dropped: the client does not read, and \
                more than limits.stream_queue_bytes ({} bytes) would wait", self.bytes_max);
            return false;
        }
        self.push(waiting, event)
    }

    fn push(&self, mut waiting: MutexGuard<'_, Waiting>, event: EncodedEvent) -> bool {
        if waiting.is_closed {
            return false;
        }
        waiting.push(event);
        self.changed.notify_all();
        true
    }

    /// The next message to write; waits for it, to `until` at most where that is given.
    pub fn next(&self, until: Option<Instant>) -> Next {
        let mut waiting = self.lock();
        loop {
            if let Some(event) = waiting.events.pop_front() {
                waiting.bytes = waiting.bytes.saturating_sub(event.len());
                self.changed.notify_all();
                return Next::Event(event);
            }
            if waiting.is_closed {
                return Next::End;
            }
            let changed = match until {
                None => self.changed.wait(waiting),
                Some(until) => {
                    let left = until.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Next::Nothing;
                    }
                    self.changed.wait_timeout(waiting, left).0
                }
            };
            waiting = changed;
        }
    }

    /// Takes no more messages; waiting ones can still be read.
    pub fn close(&self) {
        self.lock().is_closed = true;
        self.changed.notify_all();
    }

    /// Takes no more messages, and drops the waiting ones: they cannot be delivered.
    pub fn break_off(&self) {
        let dropped = {
            let mut waiting = self.lock();
            waiting.is_closed = true;
            waiting.bytes = 0;
            std::mem::take(&mut waiting.events)
        };
        self.changed.notify_all();
        drop(dropped);
    }

    /// True if more messages can be queued.
    pub fn is_open(&self) -> bool {
        !self.lock().is_closed
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn text(next: Next) -> String {
        let Next::Event(event) = next else { panic!("{next:?}") };
        let mut pieces = Vec::new();
        event.add_lines_to(&mut pieces);
        String::from_utf8(pieces.concat()).unwrap()
    }

    #[test]
    fn answers_wait_for_room_and_what_nobody_asked_for_does_not() {
        let queue = Arc::new(LineQueue::new(100));
        assert!(queue.put(EncodedEvent::of(&format!("\"{}\"", "x".repeat(200)))));
        assert!(!queue.offer(EncodedEvent::of("1")), "there is no room");
        let (putting, told) = (queue.clone(), crossbeam_channel::bounded(1));
        let joined = crate::thread::spawn("test", move || {
            told.0.send(putting.put(EncodedEvent::of("2"))).unwrap();
        });
        assert!(told.1.try_recv().is_err());
        assert_eq!(text(queue.next(None)).len(), 203);
        assert_eq!(told.1.recv(), Ok(true));
        drop(joined);
        assert!(queue.offer(EncodedEvent::of("3")));
        queue.close();
        assert!(!queue.put(EncodedEvent::of("4")));
        assert_eq!([text(queue.next(None)), text(queue.next(None))], ["2\n", "3\n"]);
        assert!(matches!(queue.next(None), Next::End));
    }

    #[test]
    fn whoever_waits_for_room_goes_when_it_is_broken_off() {
        let queue = LineQueue::new(0);
        assert!(queue.put(EncodedEvent::of("1")));
        assert!(matches!(queue.next(Some(Instant::now())), Next::Event(_)));
        assert!(matches!(queue.next(Some(Instant::now())), Next::Nothing));
        queue.break_off();
        assert!(!queue.put(EncodedEvent::of("2")) && !queue.is_open());
    }
}
