//! Pure: imports LiteLLM's YAML: `mcp_servers`, and the settings that concern them.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::draft::{Draft, Fields, Writing, variable_name};
use super::entry::{Entry, add_header, plain_text};
use super::oauth;
use crate::config::hash_key;

/// Keys of a server that have no meaning here.
const SILENT: [&str; 5] = [
    "mcp_info",
    "protocol_version",
    "spec_version",
    "allow_all_keys",
    "available_on_public_internet",
];

const OAUTH: &str = "it is used with \"auth_type\": \"oauth2\" alone";
const AWS: &str = "requests are not signed for AWS";

/// Keys without a counterpart, and a note for each.
const INSTEAD: [(&str, &str); 17] = [
    ("server_id", "the server's name is its id here"),
    ("client_id", OAUTH),
    ("client_secret", OAUTH),
    ("scopes", OAUTH),
    ("authorization_url", OAUTH),
    ("token_url", OAUTH),
    ("registration_url", OAUTH),
    ("oauth2_flow", OAUTH),
    ("token_exchange_endpoint", "tokens of clients are not exchanged"),
    ("aws_access_key_id", AWS),
    ("aws_secret_access_key", AWS),
    ("aws_region_name", AWS),
    ("allowed_params", "arguments are not filtered"),
    ("rpm", "\"calls_per_minute\" is a key's, not a server's"),
    ("instructions", "the server's own are told"),
    ("allow_sampling", "every server may ask the clients that declare it"),
    ("allow_elicitation", "every server may ask the clients that declare it"),
];

/// Imports the whole file.
pub(super) fn import(draft: &mut Draft, file: &Fields) {
    let settings = file.get("general_settings").and_then(Value::as_object);
    let aliases = aliases(file);
    let mut groups: BTreeMap<String, Vec<String>> = BTreeMap::new();
    // All names are taken before the first alias, which must be none of them.
    let mut named = Vec::new();
    let servers = file.get("mcp_servers").and_then(Value::as_object);
    for (source, server) in servers.into_iter().flatten() {
        let at = format!("mcp_servers.{source}");
        match server.as_object() {
            Some(fields) => named.push((draft.name(&at, source), at, source, fields)),
            None => draft.note(&at, "left out: it is no object"),
        }
    }
    let mut open = Vec::new();
    for (name, at, source, fields) in named {
        let alias = aliases.iter().find(|(_, server)| server == source);
        if fields.get("allow_all_keys") == Some(&Value::Bool(true)) {
            open.push(name.clone());
        }
        add(draft, &at, name, fields, alias.map(|(alias, _)| *alias), &mut groups);
    }
    master_key(draft, settings);
    for (group, mut servers) in groups {
        // Every key may use these servers, whatever its groups.
        let open = open.iter().filter(|name| draft.servers.contains_key(*name));
        let missing: Vec<_> = open.filter(|name| !servers.contains(name)).cloned().collect();
        servers.extend(missing);
        group_key(draft, &group, &servers);
    }
    rest(draft, file, settings);
}

/// `litellm_settings.mcp_aliases`: alias → server.
fn aliases(file: &Fields) -> Vec<(&str, &str)> {
    let settings = file.get("litellm_settings").and_then(|it| it.get("mcp_aliases"));
    let aliases = settings.and_then(Value::as_object).into_iter().flatten();
    aliases.filter_map(|(alias, server)| Some((alias.as_str(), server.as_str()?))).collect()
}

fn add(
    draft: &mut Draft,
    at: &str,
    name: String,
    fields: &Fields,
    alias: Option<&str>,
    groups: &mut BTreeMap<String, Vec<String>>,
) {
    let mut source = Entry::new(at, fields, Writing::Litellm);
    if source.has("spec_path") {
        draft.note(at, "left out: tools are not made of an OpenAPI description here");
        return;
    }
    let mut server = Fields::new();
    if !target(draft, &mut source, &mut server) {
        return;
    }
    let description = source.text(draft, "description").or_else(|| {
        let told = fields.get("mcp_info")?.get("description")?.as_str()?;
        Some(draft.text(at, told, Writing::None))
    });
    if let Some(description) = description {
        server.insert("description".to_owned(), description.into());
    }
    let more = fields.get("mcp_info").and_then(Value::as_object);
    if more.is_some_and(|it| it.keys().any(|key| key != "description")) {
        draft.note(
            &format!("{at}.mcp_info"),
            "left out, but for a description: the gateway's own has the server's name",
        );
    }
    let alias = source.words("alias").into_iter().next().or(alias.map(str::to_owned));
    if let Some(alias) = alias.filter(|alias| *alias != name) {
        if draft.takes_alias(&alias) {
            server.insert("alias".to_owned(), alias.into());
        } else {
            draft.note(
                &format!("{at}.alias"),
                "left out: a server has that name, or it is none",
            );
        }
    }
    tools(&mut source, &name, &mut server);
    timeout(draft, &mut source, &mut server);
    if let Some(n) = source.take("max_concurrent_requests").as_ref().and_then(Value::as_u64) {
        server.insert("max_in_flight".to_owned(), n.max(1).into());
    }
    for group in source.words("access_groups") {
        groups.entry(group).or_default().push(name.clone());
    }
    source.leave_out(draft, &SILENT, &INSTEAD);
    draft.servers.insert(name, server.into());
}

