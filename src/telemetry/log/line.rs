//! The encoding of one message as one line that cannot pass for two. Pure but for the clock.

use std::time::SystemTime;

use log::Level;

use crate::config::LogFormat;
use crate::limits::LOG_LINE_BYTES_MAX;
use crate::telemetry::timestamp;

/// Bytes for the text around a message.
const AROUND_BYTES_MAX: usize = 256;
const TARGET_BYTES_MAX: usize = 96;
/// Bytes of one value in a line that has fields.
const VALUE_BYTES_MAX: usize = 1024;
const MESSAGE_BYTES_MAX: usize = LOG_LINE_BYTES_MAX - AROUND_BYTES_MAX;
const _: () = assert!(MESSAGE_BYTES_MAX > 1024 && TARGET_BYTES_MAX < AROUND_BYTES_MAX / 2);

/// A message for a text line, cut, with characters escaped that could begin another line or steer
/// a terminal: the author of a tool's name must not write our log.
pub(super) fn text_message(message: &str) -> String {
    let mut out = String::with_capacity(message.len().min(MESSAGE_BYTES_MAX));
    push(&mut out, message, MESSAGE_BYTES_MAX, |out, c| {
        if is_harmless(c) { out.push(c) } else { out.extend(c.escape_default()) }
    });
    out
}

/// A whole text line, as simplelog writes those of the `log` macros.
pub(super) fn text(level: Level, target: &str, clean: &str) -> String {
    let time = timestamp::rfc3339(SystemTime::now());
    format!("{time} [{level}] {target}: {clean}\n")
}

/// Adds a value to a JSON object, cut.
pub(super) fn push_value(out: &mut String, value: &str) {
    out.push('"');
    push(out, value, VALUE_BYTES_MAX, push_json);
    out.push('"');
}

/// A whole JSON line.
pub(super) fn json(level: Level, target: &str, message: &str) -> String {
    let time = timestamp::rfc3339(SystemTime::now());
    let mut out = format!("{{\"time\":\"{time}\",\"level\":\"{level}\",\"target\":\"");
    push(&mut out, target, TARGET_BYTES_MAX, push_json);
    out.push_str("\",\"msg\":\"");
    push(&mut out, message, MESSAGE_BYTES_MAX, push_json);
    out.push_str("\"}\n");
    out
}

/// The line with the number of lines that were dropped.
pub(super) fn dropped(format: LogFormat, n_lines: u64) -> String {
    let target = "trunkline::telemetry::log";
    let message = format!("{n_lines} log lines were dropped: their queue was full");
    match format {
        LogFormat::Json => json(Level::Warn, target, &message),
        LogFormat::Text => {
            let time = timestamp::rfc3339(SystemTime::now());
            format!("{time} [WARN] {target}: {message}\n")
        }
    }
}

fn push(out: &mut String, text: &str, bytes_max: usize, push_char: fn(&mut String, char)) {
    let end = out.len() + bytes_max;
    for c in text.chars() {
        let before = out.len();
        push_char(out, c);
        if out.len() > end {
            out.truncate(before);
            out.push('…');
            return;
        }
    }
}

fn push_json(out: &mut String, c: char) {
    match c {
        '"' | '\\' => out.extend(['\\', c]),
        '\n' => out.push_str("\\n"),
        '\t' => out.push_str("\\t"),
        c if is_harmless(c) => out.push(c),
        c => {
            for unit in c.encode_utf16(&mut [0; 2]) {
                out.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
}

/// True unless the character is a control character, a line end of Unicode, or one that turns the
/// direction of text.
fn is_harmless(c: char) -> bool {
    !c.is_control()
        && !matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_stays_on_its_line() {
        assert_eq!(text_message("a\r\nb\u{1b}[2J\u{2028}é"), "a\\r\\nb\\u{1b}[2J\\u{2028}é");
    }

    #[test]
    fn a_json_line_reads_back() {
        let message = "a\"b\\c\r\n\u{1b}\u{2028}é🦀";
        let line = json(Level::Info, "t", message);
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["msg"], message);
        assert_eq!(value["level"], "INFO");
        assert_eq!(value["target"], "t");
        assert_eq!(line.lines().count(), 1);
    }

    #[test]
    fn long_messages_are_cut_between_characters() {
        for message in ["x".repeat(10_000), "é".repeat(9000), "\u{1}".repeat(9000)] {
            let line = json(Level::Info, &message, &message);
            assert!(line.len() <= LOG_LINE_BYTES_MAX, "{}", line.len());
            assert!(serde_json::from_str::<serde_json::Value>(&line).is_ok());
            assert!(text_message(&message).len() <= MESSAGE_BYTES_MAX + '…'.len_utf8());
        }
    }
}
