//! The tool by which a user signs in at a server whose credentials are each user's own. Until the
//! user has signed in, that server's tools are not known, and a client calls only what is listed:
//! so the lists have this tool in their place, and a call of it asks the user as any call would.

use std::sync::Arc;

use super::sign_in::{Beginner, SignInStatus};
use super::{CallOptions, Item, Pipeline};
use crate::access::policy::Scope;
use crate::catalogue::Catalogue;
use crate::catalogue::merge::ServerLabel;
use crate::catalogue::name::{Unnamed, of_gateway};
use crate::config::UpstreamConfig;
use crate::error::CallError;
use crate::protocol::call::{Call, CallSink, Kind, Outcome};
use crate::protocol::for_revision::Output;
use crate::protocol::method::Method;
use crate::protocol::raw::{Raw, RawObject, string};
use crate::protocol::server_name::ServerName;
use crate::telemetry;
use crate::upstream::{State, Upstream};
use crate::wait::Wait;

/// The tool's name behind that of its server.
const OWN_NAME: &str = "sign_in";

impl Pipeline {
    /// The tools for signing in at those servers that are `wanted`: one for each at which the
    /// user of the scope has not signed in. Of a server that has a tool of that name itself, that
    /// one is listed alone.
    pub(super) fn sign_in_tools(
        &self,
        scope: &Scope,
        catalogue: &Catalogue,
        wanted: impl Fn(&ServerName) -> bool,
    ) -> Vec<Arc<Item>> {
        let Some(user) = scope.user.as_deref() else { return Vec::new() };
        let tool = |server: &ServerName| {
            let upstream = self.offering_sign_in(scope, server)?;
            let name = name_of(catalogue, upstream.config());
            if has_itself(catalogue, server, &name) {
                return None;
            }
            upstream.offered_sign_in();
            Some(Arc::new(item(name, upstream.config())))
        };
        user.own_servers().filter(|it| wanted(it)).filter_map(tool).collect()
    }

    /// What instructions say of the servers at which the user of the scope has not signed in.
    pub(super) fn sign_in_instructions(&self, scope: &Scope) -> Vec<String> {
        let Some(user) = scope.user.as_deref() else { return Vec::new() };
        let catalogue = self.catalogue.current();
        let said = |server: &ServerName| {
            let upstream = self.offering_sign_in(scope, server)?;
            let name = name_of(&catalogue, upstream.config());
            Some(format!(
                "The user has not signed in at the server {server} yet: the tool {name} leads to \
                 that, and what the server offers is listed afterwards."
            ))
        };
        user.own_servers().filter(|it| scope.sees_server(it)).filter_map(said).collect()
    }

    /// The user's own upstream at a server, if the user has not signed in there and could.
    fn offering_sign_in(&self, scope: &Scope, server: &ServerName) -> Option<Arc<Upstream>> {
        Beginner::of(&scope.principal)?;
        let upstream = self.user_signing_in(scope, server)?;
        let offers = match upstream.authorization()?.status() {
            SignInStatus::NeedsSignIn { .. } | SignInStatus::UnderWay { .. } => true,
            // The server takes its time, and most likely wants a sign-in. A list that lacked the
            // tool would not be asked for again.
            SignInStatus::Unknown => matches!(upstream.state(), State::Starting { .. }),
            SignInStatus::SignedIn { .. } => !upstream.authorization()?.has_enough(),
            SignInStatus::Failing { .. } => false,
        };
        offers.then_some(upstream)
    }

    /// The user's own upstream at a server where each user signs in.
    fn user_signing_in(&self, scope: &Scope, server: &ServerName) -> Option<Arc<Upstream>> {
        if !self.upstreams.get(server)?.config().is_per_user() {
            return None;
        }
        let upstream = self.upstream_for(scope, server).ok()?;
        upstream.authorization().is_some().then_some(upstream)
    }

