//! Server-sent events: a bounded decoder that takes pieces, and an encoder.
//!
//! The format is the HTML standard's (section 9.2, Server-sent events).

use std::borrow::Cow;
use std::time::Duration;

use super::raw::on_one_line;

/// One event as it was dispatched.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Event {
    /// The `event` field; empty means `message`.
    pub name: String,
    /// The `data` lines, joined by line ends.
    pub data: String,
    /// The `id` field of this event, if it had one.
    pub id: Option<String>,
    /// The `retry` field of this event in milliseconds, if it had one.
    pub retry_ms: Option<u64>,
}

/// The reason why a stream cannot be read on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DecodeError {
    /// An event, or a line of one, is larger than the bound given.
    TooLarge,
    /// The data is not UTF-8.
    NotUtf8,
}

/// Takes a stream in pieces of any size and gives its events.
#[derive(Debug)]
pub struct Decoder {
    event_bytes_max: usize,
    line: Vec<u8>,
    after_cr: bool,
    at_start: bool,
    event: Event,
    has_data: bool,
    has_any: bool,
}

impl Decoder {
    /// A decoder that refuses events of more than `event_bytes_max` bytes.
    pub fn new(event_bytes_max: usize) -> Decoder {
        Decoder {
            event_bytes_max,
            line: Vec::new(),
            after_cr: false,
            at_start: true,
            event: Event::default(),
            has_data: false,
            has_any: false,
        }
    }

    /// Takes the next piece and hands every event that it completes to `give`. Events without
    /// data are given too where they carry an `id` or a `retry`, which have a use of their own.
    ///
    /// # Errors
    /// The stream cannot be read on; the events that were complete before have been given.
    pub fn feed(
        &mut self,
        mut piece: &[u8],
        mut give: impl FnMut(Event),
    ) -> Result<(), DecodeError> {
        while !piece.is_empty() {
            if self.after_cr {
                self.after_cr = false;
                if let Some(rest) = piece.strip_prefix(b"\n") {
                    piece = rest;
                    continue;
                }
            }
            let end = piece.iter().position(|b| matches!(b, b'\n' | b'\r'));
            let (part, rest) = piece.split_at(end.unwrap_or(piece.len()));
            if self.line.len() + part.len() + self.event.data.len() > self.event_bytes_max {
                return Err(DecodeError::TooLarge);
            }
            self.line.extend_from_slice(part);
            let Some((terminator, after)) = rest.split_first() else { return Ok(()) };
            self.after_cr = *terminator == b'\r';
            piece = after;
            self.take_line(&mut give)?;
        }
        Ok(())
    }

    /// Bytes that are held of the event that is not complete yet.
    pub fn held_bytes(&self) -> usize {
        self.line.len() + self.event.data.len()
    }

    fn take_line(&mut self, give: &mut impl FnMut(Event)) -> Result<(), DecodeError> {
        let line = std::mem::take(&mut self.line);
        let line = String::from_utf8(line).map_err(|_| DecodeError::NotUtf8)?;
        let line = if std::mem::take(&mut self.at_start) && line.starts_with('\u{feff}') {
            line.strip_prefix('\u{feff}').unwrap_or_default().to_owned()
        } else {
            line
        };
        if line.is_empty() {
            let event = std::mem::take(&mut self.event);
            let (had_data, had_any) = (self.has_data, self.has_any);
            (self.has_data, self.has_any) = (false, false);
            if had_data || had_any {
                give(event);
            }
            return Ok(());
        }
        let (field, start) = match line.find(':') {
            Some(0) => return Ok(()),
            Some(at) => {
                let skip = usize::from(line.get(at + 1..).is_some_and(|v| v.starts_with(' ')));
                (line.get(..at).unwrap_or_default(), at + 1 + skip)
            }
            None => (line.as_str(), line.len()),
        };
        let value = line.get(start..).unwrap_or_default();
        match field {
            "data" if !self.has_data => {
                self.has_data = true;
                // The line's own memory becomes the data: a large event is not copied.
                let mut line = line;
                line.drain(..start);
                self.event.data = line;
            }
            "data" => {
                self.event.data.push('\n');
                self.event.data.push_str(value);
            }
            "event" => value.clone_into(&mut self.event.name),
            "id" if !value.contains('\0') => {
                self.event.id = Some(value.to_owned());
                self.has_any = true;
            }
            "retry" if value.bytes().all(|b| b.is_ascii_digit()) => {
                // An empty value, or a time beyond any number, counts as absent.
                if let Ok(ms) = value.parse() {
                    self.event.retry_ms = Some(ms);
                    self.has_any = true;
                }
            }
            _ => (),
        }
        Ok(())
    }
}

/// A comment line that keeps a silent stream alive.
pub const HEARTBEAT: &[u8] = b":\n\n";

/// The text before the data of an event; an empty `name` means `message`, which is written out
/// because some clients demand it.
pub fn before_data(name: &str) -> String {
    let name = if name.is_empty() { "message" } else { name };
    format!("event: {name}\ndata: ")
}

/// The line that gives an event its id.
pub fn id_line(id: &str) -> String {
    format!("id: {id}\n")
}

/// An event that carries no message: an id to resume from, and the time to wait before that.
pub fn priming(id: &str, retry: Duration) -> String {
    format!("id: {id}\nretry: {}\ndata: \n\n", retry.as_millis())
}

