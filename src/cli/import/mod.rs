//! `trunkline import`: writes other programs' files about MCP servers as `config.json` to
//! standard output, and notes on parts that were left out to standard error.

mod draft;
mod entry;
mod hosts;
mod jsonc;
mod litellm;
mod oauth;
mod registry;
mod yaml;

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};

use serde_json::Value;

use super::{complain, exit, fail, print};
use crate::limits::IMPORT_BYTES_MAX;
use draft::{Draft, Fields};

/// The formats that can be read, for an error about another file.
const KNOWN: &str = "known are \"mcpServers\" (Claude, Cursor, Windsurf), \"servers\" (VS Code), \
                     LiteLLM's YAML with \"mcp_servers\", and a registry's server.json";

pub(super) fn run(path: &OsString) -> u8 {
    let text = match read(path) {
        Ok(text) => text,
        Err(error) => return fail(&format!("import: {}: {error}", path.display())),
    };
    match import(&text) {
        Ok((config, notes)) => {
            for note in notes {
                complain(&format!("trunkline: import: {note}"));
            }
            print(&format!("{config:#}\n"))
        }
        Err(what) => {
            complain(&format!("trunkline: import: {}: {what}", path.display()));
            exit::CONFIG
        }
    }
}

fn read(path: &OsString) -> io::Result<String> {
    let mut text = String::new();
    let source: &mut dyn Read =
        if path == "-" { &mut io::stdin().lock() } else { &mut File::open(path)? };
    source.take(IMPORT_BYTES_MAX + 1).read_to_string(&mut text)?;
    if u64::try_from(text.len()).unwrap_or(u64::MAX) > IMPORT_BYTES_MAX {
        return Err(io::Error::other(format!("it has more than {IMPORT_BYTES_MAX} bytes")));
    }
    Ok(text)
}

/// Makes a configuration of a text in any of the formats.
fn import(text: &str) -> Result<(Value, Vec<String>), String> {
    let plain = jsonc::plain(text);
    let (value, is_json) = if plain.trim_start().starts_with(['{', '[']) {
        let json = serde_json::from_str(&plain);
        // A YAML text may begin like JSON.
        match (json, yaml::read(text)) {
            (Ok(value), _) => (value, true),
            (Err(_), Ok(value)) if value.is_object() => (value, false),
            (Err(error), _) => return Err(format!("no JSON: {error}")),
        }
    } else {
        (yaml::read(text).map_err(|what| format!("no YAML: {what}"))?, false)
    };
    let Value::Object(file) = value else { return Err(format!("it holds no object; {KNOWN}")) };
    let mut draft = Draft::default();
    dispatch(&mut draft, &file, is_json)?;
    if draft.servers.is_empty() {
        let (_, notes) = draft.finish();
        let why = notes.first().map(|note| format!(" ({note})")).unwrap_or_default();
        return Err(format!("there is no server in it that can be had{why}"));
    }
    Ok(draft.finish())
}

fn dispatch(draft: &mut Draft, file: &Fields, is_json: bool) -> Result<(), String> {
    let object = |key: &str| file.get(key).and_then(Value::as_object);
    if let Some(servers) = object("mcpServers") {
        if let Some(inputs) = file.get("inputs") {
            hosts::inputs(draft, inputs);
        }
        hosts::servers(draft, "mcpServers", servers);
        projects(draft, file);
    } else if file.contains_key("mcp_servers") {
        if is_json
            && !["general_settings", "litellm_settings", "model_list"]
                .iter()
                .any(|key| file.contains_key(*key))
        {
            return Err(
                "this is a configuration of Trunkline already: use it as it is".to_owned()
            );
        }
        litellm::import(draft, file);
    } else if let Some(servers) = object("servers") {
        if let Some(inputs) = file.get("inputs") {
            hosts::inputs(draft, inputs);
        }
        hosts::servers(draft, "servers", servers);
    } else if let Some(Value::Array(entries)) = file.get("servers") {
        // The file is an answer of a registry.
        let servers = entries.iter().map(|entry| entry.get("server").unwrap_or(entry));
        servers.filter_map(Value::as_object).for_each(|it| registry::import(draft, it));
    } else if let Some(server) = object("server").filter(|it| is_registered(it)) {
        registry::import(draft, server);
    } else if is_registered(file) {
        registry::import(draft, file);
    } else if let Some(settings) = object("mcp") {
        // The file holds settings of VS Code.
        dispatch(draft, settings, is_json)?;
    } else if file.contains_key("projects") {
        projects(draft, file);
    } else if !file.is_empty() && file.values().all(hosts::is_server) {
        hosts::servers(draft, "servers", file);
    } else {
        return Err(format!("nothing in it is known as MCP servers; {KNOWN}"));
    }
    Ok(())
}

/// Imports Claude Code's servers of each project, besides those of its user.
fn projects(draft: &mut Draft, file: &Fields) {
    let projects = file.get("projects").and_then(Value::as_object).into_iter().flatten();
    for (path, project) in projects {
        let servers = project.get("mcpServers").and_then(Value::as_object);
        if let Some(servers) = servers.filter(|servers| !servers.is_empty()) {
            hosts::servers(draft, &format!("projects.{path}"), servers);
        }
    }
}

fn is_registered(file: &Fields) -> bool {
    file.contains_key("name") && (file.contains_key("packages") || file.contains_key("remotes"))
}

#[cfg(test)]
mod tests;
