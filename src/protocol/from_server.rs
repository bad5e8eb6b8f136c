//! Checks of notifications and questions of servers, for all revisions together. A message of a
//! name that the specification reserves and that is not understood must not be passed on as an
//! unknown one: its reader could take it as being about a request of its own.

use super::capabilities::needed_for;
use super::jsonrpc::RequestId;
use super::method::{Method, notification};
use super::raw::RawObject;

/// True if a server's notification has the parameters that its name demands, or a name that the
/// specification does not know.
pub fn is_understood(name: &str, params: Option<&str>) -> bool {
    let fields = || RawObject::parse(params?).ok();
    let id = |key: &str| fields().is_some_and(|it| id_of(&it, key).is_some());
    let text = |key: &str| fields().is_some_and(|it| matches!(it.string(key), Ok(Some(_))));
    match name {
        notification::TOOLS_LIST_CHANGED
        | notification::PROMPTS_LIST_CHANGED
        | notification::RESOURCES_LIST_CHANGED
        | notification::SUBSCRIPTIONS_ACKNOWLEDGED => true,
        notification::PROGRESS => id("progressToken"),
        notification::CANCELLED => id("requestId"),
        // A log message has no id, and one of an unknown level is better than none.
        notification::MESSAGE => params.is_some(),
        notification::RESOURCES_UPDATED => text("uri"),
        notification::TASKS_STATUS | notification::TASKS => text("taskId"),
        notification::ELICITATION_COMPLETE => text("elicitationId"),
        // These are for clients to send.
        notification::INITIALIZED | notification::ROOTS_LIST_CHANGED => false,
        // A notification with a request's name is invalid.
        name => Method::parse(name).is_none() && needed_for(name).is_none(),
    }
}

/// True if a server may ask a client with this method, or the specification does not know it.
pub fn may_be_asked(name: &str) -> bool {
    match Method::parse(name) {
        // For tasks that a client keeps (2025-11-25, basic/utilities/tasks).
        Some(
            Method::Ping
            | Method::TasksGet
            | Method::TasksResult
            | Method::TasksList
            | Method::TasksCancel,
        ) => true,
        Some(
            Method::Initialize
            | Method::ToolsList
            | Method::ToolsCall
            | Method::PromptsList
            | Method::PromptsGet
            | Method::ResourcesList
            | Method::ResourcesTemplatesList
            | Method::ResourcesRead
            | Method::ResourcesSubscribe
            | Method::ResourcesUnsubscribe
            | Method::CompletionComplete
            | Method::LoggingSetLevel
            | Method::TasksUpdate
            | Method::ServerDiscover
            | Method::SubscriptionsListen,
        ) => false,
        None => !notification::ALL.contains(&name),
    }
}

fn id_of(fields: &RawObject<'_>, key: &str) -> Option<RequestId> {
    RequestId::parse(fields.get(key)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_reserved_is_understood_or_is_not_handed_on() {
        for (name, params) in [
            ("progress", r#"{"progressToken":7,"progress":1}"#),
            ("progress", r#"{"progressToken":"7","progress":1}"#),
            ("cancelled", r#"{"requestId":5}"#),
            ("message", r#"{"level":"warn","data":null}"#),
            ("resources/updated", r#"{"uri":"x:y"}"#),
            ("tasks/status", r#"{"taskId":"1"}"#),
            ("tasks", r#"{"taskId":"1"}"#),
            ("elicitation/complete", r#"{"elicitationId":"1"}"#),
            ("tools/list_changed", "{}"),
            ("x/anything", "{}"),
        ] {
            let name = format!("notifications/{name}");
            assert!(is_understood(&name, Some(params)), "{name} {params}");
        }
        for (name, params) in [
            ("progress", r#"{"progressToken":7.0,"progress":1}"#),
            ("progress", r#"{"progressToken":null}"#),
            ("progress", r#"{"progressToken":7,"progressToken":8}"#),
            ("progress", "{}"),
            ("cancelled", r#"{"requestId":5.0}"#),
            ("cancelled", r#"{"requestId":[5]}"#),
            ("cancelled", "{}"),
            ("resources/updated", "{}"),
            ("resources/updated", r#"{"uri":["x:y"]}"#),
            ("resources/updated", r#"{"uri":null}"#),
            ("tasks/status", r#"{"taskId":1}"#),
            ("tasks", "{}"),
            ("elicitation/complete", r#"{"elicitationId":1}"#),
            ("initialized", "{}"),
            ("roots/list_changed", "{}"),
        ] {
            let name = format!("notifications/{name}");
            assert!(!is_understood(&name, Some(params)), "{name} {params}");
        }
        for name in [
            notification::PROGRESS,
            notification::CANCELLED,
            notification::MESSAGE,
            notification::RESOURCES_UPDATED,
            "tools/call",
            "ping",
            "sampling/createMessage",
        ] {
            assert!(!is_understood(name, None), "{name}");
        }
    }

    #[test]
    fn every_reserved_name_was_thought_of() {
        let is_reserved = |name: &str| !is_understood(name, None) || name.ends_with("_changed");
        for name in notification::ALL {
            let is_acknowledgement = name == notification::SUBSCRIPTIONS_ACKNOWLEDGED;
            assert!(is_reserved(name) || is_acknowledgement, "{name}");
            assert!(!may_be_asked(name), "{name}");
        }
    }

    #[test]
    fn a_server_asks_what_servers_ask() {
        for name in [
            "ping",
            "sampling/createMessage",
            "elicitation/create",
            "roots/list",
            "tasks/get",
            "tasks/cancel",
            "x/anything",
        ] {
            assert!(may_be_asked(name), "{name}");
        }
        for name in
            ["initialize", "tools/call", "resources/subscribe", "notifications/cancelled"]
        {
            assert!(!may_be_asked(name), "{name}");
        }
    }
}
