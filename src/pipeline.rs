//! The life of one call: may it? whose is it? send it. Read this first.
//!
//! The doors in `downstream` make a [`Call`] of what came in and bytes of what comes back; all
//! else happens here, on the thread of the client's connection.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::access::policy::Scope;
use crate::access::quota::Bucket;
use crate::catalogue::{self, Catalogue, Resolution, Tool, name};
use crate::error::{CallError, Stage};
use crate::limits::NEAR_NAMES_MAX;
use crate::protocol::call::{Call, CallSink, Outcome, Outgoing};
use crate::protocol::raw::string;
use crate::protocol::server_name::ServerName;
use crate::upstream::{Status, Upstreams};

use crate::wait::Wait;

/// What lists and `/status` tell of a server, for the doors.
pub use crate::catalogue::Health;
pub use crate::upstream::State;

/// What a call goes through.
#[derive(Debug)]
pub struct Pipeline {
    catalogue: catalogue::Shared,
    upstreams: Arc<Upstreams>,
    quotas: HashMap<Arc<str>, Mutex<Bucket>>,
    told: Told,
}

/// What is logged of calls.
#[derive(Debug, Clone, Copy)]
pub struct Told {
    /// A line a call.
    pub calls: bool,
    /// The beginning of arguments and results; the log takes secrets out.
    pub bodies: bool,
}

/// How much of a body is logged, in characters.
const LOGGED_BODY_CHARS: usize = 512;

/// What a door adds to a call: how the client narrowed it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wish<'a> {
    /// The server that the tool must belong to.
    pub server: Option<&'a str>,
    /// A shorter time than the upstream's own.
    pub timeout: Option<Duration>,
}

/// The tools that a scope sees.
#[derive(Debug)]
pub struct ToolList {
    /// Sorted by the name that is shown.
    pub tools: Vec<Arc<Tool>>,
    /// Whether tools are shown as their server wrote them.
    pub own_names: bool,
    /// How each server in scope is.
    pub servers: Vec<(ServerName, Health)>,
}

impl ToolList {
    /// A tool's object as this list shows it.
    pub fn object<'a>(&self, tool: &'a Tool) -> &'a str {
        if self.own_names { tool.own_object.get() } else { tool.offered_object.get() }
    }
}

impl Pipeline {
    /// A pipeline over these parts. `quotas` are calls per minute by key name.
    pub fn new(
        catalogue: catalogue::Shared,
        upstreams: Arc<Upstreams>,
        quotas: impl IntoIterator<Item = (Arc<str>, u32)>,
        told: Told,
    ) -> Pipeline {
        let now = Instant::now();
        let quotas = quotas
            .into_iter()
            .map(|(name, per_minute)| (name, Mutex::new(Bucket::new(now, per_minute))))
            .collect();
        Pipeline { catalogue, upstreams, quotas, told }
    }

    /// Calls a tool.
    ///
    /// 1. May it? The key's calls for this minute.
    /// 2. Whose is it? One look-up in the catalogue, among what the scope sees.
    /// 3. Send it: the upstream's times, its own name for the tool, and nothing else changed.
    ///
    /// # Errors
    /// Whatever kept the upstream from answering.
    pub fn call_tool(
        &self,
        scope: &Scope,
        wish: Wish<'_>,
        call: Call<'_>,
        wait: &Arc<Wait>,
        sink: &mut dyn CallSink,
    ) -> Result<Outcome, CallError> {
        let started = Instant::now();
        let asked = match call.params.string("name") {
            Ok(Some(name)) => name,
            Ok(None) => return Err(CallError::Invalid("\"name\" is missing.".to_owned())),
            Err(_) => return Err(CallError::Invalid("\"name\" must be a string.".to_owned())),
        };
        if call.params.get("arguments").is_some_and(|text| !text.starts_with('{')) {
            return Err(CallError::Invalid("\"arguments\" must be an object.".to_owned()));
        }
        self.spend(scope)?;
        let tool = self.resolve(scope, wish.server, &asked)?;
        if self.told.bodies {
            let arguments = cut(call.params.get("arguments").unwrap_or("{}"));
            log::info!(target: "bodies", "{} is called with {arguments}", tool.qualified);
        }
        let answer = self.send(&tool, wish, call, wait, sink);
        if let (true, Ok(Outcome::Complete(result))) = (self.told.bodies, &answer) {
            log::info!(target: "bodies", "{} gave {}", tool.qualified, cut(result.get()));
        }
        if self.told.calls {
            log_call(scope, &tool, started.elapsed(), &answer);
        }
        answer
    }

