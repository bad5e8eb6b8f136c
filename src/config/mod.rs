//! The configuration: `file/` reads `config.json`, and `check/` makes of it a [`Config`] in which
//! every value is usable. No other folder sees the raw form.

mod base64;
mod check;
mod diff;
mod file;
mod identity;
mod oauth_client;
mod reload_result;
mod remote;
mod schema;
pub mod secrets;
mod syntax;
#[cfg(test)]
mod tests;
pub mod user;

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub use check::hash_key;
pub use check::proxies::TrustedProxy;
pub use check::public_url::PublicUrl;
pub use diff::{Changes, NOTHING_DIFFERS};
pub use file::access_tokens::{ACCESS_TOKEN_KEYS, INTROSPECTION_KEYS, ISSUER_KEYS, RULE_KEYS};
pub use file::addresses::Addresses;
pub use file::expand::Environment;
pub use file::foreign::nearest as nearest_name;
pub use file::limit_keys::limit_keys;
pub use file::oauth::{IDENTITY_PROVIDER_KEYS, OAUTH_KEYS};
pub use file::otlp::{OTLP_KEYS, OtlpConfig};
pub use file::pinned::PinnedServer;
pub use file::place::Place;
pub use file::{API_KEY_KEYS, KEYS, LOG_KEYS, SERVER_KEYS, TRANSPORT_KEYS};
pub use identity::{
    ClaimConfig, IntrospectedTokens, IntrospectionConfig, IssuerConfig, OAuthConfig, RuleConfig,
};
pub use oauth_client::{
    Credentials, Dpop, Grant, IdentityProvider, JwtBearer, OAuthClientConfig,
    TokenEndpointAuthMethod,
};
pub use reload_result::Reloaded;
pub use remote::{KEY_VARIABLE, name_of_gateway};
pub use schema::SCHEMA;

pub use crate::secret::Secret;

use file::expand::Outside;
use file::place::{Aim, Source};

use crate::limits::Limits;
use crate::protocol::owners::Owners;
use crate::protocol::quirks::Tolerance;
use crate::protocol::server_name::ServerName;

/// A fault of a configuration, and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// A JSON pointer (RFC 6901); empty for the file as a whole.
    pub at: String,
    /// The fault. It holds no secret: neither a key's text nor the value of a variable.
    pub what: String,
    /// The place in the text, if there is a text and the value stands in it.
    pub place: Option<Place>,
}

impl Problem {
    /// A problem whose place in the text is not known yet.
    pub fn new(at: impl Into<String>, what: impl Into<String>) -> Problem {
        Problem { at: at.into(), what: what.into(), place: None }
    }

    /// The problem on one line, behind the name of the file and the place in it.
    pub fn in_file(&self, file: impl fmt::Display) -> String {
        match &self.place {
            Some(Place { line, column, .. }) => format!("{file}:{line}:{column}: {self}"),
            None => format!("{file}: {self}"),
        }
    }

    /// The problem, and below it the line of the file with a mark under the place.
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

/// Values of the command line that replace the file's.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// Replaces `listen`, before anything that depends on it is checked.
    pub listen: Option<Listen>,
}

impl Config {
    /// True if clients must show who they are.
    pub fn wants_credentials(&self) -> bool {
        !self.api_keys.is_empty() || self.oauth.is_some()
    }

