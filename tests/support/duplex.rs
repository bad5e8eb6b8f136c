//! A client that keeps both directions open, the same over either door: it hears everything that
//! is said to it, on the streams of its requests and on the stream of its session, and answers
//! what it is asked.

use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::{Value, json};

use super::ears::{Answering, Ears, Line};
use super::events::EventStream;
use super::gateway::Gateway;
use super::http::Response;
use super::in_background;
use super::mcp::{LATEST, McpClient, initialize, notification_message, request_message};
use super::mcp_sse::SseClient;

pub use super::ears::{Heard, Say, Via, all_capabilities, answer_of};

/// The transport that a client comes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    Streamable,
    Sse,
}

/// Both of them.
pub const DOORS: [Door; 2] = [Door::Streamable, Door::Sse];

/// How a client is to be opened.
pub struct Builder {
    address: String,
    path: Option<String>,
    door: Door,
    headers: Vec<(String, String)>,
    capabilities: Value,
    revision: String,
    listens: bool,
    answering: Answering,
}

/// A client in a session. Dropping it closes its stream and says nothing.
pub struct Duplex {
    ears: Arc<Ears>,
    initialized: Value,
    stream: Mutex<Option<TcpStream>>,
}

impl Builder {
    /// At another path than the door's usual one.
    pub fn at(mut self, path: &str) -> Builder {
        self.path = Some(path.to_owned());
        self
    }

    pub fn header(mut self, name: &str, value: &str) -> Builder {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn key(self, key: &str) -> Builder {
        self.header("Authorization", &format!("Bearer {key}"))
    }

    pub fn declaring(mut self, capabilities: Value) -> Builder {
        self.capabilities = capabilities;
        self
    }

    pub fn speaking(mut self, revision: &str) -> Builder {
        revision.clone_into(&mut self.revision);
        self
    }

    /// Does not open the GET stream of Streamable HTTP.
    pub fn without_stream(mut self) -> Builder {
        self.listens = false;
        self
    }

    /// How it answers what it is asked.
    pub fn answering(
        mut self,
        answering: impl Fn(&Value) -> Say + Send + Sync + 'static,
    ) -> Builder {
        self.answering = Arc::new(answering);
        self
    }

    /// Declares everything and answers with its name.
    pub fn named(self, name: &str) -> Builder {
        let name = name.to_owned();
        let answering = move |question: &Value| answer_of(&name, question);
        self.declaring(all_capabilities()).answering(answering)
    }

    #[track_caller]
    pub fn open(self) -> Duplex {
        match self.door {
            Door::Streamable => self.open_streamable(),
            Door::Sse => self.open_sse(),
        }
    }

    #[track_caller]
    fn open_streamable(self) -> Duplex {
        let mut client = McpClient::new(&self.address)
            .at(self.path.as_deref().unwrap_or("/mcp"))
            .declaring(self.capabilities)
            .speaking(&self.revision);
        for (name, value) in &self.headers {
            client = client.with_header(name, value);
        }
        let answer = client.initialize().expect(200);
        let initialized = answer.message()["result"].clone();
        client.notify("notifications/initialized", &json!({})).expect(202);
        let stream = self.listens.then(|| client.listen());
        let duplex = Duplex::new(Line::Streamable(client), self.answering, initialized);
        if let Some(stream) = stream {
            duplex.listen(stream);
        }
        duplex
    }

    #[track_caller]
    fn open_sse(self) -> Duplex {
        let path = self.path.as_deref().unwrap_or("/mcp/sse");
        let client = SseClient::connect_with(&self.address, path, &self.headers);
        let (address, headers) = (self.address, self.headers);
        let line = Line::Sse { address, endpoint: client.endpoint, headers };
        let mut duplex = Duplex::new(line, self.answering, Value::Null);
        duplex.listen(client.stream);
        let message = initialize(0, &self.revision, &self.capabilities);
        duplex.ears.post(&message).expect(202);
        duplex.initialized = duplex.ears.wait_for_answer(&json!(0))["result"].clone();
        duplex.notify("notifications/initialized", &json!({}));
        duplex
    }
}

impl Duplex {
    /// A client of the server at that address.
    pub fn of(address: &str, door: Door) -> Builder {
        Builder {
            address: address.to_owned(),
            path: None,
            door,
            headers: Vec::new(),
            capabilities: json!({}),
            revision: LATEST.to_owned(),
            listens: true,
            answering: Arc::new(|_| Say::Error(-32601, "Method not found")),
        }
    }

