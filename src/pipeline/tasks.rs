//! Tasks of 2025-11-25 (experimental): the ids that clients see carry their server.

use crate::catalogue::name::of_server;
use crate::protocol::call::Call;
use crate::protocol::method::Method;
use crate::protocol::raw::{Raw, RawObject, elements, string};
use crate::protocol::server_name::ServerName;

/// What relates a message to a task (2025-11-25, basic/utilities/tasks, Associating).
const RELATED_TASK: &str = "io.modelcontextprotocol/related-task";

/// Whether the result of a call may name a task.
pub(super) fn concerns(call: &Call<'_>) -> bool {
    matches!(call.method, Method::TasksGet | Method::TasksResult | Method::TasksCancel)
        || call.params.get("task").is_some()
}

/// A result, or the parameters of a notification, whose task ids carry their server.
pub(super) fn owned(server: &ServerName, result: &Raw) -> Raw {
    let Ok(mut fields) = RawObject::parse(result.get()) else { return result.clone() };
    let own_id = with_server(server, &fields);
    let task = fields.get("task").and_then(|task| renamed(server, task));
    let meta = fields.get("_meta").and_then(|meta| {
        let mut meta = RawObject::parse(meta).ok()?;
        let related = renamed(server, meta.get(RELATED_TASK)?)?;
        meta.set(RELATED_TASK, related);
        Some(meta.to_text())
    });
    let changes = [("taskId", own_id), ("task", task), ("_meta", meta)];
    for (key, value) in changes {
        if let Some(value) = value {
            fields.set(key, value);
        }
    }
    Raw::from_valid(fields.to_text())
}

fn with_server(server: &ServerName, fields: &RawObject<'_>) -> Option<String> {
    let own = fields.string("taskId").ok()??;
    Some(string(&of_server(server, &own)))
}

/// A task's object under the id that clients see.
fn renamed(server: &ServerName, task: &str) -> Option<String> {
    let mut fields = RawObject::parse(task).ok()?;
    fields.set("taskId", with_server(server, &fields)?);
    Some(fields.to_text())
}

/// The tasks in one server's answer to `tasks/list`, under the ids that clients see.
pub(super) fn owned_list(server: &ServerName, result: &Raw) -> Vec<String> {
    let fields = RawObject::parse(result.get()).ok();
    let tasks = fields.as_ref().and_then(|fields| fields.get("tasks"));
    let tasks = tasks.and_then(|tasks| elements(tasks).ok()).unwrap_or_default();
    tasks.into_iter().filter_map(|task| renamed(server, task)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_carry_their_server_wherever_they_stand() {
        let server = ServerName::parse("s").unwrap();
        let result = r#"{"task":{"taskId":"1","x":2},"_meta":{"io.modelcontextprotocol/related-task":{"taskId":"1"}}}"#;
        assert_eq!(
            owned(&server, &Raw::from_valid(result.to_owned())).get(),
            r#"{"task":{"taskId":"s+1","x":2},"_meta":{"io.modelcontextprotocol/related-task":{"taskId":"s+1"}}}"#
        );
        let list = Raw::from_valid(r#"{"tasks":[{"taskId":"1"},{"taskId":"2"}]}"#.to_owned());
        let tasks = owned_list(&server, &list);
        assert_eq!(tasks, [r#"{"taskId":"s+1"}"#, r#"{"taskId":"s+2"}"#]);
    }
}
