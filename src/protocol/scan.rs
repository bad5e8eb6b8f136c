//! A reader of large JSON texts in pieces: between two pieces it asks `GoOn` if the text is still
//! needed, so that a deadline holds during the reading. It accepts the same JSON as `serde_json`,
//! which reads all smaller texts.

use std::borrow::Cow;

use super::raw::{FieldList, RawObject};
use crate::limits::{JSON_DEPTH_MAX, JSON_PIECE_BYTES};

/// Returns true while the reading shall go on.
pub type GoOn<'a> = &'a dyn Fn() -> bool;

/// The reason why a text was not read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotRead {
    /// The text is not needed any more.
    Stopped,
    /// The text is nested deeper than [`JSON_DEPTH_MAX`] levels.
    TooDeep,
    /// The text is invalid, for this reason.
    Wrong(String),
}

/// Reads one level of an object of any size, as [`RawObject::parse`] does.
///
/// # Errors
/// The text is no acceptable object, or it is not needed any more.
pub fn object<'a>(text: &'a str, go_on: GoOn<'_>) -> Result<RawObject<'a>, NotRead> {
    let mut scan = Scan::new(text, go_on);
    let mut fields = FieldList::default();
    scan.blanks()?;
    if !scan.takes(b'{') {
        return Err(scan.wrong("an object is expected"));
    }
    scan.depth = 1;
    scan.blanks()?;
    let mut more = !scan.takes(b'}');
    while more {
        let (key, value) = scan.field()?;
        let key: Cow<'a, str> = match key.strip_prefix('"').and_then(|it| it.strip_suffix('"'))
        {
            Some(plain) if !plain.contains('\\') => Cow::Borrowed(plain),
            _ => Cow::Owned(
                serde_json::from_str(key).map_err(|error| NotRead::Wrong(error.to_string()))?,
            ),
        };
        fields.add(key, value).map_err(NotRead::Wrong)?;
        more = scan.goes_on_to(b'}')?;
    }
    scan.end()?;
    Ok(fields.into_object())
}

/// Gives the elements of an array of any size one by one, until `take` refuses one with a reason.
/// None is nested deeper than [`JSON_DEPTH_MAX`] levels.
///
/// # Errors
/// The text is no array, an element was refused, or it is not needed any more.
pub fn each_element<'a>(
    text: &'a str,
    go_on: GoOn<'_>,
    take: &mut dyn FnMut(&'a str) -> Result<(), &'static str>,
) -> Result<(), NotRead> {
    let mut scan = Scan::new(text, go_on);
    scan.blanks()?;
    if !scan.takes(b'[') {
        return Err(scan.wrong("an array is expected"));
    }
    scan.blanks()?;
    let mut more = !scan.takes(b']');
    while more {
        scan.blanks()?;
        let element = scan.value()?;
        take(element).map_err(|what| NotRead::Wrong(what.to_owned()))?;
        more = scan.goes_on_to(b']')?;
    }
    scan.end()
}

/// The position of the reader in a text.
struct Scan<'a, 'g> {
    text: &'a str,
    at: usize,
    /// Levels that are open around the value that is read.
    depth: usize,
    /// The position at which `go_on` is asked again.
    ask_at: usize,
    go_on: GoOn<'g>,
}

