//! Tasks of 2025-11-25 (experimental): clients see task ids with the server's name.

use std::time::Duration;

use crate::catalogue::name::{of_server, split_server};
use crate::protocol::call::{Call, Notice};
use crate::protocol::method::{Method, notification};
use crate::protocol::question::{AnswerTo, Question};
use crate::protocol::raw::{Raw, RawObject, elements, holds, string};
use crate::protocol::server_name::ServerName;

/// The member that relates a message to a task (2025-11-25, basic/utilities/tasks, Associating).
const RELATED_TASK: &str = "io.modelcontextprotocol/related-task";

/// True if the result of a call may name a task.
pub(super) fn concerns(call: &Call<'_>) -> bool {
    let of_task =
        [Method::TasksGet, Method::TasksResult, Method::TasksCancel, Method::TasksUpdate];
    of_task.contains(&call.method) || call.params.get("task").is_some()
}

/// True if a call asks the server to begin a task.
pub(super) fn begins(call: &Call<'_>) -> bool {
    call.method == Method::ToolsCall && call.params.get("task").is_some()
}

/// True if a result is a task in place of the usual result: servers with the extension of
/// 2026-07-28 decide that themselves.
pub(super) fn is_task(result: &Raw) -> bool {
    // Other results have lost their `resultType` by now, so that a search of the text mostly
    // decides.
    holds(result.get(), "\"resultType\"", "\"result".len())
        && RawObject::parse(result.get())
            .is_ok_and(|fields| fields.get("resultType") == Some("\"task\""))
}

/// The task that a result says has begun: the server's own id, and the time for which the server
/// keeps it. In the extension of 2026-07-28 the result is the task.
pub(super) fn begun(result: &Raw) -> Option<(String, Option<Duration>)> {
    let fields = RawObject::parse(result.get()).ok()?;
    let task = fields.get("task").map_or(Ok(fields.clone()), RawObject::parse).ok()?;
    let id = task.string("taskId").ok()??;
    let ttl_ms = task.get("ttl").or_else(|| task.get("ttlMs"));
    let ttl_ms = ttl_ms.and_then(|ttl| ttl.parse::<f64>().ok());
    let ttl = ttl_ms.and_then(|ms| Duration::try_from_secs_f64(ms / 1000.0).ok());
    Some((id, ttl))
}

/// The server's own id of the task that a notification is about.
pub(super) fn told_of(notice: &Notice) -> Option<String> {
    let (method, params) = match notice {
        Notice::Log(params) => (notification::MESSAGE, params),
        Notice::Other { method, params: Some(params) } => (method.as_str(), params),
        Notice::Other { params: None, .. }
        | Notice::Progress(_)
        | Notice::ResourceUpdated(_)
        | Notice::Withdrawn { .. } => return None,
    };
    let fields = RawObject::parse(params.get()).ok()?;
    if [notification::TASKS_STATUS, notification::TASKS].contains(&method) {
        return fields.string("taskId").ok()?;
    }
    let meta = RawObject::parse(fields.get("_meta")?).ok()?;
    RawObject::parse(meta.get(RELATED_TASK)?).ok()?.string("taskId").ok()?
}

/// A notification with the task ids that clients see.
pub(super) fn owned_notice(server: &ServerName, notice: Notice) -> Notice {
    match notice {
        Notice::Log(params) => {
            Notice::Log(related(&params, |own| Some(of_server(server, own))))
        }
        Notice::Progress(params) => {
            Notice::Progress(related(&params, |own| Some(of_server(server, own))))
        }
        Notice::Other { method, params } => {
            let params = params.map(|params| owned(server, &params));
            Notice::Other { method, params }
        }
        Notice::ResourceUpdated(_) | Notice::Withdrawn { .. } => notice,
    }
}

/// A question that names its task as the client knows it; the answer names the task as the server
/// does. Other ids of tasks in a question are the client's own.
pub(super) fn owned_question(question: Question) -> Question {
    let Some(params) = question.params.as_ref().filter(|it| it.get().contains(RELATED_TASK))
    else {
        return question;
    };
    let server = question.server.clone();
    let params = Some(related(params, |own| Some(of_server(&server, own))));
    let reply = AnswerTo::new(move |answer| {
        question.reply.send(answer.map(|result| {
            related(&result, |id| match split_server(id) {
                Some((name, own)) if name == server.as_str() => Some(own.into_owned()),
                Some(_) | None => None,
            })
        }));
    });
    Question { params, reply, ..question }
}

/// A message with another id for its related task, if it names one.
fn related(message: &Raw, rename: impl Fn(&str) -> Option<String>) -> Raw {
    // Most messages name no task, and are not parsed.
    if !message.get().contains(RELATED_TASK) {
        return message.clone();
    }
    let renamed = || {
        let mut fields = RawObject::parse(message.get()).ok()?;
        let mut meta = RawObject::parse(fields.get("_meta")?).ok()?;
        let mut task = RawObject::parse(meta.get(RELATED_TASK)?).ok()?;
        task.set("taskId", string(&rename(&task.string("taskId").ok()??)?));
        meta.set(RELATED_TASK, task.to_text());
        fields.set("_meta", meta.to_text());
        Some(message.rewritten(fields.to_text()))
    };
    renamed().unwrap_or_else(|| message.clone())
}

