//! Lists, capabilities, instructions and status, as far as a scope sees them.

use std::sync::Arc;

use super::route::{Route, sees};
use super::users::own_id;
use super::{CallOptions, Clashes, Health, Item, Pipeline};
use crate::access::policy::Scope;
use crate::budget::{BUFFERED_BYTES_FULL, Exhausted};
use crate::catalogue::name::split_server;
use crate::catalogue::pages::Names;
use crate::catalogue::pins::Subject;
use crate::catalogue::{Server, Sight, Steps};
use crate::error::CallError;
use crate::limits::{PAGE_BYTES_MAX, RESULT_LINKS_STEPS_MAX};
use crate::protocol::call::{Call, Kind};
use crate::protocol::capabilities;
use crate::protocol::for_revision::Output;
use crate::protocol::legacy::Initialized;
use crate::protocol::modern::Freshness;
use crate::protocol::raw::Raw;
use crate::protocol::revision::Revision;
use crate::protocol::server_name::ServerName;
use crate::wait::Wait;

/// The items that a scope sees.
#[derive(Debug)]
pub struct ItemList {
    /// The items' kind.
    pub kind: Kind,
    /// The items, in this order.
    pub items: Vec<Arc<Item>>,
    /// The order of the items.
    pub order: Order,
    /// The names with which items are shown.
    pub names: Names,
    /// The state of each server in scope.
    pub servers: Vec<Listing>,
    /// The report of the gateway of `--url` on servers behind it that are not well: an array's
    /// text.
    pub unwell_behind: Option<String>,
}

/// The order of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Sorted by the names that are shown: several servers are in scope.
    ByName,
    /// The order of the one server that is in scope.
    OfServer,
}

/// The state of a server, beside its list.
#[derive(Debug)]
pub struct Listing {
    /// The server's NAME.
    pub server: ServerName,
    /// The alias, which replaces NAME in offered names.
    pub alias: Option<String>,
    /// The server's state.
    pub health: Health,
    /// True if its listed items are those that an earlier process knew.
    pub is_stale: bool,
}

impl ItemList {
    /// The index of the first item behind the one with the name `name`, which stood at
    /// `position`. If that item is gone, or others have come or gone before it, nothing shifts
    /// where names are sorted; else as little as possible.
    pub fn behind(&self, name: &str, position: usize) -> usize {
        if self.order == Order::ByName {
            return self.items.partition_point(|item| self.name(item) <= name);
        }
        let is_it = |item: &Arc<Item>| self.name(item) == name;
        if self.items.get(position).is_some_and(is_it) {
            return position + 1;
        }
        let found = self.items.iter().position(is_it);
        found.map_or(position, |at| at + 1).min(self.items.len())
    }

    /// An item's object as this list shows it.
    pub fn object<'a>(&self, item: &'a Item) -> &'a str {
        self.names.object(item)
    }

    /// An item's name as this list shows it.
    pub fn name<'a>(&self, item: &'a Item) -> &'a str {
        match self.names {
            Names::Offered => &item.offered,
            Names::Own | Names::WithServer => &item.own,
        }
    }

    /// The page that begins at `from`: at most `items_max` items, and at most [`PAGE_BYTES_MAX`]
    /// bytes unless it is one item.
    pub fn page(&self, from: usize, items_max: usize) -> &[Arc<Item>] {
        let rest = self.items.get(from..).unwrap_or_default();
        let mut bytes = 0;
        let fits = |item: &&Arc<Item>| {
            bytes += self.object(item).len();
            bytes <= PAGE_BYTES_MAX
        };
        let n_items = rest.iter().take(items_max).take_while(fits).count().max(1);
        rest.get(..n_items).unwrap_or(rest)
    }

    /// All pages, one after the other; one empty page where there are no items.
    pub fn pages(&self, items_max: usize) -> impl Iterator<Item = &[Arc<Item>]> {
        let mut next = Some(0);
        std::iter::from_fn(move || {
            let from = next?;
            let page = self.page(from, items_max);
            next = Some(from + page.len()).filter(|end| *end < self.items.len());
            Some(page)
        })
    }
}

