//! Spans to a collector: OTLP over HTTP in its JSON encoding, from a thread of its own.
//!
//! The official crates for it (`opentelemetry`, `opentelemetry_sdk`, `opentelemetry-otlp`) bring
//! an HTTP client of their own, a second batching thread and generated protobufs, about 60
//! crates; the gateway needs one JSON document, whose form is stable (OTLP 1.0) and which
//! collectors take on the same path as protobufs.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, select};
use serde_json::{Value, json};

use super::Seldom;
use super::names;
use super::trace::{self, Recorder, Span, SpanKind};
use super::trace_context::to_hex;
use crate::limits::{OTLP_BATCH_SPANS_MAX, OTLP_QUEUE_SPANS_MAX};
use crate::thread::{self, Joined};

/// The time for which a span waits for others.
const OTLP_INTERVAL: Duration = Duration::from_secs(2);
/// The number of times that the same spans are sent to a collector that does not take them now.
const OTLP_ATTEMPTS_MAX: u32 = 3;
/// The time between the first attempt and the second; each further wait is longer by this.
const OTLP_RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// The time that the last spans may take when the program ends.
const OTLP_LAST_SPANS_TIMEOUT: Duration = Duration::from_secs(1);
/// The time that a collector may take to answer.
pub const OTLP_TIMEOUT: Duration = Duration::from_secs(10);

/// The result of sending spans.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exported {
    /// The collector has them.
    Taken,
    /// The collector may take them later; the text gives the reason.
    NotNow(String),
    /// The collector will not take them; the text gives the reason.
    Refused(String),
}

/// Sends documents to the collector.
pub trait Export: Send {
    /// Sends it, and waits for the answer, within a time of its own.
    fn export(&self, body: &str) -> Exported;
}

static SENT: AtomicU64 = AtomicU64::new(0);
static FAILED: AtomicU64 = AtomicU64::new(0);

