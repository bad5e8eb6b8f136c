//! Capabilities as values: what several servers can do together, and what a client can.

use serde_json::{Map, Value};

/// What servers can do together: every member that one of them has, and of members that
/// several have everything that one of them has. Members that nobody here knows are left out,
/// because what they mean for several servers is unknown; one server alone keeps all of its own.
pub fn merged<'a>(servers: impl IntoIterator<Item = &'a str>) -> String {
    let mut all: Vec<Map<String, Value>> =
        servers.into_iter().filter_map(|text| serde_json::from_str(text).ok()).collect();
    if let [one] = all.as_mut_slice() {
        return Value::Object(std::mem::take(one)).to_string();
    }
    let mut union = Map::new();
    for capabilities in all {
        for (name, value) in capabilities {
            if KNOWN.contains(&name.as_str()) {
                add(union.entry(name).or_insert(Value::Null), value);
            }
        }
    }
    Value::Object(union).to_string()
}

/// Capabilities that the gateway serves over several servers.
const KNOWN: [&str; 6] = ["tools", "prompts", "resources", "logging", "completions", "tasks"];

/// What is assumed of a server that has not answered yet: that it may have anything, and that
/// its lists will change.
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
        // Two that do not fit together: the first stands.
        (Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_), _)
        | (Value::Object(_), _) => (),
    }
}

/// Whether capabilities have a member.
pub fn have(capabilities: &str, name: &str) -> bool {
    super::raw::RawObject::parse(capabilities).is_ok_and(|fields| fields.get(name).is_some())
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

/// A client's capabilities as a server of sessions knows them: without extensions, which are
/// negotiated within one era only.
pub fn of_client_for_legacy(capabilities: &str) -> String {
    without(capabilities, &["extensions"])
}

/// A client's capabilities as a server without sessions knows them: without the tasks of
/// 2025-11-25, which are another thing there.
pub fn of_client_for_modern(capabilities: &str) -> String {
    without(capabilities, &["tasks", "extensions"])
}

/// A server's capabilities as a client of another era may have them.
pub fn of_server_across(capabilities: &str) -> String {
    without(capabilities, &["tasks", "extensions"])
}

fn without(capabilities: &str, names: &[&str]) -> String {
    let Ok(mut fields) = super::raw::RawObject::parse(capabilities) else {
        return "{}".to_owned();
    };
    for name in names {
        fields.remove(name);
    }
    fields.to_text()
}

/// Whether a client can be asked anything: sampling, elicitation or roots.
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
    fn a_client_without_features_cannot_be_asked() {
        assert!(!can_be_asked(r#"{"experimental":{}}"#));
        assert!(can_be_asked(r#"{"roots":{"listChanged":true}}"#));
    }
}
