//! Finds the server of a call, in the catalogue among the items that the call's scope sees.

use std::sync::Arc;

use super::users::own_id;
use super::{CallOptions, Pipeline};
use crate::access::policy::Scope;
use crate::catalogue::name::split_server;
use crate::catalogue::pins::Subject;
use crate::catalogue::{Catalogue, Item, Resolution, Server, Steps, name};
use crate::config::Role;
use crate::error::{Allowed, CallError, PinCause, Stage};
use crate::limits::{LOOK_UP_STEPS_MAX, NEAR_NAMES_MAX, UPSTREAM_TEXT_CHARS_MAX};
use crate::protocol::call::{Call, Kind};
use crate::protocol::method::Method;
use crate::protocol::mirror::Mirror;
use crate::protocol::raw::{RawObject, string};
use crate::protocol::server_name::ServerName;
use crate::telemetry;
use crate::wait::Wait;

/// The server of a call, and the parameter that changes on the way.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) server: ServerName,
    /// The parameter.
    pub(super) key: &'static str,
    /// The parameter's new value, a JSON text.
    pub(super) value: String,
    /// The name in logs.
    pub(super) told: String,
    /// Headers that mirror parameters for the tool: name and value.
    pub(super) mirrored: Vec<(String, String)>,
    pub(super) claim: Claim,
}

/// The reason why the item belongs to its server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Claim {
    /// The name belongs to that server, whatever others list.
    Owned,
    /// The server is the first in the configuration that lists the item.
    First,
    /// No other server has the item.
    Only,
}

impl Claim {
    fn of_item(catalogue: &Catalogue, item: &Item, asked: &str) -> Claim {
        let is_offered = |item: &Item| item.offered == asked;
        if is_offered(item) || item.alone.as_deref().is_some_and(is_offered) {
            // A name that is not the server's own contains its server.
            let is_owned = item.own != asked || catalogue.owners.of(asked).is_some();
            return if is_owned { Claim::Owned } else { Claim::First };
        }
        match catalogue.owners.of(asked) {
            Some(_) => Claim::Owned,
            None => Claim::Only,
        }
    }
}

impl Route {
    fn to((server, own, claim): (ServerName, String, Claim), key: &'static str) -> Route {
        let told = format!("{server} {own}");
        Route { server, key, value: string(&own), told, mirrored: Vec::new(), claim }
    }
}

/// The item that a call asks for, if lists can have it.
#[derive(Debug)]
pub(super) struct Wanted {
    /// A tool or a prompt; or a resource, for anything with a URI.
    pub(super) kind: Kind,
    /// The name or URI as the client wrote it.
    pub(super) name: String,
}

impl Wanted {
    /// None where the call asks for no listed item, or names it wrongly.
    pub(super) fn of(call: &Call<'_>) -> Option<Wanted> {
        let named = |kind, params: &RawObject<'_>, key| {
            Some(Wanted { kind, name: text(params, key).ok()? })
        };
        match call.method {
            Method::ToolsCall => named(Kind::Tool, &call.params, "name"),
            Method::PromptsGet => named(Kind::Prompt, &call.params, "name"),
            Method::ResourcesRead
            | Method::ResourcesSubscribe
            | Method::ResourcesUnsubscribe => named(Kind::Resource, &call.params, "uri"),
            Method::CompletionComplete => {
                let reference = RawObject::parse(call.params.get("ref")?).ok()?;
                match text(&reference, "type").ok()?.as_str() {
                    "ref/prompt" => named(Kind::Prompt, &reference, "name"),
                    _ => named(Kind::Resource, &reference, "uri"),
                }
            }
            Method::Initialize
            | Method::Ping
            | Method::ToolsList
            | Method::PromptsList
            | Method::ResourcesList
            | Method::ResourcesTemplatesList
            | Method::LoggingSetLevel
            | Method::TasksGet
            | Method::TasksResult
            | Method::TasksList
            | Method::TasksCancel
            | Method::TasksUpdate
            | Method::ServerDiscover
            | Method::SubscriptionsListen => None,
        }
    }
}

