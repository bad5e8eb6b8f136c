//! Capabilities of servers, of several together, and of clients.

use serde_json::{Map, Value};

use super::raw::RawObject;
use super::revision::Revision;

/// The capabilities of servers together: every member that one of them has, and of members that
/// several have everything that one of them has. Members that the gateway does not know are left
/// out, because their meaning for several servers is unknown; a server alone keeps all of its
/// own.
pub fn merged<'a>(servers: impl IntoIterator<Item = &'a str>) -> String {
    let mut all: Vec<Map<String, Value>> =
        servers.into_iter().filter_map(|text| serde_json::from_str(text).ok()).collect();
    if let [one] = all.as_mut_slice() {
        return Value::Object(std::mem::take(one)).to_string();
    }
    let mut union = Map::new();
    for capabilities in all {
        for (name, mut value) in capabilities {
            if name == EXTENSIONS {
                // Of several servers' extensions only the one that the gateway routes is kept.
                let routed = value.as_object_mut().and_then(|all| all.remove(TASKS_EXTENSION));
                let Some(tasks) = routed else { continue };
                value = serde_json::json!({ TASKS_EXTENSION: tasks });
            } else if !KNOWN.contains(&name.as_str()) {
                continue;
            }
            add(union.entry(name).or_insert(Value::Null), value);
        }
    }
    Value::Object(union).to_string()
}

/// Capabilities that the gateway serves over several servers.
const KNOWN: [&str; 6] = ["tools", "prompts", "resources", "logging", "completions", "tasks"];

/// The member that holds extensions by name (2026-07-28, basic/versioning, Extension
/// Negotiation).
const EXTENSIONS: &str = "extensions";
/// The extension that is routed by the server in a task's id.
const TASKS_EXTENSION: &str = "io.modelcontextprotocol/tasks";

/// True if the capabilities have the tasks extension.
pub fn have_tasks_extension(capabilities: &str) -> bool {
    RawObject::parse(capabilities).is_ok_and(|fields| {
        fields.get(EXTENSIONS).is_some_and(|all| have(all, TASKS_EXTENSION))
    })
}

/// The capabilities that are assumed of a server before it has answered: all of them, with
/// changes of its lists.
pub const NOT_YET_KNOWN: &str = r#"{"tools":{"listChanged":true},"prompts":{"listChanged":true},"resources":{"listChanged":true,"subscribe":true},"logging":{},"completions":{}}"#;

fn add(into: &mut Value, value: Value) {
    match (&mut *into, value) {
        (Value::Object(into), Value::Object(value)) => {
            for (name, value) in value {
                add(into.entry(name).or_insert(Value::Null), value);
            }
        }
        (Value::Bool(into), Value::Bool(value)) => *into |= value,
        (Value::Null, value) => *into = value,
        // Values of different types: the first stands.
        (Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_), _)
        | (Value::Object(_), _) => (),
    }
}

/// The capabilities of a server for clients of a revision that has no tasks.
pub fn without_tasks(capabilities: &str) -> String {
    without(capabilities, &["tasks"])
}

/// True if the capabilities have the member `name`.
pub fn have(capabilities: &str, name: &str) -> bool {
    RawObject::parse(capabilities).is_ok_and(|fields| fields.get(name).is_some())
}

/// True if the server notifies of changes to the list that the member names.
pub fn tells_of(capabilities: &str, name: &str) -> bool {
    has_flag(capabilities, name, "listChanged")
}

/// True if the server's resources can be subscribed to.
pub fn can_subscribe(capabilities: &str) -> bool {
    has_flag(capabilities, "resources", "subscribe")
}

fn has_flag(capabilities: &str, name: &str, flag: &str) -> bool {
    let fields = RawObject::parse(capabilities);
    let member = fields.ok().and_then(|fields| fields.get(name).map(str::to_owned));
    let member = member.as_deref().map(RawObject::parse);
    matches!(member, Some(Ok(member)) if member.get(flag) == Some("true"))
}

/// The client capability without which a request of that method must not be sent.
pub fn needed_for(method: &str) -> Option<&'static str> {
    match method {
        "sampling/createMessage" => Some("sampling"),
        "elicitation/create" => Some("elicitation"),
        "roots/list" => Some("roots"),
        _ => None,
    }
}

/// The capability that a request to a client needs and the client has not declared, if there is
/// one. Elicitation is declared by its modes, and without any for forms alone (2026-07-28,
/// client/elicitation, Capabilities).
pub fn lacking(capabilities: &str, method: &str, params: Option<&str>) -> Option<&'static str> {
    let needed = needed_for(method)?;
    let fields = RawObject::parse(capabilities).ok();
    let Some(declared) = fields.as_ref().and_then(|fields| fields.get(needed)) else {
        return Some(needed);
    };
    let params = params.and_then(|params| RawObject::parse(params).ok());
    if needed == "sampling" {
        // `tools` is a declared part of sampling (2025-11-25, client/sampling, Capabilities).
        let has = |key: &str| params.as_ref().is_some_and(|it| it.get(key).is_some());
        let lacks_tools = (has("tools") || has("toolChoice")) && !have(declared, "tools");
        return lacks_tools.then_some(needed);
    }
    if needed != "elicitation" {
        return None;
    }
    let mode = params.and_then(|params| params.string("mode").ok().flatten());
    let is_served = match mode.as_deref() {
        Some("url") => have(declared, "url"),
        _ => have(declared, "form") || !have(declared, "url"),
    };
    (!is_served).then_some(needed)
}

