//! Clients with sessions and servers without: an `input_required` result becomes requests to the
//! client, and the client's answers become the retry (2026-07-28, basic/patterns/mrtr).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_channel::{Receiver, bounded};

use super::call_sink::LegacyCallSink;
use crate::downstream::answer::Answer;
use crate::error::{CallError, MAY_HAVE_RUN, STOPPED, Stage};
use crate::limits::{INPUT_REQUESTS_MAX, INPUT_RETRY_DELAY};
use crate::protocol::call::{CallSink, Caller};
use crate::protocol::jsonrpc::{RequestId, RpcError, code};
use crate::protocol::method::notification::ELICITATION_COMPLETE;
use crate::protocol::question::{AnswerTo, Question};
use crate::protocol::raw::{Raw, RawObject, string};
use crate::protocol::server_name::ServerName;
use crate::wait::{Interrupted, Wait};

const ELICITATION: &str = "elicitation/create";

/// A client's answer to one input request.
type Said = Result<Raw, RpcError>;

/// The number of the last elicitation; together with the process's own number it makes an id.
static LAST_ELICITATION: AtomicU64 = AtomicU64::new(0);

/// URLs that the client of a call was asked to open, where its revision has ids for them. Servers
/// without sessions have none: the answer to the retried request shows that the interaction is
/// over (2026-07-28, changelog).
pub(crate) struct Elicited {
    has_ids: bool,
    boot: u64,
    open: Vec<Elicitation>,
}

struct Elicitation {
    url: String,
    id: String,
    is_accepted: bool,
}

impl Elicited {
    /// No URLs yet, for a call of this client.
    pub(crate) fn of(caller: &Caller, boot: u64) -> Elicited {
        Elicited { has_ids: caller.revision.has_elicitation_ids(), boot, open: Vec::new() }
    }

    /// The parameters of a URL elicitation with the id that its client needs, and the URL; none
    /// for another request.
    fn identified(&mut self, method: &str, params: &str) -> Option<(String, String)> {
        if !self.has_ids || method != ELICITATION {
            return None;
        }
        let mut fields = RawObject::parse(params).ok()?;
        let text = |key: &str| fields.string(key).ok().flatten();
        let url = text("url").filter(|_| text("mode").as_deref() == Some("url"))?;
        let known = self.open.iter().find(|it| it.url == url).map(|it| it.id.clone());
        let id = text("elicitationId").or(known).unwrap_or_else(|| {
            let number = LAST_ELICITATION.fetch_add(1, Ordering::Relaxed) + 1;
            format!("{:016x}-{number}", self.boot)
        });
        if !self.open.iter().any(|it| it.url == url) {
            self.open.push(Elicitation {
                url: url.clone(),
                id: id.clone(),
                is_accepted: false,
            });
        }
        fields.set("elicitationId", string(&id));
        Some((fields.to_text(), url))
    }

    /// Notes the client's answer to the elicitation of that URL.
    fn answered(&mut self, url: &str, result: &str) {
        let action = RawObject::parse(result).ok();
        let action = action.and_then(|it| it.string("action").ok().flatten());
        if let Some(open) = self.open.iter_mut().find(|it| it.url == url) {
            open.is_accepted = action.as_deref() == Some("accept");
        }
    }

    /// Ends the elicitations that the client has accepted and the server no longer asks for.
    fn keep(&mut self, sink: &LegacyCallSink<'_>, wanted: &[String]) {
        let is_over = |it: &Elicitation| !wanted.contains(&it.url);
        for over in self.open.iter().filter(|it| it.is_accepted && is_over(it)) {
            let params = format!("{{\"elicitationId\":{}}}", string(&over.id));
            sink.tell(ELICITATION_COMPLETE, &params);
        }
        self.open.retain(|it| !is_over(it));
    }

    /// Ends all elicitations, since the call is answered.
    pub(crate) fn end(&mut self, sink: &LegacyCallSink<'_>) {
        self.keep(sink, &[]);
    }
}

