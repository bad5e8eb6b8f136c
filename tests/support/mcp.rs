//! A client that speaks Streamable HTTP (2025-03-26 to 2025-11-25) and keeps its session.

use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};

use super::events::EventStream;
use super::http::{Connection, Request, Response, exchange};

/// The newest revision that has sessions.
pub const LATEST: &str = "2025-11-25";

/// What a client must accept.
pub const BOTH: &str = "application/json, text/event-stream";

/// The client. Every request goes over a connection of its own unless a test says otherwise.
#[derive(Debug)]
pub struct McpClient {
    address: String,
    path: String,
    revision: String,
    capabilities: Value,
    headers: Vec<(String, String)>,
    session: Option<String>,
    next_id: AtomicU64,
}

/// `initialize` at a revision of a client that can do nothing, as a whole message.
pub fn initialize_message(id: u64, revision: &str) -> Value {
    initialize(id, revision, &json!({}))
}

/// `initialize` of a client with these capabilities, as a whole message.
pub fn initialize(id: u64, revision: &str, capabilities: &Value) -> Value {
    json!({ "jsonrpc": "2.0", "id": id, "method": "initialize", "params": {
        "protocolVersion": revision,
        "capabilities": capabilities,
        "clientInfo": { "name": "by-hand", "version": "1" },
    }})
}

/// A request as a whole message.
pub fn request_message(id: &Value, method: &str, params: &Value) -> Value {
    json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params })
}

/// A notification as a whole message.
pub fn notification_message(method: &str, params: &Value) -> Value {
    json!({ "jsonrpc": "2.0", "method": method, "params": params })
}

impl McpClient {
    /// A client that has not said anything yet.
    pub fn new(address: &str) -> McpClient {
        McpClient {
            address: address.to_owned(),
            path: "/mcp".to_owned(),
            revision: LATEST.to_owned(),
            capabilities: json!({}),
            headers: Vec::new(),
            session: None,
            next_id: AtomicU64::new(1),
        }
    }

    /// A client in a session of the latest revision.
    #[track_caller]
    pub fn open(address: &str) -> McpClient {
        McpClient::new(address).opened()
    }

    pub fn at(mut self, path: &str) -> McpClient {
        path.clone_into(&mut self.path);
        self
    }

    pub fn speaking(mut self, revision: &str) -> McpClient {
        revision.clone_into(&mut self.revision);
        self
    }

    /// Declares these capabilities at `initialize`.
    pub fn declaring(mut self, capabilities: Value) -> McpClient {
        self.capabilities = capabilities;
        self
    }