/// A client's capabilities for servers that keep sessions: without extensions, which are
/// negotiated within one era only.
pub fn of_client_for_legacy(capabilities: &str) -> String {
    without(capabilities, &[EXTENSIONS])
}

/// A client's capabilities for servers without sessions: without the tasks of 2025-11-25, which
/// mean another thing there.
pub fn of_client_for_modern(capabilities: &str) -> String {
    without(capabilities, &["tasks", EXTENSIONS])
}

/// The extension by which a client has access tokens for itself.
pub const CLIENT_CREDENTIALS_EXTENSION: &str =
    "io.modelcontextprotocol/oauth-client-credentials";
/// The extension by which a client has access tokens through an enterprise's identity provider.
pub const ENTERPRISE_EXTENSION: &str =
    "io.modelcontextprotocol/enterprise-managed-authorization";

/// Capabilities of a client that has an extension besides.
pub fn with_extension(capabilities: &str, name: &str) -> String {
    let mut fields = RawObject::parse(capabilities).unwrap_or_default();
    let before = fields.get(EXTENSIONS).map(str::to_owned);
    let before = before.as_deref().and_then(|all| RawObject::parse(all).ok());
    let mut extensions = before.unwrap_or_default();
    extensions.set(name, "{}".to_owned());
    fields.set(EXTENSIONS, extensions.to_text());
    fields.to_text()
}

/// A server's capabilities for a client of that revision: across eras without those that are
/// negotiated within one era only.
pub fn of_server_for(capabilities: &str, server: Revision, client: Revision) -> String {
    if server.era() == client.era() {
        return capabilities.to_owned();
    }
    without(capabilities, &["tasks", EXTENSIONS])
}

fn without(capabilities: &str, names: &[&str]) -> String {
    let Ok(mut fields) = RawObject::parse(capabilities) else {
        return "{}".to_owned();
    };
    for name in names {
        fields.remove(name);
    }
    fields.to_text()
}

/// True if the capabilities have no member.
pub fn declare_nothing(capabilities: &str) -> bool {
    RawObject::parse(capabilities).is_ok_and(|fields| fields.is_empty())
}

/// True if the client declares sampling, elicitation or roots, so that it can be asked questions.
pub fn can_be_asked(capabilities: &str) -> bool {
    ["sampling", "elicitation", "roots"].iter().any(|name| have(capabilities, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_server_keeps_all_of_its_own() {
        let own = r#"{"experimental":{"x":{}},"tools":{}}"#;
        assert_eq!(merged([own]), own);
    }

    #[test]
    fn several_servers_have_the_union_of_what_is_known() {
        let union = merged([
            r#"{"tools":{"listChanged":false},"experimental":{"x":1}}"#,
            r#"{"tools":{"listChanged":true},"resources":{"subscribe":true}}"#,
            "no object",
        ]);
        assert_eq!(union, r#"{"tools":{"listChanged":true},"resources":{"subscribe":true}}"#);
        assert_eq!(merged([]), "{}");
    }

    #[test]
    fn an_extension_stands_beside_those_of_the_caller() {
        for (before, after) in [
            ("{}", r#"{"extensions":{"a/b":{}}}"#),
            (
                r#"{"roots":{},"extensions":{"c/d":{"x":1}}}"#,
                r#"{"roots":{},"extensions":{"c/d":{"x":1},"a/b":{}}}"#,
            ),
            (r#"{"extensions":[]}"#, r#"{"extensions":{"a/b":{}}}"#),
        ] {
            assert_eq!(with_extension(before, "a/b"), after);
        }
    }

    #[test]
    fn what_a_client_has_not_declared_is_lacking() {
        let (form, url) = (Some(r#"{"mode":"form"}"#), Some(r#"{"mode":"url"}"#));
        for (declared, params, is_lacking) in [
            ("{}", None, true),
            (r#"{"elicitation":{}}"#, None, false),
            (r#"{"elicitation":{}}"#, form, false),
            (r#"{"elicitation":{}}"#, url, true),
            (r#"{"elicitation":{"form":{}}}"#, form, false),
            (r#"{"elicitation":{"form":{}}}"#, url, true),
            (r#"{"elicitation":{"url":{}}}"#, url, false),
            (r#"{"elicitation":{"url":{}}}"#, None, true),
            (r#"{"elicitation":{"form":{},"url":{}}}"#, None, false),
        ] {
            let lacking = lacking(declared, "elicitation/create", params);
            assert_eq!(lacking.is_some(), is_lacking, "{declared} {params:?}");
        }
        assert_eq!(lacking("{}", "roots/list", None), Some("roots"));
        assert_eq!(lacking(r#"{"sampling":{}}"#, "sampling/createMessage", None), None);
        assert_eq!(lacking("{}", "x/y", None), None);
    }

    #[test]
    fn a_client_without_features_cannot_be_asked() {
        assert!(!can_be_asked(r#"{"experimental":{}}"#));
        assert!(can_be_asked(r#"{"roots":{"listChanged":true}}"#));
    }
}
