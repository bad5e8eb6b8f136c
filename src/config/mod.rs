//! The configuration: `file/` is what stands in `config.json`, `check/` makes of it a
//! [`Config`] in which every value is usable. Nothing outside sees the raw form.

mod base64;
mod check;
mod diff;
mod file;
mod reload_result;
mod remote;
mod schema;
pub mod secrets;
mod syntax;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub use check::hash_key;
pub use check::proxies::TrustedProxy;
pub use check::public_url::PublicUrl;
pub use diff::{Changes, NOTHING_DIFFERS};
pub use file::addresses::Addresses;
pub use file::expand::Environment;
pub use file::limit_keys::limit_keys;
pub use file::otlp::{OTLP_KEYS, OtlpConfig};
pub use file::pinned::PinnedServer;
pub use file::place::Place;
pub use file::{API_KEY_KEYS, KEYS, LOG_KEYS, SERVER_KEYS, TRANSPORT_KEYS};
pub use reload_result::Reloaded;
pub use remote::{KEY_VARIABLE, name_of_gateway};
pub use schema::SCHEMA;

use file::expand::Outside;
use file::place::{Aim, Source};

use crate::limits::Limits;
use crate::protocol::owners::Owners;
use crate::protocol::quirks::Tolerance;
use crate::protocol::server_name::ServerName;

/// What is wrong with a configuration, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// A JSON pointer (RFC 6901); empty where the file as a whole is meant.
    pub at: String,
    /// What is wrong. Holds no secret: neither a key's text nor the value of a variable.
    pub what: String,
    /// Where that is in the text, if there is a text and it is there.
    pub place: Option<Place>,
}

impl Problem {
    /// What is wrong where; its place in the text is not known yet.
    pub fn new(at: impl Into<String>, what: impl Into<String>) -> Problem {
        Problem { at: at.into(), what: what.into(), place: None }
    }

    /// On one line, behind the name of the file and the place in it.
    pub fn in_file(&self, file: impl fmt::Display) -> String {
        match &self.place {
            Some(Place { line, column, .. }) => format!("{file}:{line}:{column}: {self}"),
            None => format!("{file}: {self}"),
        }
    }

    /// The same, and below it the line of the file with a mark under the place.
    pub fn with_line(&self, file: impl fmt::Display) -> String {
        let mut text = self.in_file(file);
        if let Some(Place { line, shown, before, width, .. }) = &self.place {
            let mark = format!("{}{}", " ".repeat(*before), "^".repeat(*width));
            text.push_str(&format!("\n{line:>6} | {shown}\n       | {mark}"));
        }
        text
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.at.is_empty() {
            return f.write_str(&self.what);
        }
        write!(f, "{}: {}", self.at, self.what)
    }
}

/// What the command line says in place of the file.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// Replaces `listen`, before anything that depends on it is checked.
    pub listen: Option<Listen>,
}

impl Config {
    /// Reads and checks a file; variables come from the environment of the process.
    ///
    /// # Errors
    /// Every problem found, or the one that the file cannot be read.
    pub fn load(path: &Path, overrides: &Overrides) -> Result<Config, Vec<Problem>> {
        let one = |error| vec![unreadable(error)];
        let text = std::fs::read_to_string(path).map_err(one)?;
        // Wherever the program runs, and whatever becomes its folder.
        let path = std::path::absolute(path).map_err(one)?;
        let environment = |name: &str| std::env::var(name).ok();
        let outside = Outside { environment: &environment, folder: path.parent() };
        Config::read(&text, outside, overrides)
    }

    /// Checks a text that is no file; variables come from `environment`, and relative paths stay
    /// as they are.
    ///
    /// # Errors
    /// Every problem found.
    pub fn parse(
        text: &str,
        environment: Environment<'_>,
        overrides: &Overrides,
    ) -> Result<Config, Vec<Problem>> {
        Config::read(text, Outside { environment, folder: None }, overrides)
    }