    /// Sends this header with every request.
    pub fn with_header(mut self, name: &str, value: &str) -> McpClient {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn with_key(self, key: &str) -> McpClient {
        self.with_header("Authorization", &format!("Bearer {key}"))
    }

    /// A client that goes on in a session which was opened before.
    pub fn in_session(mut self, session: &str) -> McpClient {
        self.session = Some(session.to_owned());
        self
    }

    /// The whole handshake.
    #[track_caller]
    pub fn opened(mut self) -> McpClient {
        let answer = self.initialize().expect(200);
        let message = answer.message();
        assert!(message["result"].is_object(), "{answer}");
        let accepted = self.notify("notifications/initialized", &json!({}));
        accepted.expect(202);
        self
    }

    /// Sends `initialize` alone and remembers session and revision.
    #[track_caller]
    pub fn initialize(&mut self) -> Response {
        let message = initialize(self.fresh_id(), &self.revision, &self.capabilities);
        let asked = std::mem::take(&mut self.revision);
        let answer = exchange(&self.address, &self.post_request(&message.to_string()));
        self.session = answer.header("Mcp-Session-Id").map(str::to_owned);
        let negotiated = (answer.status() == 200)
            .then(|| answer.message()["result"]["protocolVersion"].as_str().map(str::to_owned));
        self.revision = negotiated.flatten().unwrap_or(asked);
        answer
    }

    pub fn session(&self) -> &str {
        self.session.as_deref().unwrap()
    }

    pub fn revision(&self) -> &str {
        &self.revision
    }

    pub fn fresh_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// The headers that this client sends by itself; none about the revision before
    /// `initialize` and for revisions that have no such header.
    fn dressed(&self, request: Request) -> Request {
        let mut request = request.headers(&self.headers);
        if let Some(session) = &self.session {
            request = request.header("Mcp-Session-Id", session);
            if self.revision.as_str() >= "2025-06-18" {
                request = request.header("MCP-Protocol-Version", &self.revision);
            }
        }
        request
    }

    /// A POST of this client that a test may change before it is sent.
    pub fn post_request(&self, body: &str) -> Request {
        self.dressed(Request::post_text(&self.path, body).header("Accept", BOTH))
    }

    /// Posts any text.
    #[track_caller]
    pub fn post(&self, body: &str) -> Response {
        exchange(&self.address, &self.post_request(body))
    }

    /// A request; gives the message that answers it.
    #[track_caller]
    pub fn request(&self, method: &str, params: &Value) -> Value {
        let id = json!(self.fresh_id());
        let answer = self.post(&request_message(&id, method, params).to_string()).expect(200);
        let message = answer.message();
        assert_eq!(message["id"], id, "{answer}");
        message
    }

    /// A request that must succeed; gives its result.
    #[track_caller]
    pub fn result(&self, method: &str, params: &Value) -> Value {
        let message = self.request(method, params);
        assert!(message.get("error").is_none(), "{message}");
        message["result"].clone()
    }

    /// `tools/call`, which must succeed; gives its result.
    #[track_caller]
    pub fn call(&self, tool: &str, arguments: &Value) -> Value {
        self.result("tools/call", &json!({ "name": tool, "arguments": arguments }))
    }

    /// The names of all pages of `tools/list`, in their order.
    #[track_caller]
    pub fn tool_names(&self) -> Vec<String> {
        self.tools().iter().map(|tool| tool["name"].as_str().unwrap().to_owned()).collect()
    }

    /// All pages of `tools/list`.
    #[track_caller]
    pub fn tools(&self) -> Vec<Value> {
        let mut tools = Vec::new();
        let mut params = json!({});
        loop {
            let page = self.result("tools/list", &params);
            tools.extend(page["tools"].as_array().unwrap().iter().cloned());
            match page.get("nextCursor") {
                Some(cursor) => params = json!({ "cursor": cursor }),
                None => return tools,
            }
        }
    }

    #[track_caller]
    pub fn notify(&self, method: &str, params: &Value) -> Response {
        self.post(&notification_message(method, params).to_string())
    }

    /// Cancels the request of that id.
    #[track_caller]
    pub fn cancel(&self, id: &Value) {
        let params = json!({ "requestId": id, "reason": "a test" });
        self.notify("notifications/cancelled", &params).expect(202);
    }

    /// Sends a message and leaves the answer unread.
    #[track_caller]
    pub fn start(&self, message: &Value) -> Connection {
        let mut connection = Connection::open(&self.address);
        connection.send(&self.post_request(&message.to_string()));
        connection
    }

    /// Begins a `tools/call`; gives the connection on which the answer will come.
    #[track_caller]
    pub fn start_call(&self, id: &Value, tool: &str, arguments: &Value) -> Connection {
        let params = json!({ "name": tool, "arguments": arguments });
        self.start(&request_message(id, "tools/call", &params))
    }

    /// [`McpClient::start_call`] with a progress token.
    #[track_caller]
    pub fn start_call_with_token(
        &self,
        id: &Value,
        tool: &str,
        arguments: &Value,
        token: &Value,
    ) -> Connection {
        let params = json!({
            "name": tool, "arguments": arguments, "_meta": { "progressToken": token },
        });
        self.start(&request_message(id, "tools/call", &params))
    }

    /// The GET of this client.
    pub fn listen_request(&self) -> Request {
        self.dressed(Request::get(&self.path).header("Accept", "text/event-stream"))
    }

    /// Opens the stream for messages that belong to no request.
    #[track_caller]
    pub fn listen(&self) -> EventStream {
        let mut connection = Connection::open(&self.address);
        connection.send(&self.listen_request());
        connection.into_events().expect_open()
    }

    /// Asks for what came on a stream after this event, and for what comes.
    #[track_caller]
    pub fn resume(&self, last_event_id: &str) -> EventStream {
        let mut connection = Connection::open(&self.address);
        connection.send(&self.listen_request().header("Last-Event-ID", last_event_id));
        connection.into_events().expect_open()
    }

    /// Ends the session.
    #[track_caller]
    pub fn end(&self) -> Response {
        exchange(&self.address, &self.dressed(Request::new("DELETE", &self.path)))
    }
}
