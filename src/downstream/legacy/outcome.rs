//! Outcomes of calls as clients of sessions know them, whatever revision their server speaks.

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

impl Front {
    /// The outcome of a call as a client of that revision may be given it; `name` is what it
    /// asked for, for the result of a task its id.
    ///
    /// # Errors
    /// The bytes that may be held leave no room for another form of it.
    pub(crate) fn for_session(
        &self,
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
                        let output =
                            name.map(|id| self.pipeline.task_output(scope, options, id));
                        return output.unwrap_or(Output::Object);
                    }
                    let tool = name.and_then(|name| self.pipeline.tool(scope, options, name));
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
}

/// A result as a client of that revision may be given it; none if it is so.
pub(crate) fn adapted(
    client: Revision,
    method: Method,
    output: impl FnOnce() -> Output,
    result: &Raw,
) -> Option<Raw> {
    match method {
        // The result of a task is that of the call which began it.
        Method::ToolsCall | Method::TasksResult => {
            for_revision::call_result(client, output, result)
        }
        Method::PromptsGet => for_revision::prompt_result(client, result),
        Method::CompletionComplete => for_revision::completion_result(client, result),
        // What a server without sessions says besides, its clients alone know.
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
