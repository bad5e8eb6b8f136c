//! Clients that keep a session.

use serde_json::{Value, json};

use super::{
    ABSENT, Checked, LISTS, PLAIN, RESULTS, SERVERS, Server, UNKNOWN, again_until, are_here,
    parsed,
};
use crate::support::behind::{Behind, Transport};
use crate::support::duplex::{Door, Duplex, Say, all_capabilities};
use crate::support::gateway::Gateway;
use crate::support::http::exchange;
use crate::support::mcp::{LATEST, McpClient};
use crate::support::script::{MODERN, TEXT_URI};
use crate::support::{unique, wait_until};

/// What a client of that revision can declare.
fn capabilities(revision: &str) -> Value {
    let mut all = all_capabilities();
    let members = all.as_object_mut().unwrap();
    if revision < "2025-06-18" {
        members.remove("elicitation");
    } else if revision < LATEST {
        members["elicitation"] = json!({});
    }
    all
}

/// A client of that revision works with that server; holds what both are told.
#[track_caller]
fn check(revision: &str, door: Door, server: Server) {
    if !are_here() {
        return;
    }
    let (behind, gateway) = server.start();
    let client = Duplex::to(&gateway, door)
        .speaking(revision)
        .named("alice")
        .declaring(capabilities(revision))
        .open();
    let mut told = Checked::against(revision);
    told.answer(
        "initialize",
        &json!({ "jsonrpc": "2.0", "id": 0, "result": client.initialized() }),
    );
    ask_plainly(&client, &mut told, server);
    // One that can be asked nothing: it shares the server's session with the gateway itself.
    let listener = Duplex::to(&gateway, door).speaking(revision).open();
    be_told(&listener);
    hear(&listener, &mut told);
    let asked = be_asked(&client, server, revision);
    refuse(&client, &mut told);
    cancel(&client, &behind);
    if !server.is_modern() {
        be_withdrawn(&gateway, door, &mut told, revision);
    }
    client.notify("notifications/roots/list_changed", &json!({}));
    wait_until("the server knows of everything", || {
        server.is_modern()
            || ["notifications/roots/list_changed", "resources/unsubscribe"].iter().all(|it| {
                behind.received().iter().any(|received| received.message["method"] == **it)
            })
    });
    hear(&client, &mut told);
    let mut wanted = RESULTS.to_vec();
    wanted.extend(TOLD);
    wanted.extend(asked.iter().map(String::as_str));
    wanted.extend(["initialize: InitializeResult", "error -32002", "error -32601"]);
    wanted.push("error -32602");
    told.done(&wanted);
    server.check_sent(&behind);
}

const TOLD: [&str; 6] = [
    "notifications/progress",
    "notifications/message",
    "notifications/tools/list_changed",
    "notifications/prompts/list_changed",
    "notifications/resources/list_changed",
    "notifications/resources/updated",
];

/// All that it heard.
fn hear(client: &Duplex, told: &mut Checked) {
    for heard in client.heard() {
        match heard.message.get("method") {
            Some(_) => told.message(&heard.message),
            None => told.response(&heard.message),
        }
    }
}

fn ask_plainly(client: &Duplex, told: &mut Checked, server: Server) {
    for method in LISTS {
        let (mut params, mut n_pages) = (json!({}), 0);
        loop {
            let page = client.request(method, &params);
            told.answer(method, &page);
            n_pages += 1;
            let Some(cursor) = page["result"].get("nextCursor") else { break };
            params = json!({ "cursor": cursor });
        }
        assert!(n_pages > 1, "{method} of {server:?}");
    }
    for (method, params) in PLAIN {
        told.answer(method, &client.request(method, &parsed(params)));
    }
    let of = json!({ "uri": TEXT_URI });
    for (method, params) in [
        ("ping", json!({})),
        ("logging/setLevel", json!({ "level": "debug" })),
        ("resources/subscribe", of.clone()),
        ("resources/unsubscribe", of),
    ] {
        let answer = client.request(method, &params);
        assert_eq!(answer["result"], json!({}), "{method} of {server:?}: {answer}");
        told.answer(method, &answer);
    }
}

