//! What a modern client is refused, with which code and status.

use serde_json::{Value, json};

use super::{UPSTREAMS, behind};
use crate::support::behind::{Era, Transport};
use crate::support::gateway::Gateway;
use crate::support::http::Request;
use crate::support::modern::{Answered, ModernClient};
use crate::support::script::{MODERN, TEXT_URI, meta};

fn gateway() -> (crate::support::behind::Behind, Gateway) {
    behind(Era::Legacy, Transport::Http, &json!({}))
}

/// Sends the message with these headers and no others.
#[track_caller]
fn sent(client: &ModernClient, message: &Value, headers: &[(&str, &str)]) -> Answered {
    let mut request: Request = client.bare_request(&message.to_string());
    for (name, value) in headers {
        request = request.header(name, value);
    }
    client.send(&request)
}

const VERSION: (&str, &str) = ("MCP-Protocol-Version", MODERN);

#[test]
fn an_unknown_revision_is_told_what_is_served() {
    let (_behind, gateway) = gateway();
    let client = ModernClient::to(&gateway);
    for (id, unknown) in [(json!(1), "2099-01-01"), (json!("x"), "1900-01-01"), (json!(2), "?")]
    {
        let mut message = client.message(&id, "tools/list", &json!({}));
        message["params"]["_meta"][meta("protocolVersion")] = json!(unknown);
        let headers = [("MCP-Protocol-Version", unknown), ("Mcp-Method", "tools/list")];
        let answered = sent(&client, &message, &headers);
        let error = answered.refused(400, -32022);
        assert_eq!(answered.message["id"], id);
        assert_eq!(error["data"]["requested"], unknown);
        let supported = error["data"]["supported"].as_array().unwrap();
        assert!(supported.contains(&json!(MODERN)), "{error}");
    }
}

#[test]
fn headers_must_be_there_and_say_what_the_body_says() {
    let (_behind, gateway) = gateway();
    let client = ModernClient::to(&gateway);
    let of = |method: &str, params: Value| client.message(&json!("id"), method, &params);
    let list = of("tools/list", json!({}));
    let call = of("tools/call", json!({ "name": "echo", "arguments": { "message": "m" } }));
    let read = of("resources/read", json!({ "uri": TEXT_URI }));
    let get = of("prompts/get", json!({ "name": "rich" }));
    let method = |name: &'static str| ("Mcp-Method", name);
    let name = |value: &'static str| ("Mcp-Name", value);
    let cases: Vec<(&Value, Vec<(&str, &str)>)> = vec![
        (&list, vec![method("tools/list")]),
        (&list, vec![("MCP-Protocol-Version", "2099-01-01"), method("tools/list")]),
        (&list, vec![VERSION]),
        (&list, vec![VERSION, method("prompts/list")]),
        (&list, vec![VERSION, method("Tools/List")]),
        (&list, vec![VERSION, method("")]),
        (&call, vec![VERSION, method("tools/call")]),
        (&call, vec![VERSION, method("tools/call"), name("add")]),
        (&call, vec![VERSION, method("tools/call"), name("Echo")]),
        (&call, vec![VERSION, name("echo")]),
        (&call, vec![method("tools/call"), name("echo")]),
        // Of another name, of no base64, of no text.
        (&call, vec![VERSION, method("tools/call"), name("=?base64?YWRk?=")]),
        (&call, vec![VERSION, method("tools/call"), name("=?base64?*?=")]),
        (&call, vec![VERSION, method("tools/call"), name("=?base64?//8=?=")]),
        (&call, vec![VERSION, method("tools/call"), name("=?BASE64?ZWNobw==?=")]),
        (&read, vec![VERSION, method("resources/read")]),
        (&read, vec![VERSION, method("resources/read"), name("file:///other")]),
        (&get, vec![VERSION, method("prompts/get")]),
        (&get, vec![VERSION, method("prompts/get"), name("greet")]),
    ];
    for (message, headers) in &cases {
        let answered = sent(&client, message, headers);
        assert_eq!(answered.status(), 400, "{headers:?}: {}", answered.text);
        let error = answered.refused(400, -32020);
        assert_eq!(answered.message["id"], "id", "{error}");
    }
    // What must pass: names of headers in any case, values in base64 where they need not be.
    for (message, headers) in [
        (&list, vec![("mcp-protocol-version", MODERN), ("MCP-METHOD", "tools/list")]),
        (&call, vec![VERSION, method("tools/call"), name("=?base64?ZWNobw==?=")]),
        (&read, vec![VERSION, method("resources/read"), name(TEXT_URI)]),
        (&get, vec![VERSION, method("prompts/get"), name("rich")]),
    ] {
        let answered = sent(&client, message, &headers);
        assert!(answered.message["result"].is_object(), "{headers:?}: {}", answered.text);
    }
}

