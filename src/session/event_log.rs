//! Pure: the last events of one stream, for `Last-Event-ID` (2025-11-25, basic/transports,
//! Resumability and Redelivery).

use std::collections::VecDeque;
use std::fmt;

use super::EncodedEvent;

/// The request that began a stream: it decides what a client gets whose stream is forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A POST; the stream ends with its response.
    Post,
    /// A GET: the stream has messages that belong to no request, for as long as the session
    /// lives.
    Get,
}

/// The name of a stream: its origin and a random number, so that neither another session nor the
/// same session in another process has the same name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamId {
    /// The request that began the stream.
    pub origin: Origin,
    /// A random number.
    pub number: u64,
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let origin = match self.origin {
            Origin::Post => 'p',
            Origin::Get => 'g',
        };
        write!(f, "{origin}{:016x}", self.number)
    }
}

/// An event's id on the wire: `{stream}-{sequence}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventId {
    /// The event's stream.
    pub stream: StreamId,
    /// The event's number in that stream.
    pub sequence: u64,
}

impl EventId {
    /// Reads an id of this gateway's making.
    pub fn parse(text: &str) -> Option<EventId> {
        let (stream, sequence) = text.split_once('-')?;
        let (origin, number) = match stream.split_at_checked(1)? {
            ("p", number) => (Origin::Post, number),
            ("g", number) => (Origin::Get, number),
            _ => return None,
        };
        let number = u64::from_str_radix(number, 16).ok()?;
        let sequence = sequence.parse().ok()?;
        let id = EventId { stream: StreamId { origin, number }, sequence };
        // Only the spelling of `Display` is accepted.
        (id.to_string() == text).then_some(id)
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.stream, self.sequence)
    }
}

/// The bounds of one log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Events.
    pub events: usize,
    /// Bytes of all events.
    pub bytes: usize,
}

/// The last events of one stream. Every event has a number, even if it is not kept; the first
/// event's is 1, and 0 stands for the beginning.
#[derive(Debug)]
pub(super) struct EventLog {
    bounds: Bounds,
    next: u64,
    bytes: usize,
    /// The kept events, the oldest first.
    events: VecDeque<(u64, EncodedEvent)>,
}

impl EventLog {
    /// The number before the first event's.
    pub(super) const BEGINNING: u64 = 0;

    pub(super) fn new(bounds: Bounds) -> EventLog {
        EventLog { bounds, next: EventLog::BEGINNING + 1, bytes: 0, events: VecDeque::new() }
    }

    /// The number that the next event will have.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// True if an event of so many bytes can be kept at all.
    pub(super) fn fits(&self, bytes: usize) -> bool {
        self.bounds.events > 0 && bytes <= self.bounds.bytes
    }

    /// Numbers an event and keeps it, if it fits; the oldest events are dropped for it.
    pub(super) fn push(&mut self, event: EncodedEvent) -> u64 {
        let number = self.skip();
        if !self.fits(event.len()) {
            return number;
        }
        while self.events.len() >= self.bounds.events
            || self.bytes + event.len() > self.bounds.bytes
        {
            if !self.drop_oldest() {
                break;
            }
        }
        self.bytes += event.len();
        self.events.push_back((number, event));
        number
    }

    /// Drops the oldest event. False if the log is empty.
    pub(super) fn drop_oldest(&mut self) -> bool {
        let Some((_, oldest)) = self.events.pop_front() else { return false };
        self.bytes -= oldest.len();
        true
    }

    /// Numbers an event that is not kept.
    pub(super) fn skip(&mut self) -> u64 {
        let number = self.next;
        self.next += 1;
        number
    }

    /// The kept events after that number, in order.
    pub(super) fn after(&self, number: u64) -> impl Iterator<Item = &EncodedEvent> {
        self.events.iter().filter(move |(kept, _)| *kept > number).map(|(_, event)| event)
    }

    /// The number of events after that number that are not kept.
    pub(super) fn lost_after(&self, number: u64) -> u64 {
        let sent = self.next.saturating_sub(1).saturating_sub(number);
        let kept = u64::try_from(self.after(number).count()).unwrap_or(u64::MAX);
        sent.saturating_sub(kept)
    }

    /// True if the last event of all is kept.
    pub(super) fn keeps_last(&self) -> bool {
        self.events.back().is_some_and(|(number, _)| number + 1 == self.next)
    }