impl<'a> Scan<'a, '_> {
    fn new<'g>(text: &'a str, go_on: GoOn<'g>) -> Scan<'a, 'g> {
        Scan { text, at: 0, depth: 0, ask_at: 0, go_on }
    }

    fn wrong(&self, what: &str) -> NotRead {
        NotRead::Wrong(format!("{what} at byte {}", self.at))
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// The rest of the present piece; at its end `go_on` is asked.
    fn piece(&mut self) -> Result<&'a [u8], NotRead> {
        if self.at >= self.ask_at {
            if !(self.go_on)() {
                return Err(NotRead::Stopped);
            }
            self.ask_at = self.at + JSON_PIECE_BYTES;
        }
        let bytes = self.text.as_bytes();
        Ok(bytes.get(self.at..self.ask_at.min(bytes.len())).unwrap_or(&[]))
    }

    fn takes(&mut self, byte: u8) -> bool {
        let is_there = self.peek() == Some(byte);
        self.at += usize::from(is_there);
        is_there
    }

    /// Passes over bytes for which `are` is true.
    fn pass(&mut self, are: impl Fn(u8) -> bool) -> Result<usize, NotRead> {
        let begun = self.at;
        loop {
            let piece = self.piece()?;
            let n = piece.iter().position(|byte| !are(*byte)).unwrap_or(piece.len());
            self.at += n;
            if n < piece.len() || piece.is_empty() {
                return Ok(self.at - begun);
            }
        }
    }

    fn blanks(&mut self) -> Result<(), NotRead> {
        self.pass(|byte| matches!(byte, b' ' | b'\n' | b'\t' | b'\r')).map(drop)
    }

    /// A key and its value, each as text.
    fn field(&mut self) -> Result<(&'a str, &'a str), NotRead> {
        let key = self.key()?;
        Ok((key, self.value()?))
    }

    /// A key, and the colon behind it.
    fn key(&mut self) -> Result<&'a str, NotRead> {
        self.blanks()?;
        let begun = self.at;
        if !self.takes(b'"') {
            return Err(self.wrong("a key is expected"));
        }
        self.string()?;
        let key = self.text.get(begun..self.at).unwrap_or_default();
        self.blanks()?;
        if !self.takes(b':') {
            return Err(self.wrong("a colon is expected"));
        }
        self.blanks()?;
        Ok(key)
    }

    /// Called behind a value: true if another one follows.
    fn goes_on_to(&mut self, end: u8) -> Result<bool, NotRead> {
        self.blanks()?;
        if self.takes(b',') {
            return Ok(true);
        }
        if self.takes(end) {
            Ok(false)
        } else {
            Err(self.wrong("the next or the end is expected"))
        }
    }

    fn end(&mut self) -> Result<(), NotRead> {
        self.blanks()?;
        if self.peek().is_none() { Ok(()) } else { Err(self.wrong("the end is expected")) }
    }

    /// One value, as text.
    fn value(&mut self) -> Result<&'a str, NotRead> {
        let begun = self.at;
        // The bytes that close the levels which are open in the value.
        let mut open: Vec<u8> = Vec::new();
        loop {
            if self.begins_level(&mut open)? {
                continue;
            }
            // A value has ended, and with it all levels that end behind it.
            loop {
                let Some(end) = open.last().copied() else {
                    return Ok(self.text.get(begun..self.at).unwrap_or_default());
                };
                if self.goes_on_to(end)? {
                    self.begin_next(end)?;
                    break;
                }
                open.pop();
            }
        }
    }

    /// Reads the beginning of a value: returns true at the beginning of a level that is not
    /// empty, false behind a whole value.
    fn begins_level(&mut self, open: &mut Vec<u8>) -> Result<bool, NotRead> {
        let Some(byte) = self.peek() else { return Err(self.wrong("a value is expected")) };
        self.at += 1;
        let end = match byte {
            b'{' => b'}',
            b'[' => b']',
            b'"' => return self.string().map(|()| false),
            b't' => return self.word("rue").map(|()| false),
            b'f' => return self.word("alse").map(|()| false),
            b'n' => return self.word("ull").map(|()| false),
            b'-' | b'0'..=b'9' => return self.number(byte).map(|()| false),
            _ => return Err(self.wrong("a value is expected")),
        };
        if self.depth + open.len() >= JSON_DEPTH_MAX {
            return Err(NotRead::TooDeep);
        }
        self.blanks()?;
        if self.takes(end) {
            return Ok(false);
        }
        open.push(end);
        self.begin_next(end)?;
        Ok(true)
    }

    /// Goes to the next value of a level that the byte `end` closes.
    fn begin_next(&mut self, end: u8) -> Result<(), NotRead> {
        if end == b'}' { self.key().map(drop) } else { self.blanks() }
    }

    fn word(&mut self, rest: &str) -> Result<(), NotRead> {
        if !self.text.get(self.at..).is_some_and(|text| text.starts_with(rest)) {
            return Err(self.wrong("a value is expected"));
        }
        self.at += rest.len();
        Ok(())
    }

    /// Reads the rest of a string, behind its first quotation mark.
    fn string(&mut self) -> Result<(), NotRead> {
        loop {
            self.pass(|byte| byte >= 0x20 && byte != b'"' && byte != b'\\')?;
            if self.takes(b'"') {
                return Ok(());
            }
            if !self.takes(b'\\') {
                return Err(self.wrong("the end of a string is expected"));
            }
            let Some(escape) = self.peek() else {
                return Err(self.wrong("an escape is expected"));
            };
            self.at += 1;
            match escape {
                b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => (),
                b'u' => {
                    let digits = self.text.as_bytes().get(self.at..self.at + 4);
                    if !digits.is_some_and(|it| it.iter().all(u8::is_ascii_hexdigit)) {
                        return Err(self.wrong("four hexadecimal digits are expected"));
                    }
                    self.at += 4;
                }
                _ => return Err(self.wrong("an escape is expected")),
            }
        }
    }

    /// Reads the rest of a number, behind its first byte.
    fn number(&mut self, first: u8) -> Result<(), NotRead> {
        let is_digit = |byte: u8| byte.is_ascii_digit();
        let first = if first == b'-' {
            let digit = self.peek().filter(|byte| is_digit(*byte));
            self.at += 1;
            digit.ok_or_else(|| self.wrong("a digit is expected"))?
        } else {
            first
        };
        if first == b'0' {
            if self.peek().is_some_and(is_digit) {
                return Err(self.wrong("no digit is expected behind a zero"));
            }
        } else {
            self.pass(is_digit)?;
        }
        if self.takes(b'.') && self.pass(is_digit)? == 0 {
            return Err(self.wrong("a digit is expected"));
        }
        if self.takes(b'e') || self.takes(b'E') {
            if !self.takes(b'+') {
                self.takes(b'-');
            }
            if self.pass(is_digit)? == 0 {
                return Err(self.wrong("a digit is expected"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use serde_json::value::RawValue;

    use super::*;
    use crate::protocol::raw;

    const ON: GoOn<'_> = &|| true;

    /// Checks that a text is read as `serde_json` reads it.
    #[track_caller]
    fn check(text: &str) {
        let (mine, theirs) = (object(text, ON), RawObject::parse(text));
        match (&mine, &theirs) {
            (Ok(mine), Ok(theirs)) => assert_eq!(mine, theirs, "{text}"),
            (Err(_), Err(_)) => (),
            (_, _) => panic!("{text}: {mine:?}, {theirs:?}"),
        }
        let mut elements = Vec::new();
        let read = each_element(text, ON, &mut |element| {
            elements.push(element);
            Ok(())
        });
        match raw::elements(text) {
            Ok(theirs) => assert_eq!((read, elements), (Ok(()), theirs), "{text}"),
            Err(_) => assert!(read.is_err(), "{text}"),
        }
        let mut scan = Scan::new(text, ON);
        let mine =
            scan.blanks().and_then(|()| scan.value()).and_then(|it| scan.end().map(|()| it));
        let theirs = serde_json::from_str::<&RawValue>(text).map(RawValue::get);
        assert_eq!(mine.ok(), theirs.ok(), "{text}");
    }

    const TEXTS: [&str; 24] = [
        r#" {"a" : [1, -2.5e+3 ,0.0E-1,{"b":{}}], "é\n\"\u00e9\ud800": "x\\\/\b\f\r\t" , "n":null } "#,
        r#"[ {"a":1,"b":[true,false,null]} , [], [[[]]] , {} ,"\"]}" , 12 ]"#,
        r#"{"a":1,"a":2}"#,
        r#"{"a":1,"\u0061":2}"#,
        r#"{"":0}"#,
        "{}",
        "[]",
        "0",
        "-0",
        "-0.5e7",
        "00",
        "-",
        "1.",
        "1.e5",
        "1e",
        "1e+",
        "tru",
        "nul",
        r#""\x""#,
        r#""\u12g4""#,
        "\"a\nb\"",
        "[1,]",
        r#"{"a":}"#,
        r#"{"a" 1}"#,
    ];

    #[test]
    fn what_is_json_here_is_json_there() {
        TEXTS.iter().for_each(|text| check(text));
        // The texts cut at every byte, and with another byte in each place.
        for text in TEXTS {
            for (at, _) in text.char_indices() {
                check(&text[..at]);
                check(&text[at..]);
                for other in
                    ["", "\"", "\\", "{", "}", "[", "]", ",", ":", "0", "e", " ", "\u{1}"]
                {
                    let behind = text[at..].chars().next().map_or(0, char::len_utf8);
                    check(&format!("{}{other}{}", &text[..at], &text[at + behind..]));
                }
            }
        }
    }

    #[test]
    fn whoever_waits_no_more_is_heard_between_two_pieces() {
        let n_pieces = 5;
        for filling in ["0,", "{},", " ", "\"x\\n\",", "12345678901234567890,"] {
            let inner = filling.repeat(n_pieces * JSON_PIECE_BYTES / filling.len());
            let texts = [format!("{{\"result\":[{inner}0]}}"), format!("[[{inner}0]]")];
            for text in &texts {
                let n_asked = Cell::new(0);
                let read = |go_on: GoOn<'_>| match object(text, go_on) {
                    Err(NotRead::Wrong(_)) => each_element(text, go_on, &mut |_| Ok(())),
                    read => read.map(drop),
                };
                let counts = || {
                    n_asked.set(n_asked.get() + 1);
                    n_asked.get() <= 3
                };
                assert_eq!(read(&counts), Err(NotRead::Stopped), "{filling}");
                assert!(n_asked.get() <= 5, "{filling}: {}", n_asked.get());
                assert_eq!(read(ON), Ok(()), "{filling}");
            }
        }
        let long = format!("{{\"a\":\"{}\"}}", "x".repeat(n_pieces * JSON_PIECE_BYTES));
        let n_asked = Cell::new(0);
        let counts = || n_asked.replace(n_asked.get() + 1) < 3;
        assert_eq!(object(&long, &counts), Err(NotRead::Stopped));
    }

    #[test]
    fn depth_is_bounded_as_it_is_for_small_texts() {
        for depth in [JSON_DEPTH_MAX - 1, JSON_DEPTH_MAX, JSON_DEPTH_MAX + 1] {
            let (open, close) = ("[".repeat(depth - 1), "]".repeat(depth - 1));
            let text = format!("{{\"a\":{open}{close}}}");
            let is_too_deep = raw::is_deeper_than(&text, JSON_DEPTH_MAX);
            let read = object(&text, ON);
            assert_eq!(read == Err(NotRead::TooDeep), is_too_deep, "{depth}: {read:?}");
            assert_eq!(read.is_ok(), !is_too_deep, "{depth}");
        }
    }
}
