//! The life of one call: check the quota, find the server, send. Read this first.
//!
//! The transports in `downstream` make a [`Call`] of a request and bytes of its result; all else
//! happens here, on the thread of the client's connection.

mod ask_to_sign_in;
mod await_lists;
mod caller_upstream;
mod callers;
mod first_lists;
mod links;
mod lists;
mod log_levels;
mod route;
mod send;
mod server_events;
mod session_events;
pub mod session_route;
pub mod sign_in;
mod status;
mod subscriptions;
mod task_owners;
mod tasks;
mod unreached;
mod users;
mod views;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::access::policy::Scope;
use crate::access::quota::Bucket;
use crate::catalogue::{self, Catalogue, ViewOf};
use crate::config::LogConfig;
use crate::error::CallError;
use crate::limits::{LIST_BYTES_MAX, UPSTREAM_LIST_PAGES_MAX, VIEWS_BYTES_MAX};
use crate::protocol::call::{
    About, Call, CallSink, Client, Kind, Outcome, Outgoing, PrincipalId,
};
use crate::protocol::method::{Method, notification};
use crate::protocol::raw::{Raw, RawObject};
use crate::protocol::server_name::ServerName;
use crate::protocol::view::ViewId;
use crate::session::Sessions;
use crate::sync::{Mutex, RwLock};
use crate::telemetry::bodies::Body;
use crate::telemetry::{self, Seldom, counters};
use crate::upstream::{Upstream, Upstreams, Viewer};
use crate::wait::{Interrupted, Wait};
use callers::Callers;
use first_lists::FirstLists;
use log_levels::LogLevels;
use sign_in::Invitations;
use task_owners::TaskOwners;
use views::view_of;

/// Values of lists and of `/status` for clients.
pub use crate::catalogue::pages::Names;
pub use crate::catalogue::pins::command::{Changes, Texts as PinTexts, Unusable};
pub use crate::catalogue::pins::{Review, Subject};
pub use crate::catalogue::{Clash, Clashes, Health, Item, Pinned};
/// The options of one subscription for clients.
pub use crate::upstream::Subscribing;
pub use crate::upstream::{FailureReport, State, Unread};
pub use lists::{ItemList, Listing};
pub use server_events::ToSessions;
pub use session_events::ToServers;
pub use status::{ServerStatus, Users};

/// The path of every call: quotas, catalogue, upstreams.
#[derive(Debug)]
pub struct Pipeline {
    catalogue: catalogue::Shared,
    upstreams: Arc<Upstreams>,
    settings: RwLock<Arc<Settings>>,
    tasks: Arc<TaskOwners>,
    callers: Arc<Callers>,
    sessions: Sessions,
    first_lists: FirstLists,
    /// Limits the log lines about URIs that were not looked up among all templates.
    cut_look_ups: Seldom,
    log_levels: LogLevels,
    /// The pages that people may sign in at servers from.
    invitations: Invitations,
}

/// The owners of tasks, and the principals that call: they decide who is told of servers'
/// messages.
#[derive(Debug, Clone, Default)]
pub struct Owners {
    tasks: Arc<TaskOwners>,
    callers: Arc<Callers>,
}

/// Settings that a reload may change.
#[derive(Debug)]
struct Settings {
    /// Calls per minute by key name.
    quotas: HashMap<Arc<str>, Mutex<Bucket>>,
    told: AccessLog,
}

/// The parts of calls that are logged.
#[derive(Debug, Clone, Copy)]
pub struct AccessLog {
    /// True if the beginning of arguments and results is logged; the log takes secrets out.
    pub bodies: bool,
}

impl AccessLog {
    /// The parts of calls that are logged by this configuration.
    pub fn of(log: LogConfig) -> AccessLog {
        telemetry::access::tell_calls(log.access);
        AccessLog { bodies: log.bodies }
    }
}

/// The characters of a body that are logged.
const LOGGED_BODY_CHARS: usize = 512;