    /// Reads and checks a file; variables come from the environment of the process.
    ///
    /// # Errors
    /// Every problem found, or one that the file cannot be read.
    pub fn load(path: &Path, overrides: &Overrides) -> Result<Config, Vec<Problem>> {
        let one = |error| vec![unreadable(error)];
        let text = std::fs::read_to_string(path).map_err(one)?;
        // The path must hold wherever the program runs, and if its folder changes.
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

    /// The calls per minute of each key with such a bound, by the key's name.
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
    /// The address to listen on.
    pub listen: Listen,
    /// Permissions of the Unix socket, if there is one.
    pub socket_mode: u32,
    /// The address of a second listener, for `/metrics` and `/status`.
    pub admin_listen: Option<Listen>,
    /// The destination of spans, if there is one.
    pub otlp: Option<OtlpConfig>,
    /// Keys that clients may use; if empty, none is required.
    pub api_keys: Vec<ApiKey>,
    /// The authorization servers whose access tokens clients may use.
    pub oauth: Option<OAuthConfig>,
    /// `Origin` values (scheme, host, port) and host names that are admitted besides the loopback
    /// ones and the address listened on; empty where the configuration has none.
    pub allowed_origins: Vec<String>,
    /// Host names, see [`Config::allowed_origins`]; beyond loopback, `Host` is checked if this is
    /// set or clients without a key are admitted.
    pub allowed_hosts: Option<Vec<String>>,
    /// The group of the Unix socket, by name or number.
    pub socket_group: Option<String>,
    /// The address that clients and browsers use.
    pub public_url: Option<PublicUrl>,
    /// Peers whose `X-Forwarded-*` headers count.
    pub trusted_proxies: Vec<TrustedProxy>,
    /// True if clients without a key are admitted from other machines, too.
    pub allow_anonymous: bool,
    /// The quirks of clients that are tolerated.
    pub tolerance: Tolerance,
    /// The transports that serve.
    pub transports: Transports,
    /// The naming of tools.
    pub naming: Naming,
    /// The servers that are not disabled, in the order of the file. Two configurations with the
    /// very same value, and not only an equal one, share the running upstream.
    pub upstreams: Vec<Arc<UpstreamConfig>>,
    /// Every bound.
    pub limits: Limits,
    /// The key with which session ids are made; without one, the key of the state directory.
    pub session_key: Option<[u8; 32]>,
    /// The time after the start for which answers about all servers wait for the servers' first
    /// lists.
    pub first_list: Duration,
    /// True if the file is read again when it changes.
    pub watch: bool,
    /// The folder for files that outlive the process; without it nothing is written to disk.
    pub state_dir: Option<PathBuf>,
    /// The settings of the log.
    pub log: LogConfig,
    /// Warnings for the operator, which are no errors.
    pub warnings: Vec<Problem>,
}

/// The address to listen on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// An address and a port; port 0 lets the system choose.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

impl Listen {
    /// The default address.
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

    /// As [`Listen::parse`], and also `port` or `:port` of loopback.
    pub fn of_words(text: &str) -> Option<Listen> {
        let port = text.strip_prefix(':').unwrap_or(text);
        Listen::parse(text).or_else(|| Listen::parse(&format!("localhost:{port}")))
    }

    /// True if only this machine can reach the address.
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

/// A key that a client may use. The key itself is never kept, only its hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKey {
    /// The key's name in logs and `/status`.
    pub name: String,
    /// SHA-256 of the key.
    pub sha256: [u8; 32],
    /// The servers that it may use; without a list, those of which it may use a tool.
    pub servers: Option<Vec<ServerName>>,
    /// Globs over one server's own names behind its NAME and the separator, else over
    /// `{server}{separator}{name}`; `!` excludes. Without a list, all tools.
    pub tools: Option<Vec<String>>,
    /// The number of calls that it may make in a minute.
    pub calls_per_minute: Option<u32>,
    /// True if `/status` and `/readyz` tell it everything.
    pub admin: bool,
}

/// The transports that serve; the others answer 501.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transports {
    /// `/mcp/tools/list` and `/mcp/tools/call`, both dialects.
    pub rest: bool,
    /// HTTP+SSE.
    pub sse: bool,
    /// Streamable HTTP.
    pub streamable_http: bool,
}

/// The rule for the server's name in offered names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prefix {
    /// Names have it when more than one server is configured.
    Auto,
    /// Names always have it.
    Always,
    /// Names never have it.
    Never,
}

/// The rules for offered names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Naming {
    /// The rule for the server's name.
    pub prefix: Prefix,
    /// The text between the server's name and the item's.
    pub separator: String,
    /// The owners of names. Disabled servers keep theirs.
    pub owners: Arc<Owners>,
}

impl Naming {
    /// The naming of the items of these servers: each a NAME, and its alias if it has one.
    pub fn new<'a>(
        prefix: Prefix,
        separator: &str,
        servers: impl IntoIterator<Item = (&'a ServerName, Option<&'a str>)>,
    ) -> Naming {
        let owners = Arc::new(Owners::new(separator, servers));
        Naming { prefix, separator: separator.to_owned(), owners }
    }
}

