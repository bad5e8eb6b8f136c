//! Outcomes of calls for clients with sessions, from servers of any revision.

use crate::access::policy::Scope;
use crate::downstream::Front;
use crate::downstream::counted_bytes::room_for_copy;
use crate::error::CallError;
use crate::pipeline::CallOptions;
use crate::protocol::call::Outcome;
use crate::protocol::for_revision::{self, Output};
use crate::protocol::legacy;
use crate::protocol::method::Method;
use crate::protocol::modern;
use crate::protocol::raw::Raw;
use crate::protocol::revision::Revision;

/// The outcome of a call for a client of that revision; `name` is the requested item, or the
/// task's id for the result of a task.
///
/// # Errors
/// The budget of bytes has no room for another form of it.
pub(crate) fn for_session(
    front: &Front,
    scope: &Scope,
    options: CallOptions<'_>,
    (client, method, name): (Revision, Method, Option<&str>),
    outcome: &mut Outcome,
) -> Result<(), CallError> {
    match outcome {
        Outcome::Complete(result) => {
            let _room = room_for_copy(result)?;
            let output = || {
                if method == Method::TasksResult {
                    let output = name.map(|id| front.pipeline.task_output(scope, options, id));
                    return output.unwrap_or(Output::Object);
                }
                let tool = name.and_then(|name| front.pipeline.tool(scope, options, name));
                tool.map_or(Output::Object, |tool| tool.output)
            };
            if let Some(changed) = adapted(client, method, output, result) {
                *result = changed;
            }
        }
        Outcome::Error { error, .. } if method == Method::ResourcesRead => {
            legacy::as_not_found(error);
        }
        Outcome::Error { .. } | Outcome::InputRequired { .. } => (),
    }
    Ok(())
}

/// A result for a client of that revision; none if it needs no change.
pub(crate) fn adapted(
    client: Revision,
    method: Method,
    output: impl FnOnce() -> Output,
    result: &Raw,
) -> Option<Raw> {
    match method {
        // The result of a task is that of the call that began the task.
        Method::ToolsCall | Method::TasksResult => {
            for_revision::call_result(client, output, result)
        }
        Method::PromptsGet => for_revision::prompt_result(client, result),
        Method::CompletionComplete => for_revision::completion_result(client, result),
        // Only clients without sessions know the freshness that such a server gives.
        Method::ResourcesRead => {
            (!client.has_any_output()).then(|| modern::without_freshness(result))
        }
        Method::Initialize
        | Method::Ping
        | Method::ToolsList
        | Method::PromptsList
        | Method::ResourcesList
        | Method::ResourcesTemplatesList
        | Method::ResourcesSubscribe
        | Method::ResourcesUnsubscribe
        | Method::LoggingSetLevel
        | Method::TasksGet
        | Method::TasksList
        | Method::TasksCancel
        | Method::TasksUpdate
        | Method::ServerDiscover
        | Method::SubscriptionsListen => None,
    }
}
