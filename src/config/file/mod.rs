//! The configuration as the file has it: every value has the right type and is in its range, but
//! values are not compared with each other yet.

pub(super) mod access_tokens;
pub(super) mod addresses;
pub(super) mod expand;
pub(super) mod foreign;
pub(super) mod json;
pub(super) mod limit_keys;
pub(super) mod oauth;
pub(super) mod otlp;
pub(super) mod pinned;
pub(super) mod place;
pub(super) mod reader;

use super::{
    Credentials, HttpKind, LogConfig, LogFormat, Pin, Prefix, Problem, SessionSharing,
    Transports,
};
use crate::limits::Limits;
use json::{Json, pointer};
pub(super) use limit_keys::DAY_MS;
use limit_keys::limit_keys;
use otlp::OtlpConfig;
use place::Source;
use reader::{Fields, Reader, Text};

/// The keys of the file. `mcpServers` is another name of `mcp_servers`.
pub const KEYS: &[&str] = &[
    "$schema",
    "listen",
    "api_keys",
    "oauth",
    "allowed_origins",
    "allowed_hosts",
    "allow_anonymous",
    "strict_clients",
    "socket_mode",
    "socket_group",
    "public_url",
    "admin_listen",
    "otlp",
    "trusted_proxies",
    "transports",
    "prefix",
    "prefix_separator",
    "mcp_servers",
    "mcpServers",
    "limits",
    "state_dir",
    "first_list_ms",
    "session_key",
    "watch",
    "log",
];

/// The keys of one element of `api_keys`.
pub const API_KEY_KEYS: &[&str] =
    &["name", "key", "sha256", "servers", "tools", "calls_per_minute", "admin"];

/// The keys of `transports`.
pub const TRANSPORT_KEYS: &[&str] = &["rest", "sse", "streamable_http"];

/// The keys of one server. `type` is another name of `transport`.
pub const SERVER_KEYS: &[&str] = &[
    "transport",
    "type",
    "url",
    "headers",
    "forward_headers",
    "oauth",
    "credentials",
    "command",
    "args",
    "env",
    "cwd",
    "description",
    "alias",
    "tools",
    "disabled",
    "start_timeout_ms",
    "timeout_ms",
    "timeout_max_ms",
    "connect_timeout_ms",
    "max_sessions",
    "pin",
    "proxy",
    "ca_file",
    "max_in_flight",
    "max_waiting",
    "required",
    "session",
];

/// The keys of `log`.
pub const LOG_KEYS: &[&str] = &["level", "format", "access", "bodies"];

/// The most comments and the like that are noted one by one.
const FOREIGN_SYNTAX_MAX: usize = 20;
/// The most sessions and children of one server, and calls that run or wait there.
const PER_SERVER_MAX: u64 = 65_536;

/// A string with its JSON pointer.
pub(super) type Placed = (String, Text);

pub(super) struct RawConfig {
    pub(super) listen: Option<Text>,
    pub(super) api_keys: Vec<RawKey>,
    /// True if there is more than an empty list, also an invalid one, whose faults are noted
    /// there.
    pub(super) has_api_keys: bool,
    pub(super) oauth: Option<access_tokens::RawAccessTokens>,
    /// True if the file has `oauth`, also an unusable one, whose faults are noted there.
    pub(super) has_oauth: bool,
    pub(super) allowed_origins: Vec<Placed>,
    pub(super) allowed_hosts: Option<Vec<Placed>>,
    pub(super) allow_anonymous: bool,
    pub(super) strict_clients: bool,
    pub(super) socket_mode: Option<Text>,
    pub(super) socket_group: Option<Text>,
    pub(super) public_url: Option<Text>,
    pub(super) admin_listen: Option<Text>,
    pub(super) otlp: Option<OtlpConfig>,
    pub(super) trusted_proxies: Vec<Placed>,
    pub(super) transports: Transports,
    pub(super) prefix: Prefix,
    pub(super) separator: Option<Text>,
    pub(super) servers: Vec<RawServer>,
    /// The pointer of the servers' object.
    pub(super) servers_at: String,
    pub(super) limits: Limits,
    pub(super) state_dir: Option<Text>,
    pub(super) first_list_ms: u64,
    pub(super) session_key: Option<Text>,
    pub(super) watch: bool,
    pub(super) log: LogConfig,
}

