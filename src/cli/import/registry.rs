//! Pure: imports a `server.json` of the MCP registry.

use serde_json::Value;

use super::draft::{Draft, Fields, Writing, variable_name};
use super::entry::add_header;

/// Imports one server: from a remote address, else from a package that can be started here.
pub(super) fn import(draft: &mut Draft, file: &Fields) {
    let full = file.get("name").and_then(Value::as_str).unwrap_or("server");
    let mut ways: Vec<(String, Way, &Fields)> = Vec::new();
    for (way, key) in [(Way::Remote, "remotes"), (Way::Package, "packages")] {
        let all = file.get(key).and_then(Value::as_array).into_iter().flatten();
        let objects = all.enumerate().filter_map(|(n, it)| Some((n, it.as_object()?)));
        ways.extend(objects.map(|(n, it)| (format!("{key}[{n}]"), way, it)));
    }
    let mut server = None;
    for (at, way, fields) in ways {
        if server.is_some() {
            draft.note(&at, "left out: another way to the same server was taken");
            continue;
        }
        let made = match way {
            Way::Remote => remote(draft, &at, fields),
            Way::Package => package(draft, &at, fields),
        };
        match made {
            Ok(fields) => server = Some(fields),
            Err(why) => draft.note(&at, &format!("left out: {why}")),
        }
    }
    let Some(mut server) = server else { return };
    if let Some(text) = file.get("description").and_then(Value::as_str) {
        let text = draft.text("description", text, Writing::None);
        server.insert("description".to_owned(), text.into());
    }
    // Names consist of a domain and a path: people call the server by the last part.
    let name = draft.name("name", full.rsplit('/').next().unwrap_or(full));
    draft.servers.insert(name, server.into());
}

/// A way to get a server.
#[derive(Debug, Clone, Copy)]
enum Way {
    /// The server runs at a remote address.
    Remote,
    /// The server is started here from a package.
    Package,
}

fn text<'a>(fields: &'a Fields, key: &str) -> Option<&'a str> {
    fields.get(key).and_then(Value::as_str).filter(|text| !text.is_empty())
}

fn objects<'a>(fields: &'a Fields, key: &str) -> impl Iterator<Item = &'a Fields> {
    let all = fields.get(key).and_then(Value::as_array).into_iter().flatten();
    all.filter_map(Value::as_object)
}

fn remote(draft: &mut Draft, at: &str, fields: &Fields) -> Result<Fields, String> {
    let transport = match text(fields, "type").or(text(fields, "transport_type")) {
        Some("streamable-http" | "streamable") => "http",
        Some("sse") => "sse",
        _ => return Err("its transport is none that the gateway has".to_owned()),
    };
    let url = text(fields, "url").ok_or("it has no URL")?;
    let mut server = Fields::new();
    server.insert("url".to_owned(), filled(draft, at, url, fields).into());
    server.insert("transport".to_owned(), transport.into());
    for header in objects(fields, "headers") {
        let Some(name) = text(header, "name") else { continue };
        if let Some(value) = value(draft, &format!("{at}.headers.{name}"), name, header) {
            add_header(&mut server, name, value.into());
        }
    }
    Ok(server)
}

/// The command that starts a package of a registry.
struct Runner {
    command: &'static str,
    /// The words before the package.
    before: &'static [&'static str],
    /// The text between the package's name and its version.
    versioned: &'static str,
    /// The words behind the package.
    behind: &'static [&'static str],
}

fn runner(kind: &str) -> Result<Runner, String> {
    let of =
        |command, before, versioned, behind| Ok(Runner { command, before, versioned, behind });
    match kind {
        "npm" => of("npx", &["-y"], "@", &[]),
        "pypi" => of("uvx", &[], "==", &[]),
        "oci" | "docker" => of("docker", &["run", "-i", "--rm"], ":", &[]),
        "nuget" => of("dnx", &[], "@", &["--yes"]),
        _ => Err("nothing here starts a package of that kind".to_owned()),
    }
}