/// The configuration of one server behind the gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamConfig {
    /// The server's key in the file.
    pub name: ServerName,
    /// The alias, which replaces the name in offered names.
    pub alias: Option<String>,
    /// The description, for people.
    pub description: Option<String>,
    /// The transport and the address.
    pub target: Target,
    /// Globs over the server's own tool names; `!` excludes. Without a list, all tools.
    pub tools: Option<Vec<String>>,
    /// The time for a child's first answer, and for first contact over HTTP.
    pub start_timeout: Duration,
    /// The time after which a call ends, from its start or its last progress.
    pub timeout: Duration,
    /// The time after which a call ends in any case, from its start.
    pub timeout_max: Duration,
    /// The time for opening a connection.
    pub connect_timeout: Duration,
    /// The most calls at once.
    pub max_in_flight: usize,
    /// The most calls that wait for one of those to end; more get 503 at once.
    pub max_waiting: usize,
    /// The most sessions, or children, at once.
    pub max_sessions: usize,
    /// True if `/readyz` waits for the server.
    pub required: bool,
    /// The rule by which clients share its sessions.
    pub session: SessionSharing,
    /// The treatment of a tool that has changed.
    pub pin: Pin,
    /// Whose credentials calls carry.
    pub credentials: Credentials,
    /// The server's role for the gateway.
    pub role: Role,
}

impl UpstreamConfig {
    /// How the gateway signs in to the server, where the server wants that.
    pub fn oauth(&self) -> Option<&OAuthClientConfig> {
        match &self.target {
            Target::Http(target) => target.oauth.as_deref(),
            Target::Stdio(_) => None,
        }
    }
}

/// The role of a server for the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A server of the configuration: it has the items that it lists.
    Server,
    /// The gateway that `--url` names: it decides which names exist, and its key comes from the
    /// environment.
    OtherGateway,
}

/// The treatment of a tool, or another part of a server's lists or introduction, that has changed
/// since it was first seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pin {
    /// Changes are ignored.
    Off,
    /// A change is reported.
    Warn,
    /// A change is reported, and the item is withheld until it is accepted.
    Enforce,
    /// As `Enforce`, and items are withheld when they are seen for the first time.
    Locked,
}

impl Pin {
    /// Every mode.
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

    /// True if an item is withheld that is not accepted.
    pub fn withholds(self) -> bool {
        match self {
            Self::Off | Self::Warn => false,
            Self::Enforce | Self::Locked => true,
        }
    }
}

/// The clients that share a legacy session with a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionSharing {
    /// Clients that declare sampling, elicitation or roots have their own; the others share one.
    Auto,
    /// All clients share one.
    Shared,
    /// Each client has its own.
    PerClient,
}

/// The transport and the address of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Over HTTP.
    Http(HttpTarget),
    /// As a child process.
    Stdio(StdioTarget),
}

impl Target {
    /// True if this is the same server, maybe with other credentials: at the same URL, or started
    /// by the same command.
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

/// The transport over HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HttpKind {
    /// Streamable HTTP.
    StreamableHttp,
    /// HTTP+SSE.
    HttpSse,
    /// Found at first contact: Streamable HTTP, then HTTP+SSE.
    Auto,
}

/// A server that is reached over HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpTarget {
    /// The transport.
    pub kind: HttpKind,
    /// An `http` or `https` URL.
    pub url: String,
    /// Headers of every request.
    pub headers: Vec<(String, Secret)>,
    /// Names of headers that a client may set for its own requests.
    pub forward_headers: Vec<String>,
    /// An HTTP proxy's URL.
    pub proxy: Option<Secret>,
    /// A file with further trusted certificates.
    pub ca_file: Option<PathBuf>,
    /// How access tokens for it are had, if it wants some.
    pub oauth: Option<Box<OAuthClientConfig>>,
}

/// A server that is started as a child process, never through a shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StdioTarget {
    /// A program; `trunkline` is the running binary.
    pub command: String,
    /// The program's arguments.
    pub args: Vec<String>,
    /// The program's environment besides PATH, HOME, LANG and TZ.
    pub env: Vec<(String, Secret)>,
    /// The folder in which it runs.
    pub cwd: Option<PathBuf>,
    /// The folder of the configuration, in which it runs without `cwd`. It does not matter for
    /// `is_same_server`.
    pub folder: Option<PathBuf>,
}

/// The settings of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogConfig {
    /// The least important level that is written.
    pub level: log::LevelFilter,
    /// The form of a line.
    pub format: LogFormat,
    /// True if each call has a line.
    pub access: bool,
    /// True if bodies are logged, redacted and cut.
    pub bodies: bool,
}

/// The form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Text for people.
    Text,
    /// One JSON object for each line.
    Json,
}
