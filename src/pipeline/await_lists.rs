//! The wait of a request for an item that no list has yet, because its server makes first
//! contact, or reads its list again. The request waits for the next snapshot, on its own wait,
//! and holds no permit of a server.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::route::{Claim, Route, Wanted, still_starting};
use super::users::own_id;
use super::{CallOptions, Pipeline};
use crate::access::policy::Scope;
use crate::catalogue::{Catalogue, Health, Server};
use crate::error::{Allowed, CallError, Stage};
use crate::limits::{CREDENTIALS_LOOK_INTERVAL, LIST_REREAD_TIMEOUT};
use crate::protocol::call::{Call, Kind};
use crate::protocol::method::Method;
use crate::protocol::server_name::ServerName;
use crate::upstream::Upstream;
use crate::wait::{Interrupted, Wait, Woken};

/// One request's search for its item.
struct Search<'a> {
    scope: &'a Scope,
    /// The only server that may have the item, where the request names it.
    server: Option<ServerName>,
    asked: Wanted,
    began: Instant,
    /// The request's own time limit, shorter than the servers'.
    timeout: Option<Duration>,
    /// Lists that are read again, each with the earliest beginning of a reading that can bring
    /// the item.
    awaited: Vec<(ServerName, Kind, Option<Instant>)>,
}

/// The servers that a search still waits for.
#[derive(Default)]
struct Pending {
    /// The time at which the wait for the last of these servers ends; none where there is none.
    until: Option<Instant>,
    /// The error of the first server for which the wait is over, and which has not answered yet.
    starting: Option<CallError>,
}

/// The end of one wait for news.
#[derive(Clone, Copy, PartialEq, Eq)]
enum News {
    /// The catalogue has rung the bell.
    Rang,
    /// The time of this wait is over.
    TimeIsUp,
    /// The request may wait no longer.
    WaitIsOver,
}

/// Waits until the catalogue rings, or until `until`.
///
/// # Errors
/// The client no longer wants the answer, or the process stops.
fn await_news(wait: &Wait, until: Instant) -> Result<News, CallError> {
    match wait.until(None, Some(until.saturating_duration_since(Instant::now()))) {
        Ok(Woken::Bell | Woken::Ready) => Ok(News::Rang),
        Ok(Woken::Tick) => Ok(News::TimeIsUp),
        Err(Interrupted::Cancelled | Interrupted::ClientGone) => Err(CallError::Cancelled),
        Err(Interrupted::Stopping) => Err(CallError::ShuttingDown),
        Err(Interrupted::Deadline | Interrupted::Retired) => Ok(News::WaitIsOver),
    }
}

impl Pipeline {
    /// [`Pipeline::route`] for a request that can wait. If the item is unknown, the request waits
    /// for the servers that may have it: for first contact as long as a call to them may take,
    /// for a list that is read again [`LIST_REREAD_TIMEOUT`] at most. If a server in its first
    /// contact could still own the name or make it ambiguous, the request waits for that server
    /// as long. For an item of a server that withholds changes, it waits until the server's lists
    /// since the start are compared with the pins.
    ///
    /// # Errors
    /// As [`Pipeline::route`], or the wait was ended.
    pub(super) fn find(
        &self,
        scope: &Scope,
        options: CallOptions<'_>,
        call: &Call<'_>,
        wait: &Arc<Wait>,
    ) -> Result<Route, CallError> {
        let found = match self.route(scope, options, call, Some(wait)) {
            found if is_open(&found) => {
                let found = self.search(scope, options, call, found, wait);
                found.map_err(|error| of_reference(call, error))
            }
            found => found,
        };
        match found {
            Ok(route) if self.is_unverified(&route, call) => {
                self.verify(scope, &route, (call, options.timeout), wait)?;
                if self.is_unverified(&route, call) {
                    return Err(self.unverified(&route, options.timeout));
                }
                self.route(scope, options, call, Some(wait))
            }
            found => found,
        }
    }

