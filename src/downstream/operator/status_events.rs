//! `/status/events`: calls and refusals as they happen, as a stream of events. An admin gets all
//! of them; another client those of its own key.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, MutexGuard, Weak};
use std::time::Instant;

use serde_json::{Value, json};

use super::{ms, refusal, refuse, seconds};
use crate::access::policy::{Principal, Scope};
use crate::downstream::Front;
use crate::downstream::event_stream::StreamHandle;
use crate::downstream::legacy::streamable_http::accept_of;
use crate::downstream::status_codes::{self, Problem, STREAM_HEADERS};
use crate::error::CallError;
use crate::http::{Head, Responder};
use crate::limits::{ACTIVITY_EVENTS_MAX, ACTIVITY_WITHIN};
use crate::protocol::headers::{self, EVENT_STREAM};
use crate::protocol::sse;
use crate::session::EncodedEvent;
use crate::sync::Mutex;
use crate::telemetry::activity;
use crate::telemetry::record::ToldRequest;
use crate::telemetry::window::Window;

/// The activities that a watcher may see.
#[derive(Debug)]
enum Sees {
    Everything,
    OfKey(Arc<str>),
}

impl Sees {
    /// None for a client that only its address tells from others.
    fn of(principal: &Principal) -> Option<Sees> {
        if principal.is_admin {
            return Some(Sees::Everything);
        }
        principal.name.clone().map(Sees::OfKey)
    }

    fn is_of(&self, request: &ToldRequest) -> bool {
        match self {
            Sees::Everything => true,
            Sees::OfKey(name) => request.key == **name,
        }
    }
}

/// One open stream of a watcher.
#[derive(Debug)]
struct Watching {
    number: u64,
    sees: Sees,
    told: Window,
    stream: StreamHandle,
}

#[derive(Debug, Default)]
struct Open {
    all: Vec<Watching>,
    /// Streams that were admitted before this admission are refused.
    admission: u64,
}

/// The open streams. Bounded by `limits.streams`.
#[derive(Debug, Default)]
pub struct Watchers {
    open: Mutex<Open>,
    last: AtomicU64,
}

impl Watchers {
    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock()
    }

    /// Adds a watcher, and sends it `hello` before all else; false if a reload came between.
    fn add(self: &Arc<Self>, watching: Watching, hello: EncodedEvent, admission: u64) -> bool {
        let mut open = self.open();
        if admission < open.admission {
            return false;
        }
        // A client that has read `hello` is told of whatever it asks next.
        let this: Weak<Self> = Arc::downgrade(self);
        activity::watch(Some(this));
        // A stream that has ended already would not be taken out again.
        let is_there = watching.stream.send(hello).is_ok();
        if is_there {
            open.all.push(watching);
        } else if open.all.is_empty() {
            activity::watch(None);
        }
        is_there
    }

    fn remove(&self, number: u64) {
        let mut open = self.open();
        open.all.retain(|it| it.number != number);
        if open.all.is_empty() {
            activity::watch(None);
        }
    }

    /// Ends all streams after the queued events; a client that may watch under the admission with
    /// this number or a later one opens another.
    pub fn end_before(&self, admission: u64) {
        let mut open = self.open();
        open.admission = admission;
        let ended = std::mem::take(&mut open.all);
        activity::watch(None);
        drop(open);
        ended.iter().for_each(|it| it.stream.close());
    }
}

impl activity::Watcher for Watchers {
    fn told(&self, request: &ToldRequest) {
        let now = Instant::now();
        let turn = |it: &mut Watching| {
            if !it.sees.is_of(request) {
                return None;
            }
            let left_out = it.told.turn(now, ACTIVITY_WITHIN, ACTIVITY_EVENTS_MAX)?;
            Some((it.stream.clone(), left_out, matches!(it.sees, Sees::OfKey(_))))
        };
        let to: Vec<_> = self.open().all.iter_mut().filter_map(turn).collect();
        if to.is_empty() {
            return;
        }
        let (said, as_its_client_knows) = (event_of(request), event_of(&known(request)));
        for (stream, left_out, of_key) in to {
            if left_out > 0 {
                let left_out = event("left_out", &json!({ "count": left_out }));
                stream.send(left_out).ok();
            }
            let said = if of_key { &as_its_client_knows } else { &said };
            // A stream that has ended is taken out by its end.
            stream.send(said.clone()).ok();
        }
    }
}

/// The activity for a key that is no admin's: only operators may know that an item exists which
/// is hidden from the key.
fn known(request: &ToldRequest) -> ToldRequest {
    let mut known = request.clone();
    if let Some(refused) = &mut known.refused {
        refused.reason = refused.reason_told;
        if refused.reason.starts_with("unknown_") {
            known.tool.clear();
        }
    }
    known
}

fn event(name: &str, data: &Value) -> EncodedEvent {
    EncodedEvent::from(sse::event(name, &data.to_string()))
}

fn event_of(request: &ToldRequest) -> EncodedEvent {
    match &request.refused {
        None => event("call", &call(request)),
        Some(refused) => event("refused", &refusal(request, refused)),
    }
}

fn call(done: &ToldRequest) -> Value {
    json!({
        "at": seconds(done.at),
        "id": done.id,
        "peer": done.peer,
        "key": done.key,
        "client": done.client,
        "door": done.door,
        "method": done.method,
        "tool": done.tool,
        "server": done.server,
        "outcome": done.outcome,
        "status": done.status,
        "ms": ms(done.took),
        "message": done.message,
    })
}

/// Opens the stream. Its first event, `open`, says if it has all activities.
pub(crate) fn watch(front: &Front, head: &Head, scope: &Scope, responder: Responder) {
    let Some(sees) = Sees::of(&scope.principal) else {
        return refuse(responder, &Problem::not_admin());
    };
    if front.is_stopping() {
        return refuse(responder, &Problem::from_call(&CallError::ShuttingDown));
    }
    if !headers::accepts(accept_of(head).as_deref(), EVENT_STREAM) {
        return refuse(responder, &Problem::not_acceptable(EVENT_STREAM));
    }
    let place = match front.place(scope) {
        Ok(place) => place,
        Err(problem) => return refuse(responder, &problem),
    };
    let Ok(stream) = responder.into_stream(status_codes::OK, &STREAM_HEADERS, b"") else {
        return;
    };
    let number = front.watchers.last.fetch_add(1, Ordering::Relaxed);
    let watchers = front.watchers.clone();
    let on_end = Box::new(move || watchers.remove(number));
    let Ok(stream) = place.open("/status/events", stream, on_end) else { return };
    let everything = matches!(sees, Sees::Everything);
    let hello = event("open", &json!({ "everything": everything }));
    let told = Window::new(Instant::now());
    let watching = Watching { number, sees, told, stream: stream.clone() };
    if !front.watchers.add(watching, hello, scope.admission) {
        stream.close();
    }
}
