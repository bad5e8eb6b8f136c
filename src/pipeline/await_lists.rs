//! A request may ask for what no list has yet: its server makes first contact, or reads its list
//! again. It waits here for the next snapshot, on its own wait, and holds no slot meanwhile.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::route::{Asked, Route};
use super::{Pipeline, Wish};
use crate::access::policy::Scope;
use crate::catalogue::name::split_server;
use crate::catalogue::{Catalogue, Health, Server};
use crate::error::{Allowed, CallError, Stage};
use crate::limits::LIST_REREAD_TIMEOUT;
use crate::protocol::call::{Call, Kind};
use crate::protocol::method::Method;
use crate::protocol::server_name::ServerName;
use crate::upstream::Upstream;
use crate::wait::{Interrupted, Wait, Woken};

/// One request's search for what it asks for.
struct Search<'a> {
    scope: &'a Scope,
    /// The only server that may have it, where the request says so.
    server: Option<ServerName>,
    asked: Asked,
    began: Instant,
    /// A shorter time than the upstreams' own.
    timeout: Option<Duration>,
    /// Lists that are read again, and when the reading begins at the earliest that can bring it.
    awaited: Vec<(ServerName, Kind, Option<Instant>)>,
}

/// What a search still waits for.
#[derive(Default)]
struct Pending {
    servers: Vec<ServerName>,
    /// When the last of them is waited for no more.
    until: Option<Instant>,
    /// The first of those that were waited for as long as may be and have not answered yet.
    starting: Option<CallError>,
}

impl Pipeline {
    /// [`Pipeline::route`] for a request that can wait. Where what it asks for is unknown, it waits
    /// for the servers that it may belong to: for first contact as long as a call to them may
    /// take, for a list that is read again [`LIST_REREAD_TIMEOUT`] at most. `silence` is called
    /// when nothing has happened for a while.
    ///
    /// # Errors
    /// As [`Pipeline::route`], or the wait was ended.
    pub(super) fn find(
        &self,
        scope: &Scope,
        wish: Wish<'_>,
        call: &Call<'_>,
        wait: &Arc<Wait>,
        silence: &mut dyn FnMut(),
    ) -> Result<Route, CallError> {
        match self.route(scope, wish, call) {
            Err(error) if may_come(&error) => {
                let found = self.search(scope, wish, call, error, wait, silence);
                found.map_err(|error| of_reference(call, error))
            }
            found => found,
        }
    }

    fn search(
        &self,
        scope: &Scope,
        wish: Wish<'_>,
        call: &Call<'_>,
        mut error: CallError,
        wait: &Arc<Wait>,
        silence: &mut dyn FnMut(),
    ) -> Result<Route, CallError> {
        let Some(asked) = Asked::of(call) else { return Err(error) };
        let server = match wish.server {
            Some(server) => Some(self.server(scope, server)?),
            None => scope.only.clone(),
        };
        let Some(_place) = self.catalogue.waiting().enter(wait) else { return Err(error) };
        let (began, timeout, awaited) = (Instant::now(), wish.timeout, Vec::new());
        let mut search = Search { scope, server, asked, began, timeout, awaited };
        // None: what is known may be of after the look that failed, and before the place.
        let mut before = None;
        let mut heard = began;
        loop {
            let now = Instant::now();
            let pending = self.pending(&mut search, now);
            if before.as_ref() != Some(&pending.servers) {
                // What comes comes with a snapshot after which its server is waited for no more.
                match self.route(scope, wish, call) {
                    Err(newer) if may_come(&newer) => error = newer,
                    found => {
                        self.note_found(&search, &found);
                        return found;
                    }
                }
                heard = now;
            }
            let Some(until) = pending.until else {
                return Err(pending.starting.unwrap_or(error));
            };
            before = Some(pending.servers);
            let until = until.min(heard + self.heartbeat);
            match wait.until(None, Some(until.saturating_duration_since(now))) {
                Ok(Woken::Bell | Woken::Ready) => (),
                Ok(Woken::Tick) => {
                    if heard.elapsed() >= self.heartbeat {
                        silence();
                        heard = Instant::now();
                    }
                }
                Err(Interrupted::Cancelled | Interrupted::ClientGone) => {
                    return Err(CallError::Cancelled);
                }
                Err(Interrupted::Stopping) => return Err(CallError::ShuttingDown),
                Err(Interrupted::Deadline | Interrupted::Retired) => return Err(error),
            }
        }
    }

    /// What the search still waits for. A list that may have changed unheard is read again.
    fn pending(&self, search: &mut Search<'_>, now: Instant) -> Pending {
        let mut pending = Pending::default();
        let catalogue = self.catalogue.current();
        for (name, server) in search.candidates(&catalogue) {
            let Some(upstream) = self.upstreams.get(name) else { continue };
            let until = match server.health {
                Health::Connecting => search.patience(&upstream),
                Health::Well if search.is_reading(&upstream, server) => {
                    search.began + LIST_REREAD_TIMEOUT
                }
                Health::Well | Health::Failed { .. } => continue,
            };
            if now < until {
                pending.servers.push(name.clone());
                pending.until = pending.until.max(Some(until));
            } else if server.health == Health::Connecting {
                let allowed = search.allowed(&upstream);
                pending.starting.get_or_insert(still_starting(name, server, Some(allowed)));
            }
        }
        pending
    }