impl Pipeline {
    /// The items that the scope sees, of one server (the one in `options`) or of all.
    ///
    /// # Errors
    /// The scope sees no such server.
    pub fn list(
        &self,
        scope: &Scope,
        options: CallOptions<'_>,
        kind: Kind,
    ) -> Result<ItemList, CallError> {
        let server = match options.server {
            Some(server) => Some(self.server(scope, server)?),
            None => None,
        };
        let wanted = |name: &ServerName| {
            server.as_ref().is_none_or(|server| server == name) && scope.sees_server(name)
        };
        self.await_views(scope, options, server.as_ref(), None);
        let catalogue = self.catalogue_for(scope, options);
        let n_servers = catalogue.servers.keys().filter(|name| wanted(name)).count();
        let (order, all) = if n_servers == 1 {
            (Order::OfServer, catalogue.in_order(kind))
        } else {
            (Order::ByName, catalogue.items(kind))
        };
        let seen = all.iter().filter(|item| wanted(&item.server) && sees(scope, item));
        // Names, URIs and links must not show that there are servers besides.
        let seen_servers = catalogue.servers.keys().filter(|it| scope.sees_server(it));
        let servers: Vec<ServerName> = seen_servers.cloned().collect();
        let sight = Sight { servers: &servers, sees: &|item| sees(scope, item) };
        let mut steps = Steps::new(RESULT_LINKS_STEPS_MAX);
        let mut is_renamed = false;
        let shown = |item: &Arc<Item>| {
            let shown = catalogue.as_seen(item, &sight, &mut steps);
            is_renamed |= shown.offered != item.offered;
            shown
        };
        let mut items: Vec<Arc<Item>> = seen.map(shown).collect();
        let before = items.len();
        if kind == Kind::Tool {
            items.extend(self.sign_in_tools(scope, &catalogue, wanted));
        }
        if order == Order::OfServer {
            items.rotate_left(before);
        } else if is_renamed || items.len() > before {
            items.sort_by(|a, b| a.offered.cmp(&b.offered));
        }
        let names = if scope.only.is_some() { Names::Own } else { Names::Offered };
        // The state of a server is not shown to a key that may use none of its tools.
        let offers_any = |name: &ServerName| kind != Kind::Tool || scope.uses_tools_of(name);
        let mut asked = catalogue.servers.keys().filter(|name| wanted(name));
        let unwell_behind = asked.find_map(|it| self.upstreams.get(it)?.unwell_behind());
        let servers = catalogue
            .servers
            .iter()
            .filter(|(name, _)| wanted(name) && offers_any(name))
            .map(|(name, server)| Listing {
                server: name.clone(),
                alias: self.upstreams.get(name).and_then(|it| it.config().alias.clone()),
                health: self
                    .health_of_user(scope, name)
                    .unwrap_or_else(|| server.health.clone()),
                is_stale: server.is_stale(),
            })
            .collect();
        Ok(ItemList { kind, items, order, names, servers, unwell_behind })
    }

    /// The array of a page's items, in memory that clients with the same items share: for a
    /// client of that revision, or else unchanged.
    ///
    /// # Errors
    /// Too many bytes are held at once.
    pub fn page_text(
        &self,
        scope: &Scope,
        list: &ItemList,
        page: &[Arc<Item>],
        client: Option<Revision>,
    ) -> Result<Raw, CallError> {
        let charged = scope.charged.as_ref();
        let text = self.catalogue.pages().text(page, list.names, client, charged);
        text.map_err(|Exhausted| CallError::Overloaded { what: BUFFERED_BYTES_FULL.to_owned() })
    }

    /// True if there is a server of that name.
    pub fn knows(&self, server: &ServerName) -> bool {
        self.upstreams.get(server).is_some()
    }

    /// The server of that NAME or alias, if the scope sees it.
    ///
    /// # Errors
    /// As [`Pipeline::server`].
    pub fn server_called(&self, scope: &Scope, asked: &str) -> Result<ServerName, CallError> {
        self.server(scope, asked).or_else(|error| {
            let upstreams = self.upstreams.all();
            let mut named = upstreams.values().filter(|upstream| {
                let alias = upstream.config().alias.as_deref();
                alias == Some(asked) && scope.sees_server(upstream.name())
            });
            named.next().map(|upstream| upstream.name().clone()).ok_or(error)
        })
    }

    /// The servers that the scope sees.
    pub fn servers(&self, scope: &Scope) -> Vec<ServerName> {
        let catalogue = self.catalogue.current();
        catalogue.servers.keys().filter(|server| scope.sees_server(server)).cloned().collect()
    }

    /// The capabilities of the servers in scope together for a client of that revision, an
    /// object's text.
    pub fn capabilities(&self, scope: &Scope, revision: Revision) -> String {
        let catalogue = self.catalogue.current();
        let seen = catalogue.servers.iter().filter(|(name, _)| scope.sees_server(name));
        let each: Vec<String> = seen
            .map(|(name, server)| {
                let said = self.introduction(scope, name, server);
                let own = said.as_ref().map_or(revision, |said| said.revision);
                capabilities::of_server_for(declared(said.as_deref()), own, revision)
            })
            .collect();
        capabilities::merged(each.iter().map(String::as_str))
    }

