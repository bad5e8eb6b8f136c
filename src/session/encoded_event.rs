//! An encoded event in queues and logs: its text is held once, however many hold it, and counts
//! against the budget, or with the logs' bytes, for as long as one of them does.

use std::borrow::Cow;
use std::sync::{Arc, Weak};

use super::event_logs::{Counted, Place};
use crate::limits::RESULT_BYTES_COUNTED_FROM;
use crate::protocol::raw::{Raw, on_one_line};
use crate::protocol::sse;
use crate::sync::Mutex;

/// An encoded event. Cheap to clone: all clones share its text.
#[derive(Debug, Clone)]
pub struct EncodedEvent {
    /// The line with the event's id in one stream; none for an event without an id.
    id: Option<Arc<str>>,
    said: Said,
    bytes: usize,
    /// The place that counts it among the logs' bytes; none for an event that no log has had.
    _place: Option<Arc<Place>>,
}

/// A text, and its count among the logs' bytes.
#[derive(Debug)]
struct Text {
    bytes: Arc<[u8]>,
    counted: Mutex<Weak<Counted>>,
}

#[derive(Debug, Clone)]
enum Said {
    Text(Arc<Text>),
    Large(Arc<Large>),
    /// Events that follow each other.
    Several(Arc<[EncodedEvent]>),
}

/// A message around a large value, which is held without a copy.
#[derive(Debug)]
struct Large {
    before: String,
    value: Raw,
    after: String,
}

impl EncodedEvent {
    /// An event whose data is a message: a value, and the text before and behind it. A large
    /// value is not copied: it is counted where it came from.
    pub fn message(before: &str, value: &Raw, after: &str) -> EncodedEvent {
        let line = on_one_line(value.get());
        let (before, after) = (
            sse::before_data("") + &on_one_line(before),
            on_one_line(after).into_owned() + sse::AFTER_DATA,
        );
        let bytes = before.len() + line.len() + after.len();
        let said = if line.len() <= RESULT_BYTES_COUNTED_FROM {
            let mut text = Vec::with_capacity(bytes);
            text.extend_from_slice(before.as_bytes());
            text.extend_from_slice(line.as_bytes());
            text.extend_from_slice(after.as_bytes());
            Said::text(text.into())
        } else {
            let value = match line {
                Cow::Borrowed(_) => value.clone(),
                Cow::Owned(line) => value.rewritten(line),
            };
            Said::Large(Arc::new(Large { before, value, after }))
        };
        EncodedEvent { id: None, said, bytes, _place: None }
    }

    /// An event whose data is one message.
    pub fn of(message: &str) -> EncodedEvent {
        EncodedEvent::from(sse::event("", message))
    }

    /// Events that follow each other, as one.
    pub fn several(events: Vec<EncodedEvent>) -> EncodedEvent {
        let bytes = events.iter().map(EncodedEvent::len).sum();
        EncodedEvent { id: None, said: Said::Several(events.into()), bytes, _place: None }
    }

    /// The event with its id in one stream, as [`sse::id_line`] writes it.
    pub(super) fn with_id(&self, line: &str) -> EncodedEvent {
        let bytes = self.bytes + line.len();
        EncodedEvent { id: Some(line.into()), said: self.said.clone(), bytes, _place: None }
    }

    /// The event for a log, which has a bound of its own: the event counts there, and no more
    /// against the budget.
    pub(super) fn for_log(&self) -> EncodedEvent {
        let said = match &self.said {
            Said::Large(large) => Said::Large(Arc::new(Large {
                before: large.before.clone(),
                value: large.value.without_keeper(),
                after: large.after.clone(),
            })),
            Said::Text(_) | Said::Several(_) => self.said.clone(),
        };
        EncodedEvent { said, ..self.clone() }
    }

    /// Bytes of the text without the id; others may hold the same text.
    pub(super) fn said_bytes(&self) -> usize {
        self.bytes - self.id.as_ref().map_or(0, |line| line.len())
    }

    /// The count among the logs' bytes: that of the others that hold the same text, or `new`.
    pub(super) fn counted(&self, new: impl FnOnce() -> Arc<Counted>) -> Arc<Counted> {
        let Said::Text(text) = &self.said else { return new() };
        let mut counted = text.counted.lock();
        counted.upgrade().unwrap_or_else(|| {
            let new = new();
            *counted = Arc::downgrade(&new);
            new
        })
    }

    /// True if a log holds the text.
    pub(super) fn is_counted(&self) -> bool {
        let Said::Text(text) = &self.said else { return false };
        let counted = text.counted.lock();
        counted.strong_count() > 0
    }

    /// The event with the place that counts it in a log.
    pub(super) fn in_place(self, place: Place) -> EncodedEvent {
        EncodedEvent { _place: Some(Arc::new(place)), ..self }
    }

