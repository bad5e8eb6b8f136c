//! The ways of clients to the gateway: to an address, or as one client on standard input; and the
//! admission of clients by the configuration.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::Sender;

use crate::access::authenticate::KnownKey;
use crate::access::glob::ToolGlobs;
use crate::access::origin::{HostCheck, Origins};
use crate::access::policy::{Policy, Principal};
use crate::access::proxies::TrustedProxies;
use crate::config::{ApiKey, Config, Listen, Naming};
use crate::downstream::stdio::{Host, LineClient};
use crate::downstream::{AdminListener, Admission, Front};
use crate::http::{self, Budget, Inherited, PassedOn, Running, Server};
use crate::limits::{ADMIN_CONNECTIONS_MAX, Limits};
use crate::resource_server::ResourceServer;
use crate::thread::StopReason;

/// The way by which clients come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clients {
    /// Over HTTP, to the address of the configuration.
    OverHttp,
    /// As one client, whose lines are given to [`crate::gateway::Gateway::line_client`]. Another
    /// gateway may have the same `state_dir`.
    OneOfLines,
    /// As `OneOfLines`, for a few requests: nothing is written to `state_dir`.
    OneOfFewLines,
}

impl Clients {
    /// The program that writes the lines, for clients of lines.
    pub(crate) fn host(self) -> Host {
        match self {
            Self::OverHttp | Self::OneOfLines => Host::Other,
            Self::OneOfFewLines => Host::Command,
        }
    }
}

/// The running server of clients.
#[derive(Debug)]
pub(crate) enum Serving {
    /// A listener.
    Http(Arc<Running>),
    /// One client.
    Lines(Arc<LineClient>),
}

impl Serving {
    /// The way by which its clients come, as far as a gateway goes on that reads its configuration
    /// again: one for a few requests does not.
    pub(crate) fn clients(&self) -> Clients {
        match self {
            Self::Http(_) => Clients::OverHttp,
            Self::Lines(_) => Clients::OneOfLines,
        }
    }

    /// Waits until no request is in work. True if none is.
    pub(crate) fn drain(&self, deadline: Instant) -> bool {
        match self {
            Self::Http(running) => running.drain(deadline),
            Self::Lines(client) => client.drain(deadline),
        }
    }

    /// Takes no more connections, since another process does.
    pub(crate) fn leave(&self) {
        match self {
            Self::Http(running) => running.leave(),
            Self::Lines(_) => (),
        }
    }

    /// Waits until no client is left. True if none is.
    pub(crate) fn wait_empty(&self, deadline: Instant) -> bool {
        match self {
            Self::Http(running) => running.wait_empty(deadline),
            Self::Lines(client) => client.drain(deadline),
        }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        match self {
            // The server ends with the last of its handles.
            Self::Http(_) => (),
            Self::Lines(client) => client.end(),
        }
    }
}

/// The bound addresses, before connections are accepted.
pub(crate) struct Bound {
    /// The server of `listen`; none where there is one client of lines.
    server: Option<Server>,
    /// The server of `admin_listen`.
    admin: Option<Server>,
    /// The bytes that may be held at once of requests and answers.
    pub(crate) budget: Budget,
}

impl Bound {
    /// The address that is listened on, as text, if there is one.
    pub(crate) fn address(&self) -> Option<String> {
        self.server.as_ref().map(Server::local_addr_text)
    }

    /// The listening socket, for another process.
    ///
    /// # Errors
    /// The system gives no descriptor.
    pub(crate) fn pass_on(&self) -> io::Result<Option<PassedOn>> {
        Ok(self.server.as_ref().map(Server::pass_on).transpose()?.flatten())
    }

    /// The socket of `admin_listen`, for another process.
    ///
    /// # Errors
    /// As [`Bound::pass_on`].
    pub(crate) fn pass_admin_on(&self) -> io::Result<Option<PassedOn>> {
        Ok(self.admin.as_ref().map(Server::pass_on).transpose()?.flatten())
    }

    /// Begins to accept connections, on `admin_listen` first.
    ///
    /// # Errors
    /// The system refuses threads or descriptors.
    pub(crate) fn serve(
        self,
        config: &Config,
        clients: Clients,
        front: &Arc<Front>,
        stop: Sender<StopReason>,
    ) -> io::Result<(Serving, Option<Running>)> {
        let admin = self.admin.map(|server| serve_admin(server, config, front, &stop));
        let admin = admin.transpose()?;
        let Some(server) = self.server else {
            let client = LineClient::new(front.clone(), clients.host());
            return Ok((Serving::Lines(Arc::new(client)), admin));
        };
        let address = server.local_addr_text();
        let running = Arc::new(server.start(front.clone(), stop)?);
        // The reference is weak, because the engine holds its handler.
        front.engine.get_or_init(|| Arc::downgrade(&running));
        let scheme = if address.starts_with("unix:") { "" } else { "http://" };
        log::info!("listening on {scheme}{address}");
        Ok((Serving::Http(running), admin))
    }
}