impl RawConfig {
    /// True if clients must show who they are.
    pub(super) fn wants_credentials(&self) -> bool {
        self.has_api_keys || self.has_oauth
    }
}

pub(super) struct RawKey {
    pub(super) at: String,
    pub(super) name: Option<Text>,
    pub(super) secret: Option<RawSecret>,
    pub(super) servers: Option<Vec<Placed>>,
    pub(super) tools: Option<Vec<Placed>>,
    pub(super) calls_per_minute: Option<u64>,
    pub(super) admin: bool,
}

pub(super) enum RawSecret {
    Key(Text),
    Sha256(Text),
}

/// The value of `transport`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RawTransport {
    Http(HttpKind),
    Stdio,
}

/// An object of strings: pointer, name and value of each.
pub(super) type StringMap = Vec<(String, String, String)>;

pub(super) struct RawServer {
    pub(super) at: String,
    pub(super) name: String,
    /// The keys that are present, even with unusable values.
    pub(super) given: Vec<&'static str>,
    pub(super) transport: Option<RawTransport>,
    pub(super) url: Option<Text>,
    pub(super) headers: StringMap,
    pub(super) forward_headers: Vec<Placed>,
    pub(super) oauth: Option<oauth::RawOAuth>,
    pub(super) credentials: Credentials,
    pub(super) command: Option<Text>,
    pub(super) args: Vec<Placed>,
    pub(super) env: StringMap,
    pub(super) cwd: Option<Text>,
    pub(super) description: Option<String>,
    pub(super) alias: Option<Text>,
    pub(super) tools: Option<Vec<Placed>>,
    pub(super) disabled: bool,
    pub(super) start_timeout_ms: u64,
    pub(super) timeout_ms: u64,
    pub(super) timeout_max_ms: u64,
    pub(super) connect_timeout_ms: u64,
    pub(super) max_sessions: Option<u64>,
    pub(super) pin: Pin,
    pub(super) proxy: Option<Text>,
    pub(super) ca_file: Option<Text>,
    pub(super) max_in_flight: u64,
    pub(super) max_waiting: u64,
    pub(super) required: bool,
    pub(super) session: SessionSharing,
}

/// Syntax of other formats that JSON does not have. Of a kind that cannot be left out, only the
/// first is noted, because the reading goes astray there.
pub(super) fn foreign_syntax(source: &Source<'_>) -> Vec<Problem> {
    let mut told = Vec::new();
    for (range, odd) in &source.odd {
        let problem = Problem::new("", odd.what());
        told.push(Problem { place: Some(source.place(range.clone())), ..problem });
        if !odd.can_be_left_out() {
            break;
        }
    }
    told.truncate(FOREIGN_SYNTAX_MAX);
    told
}

