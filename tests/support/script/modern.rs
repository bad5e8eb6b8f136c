//! The scripted server as a modern one (2026-07-28): every request is whole in itself, there are
//! no sessions, and what it wants from a client it wants in results.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::asking::{methods_of, told_answers, usual_params};
use super::peers::notification;
use super::{Fields, LEVELS, Refusal, Reply, Script, answer, content, error_answer};

/// The revision that a modern scripted server speaks, and no other.
pub const MODERN: &str = "2026-07-28";

/// A key of `_meta` that the protocol reserves.
pub fn meta(name: &str) -> String {
    format!("io.modelcontextprotocol/{name}")
}

/// What only a modern server remembers.
#[derive(Debug)]
pub(super) struct Modern {
    /// What was handed out and not yet come back, by the state's text.
    states: BTreeMap<String, Waiting>,
    n_states: usize,
    /// `ttlMs` and `cacheScope` of what can be cached.
    freshness: (u64, String),
}

impl Default for Modern {
    fn default() -> Self {
        let freshness = (300_000, "public".to_owned());
        Modern { states: BTreeMap::new(), n_states: 0, freshness }
    }
}

/// A request that wants input.
#[derive(Debug, Clone)]
struct Waiting {
    /// The request's parameters without what belongs to a retry.
    params: Value,
    round: u64,
    /// What this round wants: key and method.
    wanted: Vec<(String, String)>,
    /// Answers of all rounds by key.
    answers: BTreeMap<String, Value>,
}

/// The parameters by which a retry is known.
fn identity(params: &Value) -> Value {
    let fields = params.as_object().into_iter().flatten();
    let of_retry = ["_meta", "inputResponses", "requestState"];
    let kept = fields.filter(|(key, _)| !of_retry.contains(&key.as_str()));
    Value::Object(kept.map(|(key, value)| (key.clone(), value.clone())).collect())
}

/// What a round wants: keys that name round and place.
fn wanted_in(round: u64, methods: &[&str]) -> Vec<(String, String)> {
    let key = |n: usize| format!("q{round}.{n}/\u{fc}");
    methods.iter().enumerate().map(|(n, method)| (key(n), (*method).to_owned())).collect()
}

/// Adds what every modern result carries behind what is there.
fn dressed(result: &str, freshness: Option<&(u64, String)>) -> String {
    let fields: Fields = serde_json::from_str(result).unwrap();
    let mut out = result.trim_end().strip_suffix('}').unwrap().to_owned();
    let mut add = |key: &str, value: &str| {
        if !fields.contains_key(key) {
            let comma = if out.trim_end().ends_with('{') { "" } else { "," };
            out.push_str(&format!("{comma}\"{key}\":{value}"));
        }
    };
    add("resultType", "\"complete\"");
    if let Some((ttl, scope)) = freshness {
        add("ttlMs", &ttl.to_string());
        add("cacheScope", &format!("\"{scope}\""));
    }
    let info = json!({ meta("serverInfo"): { "name": "scripted-modern", "version": "1.0.0" } });
    add("_meta", &info.to_string());
    out.push('}');
    out
}

/// The capability that a client must have for that question.
fn capability(method: &str) -> &str {
    method.split('/').next().unwrap_or_default()
}

impl Script {
    /// `ttlMs` and `cacheScope` of lists, reads and discovery from now on.
    pub fn set_freshness(&self, ttl_ms: u64, scope: &str) {
        self.lock().modern.freshness = (ttl_ms, scope.to_owned());
    }

    /// Takes one message as a modern server does; `peer` is a connection or a process. Blocks as
    /// long as the call takes. `subscriptions/listen` is [`Script::open_listen`]'s.
    pub fn handle_modern(&self, peer: &str, text: &str, notify: &mut dyn FnMut(&str)) -> Reply {
        let Ok(message) = serde_json::from_str::<Fields>(text) else {
            return Reply::Answer(error_answer("null", -32700, "Parse error"));
        };
        let part = |key: &str| message.get(key).map(|value| value.get().to_owned());
        let raw_params = part("params");
        let params: Value =
            raw_params.as_deref().map_or(Value::Null, |raw| serde_json::from_str(raw).unwrap());
        let method: Option<String> =
            part("method").and_then(|text| serde_json::from_str(&text).ok());
        self.note_received(peer, text, method.as_deref(), &params);
        let reply = match (method, part("id")) {
            // A modern server asks nothing, so nobody has anything to answer.
            (None, _) => Reply::Answer(error_answer("null", -32600, "No request")),
            (Some(method), None) => {
                self.note_notification(peer, &method, &params, raw_params.as_deref());
                Reply::Accepted
            }
            (Some(method), Some(id)) => match check_envelope(&method, &params) {
                Err(refusal) => refuse(&id, &refusal),
                Ok(()) => self.serve_modern(peer, &id, &method, &params, text, notify),
            },
        };
        self.changed.notify_all();
        reply
    }

