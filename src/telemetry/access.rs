//! The log line of a request, as fields of a JSON object or as text. A refused request has a line
//! too, a few a second for each peer, key and reason, and is kept among the last ones for
//! `/status`.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use ::log::Level;

use super::activity;
use super::ids::RequestName;
use super::log::{self, Fields};
use super::outcome::CallOutcome;
use super::record::{Record, Refused, ToldRequest, peer_text};
use super::rejected::{self, Reason};

use super::window::Window;
use crate::limits::{
    ACCESS_ERROR_CHARS_MAX, REFUSAL_KINDS_MAX, REFUSAL_LINES_ALIKE_MAX, REFUSAL_LINES_MAX,
    REFUSAL_LINES_WITHIN,
};
use crate::sync::Mutex;
use crate::telemetry::redact;

const TARGET: &str = "access";
/// The most refused requests that `/status` shows.
const RECENT_REFUSALS_MAX: usize = 64;

/// True if calls have log lines.
static CALLS: AtomicBool = AtomicBool::new(false);

/// Sets if calls have log lines from here on.
pub fn tell_calls(wanted: bool) {
    CALLS.store(wanted, Ordering::Relaxed);
}

/// Refusals alike: the peer's address, the key or user (empty without either), and the reason. One
/// address may be a whole team's.
type Kind = (Option<IpAddr>, String, &'static str);

/// The last refusals, and the bounds on their lines.
#[derive(Debug)]
struct Refusals {
    kinds: HashMap<Kind, Window>,
    all: Window,
    recent: VecDeque<ToldRequest>,
}

static REFUSALS: LazyLock<Mutex<Refusals>> = LazyLock::new(|| {
    let all = Window::new(Instant::now());
    Mutex::new(Refusals { kinds: HashMap::new(), all, recent: VecDeque::new() })
});

impl Refusals {
    /// The number of refusals alike that were left out, if this one is logged.
    fn turn(&mut self, kind: Kind, now: Instant) -> Option<u64> {
        if self.kinds.len() >= REFUSAL_KINDS_MAX && !self.kinds.contains_key(&kind) {
            let is_recent =
                |it: &Window| now.saturating_duration_since(it.since) < REFUSAL_LINES_WITHIN;
            self.kinds.retain(|_, window| is_recent(window));
            if self.kinds.len() >= REFUSAL_KINDS_MAX {
                return None;
            }
        }
        let window = self.kinds.entry(kind).or_insert_with(|| Window::new(now));
        let left_out = window.turn(now, REFUSAL_LINES_WITHIN, REFUSAL_LINES_ALIKE_MAX)?;
        let Some(_) = self.all.turn(now, REFUSAL_LINES_WITHIN, REFUSAL_LINES_MAX) else {
            window.left_out += left_out + 1;
            return None;
        };
        Some(left_out)
    }

    fn keep(&mut self, refusal: ToldRequest) {
        if self.recent.len() >= RECENT_REFUSALS_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back(refusal);
    }
}

fn refusals() -> std::sync::MutexGuard<'static, Refusals> {
    REFUSALS.lock()
}

/// The last refusals, the newest first.
pub fn recent_refusals() -> Vec<ToldRequest> {
    refusals().recent.iter().rev().cloned().collect()
}

/// Notes a refusal by the engine that never became a request of a handler: counts and logs it,
/// under the id that the answer has.
pub fn refused(
    peer: Option<IpAddr>,
    name: RequestName,
    reason: Reason,
    status: u16,
    message: &str,
) {
    rejected::count(reason);
    let turn = refusals().turn((peer, String::new(), reason.as_str()), Instant::now());
    if turn.is_none() && !activity::is_watched() {
        return;
    }
    let refusal = ToldRequest {
        at: SystemTime::now(),
        id: name.as_str().to_owned(),
        peer: peer_text(peer),
        key: String::new(),
        whose: String::new(),
        client: String::new(),
        door: "",
        method: "",
        tool: String::new(),
        server: String::new(),
        outcome: "",
        status,
        took: Duration::ZERO,
        message: redact::excerpt(message, ACCESS_ERROR_CHARS_MAX),
        refused: Some(Refused {
            reason: reason.as_str(),
            reason_told: reason.as_str(),
            request: String::new(),
            left_out: turn.unwrap_or_default(),
        }),
    };
    if activity::is_watched() {
        activity::tell(Some(refusal.clone()));
    }
    let Some(left_out) = turn else { return };
    let text = || {
        format!(
            "- refused {status} ({}) {message} from {} id={}",
            reason.as_str(),
            refusal.peer,
            refusal.id
        )
    };
    log::event(Level::Info, TARGET, text, |fields| {
        fields.text("event", "refused");
        fields.text("id", &refusal.id);
        fields.text("peer", &refusal.peer);
        fields.text("reason", reason.as_str());
        fields.number("status", status.into());
        fields.text("error", &refusal.message);
        fields.number_if_any("left_out", left_out);
    });
    refusals().keep(refusal);
}