/// The text behind the data of an event.
pub const AFTER_DATA: &str = "\n\n";

/// The data of an event that [`message`] has written, or of the beginning of one.
pub fn data_of(event: &[u8]) -> &[u8] {
    let before = before_data("");
    let data = event.strip_prefix(before.as_bytes()).unwrap_or(event);
    data.strip_suffix(AFTER_DATA.as_bytes()).unwrap_or(data)
}

/// An event whose data is a JSON text, or a text without line ends. The data stands on one line,
/// with blanks for line ends between values: a line end would end the data, and the rest would be
/// read as fields of the sender's choice.
pub fn event(name: &str, data: &str) -> String {
    message(name, ["", data, ""]).concat()
}

/// As [`event`], of a JSON text in three pieces, each on one line: the pieces to write one after
/// the other.
pub fn message<'a>(name: &str, [before, data, after]: [&'a str; 3]) -> [Cow<'a, str>; 5] {
    let [before, data, after] = [before, data, after].map(on_one_line);
    [before_data(name).into(), before, data, after, AFTER_DATA.into()]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds `wire` split at every place, and expects the same events each time.
    #[track_caller]
    fn check(wire: &str, expected: &[(&str, &str)]) {
        for split in 0..=wire.len() {
            let (head, tail) = wire.as_bytes().split_at(split);
            let mut got = Vec::new();
            let mut decoder = Decoder::new(1000);
            decoder.feed(head, |event| got.push(event)).unwrap();
            decoder.feed(tail, |event| got.push(event)).unwrap();
            let got: Vec<_> = got.iter().map(|e| (e.name.as_str(), e.data.as_str())).collect();
            assert_eq!(got, expected, "split at byte {split}");
        }
    }

    #[test]
    fn data_lines_are_joined() {
        check("data: a\r\ndata: b\r\n\r\n", &[("", "a\nb")]);
        check("data: a\rdata:b\r\r", &[("", "a\nb")]);
        check("data\n\n", &[("", "")]);
    }

    #[test]
    fn unfinished_event_is_held() {
        check("data: half", &[]);
        check("data: half\n", &[]);
    }

    #[test]
    fn comments_and_unknown_fields_are_passed_over() {
        check(": ping\n\nfoo: x\nevent: endpoint\ndata: é\n\n", &[("endpoint", "é")]);
    }

    #[test]
    fn an_id_without_data_is_given() {
        let mut got = Vec::new();
        let mut decoder = Decoder::new(100);
        decoder.feed(b"id: 7\nretry: 100\ndata:\n\n", |event| got.push(event)).unwrap();
        assert_eq!(got[0].id.as_deref(), Some("7"));
        assert_eq!(got[0].retry_ms, Some(100));
    }

    #[test]
    fn a_time_beyond_any_number_is_none() {
        check("retry: 99999999999999999999\n\nretry:\n\ndata: a\n\n", &[("", "a")]);
        let mut got = Vec::new();
        let mut decoder = Decoder::new(100);
        let wire = b"retry: 7\nretry: 99999999999999999999\n\n";
        decoder.feed(wire, |event| got.push(event)).unwrap();
        assert_eq!(got[0].retry_ms, Some(7));
    }

    #[test]
    fn one_byte_order_mark_is_passed_over_and_no_more() {
        check("\u{feff}data: a\n\n", &[("", "a")]);
        check("\u{feff}\u{feff}data: a\n\n", &[]);
    }

    #[test]
    fn ids_and_priming_events_read_back() {
        let mut got = Vec::new();
        let mut decoder = Decoder::new(100);
        let wire = priming("a-0", Duration::from_secs(1)) + &id_line("a-1") + &event("", "1");
        decoder.feed(wire.as_bytes(), |event| got.push(event)).unwrap();
        assert_eq!((got[0].id.as_deref(), got[0].retry_ms), (Some("a-0"), Some(1000)));
        assert_eq!((got[1].id.as_deref(), got[1].data.as_str()), (Some("a-1"), "1"));
        assert_eq!((got[0].data.as_str(), got.len()), ("", 2));
    }

    #[test]
    fn an_event_over_the_bound_is_refused() {
        let mut decoder = Decoder::new(10);
        assert_eq!(decoder.feed(b"data: 12345\n", |_| ()), Err(DecodeError::TooLarge));
        let mut decoder = Decoder::new(10);
        let two = b"data: 1\ndata: 2\ndata: 3\ndata: 4\ndata: 5\n";
        assert_eq!(decoder.feed(two, |_| ()), Err(DecodeError::TooLarge));
    }

    #[test]
    fn what_is_encoded_reads_back() {
        check(&event("", "{\"a\":1}"), &[("message", "{\"a\":1}")]);
    }

    #[test]
    fn an_event_is_one_line_of_data_whatever_stands_between_values() {
        let told = event("x", "{\r\n\n\"a\":\r1}");
        assert_eq!(told, "event: x\ndata: {   \"a\": 1}\n\n");
        check(&told, &[("x", "{   \"a\": 1}")]);
        let pieces = message("", ["{\"id\":1,\n\"e\":", "[\r]", "}\n"]);
        check(&pieces.concat(), &[("message", "{\"id\":1, \"e\":[ ]} ")]);
    }
}
