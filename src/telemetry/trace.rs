//! The spans of a request: its parent, its own span where it is sampled, and the headers passed
//! on to servers.

use std::net::IpAddr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::Sender;

use super::ids::random;
use super::names;
use super::outcome::{CallOutcome, Door};
use super::trace_context::{TraceContext, to_hex};
use crate::limits::ACCESS_TEXT_CHARS_MAX;
use crate::protocol::method::Method;
use crate::protocol::raw::{self, RawObject};

/// Bytes of a `tracestate` that is passed on (W3C Trace Context, section 3.3.1.5).
const TRACESTATE_BYTES_MAX: usize = 512;

/// The kind of a span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SpanKind {
    /// A request of a client.
    Server,
    /// A request to a server.
    Client,
}

/// A span that has ended.
#[derive(Debug, Clone)]
pub(super) struct Span {
    pub(super) context: TraceContext,
    pub(super) parent: Option<[u8; 8]>,
    pub(super) kind: SpanKind,
    pub(super) name: String,
    pub(super) began: SystemTime,
    pub(super) took: Duration,
    pub(super) attributes: Vec<(&'static str, String)>,
    pub(super) is_error: bool,
}

/// The destination of spans.
#[derive(Debug)]
pub(super) struct Recorder {
    pub(super) queue: Sender<Span>,
    /// A trace that begins here is sampled where a random number is below this.
    pub(super) threshold: u64,
}

/// The recorder, set once, where traces are wanted.
static RECORDER: OnceLock<Recorder> = OnceLock::new();
static SPANS_DROPPED: AtomicU64 = AtomicU64::new(0);

/// Sets the recorder. False if there is one already.
pub(super) fn record(recorder: Recorder) -> bool {
    RECORDER.set(recorder).is_ok()
}

/// Spans that were dropped because their queue was full.
pub(super) fn dropped() -> u64 {
    SPANS_DROPPED.load(Ordering::Relaxed)
}

fn push(span: Span) {
    let queued = RECORDER.get().is_some_and(|recorder| recorder.queue.try_send(span).is_ok());
    if !queued {
        SPANS_DROPPED.fetch_add(1, Ordering::Relaxed);
    }
}

/// A span that is sampled.
#[derive(Debug, Clone, Copy)]
pub(super) struct Open {
    context: TraceContext,
    parent: Option<[u8; 8]>,
    began: SystemTime,
}

impl Open {
    fn new(parent: Option<TraceContext>) -> Open {
        let trace_id = parent.map_or_else(new_trace_id, |parent| parent.trace_id);
        let context = TraceContext { trace_id, span_id: new_span_id(), is_sampled: true };
        let parent = parent.map(|parent| parent.span_id);
        Open { context, parent, began: SystemTime::now() }
    }
}

fn new_trace_id() -> [u8; 16] {
    let mut id = [0; 16];
    let numbers = [random(), random() | 1].map(u64::to_be_bytes);
    for (byte, new) in id.iter_mut().zip(numbers.concat()) {
        *byte = new;
    }
    id
}

fn new_span_id() -> [u8; 8] {
    (random() | 1).to_be_bytes()
}

/// The trace of the request that a thread serves.
#[derive(Debug, Default)]
pub(super) struct Trace {
    /// The parent, from the HTTP head or from the message.
    parent: Option<TraceContext>,
    /// `tracestate` of the HTTP head.
    state: String,
    span: Option<Open>,
    /// The parent that requests to servers carry.
    outgoing: Option<TraceContext>,
    rpc_id: String,
    session: String,
}

impl Trace {
    pub(super) fn begin(&mut self, traceparent: Option<&str>, tracestate: Option<&str>) {
        self.parent = traceparent.and_then(TraceContext::parse);
        (self.span, self.outgoing) = (None, None);
        self.state.clear();
        let is_plain = |text: &&str| {
            text.len() <= TRACESTATE_BYTES_MAX
                && text.bytes().all(|it| (0x20..0x7f).contains(&it))
        };
        if let (Some(_), Some(state)) = (self.parent, tracestate.filter(is_plain)) {
            self.state.push_str(state);
        }
    }