/// Binds the addresses to listen on, or takes their inherited sockets.
///
/// # Errors
/// An address cannot be bound.
pub(crate) fn bind(
    config: &Config,
    clients: Clients,
    inherited: Option<Inherited>,
    inherited_admin: Option<Inherited>,
) -> io::Result<Bound> {
    let limits = Arc::new(config.limits.clone());
    match clients {
        Clients::OverHttp => {
            let server = match inherited {
                Some(inherited) => Server::take(inherited, limits)?,
                None => Server::bind(&listen(&config.listen, config), limits)
                    .map_err(|error| where_else(&error, "\"listen\" or --listen ADDRESS"))?,
            };
            let budget = server.budget();
            let admin = bind_admin(config, inherited_admin)?;
            Ok(Bound { server: Some(server), admin, budget })
        }
        // The gateway that serves other clients has the addresses.
        Clients::OneOfLines | Clients::OneOfFewLines => {
            Ok(Bound { server: None, admin: None, budget: Budget::new(limits.buffered_bytes) })
        }
    }
}

/// Binds `admin_listen`, if it is configured; takes its socket, where that is inherited.
fn bind_admin(config: &Config, inherited: Option<Inherited>) -> io::Result<Option<Server>> {
    let Some(at) = &config.admin_listen else { return Ok(None) };
    let limits =
        Arc::new(Limits { connections: ADMIN_CONNECTIONS_MAX, ..config.limits.clone() });
    match inherited.filter(|inherited| inherited.is_at(at)) {
        Some(inherited) => Server::take(inherited, limits).map(Some),
        None => Server::bind(&listen(at, config), limits)
            .map(Some)
            .map_err(|error| where_else(&error, "\"admin_listen\"")),
    }
}

/// Adds the key that names another address, where the address is in use.
fn where_else(error: &io::Error, key: &str) -> io::Error {
    let hint = if error.kind() == io::ErrorKind::AddrInUse {
        format!("; {key} names another address")
    } else {
        String::new()
    };
    io::Error::new(error.kind(), format!("{error}{hint}"))
}

fn serve_admin(
    server: Server,
    config: &Config,
    front: &Arc<Front>,
    stop: &Sender<StopReason>,
) -> io::Result<Running> {
    let is_local = config.admin_listen.as_ref().is_some_and(Listen::is_local);
    log::info!("metrics and status at {}", server.local_addr_text());
    server.start(Arc::new(AdminListener::new(front.clone(), is_local)), stop.clone())
}

fn listen(at: &Listen, config: &Config) -> http::Listen {
    match at {
        Listen::Tcp(address) => http::Listen::Tcp(*address),
        Listen::Unix(path) => http::Listen::Unix {
            path: path.clone(),
            mode: config.socket_mode,
            group: config.socket_group.clone(),
        },
    }
}

/// The admission of clients by a configuration.
///
/// # Errors
/// The system refuses the thread that reads issuers' keys.
pub(crate) fn admission(config: &Config, tokens: &ResourceServer) -> io::Result<Admission> {
    let verifier = config.oauth.as_ref();
    let verifier =
        verifier.map(|oauth| tokens.verifier(oauth, &config.naming.owners)).transpose()?;
    Ok(Admission {
        origins: origins(config),
        proxies: TrustedProxies::new(config.trusted_proxies.clone()),
        prefix: config.public_url.as_ref().map_or_else(String::new, |it| it.path().to_owned()),
        public_url: config.public_url.clone(),
        address: match &config.listen {
            Listen::Tcp(it) if it.port() != 0 && !it.ip().is_unspecified() => {
                Some(it.to_string())
            }
            Listen::Tcp(_) | Listen::Unix(_) => None,
        },
        keys: config.api_keys.iter().map(|key| known_key(key, &config.naming)).collect(),
        verifier,
        transports: config.transports,
        tolerance: config.tolerance,
        generation: 0,
    })
}

fn known_key(key: &ApiKey, naming: &Naming) -> KnownKey {
    let policy = Policy {
        servers: key.servers.clone(),
        tools: ToolGlobs::new(key.tools.as_deref().unwrap_or_default(), &naming.owners),
    };
    let name: Option<Arc<str>> = Some(key.name.as_str().into());
    let (id, is_admin) = (name.clone(), key.admin);
    let principal = Principal { name, id, policy, is_admin, key: Some(key.sha256), user: None };
    KnownKey { sha256: key.sha256, principal: Arc::new(principal) }
}

fn origins(config: &Config) -> Origins {
    let mut hosts = config.allowed_hosts.clone().unwrap_or_default();
    hosts.extend(config.public_url.as_ref().map(|it| it.authority().to_owned()));
    let is_told = config.allowed_hosts.is_some();
    let check_host = match &config.listen {
        Listen::Tcp(address) => {
            if !address.ip().is_unspecified() {
                hosts.push(address.to_string());
            }
            // A page under a name that was bound to this address has no key: the check is against
            // a page that reads and calls without one.
            let is_anonymous = config.allow_anonymous && !config.wants_credentials();
            match (config.listen.is_local(), is_anonymous) {
                (true, _) => HostCheck::Names,
                (false, true) => HostCheck::NamesOrAddresses,
                (false, false) if is_told => HostCheck::Names,
                (false, false) => HostCheck::Off,
            }
        }
        // No page reaches a Unix socket.
        Listen::Unix(_) if is_told => HostCheck::Names,
        Listen::Unix(_) => HostCheck::Off,
    };
    Origins { check_host, hosts, origins: config.allowed_origins.clone() }
}