    fn serve_modern(
        &self,
        peer: &str,
        id: &str,
        method: &str,
        params: &Value,
        text: &str,
        notify: &mut dyn FnMut(&str),
    ) -> Reply {
        let name = params["name"].as_str().unwrap_or_default();
        let is_call = method == "tools/call";
        if is_call && name.starts_with("ask") || method == "prompts/get" && name == "asking" {
            return match self.ask_modern(name, params) {
                Ok(result) => Reply::Answer(answer(id, &dressed(&result, None))),
                Err(refusal) => refuse(id, &refusal),
            };
        }
        if is_call && name == "log" {
            self.log_modern(params, notify);
            let result = dressed(&content("logged").to_string(), None);
            return Reply::Answer(answer(id, &result));
        }
        if is_call {
            let fields: Fields = serde_json::from_str(text).unwrap();
            let raw = fields.get("params").map(|value| value.get());
            let reply = self.call(peer, id, params, raw, text, notify);
            if let Reply::Answer(text) = &reply {
                return Reply::Answer(with_dressed_result(text));
            }
            return reply;
        }
        match self.modern_request(peer, method, params) {
            Ok(result) => Reply::Answer(answer(id, &result)),
            Err(refusal) => refuse(id, &refusal),
        }
    }

    fn modern_request(
        &self,
        peer: &str,
        method: &str,
        params: &Value,
    ) -> Result<String, Refusal> {
        let state = self.lock();
        if state.refused.as_deref() == Some(method) {
            let what = state.refusal.as_deref().unwrap_or("Refused, as the test wants it");
            return Err(Refusal::new(-32603, what));
        }
        drop(state);
        let freshness = self.lock().modern.freshness.clone();
        let cached = |result: String| dressed(&result, Some(&freshness));
        Ok(match method {
            "server/discover" => cached(self.discover()),
            "tools/list" => cached(self.list(peer, "tools", params)),
            "prompts/list" => cached(self.list(peer, "prompts", params)),
            "resources/list" => cached(self.list(peer, "resources", params)),
            "resources/templates/list" => cached(self.list(peer, "resourceTemplates", params)),
            "resources/read" => cached(self.read_resource(peer, params).map_err(as_modern)?),
            "prompts/get" => dressed(&self.get_prompt(peer, params)?, None),
            "completion/complete" => dressed(&self.complete(params)?, None),
            other => return Err(Refusal::new(-32601, &format!("Method not found: {other}"))),
        })
    }

    fn discover(&self) -> String {
        let state = self.lock();
        let mut capabilities = state.capabilities.clone();
        // Tasks are an extension now.
        capabilities.as_object_mut().unwrap().remove("tasks");
        let mut result = json!({ "supportedVersions": [MODERN], "capabilities": capabilities });
        if let Some(instructions) = &state.instructions {
            result["instructions"] = json!(instructions);
        }
        result.to_string()
    }

    /// Only what is asked for, and only from that level on.
    fn log_modern(&self, params: &Value, notify: &mut dyn FnMut(&str)) {
        let rank = |level: &Value| LEVELS.iter().position(|it| Some(*it) == level.as_str());
        let Some(wanted) = rank(&params["_meta"][meta("logLevel")]) else { return };
        for message in params["arguments"]["messages"].as_array().into_iter().flatten() {
            if rank(&message["level"]).is_some_and(|level| level >= wanted) {
                notify(&notification("notifications/message", message));
            }
        }
    }

    /// A request that wants input. Arguments: `rounds`, `mode` and `prompt` as for a legacy one;
    /// `state_only` wants a retry and nothing else; `stateless` gives no state; `brazen` does not
    /// look at the client's capabilities.
    fn ask_modern(&self, name: &str, params: &Value) -> Result<String, Refusal> {
        let args = &params["arguments"];
        let methods = match name {
            "asking" => vec!["elicitation/create"],
            _ if args["state_only"] == true => Vec::new(),
            _ => methods_of(name, args),
        };
        let declared = &params["_meta"][meta("clientCapabilities")];
        for method in &methods {
            let needed = capability(method);
            if declared.get(needed).is_none() && args["brazen"] != true {
                let data = json!({ "requiredCapabilities": { needed: {} } });
                return Err(
                    Refusal::new(-32021, &format!("{needed} is needed")).with_data(data)
                );
            }
        }
        let mut waiting = self.taken_up(params, &methods)?;
        if let Some(waiting) = &mut waiting {
            let responses = params["inputResponses"].as_object();
            let response = |key: &str| responses.and_then(|responses| responses.get(key));
            for (key, _) in &waiting.wanted {
                if let Some(response) = response(key) {
                    waiting.answers.insert(key.clone(), response.clone());
                }
            }
            waiting.wanted.retain(|(key, _)| !waiting.answers.contains_key(key));
            if waiting.wanted.is_empty() {
                waiting.round += 1;
            }
        }
        let mut waiting = waiting.unwrap_or_else(|| Waiting {
            params: identity(params),
            round: 0,
            wanted: Vec::new(),
            answers: BTreeMap::new(),
        });
        if waiting.round >= args["rounds"].as_u64().unwrap_or(1) {
            let answers = waiting.answers.values().map(|it| json!({ "result": it }));
            let answers: Vec<Value> = answers.collect();
            if name == "asking" {
                let text = json!({ "type": "text", "text": answers[0].to_string() });
                let messages = json!([{ "role": "user", "content": text }]);
                return Ok(json!({ "messages": messages }).to_string());
            }
            return Ok(told_answers(&answers).to_string());
        }
        if waiting.wanted.is_empty() {
            waiting.wanted = wanted_in(waiting.round, &methods);
        }
        Ok(self.hand_out(waiting, args))
    }