impl Wanted {
    /// The server to which the name belongs, if it belongs to one.
    pub(super) fn owner<'a>(&self, catalogue: &'a Catalogue) -> Option<&'a ServerName> {
        match self.kind {
            Kind::Tool | Kind::Prompt => catalogue.owners.of(&self.name),
            Kind::Resource | Kind::Template => {
                split_server(&self.name).and_then(|(server, _)| catalogue.owners.server(server))
            }
        }
    }
}

fn wrong(key: &str, what: &str) -> CallError {
    CallError::Invalid(format!("\"{key}\" {what}."))
}

/// Reads a parameter that must be a string.
fn text(params: &RawObject<'_>, key: &str) -> Result<String, CallError> {
    match params.string(key) {
        Ok(Some(text)) => Ok(text),
        Ok(None) => Err(wrong(key, "is missing")),
        Err(_) => Err(wrong(key, "must be a string")),
    }
}

impl Pipeline {
    /// Finds the server of a call. An unknown item may be in a view that only this client sees
    /// and that was not read yet.
    ///
    /// # Errors
    /// The item's name is missing, ill-formed, or nothing that the scope sees.
    pub(super) fn route(
        &self,
        scope: &Scope,
        options: CallOptions<'_>,
        call: &Call<'_>,
        wait: Option<&Arc<Wait>>,
    ) -> Result<Route, CallError> {
        let found = self.route_as_known(scope, options, call);
        let Err(CallError::Unknown { .. }) = found else { return found };
        let only = self.only(scope, options, call);
        if !self.await_views(scope, options, only.as_ref(), wait) {
            return found;
        }
        let found = self.route_as_known(scope, options, call);
        let starting = match &found {
            Err(CallError::Unknown { .. }) => {
                only.and_then(|only| self.starting_for_user(scope, &only))
            }
            Ok(_) | Err(_) => None,
        };
        starting.map_or(found, Err)
    }

    /// The only server that may have the item: that of the endpoint, the one that the request
    /// names, or the one to which the name belongs.
    fn only(
        &self,
        scope: &Scope,
        options: CallOptions<'_>,
        call: &Call<'_>,
    ) -> Option<ServerName> {
        if scope.only.is_some() {
            return scope.only.clone();
        }
        if let Some(server) = options.server {
            return self.server(scope, server).ok();
        }
        let asked = Wanted::of(call)?;
        let catalogue = self.catalogue.current();
        asked.owner(&catalogue).filter(|owner| scope.sees_server(owner)).cloned()
    }

    fn route_as_known(
        &self,
        scope: &Scope,
        options: CallOptions<'_>,
        call: &Call<'_>,
    ) -> Result<Route, CallError> {
        let server = match options.server {
            Some(server) => Some(self.server(scope, server)?),
            None => None,
        };
        let params = &call.params;
        if params.get("arguments").is_some_and(|text| !text.starts_with('{')) {
            return Err(wrong("arguments", "must be an object"));
        }
        match call.method {
            Method::ToolsCall => {
                self.by_name(scope, options, server.as_ref(), Kind::Tool, params)
            }
            Method::PromptsGet => {
                self.by_name(scope, options, server.as_ref(), Kind::Prompt, params)
            }
            Method::ResourcesRead
            | Method::ResourcesSubscribe
            | Method::ResourcesUnsubscribe => {
                Ok(Route::to(self.by_uri(scope, options, &text(params, "uri")?)?, "uri"))
            }
            Method::CompletionComplete => self.by_reference(scope, options, params),
            Method::TasksGet
            | Method::TasksResult
            | Method::TasksCancel
            | Method::TasksUpdate => {
                let (server, own) = self.by_task(scope, options, &text(params, "taskId")?)?;
                Ok(Route::to((server, own, Claim::Owned), "taskId"))
            }
            // The gateway answers these itself, and routes them nowhere.
            Method::Initialize
            | Method::Ping
            | Method::ToolsList
            | Method::PromptsList
            | Method::ResourcesList
            | Method::ResourcesTemplatesList
            | Method::LoggingSetLevel
            | Method::TasksList
            | Method::ServerDiscover
            | Method::SubscriptionsListen => Err(CallError::Internal),
        }
    }

