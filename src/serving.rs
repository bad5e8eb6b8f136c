//! How clients come to the gateway: to an address, or as the one client of its standard input; and
//! which of them are admitted.

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
use crate::thread::StopReason;

/// How clients come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clients {
    /// Over HTTP, to the address of the configuration.
    OverHttp,
    /// There is one, and its lines are given to [`crate::gateway::Gateway::line_client`]. Another gateway may have
    /// the same `state_dir`.
    OneOfLines,
    /// The same, for a few requests: nothing is written to `state_dir`.
    OneOfFewLines,
}

impl Clients {
    /// Who writes the lines, where there are lines.
    pub(crate) fn host(self) -> Host {
        match self {
            Self::OverHttp | Self::OneOfLines => Host::Other,
            Self::OneOfFewLines => Host::Command,
        }
    }
}

/// What serves them.
#[derive(Debug)]
pub(crate) enum Serving {
    /// A listener.
    Http(Arc<Running>),
    /// One client.
    Lines(Arc<LineClient>),
}

impl Serving {
    /// Waits until nothing is in work. True where that is so.
    pub(crate) fn drain(&self, deadline: Instant) -> bool {
        match self {
            Self::Http(running) => running.drain(deadline),
            Self::Lines(client) => client.drain(deadline),
        }
    }

    /// Takes no more connections: another process does.
    pub(crate) fn leave(&self) {
        match self {
            Self::Http(running) => running.leave(),
            Self::Lines(_) => (),
        }
    }

    /// Waits until there is no client left. True where that is so.
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
            // It ends with the last of its handles.
            Self::Http(_) => (),
            Self::Lines(client) => client.end(),
        }
    }
}

/// The addresses that are taken, before anybody answers there.
pub(crate) struct Bound {
    /// None where there is one client of lines.
    server: Option<Server>,
    /// That of `admin_listen`.
    admin: Option<Server>,
    /// What may be held at once of what comes in and goes out.
    pub(crate) budget: Budget,
}

impl Bound {
    /// The listening socket, to be handed to another process.
    ///
    /// # Errors
    /// The system gives no descriptor.
    pub(crate) fn pass_on(&self) -> io::Result<Option<PassedOn>> {
        Ok(self.server.as_ref().map(Server::pass_on).transpose()?.flatten())
    }

    /// The same of `admin_listen`.
    ///
    /// # Errors
    /// As [`Bound::pass_on`].
    pub(crate) fn pass_admin_on(&self) -> io::Result<Option<PassedOn>> {
        Ok(self.admin.as_ref().map(Server::pass_on).transpose()?.flatten())
    }

    /// Begins to accept connections, those of operators first.
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
        // Weak, because the engine holds its handler.
        front.engine.get_or_init(|| Arc::downgrade(&running));
        let scheme = if address.starts_with("unix:") { "" } else { "http://" };
        log::info!("listening on {scheme}{address}");
        Ok((Serving::Http(running), admin))
    }
}

/// Takes the addresses that there are to listen on, or the sockets of them that are inherited.
///
/// # Errors
/// An address cannot be had.
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
        // The gateway that serves others has the addresses.
        Clients::OneOfLines | Clients::OneOfFewLines => {
            Ok(Bound { server: None, admin: None, budget: Budget::new(limits.buffered_bytes) })
        }
    }
}

/// Takes `admin_listen`, if it is configured; where that address is inherited, its socket.
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

/// What says that the gateway is to listen elsewhere, where somebody else listens already.
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

/// Who is admitted, and where, by a configuration.
pub(crate) fn admission(config: &Config) -> Admission {
    Admission {
        origins: origins(config),
        proxies: TrustedProxies::new(config.trusted_proxies.clone()),
        prefix: config.public_url.as_ref().map_or_else(String::new, |it| it.path().to_owned()),
        keys: config.api_keys.iter().map(|key| known_key(key, &config.naming)).collect(),
        transports: config.transports,
        tolerance: config.tolerance,
        generation: 0,
    }
}

fn known_key(key: &ApiKey, naming: &Naming) -> KnownKey {
    let policy = Policy {
        servers: key.servers.clone(),
        tools: ToolGlobs::new(key.tools.as_deref().unwrap_or_default(), &naming.owners),
    };
    let name = Some(key.name.as_str().into());
    let principal = Principal { name, policy, is_admin: key.admin };
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
            // A page of a name that was bound to this address has no key: the check is against
            // what reads and calls without one.
            let is_anonymous = config.allow_anonymous && config.api_keys.is_empty();
            match (config.listen.is_local(), is_anonymous) {
                (true, _) => HostCheck::Names,
                (false, true) => HostCheck::NamesOrAddresses,
                (false, false) if is_told => HostCheck::Names,
                (false, false) => HostCheck::Off,
            }
        }
        // No page reaches it.
        Listen::Unix(_) if is_told => HostCheck::Names,
        Listen::Unix(_) => HostCheck::Off,
    };
    Origins { check_host, hosts, origins: config.allowed_origins.clone() }
}
