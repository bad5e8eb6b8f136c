//! Checks the keys of one server together.

use std::path::Path;
use std::time::Duration;

use super::check_globs;
use super::oauth::{self, Around};
use crate::config::file::reader::{Reader, Text, Wanted};
use crate::config::file::{RawServer, RawTransport, StringMap};
use crate::config::{
    HttpKind, HttpTarget, Pin, Role, Secret, StdioTarget, Target, UpstreamConfig, syntax,
};
use crate::limits::SERVER_NAME_BYTES_MAX;
use crate::protocol::credentials::{names_user, without_user};
use crate::protocol::server_name::ServerName;

/// Keys that only servers reached over HTTP have.
const HTTP_KEYS: [&str; 6] = ["url", "headers", "forward_headers", "oauth", "proxy", "ca_file"];
/// Keys that only servers started as children have.
const STDIO_KEYS: [&str; 4] = ["command", "args", "env", "cwd"];
const SESSIONS_DEFAULT: usize = 32;
const CHILDREN_DEFAULT: usize = 8;

/// Checks one server. None where the server is disabled or has no target.
pub(crate) fn check(
    reader: &Reader<'_>,
    raw: RawServer,
    around: Around,
) -> Option<UpstreamConfig> {
    let problem = |key: &str, what: &str| reader.problem(format!("{}/{key}", raw.at), what);
    let name = ServerName::parse(&raw.name);
    if name.is_none() {
        let what = format!(
            "a server's name is made of letters, digits, \"_\" and \"-\", has {} bytes at most, \
             and is none of \"tools\", \"sse\", \"messages\", \"mcp\"",
            SERVER_NAME_BYTES_MAX
        );
        let like = ServerName::like(&raw.name).map(|like| format!("; \"{like}\" would do"));
        reader.problem(&raw.at, what + &like.unwrap_or_default());
    }
    if raw.alias.as_ref().is_some_and(|alias| !syntax::is_name_part(&alias.value)) {
        problem("alias", "must be made of letters, digits, \"_\", \"-\" and \".\"");
    }
    if raw.pin != Pin::Off && !around.has_state_dir {
        problem("pin", "needs \"state_dir\", where it is kept what tools were");
    }
    if raw.timeout_ms > raw.timeout_max_ms {
        let (timeout, max) = (raw.timeout_ms, raw.timeout_max_ms);
        let what = format!("timeout_ms ({timeout}) is more than timeout_max_ms ({max})");
        problem("timeout_ms", &what);
    }
    let tools = check_globs(reader, raw.tools.as_deref());
    for (at, glob) in raw.tools.iter().flatten() {
        let own = glob.value.strip_prefix('!').unwrap_or(&glob.value);
        if own.strip_prefix(raw.name.as_str()).is_some_and(|rest| rest.starts_with(['-', '_']))
        {
            let what =
                "globs here match the names that the server itself gives, without its NAME";
            reader.warn(at, what);
        }
    }
    let transport = raw.transport.unwrap_or(if raw.given.contains(&"command") {
        RawTransport::Stdio
    } else {
        RawTransport::Http(HttpKind::Auto)
    });
    let (target, sessions) = match transport {
        RawTransport::Http(kind) => (http(reader, &raw, kind, around), SESSIONS_DEFAULT),
        RawTransport::Stdio => (stdio(reader, &raw), CHILDREN_DEFAULT),
    };
    oauth::check_credentials(reader, &raw, around);
    if raw.disabled {
        return None;
    }
    let count = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    Some(UpstreamConfig {
        name: name?,
        alias: raw.alias.map(|alias| alias.value),
        description: raw.description,
        target: target?,
        tools,
        start_timeout: Duration::from_millis(raw.start_timeout_ms),
        timeout: Duration::from_millis(raw.timeout_ms),
        timeout_max: Duration::from_millis(raw.timeout_max_ms),
        connect_timeout: Duration::from_millis(raw.connect_timeout_ms),
        max_in_flight: count(raw.max_in_flight),
        max_waiting: count(raw.max_waiting),
        max_sessions: raw.max_sessions.map_or(sessions, count),
        required: raw.required,
        session: raw.session,
        pin: raw.pin,
        credentials: raw.credentials,
        role: Role::Server,
    })
}

/// Notes keys of the other kind of transport, which would be ignored silently.
fn refuse(reader: &Reader<'_>, raw: &RawServer, keys: &[&str], transport: &str) {
    for key in keys.iter().filter(|key| raw.given.contains(key)) {
        let what = format!("has no meaning for a server with the transport {transport}");
        reader.key_problem(format!("{}/{key}", raw.at), what);
    }
}