/// A transport's additions to a call.
#[derive(Debug, Clone, Copy, Default)]
pub struct CallOptions<'a> {
    /// The server that the tool must belong to.
    pub server: Option<&'a str>,
    /// The request's own time limit, shorter than the server's.
    pub timeout: Option<Duration>,
    /// The part of this time that has passed.
    pub waited: Duration,
    /// The client, where it has a session that a server could have one for.
    pub client: Option<&'a Client>,
    /// The caller as each stateless request tells of it.
    pub about: About<'a>,
    /// The views whose lists the client may see, where they are computed once for all of its
    /// requests.
    pub views: Option<[ViewId; 2]>,
    /// True if the key has paid for the call: the call is a further round, or [`Pipeline::pay`]
    /// came before.
    pub is_paid: bool,
}

impl Pipeline {
    /// A pipeline over these parts. `quotas` are calls per minute by key name; `first_list` is the
    /// time after the start for which the first lists are awaited.
    pub fn new(
        catalogue: catalogue::Shared,
        upstreams: Arc<Upstreams>,
        quotas: impl IntoIterator<Item = (Arc<str>, u32)>,
        owners: Owners,
        sessions: Sessions,
        told: AccessLog,
        first_list: Duration,
    ) -> Pipeline {
        let settings = RwLock::new(Arc::new(Settings { quotas: HashMap::new(), told }));
        let first_lists = FirstLists::new(first_list);
        let cut_look_ups = Seldom::default();
        let pipeline = Pipeline {
            catalogue,
            upstreams,
            settings,
            tasks: owners.tasks,
            callers: owners.callers,
            sessions,
            first_lists,
            cut_look_ups,
            log_levels: LogLevels::default(),
            invitations: Invitations::default(),
        };
        pipeline.configure(quotas, told);
        pipeline
    }

    /// Sets the calls per minute by key name, and what is logged. Spent calls stay spent unless a
    /// key's number changes.
    pub fn configure(
        &self,
        quotas: impl IntoIterator<Item = (Arc<str>, u32)>,
        told: AccessLog,
    ) {
        let now = Instant::now();
        let before = self.settings();
        let bucket = |(name, per_minute): (Arc<str>, u32)| {
            let old = before.quotas.get(&name);
            let old = old.map(|it| it.lock().clone());
            let bucket = old.unwrap_or_else(|| Bucket::new(now, per_minute));
            (name, Mutex::new(bucket.with(now, per_minute)))
        };
        let quotas = quotas.into_iter().map(bucket).collect();
        let settings = Arc::new(Settings { quotas, told });
        *self.settings.write() = settings;
    }

    /// The catalogue for a client: every list and every look-up of a name starts here.
    fn catalogue_for(&self, scope: &Scope, options: CallOptions<'_>) -> Arc<Catalogue> {
        let of_user = |server: &ServerName| self.user_view(scope, server);
        let user: Option<ViewOf<'_>> = if scope.user.is_some() { Some(&of_user) } else { None };
        let Some(client) = options.client else {
            return match user {
                Some(user) => self.catalogue.seen_by_user(user),
                None => self.catalogue.current(),
            };
        };
        let ids = || options.views.unwrap_or_else(|| Viewer::ids_of(client, options.about));
        let is_served = |server: &ServerName| {
            let upstream = self.upstreams.get(server)?;
            view_of(&upstream, &Viewer::new(client, options.about, Some(ids())))
        };
        self.catalogue.seen_by(ids, &is_served, user)
    }

    /// The number of requests that wait for lists, and the most that may at once.
    pub fn list_waiters(&self) -> (usize, usize) {
        self.catalogue.waiting().counts()
    }

    /// The bytes that lists hold, and the most that they may: first views, then shared lists,
    /// each item as its server wrote it and as it is offered, in two forms at most.
    pub fn list_bytes(&self) -> [(usize, usize); 2] {
        let held = self.catalogue.held_bytes();
        let n_lists = self.upstreams.all().len() * Kind::ALL.len();
        [(held.views, VIEWS_BYTES_MAX), (held.lists, 3 * n_lists * LIST_BYTES_MAX)]
    }

    /// Ends every wait for lists: no more work is begun.
    pub fn end_waits(&self) {
        self.catalogue.waiting().end(Interrupted::Stopping);
    }

    fn settings(&self) -> Arc<Settings> {
        self.settings.read().clone()
    }