    fn by_name(
        &self,
        scope: &Scope,
        options: CallOptions<'_>,
        server: Option<&ServerName>,
        kind: Kind,
        params: &RawObject<'_>,
    ) -> Result<Route, CallError> {
        let name = text(params, "name")?;
        let item = match self.named(scope, options, server, kind, &name) {
            Err(CallError::Unknown { kind, name, near }) => {
                let judge = self.judge_of_names(scope).ok_or_else(|| CallError::Unknown {
                    kind,
                    name: name.clone(),
                    near,
                });
                return Ok(Route::to((judge?, name, Claim::Owned), "name"));
            }
            found => found?,
        };
        if let Err(what) = &item.mirrors
            && !self.asks_during_calls(scope, &item.server)
        {
            // Clients must refuse such a definition (2026-07-28,
            // basic/transports/streamable-http, Custom Headers from Tool Parameters).
            let what = format!("The tool {name:?} is defined wrongly: {what}.");
            return Err(CallError::Invalid(what));
        }
        let value = string(&item.own);
        Ok(Route {
            server: item.server.clone(),
            key: "name",
            value,
            told: item.qualified.clone(),
            mirrored: mirrored(&item, params),
            claim: Claim::of_item(&self.catalogue.current(), &item, &name),
        })
    }

    /// The other gateway, where it is the only server: its list may be older than its items, and
    /// it knows names that it does not list.
    fn judge_of_names(&self, scope: &Scope) -> Option<ServerName> {
        let catalogue = self.catalogue.current();
        let mut seen = catalogue.servers.iter().filter(|(name, _)| scope.sees_server(name));
        let (name, server) = seen.next().filter(|_| seen.next().is_none())?;
        let is_gateway = self.upstream(name).ok()?.config().role == Role::OtherGateway;
        (is_gateway && server.has_answered).then(|| name.clone())
    }

    pub(super) fn named(
        &self,
        scope: &Scope,
        options: CallOptions<'_>,
        server: Option<&ServerName>,
        kind: Kind,
        asked: &str,
    ) -> Result<Arc<Item>, CallError> {
        let catalogue = self.catalogue_for(scope, options);
        let sees = |item: &Item| sees(scope, item);
        let resolution = match scope.only.as_ref().or(server) {
            Some(server) => {
                let of_server = |item: &Item| item.server == *server && sees(item);
                let own = catalogue.resolve_own(kind, server, asked, sees);
                let is_own = matches!(own, Resolution::Found(_));
                let offered = (!is_own).then(|| catalogue.resolve(kind, asked, of_server));
                match offered {
                    Some(found @ Resolution::Found(_)) => found,
                    // At a per-server endpoint only the server's own names are suggested.
                    Some(unknown) if scope.only.is_none() => unknown,
                    Some(_) | None => own,
                }
            }
            None => catalogue.resolve(kind, asked, sees),
        };
        let name = asked.to_owned();
        match resolution {
            Resolution::Found(item) if item.is_withheld => {
                telemetry::request::leads_to(item.server.as_str(), &item.qualified);
                Err(not_as_pinned(&catalogue, &item.server, kind, item.own.clone()))
            }
            Resolution::Found(item) => Ok(item),
            Resolution::Ambiguous(candidates) => {
                Err(CallError::Ambiguous { kind, name, candidates })
            }
            Resolution::Unknown(near) => {
                let server = server.or(scope.only.as_ref());
                tell_whether_hidden(&catalogue, kind, server, asked);
                let owner = possible_owner(&catalogue, scope, server, asked);
                if let Some(error) = owner.and_then(|it| self.unreached_by_user(scope, it)) {
                    return Err(error);
                }
                // Whoever has credentials of its own waits for its own lists.
                let owner = owner.filter(|it| own_id(scope, it).is_none());
                let unreached = owner.and_then(|owner| self.unreached(&catalogue, owner));
                Err(unreached.unwrap_or(CallError::Unknown { kind, name, near }))
            }
        }
    }