    /// Calls per minute by the name of the key that has such a bound.
    pub fn quotas(&self) -> impl Iterator<Item = (Arc<str>, u32)> {
        let keys = self.api_keys.iter();
        keys.filter_map(|key| Some((Arc::from(key.name.as_str()), key.calls_per_minute?)))
    }

    fn read(
        text: &str,
        outside: Outside<'_>,
        overrides: &Overrides,
    ) -> Result<Config, Vec<Problem>> {
        if let Some(what) = file::foreign::other_format(text) {
            return Err(vec![Problem::new("", what)]);
        }
        let source = Source::new(text);
        let reader = file::reader::Reader::new(outside);
        let mut problems = file::foreign_syntax(&source);
        let config = file::read(&reader, &source, text)
            .and_then(|raw| check::check(&reader, raw, overrides));
        let (noted, mut warnings) = reader.into_noted();
        for (mut problem, aim) in noted {
            problem.place = problem.place.or_else(|| source.find(&problem.at, aim));
            problems.push(problem);
        }
        problems.sort_by_key(|problem| problem.place.as_ref().map(|it| (it.line, it.column)));
        match config {
            Some(mut config) if problems.is_empty() => {
                for warning in &mut warnings {
                    warning.place = source.find(&warning.at, Aim::Value);
                }
                config.warnings = warnings;
                Ok(config)
            }
            Some(_) | None => Err(problems),
        }
    }
}

fn unreadable(error: std::io::Error) -> Problem {
    let is_missing = error.kind() == std::io::ErrorKind::NotFound;
    let hint = if is_missing { " (-c FILE names another)" } else { "" };
    Problem::new("", format!("the configuration cannot be read: {error}{hint}"))
}

/// A checked configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where to listen.
    pub listen: Listen,
    /// Permissions of the Unix socket, if there is one.
    pub socket_mode: u32,
    /// Where `/metrics` and `/status` have a listener of their own.
    pub admin_listen: Option<Listen>,
    /// Where spans go, if anywhere.
    pub otlp: Option<OtlpConfig>,
    /// Keys that clients may use; empty means that none is asked for.
    pub api_keys: Vec<ApiKey>,
    /// `Origin` values (scheme, host, port) and host names admitted besides the loopback ones
    /// and the address listened on; none where the configuration has none.
    pub allowed_origins: Vec<String>,
    /// See [`Config::allowed_origins`]; beyond loopback, `Host` is checked if this is
    /// set or everybody is admitted.
    pub allowed_hosts: Option<Vec<String>>,
    /// The group of the Unix socket, by name or number.
    pub socket_group: Option<String>,
    /// The address that clients and browsers use.
    pub public_url: Option<PublicUrl>,
    /// Peers whose `X-Forwarded-*` count.
    pub trusted_proxies: Vec<TrustedProxy>,
    /// Whether clients without a key are admitted from elsewhere, too.
    pub allow_anonymous: bool,
    /// Whether known quirks of clients are tolerated.
    pub tolerance: Tolerance,
    /// Which transports serve.
    pub transports: Transports,
    /// How tools are named.
    pub naming: Naming,
    /// The servers that are not disabled, in the order of the file.
    /// Two that are the same one, and not only equal, are of one configuration: what runs goes on.
    pub upstreams: Vec<Arc<UpstreamConfig>>,
    /// Every bound.
    pub limits: Limits,
    /// The key that session ids are made with; that of the state where there is none.
    pub session_key: Option<[u8; 32]>,
    /// How long after the start what tells of all servers waits for their first lists.
    pub first_list: Duration,
    /// Whether the file is read again when it changes.
    pub watch: bool,
    /// Where what outlives the process is kept; without it nothing is written to disk.
    pub state_dir: Option<PathBuf>,
    /// What is logged, and how.
    pub log: LogConfig,
    /// What the operator should know although it is no error.
    pub warnings: Vec<Problem>,
}

/// Where to listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// An address and a port; port 0 lets the system choose.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