    /// Takes a call's cost from its key's calls for this minute, before the name is looked up: an
    /// unknown name or URI costs as much work, and more.
    ///
    /// # Errors
    /// No call is left.
    pub fn pay(
        &self,
        scope: &Scope,
        options: CallOptions<'_>,
        call: &Call<'_>,
    ) -> Result<(), CallError> {
        if !costs_a_call(call.method) || options.is_paid {
            return Ok(());
        }
        self.settings().spend(scope).inspect_err(|_| {
            if call.method == Method::ToolsCall {
                let asked = call.params.string("name").ok().flatten().unwrap_or_default();
                let catalogue = self.catalogue.current();
                let found = catalogue.find(Kind::Tool, &asked, |item| route::sees(scope, item));
                // An unknown name is not noted: it is the client's text.
                if let Some(item) = found {
                    telemetry::request::leads_to(item.server.as_str(), &item.qualified);
                }
            }
        })
    }

    /// Makes a call.
    ///
    /// 1. Check the key's calls for this minute.
    /// 2. Find the server: one look-up in the catalogue, among the items that the scope sees. For
    ///    an unknown item the call waits where a list may bring it soon.
    /// 3. Send: within the server's times, with its own name for the item, and nothing else
    ///    changed.
    ///
    /// # Errors
    /// Any failure that kept the server from answering.
    pub fn call(
        &self,
        scope: &Scope,
        options: CallOptions<'_>,
        call: Call<'_>,
        wait: &Arc<Wait>,
        sink: &dyn CallSink,
    ) -> Result<Outcome, CallError> {
        let started = Instant::now();
        let method = call.method;
        self.pay(scope, options, &call)?;
        let route = self.find_signed_in(scope, options, &call, wait, sink)?;
        let waited = options.timeout.map_or(Duration::ZERO, |_| started.elapsed());
        let options = CallOptions { waited, ..options };
        telemetry::request::leads_to(route.server.as_str(), &route.told);
        let told = self.settings().told;
        if method == Method::ToolsCall && told.bodies {
            let arguments = cut(call.params.get("arguments").unwrap_or("{}"));
            telemetry::bodies::tell(&route.told, Body::Arguments, &arguments);
        }
        let asker = self.asker(scope, options, &route.server)?;
        let (has_task, begins_task) = (tasks::concerns(&call), tasks::begins(&call));
        let asked = call.params.get(route.key).map(str::to_owned);
        let own = route.value.clone();
        let caller = call.caller;
        let mut params = call.params;
        params.set(route.key, route.value);
        let mut meta = call.meta;
        let asking = telemetry::request::ask_upstream(&mut meta);
        let outgoing = Outgoing {
            method: method.as_str(),
            is_safe_to_repeat: method.is_safe_to_repeat(),
            params,
            meta,
            wants_progress: call.progress_token.is_some(),
            about: options.about,
            charged: scope.charged.clone(),
            mirrored: route.mirrored,
        };
        let mut answer = self.send_signed_in(scope, &asker, (&caller, &outgoing), wait, sink);
        let outcome = telemetry::request::came_of(Some(method), &answer);
        let took =
            asking.answered((route.server.as_str(), method.as_str(), &route.told), outcome);
        asker.count(outcome, took);
        if let Ok(Outcome::Complete(result)) = &answer
            && let is_task = (method == Method::ToolsCall
                && tasks::is_task(result)
                && !self.asks_during_calls(scope, &route.server))
            && (has_task || is_task)
        {
            if begins_task || is_task {
                let catalogue = self.catalogue_for(scope, options);
                asker.has_begun(result, catalogue.output_of(&route.server, &own));
            }
            answer = Ok(Outcome::Complete(tasks::owned(&route.server, result)));
        }
        if let (Ok(Outcome::Complete(result)), Some(asked)) = (&mut answer, &asked) {
            let names = (asked.as_str(), own.as_str());
            match self.led_back(scope, options, &route.server, method, names, result) {
                Ok(Some(led_back)) => *result = led_back,
                Ok(None) => (),
                Err(full) => answer = Err(full),
            }
        }
        if let (Ok(Outcome::Error { error, .. }), Some(asked)) = (&mut answer, asked) {
            error.data = error.data.take().map(|data| as_asked(data, route.key, &own, &asked));
        }
        if method == Method::ToolsCall {
            let key = scope.principal.label().map(|label| &**label);
            let server = route.server.as_str();
            counters::tools::count(server, own.trim_matches('"'), key, outcome);
            if let (true, Ok(Outcome::Complete(result))) = (told.bodies, &answer) {
                let result = cut(result.get());
                telemetry::bodies::tell(&route.told, Body::Result, &result);
            }
        }
        answer
    }