/// Writes the line of an answered message, or of a refused request.
pub(super) fn tell(record: &Record) {
    match record.reason() {
        Some(reason) => {
            let turn =
                refusals().turn((record.peer, record.whose.clone(), reason), Instant::now());
            if let Some(left_out) = turn {
                write(record, Some(reason), left_out);
                let mut told = record.told();
                if let Some(refused) = &mut told.refused {
                    refused.left_out = left_out;
                }
                refusals().keep(told);
            }
        }
        None if CALLS.load(Ordering::Relaxed) => write(record, None, 0),
        None => (),
    }
}

fn write(record: &Record, refused: Option<&'static str>, left_out: u64) {
    let text = || text(record, refused, left_out);
    log::event(Level::Info, TARGET, text, |fields| {
        write_fields(record, refused, left_out, fields)
    });
}

fn write_fields(
    record: &Record,
    refused: Option<&'static str>,
    left_out: u64,
    fields: &mut Fields<'_>,
) {
    fields.text("event", if refused.is_some() { "refused" } else { "call" });
    fields.text("id", record.id());
    fields.text_if_any("trace", &record.trace.id().unwrap_or_default());
    fields.text("peer", &peer_text(record.peer));
    fields.text_if_any("key", &record.key);
    match record.asked {
        Some(asked) => {
            fields.text("door", asked.door.as_str());
            fields.text_if_any("era", asked.door.era().unwrap_or_default());
            fields.text("method", asked.method_text());
        }
        None => {
            fields.text("http_method", &record.http_method);
            fields.text("path", &record.path());
        }
    }
    fields.text_if_any("tool", &record.tool);
    fields.text_if_any("server", &record.server);
    if let Some(outcome) = record.outcome {
        fields.text("outcome", outcome.as_str());
    }
    fields.text_if_any("reason", refused.unwrap_or_default());
    fields.number_if_any("status", record.status.into());
    fields.milliseconds("ms", record.took());
    fields.number("bytes_in", u64::try_from(record.bytes_in).unwrap_or(u64::MAX));
    fields.number("bytes_out", u64::try_from(record.bytes_out).unwrap_or(u64::MAX));
    fields.text_if_any("client", &record.client);
    fields.text_if_any("error", &record.error);
    fields.number_if_any("left_out", left_out);
}

/// `laptop demo-echo ok 200 1.2 ms streamable from 10.0.0.7 id=…`.
fn text(record: &Record, refused: Option<&'static str>, left_out: u64) -> String {
    let key = if record.key.is_empty() { "-" } else { &record.key };
    let what = match (&record.asked, record.tool.is_empty()) {
        (Some(_), false) => record.tool.clone(),
        (Some(asked), true) => asked.method_text().to_owned(),
        (None, _) => format!("{} {}", record.http_method, record.path()),
    };
    let outcome = match (refused, record.outcome) {
        (Some(_), _) => "refused",
        (None, outcome) => outcome.map_or("-", CallOutcome::as_str),
    };
    let mut line = format!("{key} {what} {outcome}");
    if record.status != 0 {
        line.push_str(&format!(" {}", record.status));
    }
    line.push_str(&format!(" {:.1} ms", record.took().as_secs_f64() * 1000.0));
    if let Some(asked) = record.asked {
        line.push_str(&format!(" {}", asked.door.as_str()));
    }
    line.push_str(&format!(" from {} id={}", peer_text(record.peer), record.id()));
    if let Some(reason) = refused {
        line.push_str(&format!(" ({reason})"));
    }
    if !record.error.is_empty() {
        line.push_str(&format!(": {}", record.error));
    }
    if left_out > 0 {
        line.push_str(&format!(" ({left_out} more like it were not logged)"));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn none_yet() -> Refusals {
        let all = Window::new(Instant::now());
        Refusals { kinds: HashMap::new(), all, recent: VecDeque::new() }
    }

    #[test]
    fn what_is_alike_has_a_few_lines_and_the_rest_is_counted() {
        let (mut refusals, now) = (none_yet(), Instant::now());
        let kind = |peer, key: &str, reason| (peer, key.to_owned(), reason);
        let ours = Some(IpAddr::from([192, 0, 2, 1]));
        let one = kind(ours, "ci", "rate");
        let told = (0..100).filter_map(|_| refusals.turn(one.clone(), now)).count();
        assert_eq!(told, REFUSAL_LINES_ALIKE_MAX);
        for other in
            [kind(None, "ci", "rate"), kind(ours, "laptop", "rate"), kind(ours, "ci", "origin")]
        {
            assert_eq!(refusals.turn(other.clone(), now), Some(0), "{other:?} has its own");
        }
        let left_out = 100 - u64::try_from(REFUSAL_LINES_ALIKE_MAX).unwrap();
        assert_eq!(refusals.turn(one, now + REFUSAL_LINES_WITHIN), Some(left_out));
    }

    #[test]
    fn many_peers_have_a_bounded_number_of_lines_and_places() {
        let (mut refusals, now) = (none_yet(), Instant::now());
        let of = |n: u32| (Some(IpAddr::from(n.to_be_bytes())), String::new(), "rate");
        let told = (0..10_000).filter_map(|n| refusals.turn(of(n), now)).count();
        assert_eq!(told, REFUSAL_LINES_MAX);
        assert!(refusals.kinds.len() <= REFUSAL_KINDS_MAX);
        assert!(refusals.turn(of(1_000_000), now + REFUSAL_LINES_WITHIN).is_some());
    }
}
