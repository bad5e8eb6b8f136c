//! A client inside the program: `tools` and `call` use it to talk to the servers of a
//! configuration, or to another gateway, as any client over lines does.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, bounded};
use serde_json::{Value, json};

use super::schema::member;
use crate::config::{Config, Prefix};
use crate::downstream::list_pages::UPSTREAMS_META;
use crate::downstream::stdio::LineClient;
use crate::downstream::stdio::line_queue::Next;
use crate::gateway::Gateway;
use crate::handover::Inheritance;
use crate::listening::Clients;
use crate::protocol::jsonrpc::{self, Message, RequestId, RpcError, code};
use crate::protocol::method::{Method, notification};
use crate::protocol::revision::Revision;
use crate::protocol::server_name::ServerName;
use crate::session::EncodedEvent;
use crate::telemetry::log::{self, LogGuard};
use crate::thread::{self, SignalWatch, StopReason};

/// The time between two checks for an interruption by the user.
const TICK: Duration = Duration::from_millis(100);
/// The time for which servers' first answers are awaited: a person looks on, and children may
/// have to be downloaded first.
const FIRST_LIST: Duration = Duration::from_secs(60);
/// The most pages of a list that are read; a server that gives more goes in a circle.
const PAGES_MAX: usize = 1000;
const STOP_REASONS_MAX: usize = 8;

/// The receiver of messages that come before an answer.
pub(super) trait Hears {
    /// Takes a server's progress.
    fn progress(&mut self, params: &Value);
    /// Takes a server's log message.
    fn log(&mut self, params: &Value);
    /// Takes a server's question; returns the user's answer.
    ///
    /// # Errors
    /// The question cannot be asked here.
    fn ask(&mut self, method: &str, params: &Value) -> Result<Value, RpcError>;
}

/// A receiver that drops messages and refuses questions.
pub(super) struct Deaf;

impl Hears for Deaf {
    fn progress(&mut self, _: &Value) {}
    fn log(&mut self, _: &Value) {}
    fn ask(&mut self, method: &str, _: &Value) -> Result<Value, RpcError> {
        Err(RpcError::new(code::METHOD_NOT_FOUND, format!("Method not found: {method}")))
    }
}

/// The reason why there is no answer.
#[derive(Debug)]
pub(super) enum NoAnswer {
    /// The user has interrupted.
    Interrupted,
    /// The gateway cannot be started, or has ended.
    Broken(String),
}

impl From<io::Error> for NoAnswer {
    fn from(error: io::Error) -> NoAnswer {
        NoAnswer::Broken(error.to_string())
    }
}

/// A request's result, a JSON text, or the error of its answer.
type Answered = Result<String, RpcError>;

/// The client. Fields are dropped in this order.
pub(super) struct Client {
    gateway: Option<Gateway>,
    lines: Arc<LineClient>,
    stopped: Receiver<StopReason>,
    last_id: u64,
    _signals: SignalWatch,
    _log: LogGuard,
}

/// Narrows a configuration to one server alone, or leaves all. Offered names stay the same.
pub(super) fn narrowed(config: &mut Config, server: Option<&ServerName>) {
    config.first_list = config.first_list.max(FIRST_LIST);
    config.log.level = ::log::LevelFilter::Error;
    if config.upstreams.len() > 1 && config.naming.prefix == Prefix::Auto {
        config.naming.prefix = Prefix::Always;
    }
    if let Some(server) = server {
        config.upstreams.retain(|upstream| upstream.name == *server);
    }
    for upstream in &mut config.upstreams {
        // A server that fails is reported, and not awaited.
        Arc::make_mut(upstream).required = false;
    }
}

impl Client {
    /// Starts a gateway and opens a session with it, as a client with these capabilities.
    ///
    /// # Errors
    /// The gateway cannot be started.
    pub(super) fn open(config: Config, capabilities: &Value) -> Result<Client, NoAnswer> {
        let log = log::start(config.log)?;
        log.control().set_secrets(&config.secrets());
        let (stop, stopped) = bounded(STOP_REASONS_MAX);
        let signals = thread::watch_signals(stop.clone(), None)?;
        let alone = Inheritance::default();
        let gateway =
            Gateway::start(config, Clients::OneOfFewLines, alone, stop, stopped.clone())?;
        let Some(lines) = gateway.line_client().cloned() else {
            return Err(NoAnswer::Broken("no client of lines is served".to_owned()));
        };
        let gateway = Some(gateway);
        let mut client =
            Client { gateway, lines, stopped, last_id: 0, _signals: signals, _log: log };
        let params = json!({
            "protocolVersion": Revision::LATEST_LEGACY.as_str(),
            "capabilities": capabilities,
            "clientInfo": { "name": "trunkline", "version": env!("CARGO_PKG_VERSION") },
        });
        match client.request(Method::Initialize, &params, &mut Deaf)? {
            Ok(_) => Ok(client),
            Err(error) => Err(NoAnswer::Broken(error.message)),
        }
    }