    /// Notes the beginning of a message. A parent in its `_meta` comes before one in the head.
    pub(super) fn ask(&mut self, params: Option<&str>) {
        (self.span, self.outgoing) = (None, None);
        self.rpc_id.clear();
        self.session.clear();
        let Some(recorder) = RECORDER.get() else { return };
        let parent = params.and_then(parent_of).or(self.parent);
        let is_sampled = parent.map_or_else(
            || random() < recorder.threshold,
            |parent| parent.is_sampled && recorder.threshold > 0,
        );
        self.span = is_sampled.then(|| Open::new(parent));
    }

    pub(super) fn in_session(&mut self, rpc_id: &str, session: Option<&str>) {
        if self.span.is_none() {
            return;
        }
        self.rpc_id.extend(rpc_id.chars().take(ACCESS_TEXT_CHARS_MAX));
        if let Some(session) = session {
            // A digest stands for the id, because the id itself opens the session.
            let digest = ring::digest::digest(&ring::digest::SHA256, session.as_bytes());
            self.session = to_hex(digest.as_ref().get(..8).unwrap_or_default());
        }
    }

    /// The id of the trace, where there is one.
    pub(super) fn id(&self) -> Option<String> {
        let context = self.span.map(|span| span.context).or(self.outgoing).or(self.parent)?;
        Some(to_hex(&context.trace_id))
    }

    /// The part that goes with a call to another thread.
    pub(super) fn carried(&self) -> Trace {
        Trace {
            parent: self.parent,
            state: self.state.clone(),
            span: self.span,
            ..Trace::default()
        }
    }

    /// Calls `set` with the headers of a request to a server.
    pub(super) fn write(&self, set: &mut impl FnMut(&'static str, &str)) {
        if let Some(outgoing) = self.outgoing {
            set("traceparent", &outgoing.to_text());
            if !self.state.is_empty() {
                set("tracestate", &self.state);
            }
        }
    }

    /// Begins a request to a server for the message: its `_meta` carries the parent.
    pub(super) fn ask_upstream(&mut self, meta: &mut Option<RawObject<'_>>) -> Asking {
        let own = self.span.map(|span| Open::new(Some(span.context)));
        let said = || {
            let text = meta.as_ref()?.string("traceparent").ok()??;
            TraceContext::parse(&text)
        };
        self.outgoing = own.map(|open| open.context).or_else(said).or(self.parent);
        if let Some(outgoing) = self.outgoing {
            let meta = meta.get_or_insert_default();
            meta.set("traceparent", raw::string(&outgoing.to_text()));
            if !self.state.is_empty() && meta.get("tracestate").is_none() {
                meta.set("tracestate", raw::string(&self.state));
            }
        }
        Asking::begin(own)
    }

    /// Notes the answer of the message, and ends its span.
    pub(super) fn answered(&mut self, told: &Answered<'_>) {
        let Some(open) = self.span.take() else { return };
        let mut attributes = told.attributes();
        let more = [(names::RPC_ID, &self.rpc_id), (names::SESSION, &self.session)];
        let more = more.into_iter().filter(|(_, text)| !text.is_empty());
        attributes.extend(more.map(|(name, text)| (name, text.clone())));
        // Requests to a server from here on do not belong to the message.
        self.outgoing = None;
        push(told.span(open, SpanKind::Server, attributes));
    }
}

/// The facts about an answered message for its span.
#[derive(Debug)]
pub(super) struct Answered<'a> {
    pub(super) door: Door,
    /// The method; none if the gateway does not know it.
    pub(super) method: Option<Method>,
    pub(super) outcome: CallOutcome,
    pub(super) took: Duration,
    pub(super) server: &'a str,
    pub(super) tool: &'a str,
    pub(super) key: &'a str,
    pub(super) client: &'a str,
    pub(super) peer: Option<IpAddr>,
    pub(super) id: &'a str,
}

impl Answered<'_> {
    fn attributes(&self) -> Vec<(&'static str, String)> {
        let door = self.door.as_str();
        let mut attributes = of_message(self.method, self.tool, self.outcome);
        let more = [
            (names::DOOR, door),
            (names::SERVER, self.server),
            (names::KEY, self.key),
            (names::USER_AGENT, self.client),
            (names::REQUEST, self.id),
        ];
        let more = more.into_iter().filter(|(_, text)| !text.is_empty());
        attributes.extend(more.map(|(name, text)| (name, text.to_owned())));
        attributes.extend(self.peer.map(|ip| (names::CLIENT, ip.to_string())));
        attributes
    }

