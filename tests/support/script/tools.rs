//! The tools of a scripted server.

use std::collections::VecDeque;

use serde_json::{Value, json};

use super::asking::Asking;
use super::offers::{RICH_RESULT, RPC_ERROR};
use super::peers::notification;
use super::{Fields, Reply, Script, answer, content, error_answer};

/// A call that answers when it is told to.
#[derive(Debug)]
pub(super) struct Slow {
    pub(super) key: u64,
    pub(super) peer: String,
    pub(super) id: String,
    pub(super) label: String,
    pub(super) token: Option<String>,
    pub(super) steps: VecDeque<String>,
    pub(super) released: bool,
    pub(super) cancelled: bool,
}

fn progress(token: &str, step: u64, total: u64) -> String {
    format!(
        "{{\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\",\"params\":{{\
         \"progressToken\":{token},\"progress\":{step},\"total\":{total},\
         \"message\":\"step {step}\"}}}}"
    )
}

impl Script {
    /// Every `slow` call in progress answers.
    pub fn release_slow(&self) {
        self.lock().slow.iter_mut().for_each(|call| call.released = true);
        self.changed.notify_all();
    }

    /// The `slow` call of that label answers.
    pub fn release_labelled(&self, label: &str) {
        for call in self.lock().slow.iter_mut().filter(|call| call.label == label) {
            call.released = true;
        }
        self.changed.notify_all();
    }

    /// Every `slow` call in progress whose caller gave a token tells how far it has come.
    pub fn step_slow(&self, progress: u32, total: u32) {
        for call in &mut self.lock().slow {
            let Some(token) = &call.token else { continue };
            call.steps.push_back(self::progress(token, progress.into(), total.into()));
        }
        self.changed.notify_all();
    }

    /// Waits until so many `slow` calls are in progress.
    #[track_caller]
    pub fn wait_for_slow(&self, n: usize) {
        self.wait_until(&format!("{n} slow calls in progress"), |seen| seen.slow.len() == n);
    }

    pub(super) fn call(
        &self,
        peer: &str,
        id: &str,
        params: &Value,
        raw_params: Option<&str>,
        text: &str,
        notify: &mut dyn FnMut(&str),
    ) -> Reply {
        let name = params["name"].as_str().unwrap_or_default().to_owned();
        {
            let mut state = self.lock();
            *state.seen.calls.entry(name.clone()).or_default() += 1;
            text.clone_into(&mut state.seen.last_call);
            let is_there = state.offers.tools.iter().any(|tool| tool.name == name);
            if !is_there || !state.shows(peer, &name, params) {
                return Reply::Answer(error_answer(
                    id,
                    -32602,
                    &format!("Unknown tool: {name}"),
                ));
            }
        }
        let raw: Fields =
            raw_params.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
        let arguments = raw.get("arguments").map_or("{}", |value| value.get());
        let meta: Fields = raw
            .get("_meta")
            .and_then(|value| serde_json::from_str(value.get()).ok())
            .unwrap_or_default();
        let token = meta.get("progressToken").map(|value| value.get().to_owned());
        let values = params["arguments"].clone();
        let reply = match name.as_str() {
            "slow" => self.slow(peer, id, &values, token, notify),
            "rpc_error" => Reply::Answer(format!(
                "{{\"jsonrpc\":\"2.0\",\"id\":{id},\"error\":{RPC_ERROR}}}"
            )),
            _ if params.get("task").is_some_and(Value::is_object) && name == "long" => {
                Reply::Answer(answer(id, &self.create_task(peer, &values)))
            }
            "ask" | "ask_sampling" | "ask_elicitation" | "ask_roots" | "ask_twice" => {
                self.ask_tool(&mut Asking { peer, call: id, notify }, &name, &values)
            }
            "count" => {
                self.count(token.as_deref(), &values, notify);
                Reply::Answer(answer(id, &content("counted").to_string()))
            }
            "log" => self.log(&mut Asking { peer, call: id, notify }, &values),
            "whoami" => Reply::Answer(answer(id, &self.whoami(peer))),
            "emit" => {
                self.emit_to(peer, values["method"].as_str().unwrap(), &values["params"]);
                Reply::Answer(answer(id, &content("emitted").to_string()))
            }
            "garbage" => Reply::Garbage,
            "break_off" => Reply::BreakOff,
            "exit" | "noise" | "stderr" | "env" | "pid" | "ask_after" | "raw" => {
                Reply::OfTheTransport {
                    id: id.to_owned(),
                    tool: name.clone(),
                    arguments: values,
                }
            }
            _ => Reply::Answer(answer(id, &self.result_of(&name, &values, arguments))),
        };
        *self.lock().seen.finished.entry(name).or_default() += 1;
        reply
    }

