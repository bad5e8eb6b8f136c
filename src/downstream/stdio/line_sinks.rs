//! Sinks of messages to a client of lines: for a session's request, outside of requests, for the
//! answer to a stateless request, and for a subscription.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::LineClient;
use super::line_queue::LineQueue;
use crate::downstream::answer::MessageSink;
use crate::downstream::event_stream::{OnEnd, Place};
use crate::protocol::jsonrpc::RequestId;
use crate::session::{EncodedEvent, EventSink};
use crate::sync::Mutex;
use crate::wait::{ClientWatch, Interrupted, Wait};

/// The sink of messages while a session's request is served.
pub(crate) struct LineSink<'a> {
    pub(crate) out: &'a LineQueue,
    pub(crate) is_cancelled: &'a AtomicBool,
}

impl MessageSink for LineSink<'_> {
    fn message(&self, text: &str) {
        self.out.put(EncodedEvent::of(text));
    }

    /// The client ends with the process.
    fn client(&self) -> Option<ClientWatch> {
        None
    }

    /// The lines come in order, so an earlier cancellation with this id is for this call.
    fn entered(&self, wait: &Wait) {
        if self.is_cancelled.load(Ordering::SeqCst) {
            wait.interrupt(Interrupted::Cancelled);
        }
    }
}

/// The sink of messages that belong to no request.
pub(crate) struct UnsolicitedSink {
    pub(crate) out: Arc<LineQueue>,
}

impl EventSink for UnsolicitedSink {
    fn send(&self, event: EncodedEvent) -> bool {
        // A message without room is lost, but the client is not.
        self.out.offer(event);
        self.out.is_open()
    }

    fn close(&self) {}

    fn is_open(&self) -> bool {
        self.out.is_open()
    }
}

/// The answer to a stateless request.
pub(crate) struct LineAnswer {
    pub(crate) client: Arc<LineClient>,
    pub(crate) id: RequestId,
    pub(crate) watch: ClientWatch,
}

impl LineAnswer {
    /// A watch that reports that the client has cancelled the request.
    pub(crate) fn client(&self) -> ClientWatch {
        self.watch.clone()
    }

    /// Sends a message of the answer. Nothing is sent after a cancellation.
    pub(crate) fn give(&self, event: EncodedEvent) {
        if self.client.awaits(&self.id) {
            self.client.out().put(event);
        }
    }

    /// Turns the answer into a subscription. None where it was cancelled meanwhile.
    pub(crate) fn into_sink(self, place: Place, on_end: OnEnd) -> Option<Arc<dyn EventSink>> {
        let subscribed = Arc::new(Subscribed {
            out: self.client.out().clone(),
            is_open: AtomicBool::new(true),
            on_end: Mutex::new(Some(on_end)),
            _place: place,
        });
        self.client.listens(&self.id, &subscribed).then_some(subscribed)
    }
}

/// An open `subscriptions/listen`.
pub(crate) struct Subscribed {
    out: Arc<LineQueue>,
    is_open: AtomicBool,
    on_end: Mutex<Option<OnEnd>>,
    _place: Place,
}

impl Subscribed {
    /// Ends the subscription because its client has cancelled it.
    pub(crate) fn end(&self) {
        self.is_open.store(false, Ordering::SeqCst);
        let on_end = self.on_end.lock().take();
        if let Some(on_end) = on_end {
            on_end();
        }
    }
}

impl EventSink for Subscribed {
    fn send(&self, event: EncodedEvent) -> bool {
        if self.is_open() {
            self.out.offer(event);
        }
        self.is_open()
    }

    fn close(&self) {
        self.end();
    }

    fn is_open(&self) -> bool {
        self.is_open.load(Ordering::SeqCst) && self.out.is_open()
    }
}
