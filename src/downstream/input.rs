//! Clients with sessions and servers without: a result that wants input becomes requests to the
//! client, and its answers the retry (2026-07-28, basic/patterns/mrtr).

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded};

use super::for_caller::ForCaller;
use super::requests::Answer;
use crate::error::CallError;
use crate::limits::{INPUT_REQUESTS_MAX, INPUT_RETRY_DELAY};
use crate::protocol::call::{AnswerTo, CallSink, Question};
use crate::protocol::jsonrpc::{RequestId, RpcError, code};
use crate::protocol::raw::{Raw, RawObject};
use crate::protocol::server_name::ServerName;
use crate::wait::{Wait, Woken};

/// What a client said to what a server wants.
type Said = Result<Raw, RpcError>;

/// Asks the client everything that a server wants; gives the text of `inputResponses`.
///
/// # Errors
/// What the call is answered with: it was cancelled, or the client would not or cannot say.
pub(super) fn gather(
    sink: &mut ForCaller<'_>,
    server: &ServerName,
    requests: Option<&Raw>,
    wait: &Arc<Wait>,
    tick: Duration,
) -> Result<Option<String>, Answer> {
    let Some(requests) = requests else {
        // Nothing but a retry is wanted; not at once, so that it is not a busy loop.
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
    let mut pending: Vec<(&str, String, Receiver<Said>)> = Vec::new();
    for (index, (key, request)) in requests.iter().enumerate() {
        let fields = RawObject::parse(request).ok();
        let method = fields.as_ref().and_then(|fields| fields.string("method").ok().flatten());
        let (Some(fields), Some(method)) = (fields, method) else {
            return Err(nonsense("one of its requests has no method"));
        };
        let params = fields.get("params").map(|params| Raw::from_valid(params.to_owned()));
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
            params,
            reply,
            is_of_call: true,
        });
        pending.push((key, method, said));
    }
    let mut responses = RawObject::default();
    for (key, method, said) in pending {
        let answer = loop {
            if let Ok(answer) = said.try_recv() {
                break answer;
            }
            match wait.until(None, Some(tick)) {
                Ok(Woken::Tick) => sink.silence(),
                Ok(Woken::Bell | Woken::Ready) => (),
                Err(_) => return Err(interrupted(wait, server)),
            }
        };
        match answer {
            Ok(result) => responses.set(key, result.get().to_owned()),
            // Servers without sessions know no errors of clients; this is the nearest to one.
            Err(_) if method == "elicitation/create" => {
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
    Ok(Some(responses.to_text()))
}

fn interrupted(wait: &Wait, server: &ServerName) -> Answer {
    let stage = crate::error::Stage::Answer;
    match wait.interrupted().map(|reason| CallError::interrupted(reason, server, stage)) {
        Some(CallError::Cancelled) | None => Answer::None,
        Some(error) => Answer::Error(super::reply::Problem::from_call(&error).to_rpc()),
    }
}