    fn send(
        &self,
        tool: &Tool,
        wish: Wish<'_>,
        call: Call<'_>,
        wait: &Arc<Wait>,
        sink: &mut dyn CallSink,
    ) -> Result<Outcome, CallError> {
        let upstream = self.upstreams.get(&tool.server).ok_or(CallError::Internal)?;
        let config = upstream.config();
        let timeout = wish.timeout.map_or(config.timeout, |wish| wish.min(config.timeout));
        wait.set_timeout(timeout, config.timeout_max);
        let mut params = call.params;
        params.set("name", string(&tool.own));
        let outgoing = Outgoing {
            method: call.method,
            params,
            meta: call.meta,
            wants_progress: call.progress_token.is_some(),
        };
        upstream.request(&outgoing, wait, sink)
    }

    fn spend(&self, scope: &Scope) -> Result<(), CallError> {
        let bucket = scope.principal.name.as_ref().and_then(|name| self.quotas.get(name));
        let Some(bucket) = bucket else { return Ok(()) };
        let mut bucket = bucket.lock().unwrap_or_else(PoisonError::into_inner);
        bucket
            .take(Instant::now())
            .map_err(|retry_after| CallError::RateLimited { retry_after })
    }

    fn resolve(
        &self,
        scope: &Scope,
        server: Option<&str>,
        asked: &str,
    ) -> Result<Arc<Tool>, CallError> {
        let catalogue = self.catalogue.current();
        let server = match server {
            Some(server) => Some(self.server(scope, server)?),
            None => None,
        };
        let sees = |tool: &Tool| scope.sees_tool(&tool.server, &tool.qualified);
        let resolution = match (&scope.only, &server) {
            (Some(only), _) => catalogue.resolve_own(only, asked, sees),
            (None, Some(server)) => match catalogue.resolve_own(server, asked, sees) {
                Resolution::Found(tool) => Resolution::Found(tool),
                Resolution::Ambiguous(_) | Resolution::Unknown(_) => {
                    catalogue.resolve(asked, |tool| tool.server == *server && sees(tool))
                }
            },
            (None, None) => catalogue.resolve(asked, sees),
        };
        match resolution {
            Resolution::Found(tool) => Ok(tool),
            Resolution::Ambiguous(candidates) => {
                Err(CallError::AmbiguousTool { name: asked.to_owned(), candidates })
            }
            Resolution::Unknown(near) => {
                let server = server.or(scope.only.clone());
                Err(unreached(&catalogue, scope, server.as_ref(), asked)
                    .unwrap_or_else(|| CallError::UnknownTool { name: asked.to_owned(), near }))
            }
        }
    }

    /// The server of that name, if the scope sees it.
    ///
    /// # Errors
    /// There is none, or the scope may not know of it: both look the same.
    pub fn server(&self, scope: &Scope, asked: &str) -> Result<ServerName, CallError> {
        let catalogue = self.catalogue.current();
        match catalogue.servers.get_key_value(asked) {
            Some((server, _)) if scope.sees_server(server) => Ok(server.clone()),
            _ => {
                let seen = catalogue.servers.keys().filter(|server| scope.sees_server(server));
                let near = name::near(asked, seen.map(ServerName::as_str), NEAR_NAMES_MAX);
                Err(CallError::UnknownServer { name: asked.to_owned(), near })
            }
        }
    }

    /// Whether there is a server of that name.
    pub fn knows(&self, server: &ServerName) -> bool {
        self.upstreams.get(server).is_some()
    }

    /// The servers that the scope sees.
    pub fn servers(&self, scope: &Scope) -> Vec<ServerName> {
        let catalogue = self.catalogue.current();
        catalogue.servers.keys().filter(|server| scope.sees_server(server)).cloned().collect()
    }