/// Imports the server's address and credentials. False if the server cannot be imported.
fn target(draft: &mut Draft, source: &mut Entry<'_>, server: &mut Fields) -> bool {
    let transport = source.take("transport");
    let transport = transport.as_ref().and_then(Value::as_str);
    if source.has("command") && transport.is_none_or(|it| it == "stdio") {
        if let Some(command) = source.text(draft, "command") {
            server.insert("command".to_owned(), command.into());
        }
        let args = source.words("args").into_iter();
        let at = format!("{}.args", source.at);
        let args: Vec<String> = args.map(|it| draft.text(&at, &it, Writing::Litellm)).collect();
        if !args.is_empty() {
            server.insert("args".to_owned(), args.into());
        }
        source.strings(draft, "env", server);
        // Keys for servers over HTTP have no meaning for a child.
        let _auth_type = source.take("auth_type");
        return true;
    }
    let Some(url) = source.text(draft, "url") else {
        draft.note(source.at, "left out: it has neither a command nor a URL");
        return false;
    };
    // LiteLLM's default is Streamable HTTP.
    let transport = if transport == Some("sse") { "sse" } else { "http" };
    server.insert("url".to_owned(), url.into());
    server.insert("transport".to_owned(), transport.into());
    credential(draft, source, server);
    source.headers(draft, "static_headers", server);
    let mut forwarded = source.words("extra_headers");
    if let Some(Value::Array(more)) = server.shift_remove("forward_headers") {
        forwarded.extend(more.iter().filter_map(plain_text));
    }
    if !forwarded.is_empty() {
        let what = "is written as \"forward_headers\": clients give such a header as \
                    x-mcp-{server}-{header}, and not under its own name";
        draft.note(&format!("{}.extra_headers", source.at), what);
        server.insert("forward_headers".to_owned(), forwarded.into());
    }
    oauth::settle(draft, source.at, server);
    true
}

/// Imports `auth_value` in the form that `auth_type` names; without a value, the client sends its
/// own.
fn credential(draft: &mut Draft, source: &mut Entry<'_>, server: &mut Fields) {
    let kind = source.words("auth_type").into_iter().next().unwrap_or_default();
    if oauth::litellm(draft, source, &kind, server) {
        return;
    }
    let (value, other) = (source.take("auth_value"), source.take("authentication_token"));
    let value = other.or(value).as_ref().and_then(plain_text);
    let at = format!("{}.auth_value", source.at);
    let name = if kind == "api_key" { "X-API-Key" } else { "Authorization" };
    let scheme = match kind.as_str() {
        "bearer_token" => "Bearer ",
        "token" => "token ",
        "basic" => "Basic ",
        "api_key" | "authorization" => "",
        "" | "none" if value.is_none() => return,
        "" | "none" => {
            draft.note(&at, "left out: without an \"auth_type\" it is not sent");
            return;
        }
        _ => {
            let what = "left out: put the credential that the server wants into \"headers\"";
            draft.note(&format!("{}.auth_type", source.at), what);
            return;
        }
    };
    let Some(value) = value else {
        server.insert("forward_headers".to_owned(), json!([name]));
        draft.note(
            &at,
            &format!(
                "there is none: clients give their own as x-mcp-{{server}}-{}",
                name.to_lowercase()
            ),
        );
        return;
    };
    let is_variable = value.starts_with("os.environ/");
    if !is_variable {
        draft.note(&at, "is written out; a ${VARIABLE} would keep it out of the file");
    } else if kind == "basic" {
        draft.note(
            &at,
            "the variable must hold user:password in base64: it is not encoded here",
        );
    }
    // LiteLLM takes the scheme as a part of the value if it stands there.
    let bare = value.strip_prefix(scheme).unwrap_or(&value);
    let text = if kind == "basic" && !is_variable && bare.contains(':') {
        STANDARD.encode(bare)
    } else {
        draft.text(&at, bare, Writing::Litellm)
    };
    add_header(server, name, format!("{scheme}{text}").into());
}

