//! A client that speaks HTTP+SSE (2024-11-05).

use std::time::Duration;

use serde_json::{Value, json};

use super::events::EventStream;
use super::http::{Connection, Request, Response, exchange};
use super::mcp::{initialize_message, notification_message, request_message};

/// The client: an open stream and the address for its messages.
#[derive(Debug)]
pub struct SseClient {
    address: String,
    headers: Vec<(String, String)>,
    pub stream: EventStream,
    pub endpoint: String,
    next_id: u64,
}

impl SseClient {
    /// Opens the stream and reads the `endpoint` event.
    #[track_caller]
    pub fn connect(address: &str, path: &str) -> SseClient {
        SseClient::connect_with(address, path, &[])
    }

    /// [`SseClient::connect`] with headers that go with every request.
    #[track_caller]
    pub fn connect_with(address: &str, path: &str, headers: &[(String, String)]) -> SseClient {
        let mut connection = Connection::open(address);
        let request = Request::get(path).header("Accept", "text/event-stream");
        connection.send(&request.headers(headers));
        let mut stream = connection.into_events().expect_open();
        let first = stream.next();
        assert_eq!(first.name, "endpoint", "{first:?}");
        SseClient {
            address: address.to_owned(),
            headers: headers.to_vec(),
            stream,
            endpoint: first.data,
            next_id: 1,
        }
    }

    /// [`SseClient::connect`] and the handshake.
    #[track_caller]
    pub fn open(address: &str, path: &str) -> SseClient {
        let mut client = SseClient::connect(address, path);
        client.initialize();
        client
    }

    /// The handshake; gives the result of `initialize`.
    #[track_caller]
    pub fn initialize(&mut self) -> Value {
        self.initialize_speaking("2024-11-05")
    }

    /// The handshake at another revision.
    #[track_caller]
    pub fn initialize_speaking(&mut self, revision: &str) -> Value {
        let id = self.fresh_id();
        self.post(&initialize_message(id, revision)).expect(202);
        let answer = self.answer_to(&json!(id));
        let ready = notification_message("notifications/initialized", &json!({}));
        self.post(&ready).expect(202);
        answer["result"].clone()
    }

    pub fn fresh_id(&mut self) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        id
    }

    /// The POST of a message, for tests that send it on a connection of their own.
    pub fn post_request(&self, message: &Value) -> Request {
        Request::post(&self.endpoint, message).headers(&self.headers)
    }

    #[track_caller]
    pub fn post(&self, message: &Value) -> Response {
        exchange(&self.address, &self.post_request(message))
    }

    /// Waits for the response to the request of that id; other messages are thrown away.
    #[track_caller]
    pub fn answer_to(&mut self, id: &Value) -> Value {
        self.stream.next_message_where(|message| {
            message["id"] == *id && message.get("method").is_none()
        })
    }

    /// A request and the message that answers it.
    #[track_caller]
    pub fn request(&mut self, method: &str, params: &Value) -> Value {
        let id = json!(self.fresh_id());
        self.post(&request_message(&id, method, params)).expect(202);
        self.answer_to(&id)
    }

    /// `tools/call`, which must succeed; gives its result.
    #[track_caller]
    pub fn call(&mut self, tool: &str, arguments: &Value) -> Value {
        let params = json!({ "name": tool, "arguments": arguments });
        let message = self.request("tools/call", &params);
        assert!(message.get("error").is_none(), "{message}");
        message["result"].clone()
    }

    /// The offered names.
    #[track_caller]
    pub fn tool_names(&mut self) -> Vec<String> {
        let message = self.request("tools/list", &json!({}));
        let tools = message["result"]["tools"].as_array().unwrap().clone();
        tools.iter().map(|tool| tool["name"].as_str().unwrap().to_owned()).collect()
    }

    /// Closes the stream.
    pub fn hang_up(self) {
        self.stream.hang_up();
    }

    /// True if the stream stays open and no message comes for so long. For absences only.
    pub fn hears_nothing_for(&mut self, time: Duration) -> bool {
        self.stream.is_silent_for(time)
    }
}