    /// The server of a URI: the one whose mark it has; else the one that lists it, or has a
    /// template that covers it, in the order of the configuration; else the only server that has
    /// resources at all.
    fn by_uri(
        &self,
        scope: &Scope,
        options: CallOptions<'_>,
        uri: &str,
    ) -> Result<(ServerName, String, Claim), CallError> {
        let mut steps = Steps::new(LOOK_UP_STEPS_MAX);
        let found = self.owner_by_uri(scope, options, uri, &mut steps);
        if steps.is_cut()
            && let Some(further) = self.cut_look_ups.turn()
        {
            let uri: String = uri.chars().take(UPSTREAM_TEXT_CHARS_MAX).collect();
            log::warn!(target: "catalogue", "whose {uri:?} is was not looked for among all \
                templates: some server has so many that it takes too long{further}");
        }
        if let Ok((server, own, _)) = &found {
            let withheld = self.catalogue_for(scope, options).withheld(server, own);
            if let Some((kind, name)) = withheld {
                telemetry::request::leads_to(server.as_str(), &format!("{server} {own}"));
                return Err(not_as_pinned(
                    &self.catalogue_for(scope, options),
                    server,
                    kind,
                    name,
                ));
            }
        }
        found
    }

    /// As `by_uri`, with no more than these steps.
    pub(super) fn owner_by_uri(
        &self,
        scope: &Scope,
        options: CallOptions<'_>,
        uri: &str,
        steps: &mut Steps,
    ) -> Result<(ServerName, String, Claim), CallError> {
        let catalogue = self.catalogue_for(scope, options);
        let unknown = || CallError::Unknown {
            kind: Kind::Resource,
            name: uri.to_owned(),
            near: Vec::new(),
        };
        let sees = |item: &Item| sees(scope, item);
        let listed = |claim| {
            let item = catalogue.lister(uri, sees)?;
            Some((item.server.clone(), item.own.clone(), claim))
        };
        if scope.only.is_some()
            && let Some(found) = listed(Claim::Owned)
        {
            return Ok(found);
        }
        // The mark of a server that the scope may not see counts as a mark of no server.
        let marked_as = split_server(uri)
            .and_then(|(server, rest)| Some((catalogue.owners.server(server)?, rest)))
            .filter(|(server, _)| scope.sees_server(server));
        if let Some((server, rest)) = marked_as
            && scope.only.as_ref().is_none_or(|only| only == server)
        {
            let server = self.server(scope, server.as_str()).map_err(|_| unknown())?;
            let own = catalogue.own_of_marked(&server, uri, &rest, steps);
            return Ok((server, own, Claim::Owned));
        }
        if let Some(found) = listed(Claim::First) {
            return Ok(found);
        }
        let sees_server = |server: &ServerName| scope.sees_server(server);
        let bare = catalogue.owner_of_bare(uri, sees, sees_server, steps);
        let (server, own) = bare.ok_or_else(|| {
            tell_whether_hidden(&catalogue, Kind::Resource, scope.only.as_ref(), uri);
            unknown()
        })?;
        Ok((server, own, Claim::Only))
    }

    /// A completion belongs to the server of the prompt or template that it is for.
    fn by_reference(
        &self,
        scope: &Scope,
        options: CallOptions<'_>,
        params: &RawObject<'_>,
    ) -> Result<Route, CallError> {
        let reference = params.get("ref").ok_or_else(|| wrong("ref", "is missing"))?;
        let mut fields =
            RawObject::parse(reference).map_err(|_| wrong("ref", "must be an object"))?;
        let (server, key, own, claim) = match text(&fields, "type")?.as_str() {
            "ref/prompt" => {
                let name = text(&fields, "name")?;
                let item = self.named(scope, options, None, Kind::Prompt, &name)?;
                let claim = Claim::of_item(&self.catalogue.current(), &item, &name);
                (item.server.clone(), "name", item.own.clone(), claim)
            }
            "ref/resource" => {
                let uri = text(&fields, "uri")?;
                let (server, own, claim) = self.by_uri(scope, options, &uri)?;
                (server, "uri", own, claim)
            }
            _ => return Err(wrong("ref.type", "must be ref/prompt or ref/resource")),
        };
        fields.set(key, string(&own));
        let told = format!("{server} {own}");
        let value = fields.to_text();
        Ok(Route { server, key: "ref", value, told, mirrored: Vec::new(), claim })
    }