impl Listen {
    /// Where it listens if nothing else is said.
    pub const DEFAULT: Listen =
        Listen::Tcp(SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 4000));

    /// Reads `address:port`, `localhost:port` or `unix:/path`.
    pub fn parse(text: &str) -> Option<Listen> {
        if let Some(path) = text.strip_prefix("unix:") {
            let usable = path.len() > 1 && path.starts_with('/') && !path.contains('\0');
            return usable.then(|| Listen::Unix(PathBuf::from(path)));
        }
        if let Some(port) = text.strip_prefix("localhost:") {
            let port = syntax::port(port)?;
            return Some(Listen::Tcp(SocketAddr::from(([127, 0, 0, 1], port))));
        }
        text.parse().ok().map(Listen::Tcp)
    }

    /// The same, and also `port` or `:port` of loopback.
    pub fn of_words(text: &str) -> Option<Listen> {
        let port = text.strip_prefix(':').unwrap_or(text);
        Listen::parse(text).or_else(|| Listen::parse(&format!("localhost:{port}")))
    }

    /// Whether only this machine can reach it.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().to_canonical().is_loopback(),
            Self::Unix(_) => true,
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A value that must never be printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a value.
    pub fn new(value: String) -> Secret {
        Secret(value)
    }

    /// The value, for the one place that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[secret]")
    }
}

/// A key that a client may use. The key itself is never kept, only its hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKey {
    /// What logs and `/status` call it.
    pub name: String,
    /// SHA-256 of the key.
    pub sha256: [u8; 32],
    /// Servers that it may use; where there is no list, those of which it may use a tool.
    pub servers: Option<Vec<ServerName>>,
    /// Globs over one server's own names behind its NAME and the separator, else over
    /// `{server}{separator}{name}`; `!` excludes. All where there is no list.
    pub tools: Option<Vec<String>>,
    /// Calls that it may make in a minute.
    pub calls_per_minute: Option<u32>,
    /// Whether `/status` and `/readyz` tell it everything.
    pub admin: bool,
}

/// Which transports serve; the others answer 501.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transports {
    /// `/mcp/tools/list` and `/mcp/tools/call`, both dialects.
    pub rest: bool,
    /// HTTP+SSE.
    pub sse: bool,
    /// Streamable HTTP.
    pub streamable_http: bool,
}

/// Whether offered names carry their server's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prefix {
    /// Once more than one server is configured.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// How tools are named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Naming {
    /// Whether names are prefixed.
    pub prefix: Prefix,
    /// Between prefix and name.
    pub separator: String,
    /// Whose a name is. Disabled servers keep theirs.
    pub owners: Arc<Owners>,
}

impl Naming {
    /// How the tools of these servers are named: each a NAME, and its alias if it has one.
    pub fn new<'a>(
        prefix: Prefix,
        separator: &str,
        servers: impl IntoIterator<Item = (&'a ServerName, Option<&'a str>)>,
    ) -> Naming {
        let owners = Arc::new(Owners::new(separator, servers));
        Naming { prefix, separator: separator.to_owned(), owners }
    }
}

/// One server behind the gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamConfig {
    /// Its key in the file.
    pub name: ServerName,
    /// Replaces the name in offered names.
    pub alias: Option<String>,
    /// For people.
    pub description: Option<String>,
    /// How it is reached.
    pub target: Target,
    /// Globs over its own tool names; `!` excludes. All where there is no list.
    pub tools: Option<Vec<String>>,
    /// A child's first answer, and first contact over HTTP, may take so long.
    pub start_timeout: Duration,
    /// A call ends so long after its start or its last progress.
    pub timeout: Duration,
    /// And so long after its start at the latest.
    pub timeout_max: Duration,
    /// Opening a connection may take so long.
    pub connect_timeout: Duration,
    /// Calls at once.
    pub max_in_flight: usize,
    /// Calls that wait for one of those; more get 503 at once.
    pub max_waiting: usize,
    /// Sessions, or children, at once.
    pub max_sessions: usize,
    /// Whether `/readyz` waits for it.
    pub required: bool,
    /// Whether clients share its sessions.
    pub session: SessionSharing,
    /// What is done about a tool that changes.
    pub pin: Pin,
    /// Whether it is one of several, or all that there is.
    pub role: Role,
}