    /// A client of the gateway.
    pub fn to(gateway: &Gateway, door: Door) -> Builder {
        Duplex::of(gateway.address(), door)
    }

    fn new(line: Line, answering: Answering, initialized: Value) -> Duplex {
        let (heard, changed) = (Mutex::default(), Condvar::new());
        let ears = Arc::new(Ears { line, answering, heard, changed });
        Duplex { ears, initialized, stream: Mutex::new(None) }
    }

    fn listen(&self, mut stream: EventStream) {
        *self.stream.lock().unwrap() = Some(stream.socket());
        let ears = self.ears.clone();
        drop(in_background(move || {
            // Until it ends, or the client is dropped.
            while let Ok(Some(event)) = stream.try_next(Duration::from_secs(600)) {
                if !event.data.is_empty() {
                    ears.hear(Via::Stream, event.data);
                }
            }
        }));
    }

    /// The id of its session, over Streamable HTTP.
    #[track_caller]
    pub fn session(&self) -> String {
        match &self.ears.line {
            Line::Streamable(client) => client.session().to_owned(),
            Line::Sse { .. } => panic!("HTTP+SSE has no such id"),
        }
    }

    /// The result of `initialize`.
    pub fn initialized(&self) -> &Value {
        &self.initialized
    }

    /// A request; gives the message that answers it.
    #[track_caller]
    pub fn request(&self, method: &str, params: &Value) -> Value {
        self.ears.request(&self.fresh_id(), method, params)
    }

    /// A request under an id of the test's own.
    #[track_caller]
    pub fn request_as(&self, id: &Value, method: &str, params: &Value) -> Value {
        self.ears.request(id, method, params)
    }

    /// A request that must succeed; gives its result.
    #[track_caller]
    pub fn result(&self, method: &str, params: &Value) -> Value {
        let message = self.request(method, params);
        assert!(message.get("error").is_none(), "{message}");
        message["result"].clone()
    }

    /// A request that must be refused; gives its error.
    #[track_caller]
    pub fn refused(&self, method: &str, params: &Value) -> Value {
        let message = self.request(method, params);
        assert!(message["error"].is_object(), "{message}");
        message["error"].clone()
    }

    /// `tools/call`, which must succeed; gives its result.
    #[track_caller]
    pub fn call(&self, tool: &str, arguments: &Value) -> Value {
        self.result("tools/call", &json!({ "name": tool, "arguments": arguments }))
    }

    /// [`Duplex::request`] on a thread of its own.
    pub fn begin(&self, method: &str, params: &Value) -> JoinHandle<Value> {
        self.begin_as(&self.fresh_id(), method, params)
    }

    /// [`Duplex::request_as`] on a thread of its own.
    pub fn begin_as(&self, id: &Value, method: &str, params: &Value) -> JoinHandle<Value> {
        let (ears, id) = (self.ears.clone(), id.clone());
        let (method, params) = (method.to_owned(), params.clone());
        in_background(move || ears.request(&id, &method, &params))
    }

    /// `tools/call` on a thread of its own; gives the message that answers it.
    pub fn begin_call(&self, tool: &str, arguments: &Value) -> JoinHandle<Value> {
        self.begin("tools/call", &json!({ "name": tool, "arguments": arguments }))
    }

    /// Sends a request that may never be answered; what comes of it is heard.
    pub fn start_as(&self, id: &Value, method: &str, params: &Value) {
        let ears = self.ears.clone();
        let message = request_message(id, method, params);
        drop(in_background(move || ears.start(&message)));
    }

