//! How clients come to the gateway: to an address, or as the one client of its standard input.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::Sender;

use crate::config::{Config, Listen};
use crate::downstream::stdio::{Host, LineClient};
use crate::downstream::{AdminListener, Front};
use crate::http::{self, Budget, Inherited, Running, Server};
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

/// Takes the address, or the socket that is inherited, where there is one to listen on.
pub(crate) fn bind(
    config: &Config,
    clients: Clients,
    inherited: Option<Inherited>,
    limits: &Arc<Limits>,
) -> io::Result<(Option<Server>, Budget)> {
    match clients {
        Clients::OverHttp => {
            let server = match inherited {
                Some(inherited) => Server::take(inherited, limits.clone())?,
                None => Server::bind(&listen(&config.listen, config), limits.clone())?,
            };
            let budget = server.budget();
            Ok((Some(server), budget))
        }
        Clients::OneOfLines | Clients::OneOfFewLines => {
            Ok((None, Budget::new(limits.buffered_bytes)))
        }
    }
}

/// Takes `admin_listen`, if it is configured; where that address is inherited, its socket.
pub(crate) fn bind_admin(
    config: &Config,
    clients: Clients,
    inherited: Option<Inherited>,
) -> io::Result<Option<Server>> {
    let at = match clients {
        Clients::OverHttp => config.admin_listen.as_ref(),
        // The gateway that serves others has it.
        Clients::OneOfLines | Clients::OneOfFewLines => None,
    };
    let Some(at) = at else { return Ok(None) };
    let limits =
        Arc::new(Limits { connections: ADMIN_CONNECTIONS_MAX, ..config.limits.clone() });
    match inherited.filter(|inherited| inherited.is_at(at)) {
        Some(inherited) => Server::take(inherited, limits).map(Some),
        None => Server::bind(&listen(at, config), limits).map(Some),
    }
}

/// Begins to answer there.
pub(crate) fn serve_admin(
    server: Server,
    config: &Config,
    front: &Arc<Front>,
    stop: &Sender<StopReason>,
) -> io::Result<Running> {
    let is_local = config.admin_listen.as_ref().is_some_and(Listen::is_local);
    log::info!("metrics and status at {}", server.local_addr_text());
    server.start(Arc::new(AdminListener::new(front.clone(), is_local)), stop.clone())
}

/// Begins to accept connections.
pub(crate) fn serve(
    server: Server,
    front: &Arc<Front>,
    stop: Sender<StopReason>,
) -> io::Result<Serving> {
    let address = server.local_addr_text();
    let running = Arc::new(server.start(front.clone(), stop)?);
    // Weak, because the engine holds its handler.
    front.engine.get_or_init(|| Arc::downgrade(&running));
    let scheme = if address.starts_with("unix:") { "" } else { "http://" };
    log::info!("listening on {scheme}{address}");
    Ok(Serving::Http(running))
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