    /// Sends a request with an unknown method on, where exactly one server is in scope. None
    /// where there is not one, and for a key that may use only some tools: it is unknown what the
    /// method does, and so which tool it is like.
    pub fn forward_unknown(
        &self,
        scope: &Scope,
        options: CallOptions<'_>,
        method: &str,
        params: RawObject<'_>,
        wait: &Arc<Wait>,
        sink: &dyn CallSink,
    ) -> Option<Result<Outcome, CallError>> {
        let servers = self.servers(scope);
        let [server] = servers.as_slice() else { return None };
        let is_unknown = Method::parse(method).is_none();
        if is_unknown && !scope.sees_all_tools() {
            return None;
        }
        if is_unknown
            && !options.is_paid
            && let Err(error) = self.settings().spend(scope)
        {
            return Some(Err(error));
        }
        // Its metadata is among its parameters, which are passed on unchanged.
        let mut meta = params.get("_meta").and_then(|meta| RawObject::parse(meta).ok());
        let asking = telemetry::request::ask_upstream(&mut meta);
        drop(meta);
        let outgoing = Outgoing {
            method,
            is_safe_to_repeat: false,
            params,
            meta: None,
            wants_progress: false,
            about: options.about,
            charged: scope.charged.clone(),
            mirrored: Vec::new(),
        };
        let answer = self.asker(scope, options, server);
        let answer = answer.and_then(|it| it.send(&outgoing, wait, sink));
        let outcome = telemetry::request::came_of(None, &answer);
        asking.answered((server.as_str(), method, ""), outcome);
        Some(answer)
    }

    /// The tasks of the one server of a scope that are the caller's own.
    ///
    /// # Errors
    /// As [`Pipeline::call`]; a server that refuses has none.
    pub fn tasks(
        &self,
        scope: &Scope,
        options: CallOptions<'_>,
        wait: &Arc<Wait>,
        sink: &dyn CallSink,
    ) -> Result<Vec<String>, CallError> {
        let Some(server) = &scope.only else { return Ok(Vec::new()) };
        let asker = self.asker(scope, options, server)?;
        let mut tasks = Vec::new();
        let mut params = RawObject::default();
        for _ in 0..UPSTREAM_LIST_PAGES_MAX {
            let method = Method::TasksList.as_str();
            let outcome =
                self.forward_unknown(scope, options, method, params.clone(), wait, sink);
            let Some(Outcome::Complete(page)) = outcome.transpose()? else { break };
            tasks.extend(tasks::owned_list(server, &page, |id| asker.owns(id)));
            let next = RawObject::parse(page.get()).ok();
            let next = next.and_then(|page| page.get("nextCursor").map(str::to_owned));
            match next {
                Some(cursor) if params.get("cursor") != Some(cursor.as_str()) => {
                    params.set("cursor", cursor);
                }
                Some(_) | None => break,
            }
        }
        Ok(tasks)
    }

    /// Passes a client's notification on: a known one to the servers where the client has a
    /// session of its own, an unknown one to the only server in scope. The latter costs a call,
    /// since the server's work for it is unknown; it is dropped where the key has no call left,
    /// or may use only some tools.
    pub fn notify(&self, scope: &Scope, session: &str, method: &str, params: Option<&str>) {
        let is_known =
            [notification::ROOTS_LIST_CHANGED, notification::PROGRESS].contains(&method);
        let servers = self.servers(scope);
        let may_pass = || servers.len() == 1 && scope.sees_all_tools();
        if !is_known && (!may_pass() || self.settings().spend(scope).is_err()) {
            return;
        }
        // Where only one principal can come, sessions still have shares, so that one client's
        // messages cannot keep another's out.
        let whose = scope.charged.clone();
        let whose = whose.unwrap_or_else(|| PrincipalId::Session(session.into()));
        for upstream in
            servers.iter().filter_map(|server| self.upstream_for(scope, server).ok())
        {
            if !upstream.notify(&whose, session, method, params) && !is_known {
                upstream.notify_shared(&whose, method, params);
            }
        }
    }

