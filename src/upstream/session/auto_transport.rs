//! An upstream whose transport is found out: Streamable HTTP first, then HTTP+SSE (2025-11-25,
//! basic/transports, Backwards Compatibility). What was found holds until it fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Instant;

use crate::protocol::call::{CallSink, Outcome, Outgoing, PrincipalId};
use crate::wait::Wait;

use super::context::{Link, Opened, no_session};
use crate::upstream::failure::Trouble;
use crate::upstream::http_client::Lane;
use crate::upstream::transport::http::HttpCore;
use crate::upstream::transport::http_sse::HttpSse;
use crate::upstream::transport::streamable_http::StreamableHttp;

const UNKNOWN: u8 = 0;
const STREAMABLE_HTTP: u8 = 1;
const HTTP_SSE: u8 = 2;

/// Both transports, and which one it is.
pub(crate) struct Auto {
    streamable: StreamableHttp,
    sse: HttpSse,
    /// Shared by all sessions to the upstream.
    found: Arc<AtomicU8>,
}

impl Auto {
    /// `found` is the same for all sessions to an upstream, and begins with zero.
    pub(crate) fn new(http: Arc<HttpCore>, found: Arc<AtomicU8>) -> Auto {
        let streamable = StreamableHttp::new(http.clone());
        Auto { streamable, sse: HttpSse::new(http), found }
    }

    fn found(&self) -> Option<&dyn Link> {
        match self.found.load(Ordering::Acquire) {
            STREAMABLE_HTTP => Some(&self.streamable),
            HTTP_SSE => Some(&self.sse),
            // Another session has failed; what this one speaks is known while it is open.
            _ if self.streamable.is_open() => Some(&self.streamable),
            _ if self.sse.is_open() => Some(&self.sse),
            _ => None,
        }
    }

    /// The transport that the upstream speaks; its session is open afterwards.
    fn find(&self, lane: &mut Lane, wait: &Arc<Wait>) -> Result<&dyn Link, Trouble> {
        if let Some(found) = self.found() {
            return Ok(found);
        }
        let refused = match self.streamable.open(lane, wait) {
            Ok(_) => {
                self.found.store(STREAMABLE_HTTP, Ordering::Release);
                return Ok(&self.streamable);
            }
            Err(trouble) if self.streamable.hints_at_http_sse() => trouble,
            Err(trouble) => return Err(trouble),
        };
        match self.sse.open(lane, wait) {
            Ok(_) => {
                self.found.store(HTTP_SSE, Ordering::Release);
                Ok(&self.sse)
            }
            Err(trouble) => {
                // Where the path is wrong, both are told the same.
                let message = if refused.message == trouble.message {
                    refused.message
                } else {
                    format!(
                        "as Streamable HTTP: {}; as HTTP+SSE: {}",
                        refused.message, trouble.message
                    )
                };
                Err(Trouble { message, ..trouble })
            }
        }
    }
}

impl Link for Auto {
    fn open(&self, lane: &mut Lane, wait: &Arc<Wait>) -> Result<Opened, Trouble> {
        self.find(lane, wait)?.open(lane, wait)
    }

    fn request(
        &self,
        lane: &mut Lane,
        outgoing: &Outgoing<'_>,
        wait: &Arc<Wait>,
        sink: &mut dyn CallSink,
    ) -> Result<Outcome, Trouble> {
        self.find(lane, wait)?.request(lane, outgoing, wait, sink)
    }

    fn request_open(
        &self,
        lane: &mut Lane,
        outgoing: &Outgoing<'_>,
        wait: &Arc<Wait>,
        sink: &mut dyn CallSink,
    ) -> Result<Outcome, Trouble> {
        self.found().ok_or_else(no_session)?.request_open(lane, outgoing, wait, sink)
    }

    fn probe(&self, lane: &mut Lane, wait: &Arc<Wait>, why: &Trouble) -> Result<(), Trouble> {
        self.found().ok_or_else(no_session)?.probe(lane, wait, why)
    }

    fn forget(&self, generation: u64) {
        // Generations are counted over both.
        self.streamable.forget(generation);
        self.sse.forget(generation);
    }

    fn leave(&self) {
        self.streamable.leave();
        self.sse.leave();
    }

    fn backing_off(&self, _: &Trouble, _: Instant) {
        // It may speak another transport when it is back.
        self.found.store(UNKNOWN, Ordering::Release);
    }

    fn tell(&self, whose: &PrincipalId, text: String) {
        if let Some(found) = self.found() {
            found.tell(whose, text);
        }
    }

    fn is_open(&self) -> bool {
        self.streamable.is_open() || self.sse.is_open()
    }

    fn close(&self) {
        self.streamable.close();
        self.sse.close();
    }

    fn transport(&self) -> &'static str {
        self.found().map_or("auto", |found| found.transport())
    }
}
