//! What the gateway itself says, to clients and to servers of every revision, held against the
//! published schemas. They are not in this repository: `MCP_SPEC_DIR` names the folder that has
//! them, and without it these tests say so and pass.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::DEADLINE;
use crate::support::behind::{Behind, Era, Transport};
use crate::support::gateway::Gateway;
use crate::support::mcp::LATEST;
use crate::support::script::MODERN;

use published::{Checked, are_here, revision_of};

mod differences;
mod examples;
mod malformed;
mod modern;
mod published;
mod sessions;

/// A server that speaks one revision.
#[derive(Debug, Clone, Copy)]
struct Server {
    revision: &'static str,
    transport: Transport,
}

/// Every revision over HTTP, and both eras over what else they have.
const SERVERS: [Server; 8] = [
    Server { revision: "2024-11-05", transport: Transport::Http },
    Server { revision: "2025-03-26", transport: Transport::Http },
    Server { revision: "2025-06-18", transport: Transport::Http },
    Server { revision: LATEST, transport: Transport::Http },
    Server { revision: LATEST, transport: Transport::Sse },
    Server { revision: LATEST, transport: Transport::Stdio },
    Server { revision: MODERN, transport: Transport::Http },
    Server { revision: MODERN, transport: Transport::Stdio },
];

/// The lists, each with the key of its items.
const LISTS: [&str; 4] =
    ["tools/list", "prompts/list", "resources/list", "resources/templates/list"];

/// The results that all revisions have.
const RESULTS: [&str; 8] = [
    "tools/list: ListToolsResult",
    "prompts/list: ListPromptsResult",
    "resources/list: ListResourcesResult",
    "resources/templates/list: ListResourceTemplatesResult",
    "tools/call: CallToolResult",
    "prompts/get: GetPromptResult",
    "resources/read: ReadResourceResult",
    "completion/complete: CompleteResult",
];

/// What every server is asked by clients of both eras, with what must be answered.
const PLAIN: [(&str, &str); 4] = [
    ("tools/call", r#"{"name":"echo","arguments":{"message":"m"}}"#),
    ("prompts/get", r#"{"name":"greet","arguments":{"name":"n"}}"#),
    ("resources/read", r#"{"uri":"file:///notes/plain.txt"}"#),
    (
        "completion/complete",
        r#"{"ref":{"type":"ref/prompt","name":"greet"},"argument":{"name":"name","value":"v"}}"#,
    ),
];

/// What no server has.
const ABSENT: [(&str, &str); 3] = [
    ("tools/call", r#"{"name":"nobody-has-this"}"#),
    ("prompts/get", r#"{"name":"nobody-has-this"}"#),
    ("tools/list", r#"{"cursor":"of nobody"}"#),
];

/// A method that no revision has.
const UNKNOWN: &str = "vendor/unknown";

impl Server {
    fn is_modern(self) -> bool {
        self.revision == MODERN
    }

    /// The server, with a gateway before it whose lists have a page an item.
    fn start(self) -> (Behind, Gateway) {
        let era = if self.is_modern() { Era::Modern } else { Era::Legacy };
        let behind = Behind::of(era, self.transport, "scripted");
        if let (Era::Legacy, Some(script)) = (era, behind.script()) {
            script.set_revisions(&[self.revision]);
        }
        let gateway = behind.gateway(&json!({ "limits": { "page_items": 1 } }));
        (behind, gateway)
    }

    /// What it can ask of a client: the arguments of the tool `ask`, all of that revision.
    fn questions(self) -> Vec<Value> {
        let text = json!({ "type": "text", "text": "Who are you?" });
        let mut questions = vec![
            json!({ "method": "sampling/createMessage", "params": {
                "messages": [{ "role": "user", "content": text }], "maxTokens": 100,
            }}),
            json!({ "method": "roots/list" }),
        ];
        if self.revision >= "2025-06-18" {
            let schema = json!({
                "type": "object", "required": ["zulu"],
                "properties": { "zulu": { "type": "string", "title": "Name" } },
            });
            questions.push(json!({ "method": "elicitation/create", "params": {
                "message": "Who are you?", "requestedSchema": schema,
            }}));
        }
        if self.revision >= LATEST {
            questions.push(json!({ "method": "elicitation/create", "mode": "url" }));
        }
        questions
    }

    /// Holds everything that it was sent against the schema of the revision that it was sent in.
    #[track_caller]
    fn check_sent(self, behind: &Behind) {
        let mut sent: BTreeMap<String, Checked> = BTreeMap::new();
        for received in behind.received() {
            let message = &received.message;
            let revision = revision_of(message, self.revision);
            let checked =
                sent.entry(revision.to_owned()).or_insert_with(|| Checked::against(revision));
            match message.get("method") {
                Some(method) if method == UNKNOWN => checked.passed_on(message),
                Some(_) => checked.message(message),
                None => checked.response(message),
            }
        }
        let mut wanted = LISTS.to_vec();
        wanted.extend(PLAIN.map(|(method, _)| method));
        if self.is_modern() {
            wanted.extend(["server/discover", "subscriptions/listen", "tools/call again"]);
        } else {
            wanted.extend(["notifications/initialized", "notifications/roots/list_changed"]);
            wanted.extend(["resources/subscribe", "resources/unsubscribe", "result"]);
            wanted.extend(["logging/setLevel"]);
        }
        // Over a modern server's HTTP a cancellation is the end of the connection.
        if !self.is_modern() || self.transport == Transport::Stdio {
            wanted.push("notifications/cancelled");
        }
        for (revision, checked) in &sent {
            checked.done(if revision == self.revision { &wanted } else { &[] });
        }
        assert!(sent.contains_key(self.revision), "{self:?}");
        if !self.is_modern() {
            sent[LATEST].done(&["initialize"]);
        }
        // Over HTTP a server with sessions refuses it before it is looked at.
        if self.transport == Transport::Stdio {
            sent[MODERN].done(&["server/discover"]);
        }
    }
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

/// Does something again and again until it has led to something: a stream may just be opening.
#[track_caller]
fn again_until(what: &str, mut act: impl FnMut(usize), mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + DEADLINE;
    for n in 0.. {
        act(n);
        let next = Instant::now() + Duration::from_millis(100);
        while Instant::now() < next {
            if is_so() {
                return;
            }
            std::thread::park_timeout(Duration::from_millis(5));
        }
        assert!(Instant::now() < end, "never: {what}");
    }
}