    /// The tools that the scope sees, of one server or of all.
    ///
    /// # Errors
    /// The scope sees no such server.
    pub fn list_tools(
        &self,
        scope: &Scope,
        server: Option<&str>,
    ) -> Result<ToolList, CallError> {
        let server = match server {
            Some(server) => Some(self.server(scope, server)?),
            None => None,
        };
        let wanted = |name: &ServerName| {
            server.as_ref().is_none_or(|server| server == name) && scope.sees_server(name)
        };
        let catalogue: Arc<Catalogue> = self.catalogue.current();
        let mut tools: Vec<Arc<Tool>> = catalogue
            .tools
            .iter()
            .filter(|tool| {
                wanted(&tool.server) && scope.sees_tool(&tool.server, &tool.qualified)
            })
            .cloned()
            .collect();
        let own_names = scope.only.is_some();
        if own_names {
            tools.sort_by(|a, b| a.own.cmp(&b.own));
        }
        let servers = catalogue
            .servers
            .iter()
            .filter(|(name, _)| wanted(name))
            .map(|(name, server)| (name.clone(), server.health.clone()))
            .collect();
        Ok(ToolList { tools, own_names, servers })
    }

    /// What `/status` tells of each server that the scope sees.
    pub fn status(&self, scope: &Scope) -> Vec<ServerStatus> {
        let catalogue = self.catalogue.current();
        let of = |server: &ServerName| {
            catalogue.tools.iter().filter(|tool| tool.server == *server).count()
        };
        self.upstreams
            .iter()
            .filter(|upstream| scope.sees_server(upstream.name()))
            .map(|upstream| ServerStatus {
                server: upstream.name().clone(),
                description: upstream.config().description.clone(),
                required: upstream.config().required,
                tools: of(upstream.name()),
                left_out: catalogue
                    .servers
                    .get(upstream.name())
                    .map_or(0, |server| server.left_out),
                upstream: upstream.status(),
            })
            .collect()
    }

    /// Required servers that have not answered yet.
    pub fn missing(&self) -> Vec<ServerName> {
        let catalogue = self.catalogue.current();
        let has_answered =
            |name: &ServerName| catalogue.servers.get(name).is_some_and(|s| s.has_answered);
        self.upstreams
            .iter()
            .filter(|upstream| upstream.config().required && !has_answered(upstream.name()))
            .map(|upstream| upstream.name().clone())
            .collect()
    }
}

/// What `/status` tells of a server.
#[derive(Debug)]
pub struct ServerStatus {
    /// Its NAME.
    pub server: ServerName,
    /// For people.
    pub description: Option<String>,
    /// Whether `/readyz` waits for it.
    pub required: bool,
    /// Tools offered.
    pub tools: usize,
    /// Tools listed but not offered.
    pub left_out: usize,
    /// How it is.
    pub upstream: Status,
}

/// The failure of a server that has never answered, if the tool that is asked for would be its:
/// then nobody can say that there is no such tool.
fn unreached(
    catalogue: &Catalogue,
    scope: &Scope,
    server: Option<&ServerName>,
    asked: &str,
) -> Option<CallError> {
    let mut seen = catalogue.servers.iter().filter(|(name, _)| scope.sees_server(name));
    let (name, server) = match server {
        Some(wanted) => seen.find(|(name, _)| *name == wanted)?,
        None if catalogue.servers.len() == 1 => seen.next()?,
        None => seen.find(|(_, server)| asked.starts_with(&server.prefix))?,
    };
    if server.has_answered {
        return None;
    }
    let (stage, message) = match &server.health {
        Health::Failed { stage, message } => (*stage, message.clone()),
        Health::Connecting | Health::Well => (Stage::Connect, "it has not answered yet".into()),
    };
    Some(CallError::UpstreamFailed { server: name.clone(), stage, message })
}

fn cut(text: &str) -> String {
    text.chars().take(LOGGED_BODY_CHARS).collect()
}

fn log_call(scope: &Scope, tool: &Tool, took: Duration, answer: &Result<Outcome, CallError>) {
    let outcome = match answer {
        Ok(Outcome::Complete(_)) => "complete".to_owned(),
        Ok(Outcome::Error { error, .. }) => format!("error {}", error.code),
        Err(error) => error.to_string(),
    };
    let key = scope.principal.name.as_deref().unwrap_or("-");
    log::info!(target: "access", "{key} {} {} ms: {outcome}", tool.qualified, took.as_millis());
}