/// The numbers of spans so far: sent, not taken, dropped because the queue was full.
pub fn counts() -> [(&'static str, u64); 3] {
    [
        ("sent", SENT.load(Ordering::Relaxed)),
        ("failed", FAILED.load(Ordering::Relaxed)),
        ("dropped", trace::dropped()),
    ]
}

/// Keeps the export running. Dropping it sends the queued spans, within a second.
#[derive(Debug)]
pub struct Exporting {
    /// This field is dropped first, which ends the thread.
    alive: Option<Sender<()>>,
    thread: Option<Joined>,
}

impl Drop for Exporting {
    fn drop(&mut self) {
        self.alive.take();
        let until = Instant::now() + OTLP_LAST_SPANS_TIMEOUT;
        let Some(thread) = self.thread.take() else { return };
        while !thread.is_finished() && Instant::now() < until {
            std::thread::park_timeout(Duration::from_millis(5));
        }
        if !thread.is_finished() {
            // A collector that does not answer must not hold up the end.
            thread.detach();
        }
    }
}

/// Starts the thread. Of a million traces that begin here, `sampling` are recorded; of other
/// traces those whose beginner records them.
///
/// # Errors
/// The system refuses a thread, or spans are exported already.
pub fn start(
    export: Box<dyn Export>,
    sampling: u32,
    service: Arc<str>,
) -> io::Result<Exporting> {
    let (queue, spans) = bounded(OTLP_QUEUE_SPANS_MAX);
    // A random number of 64 bits is below the threshold in that share of cases.
    let threshold = match sampling {
        1_000_000.. => u64::MAX,
        millionths => u64::MAX / 1_000_000 * u64::from(millionths),
    };
    let (alive, ended) = bounded(0);
    if !trace::record(Recorder { queue, threshold }) {
        return Err(io::Error::other("spans are exported already"));
    }
    let exporter = Exporter { export, service, spans, ended, told: Seldom::default() };
    let thread = thread::spawn("otlp", move || exporter.run())?;
    Ok(Exporting { alive: Some(alive), thread: Some(thread) })
}

struct Exporter {
    export: Box<dyn Export>,
    service: Arc<str>,
    spans: Receiver<Span>,
    /// Carries no value; its other end is gone when the program ends.
    ended: Receiver<()>,
    told: Seldom,
}

impl Exporter {
    fn run(self) {
        loop {
            let (batch, is_over) = self.gather();
            if !batch.is_empty() {
                self.send(&batch, is_over);
            }
            if is_over && self.spans.is_empty() {
                return;
            }
        }
    }

    /// Waits for spans, and then a while for more. Also returns true if the program ends.
    fn gather(&self) -> (Vec<Span>, bool) {
        let mut batch = Vec::new();
        let first = select! {
            recv(self.spans) -> span => span.ok(),
            recv(self.ended) -> _ => None,
        };
        let mut is_over = first.is_none();
        batch.extend(first);
        let until = Instant::now() + OTLP_INTERVAL;
        while batch.len() < OTLP_BATCH_SPANS_MAX {
            if is_over {
                let Ok(span) = self.spans.try_recv() else { break };
                batch.push(span);
                continue;
            }
            let left = until.saturating_duration_since(Instant::now());
            select! {
                recv(self.spans) -> span => batch.extend(span.ok()),
                recv(self.ended) -> _ => is_over = true,
                default(left) => break,
            }
        }
        (batch, is_over)
    }

    fn send(&self, batch: &[Span], is_over: bool) {
        let body = document(&self.service, batch).to_string();
        let n = u64::try_from(batch.len()).unwrap_or(u64::MAX);
        let attempts = if is_over { 1 } else { OTLP_ATTEMPTS_MAX };
        let mut why = String::new();
        for attempt in 1..=attempts {
            match self.export.export(&body) {
                Exported::Taken => {
                    SENT.fetch_add(n, Ordering::Relaxed);
                    return;
                }
                Exported::NotNow(what) => why = what,
                Exported::Refused(what) => {
                    why = what;
                    break;
                }
            }
            let wait = OTLP_RETRY_INTERVAL * attempt;
            if attempt < attempts
                && self.ended.recv_timeout(wait) != Err(RecvTimeoutError::Timeout)
            {
                break;
            }
        }
        FAILED.fetch_add(n, Ordering::Relaxed);
        if let Some(more) = self.told.turn() {
            log::warn!(target: "otlp", "{n} spans are lost: {why}{more}");
        }
    }
}

/// An `ExportTraceServiceRequest` in OTLP's JSON encoding: ids in hexadecimal, numbers of 64 bits as
/// text, enumerations as numbers.
fn document(service: &str, spans: &[Span]) -> Value {
    let scope = json!({ "name": "trunkline", "version": env!("CARGO_PKG_VERSION") });
    let resource = [
        (names::SERVICE_NAME, service.to_owned()),
        (names::SERVICE_VERSION, env!("CARGO_PKG_VERSION").to_owned()),
    ];
    let spans: Vec<Value> = spans.iter().map(span).collect();
    json!({ "resourceSpans": [{
        "resource": { "attributes": attributes(&resource) },
        "scopeSpans": [{ "scope": scope, "spans": spans }],
    }] })
}

fn attributes(all: &[(&'static str, String)]) -> Value {
    let one = |(key, value): &(&str, String)| json!({ "key": key, "value": { "stringValue": value } });
    all.iter().map(one).collect()
}

fn span(span: &Span) -> Value {
    let kind = match span.kind {
        SpanKind::Server => 2,
        SpanKind::Client => 3,
    };
    let mut told = json!({
        "traceId": to_hex(&span.context.trace_id),
        "spanId": to_hex(&span.context.span_id),
        "name": span.name,
        "kind": kind,
        "startTimeUnixNano": nanoseconds(span.began),
        "endTimeUnixNano": nanoseconds(span.began + span.took),
        "attributes": attributes(&span.attributes),
        "status": if span.is_error { json!({ "code": 2 }) } else { json!({}) },
    });
    if let (Some(parent), Some(fields)) = (span.parent, told.as_object_mut()) {
        fields.insert("parentSpanId".to_owned(), to_hex(&parent).into());
    }
    told
}

fn nanoseconds(time: SystemTime) -> String {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::trace_context::TraceContext;

    #[test]
    fn a_span_is_written_as_otlp_wants_it() {
        let context = TraceContext { trace_id: [1; 16], span_id: [2; 8], is_sampled: true };
        let one = Span {
            context,
            parent: Some([3; 8]),
            kind: SpanKind::Client,
            name: "tools/call x".to_owned(),
            began: UNIX_EPOCH + Duration::from_secs(1),
            took: Duration::from_nanos(5),
            attributes: vec![(names::METHOD, "tools/call".to_owned())],
            is_error: true,
        };
        let told = document("edge", &[one]);
        let span = &told["resourceSpans"][0]["scopeSpans"][0]["spans"][0];
        assert_eq!(span["traceId"], "01".repeat(16));
        assert_eq!(span["parentSpanId"], "03".repeat(8));
        assert_eq!((&span["kind"], &span["status"]["code"]), (&json!(3), &json!(2)));
        assert_eq!(span["startTimeUnixNano"], "1000000000");
        assert_eq!(span["endTimeUnixNano"], "1000000005");
        let service = &told["resourceSpans"][0]["resource"]["attributes"][0]["value"];
        assert_eq!(service["stringValue"], "edge");
    }
}
