//! A scripted server behind the gateway, the same over every transport.

use std::io::ErrorKind;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::gateway::{Directory, Gateway, stdio};
use super::script::{Received, Script};
use super::upstream_http::HttpUpstream;
use super::upstream_modern::ModernUpstream;
use super::upstream_sse::SseUpstream;
use super::wait_for;

/// How a server is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    Http,
    Sse,
    Stdio,
}

/// Which kind of revisions a server or a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Era {
    Legacy,
    Modern,
}

/// All of them.
pub const TRANSPORTS: [Transport; 3] = [Transport::Http, Transport::Sse, Transport::Stdio];

enum Server {
    Http(HttpUpstream),
    Sse(SseUpstream),
    Modern(ModernUpstream),
    /// The gateway starts it, perhaps several times.
    Stdio(Era),
}

/// The server.
pub struct Behind {
    server: Server,
    label: String,
    /// Holds the children's journal.
    directory: Directory,
}

impl Behind {
    /// A server that serves at once, with everything.
    pub fn start(transport: Transport) -> Behind {
        Behind::labelled(transport, "scripted")
    }

    /// [`Behind::start`] with a name that its answers carry.
    pub fn labelled(transport: Transport, label: &str) -> Behind {
        Behind::of(Era::Legacy, transport, label)
    }

    /// [`Behind::start`] of either era.
    pub fn of(era: Era, transport: Transport, label: &str) -> Behind {
        let server = match (transport, era) {
            (Transport::Http, Era::Legacy) => Server::Http(HttpUpstream::start()),
            (Transport::Http, Era::Modern) => Server::Modern(ModernUpstream::start()),
            (Transport::Sse, Era::Legacy) => Server::Sse(SseUpstream::start()),
            (Transport::Sse, Era::Modern) => panic!("HTTP+SSE is of 2024-11-05"),
            (Transport::Stdio, era) => Server::Stdio(era),
        };
        let behind = Behind { server, label: label.to_owned(), directory: Directory::new() };
        if let Some(script) = behind.script() {
            script.set_label(label);
        }
        behind
    }

    /// What `mcp_servers` says of it.
    pub fn config(&self) -> Value {
        match &self.server {
            Server::Http(upstream) => json!({ "url": upstream.url(), "transport": "http" }),
            Server::Sse(upstream) => json!({ "url": upstream.url(), "transport": "sse" }),
            Server::Modern(upstream) => json!({ "url": upstream.url(), "transport": "http" }),
            Server::Stdio(era) => {
                let journal = format!("--journal={}", self.journal().display());
                let label = format!("--label={}", self.label);
                match era {
                    Era::Legacy => stdio(&[&journal, &label]),
                    Era::Modern => stdio(&[&journal, &label, "--era=modern"]),
                }
            }
        }
    }

    /// A gateway before this server alone, which is called `s`; `extra` is added to the
    /// configuration.
    #[track_caller]
    pub fn gateway(&self, extra: &Value) -> Gateway {
        let mut config = json!({ "mcp_servers": { "s": self.config() } });
        for (key, value) in extra.as_object().into_iter().flatten() {
            config[key] = value.clone();
        }
        Gateway::started(config)
    }

    fn journal(&self) -> PathBuf {
        self.directory.path().join("journal")
    }

    /// The server itself, where it is in this process.
    pub fn script(&self) -> Option<&Script> {
        match &self.server {
            Server::Http(upstream) => Some(upstream),
            Server::Sse(upstream) => Some(upstream),
            Server::Modern(upstream) => Some(upstream),
            Server::Stdio(_) => None,
        }
    }

    /// Whether the `slow` call of that label was begun and then cancelled, by word or by the end
    /// of its connection.
    pub fn has_cancelled(&self, label: &str) -> bool {
        if let Some(script) = self.script() {
            return script.seen().cancelled.iter().any(|cancelled| cancelled == label);
        }
        let received = self.received();
        let call = of_method(&received, "tools/call")
            .into_iter()
            .find(|call| call.message["params"]["arguments"]["label"] == label);
        call.is_some_and(|call| {
            let cancelled = of_method(&received, "notifications/cancelled");
            cancelled.iter().any(|it| {
                it.peer == call.peer && it.message["params"]["requestId"] == call.message["id"]
            })
        })
    }

    /// Everything that it has received so far, in its order.
    pub fn received(&self) -> Vec<Received> {
        if let Some(script) = self.script() {
            return script.received();
        }
        let journal = match std::fs::read_to_string(self.journal()) {
            Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
            read => read.unwrap(),
        };
        // The last line may not be there whole yet.
        let whole = journal.rfind('\n').map_or("", |end| &journal[..end]);
        let lines = whole.lines().filter_map(|line| line.split_once(' '));
        lines
            .filter_map(|(peer, text)| {
                let message = serde_json::from_str(text).ok()?;
                Some(Received { peer: peer.to_owned(), message, text: text.to_owned() })
            })
            .collect()
    }

    /// Waits until it has received something in which `pick` finds what it looks for.
    #[track_caller]
    pub fn wait_received<T>(&self, what: &str, pick: impl Fn(&[Received]) -> Option<T>) -> T {
        wait_for(what, || pick(&self.received()))
    }
}

/// The answers to the server's own questions among what was received, without those to pings.
pub fn answers(received: &[Received]) -> Vec<Received> {
    let is_answer = |received: &&Received| {
        received.message.get("method").is_none() && received.message["result"] != json!({})
    };
    received.iter().filter(is_answer).cloned().collect()
}

/// The messages of that method among what was received.
pub fn of_method(received: &[Received], method: &str) -> Vec<Received> {
    let is_it = |received: &&Received| received.message["method"] == method;
    received.iter().filter(is_it).cloned().collect()
}

/// What stands under `params` of the messages of that method among what was received.
pub fn params_of(received: &[Received], method: &str) -> Vec<Value> {
    of_method(received, method).iter().map(|it| it.message["params"].clone()).collect()
}