/// Imports the tools, whose names may begin with the server's.
fn tools(source: &mut Entry<'_>, name: &str, server: &mut Fields) {
    let prefixes: Vec<String> = [Some(name), server.get("alias").and_then(Value::as_str)]
        .into_iter()
        .flatten()
        .map(|name| format!("{name}-"))
        .collect();
    let own = |tool: String| {
        let bare = prefixes.iter().find_map(|prefix| tool.strip_prefix(prefix.as_str()));
        bare.map(str::to_owned).unwrap_or(tool)
    };
    let allowed = source.words("allowed_tools").into_iter().map(own);
    let mut globs: Vec<String> = allowed.collect();
    let refused = source.words("disallowed_tools").into_iter();
    globs.extend(refused.map(|tool| format!("!{}", own(tool))));
    if !globs.is_empty() {
        server.insert("tools".to_owned(), globs.into());
    }
}

/// Imports the timeout, which LiteLLM counts in seconds.
fn timeout(draft: &mut Draft, source: &mut Entry<'_>, server: &mut Fields) {
    let Some(written) = source.take("timeout") else { return };
    let seconds = written.as_f64().filter(|seconds| (0.001..=86_400.0).contains(seconds));
    let millis =
        seconds.and_then(|seconds| format!("{:.0}", seconds * 1000.0).parse::<u64>().ok());
    match millis {
        Some(ms) => {
            server.insert("timeout_ms".to_owned(), ms.into());
            if ms > 600_000 {
                server.insert("timeout_max_ms".to_owned(), ms.into());
            }
        }
        None => {
            draft.note(&format!("{}.timeout", source.at), "left out: it is no time in seconds")
        }
    }
}

/// Imports the key that may do everything.
fn master_key(draft: &mut Draft, settings: Option<&Fields>) {
    let at = "general_settings.master_key";
    let key = settings.and_then(|settings| settings.get("master_key")).and_then(plain_text);
    let Some(key) = key else {
        draft.note(at, "there is none: if LITELLM_MASTER_KEY was set, add \"api_keys\"");
        return;
    };
    let mut entry = Fields::new();
    entry.insert("name".to_owned(), "master".into());
    if key.starts_with("os.environ/") {
        let key = draft.text(at, &key, Writing::Litellm);
        entry.insert("key".to_owned(), key.into());
    } else if let Some(hash) = hash_key(&key) {
        let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        entry.insert("sha256".to_owned(), hash.into());
        draft.note(at, "was written out; the result has its hash");
    } else {
        draft.note(at, "left out: no header can carry it");
        return;
    }
    entry.insert("admin".to_owned(), true.into());
    draft.keys.push(entry.into());
}

/// Adds a key for a group: its members stand in LiteLLM's database, so it becomes a key here.
fn group_key(draft: &mut Draft, group: &str, servers: &[String]) {
    let name = draft.key_name(group);
    let variable = format!("TRUNKLINE_KEY_{}", variable_name(&name));
    let variable = draft.new_variable(&variable);
    let about = format!("a key for the access group {group}: \"trunkline new-key\" makes one");
    let key = draft.variable(&variable, Some(&about));
    draft.keys.push(json!({ "name": name, "key": key, "servers": servers }));
}

/// Notes the other parts of the file.
fn rest(draft: &mut Draft, file: &Fields, settings: Option<&Fields>) {
    let names = |fields: &Fields, without: &[&str]| {
        let names = fields.keys().filter(|key| !without.contains(&key.as_str()));
        names.cloned().collect::<Vec<_>>().join(", ")
    };
    let of_settings = settings.map(|it| names(it, &["master_key"])).unwrap_or_default();
    if !of_settings.is_empty() {
        draft.note("general_settings", &format!("left out: {of_settings}"));
    }
    let of_litellm = file.get("litellm_settings").and_then(Value::as_object);
    let of_litellm = of_litellm.map(|it| names(it, &["mcp_aliases"])).unwrap_or_default();
    if !of_litellm.is_empty() {
        draft.note("litellm_settings", &format!("left out: {of_litellm}"));
    }
    if let Some(Value::Object(variables)) = file.get("environment_variables") {
        let what = "left out; set in the gateway's environment:";
        draft.note("environment_variables", &format!("{what} {}", names(variables, &[])));
    }
    for key in file.keys() {
        match key.as_str() {
            "mcp_servers"
            | "general_settings"
            | "litellm_settings"
            | "environment_variables" => (),
            "model_list" | "router_settings" => {
                draft.note(key, "left out: the gateway serves MCP, no language models");
            }
            _ => draft.note(key, "left out"),
        }
    }
    draft.note("listen", "LiteLLM listens everywhere, the gateway on 127.0.0.1:4000");
}