    fn span(
        &self,
        open: Open,
        kind: SpanKind,
        attributes: Vec<(&'static str, String)>,
    ) -> Span {
        Span {
            context: open.context,
            parent: open.parent,
            kind,
            name: span_name(self.method, self.tool),
            began: open.began,
            took: self.took,
            attributes,
            is_error: is_error(self.outcome),
        }
    }
}

fn is_error(outcome: CallOutcome) -> bool {
    match outcome {
        CallOutcome::Ok | CallOutcome::Cancelled => false,
        CallOutcome::ToolError
        | CallOutcome::ClientError
        | CallOutcome::UpstreamError
        | CallOutcome::Timeout
        | CallOutcome::Overloaded => true,
    }
}

/// `{mcp.method.name} {target}`, where there is a target of few values.
fn span_name(method: Option<Method>, target: &str) -> String {
    let method = method.map_or("other", Method::as_str);
    if target.is_empty() { method.to_owned() } else { format!("{method} {target}") }
}

fn of_message(
    method: Option<Method>,
    target: &str,
    outcome: CallOutcome,
) -> Vec<(&'static str, String)> {
    let mut attributes =
        vec![(names::METHOD, method.map_or("other", Method::as_str).to_owned())];
    if method == Some(Method::ToolsCall) {
        attributes.push((names::OPERATION, names::EXECUTE_TOOL.to_owned()));
    }
    let of_target = match method {
        Some(Method::ToolsCall) => Some(names::TOOL),
        Some(Method::PromptsGet) => Some(names::PROMPT),
        _ => None,
    };
    if let (Some(name), false) = (of_target, target.is_empty()) {
        attributes.push((name, target.to_owned()));
    }
    if is_error(outcome) {
        attributes.push((names::ERROR, outcome.as_str().to_owned()));
    }
    attributes
}

/// The parent that a message's `_meta` names.
fn parent_of(params: &str) -> Option<TraceContext> {
    // A search of the text mostly decides.
    if !params.contains("\"traceparent\"") {
        return None;
    }
    let params = RawObject::parse(params).ok()?;
    let meta = RawObject::parse(params.get("_meta")?).ok()?;
    TraceContext::parse(&meta.string("traceparent").ok()??)
}

/// The span of a request to a server for this thread's request.
#[derive(Debug)]
pub struct Asking {
    open: Option<Open>,
    began: Instant,
}

impl Asking {
    /// The span of a request that begins now, if it has one.
    pub(super) fn begin(open: Option<Open>) -> Asking {
        Asking { open, began: Instant::now() }
    }

    /// Ends the span: the server has answered, or failed.
    pub fn answered(
        self,
        (server, method, target): (&str, &str, &str),
        outcome: CallOutcome,
    ) -> Duration {
        let took = self.began.elapsed();
        if let Some(open) = self.open {
            let method = Method::parse(method);
            let mut attributes = of_message(method, target, outcome);
            attributes.push((names::SERVER, server.to_owned()));
            push(Span {
                context: open.context,
                parent: open.parent,
                kind: SpanKind::Client,
                name: span_name(method, target),
                began: open.began,
                took,
                attributes,
                is_error: is_error(outcome),
            });
        }
        took
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parent_is_found_in_the_metadata_alone() {
        let traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let found = format!(r#"{{"name":"x","_meta":{{"traceparent":"{traceparent}"}}}}"#);
        assert_eq!(parent_of(&found).unwrap().to_text(), traceparent);
        let elsewhere = format!(r#"{{"arguments":{{"traceparent":"{traceparent}"}}}}"#);
        for params in [elsewhere.as_str(), "{}", "", r#"{"_meta":{"traceparent":"x"}}"#] {
            assert_eq!(parent_of(params), None, "{params}");
        }
    }

    #[test]
    fn new_ids_are_never_zero() {
        assert!((0..100).all(|_| new_span_id() != [0; 8] && new_trace_id() != [0; 16]));
        let open = Open::new(None);
        let child = Open::new(Some(open.context));
        assert_eq!(child.context.trace_id, open.context.trace_id);
        assert_eq!(child.parent, Some(open.context.span_id));
    }
}
