//! What servers write over several lines is one line of data for a client, and what clients write
//! so is one line for a child: else whoever writes chose where the next message begins.

use serde_json::{Value, json};

use crate::support::gateway::{Gateway, stdio};
use crate::support::mcp::request_message;
use crate::support::mcp_sse::SseClient;
use crate::support::upstream_http::{HttpUpstream, spread};
use crate::support::wait_until;

/// Read as it stands, its second half would be an event of its own.
const FORGED: &str = "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/told\",\"params\":{\
                      \"level\":\"error\",\n\n\"data\":\r[1,\n2]}}";

fn is_forged(message: &Value) -> bool {
    message["method"] == "notifications/told"
}

#[test]
fn what_is_told_outside_a_call_stands_on_one_line() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::started(json!({ "mcp_servers": {
        "s": { "url": upstream.url(), "transport": "http", "session": "per_client" },
    }}));
    let client = gateway.mcp();
    let mut stream = client.listen();
    let mut old = SseClient::open(gateway.address(), "/mcp/sse");
    // Both have sessions of their own there, on which it is known whom a message is for.
    let n_streams = upstream.n_streams();
    client.call("echo", &json!({ "message": "x" }));
    old.call("echo", &json!({ "message": "x" }));
    wait_until("the server is heard", || upstream.n_streams() >= n_streams + 2);
    upstream.emit_text(FORGED);
    for stream in [&mut stream, &mut old.stream] {
        let event = std::iter::repeat_with(|| stream.next())
            .find(|event| !event.data.is_empty() && is_forged(&event.json()))
            .unwrap();
        assert!(!event.data.contains('\n'), "{event:?}");
        assert_eq!(event.json()["params"]["data"], json!([1, 2]));
    }
    // Nothing of it was taken for another message, and the streams go on.
    upstream
        .emit_text(&spread(r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#));
    client.call("echo", &json!({ "message": "x" }));
    old.call("echo", &json!({ "message": "x" }));
}

/// A child's line may hold every line end but one.
#[test]
fn what_a_child_says_stands_on_one_line() {
    let gateway = Gateway::started(json!({ "mcp_servers": { "c": stdio(&[]) } }));
    let error = "{\"jsonrpc\":\"2.0\",\"id\":ID,\r\"error\":{\"code\":-5,\"message\":\"m\",\
                 \"data\":[1,\r\r{\"x\":\r2}]}}";
    let mut old = SseClient::open(gateway.address(), "/mcp/sse");
    let params = json!({ "name": "raw", "arguments": { "text": error } });
    let id = json!(old.fresh_id());
    old.post(&request_message(&id, "tools/call", &params)).expect(202);
    let event = std::iter::repeat_with(|| old.stream.next())
        .find(|event| !event.data.is_empty() && event.json()["id"] == id)
        .unwrap();
    assert!(!event.data.contains('\n'), "{event:?}");
    assert_eq!(event.json()["error"]["data"], json!([1, { "x": 2 }]), "{event:?}");

    let client = gateway.mcp();
    let mut stream = client.listen();
    let told = "{\"jsonrpc\":\"2.0\",\r\"method\":\"notifications/told\",\
                \"params\":{\"level\":\r\r\"error\",\"data\":1}}";
    let text = format!("{told}\n{error}");
    let answer =
        client.request("tools/call", &json!({ "name": "raw", "arguments": { "text": text } }));
    assert_eq!(answer["error"]["data"], json!([1, { "x": 2 }]), "{answer}");
    let event = std::iter::repeat_with(|| stream.next())
        .find(|event| !event.data.is_empty() && is_forged(&event.json()))
        .unwrap();
    assert!(!event.data.contains('\n'), "{event:?}");
}

#[test]
fn what_a_client_writes_over_lines_is_one_line_for_a_child() {
    let gateway = Gateway::started(json!({ "mcp_servers": { "c": stdio(&[]) } }));
    let client = gateway.mcp();
    let params = json!({ "name": "echo", "arguments": { "message": "over\nlines" } });
    let request = spread(&request_message(&json!("a"), "tools/call", &params).to_string());
    let answer = client.post(&request).expect(200).json();
    assert!(answer["result"].is_object(), "{answer}");
    // The child has read one message, not the pieces of one.
    let pieces = client.post(&request).expect(200).json();
    assert_eq!(pieces["result"], answer["result"]);
}
