//! Pure: imports `mcpServers` of Claude Desktop, Claude Code, Cursor, Windsurf and similar hosts,
//! and `servers` of VS Code.

use serde_json::Value;

use super::draft::{Draft, Fields, Writing, variable_name};
use super::entry::{self, Entry};
use super::oauth;

/// Keys about the host's own treatment of a server, which do not concern the gateway.
const HOSTS_OWN: [&str; 12] = [
    "autoApprove",
    "alwaysAllow",
    "trust",
    "gallery",
    "version",
    "icon",
    "iconUrl",
    "name",
    "title",
    "source",
    "dev",
    "tags",
];

/// Keys without a counterpart, and advice.
const INSTEAD: [(&str, &str); 5] = [
    ("envFile", "put its variables into \"env\", or into the gateway's environment as ${NAME}"),
    ("headersHelper", "no program is run for headers: use \"headers\" with a ${VARIABLE}"),
    ("timeout", "hosts mean seconds or milliseconds by it: set \"timeout_ms\""),
    ("sandbox", "children are not confined by the gateway"),
    ("sandboxEnabled", "children are not confined by the gateway"),
];

/// Imports an object of servers.
pub(super) fn servers(draft: &mut Draft, at: &str, servers: &Fields) {
    for (name, server) in servers {
        let at = format!("{at}.{name}");
        match server {
            Value::Object(fields) => add(draft, &at, name, fields),
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Array(_) => draft.note(&at, "left out: it is no object"),
        }
    }
}

/// Notes variables for the values that VS Code asks for when it starts a server.
pub(super) fn inputs(draft: &mut Draft, inputs: &Value) {
    for input in inputs.as_array().into_iter().flatten() {
        let text = |key: &str| input.get(key).and_then(Value::as_str);
        if let Some(id) = text("id") {
            draft.variable(&variable_name(id), text("description"));
        }
    }
}

/// True if an object looks like a server: hosts' documentation often shows a bare map of servers.
pub(super) fn is_server(value: &Value) -> bool {
    ["command", "url", "serverUrl", "httpUrl"].iter().any(|key| value.get(key).is_some())
}

fn add(draft: &mut Draft, at: &str, name: &str, fields: &Fields) {
    let mut source = Entry::new(at, fields, Writing::Host);
    let Some(transport) = transport(draft, &mut source) else { return };
    let mut server = Fields::new();
    if let Some(transport) = transport {
        server.insert("transport".to_owned(), transport.into());
    }
    if fields.contains_key("command") {
        command(draft, &mut source, &mut server);
    } else {
        let url =
            ["url", "serverUrl", "httpUrl"].into_iter().find_map(|key| source.text(draft, key));
        let Some(url) = url else {
            draft.note(at, "left out: it has neither a command nor a URL");
            return;
        };
        server.insert("url".to_owned(), url.into());
        source.headers(draft, "headers", &mut server);
        oauth::of_host(draft, &mut source, &mut server);
        oauth::settle(draft, at, &mut server);
    }
    if let Some(text) = source.text(draft, "description") {
        server.insert("description".to_owned(), text.into());
    }
    tools(&mut source, &mut server);
    let is_off = source.flag("disabled") == Some(true)
        || source.flag("enabled") == Some(false)
        || source.flag("isActive") == Some(false);
    if is_off {
        server.insert("disabled".to_owned(), true.into());
    }
    source.leave_out(draft, &HOSTS_OWN, &INSTEAD);
    let name = draft.name(at, name);
    draft.servers.insert(name, server.into());
}

/// The transport. None if the server cannot be imported; `Some(None)` if it is to be found out.
fn transport(draft: &mut Draft, source: &mut Entry<'_>) -> Option<Option<&'static str>> {
    let written = source.take("type").or_else(|| source.take("transport"));
    // The key `httpUrl` means Streamable HTTP.
    let is_http = source.has("httpUrl");
    match written.as_ref().map(|it| it.as_str().unwrap_or_default()) {
        None if is_http => Some(Some("http")),
        None => Some(None),
        Some("stdio" | "local") => Some(None),
        Some("sse") => Some(Some("sse")),
        Some("http" | "streamable-http" | "streamableHttp" | "streamable_http" | "remote") => {
            Some(Some("http"))
        }
        Some(_) => {
            draft.note(source.at, "left out: its transport is none that the gateway has");
            None
        }
    }
}

fn command(draft: &mut Draft, source: &mut Entry<'_>, server: &mut Fields) {
    let mut words = match source.take("command") {
        // The key holds one word or all of them.
        Some(Value::Array(words)) => words.iter().filter_map(entry::plain_text).collect(),
        Some(word) => entry::plain_text(&word).into_iter().collect::<Vec<String>>(),
        None => Vec::new(),
    };
    let has_args = source.has("args");
    if let [word] = words.as_slice()
        && !has_args
        && word.contains(' ')
        && !word.contains(['"', '\'', '\\'])
    {
        draft.note(source.at, "the command was split at its spaces: no shell starts it");
        words = word.split_whitespace().map(str::to_owned).collect();
    }
    words.extend(source.words("args"));
    // Windows starts scripts through its shell.
    if let [shell, option, ..] = words.as_slice()
        && (shell == "cmd" || shell == "cmd.exe")
        && option.eq_ignore_ascii_case("/c")
    {
        words.drain(..2);
        draft.note(source.at, "\"cmd /c\" before the command was left out");
    }
    if words.iter().any(|word| word.starts_with("mcp-remote")) {
        draft.note(source.at, "mcp-remote is not needed here: a \"url\" reaches the server");
    }
    let at = source.at;
    let mut words = words.into_iter().map(|word| draft.text(at, &word, Writing::Host));
    if let Some(command) = words.next() {
        server.insert("command".to_owned(), command.into());
    }
    let args: Vec<Value> = words.map(Value::from).collect();
    if !args.is_empty() {
        server.insert("args".to_owned(), args.into());
    }
    source.strings(draft, "env", server);
    if let Some(cwd) = source.text(draft, "cwd") {
        server.insert("cwd".to_owned(), cwd.into());
    }
}

/// The tools that a host shows, by the keys of several hosts.
fn tools(source: &mut Entry<'_>, server: &mut Fields) {
    let included =
        ["includeTools", "enabledTools"].into_iter().flat_map(|key| source.words(key));
    let mut globs: Vec<String> = included.collect();
    for key in ["excludeTools", "disabledTools"] {
        globs.extend(source.words(key).into_iter().map(|tool| format!("!{tool}")));
    }
    if let Some(Value::Array(tools)) = source.take("tools") {
        globs.extend(tools.iter().filter_map(entry::plain_text));
    }
    if !globs.is_empty() {
        server.insert("tools".to_owned(), globs.into());
    }
}
