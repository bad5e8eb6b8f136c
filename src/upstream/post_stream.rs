//! The stream that answers one POST: progress on the way, then the answer; and taking it up again
//! where the server closed it before.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use ureq::http::{HeaderName, HeaderValue, Method as HttpMethod};

use crate::error::Stage;
use crate::protocol::call::{CallSink, Notice};
use crate::protocol::jsonrpc::RpcError;
use crate::protocol::raw::{Keeper, Raw};
use crate::protocol::sse::Event;
use crate::wait::Wait;

use super::connection::{Kind, Refusal, Trouble, cut};
use super::correlation::{self, Incoming};
use super::exchange::{Answer, Ask, Lane};
use super::http::{Next, StreamEnd, read_events};
use super::streamable_http::{LAST_EVENT_ID, Phase, Post, StreamableHttp, Verdict, verdict};

/// The stream that answers one POST.
pub(super) struct PostStream<'a> {
    pub(super) link: &'a StreamableHttp,
    pub(super) post: Post<'a>,
    pub(super) wait: &'a Arc<Wait>,
    /// Both the reader's ticks and its events go there, never at once.
    pub(super) sink: RefCell<&'a mut dyn CallSink>,
}

/// What has come on it.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) found: Option<Result<Result<Raw, RpcError>, Trouble>>,
    pub(super) last_id: Option<HeaderValue>,
    pub(super) retry: Option<Duration>,
}

impl PostStream<'_> {
    pub(super) fn read(
        &mut self,
        answer: &mut Answer,
        seen: &mut Seen,
    ) -> Result<StreamEnd, Trouble> {
        let core = &self.link.http.core;
        let mut idle = || self.sink.borrow_mut().silence();
        read_events(answer, core, &mut idle, &mut |event, keeper| {
            self.take(event, &keeper, seen)
        })
    }

    fn take(&self, event: Event, keeper: &Option<Keeper>, seen: &mut Seen) -> Next {
        if let Some(id) = event.id {
            seen.last_id = HeaderValue::try_from(id).ok();
        }
        if let Some(retry_ms) = event.retry_ms {
            seen.retry = Some(Duration::from_millis(retry_ms));
        }
        // Events of other names are none of MCP's, whatever they hold.
        if event.data.is_empty() || !matches!(event.name.as_str(), "" | "message") {
            return Next::More;
        }
        let max = self.link.http.core.limits.upstream_result_bytes;
        if event.data.len() > max {
            let what =
                format!("its answer is larger than limits.upstream_result_bytes ({max} bytes)");
            seen.found = Some(Err(Trouble { stage: Stage::Read, ..Trouble::nonsense(what) }));
            return Next::Done;
        }
        let text = Arc::new(event.data);
        correlation::read_kept(&text, keeper, |incoming| {
            match self.link.overhear(incoming, self.post.headers) {
                Some(Incoming::Progress { id, params }) if id == self.post.id => {
                    self.wait.progressed();
                    self.sink.borrow_mut().notice(Notice::Progress(params));
                }
                Some(Incoming::Answer { id, outcome }) if id == Some(self.post.id) => {
                    seen.found = Some(Ok(outcome));
                }
                Some(Incoming::Answer { id: Some(_), .. } | Incoming::Progress { .. }) => (),
                Some(Incoming::Nonsense(what)) => {
                    log::debug!(target: "upstream", "{}: an event is no message: {}",
                        self.link.http.core.name(), cut(&what));
                }
                Some(incoming) => seen.found = Some(Err(not_ours(&incoming))),
                None => (),
            }
        });
        if seen.found.is_some() { Next::Done } else { Next::More }
    }

    /// Asks for the rest of a stream that the server closed before the answer (2025-11-25,
    /// basic/transports, Resumability and Redelivery).
    pub(super) fn resume(
        &mut self,
        lane: &mut Lane,
        last_id: HeaderValue,
    ) -> Result<Answer, Trouble> {
        let http = &self.link.http;
        let mut headers = self.post.get.clone();
        headers.insert(HeaderName::from_static(LAST_EVENT_ID), last_id);
        let (method, uri) = (&HttpMethod::GET, &http.uri);
        let ask = Ask { method, uri, headers: &headers, body: None };
        let mut idle = || self.sink.borrow_mut().silence();
        let answer = lane.client(&http.factory).run(self.wait, ask, &mut idle)?;
        match verdict(&answer, Phase::WithId == self.post.phase) {
            Verdict::Stream => Ok(answer),
            Verdict::NoStream | Verdict::SessionGone | Verdict::Later => {
                Err(broke_off("the stream could not be taken up again"))
            }
        }
    }
}

pub(super) fn broke_off(what: &str) -> Trouble {
    Trouble { sent: true, ..Trouble::new(Kind::Broke, Stage::Read, what) }
}

pub(super) fn not_ours(incoming: &Incoming) -> Trouble {
    match incoming {
        Incoming::Answer { outcome: Err(error), .. } => {
            let what =
                format!("it refused the request: {} ({})", cut(&error.message), error.code);
            Trouble {
                sent: true,
                ..Trouble::new(Kind::Refused(Refusal::Plain), Stage::Answer, what)
            }
        }
        Incoming::Nonsense(what) => {
            Trouble::nonsense(format!("its answer is no message: {}", cut(what)))
        }
        Incoming::Answer { .. }
        | Incoming::Progress { .. }
        | Incoming::ToolsListChanged
        | Incoming::Ask { .. }
        | Incoming::Other => Trouble::nonsense("its answer is for another request"),
    }
}