/// Asks the client for all input that a server needs; returns the text of `inputResponses`.
///
/// # Errors
/// The answer to the call: it was cancelled, or the client refuses or cannot answer.
pub(crate) fn gather(
    sink: &LegacyCallSink<'_>,
    (server, requests): (&ServerName, Option<&Raw>),
    elicited: &mut Elicited,
    wait: &Arc<Wait>,
) -> Result<Option<String>, Answer> {
    let Some(requests) = requests else {
        // The server needs only a retry; the pause keeps this from being a busy loop.
        let pause = wait.until(None, Some(INPUT_RETRY_DELAY));
        return pause.map(|_| None).map_err(|_| interrupted(wait, server));
    };
    let nonsense = |what: &str| {
        let what = format!("The server {server} wants input, but {what}.");
        Answer::error(code::INTERNAL_ERROR, what)
    };
    let requests =
        RawObject::parse(requests.get()).map_err(|_| nonsense("says not what it wants"))?;
    if requests.iter().count() > INPUT_REQUESTS_MAX {
        return Err(nonsense(&format!("more than {INPUT_REQUESTS_MAX} things at once")));
    }
    let mut wanted = Vec::with_capacity(requests.iter().count());
    for (key, request) in requests.iter() {
        let fields = RawObject::parse(request).ok();
        let method = fields.as_ref().and_then(|fields| fields.string("method").ok().flatten());
        let (Some(fields), Some(method)) = (fields, method) else {
            return Err(nonsense("one of its requests has no method"));
        };
        let params = fields.get("params").map(str::to_owned);
        let identified =
            params.as_deref().and_then(|params| elicited.identified(&method, params));
        let (params, url) = match identified {
            Some((params, url)) => (Some(params), Some(url)),
            None => (params, None),
        };
        wanted.push((key, method, params, url));
    }
    let urls: Vec<String> = wanted.iter().filter_map(|(.., url)| url.clone()).collect();
    elicited.keep(sink, &urls);
    let mut pending: Vec<Asking<'_>> = Vec::new();
    for (index, (key, method, params, url)) in wanted.into_iter().enumerate() {
        let (give, said) = bounded(1);
        let woken = wait.clone();
        let reply = AnswerTo::new(move |answer| {
            give.try_send(answer).ok();
            woken.bell().ring();
        });
        let number = u64::try_from(index).unwrap_or_default();
        sink.ask(Question {
            server: server.clone(),
            id: RequestId::from(number),
            method: method.clone(),
            params: params.map(Raw::from_valid),
            reply,
            is_of_call: true,
        });
        pending.push(Asking { key, method, url, said });
    }
    answers(server, pending, elicited, wait).map(Some)
}

/// One input request that was sent to the client.
struct Asking<'a> {
    key: &'a str,
    method: String,
    url: Option<String>,
    said: Receiver<Said>,
}

/// Waits for the client's answers; returns the text of `inputResponses`.
fn answers(
    server: &ServerName,
    pending: Vec<Asking<'_>>,
    elicited: &mut Elicited,
    wait: &Wait,
) -> Result<String, Answer> {
    let mut responses = RawObject::default();
    for Asking { key, method, url, said } in pending {
        let answer = loop {
            if let Ok(answer) = said.try_recv() {
                break answer;
            }
            wait.until(None, None).map_err(|_| interrupted(wait, server))?;
        };
        match answer {
            Ok(result) => {
                if let Some(url) = &url {
                    elicited.answered(url, result.get());
                }
                responses.set(key, result.get().to_owned());
            }
            // Servers without sessions know no errors of clients; `cancel` is the nearest to one.
            Err(_) if method == ELICITATION => {
                responses.set(key, "{\"action\":\"cancel\"}");
            }
            Err(error) => {
                let what = format!(
                    "The server {server} wants {method} of the client, which answered with an \
                     error: {}",
                    error.message
                );
                return Err(Answer::error(code::INTERNAL_ERROR, what));
            }
        }
    }
    Ok(responses.to_text())
}

/// The answer to an interrupted call, whose server has answered that it needs input.
fn interrupted(wait: &Wait, server: &ServerName) -> Answer {
    let stage = Stage::Answer;
    if wait.interrupted() == Some(Interrupted::Stopping) {
        let (server, refusal) = (server.clone(), None);
        let message = format!("{STOPPED}; {MAY_HAVE_RUN}");
        let error = CallError::UpstreamFailed { server, stage, message, refusal };
        return Answer::Error(
            crate::downstream::status_codes::Problem::from_call(&error).to_rpc(),
        );
    }
    match wait.interrupted().map(|reason| CallError::interrupted(reason, server, stage)) {
        Some(CallError::Cancelled) | None => Answer::None,
        Some(error) => {
            Answer::Error(crate::downstream::status_codes::Problem::from_call(&error).to_rpc())
        }
    }
}
