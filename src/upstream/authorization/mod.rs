//! Trunkline as OAuth client of MCP servers: how an access token for a server is had, kept and
//! renewed, and the sign-ins of people that are under way.
//!
//! [`Authorizations`] is shared by all servers. For each server with `oauth`, and for each owner of
//! credentials there, it has a [`ServerAuthorization`], from which requests take their access
//! token where they are sent (`requests.rs`), and which they ask for another one when the server
//! answers with 401 or 403. Sessions and transports know nothing of it, and a server without
//! `oauth` costs a look at an empty field. Whatever asks an authorization server runs on the
//! threads `oauth-N` (`asking.rs`): one question at a time for the credentials of one owner, while
//! calls wait on their own [`Wait`](crate::wait::Wait). Where only a person can have a token, the
//! request fails before it was done; while a page is open for the person at this machine, the call
//! waits in `upstream/call/mod.rs`, where it holds no permit and no connection.
//!
//! Tokens are bound to the server's URL, to the issuer that gave them, and to the client that they
//! were given to (`kept.rs`). They are kept in a sealed file each (`store.rs`), which is locked
//! while it is renewed, so that two gateways never use one refresh token twice.

mod asking;
mod authorizations;
mod browser;
mod credentials_file;
mod discovery;
mod exchanges;
mod files;
mod flow_error;
mod holder;
mod issuer_fetcher;
mod kept;
mod refusal;
mod registration;
mod requests;
mod server_authorization;
mod shared;
mod sign_in;
mod sign_ins;
mod sign_out;
mod store;
mod token_endpoint;
mod want;
mod workers;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use crate::config::Config;
use crate::protocol::credentials_id::CredentialsId;
use crate::protocol::server_name::ServerName;
use crate::wait::Interrupted;

pub use authorizations::Authorizations;
pub use credentials_file::FileMark;
pub use holder::{Holder, UserSignIn};
pub(crate) use server_authorization::AuthorizationListener;
pub use server_authorization::ServerAuthorization;
pub use sign_out::{NotRevoked, Revocation, SignedOut};

/// The path of the callback, below the address that browsers use.
pub const CALLBACK_PATH: &str = "/oauth/callback";
/// The path of the client metadata document, below the same address.
pub const CLIENT_DOCUMENT_PATH: &str = "/oauth/client.json";

/// What the sign-ins of all servers need to know of this gateway.
#[derive(Debug, Clone, Default)]
pub struct Setup {
    /// The directory in which credentials are kept.
    pub state_dir: Option<PathBuf>,
    /// Where the gateway listens, as text, if it does.
    pub address: Option<String>,
    /// The URL to which the authorization server sends the browser back; none where the gateway
    /// has no address that a browser can reach.
    pub redirect_uri: Option<String>,
    /// The https URL at which this gateway serves its own client metadata document.
    pub client_document_url: Option<String>,
    /// The content of `$BROWSER`: how a page is shown to the person at this machine.
    pub browser: Option<String>,
    /// The time for which calls wait for a sign-in (`limits.parked_ms`).
    pub patience: Duration,
}

impl Setup {
    /// That of a gateway with this configuration. `address`: where it listens, as text, if it
    /// does; `browser`: the content of `$BROWSER`.
    pub fn of(config: &Config, address: Option<&str>, browser: Option<String>) -> Setup {
        let base = match (&config.public_url, address) {
            (Some(url), _) => Some(url.as_str().to_owned()),
            (None, Some(address)) => local_url(address),
            (None, None) => None,
        };
        let below = |base: &str, path: &str| format!("{}{path}", base.trim_end_matches('/'));
        let is_https = |base: &&String| base.starts_with("https://");
        Setup {
            state_dir: config.state_dir.clone(),
            address: address.map(str::to_owned),
            redirect_uri: base.as_ref().map(|base| below(base, CALLBACK_PATH)),
            client_document_url: base
                .as_ref()
                .filter(is_https)
                .map(|base| below(base, CLIENT_DOCUMENT_PATH)),
            browser: browser.filter(|it| !it.trim().is_empty()),
            patience: config.limits.parked,
        }
    }
}