    /// The user's own upstream at the server whose tool for signing in is called.
    pub(super) fn signs_in_at(
        &self,
        scope: &Scope,
        options: CallOptions<'_>,
        call: &Call<'_>,
    ) -> Option<Arc<Upstream>> {
        scope.user.as_ref().filter(|_| call.method == Method::ToolsCall)?;
        let name = call.params.string("name").ok()??;
        let catalogue = self.catalogue_for(scope, options);
        let named = options.server.and_then(|server| self.server(scope, server).ok());
        let named = named.or_else(|| scope.only.clone());
        let server = match named {
            Some(server) => server,
            None => catalogue.owners.of(&name).filter(|it| scope.sees_server(it))?.clone(),
        };
        let upstream = self.user_signing_in(scope, &server)?;
        let is_its = name == OWN_NAME && (scope.only.is_some() || options.server.is_some())
            || name == name_of(&catalogue, upstream.config())
            || catalogue.owners.rests(&server, &name).any(|rest| rest == OWN_NAME);
        (is_its && !has_itself(&catalogue, &server, &name)).then_some(upstream)
    }

    /// Has the user sign in who called the tool for it.
    ///
    /// # Errors
    /// As [`Pipeline::ask_to_sign_in`].
    pub(super) fn sign_in_by_tool(
        &self,
        scope: &Scope,
        upstream: &Upstream,
        call: &Call<'_>,
        (wait, sink): (&Arc<Wait>, &dyn CallSink),
    ) -> Result<Outcome, CallError> {
        let server = upstream.name();
        telemetry::request::leads_to(server.as_str(), &format!("{server} {OWN_NAME}"));
        if !upstream.authorization().is_some_and(|it| it.has_enough()) {
            // Whoever calls has seen a list with this tool, perhaps one that another gateway at
            // the same address gave.
            upstream.offered_sign_in();
            self.ask_to_sign_in(scope, upstream, &call.caller, wait, sink)?;
        }
        self.await_user_lists(scope, Some(server), Some(wait));
        let catalogue = self.catalogue_for(scope, CallOptions::default());
        let tools = catalogue.items(Kind::Tool).iter();
        let n_tools = tools.filter(|it| it.server == *server).count();
        let said = format!(
            "You are signed in at {server}. {}",
            match n_tools {
                0 => "Its tools are listed as soon as it has told them.".to_owned(),
                1 => "It has 1 tool, which is listed now.".to_owned(),
                n => format!("It has {n} tools, which are listed now."),
            }
        );
        let text =
            format!("{{\"content\":[{{\"type\":\"text\",\"text\":{}}}]}}", string(&said));
        Ok(Outcome::Complete(Raw::from_valid(text)))
    }
}

/// The name under which the tool is listed at every endpoint.
fn name_of(catalogue: &Catalogue, config: &UpstreamConfig) -> String {
    let (server, alias) = (&config.name, config.alias.as_deref());
    let tool = Unnamed { server, shown: alias.unwrap_or(server.as_str()), own: OWN_NAME };
    of_gateway(&catalogue.owners, &catalogue.separator, tool)
}

/// True if a server lists a tool of that name: no other server can.
fn has_itself(catalogue: &Catalogue, server: &ServerName, name: &str) -> bool {
    let is_its = |item: &Item| item.server == *server;
    catalogue.called(Kind::Tool, name).iter().any(|item| is_its(item))
        || catalogue.find(Kind::Tool, name, is_its).is_some()
}

fn item(name: String, config: &UpstreamConfig) -> Item {
    let server = &config.name;
    let title = string(&format!("Sign in at {server}"));
    let about = config.description.as_ref().map(|it| format!(" ({it})")).unwrap_or_default();
    let description = format!(
        "Leads the user to the sign-in at {server}{about}, where each user has an account of \
         their own. The tools of {server} are listed once the user has signed in. It takes no \
         arguments."
    );
    let mut object = RawObject::default();
    object.set("name", string(&name));
    object.set("title", title.clone());
    object.set("description", string(&description));
    object.set("inputSchema", r#"{"type":"object","properties":{}}"#);
    object.set(
        "annotations",
        format!("{{\"title\":{title},\"destructiveHint\":false,\"idempotentHint\":true}}"),
    );
    let object = Raw::from_valid(object.to_text());
    let (description, alias) = (config.description.clone(), config.alias.clone());
    Item {
        kind: Kind::Tool,
        server: server.clone(),
        own: name.clone(),
        qualified: name.clone(),
        offered: name,
        offered_object: object.clone(),
        own_object: object,
        is_withheld: false,
        mirrors: Ok(Vec::new()),
        output: Output::Object,
        label: Arc::new(ServerLabel { description, alias }),
        alone: None,
    }
}