    /// Waits for the lists that are to be compared with pins, as long as a call may take.
    fn verify(
        &self,
        scope: &Scope,
        route: &Route,
        (call, timeout): (&Call<'_>, Option<Duration>),
        wait: &Arc<Wait>,
    ) -> Result<(), CallError> {
        let Some(upstream) = self.upstreams.get(&route.server) else { return Ok(()) };
        let Some(_place) = self.catalogue.waiting().enter(scope.charged.as_ref(), wait) else {
            return Ok(());
        };
        let until = Instant::now() + allowed(&upstream, timeout).time;
        while self.is_unverified(route, call) && Instant::now() < until {
            if await_news(wait, until)? == News::WaitIsOver {
                break;
            }
        }
        Ok(())
    }

    /// The error of a call whose wait for its server's present list ended too soon.
    fn unverified(&self, route: &Route, timeout: Option<Duration>) -> CallError {
        let catalogue = self.catalogue.current();
        let server = catalogue.servers.get(&route.server).cloned().unwrap_or_default();
        let upstream = self.upstreams.get(&route.server);
        let allowed = upstream.map(|upstream| allowed(&upstream, timeout));
        still_starting(&route.server, &server, allowed)
    }

    /// True if the item stands in a list of an earlier process, its server withholds changes, and
    /// the server's present list is still to come.
    fn is_unverified(&self, route: &Route, call: &Call<'_>) -> bool {
        let catalogue = self.catalogue.current();
        let (Some(asked), Some(server)) =
            (Wanted::of(call), catalogue.servers.get(&route.server))
        else {
            return false;
        };
        let withholds = server.pinned.as_ref().is_some_and(|it| it.pin.withholds());
        withholds
            && lists_of(asked.kind).iter().any(|kind| {
                let is_to_come = match server.health {
                    Health::Connecting => true,
                    Health::Well => !server.asked.contains_key(kind),
                    Health::Failed { .. } => false,
                };
                server.stale.contains(kind) && is_to_come
            })
    }

    fn search(
        &self,
        scope: &Scope,
        options: CallOptions<'_>,
        call: &Call<'_>,
        mut found: Result<Route, CallError>,
        wait: &Arc<Wait>,
    ) -> Result<Route, CallError> {
        let Some(mut search) = self.search_of(scope, options, call)? else { return found };
        // Most items that are found cannot belong to another server; such a request takes no
        // place.
        if let Ok(route) = &found
            && !self.has_rivals(&search, route)
        {
            return found;
        }
        let Some(_place) = self.catalogue.waiting().enter(scope.charged.as_ref(), wait) else {
            return found;
        };
        // None at first: the first search may have used a snapshot from before the place was
        // taken.
        let mut before: Option<Arc<Catalogue>> = None;
        loop {
            let (now, catalogue) = (Instant::now(), self.catalogue.current());
            if !before.as_ref().is_some_and(|before| Arc::ptr_eq(before, &catalogue)) {
                found = self.route(scope, options, call, Some(wait));
                if !is_open(&found) {
                    self.note_found(&search, &found);
                    return found;
                }
            }
            // `pending` uses the snapshot from before the search: a later one rings the bell.
            let pending = match &found {
                Ok(route) => self.rivals(&search, &catalogue, route, now),
                Err(_) => self.pending(&mut search, &catalogue, now),
            };
            let Some(until) = pending.until else {
                self.note_found(&search, &found);
                return found.map_err(|error| pending.starting.unwrap_or(error));
            };
            before = Some(catalogue);
            match await_news(wait, until)? {
                // A view that only some clients see may have come too.
                News::Rang => before = None,
                News::TimeIsUp => (),
                News::WaitIsOver => return found,
            }
        }
    }

    /// None where the call asks for no listed item.
    fn search_of<'a>(
        &self,
        scope: &'a Scope,
        options: CallOptions<'_>,
        call: &Call<'_>,
    ) -> Result<Option<Search<'a>>, CallError> {
        let Some(asked) = Wanted::of(call) else { return Ok(None) };
        let server = match options.server {
            Some(server) => Some(self.server(scope, server)?),
            None => scope.only.clone(),
        };
        let (began, timeout, awaited) = (Instant::now(), options.timeout, Vec::new());
        Ok(Some(Search { scope, server, asked, began, timeout, awaited }))
    }

    /// [`Pipeline::route`] where no server in its first contact can change it.
    pub(super) fn route_for_good(
        &self,
        scope: &Scope,
        options: CallOptions<'_>,
        call: &Call<'_>,
    ) -> Option<Route> {
        let route = self.route(scope, options, call, None).ok()?;
        if self.is_unverified(&route, call) {
            return None;
        }
        if route.claim == Claim::Owned {
            return Some(route);
        }
        let search = self.search_of(scope, options, call).ok()?;
        let has_rivals = search.is_some_and(|search| self.has_rivals(&search, &route));
        (!has_rivals).then_some(route)
    }

    fn has_rivals(&self, search: &Search<'_>, route: &Route) -> bool {
        let catalogue = self.catalogue.current();
        self.rivals(search, &catalogue, route, search.began).until.is_some()
    }

    /// The servers that the search still waits for. A list that may have changed unnoticed is
    /// read again.
    fn pending(&self, search: &mut Search<'_>, catalogue: &Catalogue, now: Instant) -> Pending {
        let mut pending = Pending::default();
        for (name, server) in search.candidates(catalogue) {
            let Some(upstream) = self.upstreams.get(name) else { continue };
            // Its user's lists were waited for, and its own supervisor does not read them.
            if own_id(search.scope, name).is_some() || upstream.config().is_per_user() {
                continue;
            }
            let until = match server.health {
                Health::Connecting => search.patience(&upstream),
                // What comes of it may be the same failure, of which no other snapshot tells.
                Health::Failed { stage: Stage::Authorization, .. }
                    if upstream.is_tried_after_sign_in() =>
                {
                    search.patience(&upstream).min(now + CREDENTIALS_LOOK_INTERVAL)
                }
                Health::Well if search.is_reading(&upstream, server) => {
                    search.began + LIST_REREAD_TIMEOUT
                }
                Health::Well | Health::Failed { .. } => continue,
            };
            if now < until {
                pending.until = pending.until.max(Some(until));
            } else if server.health == Health::Connecting {
                let allowed = search.allowed(&upstream);
                pending.starting.get_or_insert(still_starting(name, server, Some(allowed)));
            }
        }
        pending
    }

    /// The servers that have never listed, make first contact, and could have the found item too,
    /// so that its name would be theirs or ambiguous.
    fn rivals(
        &self,
        search: &Search<'_>,
        catalogue: &Catalogue,
        route: &Route,
        now: Instant,
    ) -> Pending {
        let mut pending = Pending::default();
        if search.server.is_some() {
            return pending;
        }
        for name in others(catalogue, route) {
            let Some(server) = catalogue.servers.get(name).filter(|it| is_first_contact(it))
            else {
                continue;
            };
            let Some(upstream) = self.upstreams.get(name) else { continue };
            // A server that hangs delays requests for others' names only so long, however many
            // there are.
            let timeout = upstream.config().timeout;
            let until = search.patience(&upstream).min(server.connecting_since + timeout);
            if search.may_have(catalogue, name, server) && now < until {
                pending.until = pending.until.max(Some(until));
            }
        }
        pending
    }

    /// Notes that a list that was read again has brought the item.
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
    /// The servers that may have the item.
    fn candidates<'a>(&self, catalogue: &'a Catalogue) -> Vec<(&'a ServerName, &'a Server)> {
        let owner = self.server.as_ref().or_else(|| {
            self.asked.owner(catalogue).filter(|owner| self.scope.sees_server(owner))
        });
        let is_its = |name: &ServerName| owner.is_none_or(|owner| owner == name);
        let servers = catalogue.servers.iter().filter(|(name, _)| is_its(name));
        servers.filter(|(name, server)| self.may_have(catalogue, name, server)).collect()
    }

    /// True if the scope could see the item at that server, if no other server owns it.
    fn may_have(&self, catalogue: &Catalogue, name: &ServerName, server: &Server) -> bool {
        self.scope.sees_server(name)
            && server.has(self.asked.kind.capability())
            && self.may_use(catalogue, name)
    }

    /// True if the caller could use the item if that server had it: an item that is hidden from a
    /// caller counts as unknown.
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

    /// True if a list of that server which may bring the item is to be read.
    fn is_reading(&mut self, upstream: &Upstream, server: &Server) -> bool {
        let mut is_reading = false;
        for kind in lists_of(self.asked.kind).iter().copied() {
            let read = server.asked.get(&kind).copied();
            if read >= Some(self.began) {
                continue;
            }
            let is_it = |(name, of, _): &&mut (ServerName, Kind, Option<Instant>)| {
                name == upstream.name() && *of == kind
            };
            let since = match self.awaited.iter_mut().find(is_it) {
                Some((_, _, since)) => {
                    // The reading began before this request came, and may have missed the item.
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
        allowed(upstream, self.timeout)
    }

    /// The time at which the wait for first contact ends.
    fn patience(&self, upstream: &Upstream) -> Instant {
        self.began + self.allowed(upstream).time
    }
}

/// The time that a call may take.
fn allowed(upstream: &Upstream, wished: Option<Duration>) -> Allowed {
    let own = upstream.config().timeout;
    match wished.filter(|timeout| *timeout < own) {
        Some(time) => Allowed { time, by: "the caller's timeout_ms" },
        None => Allowed { time: own, by: "its timeout_ms" },
    }
}

/// The lists that may have an item of that kind.
fn lists_of(kind: Kind) -> &'static [Kind] {
    match kind {
        Kind::Tool => &[Kind::Tool],
        Kind::Prompt => &[Kind::Prompt],
        Kind::Resource | Kind::Template => &[Kind::Resource, Kind::Template],
    }
}

/// The error for a completion whose prompt or template is unknown: its reference is wrong, and no
/// resource is missing.
fn of_reference(call: &Call<'_>, error: CallError) -> CallError {
    if call.method == Method::CompletionComplete
        && let CallError::Unknown { kind: Kind::Resource | Kind::Template, name, .. } = &error
    {
        return CallError::Invalid(format!("There is no resource or template {name:?}."));
    }
    error
}

/// True if another search may find something else.
fn is_open(found: &Result<Route, CallError>) -> bool {
    match found {
        Ok(route) => route.claim != Claim::Owned,
        Err(error) => may_come(error),
    }
}

/// True if a server's lists are not known, and may come soon.
fn is_first_contact(server: &Server) -> bool {
    // Its lists may be those of an earlier process.
    server.health == Health::Connecting && !server.has_answered && !server.is_stale()
}

/// The servers that would own the found name, or make it ambiguous, if they had the item too.
fn others<'a>(catalogue: &'a Catalogue, route: &Route) -> impl Iterator<Item = &'a ServerName> {
    let order = catalogue.order.as_slice();
    let is_it = |name: &ServerName| *name == route.server;
    let n_before = order.iter().position(is_it).unwrap_or(order.len());
    let n = match route.claim {
        Claim::Owned => 0,
        Claim::First => n_before,
        Claim::Only => order.len(),
    };
    order.iter().take(n).filter(move |name| !is_it(name))
}

/// True if the missing item may be there soon.
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
        | CallError::NeedsSignIn { .. }
        | CallError::UpstreamDown { .. }
        | CallError::Overloaded { .. }
        | CallError::ShuttingDown
        | CallError::Cancelled
        | CallError::Internal => false,
    }
}