    /// The freshness of a list of that kind, from those of the servers that have such a list. A
    /// list that a key sees is for that key alone.
    pub fn freshness(&self, scope: &Scope, options: CallOptions<'_>, kind: Kind) -> Freshness {
        let catalogue = self.catalogue_for(scope, options);
        let capability = match kind {
            Kind::Tool => "tools",
            Kind::Prompt => "prompts",
            Kind::Resource | Kind::Template => "resources",
        };
        let seen = catalogue
            .servers
            .iter()
            .filter(|(name, server)| scope.sees_server(name) && server.has(capability));
        let mut all = seen.map(|(_, server)| server.freshness(kind));
        let first = all.next().unwrap_or(Freshness::UNKNOWN);
        let mut freshness = all.fold(first, Freshness::and);
        // So is one with what only a user sees.
        freshness.is_private |= scope.principal.id.is_some() || scope.user.is_some();
        freshness
    }

    /// The tool that a call of that name would reach, if there is one.
    pub fn tool(
        &self,
        scope: &Scope,
        options: CallOptions<'_>,
        asked: &str,
    ) -> Option<Arc<Item>> {
        let catalogue = self.catalogue_for(scope, options);
        let sees = |item: &Item| sees(scope, item);
        let found = match &scope.only {
            Some(server) => {
                let of_server = |item: &Item| item.server == *server && sees(item);
                let own = catalogue.called(Kind::Tool, asked).iter().find(|it| of_server(it));
                own.cloned().or_else(|| catalogue.find(Kind::Tool, asked, of_server))
            }
            None => catalogue.find(Kind::Tool, asked, sees),
        };
        found.filter(|item| !item.is_withheld)
    }

    /// The announced type of a task's result.
    pub fn task_output(&self, scope: &Scope, options: CallOptions<'_>, id: &str) -> Output {
        let asker = split_server(id).and_then(|(server, own)| {
            let server = self.server(scope, server).ok()?;
            Some((self.asker(scope, options, &server).ok()?, own))
        });
        asker.map_or(Output::Object, |(asker, own)| asker.task_output(own.into_owned()))
    }

    /// The server that a call would reach, and true if that server may ask questions while the
    /// call runs. None where the server is not known now, or may still change.
    pub fn owner(
        &self,
        scope: &Scope,
        options: CallOptions<'_>,
        call: &Call<'_>,
    ) -> Option<(ServerName, bool)> {
        if let Some(upstream) = self.signs_in_at(scope, options, call) {
            return Some((upstream.name().clone(), true));
        }
        Some(self.owned(scope, self.route_for_good(scope, options, call)?))
    }

    /// [`Pipeline::owner`], but waits where a list may bring the item soon.
    ///
    /// # Errors
    /// As [`Pipeline::owner`], or the wait was ended.
    pub fn await_owner(
        &self,
        scope: &Scope,
        options: CallOptions<'_>,
        call: &Call<'_>,
        wait: &Arc<Wait>,
    ) -> Result<(ServerName, bool), CallError> {
        match self.find(scope, options, call, wait) {
            Err(error @ (CallError::Unknown { .. } | CallError::NeedsSignIn { .. })) => {
                // The call itself asks its caller to sign in, and then finds the item.
                let upstream = self.awaits_sign_in(scope, options, call).ok_or(error)?;
                Ok((upstream.name().clone(), true))
            }
            found => Ok(self.owned(scope, found?)),
        }
    }

    /// Notes the server in the request's log record: the call may be made on another thread.
    fn owned(&self, scope: &Scope, Route { server, told, .. }: Route) -> (ServerName, bool) {
        crate::telemetry::request::leads_to(server.as_str(), &told);
        let asks = self.asks_during_calls(scope, &server);
        (server, asks)
    }

    /// Checks that a server can be called at present, before the caller does something costly.
    ///
    /// # Errors
    /// The server is down.
    pub fn check(&self, scope: &Scope, server: &ServerName) -> Result<(), CallError> {
        self.upstream_for(scope, server)?.check()
    }

    /// True if a server may ask questions while a call runs, as far as is known.
    pub(super) fn asks_during_calls(&self, scope: &Scope, server: &ServerName) -> bool {
        self.introduced(scope, server).is_none_or(|said| said.revision.asks_during_calls())
    }

    /// True if it is known that a server may ask questions while a call runs.
    pub fn is_known_to_ask(&self, scope: &Scope, server: &ServerName) -> bool {
        self.introduced(scope, server).is_some_and(|said| said.revision.asks_during_calls())
    }

    fn introduced(&self, scope: &Scope, server: &ServerName) -> Option<Arc<Initialized>> {
        let catalogue = self.catalogue.current();
        self.introduction(scope, server, catalogue.servers.get(server)?)
    }

