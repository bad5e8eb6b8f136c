//! The scripted server asks: requests to the client during a call, or on a session's stream.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::peers::notification;
use super::{PATIENCE, Reply, Script, answer, content};

/// A question and what became of it.
#[derive(Debug, Default)]
pub(super) struct Questions {
    /// By session and id (JSON text).
    open: BTreeMap<(String, String), Option<Value>>,
    next_id: u64,
    /// Calls that ask and were cancelled, by session and id (JSON text).
    cancelled: Vec<(String, String)>,
}

impl Questions {
    /// What that call asks is no longer waited for.
    pub(super) fn cancel(&mut self, peer: &str, call: &str) {
        self.cancelled.push((peer.to_owned(), call.to_owned()));
    }
}

/// The call during which a question is asked.
pub(super) struct Asking<'a> {
    pub(super) peer: &'a str,
    /// The call's id, as text.
    pub(super) call: &'a str,
    pub(super) notify: &'a mut dyn FnMut(&str),
}

/// The schema of the form: every primitive type with a default, and enums of both shapes.
pub const FORM: &str = r#"{"type":"object","x-order":["zulu","alpha"],"properties":{"zulu":{"type":"string","title":"Name","default":"John \u00e9"},"alpha":{"type":"integer","minimum":0,"maximum":1E2,"default":30},"score":{"type":"number","default":95.50},"verified":{"type":"boolean","default":true},"colour":{"type":"string","enum":["red","green"],"enumNames":["Red","Green"],"default":"green"},"kind":{"type":"string","oneOf":[{"const":"a","title":"A"},{"const":"b","title":"B"}]},"several":{"type":"array","minItems":1,"items":{"anyOf":[{"const":"x","title":"X"},{"const":"y","title":"Y"}]}}},"required":["zulu"]}"#;

/// The parameters of the usual question of each kind, as text. What `arguments` has under
/// `params` goes in place of it.
pub(super) fn usual_params(method: &str, arguments: &Value) -> Option<String> {
    let prompt = json!(arguments["prompt"].as_str().unwrap_or("Who are you?"));
    match method {
        "sampling/createMessage" => Some(format!(
            "{{\"messages\":[{{\"role\":\"user\",\"content\":{{\"type\":\"text\",\"text\":{prompt}}}}}],\
             \"maxTokens\":1E2,\"x-unknown\":{{\"z\":1.50,\"a\":null}}}}"
        )),
        "elicitation/create" if arguments["mode"] == "url" => Some(format!(
            "{{\"mode\":\"url\",\"message\":{prompt},\"elicitationId\":\"e-1\",\
             \"url\":\"https://example.org/connect?e=1\"}}"
        )),
        "elicitation/create" => {
            Some(format!("{{\"message\":{prompt},\"requestedSchema\":{FORM}}}"))
        }
        _ => None,
    }
}

fn question_message(id: &str, method: &str, params: Option<&str>) -> String {
    let method = json!(method);
    let params = params.map(|params| format!(",\"params\":{params}")).unwrap_or_default();
    format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"method\":{method}{params}}}")
}

/// What a tool that asks wants to know.
pub(super) fn methods_of<'a>(tool: &str, args: &'a Value) -> Vec<&'a str> {
    match tool {
        "ask_sampling" => vec!["sampling/createMessage"],
        "ask_elicitation" => vec!["elicitation/create"],
        "ask_roots" => vec!["roots/list"],
        "ask_twice" => vec!["sampling/createMessage", "roots/list"],
        _ => vec![args["method"].as_str().unwrap_or("ping")],
    }
}

/// The result of a tool that asked.
pub(super) fn told_answers(answers: &[Value]) -> Value {
    let texts: Vec<String> = answers.iter().map(Value::to_string).collect();
    let mut result = content(&texts.join("\n"));
    result["structuredContent"] = json!({ "answers": answers });
    result
}

impl Script {
    /// Asks that session something on its stream, outside of any call, and waits for the answer:
    /// the whole message.
    #[track_caller]
    pub fn ask_outside(&self, peer: &str, method: &str, params: &Value) -> Value {
        let params = (!params.is_null()).then(|| params.to_string());
        let id = self.open_question(peer, None);
        self.send_to(peer, &question_message(&id, method, params.as_deref()));
        self.wait_for_answer(peer, &id, None, PATIENCE)
            .unwrap_or_else(|| panic!("no answer to {method}"))
    }

    /// Notes an answer. One that was not asked for is only among what was received.
    pub(super) fn take_answer(&self, peer: &str, id: &str, message: &Value) {
        let key = (peer.to_owned(), id.to_owned());
        if let Some(slot) = self.lock().questions.open.get_mut(&key) {
            *slot = Some(message.clone());
        }
    }

