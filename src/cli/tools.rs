//! `trunkline tools`: lists the tools.

use serde_json::{Value, json};

use super::client::{Client, Listed, NoAnswer, narrowed};
use super::command::{At, Output};
use super::running::NOT_FOUND;
use super::{complain, exit, fail, loaded, print, shown, usage};
use crate::config::{Config, name_of_gateway};
use crate::protocol::server_name::ServerName;

/// The characters of a description that stand beside a tool's name.
const DESCRIPTION_CHARS_MAX: usize = 100;

pub(super) fn run(at: &At, server_asked: Option<&str>, json: Output) -> u8 {
    let (mut config, _) = match loaded(&at.of_server(server_asked)) {
        Ok(loaded) => loaded,
        Err(code) => return code,
    };
    let server = match (at, server_asked) {
        (At::Config(_), Some(server)) => match of_config(&config, server) {
            Ok(server) => Some(server),
            Err(code) => return code,
        },
        (At::Config(_) | At::Url(_), _) => None,
    };
    narrowed(&mut config, server.as_ref());
    let of = at.of_server(server_asked);
    let listed = match Client::open(config, &json!({})).and_then(|mut client| client.tools()) {
        Ok(Ok(listed)) => listed,
        Ok(Err(error)) => return fail(&format!("tools: {}", shown(&error.message))),
        Err(NoAnswer::Interrupted) => return exit::FAILED,
        Err(NoAnswer::Broken(what)) => return fail(&format!("tools: {what}")),
    };
    if let (At::Url(url), Some(name)) = (at, server_asked)
        && listed.unwell.iter().any(|it| is_of(url, it) && it["upstream_status"] == NOT_FOUND)
    {
        let said = listed.unwell.iter().filter_map(|it| it["message"].as_str()).map(shown);
        let said = said.collect::<Vec<_>>().join("; ");
        return usage(&format!("tools: there is no server {name:?} at {url}: {said}"));
    }
    tell_unwell("tools", &of, &listed);
    let printed = print(&match json {
        Output::Json => format!("{}\n", json!({ "tools": listed.tools })),
        Output::Text => listed.tools.iter().map(line).collect(),
    });
    if printed == exit::FINE && !listed.unwell.is_empty() { exit::UNAVAILABLE } else { printed }
}

/// The server of that name.
pub(super) fn of_config(config: &Config, name: &str) -> Result<ServerName, u8> {
    let found = config.upstreams.iter().find(|upstream| upstream.name.as_str() == name);
    found.map(|upstream| upstream.name.clone()).ok_or_else(|| {
        let names: Vec<&str> = config.upstreams.iter().map(|it| it.name.as_str()).collect();
        let there = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        usage(&format!("there is no server {name:?}; there is: {there}"))
    })
}

/// True if a report about a server is about the gateway at this URL itself.
pub(super) fn is_of(url: &str, unwell: &Value) -> bool {
    unwell["server"].as_str() == Some(name_of_gateway(url).as_str())
}

/// Prints the servers that are not well.
pub(super) fn tell_unwell(command: &str, at: &At, listed: &Listed) {
    for unwell in &listed.unwell {
        let text = |key: &str| unwell[key].as_str().map(shown);
        let server = match at {
            At::Url(url) if is_of(url, unwell) => shown(url),
            At::Url(_) | At::Config(_) => text("server").unwrap_or_default(),
        };
        let outcome = text("outcome").unwrap_or_default();
        let how = match (text("stage"), text("message")) {
            (Some(stage), Some(message)) => format!("{outcome} ({stage}): {message}"),
            _ => outcome,
        };
        complain(&format!("trunkline: {command}: {server}: {how}"));
    }
}

/// `name(required: type, [optional: type])  description`.
fn line(tool: &Value) -> String {
    let schema = &tool["inputSchema"];
    let required: Vec<&str> =
        schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let arguments: Vec<String> = schema["properties"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, property)| {
            let kinds = super::schema::types_of(property).join("|");
            let name = shown(name);
            let typed = if kinds.is_empty() {
                name.clone()
            } else {
                format!("{name}: {}", shown(&kinds))
            };
            if required.contains(&name.as_str()) { typed } else { format!("[{typed}]") }
        })
        .collect();
    let name = shown(tool["name"].as_str().unwrap_or_default());
    let described = tool["description"].as_str().or_else(|| tool["title"].as_str());
    let described = described.unwrap_or_default().trim().lines().next().unwrap_or_default();
    let cut: String = described.chars().take(DESCRIPTION_CHARS_MAX).collect();
    let dots = if cut.len() < described.len() { "…" } else { "" };
    format!("{name}({})\n    {}{dots}\n", arguments.join(", "), shown(&cut))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tool_is_told_with_its_arguments() {
        let tool = json!({
            "name": "get", "description": "Gets\u{7} it.\nAnd more.",
            "inputSchema": {
                "properties": { "a": { "type": "string" }, "b": { "type": ["integer", "null"] }, "c": {} },
                "required": ["a"],
            },
        });
        let told = "get(a: string, [b: integer|null], [c])\n    Gets\\u{7} it.\n";
        assert_eq!(line(&tool), told);
        assert_eq!(line(&json!({ "name": "x" })), "x()\n    \n");
    }
}