/// Reads the text. None only where there is no object to read; else a value that is missing or
/// unusable has its default, and its fault is noted.
pub(super) fn read(reader: &Reader<'_>, source: &Source<'_>, text: &str) -> Option<RawConfig> {
    // `foreign_syntax` notes other formats' syntax; the rest may have problems, too.
    let plain = source.without_odd();
    let text = if source.odd.is_empty() { text } else { &plain };
    // Editors of some systems begin a file with a byte order mark.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let json: Json = match serde_json::from_str(text) {
        Ok(json) => json,
        Err(error) => {
            if source.odd.iter().all(|(_, odd)| odd.can_be_left_out()) {
                let at = source.offset(error.line(), error.column());
                let place = Some(source.place(at..at + 1));
                let problem = Problem::new("", format!("no JSON: {error}"));
                reader.placed_problem(Problem { place, ..problem });
            }
            return None;
        }
    };
    let file = reader.fields("", &json, KEYS)?;
    Some(RawConfig {
        listen: read_listen(&file),
        api_keys: read_keys(&file),
        has_api_keys: file.get("api_keys").is_some_and(|keys| *keys != Json::Array(Vec::new())),
        oauth: access_tokens::read(&file),
        has_oauth: file.has("oauth"),
        allowed_origins: file.texts("allowed_origins").unwrap_or_default(),
        allowed_hosts: file.texts("allowed_hosts"),
        allow_anonymous: file.flag("allow_anonymous", false),
        strict_clients: file.flag("strict_clients", false),
        socket_mode: file.text("socket_mode"),
        socket_group: file.text("socket_group"),
        public_url: file.text("public_url"),
        admin_listen: file.text("admin_listen"),
        otlp: otlp::read(&file),
        trusted_proxies: file.texts("trusted_proxies").unwrap_or_default(),
        transports: read_transports(&file),
        prefix: file.choice("prefix", &PREFIXES).unwrap_or(Prefix::Auto),
        separator: file.text("prefix_separator"),
        servers: read_servers(&file),
        servers_at: file.at(servers_key(&file)),
        limits: file
            .object("limits", limit_keys())
            .map_or_else(Limits::default, |limits| limit_keys::read(&limits)),
        state_dir: file.text("state_dir"),
        first_list_ms: file.number("first_list_ms", &(0..=DAY_MS)).unwrap_or(2000),
        session_key: file.text("session_key"),
        watch: file.flag("watch", false),
        log: read_log(&file),
    })
}

const PREFIXES: [(&str, Prefix); 3] =
    [("auto", Prefix::Auto), ("always", Prefix::Always), ("never", Prefix::Never)];

fn read_listen(file: &Fields<'_>) -> Option<Text> {
    match file.get("listen") {
        Some(json @ Json::Whole(port)) => {
            let wanted = format!("a string such as \"127.0.0.1:{port}\"");
            file.reader.wrong(&file.at("listen"), &wanted, json)
        }
        Some(_) | None => file.text("listen"),
    }
}

fn read_transports(file: &Fields<'_>) -> Transports {
    let all = Transports { rest: true, sse: true, streamable_http: true };
    file.object("transports", TRANSPORT_KEYS).map_or(all, |fields| Transports {
        rest: fields.flag("rest", true),
        sse: fields.flag("sse", true),
        streamable_http: fields.flag("streamable_http", true),
    })
}

fn read_log(file: &Fields<'_>) -> LogConfig {
    use log::LevelFilter as Level;
    let levels = [
        ("off", Level::Off),
        ("error", Level::Error),
        ("warn", Level::Warn),
        ("info", Level::Info),
        ("debug", Level::Debug),
        ("trace", Level::Trace),
    ];
    let formats = [("text", LogFormat::Text), ("json", LogFormat::Json)];
    let default =
        LogConfig { level: Level::Info, format: LogFormat::Text, access: false, bodies: false };
    file.object("log", LOG_KEYS).map_or(default, |fields| LogConfig {
        level: fields.choice("level", &levels).unwrap_or(default.level),
        format: fields.choice("format", &formats).unwrap_or(default.format),
        access: fields.flag("access", default.access),
        bodies: fields.flag("bodies", default.bodies),
    })
}