    /// True if a server in scope has the tasks extension.
    pub fn has_tasks_extension(&self, scope: &Scope) -> bool {
        let catalogue = self.catalogue.current();
        let mut seen = catalogue.servers.iter().filter(|(name, _)| scope.sees_server(name));
        seen.any(|(name, server)| {
            let said = self.introduction(scope, name, server);
            capabilities::have_tasks_extension(declared(said.as_deref()))
        })
    }

    /// The instructions of the servers in scope: unchanged for one server, by name for several.
    /// They also say why a server that has not answered offers nothing.
    pub fn instructions(&self, scope: &Scope) -> Option<String> {
        let catalogue = self.catalogue.current();
        let seen = catalogue.servers.iter().filter(|(name, _)| scope.sees_server(name));
        let mut said: Vec<(&ServerName, String)> = Vec::new();
        let mut reasons = Vec::new();
        let mut n_seen = 0;
        for (name, server) in seen {
            n_seen += 1;
            let introduction = self.introduction(scope, name, server);
            let text = introduction.and_then(|it| it.instructions.clone());
            said.extend(text.filter(|_| !server.withholds_instructions()).map(|it| (name, it)));
            reasons.extend(reason(name, server));
        }
        let mut parts: Vec<String> = match said.as_slice() {
            [(_, text)] if n_seen == 1 => vec![text.clone()],
            several => {
                several.iter().map(|(name, text)| format!("# {name}\n\n{text}")).collect()
            }
        };
        reasons.extend(self.sign_in_instructions(scope));
        if !reasons.is_empty() {
            parts.push(reasons.join("\n"));
        }
        (!parts.is_empty()).then(|| parts.join("\n\n"))
    }

    /// The introduction of the only server in scope; none where there are several.
    pub fn only_server_info(&self, scope: &Scope) -> Option<Raw> {
        let catalogue = self.catalogue.current();
        let mut seen = catalogue.servers.iter().filter(|(name, _)| scope.sees_server(name));
        let (name, server) = seen.next()?;
        let said = self.introduction(scope, name, server)?.server_info.clone();
        if seen.next().is_some() { None } else { said }
    }

    /// The servers in scope that declare a capability.
    pub fn servers_with(&self, scope: &Scope, capability: &str) -> Vec<ServerName> {
        let catalogue = self.catalogue.current();
        catalogue
            .servers
            .iter()
            .filter(|(name, server)| {
                let said = || self.introduction(scope, name, server);
                scope.sees_server(name)
                    && capabilities::have(declared(said().as_deref()), capability)
            })
            .map(|(name, _)| name.clone())
            .collect()
    }

    /// The last introduction of a server, to the user of the scope where that user reaches it with
    /// credentials of its own. None where it is not known.
    fn introduction(
        &self,
        scope: &Scope,
        name: &ServerName,
        server: &Server,
    ) -> Option<Arc<Initialized>> {
        match own_id(scope, name) {
            Some(_) => self.known_of_user(scope, name)?.initialized(),
            None => server.initialized.clone(),
        }
    }

    /// Names that were refused to servers.
    pub fn clashes(&self) -> Clashes {
        self.catalogue.current().clashes.clone()
    }

    /// Required servers that have not answered yet.
    pub fn missing(&self) -> Vec<ServerName> {
        let catalogue = self.catalogue.current();
        let has_answered =
            |name: &ServerName| catalogue.servers.get(name).is_some_and(|s| s.has_answered);
        self.upstreams
            .all()
            .values()
            .filter(|upstream| upstream.config().required && !has_answered(upstream.name()))
            .map(|upstream| upstream.name().clone())
            .collect()
    }
}

/// The reason why nothing is offered of a server that has not answered.
fn reason(name: &ServerName, server: &Server) -> Option<String> {
    if server.has_answered || server.is_stale() {
        return None;
    }
    match &server.health {
        Health::Well => None,
        Health::Connecting => Some(format!(
            "The server {name} is starting: what it offers is listed once it has answered."
        )),
        Health::Failed { stage, message, refusal: _ } => Some(format!(
            "The server {name} cannot be used at present ({stage}: {message}); what it offers is \
             listed once it answers."
        )),
    }
}

fn declared(said: Option<&Initialized>) -> &str {
    said.map_or(capabilities::NOT_YET_KNOWN, |said| said.capabilities.get())
}

impl Server {
    fn capabilities(&self) -> &str {
        declared(self.initialized.as_deref())
    }

    fn withholds_instructions(&self) -> bool {
        let pinned = self.pinned.as_ref();
        pinned.is_some_and(|it| it.withholds(Subject::Instructions, ""))
    }

    pub(super) fn has(&self, capability: &str) -> bool {
        capabilities::have(self.capabilities(), capability)
    }
}