    /// The tools that ask.
    pub(super) fn ask_tool(&self, asking: &mut Asking<'_>, tool: &str, args: &Value) -> Reply {
        let methods = methods_of(tool, args);
        let mut answers = Vec::new();
        self.tell_phase(asking, args, "before");
        // Each round begins when the one before it is answered.
        for _ in 1..args["rounds"].as_u64().unwrap_or(1) {
            let ids = self.ask_all(asking, &methods, args);
            match self.wait_for_answers(asking, &ids) {
                Some(round) => answers.extend(round),
                None => return Reply::Nothing,
            }
        }
        let ids = self.ask_all(asking, &methods, args);
        if args["withdraw"] == true {
            for id in &ids {
                let params = format!("{{\"requestId\":{id},\"reason\":\"no need\"}}");
                let params = serde_json::from_str(&params).unwrap();
                self.say(asking, args, &notification("notifications/cancelled", &params));
            }
            return Reply::Answer(answer(asking.call, &content("withdrawn").to_string()));
        }
        if args["leave"] == true {
            return Reply::Answer(answer(asking.call, &content("left open").to_string()));
        }
        match self.wait_for_answers(asking, &ids) {
            Some(round) => answers.extend(round),
            None => return Reply::Nothing,
        }
        self.tell_phase(asking, args, "after");
        // The answers do not end it: it goes on until it is released or cancelled.
        if args["linger"] == true
            && self.slow(asking.peer, asking.call, args, None, asking.notify) == Reply::Nothing
        {
            return Reply::Nothing;
        }
        if args["mode"] == "url" {
            let complete = json!({ "elicitationId": "e-1" });
            let complete = notification("notifications/elicitation/complete", &complete);
            self.say(asking, args, &complete);
        }
        Reply::Answer(answer(asking.call, &told_answers(&answers).to_string()))
    }

    /// A log message, where the arguments want one.
    fn tell_phase(&self, asking: &mut Asking<'_>, args: &Value, phase: &str) {
        if args["tell"] == true {
            let message = json!({ "level": "info", "data": phase });
            self.say(asking, args, &notification("notifications/message", &message));
        }
    }

    fn ask_all(&self, asking: &mut Asking<'_>, methods: &[&str], args: &Value) -> Vec<String> {
        let mut ids = Vec::new();
        for method in methods {
            let id = self.open_question(asking.peer, args.get("id"));
            let own = args.get("params").filter(|params| !params.is_null());
            let params = own.map(Value::to_string).or_else(|| usual_params(method, args));
            self.say(asking, args, &question_message(&id, method, params.as_deref()));
            ids.push(id);
        }
        ids
    }

    fn wait_for_answers(&self, asking: &Asking<'_>, ids: &[String]) -> Option<Vec<Value>> {
        let (peer, call) = (asking.peer, Some(asking.call));
        ids.iter().map(|id| self.wait_for_answer(peer, id, call, PATIENCE)).collect()
    }

    /// Says something during a call: on the way of its answer, or on the session's stream.
    pub(super) fn say(&self, asking: &mut Asking<'_>, args: &Value, message: &str) {
        if args["via"] == "stream" {
            self.send_to(asking.peer, message);
        } else {
            (asking.notify)(message);
        }
    }

    /// Ids count up from 1 for all sessions together, as those of clients do.
    fn open_question(&self, peer: &str, wanted: Option<&Value>) -> String {
        let mut state = self.lock();
        state.questions.next_id += 1;
        let own = state.questions.next_id.to_string();
        let id = wanted.filter(|id| !id.is_null()).map_or(own, Value::to_string);
        state.questions.open.insert((peer.to_owned(), id.clone()), None);
        id
    }

    /// Nothing if the call was cancelled, the server ends, or time is over.
    fn wait_for_answer(
        &self,
        peer: &str,
        id: &str,
        call: Option<&str>,
        limit: Duration,
    ) -> Option<Value> {
        let deadline = Instant::now() + limit;
        let key = (peer.to_owned(), id.to_owned());
        let cancelled = call.map(|call| (peer.to_owned(), call.to_owned()));
        let mut state = self.lock();
        loop {
            if let Some(Some(answer)) = state.questions.open.get(&key) {
                return Some(answer.clone());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let gone =
                cancelled.as_ref().is_some_and(|c| state.questions.cancelled.contains(c));
            if gone || state.ending || left.is_zero() {
                return None;
            }
            state = self.changed.wait_timeout(state, left).unwrap().0;
        }
    }
}