    /// What the request goes on with, if it is a retry. A state is good once.
    fn taken_up(&self, params: &Value, methods: &[&str]) -> Result<Option<Waiting>, Refusal> {
        let refused = || {
            let data = json!({ "reason": "invalid_request_state" });
            Refusal::new(-32602, "Invalid or expired requestState").with_data(data)
        };
        let is_stateless = params["arguments"]["stateless"] == true;
        if params.get("requestState").is_none() {
            return match (params.get("inputResponses").is_some(), is_stateless) {
                (false, _) => Ok(None),
                (true, true) => Ok(Some(Waiting {
                    params: identity(params),
                    round: 0,
                    wanted: wanted_in(0, methods),
                    answers: BTreeMap::new(),
                })),
                (true, false) => Err(refused()),
            };
        }
        let state = params["requestState"].as_str().ok_or_else(refused)?;
        let waiting = self.lock().modern.states.remove(state).ok_or_else(refused)?;
        if waiting.params != identity(params) {
            return Err(refused());
        }
        Ok(Some(waiting))
    }

    fn hand_out(&self, waiting: Waiting, args: &Value) -> String {
        let request = |(key, method): &(String, String)| {
            let own = args.get("params").filter(|params| !params.is_null());
            let params = own.map(Value::to_string).or_else(|| usual_params(method, args));
            let params = params.map(|it| format!(",\"params\":{it}")).unwrap_or_default();
            format!("{}:{{\"method\":\"{method}\"{params}}}", json!(key))
        };
        let requests: Vec<String> = waiting.wanted.iter().map(request).collect();
        let mut out = "{\"resultType\":\"input_required\"".to_owned();
        if !requests.is_empty() {
            out.push_str(&format!(",\"inputRequests\":{{{}}}", requests.join(",")));
        }
        if args["stateless"] == true {
            out.push('}');
            return out;
        }
        let mut state = self.lock();
        state.modern.n_states += 1;
        // Nothing that a careless hand would leave as it is.
        let text = format!("state {} \"\\/\u{e9}+=%20", state.modern.n_states);
        out.push_str(&format!(",\"requestState\":{}}}", json!(text)));
        state.modern.states.insert(text, waiting);
        out
    }
}

/// What every request must carry (basic/index, `_meta`).
pub(super) fn check_envelope(method: &str, params: &Value) -> Result<(), Refusal> {
    let own = |name: &str| &params["_meta"][meta(name)];
    let Some(version) = own("protocolVersion").as_str() else {
        let message = format!("{method}: no protocolVersion in _meta; served is {MODERN}");
        return Err(Refusal::new(-32602, &message));
    };
    if version != MODERN {
        let data = json!({ "supported": [MODERN], "requested": version });
        return Err(Refusal::new(-32022, "Unsupported protocol version").with_data(data));
    }
    if !own("clientCapabilities").is_object() {
        return Err(Refusal::new(-32602, "no clientCapabilities in _meta"));
    }
    Ok(())
}

/// The same refusal with the code of the revision.
fn as_modern(mut refusal: Refusal) -> Refusal {
    if refusal.0["code"] == -32002 {
        refusal.0["code"] = json!(-32602);
    }
    refusal
}

fn refuse(id: &str, Refusal(error): &Refusal) -> Reply {
    Reply::Answer(format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"error\":{error}}}"))
}

/// The message with its result dressed; one without a result stays as it is.
fn with_dressed_result(text: &str) -> String {
    let fields: Fields = serde_json::from_str(text).unwrap();
    match fields.get("result") {
        Some(result) => answer(fields["id"].get(), &dressed(result.get(), None)),
        None => text.to_owned(),
    }
}