impl Setup {
    /// That of the same gateway with another configuration.
    #[must_use]
    fn following(&self, config: &Config) -> Setup {
        Setup::of(config, self.address.as_deref(), self.browser.clone())
    }
}

/// The URL by which a browser on this machine reaches an address that is listened on.
fn local_url(address: &str) -> Option<String> {
    let address: SocketAddr = address.parse().ok()?;
    let host = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip @ (IpAddr::V4(_) | IpAddr::V6(_)) => ip,
    };
    Some(format!("http://{}", SocketAddr::new(host, address.port())))
}

/// The owner of credentials at a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Owner {
    /// The gateway: one sign-in serves all clients.
    Gateway,
    /// One user, by a digest of the server and the principal.
    User(CredentialsId),
}

/// A sign-in that has begun: the page to open.
#[derive(Debug, Clone)]
pub struct BegunSignIn {
    /// The authorization server's page, for the browser of the person who signs in.
    pub url: String,
    /// The `state` in that URL, which the callback brings back.
    pub state: String,
    /// When the sign-in is forgotten, if it was not finished.
    pub until: SystemTime,
}

/// A sign-in that is finished: access tokens for the server are there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FinishedSignIn {
    /// The server.
    pub server: ServerName,
    /// Whose credentials they are.
    pub owner: Owner,
}

/// How the sign-in at a server is at present.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SignInStatus {
    /// No access token is known, and the server has not asked for one.
    Unknown,
    /// There is an access token.
    SignedIn {
        /// When it ends, if the authorization server has said so. It is renewed before that, if
        /// it can be.
        until: Option<SystemTime>,
        /// The issuer of the token.
        issuer: String,
        /// The scopes that were asked for or granted, with spaces between them.
        scopes: String,
    },
    /// A person must sign in.
    NeedsSignIn {
        /// Why, without secrets: for logs and `/status`.
        why: String,
    },
    /// A person is signing in.
    UnderWay {
        /// When that is given up.
        until: SystemTime,
    },
    /// An access token cannot be had at present, although nobody has to sign in.
    Failing {
        /// Why, without secrets.
        why: String,
    },
}

impl SignInStatus {
    /// The word for `/status`.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::SignedIn { .. } => "signed_in",
            Self::NeedsSignIn { .. } => "needed",
            Self::UnderWay { .. } => "under_way",
            Self::Failing { .. } => "failing",
        }
    }

    /// When the access token ends, if there is one whose end is known.
    pub fn signed_in_until(&self) -> Option<SystemTime> {
        match self {
            Self::SignedIn { until, .. } => *until,
            Self::Unknown
            | Self::NeedsSignIn { .. }
            | Self::UnderWay { .. }
            | Self::Failing { .. } => None,
        }
    }
}

/// Why a sign-in, or a step of it, failed. The texts hold no secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SignInError {
    /// The answer at the callback belongs to no sign-in that is under way: it is late, was used
    /// before, or is forged.
    UnknownState,
    /// The person, or the authorization server, has refused; the text says why.
    Refused(String),
    /// The server, its authorization server or the configuration does not allow it, or failed.
    Failed(String),
    /// The wait ended first.
    Interrupted(Interrupted),
}

impl fmt::Display for SignInError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownState => f.write_str(
                "this answer belongs to no sign-in that is under way: it may be too late, or may \
                 have been used already",
            ),
            Self::Refused(what) | Self::Failed(what) => f.write_str(what),
            Self::Interrupted(Interrupted::Deadline) => f.write_str("it took too long"),
            Self::Interrupted(
                Interrupted::Cancelled | Interrupted::ClientGone,
            ) => f.write_str("it was cancelled"),
            Self::Interrupted(Interrupted::Stopping | Interrupted::Retired) => {
                f.write_str("the gateway is stopping")
            }
        }
    }
}

impl std::error::Error for SignInError {}