#[test]
fn names_that_headers_cannot_carry_come_in_base64() {
    let (behind, gateway) = gateway();
    let uri = "vendor://items/\u{4e16}\u{754c}";
    let client = ModernClient::to(&gateway);
    let read = client.result("resources/read", &json!({ "uri": uri }));
    assert_eq!(read["contents"][0]["uri"], uri);
    drop(behind);
}

#[test]
fn a_request_without_its_envelope_is_malformed() {
    let (_behind, gateway) = gateway();
    let client = ModernClient::to(&gateway);
    let whole = client.message(&json!(7), "tools/list", &json!({}));
    let with_meta = |change: &dyn Fn(&mut Value)| {
        let mut message = whole.clone();
        change(&mut message["params"]);
        message
    };
    let remove = |name: &'static str| {
        move |params: &mut Value| {
            params["_meta"].as_object_mut().unwrap().remove(&meta(name));
        }
    };
    let mut bare = whole.clone();
    bare.as_object_mut().unwrap().remove("params");
    for message in [
        bare,
        with_meta(&|params| *params = json!({})),
        with_meta(&|params| params["_meta"] = json!({})),
        with_meta(&|params| params["_meta"] = json!("meta")),
        with_meta(&remove("protocolVersion")),
        with_meta(&remove("clientCapabilities")),
        with_meta(&|params| params["_meta"][meta("clientCapabilities")] = json!([])),
        with_meta(&|params| params["_meta"][meta("logLevel")] = json!("loud")),
    ] {
        let answered = sent(&client, &message, &[VERSION, ("Mcp-Method", "tools/list")]);
        answered.refused(400, -32602);
        assert_eq!(answered.message["id"], 7, "{message}");
    }
    // Who it is may be left out.
    let message = with_meta(&remove("clientInfo"));
    let answered = sent(&client, &message, &[VERSION, ("Mcp-Method", "tools/list")]);
    assert!(answered.message["result"].is_object(), "{}", answered.text);
}

#[test]
fn methods_that_the_revision_lacks_are_unknown() {
    for (era, transport) in UPSTREAMS {
        let (_behind, gateway) = behind(era, transport, &json!({}));
        let client = ModernClient::to(&gateway);
        for method in [
            "ping",
            "no/such/method",
            "logging/setLevel",
            "resources/subscribe",
            "resources/unsubscribe",
            "sampling/createMessage",
            "roots/list",
        ] {
            let params = json!({ "level": "info", "uri": TEXT_URI });
            let answered = client.request(method, &params);
            assert_eq!(answered.status(), 404, "{method}: {}", answered.text);
            answered.refused(404, -32601);
        }
    }
}

#[test]
fn what_is_not_there_is_a_wrong_parameter() {
    for (era, transport) in UPSTREAMS {
        let (_behind, gateway) = behind(era, transport, &json!({}));
        let client = ModernClient::to(&gateway);
        let uri = "nobody://has/this";
        let error =
            client.request("resources/read", &json!({ "uri": uri })).refused(400, -32602);
        assert_eq!(error["data"]["uri"], uri, "{era:?} {transport:?}");
        // Covered by a template, so the server itself is asked and refuses nothing.
        let read = client.result("resources/read", &json!({ "uri": "vendor://items/7" }));
        assert!(read["contents"][0]["text"].is_string(), "{read}");
        for (method, params) in [
            ("tools/call", json!({ "name": "nobody-has-this" })),
            ("prompts/get", json!({ "name": "nobody-has-this" })),
        ] {
            let answered = client.request(method, &params);
            assert_eq!(answered.message["error"]["code"], -32602, "{}", answered.text);
        }
    }
}

#[test]
fn what_is_no_message_is_refused() {
    let (_behind, gateway) = gateway();
    let client = ModernClient::to(&gateway);
    let send = |body: &str| {
        let request = client.bare_request(body).header("MCP-Protocol-Version", MODERN);
        client.send(&request.header("Mcp-Method", "tools/list"))
    };
    send("{\"jsonrpc\":").refused(400, -32700);
    let one = client.message(&json!(1), "tools/list", &json!({}));
    let answered = send(&json!([one]).to_string());
    assert_eq!(answered.status(), 400, "no batches: {}", answered.text);
}

#[test]
fn a_modern_client_needs_its_key_too() {
    let (_behind, gateway) =
        behind(Era::Legacy, Transport::Http, &json!({ "api_keys": super::two_keys() }));
    let client = ModernClient::to(&gateway);
    let message = client.message(&json!(1), "tools/list", &json!({}));
    for client in [client.clone(), client.clone().key("wrong")] {
        let answered = client.send(&client.post_request(&message));
        assert_eq!(answered.status(), 401, "{}", answered.text);
        assert!(answered.head.header("WWW-Authenticate").is_some());
    }
    assert!(!client.key("key-of-alice").tool_names().is_empty());
}
