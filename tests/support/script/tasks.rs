//! Tasks of 2025-11-25: calls whose results are fetched later.

use std::time::Instant;

use serde_json::{Value, json};

use super::offers::page;
use super::{PATIENCE, Refusal, Script, content};

/// The `_meta` key by which a message says to which task it belongs.
pub const RELATED_TASK: &str = "io.modelcontextprotocol/related-task";

#[derive(Debug)]
pub(super) struct Task {
    id: String,
    peer: String,
    status: &'static str,
    text: String,
}

impl Task {
    fn to_value(&self) -> Value {
        json!({
            "taskId": self.id,
            "status": self.status,
            "createdAt": "2025-11-25T10:30:00Z",
            "lastUpdatedAt": "2025-11-25T10:40:00Z",
            "ttl": 60000,
            "pollInterval": 10,
            "x-unknown": { "z": 1, "a": [] },
        })
    }

    fn is_over(&self) -> bool {
        self.status != "working"
    }
}

fn unknown(params: &Value) -> Refusal {
    let id = params["taskId"].as_str().unwrap_or_default();
    Refusal::new(-32602, &format!("Task not found: {id}"))
}

impl Script {
    /// Begins a task; ids count up from `task-1`, so those of two servers are equal. With
    /// `finished` among the arguments it is completed at once.
    pub(super) fn create_task(&self, peer: &str, arguments: &Value) -> String {
        let mut state = self.lock();
        let id = format!("task-{}", state.tasks.len() + 1);
        let text = format!("{} finished {id}", state.label);
        let status = if arguments["finished"] == true { "completed" } else { "working" };
        let task = Task { id, peer: peer.to_owned(), status, text };
        let created = json!({ "task": task.to_value(), "_meta": { "x-note": "kept" } });
        state.tasks.push(task);
        created.to_string()
    }

    /// The task completes, which its session is told on its stream.
    #[track_caller]
    pub fn finish_task(&self, id: &str) {
        let (peer, status) = {
            let mut state = self.lock();
            let task = state.tasks.iter_mut().find(|task| task.id == id).unwrap();
            task.status = "completed";
            (task.peer.clone(), task.to_value())
        };
        self.changed.notify_all();
        self.emit_to(&peer, "notifications/tasks/status", &status);
    }

    /// The requests about tasks.
    pub(super) fn task_request(&self, method: &str, params: &Value) -> Result<String, Refusal> {
        let id = params["taskId"].as_str().unwrap_or_default();
        if method == "tasks/result" {
            return self.task_result(id).ok_or_else(|| unknown(params));
        }
        let mut state = self.lock();
        if method == "tasks/list" {
            let texts: Vec<String> =
                state.tasks.iter().map(|task| task.to_value().to_string()).collect();
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            return Ok(page("tasks", &texts, state.page_items, params));
        }
        let task =
            state.tasks.iter_mut().find(|task| task.id == id).ok_or_else(|| unknown(params))?;
        if method == "tasks/cancel" {
            if task.is_over() {
                return Err(Refusal::new(-32602, "Cannot cancel task: it is over"));
            }
            task.status = "cancelled";
        }
        Ok(task.to_value().to_string())
    }

    /// Waits until the task is over.
    fn task_result(&self, id: &str) -> Option<String> {
        let deadline = Instant::now() + PATIENCE;
        let mut state = self.lock();
        loop {
            let task = state.tasks.iter().find(|task| task.id == id)?;
            if task.is_over() {
                let mut result = content(&task.text);
                result["_meta"] = json!({ RELATED_TASK: { "taskId": id }, "x-note": "kept" });
                return Some(result.to_string());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if state.ending || left.is_zero() {
                return None;
            }
            state = self.changed.wait_timeout(state, left).unwrap().0;
        }
    }
}