    /// The server of a task. Others' tasks are unknown (2025-11-25, basic/utilities/tasks, Task
    /// Isolation and Access Control), and the answer for them is the same as for none.
    fn by_task(
        &self,
        scope: &Scope,
        options: CallOptions<'_>,
        id: &str,
    ) -> Result<(ServerName, String), CallError> {
        let unknown = || CallError::Invalid(format!("There is no task {id:?}."));
        let (server, own) = split_server(id).ok_or_else(unknown)?;
        let server = self.server(scope, server).map_err(|_| unknown())?;
        let own = own.into_owned();
        if !self.asker(scope, options, &server)?.owns(own.clone()) {
            return Err(unknown());
        }
        Ok((server, own))
    }

    /// The server of that name, if the scope sees it.
    ///
    /// # Errors
    /// There is none, or the scope may not see it: both give the same error.
    pub fn server(&self, scope: &Scope, asked: &str) -> Result<ServerName, CallError> {
        let catalogue = self.catalogue.current();
        match catalogue.servers.get_key_value(asked) {
            Some((server, _)) if scope.sees_server(server) => Ok(server.clone()),
            hidden => {
                let whose = hidden.map(|(server, _)| (server.as_str(), ""));
                telemetry::request::leads_nowhere(whose, "");
                let seen = catalogue.servers.keys().filter(|server| scope.sees_server(server));
                let near = name::near(asked, seen.map(ServerName::as_str), NEAR_NAMES_MAX);
                Err(CallError::UnknownServer { name: asked.to_owned(), near })
            }
        }
    }
}

/// Logs if an item that is unknown to the caller exists for others. The look-up costs the same in
/// both cases, and does not search all names, so that the time shows a caller nothing.
fn tell_whether_hidden(
    catalogue: &Catalogue,
    kind: Kind,
    server: Option<&ServerName>,
    asked: &str,
) {
    let may_be = |item: &Item| server.is_none_or(|server| item.server == *server);
    let called = || catalogue.called(kind, asked).iter().find(|item| may_be(item)).cloned();
    let found = catalogue.find(kind, asked, may_be).or_else(called);
    let whose = found.as_ref().map(|item| (item.server.as_str(), item.qualified.as_str()));
    telemetry::request::leads_nowhere(whose, asked);
}

/// The error of a call for an item that differs from its pin; `own` is the item's own name.
fn not_as_pinned(
    catalogue: &Catalogue,
    server: &ServerName,
    kind: Kind,
    own: String,
) -> CallError {
    let pinned = catalogue.servers.get(server).and_then(|server| server.pinned.as_ref());
    let cause = pinned.map(|pinned| pinned.cause(Subject::of(kind), &own));
    let (server, cause) = (server.clone(), cause.unwrap_or(PinCause::Changed));
    CallError::Withheld { server, kind, name: own, cause }
}

/// The server that has the unknown item, if any has: the one that is named, the one to which the
/// name belongs, or the only one.
fn possible_owner<'a>(
    catalogue: &'a Catalogue,
    scope: &Scope,
    server: Option<&'a ServerName>,
    asked: &str,
) -> Option<&'a ServerName> {
    let is_seen = |name: &&ServerName| scope.sees_server(name);
    let owner = || catalogue.owners.of(asked).filter(is_seen);
    let only = || {
        let mut seen = catalogue.servers.keys().filter(is_seen);
        seen.next().filter(|_| seen.next().is_none())
    };
    server.filter(is_seen).or_else(owner).or_else(only)
}

/// The parameters that a tool wants mirrored into headers, where they are given.
fn mirrored(item: &Item, params: &RawObject<'_>) -> Vec<(String, String)> {
    let Ok(mirrors) = &item.mirrors else { return Vec::new() };
    if mirrors.is_empty() {
        return Vec::new();
    }
    let Some(arguments) = params.get("arguments") else { return Vec::new() };
    let value = |mirror: &Mirror| {
        let value = mirror.read(arguments).ok()?;
        Some((mirror.header.clone(), Mirror::text_of(&value)?))
    };
    mirrors.iter().filter_map(value).collect()
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

/// True if the scope sees an item. Only tools have policies of their own.
pub(super) fn sees(scope: &Scope, item: &Item) -> bool {
    match item.kind {
        Kind::Tool => scope.sees_tool(&item.server, &item.own, &item.qualified),
        Kind::Prompt | Kind::Resource | Kind::Template => scope.sees_server(&item.server),
    }
}
