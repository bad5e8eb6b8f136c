//! Clients without a session.

use std::time::Duration;

use serde_json::{Value, json};

use super::{
    ABSENT, Checked, LISTS, PLAIN, RESULTS, SERVERS, Server, UNKNOWN, are_here, parsed,
};
use crate::support::behind::{Behind, Transport};
use crate::support::duplex::{Door, Duplex};
use crate::support::events::EventStream;
use crate::support::gateway::Gateway;
use crate::support::modern::{Answered, ModernClient};
use crate::support::script::{MODERN, TEXT_URI, meta};
use crate::support::{in_background, unique, wait_until};

/// A modern client works with that server; holds what both are told.
#[track_caller]
fn check(server: Server) {
    if !are_here() {
        return;
    }
    let (behind, gateway) = server.start();
    let client = ModernClient::to(&gateway).named("alice");
    let mut told = Checked::against(MODERN);
    ask_plainly(&client, &mut told);
    be_asked(&client, &mut told, server);
    refuse(&client, &mut told, server);
    // One that can be asked nothing: it shares the server's session with the gateway itself.
    let mut stream = be_told(&ModernClient::to(&gateway), &mut told);
    cancel(&client, &behind);
    if !server.is_modern() {
        say_what_only_sessions_say(&gateway, &behind);
    }
    // The end of the subscription in order.
    let stopping = in_background(move || gateway.stop());
    // Whatever has been caused once too often comes before it.
    let end = loop {
        let message = stream.next_message();
        if message.get("method").is_none() {
            break message;
        }
        told.message(&message);
    };
    told.answer("subscriptions/listen", &end);
    assert_eq!(stopping.join().unwrap().code, Some(0));
    let mut wanted = RESULTS.to_vec();
    wanted.extend([
        "server/discover: DiscoverResult",
        "subscriptions/listen: SubscriptionsListenResult",
        "input sampling/createMessage",
        "input roots/list",
        "notifications/subscriptions/acknowledged",
        "notifications/progress",
        "notifications/message",
        "notifications/tools/list_changed",
        "notifications/prompts/list_changed",
        "notifications/resources/list_changed",
        "notifications/resources/updated",
        "error -32700",
        "error -32600",
        "error -32601",
        "error -32602",
        "error -32020",
        "error -32022",
    ]);
    if server.revision >= "2025-06-18" {
        wanted.push("input elicitation/create");
    }
    // Elsewhere nobody can say whose call a question is about, or how the server fails.
    if server.transport == Transport::Http {
        wanted.extend(["error -32021", "error -32603"]);
    }
    told.done(&wanted);
    server.check_sent(&behind);
}

/// An answer, and what came before it.
fn hear(told: &mut Checked, method: &str, answered: &Answered) {
    answered.told.iter().for_each(|it| told.message(it));
    told.answer(method, &answered.message);
}

fn ask_plainly(client: &ModernClient, told: &mut Checked) {
    hear(told, "server/discover", &client.request("server/discover", &json!({})));
    for method in LISTS {
        let (mut params, mut n_pages) = (json!({}), 0);
        loop {
            let page = client.request(method, &params);
            hear(told, method, &page);
            n_pages += 1;
            let Some(cursor) = page.message["result"].get("nextCursor") else { break };
            params = json!({ "cursor": cursor });
        }
        assert!(n_pages > 1, "{method}");
    }
    for (method, params) in PLAIN {
        hear(told, method, &client.request(method, &parsed(params)));
    }
}

fn be_asked(client: &ModernClient, told: &mut Checked, server: Server) {
    for mut question in server.questions() {
        question["rounds"] = json!(2);
        let run = client.run_call("ask", &question);
        assert_eq!(run.rounds.len(), 2, "{question}");
        run.rounds.iter().for_each(|round| hear(told, "tools/call", round));
        told.answer("tools/call", &run.message);
    }
}