    /// All pages of a list; `key` is the member that holds the items.
    #[track_caller]
    pub fn list(&self, method: &str, key: &str) -> Vec<Value> {
        let (mut items, mut params) = (Vec::new(), json!({}));
        loop {
            let page = self.result(method, &params);
            items.extend(page[key].as_array().unwrap_or_else(|| panic!("{page}")).clone());
            match page.get("nextCursor") {
                Some(cursor) => params = json!({ "cursor": cursor }),
                None => return items,
            }
        }
    }

    /// The texts under `member` of all items of a list.
    #[track_caller]
    pub fn names(&self, method: &str, key: &str, member: &str) -> Vec<String> {
        let items = self.list(method, key);
        items.iter().map(|item| item[member].as_str().unwrap().to_owned()).collect()
    }

    #[track_caller]
    pub fn notify(&self, method: &str, params: &Value) {
        self.ears.post(&notification_message(method, params)).expect(202);
    }

    /// Posts any message and gives the answer to the POST.
    #[track_caller]
    pub fn post(&self, message: &Value) -> Response {
        self.ears.post(message)
    }

    fn fresh_id(&self) -> Value {
        match &self.ears.line {
            Line::Streamable(client) => json!(client.fresh_id()),
            Line::Sse { .. } => json!(super::unique("id")),
        }
    }

    /// Everything that was heard so far.
    pub fn heard(&self) -> Vec<Heard> {
        self.ears.heard.lock().unwrap().clone()
    }

    /// What the client was asked so far, without pings.
    pub fn questions(&self) -> Vec<Heard> {
        let mut heard = self.heard();
        heard.retain(|heard| {
            let message = &heard.message;
            message.get("id").is_some()
                && message["method"].as_str().is_some_and(|method| method != "ping")
        });
        heard
    }

    /// The parameters of all notifications of that method so far.
    pub fn told(&self, method: &str) -> Vec<Value> {
        let heard = self.heard();
        let told = heard.iter().filter(|heard| heard.tells(method));
        told.map(|heard| heard.message["params"].clone()).collect()
    }

    /// Waits until something was heard in which `pick` finds what it looks for.
    #[track_caller]
    pub fn wait_for<T>(&self, what: &str, pick: impl Fn(&Heard) -> Option<T>) -> T {
        self.ears.wait_for(what, pick)
    }

    /// Waits for a notification of that method; gives its parameters.
    #[track_caller]
    pub fn wait_told(&self, method: &str) -> Value {
        self.wait_for(method, |heard| {
            heard.tells(method).then(|| heard.message["params"].clone())
        })
    }

    /// Waits until so many notifications of that method were heard.
    #[track_caller]
    pub fn wait_told_times(&self, method: &str, n: usize) {
        self.ears.wait_for_all(&format!("{n} times {method}"), |heard| {
            (heard.iter().filter(|heard| heard.tells(method)).count() >= n).then_some(())
        });
    }

    /// Waits for a request of the server of that method.
    #[track_caller]
    pub fn wait_asked(&self, method: &str) -> Heard {
        self.wait_for(method, |heard| heard.asks(method).then(|| heard.clone()))
    }

    /// Waits until so many requests of that method were heard, and returns the last of them.
    #[track_caller]
    pub fn wait_asked_times(&self, method: &str, n: usize) -> Heard {
        self.ears.wait_for_all(&format!("{n} times {method}"), |heard| {
            heard.iter().filter(|heard| heard.asks(method)).nth(n - 1).cloned()
        })
    }

    /// Closes the stream of the session without a word.
    pub fn close_stream(&self) {
        if let Some(stream) = self.stream.lock().unwrap().take() {
            drop(stream.shutdown(Shutdown::Both));
        }
    }

    /// Ends the session: DELETE, or the end of the HTTP+SSE stream.
    #[track_caller]
    pub fn end(&self) {
        if let Line::Streamable(client) = &self.ears.line {
            let status = client.end().status();
            assert!(matches!(status, 200 | 202 | 204), "DELETE: {status}");
        }
        self.close_stream();
    }
}

impl Drop for Duplex {
    fn drop(&mut self) {
        self.close_stream();
    }
}