/// Everything that comes unasked.
fn be_told(client: &Duplex) {
    let of = json!({ "uri": TEXT_URI });
    client.result("logging/setLevel", &json!({ "level": "debug" }));
    client.result("resources/subscribe", &of);
    let messages = json!([{ "level": "error", "logger": "l", "data": { "a": 1 } }]);
    client.call("log", &json!({ "messages": messages }));
    for token in [json!("p"), json!(7)] {
        let params = json!({ "name": "count", "_meta": { "progressToken": token } });
        client.result("tools/call", &params);
    }
    for (kind, name) in [("tools", "t"), ("prompts", "p"), ("resources", "file:///r")] {
        let method = format!("notifications/{kind}/list_changed");
        let change = |n| {
            let name = format!("{name}{n}");
            client.call("change", &json!({ "kind": kind, "name": name }));
        };
        again_until(&method, change, || !client.told(&method).is_empty());
    }
    let updated = "notifications/resources/updated";
    let touch = |_| drop(client.call("touch", &of));
    again_until(updated, touch, || !client.told(updated).is_empty());
    client.wait_told("notifications/message");
    client.wait_told_times("notifications/progress", 6);
    client.result("resources/unsubscribe", &of);
}

/// Everything that the server can ask, and a client of that revision answer; gives the methods.
fn be_asked(client: &Duplex, server: Server, revision: &str) -> Vec<String> {
    let mut asked = Vec::new();
    for question in server.questions() {
        let method = question["method"].as_str().unwrap().to_owned();
        let since = match (method.as_str(), question["mode"].as_str()) {
            (_, Some(_)) => LATEST,
            ("elicitation/create", None) => "2025-06-18",
            _ => "2024-11-05",
        };
        if revision >= since {
            client.call("ask", &question);
            asked.push(method);
        }
    }
    asked
}

fn refuse(client: &Duplex, told: &mut Checked) {
    for (method, params) in ABSENT {
        let answer = client.request(method, &parsed(params));
        assert_eq!(answer["error"]["code"], -32602, "{answer}");
        told.answer(method, &answer);
    }
    let of = json!({ "uri": "nobody://has/this" });
    told.answer("resources/read", &client.request("resources/read", &of));
    told.answer(UNKNOWN, &client.request(UNKNOWN, &json!({})));
    // Known, but of the other era.
    told.answer("server/discover", &client.request("server/discover", &json!({})));
}

fn cancel(client: &Duplex, behind: &Behind) {
    let (label, id) = (unique("slow"), json!("to-cancel"));
    let params = json!({ "name": "slow", "arguments": { "label": label } });
    client.start_as(&id, "tools/call", &params);
    behind.wait_received("the call", |received| {
        let is_it = |it: &&_| label_of(it) == Some(&label);
        received.iter().map(|it| &it.message).find(is_it).map(|_| ())
    });
    client.notify("notifications/cancelled", &json!({ "requestId": id, "reason": "r" }));
    wait_until("it is cancelled upstream", || behind.has_cancelled(&label));
}

fn label_of(message: &Value) -> Option<&str> {
    message["params"]["arguments"]["label"].as_str()
}

/// The server takes a question back.
fn be_withdrawn(gateway: &Gateway, door: Door, told: &mut Checked, revision: &str) {
    let client = Duplex::to(gateway, door)
        .speaking(revision)
        .declaring(json!({ "roots": {} }))
        .answering(|_| Say::Nothing)
        .open();
    client.call("ask", &json!({ "method": "roots/list", "withdraw": true }));
    client.wait_told("notifications/cancelled");
    hear(&client, told);
    told.done(&["roots/list", "notifications/cancelled"]);
}

/// A test for each client, behind which are these servers.
macro_rules! clients {
    ($($name:ident: $revision:expr, $door:expr, $servers:expr;)+) => {
        $(#[test]
        fn $name() {
            for server in $servers {
                check($revision, $door, SERVERS[server]);
            }
        })+
    };
}