fn refuse(client: &ModernClient, told: &mut Checked, server: Server) {
    for (method, params) in ABSENT {
        hear(told, method, &client.request(method, &parsed(params)));
    }
    let of = json!({ "uri": "nobody://has/this" });
    hear(told, "resources/read", &client.request("resources/read", &of));
    for method in [UNKNOWN, "ping", "initialize"] {
        let answered = client.request(method, &json!({}));
        answered.refused(404, -32601);
        hear(told, method, &answered);
    }
    let mut forged = json!({ "name": "echo", "requestState": "forged" });
    forged["inputResponses"] = json!({});
    hear(told, "tools/call", &client.request("tools/call", &forged));

    let list = client.message(&json!("l"), "tools/list", &json!({}));
    let post = |message: &Value, version: &str, method: &str| {
        let request = client.bare_request(&message.to_string());
        let request = request.header("MCP-Protocol-Version", version);
        client.send(&request.header("Mcp-Method", method))
    };
    for (version, method) in [(MODERN, "prompts/list"), ("2099-01-01", "tools/list")] {
        let answered = post(&list, version, method);
        answered.refused(400, -32020);
        hear(told, "tools/list", &answered);
    }
    let mut unknown = list.clone();
    unknown["params"]["_meta"][meta("protocolVersion")] = json!("2099-01-01");
    let answered = post(&unknown, "2099-01-01", "tools/list");
    answered.refused(400, -32022);
    hear(told, "tools/list", &answered);
    let mut bare = list.clone();
    bare["params"] = json!({});
    let answered = post(&bare, MODERN, "tools/list");
    answered.refused(400, -32602);
    hear(told, "tools/list", &answered);

    for text in ["{", "[]"] {
        let request = client.bare_request(text).header("MCP-Protocol-Version", MODERN);
        let answered = client.send(&request.header("Mcp-Method", "tools/list"));
        told.refusal_of_nothing(&answered.message);
    }
    if server.transport == Transport::Http {
        let lacking = client.clone().declaring(json!({})).ask("ask_roots", &json!({}));
        lacking.refused(400, -32021);
        hear(told, "tools/call", &lacking);
        let params = json!({ "name": "break_off" });
        let message = client.message(&json!("b"), "tools/call", &params);
        hear(told, "tools/call", &client.send(&client.post_request(&message)));
    }
}

/// Everything that comes unasked; gives the open subscription.
fn be_told(client: &ModernClient, told: &mut Checked) -> EventStream {
    let messages = json!([{ "level": "error", "logger": "l", "data": { "a": 1 } }]);
    let logging = client.clone().logging("debug");
    hear(told, "tools/call", &logging.ask("log", &json!({ "messages": messages })));
    for token in [json!("p"), json!(7)] {
        let params = json!({ "name": "count", "_meta": { "progressToken": token } });
        hear(told, "tools/call", &client.request("tools/call", &params));
    }
    let filter = json!({
        "toolsListChanged": true, "promptsListChanged": true, "resourcesListChanged": true,
        "resourceSubscriptions": [TEXT_URI],
    });
    let connection = client.start("subscriptions/listen", &json!({ "notifications": filter }));
    let mut stream = connection.into_events().expect_open();
    told.message(&stream.next_message());
    for (kind, name) in [("tools", "t"), ("prompts", "p"), ("resources", "file:///r")] {
        let method = format!("notifications/{kind}/list_changed");
        until_told(&mut stream, told, &method, |n| {
            let name = format!("{name}{n}");
            client.call("change", &json!({ "kind": kind, "name": name }));
        });
    }
    until_told(&mut stream, told, "notifications/resources/updated", |_| {
        client.call("touch", &json!({ "uri": TEXT_URI }));
    });
    stream
}

/// Does something again and again until that is told: the server may just be listened to.
#[track_caller]
fn until_told(
    stream: &mut EventStream,
    told: &mut Checked,
    method: &str,
    mut act: impl FnMut(usize),
) {
    for n in 0..100 {
        act(n);
        while let Ok(Some(event)) = stream.try_next(Duration::from_millis(100)) {
            let message = event.json();
            told.message(&message);
            if message["method"] == method {
                return;
            }
        }
    }
    panic!("never: {method}");
}

fn cancel(client: &ModernClient, behind: &Behind) {
    let label = unique("slow");
    let params = json!({ "name": "slow", "arguments": { "label": label } });
    let connection = client.start("tools/call", &params);
    behind.wait_received("the call", |received| {
        let is_it = |message: &Value| message["params"]["arguments"]["label"] == label.as_str();
        received.iter().any(|it| is_it(&it.message)).then_some(())
    });
    connection.hang_up();
    wait_until("it is cancelled upstream", || behind.has_cancelled(&label));
}

/// What a server with sessions is told because of its own clients only.
fn say_what_only_sessions_say(gateway: &Gateway, behind: &Behind) {
    let client = Duplex::to(gateway, Door::Streamable).named("bob").open();
    client.call("ask", &json!({ "method": "roots/list" }));
    client.notify("notifications/roots/list_changed", &json!({}));
    let of = json!({ "uri": "file:///pics/dot.png" });
    client.result("resources/subscribe", &of);
    client.result("resources/unsubscribe", &of);
    for method in ["notifications/roots/list_changed", "resources/unsubscribe"] {
        wait_until(method, || {
            behind.received().iter().any(|it| it.message["method"] == method)
        });
    }
}

/// A test for each server.
macro_rules! servers {
    ($($name:ident: $server:expr;)+) => {
        $(#[test]
        fn $name() {
            check(SERVERS[$server]);
        })+
    };
}

servers! {
    a_server_of_2024_11_05: 0;
    a_server_of_2025_03_26: 1;
    a_server_of_2025_06_18: 2;
    a_server_of_2025_11_25: 3;
    a_server_of_http_sse: 4;
    a_child_of_2025_11_25: 5;
    a_server_of_2026_07_28: 6;
    a_child_of_2026_07_28: 7;
}