    /// Bytes of the kept events.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(text: &str) -> EncodedEvent {
        EncodedEvent::from(text.as_bytes())
    }

    fn kept(log: &EventLog, after: u64) -> Vec<String> {
        log.after(after).map(EncodedEvent::to_text).collect()
    }

    fn log(events: usize, bytes: usize) -> EventLog {
        EventLog::new(Bounds { events, bytes })
    }

    #[test]
    fn what_came_after_an_event_is_given_in_order_wherever_it_is_cut() {
        let mut log = log(10, 100);
        let all = ["a", "b", "c", "d", "e"];
        let numbers: Vec<u64> = all.iter().map(|text| log.push(event(text))).collect();
        assert_eq!(numbers, [1, 2, 3, 4, 5]);
        assert_eq!(kept(&log, EventLog::BEGINNING), all);
        for (cut, number) in numbers.iter().enumerate() {
            assert_eq!(kept(&log, *number), all[cut + 1..], "after {number}");
            assert_eq!(log.lost_after(*number), 0, "after {number}");
        }
        assert!(kept(&log, 99).is_empty());
        assert_eq!(log.lost_after(99), 0);
    }

    #[test]
    fn the_bound_on_events_holds_at_below_and_above() {
        for (pushed, expected, lost) in
            [(2, vec!["1", "2"], 0), (3, vec!["1", "2", "3"], 0), (5, vec!["3", "4", "5"], 2)]
        {
            let mut log = log(3, 100);
            (1..=pushed).for_each(|n: u64| _ = log.push(event(&n.to_string())));
            assert_eq!(kept(&log, 0), expected);
            assert_eq!(log.lost_after(0), lost);
            assert_eq!(log.lost_after(pushed), 0);
            assert_eq!(log.bytes(), expected.len());
        }
    }

    #[test]
    fn the_bound_on_bytes_holds_at_below_and_above() {
        for (last, expected) in
            [("7890", vec!["123", "456", "7890"]), ("78901", vec!["456", "78901"])]
        {
            let mut log = log(9, 10);
            log.push(event("123"));
            log.push(event("456"));
            log.push(event(last));
            assert_eq!(kept(&log, 0), expected);
            assert_eq!(log.bytes(), expected.concat().len());
        }
    }

    #[test]
    fn an_event_larger_than_the_log_is_numbered_and_not_kept() {
        let mut log = log(9, 4);
        log.push(event("1234"));
        assert_eq!(kept(&log, 0), ["1234"]);
        assert!(log.keeps_last());
        assert!(!log.fits(5));
        assert_eq!(log.push(event("12345")), 2);
        assert!(!log.keeps_last());
        assert_eq!(kept(&log, 0), ["1234"], "nothing goes for an event that does not fit");
        assert_eq!((log.lost_after(0), log.lost_after(1), log.lost_after(2)), (1, 1, 0));
        assert_eq!(log.push(event("x")), 3);
        assert_eq!(kept(&log, 1), ["x"]);
        assert!(log.keeps_last());
    }

    #[test]
    fn a_log_of_nothing_keeps_nothing() {
        for mut log in [log(0, 100), log(100, 0)] {
            assert_eq!(log.push(event("a")), 1);
            assert!(kept(&log, 0).is_empty() && !log.keeps_last());
        }
    }

    #[test]
    fn ids_read_back_and_nothing_else_does() {
        for origin in [Origin::Post, Origin::Get] {
            for (number, sequence) in [(0, 0), (0xfeed, 1), (u64::MAX, u64::MAX)] {
                let id = EventId { stream: StreamId { origin, number }, sequence };
                let text = id.to_string();
                assert_eq!(EventId::parse(&text), Some(id));
                for cut in 0..text.len() {
                    let part = EventId::parse(&text[..cut]);
                    let cut_in_sequence = text[..cut].contains('-');
                    assert!(part.is_none() || cut_in_sequence, "{}", &text[..cut]);
                    assert_ne!(part, Some(id));
                }
            }
        }
        for bad in [
            "",
            "-",
            "p-1",
            "é0000000000000001-1",
            "p1-1",
            "x0000000000000001-1",
            "p0000000000000001-+1",
            "p0000000000000001-01",
            "p000000000000000G-1",
            "p+000000000000001-1",
            "p0000000000000001-1-1",
            "p0000000000000001-99999999999999999999",
            "P0000000000000001-1",
            "p00000000000000AB-1",
        ] {
            assert_eq!(EventId::parse(bad), None, "{bad:?}");
        }
    }
}