    fn send(&self, message: &str) {
        self.lines.take(message.as_bytes());
    }

    /// Sends a request and waits for its answer. If the user interrupts, the request is
    /// cancelled.
    ///
    /// # Errors
    /// There is no answer.
    pub(super) fn request(
        &mut self,
        method: Method,
        params: &Value,
        visible_servers: &mut dyn Hears,
    ) -> Result<Answered, NoAnswer> {
        self.last_id += 1;
        let id = RequestId::from(self.last_id);
        self.send(&jsonrpc::request(&id, method.as_str(), Some(&params.to_string())));
        loop {
            match self.lines.out().next(Some(Instant::now() + TICK)) {
                Next::Event(event) => {
                    if let Some(answered) = self.hear(&event, &id, visible_servers) {
                        return Ok(answered);
                    }
                }
                Next::End => {
                    return Err(NoAnswer::Broken("the gateway has ended".to_owned()));
                }
                Next::Nothing => (),
            }
            match self.stopped.try_recv() {
                Ok(StopReason::Signal | StopReason::InputEnded) => {
                    let params = json!({ "requestId": self.last_id, "reason": "interrupted" });
                    let params = params.to_string();
                    self.send(&jsonrpc::notification(notification::CANCELLED, Some(&params)));
                    return Err(NoAnswer::Interrupted);
                }
                Ok(StopReason::OwnerEnded(name)) => {
                    return Err(NoAnswer::Broken(format!("the thread {name} has ended")));
                }
                Ok(StopReason::Upgrade) | Err(_) => (),
            }
        }
    }

    /// Handles a message that has come; returns the answer if the message is that.
    fn hear(
        &self,
        event: &EncodedEvent,
        awaited: &RequestId,
        visible_servers: &mut dyn Hears,
    ) -> Option<Answered> {
        let mut pieces = Vec::new();
        event.add_lines_to(&mut pieces);
        let text = String::from_utf8(pieces.concat()).ok()?;
        let value = |params: Option<std::borrow::Cow<'_, str>>| {
            let params = params.and_then(|text| serde_json::from_str(&text).ok());
            params.unwrap_or(Value::Null)
        };
        match Message::parse(text.trim_end()).ok()? {
            Message::Response { id, outcome } if id.as_ref() == Some(awaited) => {
                return Some(outcome.map(std::borrow::Cow::into_owned));
            }
            Message::Response { .. } => (),
            Message::Notification { method, params } => match method.as_str() {
                notification::PROGRESS => visible_servers.progress(&value(params)),
                notification::MESSAGE => visible_servers.log(&value(params)),
                _ => (),
            },
            Message::Request { id, method, params } => {
                let answer = match Method::parse(&method) {
                    Some(Method::Ping) => Ok(json!({})),
                    Some(_) | None => visible_servers.ask(&method, &value(params)),
                };
                self.send(&match answer {
                    Ok(result) => jsonrpc::response(&id, &result.to_string()),
                    Err(error) => jsonrpc::error_response(Some(&id), &error),
                });
            }
        }
        None
    }

    /// All tools, and the servers that are not well.
    ///
    /// # Errors
    /// There is no answer.
    pub(super) fn tools(&mut self) -> Result<Result<Listed, RpcError>, NoAnswer> {
        let mut listed = Listed::default();
        let mut params = json!({});
        for _ in 0..PAGES_MAX {
            let page = match self.request(Method::ToolsList, &params, &mut Deaf)? {
                Ok(page) => page,
                Err(error) => return Ok(Err(error)),
            };
            let page: Value = serde_json::from_str(&page).unwrap_or_default();
            listed
                .tools
                .extend(member(&page, "tools").as_array().into_iter().flatten().cloned());
            let unwell = member(member(&page, "_meta"), UPSTREAMS_META);
            listed.unwell = unwell.as_array().cloned().unwrap_or_default();
            match member(&page, "nextCursor").as_str() {
                Some(cursor) => params = json!({ "cursor": cursor }),
                None => break,
            }
        }
        Ok(Ok(listed))
    }
}

/// The result of listing tools.
#[derive(Debug, Default)]
pub(super) struct Listed {
    pub(super) tools: Vec<Value>,
    /// Servers that have not answered, or not yet.
    pub(super) unwell: Vec<Value>,
}

impl Drop for Client {
    fn drop(&mut self) {
        if let Some(gateway) = self.gateway.take() {
            gateway.stop(None);
        }
    }
}
