//! Event streams: cut anywhere, read as the HTML standard reads them, and written so that they
//! read back.

use std::time::Duration;

use super::pieces;
use crate::protocol::raw::on_one_line;
use crate::protocol::sse::{DecodeError, Decoder, Event, event, id_line, priming};

const EVENT_BYTES_MAX: usize = 256;

fn decoded(pieces: &[&[u8]]) -> (Vec<Event>, Option<DecodeError>) {
    let mut decoder = Decoder::new(EVENT_BYTES_MAX);
    let mut events = Vec::new();
    for piece in pieces {
        if let Err(error) = decoder.feed(piece, |event| events.push(event)) {
            return (events, Some(error));
        }
        assert!(decoder.held_bytes() <= EVENT_BYTES_MAX);
    }
    (events, None)
}

/// The events of a whole text, read line by line after the standard (9.2.6), with those that
/// carry an id or a time alone.
fn reference(text: &str) -> Vec<Event> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let mut lines: Vec<&str> = text.split('\n').collect();
    // What stands behind the last line end is not complete.
    lines.pop();
    let mut events = Vec::new();
    let (mut now, mut data) = (Event::default(), Vec::new());
    for line in lines {
        if line.is_empty() {
            if !data.is_empty() || now.id.is_some() || now.retry_ms.is_some() {
                now.data = data.join("\n");
                events.push(now);
            }
            (now, data) = (Event::default(), Vec::new());
            continue;
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "data" => data.push(value),
            "event" => value.clone_into(&mut now.name),
            "id" if !value.contains('\0') => now.id = Some(value.to_owned()),
            "retry" if !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) => {
                // A time beyond any number is none.
                now.retry_ms = value.parse().ok().or(now.retry_ms);
            }
            _ => (),
        }
    }
    events
}

pub(super) fn sse(data: &[u8]) {
    let rest = data.get(1..).unwrap_or_default();
    let whole = decoded(&[rest]);
    assert_eq!(decoded(&pieces(data)), whole, "cut into pieces");
    let Ok(text) = std::str::from_utf8(rest) else { return };
    assert_ne!(whole.1, Some(DecodeError::NotUtf8));
    let expected = reference(text);
    assert_eq!(whole.0, expected[..whole.0.len()], "as the standard reads it");
    if whole.1.is_none() {
        assert_eq!(whole.0.len(), expected.len());
    }
    let line = on_one_line(text);
    let id: String = line.chars().filter(|c| *c != '\0').take(20).collect();
    let wire = priming(&id, Duration::from_secs(1)) + &id_line(&id) + &event("x", &line);
    let mut events = Vec::new();
    let mut decoder = Decoder::new(usize::MAX / 2);
    decoder.feed(wire.as_bytes(), |event| events.push(event)).unwrap();
    assert_eq!(events.len(), 2, "{wire:?}");
    assert_eq!((events[1].name.as_str(), events[1].data.as_str()), ("x", line.as_ref()));
}