    fn result_of(&self, name: &str, values: &Value, arguments: &str) -> String {
        match name {
            "add" => {
                let number = |key: &str| values[key].as_f64().unwrap_or_default();
                let sum = number("a") + number("b");
                let mut result = content(&sum.to_string());
                result["structuredContent"] = json!({ "sum": sum });
                result.to_string()
            }
            "fail" => {
                let mut result = content("It went wrong.");
                result["isError"] = json!(true);
                result.to_string()
            }
            "rich" => RICH_RESULT.to_owned(),
            _ if name.starts_with("odd_result") => values["result"].to_string(),
            "mirror" => format!(
                "{{\"content\":[{{\"type\":\"text\",\"text\":\"mirror\"}}],\
                 \"structuredContent\":{{\"arguments\":{arguments}}}}}"
            ),
            "big" => {
                let megabytes = values["megabytes"].as_u64().unwrap_or(1);
                let filling = "x".repeat(usize::try_from(megabytes).unwrap() * 1_000_000);
                format!("{{\"content\":[{{\"type\":\"text\",\"text\":\"{filling}\"}}]}}")
            }
            "touch" => {
                let n = self.touch(values["uri"].as_str().unwrap());
                content(&n.to_string()).to_string()
            }
            "change" => {
                self.change(values["kind"].as_str().unwrap(), values["name"].as_str().unwrap());
                content("changed").to_string()
            }
            "release" => {
                self.release_slow();
                content("released").to_string()
            }
            "add_tool" => {
                self.add_tool(values["name"].as_str().unwrap_or("added"));
                self.announce_change();
                content("added").to_string()
            }
            // `echo`, and every tool that a test invents.
            _ => {
                let message = values["message"].as_str().unwrap_or(name);
                content(message).to_string()
            }
        }
    }

    /// Sends the messages that the arguments hold, each the parameters of one; log messages, or
    /// what `method` says.
    fn log(&self, asking: &mut Asking<'_>, arguments: &Value) -> Reply {
        let messages = arguments["messages"].as_array().cloned().unwrap_or_default();
        let method = arguments["method"].as_str().unwrap_or("notifications/message");
        for params in messages {
            self.say(asking, arguments, &notification(method, &params));
        }
        Reply::Answer(answer(asking.call, &content("logged").to_string()))
    }

    /// Tells step by step how far the call has come, if its caller wants to know.
    fn count(&self, token: Option<&str>, arguments: &Value, notify: &mut dyn FnMut(&str)) {
        let Some(token) = token else { return };
        let total = arguments["steps"].as_u64().unwrap_or(3);
        for step in 1..=total {
            notify(&progress(token, step, total));
        }
    }

    /// Which session the call came on, and what that session said in `initialize`.
    fn whoami(&self, peer: &str) -> String {
        let state = self.lock();
        let initialize =
            state.peers.get(peer).map(|peer| peer.initialize.clone()).unwrap_or_default();
        let mut result = content(peer);
        result["structuredContent"] =
            json!({ "peer": peer, "initialize": initialize, "user": state.users.of(peer) });
        result.to_string()
    }

    pub(super) fn slow(
        &self,
        peer: &str,
        id: &str,
        arguments: &Value,
        token: Option<String>,
        notify: &mut dyn FnMut(&str),
    ) -> Reply {
        // A call that has begun to answer: the first bytes are out before it waits.
        if let (Some(token), true) = (&token, arguments["begin"] == true) {
            notify(&progress(token, 1, 9));
        }
        let mut state = self.lock();
        let key = state.next_key;
        state.next_key += 1;
        let label = arguments["label"].as_str().unwrap_or_default().to_owned();
        state.slow.push(Slow {
            key,
            peer: peer.to_owned(),
            id: id.to_owned(),
            label: label.clone(),
            token,
            steps: VecDeque::new(),
            released: false,
            cancelled: false,
        });
        self.changed.notify_all();
        loop {
            let ending = state.ending;
            let at = state.slow.iter().position(|call| call.key == key).unwrap();
            let call = &mut state.slow[at];
            if let Some(step) = call.steps.pop_front() {
                drop(state);
                notify(&step);
                state = self.lock();
                continue;
            }
            if call.cancelled || call.released || ending {
                let call = state.slow.remove(at);
                self.changed.notify_all();
                return if call.cancelled || !call.released {
                    Reply::Nothing
                } else {
                    Reply::Answer(answer(id, &content(&format!("slow {label}")).to_string()))
                };
            }
            state = self.changed.wait(state).unwrap();
        }
    }
}
