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

/// The capabilities of a server for clients of a revision that has no tasks.
pub fn without_tasks(capabilities: &str) -> String {
    match super::raw::RawObject::parse(capabilities) {
        Ok(mut fields) => {
            fields.remove("tasks");
            fields.to_text()
        }
        Err(_) => capabilities.to_owned(),
    }
}

/// Whether capabilities have a member.
pub fn have(capabilities: &str, name: &str) -> bool {
    super::raw::RawObject::parse(capabilities).is_ok_and(|fields| fields.get(name).is_some())
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
