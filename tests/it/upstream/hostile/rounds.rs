//! One gateway before many faulty servers and a good one: what their callers are told, and what
//! is left of it.

use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use super::faulty::{At, Fault, Faulty, Speech};
use crate::support::gateway::{Gateway, entry_of};
use crate::support::upstream_http::HttpUpstream;
use crate::support::wait_for;

/// Of the faulty servers; a call to one of them ends then at the latest.
pub(super) const TIMEOUT_MS: u64 = 1500;
/// Of those whose fault is seen as it is, before their time is over, on a busy machine too.
pub(super) const TIME_ENOUGH_MS: u64 = 6000;
/// Later than that, a call has been held up by somebody else. Generous: the machine may be busy.
pub(super) const FAR_TOO_LATE: Duration = Duration::from_secs(12);
/// Of an answer and of an event, in bytes.
pub(super) const SMALL_BOUND: usize = 1024 * 1024;

/// A fault, and the status that the caller of REST gets.
#[derive(Clone, Copy)]
pub(super) struct Row {
    pub(super) name: &'static str,
    pub(super) status: u16,
    pub(super) fault: Fault,
}

impl Row {
    /// Over HTTP+SSE the answer to a POST is passed over, whatever is wrong with it.
    fn timeout_ms(&self, speech: Speech) -> u64 {
        let is_seen = ![0, 504].contains(&self.status) && speech != Speech::HttpSse;
        if is_seen { TIME_ENOUGH_MS } else { TIMEOUT_MS }
    }
}

/// Faulty servers and a good one behind one gateway.
pub(super) struct Round {
    pub(super) gateway: Gateway,
    pub(super) faulty: Vec<Faulty>,
    rows: Vec<Row>,
    _good: HttpUpstream,
}

impl Round {
    pub(super) fn start(rows: &[Row], speech: Speech, at: At) -> Round {
        let faulty = rows.iter().map(|row| Faulty::start(speech, at, row.fault)).collect();
        Round::of(rows, speech, faulty)
    }

    /// These servers behave until they are told to turn.
    pub(super) fn well(rows: &[Row], speech: Speech, at: At) -> Round {
        let start = |row: &Row| Faulty::start(speech, at, row.fault).well();
        Round::of(rows, speech, rows.iter().map(start).collect())
    }

    fn of(rows: &[Row], speech: Speech, faulty: Vec<Faulty>) -> Round {
        let good = HttpUpstream::start();
        let mut servers = Map::new();
        servers.insert("good".to_owned(), json!({ "url": good.url(), "transport": "http" }));
        for (row, server) in rows.iter().zip(&faulty) {
            servers.insert(row.name.to_owned(), server.config(row.timeout_ms(speech)));
        }
        let gateway = Gateway::with(json!({
            "mcp_servers": servers,
            "limits": {
                "upstream_result_bytes": SMALL_BOUND,
                "upstream_event_bytes": SMALL_BOUND,
            },
        }))
        .start();
        gateway.wait_until_well(&["good"]);
        Round { gateway, faulty, rows: rows.to_vec(), _good: good }
    }

    /// Waits until all faulty servers are listed.
    pub(super) fn listed(self) -> Round {
        for row in &self.rows {
            self.gateway.wait_until_well(&[row.name]);
        }
        self
    }

    /// Calls all faulty servers at once, over REST or MCP, while the good one is called too.
    pub(super) fn call_all(&self, statuses: impl Fn(&Row) -> Vec<u16> + Sync) {
        std::thread::scope(|scope| {
            let mut calls = Vec::new();
            for row in &self.rows {
                let statuses = &statuses;
                calls.push(scope.spawn(move || self.over_rest(row, &statuses(row))));
                calls.push(scope.spawn(move || self.over_mcp(row)));
            }
            let others = scope.spawn(|| {
                for n in 0..20 {
                    self.good_answers(&n.to_string());
                }
            });
            calls.push(others);
            for call in calls {
                call.join().unwrap();
            }
        });
    }