fn package(draft: &mut Draft, at: &str, fields: &Fields) -> Result<Fields, String> {
    let transport = fields.get("transport").and_then(Value::as_object);
    let transport = transport.and_then(|it| text(it, "type")).unwrap_or("stdio");
    if transport != "stdio" {
        return Err("it serves over HTTP: start it, and use its URL".to_owned());
    }
    let kind =
        text(fields, "registryType").or(text(fields, "registry_type")).unwrap_or_default();
    let runner = runner(kind)?;
    let package = text(fields, "identifier").or(text(fields, "name"));
    let package = package.ok_or("it has no identifier")?;
    let is_container = runner.command == "docker";
    let mut env = Fields::new();
    let variables = if fields.contains_key("environmentVariables") {
        "environmentVariables"
    } else {
        "environment_variables"
    };
    for variable in objects(fields, variables) {
        let Some(name) = text(variable, "name") else { continue };
        if let Some(value) = value(draft, &format!("{at}.env.{name}"), name, variable) {
            env.insert(name.to_owned(), value.into());
        }
    }
    let mut args: Vec<String> = runner.before.iter().map(|&word| word.to_owned()).collect();
    for key in ["runtimeArguments", "runtime_arguments"] {
        args.extend(arguments(draft, at, fields, key));
    }
    // A runner refuses some options that are given twice.
    let mut seen = std::collections::HashSet::new();
    args.retain(|word| {
        !matches!(word.as_str(), "-y" | "-i" | "--rm" | "run") || seen.insert(word.clone())
    });
    if is_container {
        args.extend(env.keys().flat_map(|name| ["-e".to_owned(), name.clone()]));
    }
    let version = text(fields, "version").filter(|_| {
        // The name of a container often has the version already.
        !is_container || !package.rsplit('/').next().unwrap_or_default().contains([':', '@'])
    });
    args.push(match version {
        Some(version) => format!("{package}{}{version}", runner.versioned),
        None => package.to_owned(),
    });
    args.extend(runner.behind.iter().map(|&word| word.to_owned()));
    for key in ["packageArguments", "package_arguments"] {
        args.extend(arguments(draft, at, fields, key));
    }
    let mut server = Fields::new();
    let hint = text(fields, "runtimeHint").or(text(fields, "runtime_hint"));
    let command = hint.filter(|_| !is_container).unwrap_or(runner.command);
    server.insert("command".to_owned(), command.into());
    server.insert("args".to_owned(), args.into());
    if !env.is_empty() {
        server.insert("env".to_owned(), env.into());
    }
    Ok(server)
}

fn arguments(draft: &mut Draft, at: &str, fields: &Fields, key: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (n, argument) in objects(fields, key).enumerate() {
        let at = format!("{at}.{key}[{n}]");
        let is_named = text(argument, "type") == Some("named");
        let name = text(argument, "name").filter(|_| is_named);
        let hint = text(argument, "valueHint").or(text(argument, "value_hint"));
        let is_flag = is_named
            && !argument.contains_key("value")
            && hint.is_none()
            && !argument.contains_key("default")
            && argument.get("isRequired").is_none();
        let called = name.or(hint).or(text(argument, "name")).unwrap_or("argument");
        let value = if is_flag { None } else { value(draft, &at, called, argument) };
        match (name, value) {
            (Some(name), Some(value)) => words.extend([name.to_owned(), value]),
            (Some(name), None) if is_flag => words.push(name.to_owned()),
            (None, Some(value)) => words.push(value),
            (Some(_) | None, None) => (),
        }
    }
    words
}

/// The value of a header, variable or argument: its own, else a reference to a variable of the
/// environment. None where the value is optional and has no default.
fn value(draft: &mut Draft, at: &str, name: &str, input: &Fields) -> Option<String> {
    if let Some(value) = text(input, "value") {
        return Some(filled(draft, at, value, input));
    }
    let is_secret =
        input.get("isSecret").or(input.get("is_secret")) == Some(&Value::Bool(true));
    if let Some(default) = text(input, "default").filter(|_| !is_secret) {
        return Some(draft.text(at, default, Writing::None));
    }
    let is_required =
        input.get("isRequired").or(input.get("is_required")) == Some(&Value::Bool(true));
    if !is_required && !is_secret {
        draft.note(at, "left out: it need not be given");
        return None;
    }
    Some(draft.variable(&variable_name(name), text(input, "description")))
}

/// A text whose `{names}` are replaced by their values.
fn filled(draft: &mut Draft, at: &str, template: &str, input: &Fields) -> String {
    let variables = input.get("variables").and_then(Value::as_object);
    let mut out = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        let Some((name, after)) = after.split_once('}') else { break };
        out.push_str(&draft.text(at, before, Writing::None));
        let known =
            variables.and_then(|variables| variables.get(name)).and_then(Value::as_object);
        // A variable that the file does not describe is required too.
        let mut variable = known.cloned().unwrap_or_default();
        variable.entry("isRequired").or_insert(Value::Bool(true));
        let called = name.trim_start_matches('$');
        out.push_str(&value(draft, at, called, &variable).unwrap_or_default());
        rest = after;
    }
    out.push_str(&draft.text(at, rest, Writing::None));
    out
}
