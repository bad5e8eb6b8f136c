//! An upstream whose transport is found out: Streamable HTTP first, then HTTP+SSE (2025-11-25,
//! basic/transports, Backwards Compatibility). What was found holds until it fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Instant;

use crate::protocol::call::{CallSink, Outcome, Outgoing, PrincipalId};
use crate::wait::Wait;

use super::context::{Opened, Transport, no_session};
use crate::upstream::failure::Failure;
use crate::upstream::http_client::HttpConnection;
use crate::upstream::transport::http::HttpContext;
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
    pub(crate) fn new(http: Arc<HttpContext>, found: Arc<AtomicU8>) -> Auto {
        let streamable = StreamableHttp::new(http.clone());
        Auto { streamable, sse: HttpSse::new(http), found }
    }

    fn found(&self) -> Option<&dyn Transport> {
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
    fn find(
        &self,
        connection: &mut HttpConnection,
        wait: &Arc<Wait>,
    ) -> Result<&dyn Transport, Failure> {
        if let Some(found) = self.found() {
            return Ok(found);
        }
        let refused = match self.streamable.open(connection, wait) {
            Ok(_) => {
                self.found.store(STREAMABLE_HTTP, Ordering::Release);
                return Ok(&self.streamable);
            }
            Err(failure) if self.streamable.hints_at_http_sse() => failure,
            Err(failure) => return Err(failure),
        };
        match self.sse.open(connection, wait) {
            Ok(_) => {
                self.found.store(HTTP_SSE, Ordering::Release);
                Ok(&self.sse)
            }
            Err(failure) => {
                // Where the path is wrong, both are told the same.
                let message = if refused.message == failure.message {
                    refused.message
                } else {
                    format!(
                        "as Streamable HTTP: {}; as HTTP+SSE: {}",
                        refused.message, failure.message
                    )
                };
                Err(Failure { message, ..failure })
            }
        }
    }
}

impl Transport for Auto {
    fn open(
        &self,
        connection: &mut HttpConnection,
        wait: &Arc<Wait>,
    ) -> Result<Opened, Failure> {
        self.find(connection, wait)?.open(connection, wait)
    }

    fn request(
        &self,
        connection: &mut HttpConnection,
        outgoing: &Outgoing<'_>,
        wait: &Arc<Wait>,
        sink: &dyn CallSink,
    ) -> Result<Outcome, Failure> {
        self.find(connection, wait)?.request(connection, outgoing, wait, sink)
    }

    fn request_open(
        &self,
        connection: &mut HttpConnection,
        outgoing: &Outgoing<'_>,
        wait: &Arc<Wait>,
        sink: &dyn CallSink,
    ) -> Result<Outcome, Failure> {
        self.found().ok_or_else(no_session)?.request_open(connection, outgoing, wait, sink)
    }

    fn probe(
        &self,
        connection: &mut HttpConnection,
        wait: &Arc<Wait>,
        why: &Failure,
    ) -> Result<(), Failure> {
        self.found().ok_or_else(no_session)?.probe(connection, wait, why)
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

    fn backing_off(&self, _: &Failure, _: Instant) {
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