    #[track_caller]
    pub(super) fn good_answers(&self, message: &str) {
        let began = Instant::now();
        let text = self.gateway.call_text("good-echo", &json!({ "message": message }));
        assert_eq!(text, message);
        assert!(began.elapsed() < FAR_TOO_LATE, "the good one took {:?}", began.elapsed());
    }

    fn over_rest(&self, row: &Row, statuses: &[u16]) {
        let began = Instant::now();
        let answer = self.gateway.call(&format!("{}-echo", row.name), &json!({}));
        let took = began.elapsed();
        assert!(took < FAR_TOO_LATE, "{} took {took:?}: {answer}", row.name);
        let status = answer.status();
        let shown = answer.to_string();
        let error = answer.expect_error(status);
        // One that has failed often enough is refused for that.
        let is_down = status == 502 && error["down_since"].is_string();
        assert!(is_down || statuses.contains(&status), "{}: {shown}", row.name);
        assert_eq!(error["server"], row.name, "{error}");
        assert!(error["stage"].is_string(), "{}: {error}", row.name);
        let code = if status == 504 { "upstream_timeout" } else { "upstream_failed" };
        assert_eq!(error["code"], code, "{}: {error}", row.name);
        assert_readable(&error["message"]);
    }

    fn over_mcp(&self, row: &Row) {
        let began = Instant::now();
        let params = json!({ "name": format!("{}-echo", row.name), "arguments": {} });
        let answer = self.gateway.mcp().request("tools/call", &params);
        assert!(began.elapsed() < FAR_TOO_LATE, "{} took {:?}", row.name, began.elapsed());
        let message = &answer["error"]["message"];
        assert_readable(message);
        let message = message.as_str().unwrap();
        assert!(message.contains(&format!("The server {} ", row.name)), "{message}");
        let is_staged = ["connect", "handshake", "send", "answer", "read", "parse"]
            .iter()
            // With what was seen behind it where the server is down.
            .any(|stage| message.contains(&format!("({stage}")));
        assert!(is_staged, "{message}");
    }

    /// Waits until `/status` tells of a failure at one of these stages for every faulty server.
    pub(super) fn all_failed_at(&self, stages: &[&str]) {
        for row in &self.rows {
            let failure = wait_for(&format!("{} has failed", row.name), || {
                Some(self.gateway.status_of(row.name)["last_failure"].clone())
                    .filter(Value::is_object)
            });
            let stage = failure["stage"].as_str().unwrap();
            assert!(stages.contains(&stage), "{}: {failure}", row.name);
            assert_readable(&failure["message"]);
            let list = self.gateway.list();
            let entry = entry_of(&list["upstreams"], row.name).unwrap();
            assert_ne!(entry["outcome"], "ok", "{}: {entry}", row.name);
        }
    }
}

/// An error is one short line without anything that a terminal would obey.
#[track_caller]
pub(super) fn assert_readable(message: &Value) {
    let message = message.as_str().unwrap_or_else(|| panic!("no text: {message}"));
    assert!(!message.is_empty() && !message.chars().any(char::is_control), "{message:?}");
    assert!(message.chars().count() < 600, "{message}");
}

/// What the gateway holds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Holdings {
    pub(super) descriptors: usize,
    pub(super) threads: usize,
}

impl Holdings {
    pub(super) fn of(gateway: &Gateway) -> Holdings {
        let count = |what: &str| {
            std::fs::read_dir(format!("/proc/{}/{what}", gateway.process_id())).unwrap().count()
        };
        Holdings { descriptors: count("fd"), threads: count("task") }
    }

    /// Waits until no more than this is held again, but for `slack` of each: a kept connection
    /// for every server, say.
    #[track_caller]
    pub(super) fn are_back(self, gateway: &Gateway, slack: usize) {
        let mut last = self;
        let deadline = Instant::now() + crate::support::DEADLINE;
        while Instant::now() < deadline {
            last = Holdings::of(gateway);
            if last.descriptors <= self.descriptors + slack
                && last.threads <= self.threads + slack
            {
                return;
            }
            std::thread::park_timeout(Duration::from_millis(50));
        }
        panic!("it held {self:?} and now holds {last:?}");
    }
}