/// What a server is to the gateway before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// One of the configuration's: there is what it lists.
    Server,
    /// The gateway that `--url` names: it decides which names there are, and its key stands in
    /// the environment.
    OtherGateway,
}

/// What is done when a tool, or whatever else a server says of itself, is no longer what it was when
/// it was first seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pin {
    /// Nothing.
    Off,
    /// It is told of.
    Warn,
    /// It is told of, and withheld until somebody accepts it.
    Enforce,
    /// The same, and so is what is seen for the first time.
    Locked,
}

impl Pin {
    /// All of them.
    pub const ALL: [Pin; 4] = [Pin::Off, Pin::Warn, Pin::Enforce, Pin::Locked];

    /// The word of the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Warn => "warn",
            Self::Enforce => "enforce",
            Self::Locked => "locked",
        }
    }

    /// Whether what nobody has accepted is withheld.
    pub fn withholds(self) -> bool {
        match self {
            Self::Off | Self::Warn => false,
            Self::Enforce | Self::Locked => true,
        }
    }
}

/// Who shares a legacy upstream session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionSharing {
    /// Clients that declare sampling, elicitation or roots have their own; the others share one.
    Auto,
    /// All share one.
    Shared,
    /// Each has its own.
    PerClient,
}

impl SessionSharing {
    /// Whether a client has a session of its own. `can_be_asked`: it declares sampling,
    /// elicitation or roots.
    pub fn is_own(self, can_be_asked: bool) -> bool {
        match self {
            Self::Auto => can_be_asked,
            Self::Shared => false,
            Self::PerClient => true,
        }
    }
}

/// How a server is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Over HTTP.
    Http(HttpTarget),
    /// As a child process.
    Stdio(StdioTarget),
}

impl Target {
    /// Whether this is the same server, although it may be told other secrets: at the same URL,
    /// or started by the same command.
    pub fn is_same_server(&self, other: &Target) -> bool {
        match (self, other) {
            (Self::Http(one), Self::Http(two)) => one.url == two.url,
            (Self::Stdio(one), Self::Stdio(two)) => {
                (&one.command, &one.args, &one.cwd) == (&two.command, &two.args, &two.cwd)
            }
            (Self::Http(_), Self::Stdio(_)) | (Self::Stdio(_), Self::Http(_)) => false,
        }
    }
}

/// Which transport is spoken over HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HttpKind {
    /// Streamable HTTP.
    StreamableHttp,
    /// HTTP+SSE.
    HttpSse,
    /// Found out: Streamable HTTP, then HTTP+SSE.
    Auto,
}

/// A server reached over HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpTarget {
    /// Which transport.
    pub kind: HttpKind,
    /// An `http` or `https` URL.
    pub url: String,
    /// Sent with every request.
    pub headers: Vec<(String, Secret)>,
    /// Headers that a client may give for itself.
    pub forward_headers: Vec<String>,
    /// An HTTP proxy's URL.
    pub proxy: Option<Secret>,
    /// Further trusted certificates.
    pub ca_file: Option<PathBuf>,
}

/// A server started as a child process. Never through a shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StdioTarget {
    /// A program; `trunkline` is the running binary.
    pub command: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// Its environment besides PATH, HOME, LANG and TZ.
    pub env: Vec<(String, Secret)>,
    /// Where it runs.
    pub cwd: Option<PathBuf>,
    /// The folder of the configuration, where it runs without `cwd`. It is the same server
    /// wherever that folder is.
    pub folder: Option<PathBuf>,
}

/// What is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogConfig {
    /// The least important level that is written.
    pub level: log::LevelFilter,
    /// How a line looks.
    pub format: LogFormat,
    /// A line a call.
    pub access: bool,
    /// Bodies, redacted and cut.
    pub bodies: bool,
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}