clients! {
    a_client_of_2024_11_05: "2024-11-05", Door::Sse, [0, 6];
    a_client_of_2025_03_26: "2025-03-26", Door::Streamable, [1, 6];
    a_client_of_2025_06_18: "2025-06-18", Door::Streamable, [2, 6];
    a_client_of_2025_11_25: LATEST, Door::Streamable, [3, 6];
    a_client_of_2025_11_25_over_sse: LATEST, Door::Sse, [4];
    a_client_of_2025_11_25_with_children: LATEST, Door::Streamable, [5, 7];
}

/// Before there is a session, and where there is none: each with its revision's header.
#[test]
fn what_streamable_http_refuses() {
    if !are_here() {
        return;
    }
    let (_behind, gateway) = SERVERS[3].start();
    for revision in ["2025-03-26", "2025-06-18", LATEST] {
        let mut told = Checked::against(revision);
        let mut client = McpClient::new(gateway.address()).speaking(revision);
        let early = client.post(r#"{"jsonrpc":"2.0","id":"early","method":"tools/list"}"#);
        told.answer("tools/list", &early.expect(400).message());
        told.answer("initialize", &client.initialize().expect(200).message());
        told.answer("initialize", &again(&client));
        for (text, has_id) in [
            ("{", false),
            ("{}", false),
            ("1", false),
            (r#"{"jsonrpc":"1.0","id":7,"method":"ping"}"#, true),
            (r#"{"jsonrpc":"2.0","id":7,"method":"ping","params":7}"#, true),
        ] {
            let refused = client.post(text).expect(400).message();
            match has_id {
                true => told.answer("ping", &refused),
                false => told.refusal_of_nothing(&refused),
            }
        }
        let ping = r#"{"jsonrpc":"2.0","id":"ping","method":"ping"}"#;
        if revision == "2025-03-26" {
            let unknown = r#"{"jsonrpc":"2.0","id":2,"method":"vendor/unknown"}"#;
            let batch = client.post(&format!("[{ping},{unknown}]")).expect(200);
            told.holds("JSONRPCBatchResponse", &batch.json());
        }
        let foreign = client.post_request(ping).header("Origin", "http://example.org");
        told.refusal_of_nothing(&exchange(gateway.address(), &foreign).expect(403).message());
        client.end();
        told.answer("ping", &client.post(ping).expect(404).message());
        told.done(&["error -32700", "error -32600", "error -32000", "error -32001"]);
    }
}

/// A second `initialize` in the same session.
fn again(client: &McpClient) -> Value {
    client.request(
        "initialize",
        &json!({ "protocolVersion": LATEST, "capabilities": {},
        "clientInfo": { "name": "n", "version": "1" } }),
    )
}

/// What fails behind the gateway is the gateway's to tell.
#[test]
fn a_failed_call() {
    if !are_here() {
        return;
    }
    for server in SERVERS.into_iter().filter(|it| it.transport == Transport::Http) {
        let (_behind, gateway) = server.start();
        let client = McpClient::open(gateway.address());
        let call = client.post_request(
            r#"{"jsonrpc":"2.0","id":"f","method":"tools/call","params":{"name":"break_off"}}"#,
        );
        let mut told = Checked::against(LATEST);
        told.answer("tools/call", &exchange(gateway.address(), &call).message());
        told.done(&["error -32603"]);
    }
}

/// Whatever a client asks for, it is answered with what it can have.
#[test]
fn an_initialize_of_any_revision() {
    if !are_here() {
        return;
    }
    let (_behind, gateway) = SERVERS[6].start();
    for (asked, given) in [
        ("2024-11-05", "2024-11-05"),
        ("2025-03-26", "2025-03-26"),
        ("2025-06-18", "2025-06-18"),
        (LATEST, LATEST),
        (MODERN, LATEST),
        ("1999-01-01", LATEST),
    ] {
        let answer = McpClient::new(gateway.address()).speaking(asked).initialize().expect(200);
        let answer = answer.message();
        assert_eq!(answer["result"]["protocolVersion"], given, "{asked}");
        let mut told = Checked::against(given);
        told.answer("initialize", &answer);
        told.done(&["initialize: InitializeResult"]);
    }
}