    /// What was read again has brought what was asked for.
    fn note_found(&self, search: &Search<'_>, found: &Result<Route, CallError>) {
        let Ok(route) = found else { return };
        for (name, kind, since) in &search.awaited {
            if *name == route.server
                && since.is_some()
                && let Some(upstream) = self.upstreams.get(name)
            {
                upstream.list_brought(*kind);
            }
        }
    }
}

impl Search<'_> {
    /// The servers that what is asked for may belong to.
    fn candidates<'a>(&self, catalogue: &'a Catalogue) -> Vec<(&'a ServerName, &'a Server)> {
        let owner = match (&self.server, self.asked.kind) {
            (Some(server), _) => Some(server),
            (None, Kind::Tool | Kind::Prompt) => catalogue.owners.of(&self.asked.name),
            (None, Kind::Resource | Kind::Template) => split_server(&self.asked.name)
                .and_then(|(server, _)| catalogue.owners.server(server)),
        };
        let may_have = |name: &ServerName, server: &Server| {
            owner.is_none_or(|owner| owner == name)
                && self.scope.sees_server(name)
                && server.has(self.asked.kind.capability())
                && self.may_use(catalogue, name)
        };
        catalogue.servers.iter().filter(|(name, server)| may_have(name, server)).collect()
    }

    /// Whether the caller could use it if that server had it: what is hidden from it is as
    /// unknown to it as what is not there.
    fn may_use(&self, catalogue: &Catalogue, name: &ServerName) -> bool {
        if self.asked.kind != Kind::Tool {
            return true;
        }
        let sees = |own: &str| {
            let qualified = format!("{name}{}{own}", catalogue.separator);
            self.scope.sees_tool(name, own, &qualified)
        };
        let asked = self.asked.name.as_str();
        sees(asked) || catalogue.owners.rests(name, asked).any(sees)
    }

    /// Whether a list of that server which may bring what is asked for is to be read.
    fn is_reading(&mut self, upstream: &Upstream, server: &Server) -> bool {
        let kinds: &[Kind] = match self.asked.kind {
            Kind::Tool => &[Kind::Tool],
            Kind::Prompt => &[Kind::Prompt],
            Kind::Resource | Kind::Template => &[Kind::Resource, Kind::Template],
        };
        let mut is_reading = false;
        for kind in kinds.iter().copied() {
            let read = server.asked.get(&kind).copied();
            if read >= Some(self.began) {
                continue;
            }
            let is_it = |(name, of, _): &&mut (ServerName, Kind, Option<Instant>)| {
                name == upstream.name() && *of == kind
            };
            let since = match self.awaited.iter_mut().find(is_it) {
                Some((_, _, since)) => {
                    // What was read began before this request came, and may have missed it.
                    if since.is_some_and(|since| read >= Some(since)) {
                        *since = upstream.want_list(kind, read);
                    }
                    *since
                }
                None => {
                    let since = upstream.want_list(kind, read);
                    self.awaited.push((upstream.name().clone(), kind, since));
                    since
                }
            };
            is_reading |= since.is_some_and(|since| read < Some(since));
        }
        is_reading
    }

    fn allowed(&self, upstream: &Upstream) -> Allowed {
        let own = upstream.config().timeout;
        match self.timeout.filter(|timeout| *timeout < own) {
            Some(time) => Allowed { time, by: "the caller's timeout_ms" },
            None => Allowed { time: own, by: "its timeout_ms" },
        }
    }

    /// When first contact is waited for no more.
    fn patience(&self, upstream: &Upstream) -> Instant {
        self.began + self.allowed(upstream).time
    }
}

/// Of a completion it is the reference that is wrong, and no resource that is missing.
fn of_reference(call: &Call<'_>, error: CallError) -> CallError {
    if call.method == Method::CompletionComplete
        && let CallError::Unknown { kind: Kind::Resource | Kind::Template, name, .. } = &error
    {
        return CallError::Invalid(format!("There is no resource or template {name:?}."));
    }
    error
}

/// Whether what was not found may be there soon.
fn may_come(error: &CallError) -> bool {
    match error {
        CallError::Unknown { .. } => true,
        CallError::UpstreamTimeout { starting, .. } => starting.is_some(),
        CallError::Invalid(_)
        | CallError::UnknownServer { .. }
        | CallError::Ambiguous { .. }
        | CallError::RateLimited { .. }
        | CallError::Withheld { .. }
        | CallError::UpstreamFailed { .. }
        | CallError::UpstreamDown { .. }
        | CallError::Overloaded { .. }
        | CallError::ShuttingDown
        | CallError::Cancelled
        | CallError::Internal => false,
    }
}

/// The error of a call to a server that has not answered since the start.
pub(super) fn still_starting(
    name: &ServerName,
    server: &Server,
    allowed: Option<Allowed>,
) -> CallError {
    CallError::UpstreamTimeout {
        server: name.clone(),
        stage: Stage::Handshake,
        allowed,
        starting: Some(server.connecting_since.elapsed()),
        may_have_run: false,
    }
}