    /// Ends the sessions and subscriptions at servers of a client whose session has ended.
    pub fn close_client(&self, session: &Arc<str>) {
        // Tasks of a key stay: another session of it may ask for them.
        self.tasks.forget_all_of(&PrincipalId::Session(session.clone()));
        for upstream in self.upstreams.all_with_users() {
            upstream.close_client(session);
            // Its level may have been the lowest.
            if upstream.log_level().is_some() && upstream.user().is_none() {
                self.look_at_log_level(&upstream);
            }
        }
    }

    /// Ends the client's session with one server that the client may see no more.
    pub fn close_client_at(&self, session: &str, server: &ServerName) {
        for upstream in self.upstreams.with_users(server) {
            upstream.close_client(session);
        }
    }

    /// Ends what a key that has ended has at servers whose credentials are each user's own.
    pub fn end_users_of(&self, key: &str) {
        let is_its =
            |principal: &PrincipalId| matches!(principal, PrincipalId::Key(it) if **it == *key);
        self.upstreams.end_users(is_its);
    }

    /// Ends what users have at servers whose credentials are each user's own, where the present
    /// configuration gives the users no rights any more.
    pub fn end_users_without_rights(&self) {
        self.upstreams.end_users_without_rights();
    }

    /// Forgets the tasks of a key that has ended: another key may get its name.
    pub fn forget_tasks_of(&self, key: &Arc<str>) {
        self.tasks.forget_all_of(&PrincipalId::Key(key.clone()));
    }

    /// Forgets the tasks of a server that was removed, or replaced under its name.
    pub fn forget_tasks(&self, server: &ServerName) {
        self.tasks.forget_all_at(server);
        self.callers.forget(server);
    }

    /// True if the key or user has a bound on its calls per minute.
    pub fn is_metered(&self, scope: &Scope) -> bool {
        match &scope.principal.user {
            Some(user) => user.quota.is_some(),
            None => {
                let name = scope.principal.id.as_ref();
                name.is_some_and(|name| self.settings().quotas.contains_key(name))
            }
        }
    }

    /// The upstream of that name; none where a reload has ended it since the name was looked up.
    fn upstream(&self, server: &ServerName) -> Result<Arc<Upstream>, CallError> {
        let gone = || CallError::UnknownServer { name: server.to_string(), near: Vec::new() };
        self.upstreams.get(server).ok_or_else(gone)
    }
}

impl Settings {
    fn spend(&self, scope: &Scope) -> Result<(), CallError> {
        let principal = &scope.principal;
        let bucket = match &principal.user {
            Some(user) => user.quota.as_deref(),
            None => principal.id.as_ref().and_then(|name| self.quotas.get(name)),
        };
        let Some(bucket) = bucket else { return Ok(()) };
        let mut bucket = bucket.lock();
        bucket
            .take(Instant::now())
            .map_err(|retry_after| CallError::RateLimited { retry_after })
    }
}

/// True if a call of this method costs one of the key's calls, because a server works for it.
/// Answers that the gateway keeps, polls of a call that was paid for, and methods with other
/// bounds cost none.
fn costs_a_call(method: Method) -> bool {
    match method {
        Method::ToolsCall
        | Method::PromptsGet
        | Method::ResourcesRead
        | Method::ResourcesSubscribe
        | Method::ResourcesUnsubscribe
        | Method::CompletionComplete => true,
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
        | Method::SubscriptionsListen => false,
    }
}

/// An error's data that names the item as the client wrote it.
fn as_asked(data: Raw, key: &'static str, own: &str, asked: &str) -> Raw {
    match RawObject::parse(data.get()) {
        Ok(mut fields) if own != asked && fields.get(key) == Some(own) => {
            fields.set(key, asked);
            Raw::from_valid(fields.to_text())
        }
        _ => data,
    }
}

fn cut(text: &str) -> String {
    text.chars().take(LOGGED_BODY_CHARS).collect()
}
