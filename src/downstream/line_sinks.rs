//! Where messages for a client of lines go: during a session's request, outside of any, as the
//! answer to a stateless request, and for a subscription.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::event_stream::{OnEnd, Place};
use super::line_queue::LineQueue;
use super::requests::MessageSink;
use super::stdio::LineClient;
use crate::protocol::jsonrpc::RequestId;
use crate::session::{EncodedEvent, EventSink};
use crate::wait::{ClientWatch, Interrupted, Wait};

/// Where messages go while a session's request is served.
pub(super) struct LineSink<'a> {
    pub(super) out: &'a LineQueue,
    pub(super) is_cancelled: &'a AtomicBool,
}

impl MessageSink for LineSink<'_> {
    fn message(&self, text: &str) {
        self.out.put(EncodedEvent::of(text));
    }

    /// The client goes with the process.
    fn client(&self) -> Option<ClientWatch> {
        None
    }

    /// The lines come in order, so a cancellation that came before this is this call's.
    fn entered(&self, wait: &Wait) {
        if self.is_cancelled.load(Ordering::SeqCst) {
            wait.interrupt(Interrupted::Cancelled);
        }
    }
}

/// Where messages go that belong to no request.
pub(super) struct Unasked {
    pub(super) out: Arc<LineQueue>,
}

impl EventSink for Unasked {
    fn send(&self, event: EncodedEvent) -> bool {
        // One for which there is no room is lost, and not the client.
        self.out.offer(event);
        self.out.is_open()
    }

    fn close(&self) {}

    fn is_open(&self) -> bool {
        self.out.is_open()
    }
}

/// The answer to a stateless request.
pub(super) struct LineAnswer {
    pub(super) client: Arc<LineClient>,
    pub(super) id: RequestId,
    pub(super) watch: ClientWatch,
}

impl LineAnswer {
    /// What reports that the client has cancelled it.
    pub(super) fn client(&self) -> ClientWatch {
        self.watch.clone()
    }

    /// Says something of it. Nothing is said of what was cancelled.
    pub(super) fn give(&self, event: EncodedEvent) {
        if self.client.awaits(&self.id) {
            self.client.out().put(event);
        }
    }

    /// Makes a subscription of it. None where it was cancelled meanwhile.
    pub(super) fn into_sink(self, place: Place, on_end: OnEnd) -> Option<Arc<dyn EventSink>> {
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
pub(super) struct Subscribed {
    out: Arc<LineQueue>,
    is_open: AtomicBool,
    on_end: Mutex<Option<OnEnd>>,
    _place: Place,
}

impl Subscribed {
    /// Its client wants no more of it.
    pub(super) fn end(&self) {
        self.is_open.store(false, Ordering::SeqCst);
        let on_end = self.on_end.lock().unwrap_or_else(PoisonError::into_inner).take();
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