fn http(
    reader: &Reader<'_>,
    raw: &RawServer,
    kind: HttpKind,
    around: Around,
) -> Option<Target> {
    let transport = match kind {
        HttpKind::StreamableHttp => "\"http\"",
        HttpKind::HttpSse => "\"sse\"",
        HttpKind::Auto => "\"auto\"",
    };
    refuse(reader, raw, &STDIO_KEYS, transport);
    if !raw.given.contains(&"url") {
        let what = match raw.transport {
            Some(_) => format!("has no \"url\", which the transport {transport} needs"),
            None => "has neither \"url\" nor \"command\"".to_owned(),
        };
        reader.problem(&raw.at, what);
    }
    let check_url = |key: &str, text: &str, schemes: &[&str], userinfo| {
        if let Err(what) = syntax::url(text, schemes, userinfo) {
            reader.problem(format!("{}/{key}", raw.at), what);
        }
    };
    if let Some(url) = &raw.url {
        let schemes = ["http://", "https://"];
        check_url("url", &url.value, &schemes, syntax::Userinfo::Refused);
    }
    if let Some(proxy) = &raw.proxy {
        check_url("proxy", &proxy.value, &["http://"], syntax::Userinfo::Admitted);
    }
    let oauth = oauth::check(reader, raw, around);
    let headers = headers(reader, &raw.headers);
    let mut forward_headers = Vec::with_capacity(raw.forward_headers.len());
    for (at, text) in &raw.forward_headers {
        if !syntax::is_forwardable_header(&text.value) {
            reader.problem(at, format!("not a header to forward: {:?}", text.written));
        }
        // Else each client could say that it is another user.
        let is_of_user = |(_, name, value): &(String, String, String)| {
            name.eq_ignore_ascii_case(&text.value) && names_user(value)
        };
        if raw.headers.iter().any(is_of_user) {
            let what =
                "cannot be a client's: in \"headers\" the gateway says with it who the user is";
            reader.problem(at, what);
        }
        forward_headers.push(text.value.clone());
    }
    Some(Target::Http(HttpTarget {
        kind,
        url: raw.url.as_ref()?.value.clone(),
        headers,
        forward_headers,
        proxy: raw.proxy.as_ref().map(|proxy| Secret::new(proxy.value.clone())),
        ca_file: raw
            .ca_file
            .as_ref()
            .map(|path| reader.path_of(&format!("{}/ca_file", raw.at), path, Wanted::File)),
        oauth: oauth.map(Box::new),
    }))
}

fn headers(reader: &Reader<'_>, map: &StringMap) -> Vec<(String, Secret)> {
    let mut headers: Vec<(String, Secret)> = Vec::with_capacity(map.len());
    for (at, name, value) in map {
        if !syntax::is_header_name(name) {
            reader.problem(at, "not a header's name");
        } else if syntax::is_own_header(name) {
            reader.problem(at, "this header is the gateway's own");
        }
        // What stands for a user is checked when it is known.
        if !syntax::is_header_value(without_user(value).trim()) || value.trim() != value {
            reader.problem(at, "the value has characters that a header must not have");
        }
        if value.trim().is_empty() && reader.has_unusual(at) {
            reader.problem(at, "the value is empty");
        }
        // The very same name is noted elsewhere as a key that stands twice.
        let same = |other: &str| other != name && other.eq_ignore_ascii_case(name);
        if headers.iter().any(|(other, _)| same(other)) {
            reader.problem(at, "the header stands here twice, apart from case");
        }
        headers.push((name.clone(), Secret::new(value.clone())));
    }
    headers
}

fn stdio(reader: &Reader<'_>, raw: &RawServer) -> Option<Target> {
    refuse(reader, raw, &HTTP_KEYS, "\"stdio\"");
    if !raw.given.contains(&"command") {
        let what = "has no \"command\", which the transport \"stdio\" needs";
        reader.problem(&raw.at, what);
    }
    let at = |key: &str| format!("{}/{key}", raw.at);
    let no_null = |at: String, text: &str| {
        if text.contains('\0') {
            reader.problem(at, "must not hold a null character");
        }
    };
    for (key, text) in [("command", &raw.command), ("cwd", &raw.cwd)] {
        let Some(text) = text else { continue };
        let at = format!("{}/{key}", raw.at);
        if text.value.is_empty() {
            reader.problem(&at, "must not be empty");
        }
        no_null(at, &text.value);
    }
    for (at, text) in &raw.args {
        no_null(at.clone(), &text.value);
        if text.value.starts_with("~/") {
            let what = "no shell reads this: \"~\" stays as it is, \"${HOME}\" does not";
            reader.warn(at, what);
        }
    }
    for (at, name, value) in &raw.env {
        if name.is_empty() || name.contains(['=', '\0']) {
            reader.problem(at, "not a variable's name");
        }
        no_null(at.clone(), &without_user(value));
    }
    let secret = |(_, name, value): &(String, String, String)| {
        (name.clone(), Secret::new(value.clone()))
    };
    Some(Target::Stdio(StdioTarget {
        command: program(reader, &at("command"), raw.command.as_ref()?),
        args: raw.args.iter().map(|(_, text)| text.value.clone()).collect(),
        env: raw.env.iter().map(secret).collect(),
        cwd: raw.cwd.as_ref().map(|path| reader.path_of(&at("cwd"), path, Wanted::Folder)),
        // Relative paths among the arguments are relative to the file's folder, too.
        folder: reader.folder(),
    }))
}

/// The program to start: a path is relative to the folder of the file, a name is searched in
/// PATH.
fn program(reader: &Reader<'_>, at: &str, text: &Text) -> String {
    let mut words = text.value.split_whitespace();
    let first = words.next().unwrap_or_default();
    let has_more = words.next().is_some();
    // Folders and programs may have spaces in their names.
    let is_line = !first.contains('/')
        || (!Path::new(&text.value).exists() && Path::new(first).is_file());
    if is_line && has_more {
        // The text may stand for a secret, and so may every word behind the first.
        let what = if text.value == text.written {
            format!("use args: \"command\": {first:?}, and each further word in \"args\"")
        } else {
            "use args: one program stands here, without its arguments".to_owned()
        };
        reader.problem(at, what);
    }
    if !text.value.contains('/') {
        return text.value.clone();
    }
    let path = reader.path_of(at, text, Wanted::File);
    path.to_str().map_or_else(|| text.value.clone(), str::to_owned)
}