    /// Bytes that are written of the event.
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// True if no bytes are written of the event.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Adds the pieces to be written, in order.
    pub fn add_to<'a>(&'a self, pieces: &mut Vec<&'a [u8]>) {
        let mut add = |text: &'a [u8]| {
            if !text.is_empty() {
                pieces.push(text);
            }
        };
        add(self.id.as_deref().unwrap_or_default().as_bytes());
        match &self.said {
            Said::Text(text) => add(&text.bytes),
            Said::Large(large) => {
                let Large { before, value, after } = &**large;
                [before, value.get(), after].into_iter().for_each(|text| add(text.as_bytes()));
            }
            Said::Several(events) => events.iter().for_each(|event| event.add_to(pieces)),
        }
    }

    /// Adds the event's messages, a line each, for a transport of lines.
    pub fn add_lines_to<'a>(&'a self, pieces: &mut Vec<&'a [u8]>) {
        match &self.said {
            Said::Text(text) => pieces.push(sse::data_of(&text.bytes)),
            Said::Large(large) => {
                let Large { before, value, after } = &**large;
                let after = after.strip_suffix(sse::AFTER_DATA).unwrap_or(after);
                pieces.push(sse::data_of(before.as_bytes()));
                pieces.extend([value.get(), after].map(str::as_bytes));
            }
            Said::Several(events) => {
                return events.iter().for_each(|event| event.add_lines_to(pieces));
            }
        }
        pieces.push(b"\n");
    }

    /// The whole event as one text.
    #[cfg(test)]
    pub(crate) fn to_text(&self) -> String {
        let mut pieces = Vec::new();
        self.add_to(&mut pieces);
        String::from_utf8(pieces.concat()).unwrap()
    }
}

impl Said {
    fn text(bytes: Arc<[u8]>) -> Said {
        Said::Text(Arc::new(Text { bytes, counted: Mutex::default() }))
    }
}

impl From<Arc<[u8]>> for EncodedEvent {
    fn from(text: Arc<[u8]>) -> EncodedEvent {
        EncodedEvent { id: None, bytes: text.len(), said: Said::text(text), _place: None }
    }
}

impl From<&[u8]> for EncodedEvent {
    fn from(text: &[u8]) -> EncodedEvent {
        EncodedEvent::from(Arc::<[u8]>::from(text))
    }
}

impl From<String> for EncodedEvent {
    fn from(text: String) -> EncodedEvent {
        EncodedEvent::from(Arc::<[u8]>::from(text.into_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::raw::Keeper;

    fn counted(bytes: usize) -> (Raw, std::sync::Weak<()>) {
        let mut value = Raw::from_valid(format!("\"{}\"", "x".repeat(bytes)));
        let share = Arc::new(());
        let counted = Arc::downgrade(&share);
        let keeper: Keeper = share;
        value.keep(&Some(keeper));
        (value, counted)
    }

    #[test]
    fn an_event_is_on_lines_of_its_own_however_it_is_held() {
        for bytes in [0, 3, RESULT_BYTES_COUNTED_FROM, RESULT_BYTES_COUNTED_FROM + 1] {
            let (value, _) = counted(bytes);
            let event = EncodedEvent::message("{\"id\":\n1,\"result\":", &value, "}");
            let text =
                format!("event: message\ndata: {{\"id\": 1,\"result\":{}}}\n\n", value.get());
            let with_id = event.with_id("id: 7\n");
            let several = EncodedEvent::several(vec![event.clone(), with_id.clone()]);
            let mut lines = Vec::new();
            several.add_lines_to(&mut lines);
            let line = format!("{{\"id\": 1,\"result\":{}}}\n", value.get());
            assert_eq!(lines.concat(), line.repeat(2).as_bytes());
            for (event, expected) in [
                (event.for_log(), text.clone()),
                (with_id, format!("id: 7\n{text}")),
                (several, format!("{text}id: 7\n{text}")),
                (event, text.clone()),
            ] {
                assert_eq!(event.to_text(), expected);
                assert_eq!((event.len(), event.is_empty()), (expected.len(), false));
            }
        }
        let lines = Raw::from_valid("[1,\r\n2]".to_owned());
        let event = EncodedEvent::message("", &lines, "");
        assert_eq!(event.to_text().lines().count(), 3, "{}", event.to_text());
    }

    #[test]
    fn what_is_large_is_counted_until_nobody_waits_for_it() {
        let (value, share) = counted(RESULT_BYTES_COUNTED_FROM);
        let event = EncodedEvent::message("", &value, "");
        let queued = event.with_id("id: 1\n");
        let logged = event.for_log();
        drop((value, event));
        assert!(share.upgrade().is_some(), "it is queued");
        drop(queued);
        assert!(share.upgrade().is_none(), "the log counts for itself");
        assert!(logged.len() > RESULT_BYTES_COUNTED_FROM);
        // A small value is copied out of the large text that it came in.
        let (value, share) = counted(10);
        let event = EncodedEvent::message("", &value, "");
        drop(value);
        assert!(share.upgrade().is_none() && event.len() > 10);
    }
}