/// A result, or the parameters of a notification, with task ids that contain the server's name.
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
    result.rewritten(fields.to_text())
}

fn with_server(server: &ServerName, fields: &RawObject<'_>) -> Option<String> {
    let own = fields.string("taskId").ok()??;
    Some(string(&of_server(server, &own)))
}

/// A task's object with the id that clients see.
fn renamed(server: &ServerName, task: &str) -> Option<String> {
    let mut fields = RawObject::parse(task).ok()?;
    fields.set("taskId", with_server(server, &fields)?);
    Some(fields.to_text())
}

/// The tasks in one server's answer to `tasks/list` for whose own ids `theirs` is true, with the
/// ids that clients see.
pub(super) fn owned_list(
    server: &ServerName,
    result: &Raw,
    theirs: impl Fn(String) -> bool,
) -> Vec<String> {
    let fields = RawObject::parse(result.get()).ok();
    let tasks = fields.as_ref().and_then(|fields| fields.get("tasks"));
    let tasks = tasks.and_then(|tasks| elements(tasks).ok()).unwrap_or_default();
    let is_theirs = |task: &&str| {
        let fields = RawObject::parse(task).ok();
        fields.and_then(|it| it.string("taskId").ok()?).is_some_and(&theirs)
    };
    tasks.into_iter().filter(is_theirs).filter_map(|task| renamed(server, task)).collect()
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
        let tasks = owned_list(&server, &list, |_| true);
        assert_eq!(tasks, [r#"{"taskId":"s+1"}"#, r#"{"taskId":"s+2"}"#]);
        assert_eq!(owned_list(&server, &list, |id| id == "2"), [r#"{"taskId":"s+2"}"#]);
    }

    #[test]
    fn a_large_result_counts_for_as_long_as_its_renamed_copy() {
        let server = ServerName::parse("s").unwrap();
        let counted = std::sync::Arc::new(());
        let mut result = raw(r#"{"content":[]}"#);
        result.keep(&Some(counted.clone()));
        let renamed = owned(&server, &result);
        drop(result);
        assert_eq!(std::sync::Arc::strong_count(&counted), 2);
        drop(renamed);
        assert_eq!(std::sync::Arc::strong_count(&counted), 1);
    }

    fn raw(text: &str) -> Raw {
        Raw::from_valid(text.to_owned())
    }

    #[test]
    fn a_task_that_has_begun_says_how_long_it_is_kept() {
        let begun = |task: &str| begun(&raw(&format!(r#"{{"task":{task}}}"#)));
        let second = Some(Duration::from_secs(1));
        assert_eq!(begun(r#"{"taskId":"1","ttl":1000}"#), Some(("1".to_owned(), second)));
        assert_eq!(begun(r#"{"taskId":"1","ttl":null}"#), Some(("1".to_owned(), None)));
        assert_eq!(begun(r#"{"taskId":"1","ttl":-1}"#), Some(("1".to_owned(), None)));
        assert_eq!(begun(r#"{"taskId":"1","ttl":1e300}"#), Some(("1".to_owned(), None)));
        assert_eq!(begun("null"), None);
    }

    #[test]
    fn only_the_task_that_a_message_is_about_is_renamed() {
        let with = |id: &str| {
            raw(&format!(
                r#"{{"taskId":"1","task":{{"taskId":"2"}},"_meta":{{"x":1.50,"{RELATED_TASK}":{{"taskId":"{id}","y":1E2}}}}}}"#
            ))
        };
        let server = ServerName::parse("s").unwrap();
        let notice = owned_notice(&server, Notice::Log(with("1")));
        assert_eq!(notice, Notice::Log(with("s+1")));
        let (tell, told) = std::sync::mpsc::channel();
        let question = owned_question(Question {
            server,
            id: crate::protocol::jsonrpc::RequestId::from(1),
            is_of_call: true,
            method: "sampling/createMessage".to_owned(),
            params: Some(with("1")),
            reply: AnswerTo::new(move |answer| tell.send(answer).unwrap()),
        });
        assert_eq!(question.params, Some(with("s+1")));
        question.reply.send(Ok(with("s+1")));
        assert_eq!(told.recv().unwrap().unwrap(), with("1"));
        assert_eq!(related(&raw("{}"), |_| None), raw("{}"));
    }

    #[test]
    fn a_notification_is_about_the_task_that_it_names() {
        let other = |method: &str, params: &str| {
            told_of(&Notice::Other { method: method.to_owned(), params: Some(raw(params)) })
        };
        let related = r#"{"_meta":{"io.modelcontextprotocol/related-task":{"taskId":"1"}}}"#;
        assert_eq!(
            other("notifications/tasks/status", r#"{"taskId":"1"}"#).as_deref(),
            Some("1")
        );
        assert_eq!(other("notifications/x", related).as_deref(), Some("1"));
        assert_eq!(told_of(&Notice::Log(raw(related))).as_deref(), Some("1"));
        assert_eq!(other("notifications/x", r#"{"taskId":"1"}"#), None);
        assert_eq!(told_of(&Notice::Log(raw("{}"))), None);
    }
}
