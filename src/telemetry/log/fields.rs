//! One log line as a JSON object with fields. The secrets of the configuration are taken out of
//! each value.

use std::time::{Duration, SystemTime};

use log::Level;

use super::line;
use crate::limits::LOG_LINE_BYTES_MAX;
use crate::telemetry::redact::Secrets;
use crate::telemetry::timestamp;

/// An object that is being written.
#[derive(Debug)]
pub struct Fields<'a> {
    out: String,
    secrets: &'a Secrets,
}

impl<'a> Fields<'a> {
    pub(super) fn new(level: Level, secrets: &'a Secrets) -> Fields<'a> {
        let time = timestamp::rfc3339(SystemTime::now());
        let mut out = String::with_capacity(512);
        out.push_str(&format!("{{\"time\":\"{time}\",\"level\":\"{level}\""));
        Fields { out, secrets }
    }

    /// Adds a text. A text that would make the line too long is left out.
    pub fn text(&mut self, key: &str, value: &str) {
        let before = self.out.len();
        self.key(key);
        line::push_value(&mut self.out, &self.secrets.scrub(value));
        self.within(before);
    }

    /// Adds a text, unless it is empty.
    pub fn text_if_any(&mut self, key: &str, value: &str) {
        if !value.is_empty() {
            self.text(key, value);
        }
    }

    /// Adds a number.
    pub fn number(&mut self, key: &str, value: u64) {
        let before = self.out.len();
        self.key(key);
        self.out.push_str(&value.to_string());
        self.within(before);
    }

    /// Adds a number, unless it is 0.
    pub fn number_if_any(&mut self, key: &str, value: u64) {
        if value > 0 {
            self.number(key, value);
        }
    }

    /// Adds a time in milliseconds, to the microsecond.
    pub fn milliseconds(&mut self, key: &str, value: Duration) {
        let before = self.out.len();
        self.key(key);
        self.out.push_str(&format!("{:.3}", value.as_secs_f64() * 1000.0));
        self.within(before);
    }

    fn key(&mut self, key: &str) {
        self.out.push_str(",\"");
        self.out.push_str(key);
        self.out.push_str("\":");
    }

    fn within(&mut self, before: usize) {
        if self.out.len() + 2 > LOG_LINE_BYTES_MAX {
            self.out.truncate(before);
        }
    }

    pub(super) fn into_line(mut self) -> String {
        self.out.push_str("}\n");
        self.out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;

    #[test]
    fn a_line_is_an_object_without_secrets_within_its_bound() {
        let secrets = Secrets::new(&[Secret::new("hunter2".to_owned())]);
        let mut fields = Fields::new(Level::Info, &secrets);
        fields.text("tool", "a\"b\nhunter2\u{2028}");
        fields.number("status", 200);
        fields.number_if_any("left_out", 0);
        fields.text_if_any("key", "");
        fields.milliseconds("ms", Duration::from_micros(1234));
        (0..20).for_each(|n| fields.text(&format!("long{n}"), &"\u{1}".repeat(2000)));
        let line = fields.into_line();
        assert!(line.len() <= LOG_LINE_BYTES_MAX && line.lines().count() == 1, "{line}");
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["tool"], "a\"b\n[secret]\u{2028}");
        assert_eq!(value["status"], 200);
        assert_eq!(value["ms"], 1.234);
        assert!(value.get("left_out").is_none() && value.get("key").is_none());
    }
}