fn read_keys(file: &Fields<'_>) -> Vec<RawKey> {
    let reader = file.reader;
    let mut keys = Vec::new();
    for (at, json) in file.items("api_keys").unwrap_or_default() {
        let Some(fields) = reader.fields(&at, json, API_KEY_KEYS) else { continue };
        if !fields.has("name") {
            reader.problem(&at, "has no \"name\"");
        }
        let secret = match (fields.has("key"), fields.has("sha256")) {
            (true, false) => fields.text("key").map(RawSecret::Key),
            (false, true) => fields.text("sha256").map(RawSecret::Sha256),
            (true, true) => {
                reader.problem(&at, "has both \"key\" and \"sha256\"; one says all");
                None
            }
            (false, false) => {
                reader.problem(&at, "has neither \"key\" nor \"sha256\"");
                None
            }
        };
        keys.push(RawKey {
            name: fields.text("name"),
            secret,
            servers: fields.texts("servers"),
            tools: fields.texts("tools"),
            calls_per_minute: fields.number("calls_per_minute", &(1..=u64::from(u32::MAX))),
            admin: fields.flag("admin", false),
            at,
        });
    }
    keys
}

/// The one of its two names under which the servers stand.
fn servers_key(file: &Fields<'_>) -> &'static str {
    let is_other = !file.has("mcp_servers") && file.has("mcpServers");
    if is_other { "mcpServers" } else { "mcp_servers" }
}

fn read_servers(file: &Fields<'_>) -> Vec<RawServer> {
    let reader = file.reader;
    let key = servers_key(file);
    if key == "mcp_servers" && file.has("mcpServers") {
        reader.key_problem(file.at("mcpServers"), "is the same key as \"mcp_servers\"");
    }
    if !file.has(key) {
        reader.problem(file.at("mcp_servers"), "is missing");
    }
    let Some(json) = file.get(key) else { return Vec::new() };
    let at = file.at(key);
    let entries = reader.entries(&at, json).unwrap_or_default();
    let read = |(name, json): &(String, Json)| {
        let at = pointer(&at, name);
        let fields = reader.fields(&at, json, SERVER_KEYS)?;
        Some(read_server(&fields, name))
    };
    entries.iter().filter_map(read).collect()
}

/// Reads `transport`: one of its words, or other programs' words for the first of them.
fn read_transport(fields: &Fields<'_>) -> Option<RawTransport> {
    let http = RawTransport::Http(HttpKind::StreamableHttp);
    let transports = [
        ("http", http),
        ("sse", RawTransport::Http(HttpKind::HttpSse)),
        ("stdio", RawTransport::Stdio),
        ("auto", RawTransport::Http(HttpKind::Auto)),
    ];
    let others = ["streamable-http", "streamable_http", "streamableHttp"].map(|it| (it, http));
    let key = match (fields.has("transport"), fields.has("type")) {
        (false, true) => "type",
        (true, true) => {
            fields.reader.key_problem(fields.at("type"), "is the same key as \"transport\"");
            "transport"
        }
        (_, false) => "transport",
    };
    fields.choice_with_others(key, &transports, &others)
}

const CREDENTIALS: [(&str, Credentials); 2] = [
    (Credentials::Gateway.as_str(), Credentials::Gateway),
    (Credentials::PerUser.as_str(), Credentials::PerUser),
];

fn read_server(fields: &Fields<'_>, name: &str) -> RawServer {
    let pins = [
        ("off", Pin::Off),
        ("warn", Pin::Warn),
        ("enforce", Pin::Enforce),
        ("locked", Pin::Locked),
    ];
    let sessions = [
        ("auto", SessionSharing::Auto),
        ("shared", SessionSharing::Shared),
        ("per_client", SessionSharing::PerClient),
    ];
    let day = 1..=DAY_MS;
    RawServer {
        at: fields.at.clone(),
        name: name.to_owned(),
        given: SERVER_KEYS.iter().copied().filter(|key| fields.has(key)).collect(),
        transport: read_transport(fields),
        url: fields.text("url"),
        headers: fields.string_map("headers").unwrap_or_default(),
        forward_headers: fields.texts("forward_headers").unwrap_or_default(),
        oauth: oauth::read(fields),
        credentials: fields.choice("credentials", &CREDENTIALS).unwrap_or(Credentials::Gateway),
        command: fields.text("command"),
        args: fields.texts("args").unwrap_or_default(),
        env: fields.string_map("env").unwrap_or_default(),
        cwd: fields.text("cwd"),
        description: fields.string("description"),
        alias: fields.text("alias"),
        tools: fields.texts("tools"),
        disabled: fields.flag("disabled", false),
        start_timeout_ms: fields.number("start_timeout_ms", &day).unwrap_or(300_000),
        timeout_ms: fields.number("timeout_ms", &day).unwrap_or(60_000),
        timeout_max_ms: fields.number("timeout_max_ms", &day).unwrap_or(600_000),
        connect_timeout_ms: fields.number("connect_timeout_ms", &day).unwrap_or(5000),
        max_sessions: fields.number("max_sessions", &(1..=PER_SERVER_MAX)),
        pin: fields.choice("pin", &pins).unwrap_or(Pin::Off),
        proxy: fields.text("proxy"),
        ca_file: fields.text("ca_file"),
        max_in_flight: fields.number("max_in_flight", &(1..=PER_SERVER_MAX)).unwrap_or(32),
        max_waiting: fields.number("max_waiting", &(0..=PER_SERVER_MAX)).unwrap_or(128),
        required: fields.flag("required", false),
        session: fields.choice("session", &sessions).unwrap_or(SessionSharing::Auto),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::file::expand::Outside;
    use crate::config::{Config, IDENTITY_PROVIDER_KEYS, OAUTH_KEYS, Overrides};

    /// Gives every key of a list a value that no key takes, so that the reading of each fails.
    fn with_wrong_values(keys: &[&str]) -> Json {
        Json::Object(keys.iter().map(|key| ((*key).to_owned(), Json::Null)).collect())
    }

    #[test]
    fn every_listed_key_is_read() {
        let environment = |_: &str| None;
        let outside = Outside { environment: &environment, folder: None };
        let reader = Reader::new(outside);
        let server = with_wrong_values(SERVER_KEYS);
        let with = |key: &str, value: Json| Json::Object(vec![(key.to_owned(), value)]);
        let oauth = with("oauth", with_wrong_values(OAUTH_KEYS));
        let provider = with_wrong_values(IDENTITY_PROVIDER_KEYS);
        let provider = with("oauth", with("identity_provider", provider));
        let limits = with_wrong_values(limit_keys());
        let log = Json::Object(vec![("log".to_owned(), with_wrong_values(LOG_KEYS))]);
        if let Some(fields) = reader.fields("", &server, SERVER_KEYS) {
            drop(read_server(&fields, "s"));
        }
        for oauth in [&oauth, &provider] {
            if let Some(fields) = reader.fields("", oauth, SERVER_KEYS) {
                drop(oauth::read(&fields));
            }
        }
        if let Some(fields) = reader.fields("", &limits, limit_keys()) {
            assert_eq!(limit_keys::read(&fields), Limits::default());
        }
        if let Some(fields) = reader.fields("", &log, KEYS) {
            read_log(&fields);
        }
        let all = [SERVER_KEYS, OAUTH_KEYS, IDENTITY_PROVIDER_KEYS, limit_keys(), LOG_KEYS];
        let n_keys: usize = all.iter().map(|keys| keys.len()).sum();
        let (problems, _) = reader.into_noted();
        let wrong = problems.iter().filter(|(problem, _)| problem.what.contains("not null"));
        // `type` is missing, because its fault is that it equals `transport`.
        assert_eq!(wrong.count(), n_keys - 1, "{problems:?}");

        let all: Vec<_> = KEYS.iter().filter(|key| **key != "mcpServers").collect();
        let file: Vec<_> = all.iter().map(|key| format!("{key:?}:null")).collect();
        let text = format!("{{{}}}", file.join(","));
        let found = Config::parse(&text, &environment, &Overrides::default()).unwrap_err();
        // `$schema` is missing.
        assert_eq!(found.len(), all.len() - 1, "{found:?}");
    }
}
