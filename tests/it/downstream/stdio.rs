//! `trunkline stdio`: the gateway as a server that its host starts, in both eras, with a
//! configuration of its own and in front of another gateway.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::gateway::{Directory, Gateway, binary, is_alive, stdio};
use crate::support::host::Host;
use crate::support::listener::free_port;
use crate::support::mcp::{LATEST, initialize, request_message};
use crate::support::script::{MODERN, Script, meta};
use crate::support::upstream_http::HttpUpstream;
use crate::support::upstream_modern::ModernUpstream;
use crate::support::{in_background, stays_so, wait_for, wait_until, wait_within};

const KEY: &str = "a-key-of-a-host-of-tests";

fn config(url: &str) -> Value {
    json!({ "mcp_servers": { "s": { "url": url, "transport": "http" } } })
}

fn call(tool: &str, arguments: &Value) -> Value {
    json!({ "name": tool, "arguments": arguments, "_meta": { "progressToken": "p" } })
}

/// Everything that a session carries, through a gateway that `host` starts before `script`.
#[track_caller]
fn check_session(host: &Host, script: &Script) {
    let tools = host.request("tools/list", &json!({}));
    assert!(tools["result"]["tools"].as_array().unwrap().len() > 5, "{tools}");
    for (tool, method, answer) in [
        ("ask_sampling", "sampling/createMessage", "model of alice"),
        ("ask_elicitation", "elicitation/create", r#""zulu":"alice""#),
        ("ask_roots", "roots/list", "file:///alice"),
    ] {
        let result = host.request("tools/call", &call(tool, &json!({})));
        assert!(result["result"].to_string().contains(answer), "{tool}: {result}");
        host.wait_told(method);
    }
    let counted = host.begin("tools/call", &call("count", &json!({ "steps": 2 })));
    let progress = host
        .wait(|it| it["method"] == "notifications/progress" && it["params"]["progress"] == 2);
    assert_eq!(progress["params"]["progressToken"], "p");
    host.answer_to(&counted);
    let at_once = host.begin("tools/call", &call("slow", &json!({ "label": "one" })));
    // The call may not be in its session yet.
    host.notify("notifications/cancelled", &json!({ "requestId": at_once }));
    let slow = host.begin("tools/call", &call("slow", &json!({ "label": "two" })));
    script.wait_until("it runs", |seen| seen.slow.iter().any(|label| label == "two"));
    host.notify("notifications/cancelled", &json!({ "requestId": slow }));
    script.wait_until("it is cancelled", |seen| seen.slow.iter().all(|label| label != "two"));
    // What came before its call over another connection is lost on this server.
    script.release_slow();
    let read = host.request("resources/read", &json!({ "uri": "file:///readme" }));
    assert!(read["result"]["contents"].is_array() || read["error"].is_object(), "{read}");
    script.change("tools", "a-new-one");
    host.wait_told("notifications/tools/list_changed");
    wait_until("the new tool is listed", || {
        host.request("tools/list", &json!({})).to_string().contains("a-new-one")
    });
    for cancelled in [at_once, slow] {
        let is_answer = |it: &Value| it["id"] == cancelled && it["method"].is_null();
        assert!(!host.heard().iter().any(is_answer), "{cancelled} is answered");
    }
}

#[test]
fn a_session_carries_everything_before_servers_of_both_eras() {
    let upstream = HttpUpstream::start();
    let host = Host::of(&config(&upstream.url())).opened(LATEST);
    check_session(&host, &upstream);
    let log = json!({ "messages": [{ "level": "warning", "data": "heard" }] });
    host.request("tools/call", &call("log", &log));
    assert_eq!(host.wait_told("notifications/message")["params"]["data"], "heard");

    let upstream = ModernUpstream::start();
    let host = Host::of(&config(&upstream.url())).opened(LATEST);
    check_session(&host, &upstream);
}

#[test]
fn every_revision_with_sessions_is_spoken_and_lines_may_come_at_once() {
    let upstream = HttpUpstream::start();
    for revision in ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"] {
        let host = Host::of(&config(&upstream.url()));
        let first = request_message(&json!("early"), "tools/list", &json!({}));
        assert_eq!(
            {
                host.send(&first);
                host.answer_to(&json!("early"))
            }["error"]["code"],
            -32600
        );
        // What follows is not kept waiting by its host, and waits for the session.
        let lines = [
            initialize(0, revision, &json!({})),
            request_message(&json!(1), "tools/call", &call("echo", &json!({ "message": "x" }))),
        ];
        host.send_line(&lines.map(|line| line.to_string()).join("\n"));
        assert_eq!(host.answer_to(&json!(0))["result"]["protocolVersion"], revision);
        let echoed = host.answer_to(&json!(1));
        assert_eq!(echoed["result"]["content"][0]["text"], "x", "{echoed}");
        if revision == "2025-03-26" {
            let batch = [2, 3].map(|id| request_message(&json!(id), "ping", &json!({})));
            host.send(&json!(batch));
            let answers = host.wait(Value::is_array);
            assert_eq!(answers.as_array().unwrap().len(), 2, "{answers}");
        }
    }
}

#[test]
fn stateless_requests_are_served_on_the_same_lines() {
    let upstream = HttpUpstream::start();
    let host = Host::of(&config(&upstream.url()));
    let found = host.stateless("server/discover", &json!({}));
    assert_eq!(found["result"]["supportedVersions"][0], MODERN, "{found}");
    let echoed = host.stateless("tools/call", &call("echo", &json!({ "message": "x" })));
    assert_eq!(echoed["result"]["content"][0]["text"], "x", "{echoed}");
    assert_eq!(echoed["result"]["resultType"], "complete");
    host.stateless("tools/call", &call("count", &json!({ "steps": 2 })));
    host.wait_told("notifications/progress");

    // What a server asks comes as a result, and never as a request.
    let mut params = call("ask_elicitation", &json!({}));
    let asked = host.stateless("tools/call", &params)["result"].clone();
    assert_eq!(asked["resultType"], "input_required", "{asked}");
    let (key, _) = asked["inputRequests"].as_object().unwrap().iter().next().unwrap();
    let said = json!({ "action": "accept", "content": { "zulu": "alice" } });
    params["inputResponses"] = json!({ key: said });
    params["requestState"] = asked["requestState"].clone();
    let answered = host.stateless("tools/call", &params);
    assert!(answered["result"].to_string().contains("alice"), "{answered}");

    let slow = host.begin_stateless("tools/call", &call("slow", &json!({ "label": "x" })));
    upstream.wait_for_slow(1);
    host.notify("notifications/cancelled", &json!({ "requestId": slow }));
    upstream.wait_until("it is cancelled", |seen| seen.cancelled == ["x"]);
    assert!(host.heard().iter().all(|it| it["id"] != slow), "nothing more is said of it");

    let mut unknown = json!({ "_meta": {} });
    unknown["_meta"][meta("protocolVersion")] = json!("2099-01-01");
    let refused = host.request("tools/list", &unknown);
    assert_eq!(refused["error"]["code"], -32022, "{refused}");
}

#[test]
fn a_stateless_host_listens_until_it_says_otherwise() {
    let upstream = HttpUpstream::start();
    let mut host = Host::of(&config(&upstream.url()));
    let filter = json!({ "notifications": {
        "toolsListChanged": true, "resourceSubscriptions": ["file:///readme.txt"],
    } });
    let mut ids = [0, 1].map(|_| host.begin_stateless("subscriptions/listen", &filter));
    let of = |id: &Value, method: &str| {
        let (id, method) = (id.clone(), method.to_owned());
        move |it: &Value| {
            it["method"] == method && it["params"]["_meta"][meta("subscriptionId")] == id
        }
    };
    for id in &ids {
        host.wait(of(id, "notifications/subscriptions/acknowledged"));
    }
    host.notify("notifications/cancelled", &json!({ "requestId": ids[0] }));
    // In the order of the lines: what is answered now was read after the cancellation.
    host.stateless("tools/list", &json!({}));
    let n_before = host.heard().len();
    upstream.change("tools", "another");
    ids.reverse();
    let [stays, gone] = ids;
    host.wait(of(&stays, "notifications/tools/list_changed"));
    let later = host.heard().split_off(n_before);
    assert!(!later.iter().any(of(&gone, "notifications/tools/list_changed")), "{later:#?}");
    host.end_input();
    let ended = host.answer_to(&stays);
    assert_eq!(ended["result"]["resultType"], "complete", "{ended}");
    assert!(host.heard().iter().all(|it| it["id"] != gone));
    assert_eq!(host.wait_for_end().0, Some(0));
}

#[test]
fn the_gateway_and_its_children_end_with_their_host() {
    let pids = Directory::new();
    let file = pids.path().join("pid");
    let argument = format!("--pid-file={}", file.display());
    let start = || {
        drop(std::fs::remove_file(&file));
        let config = json!({ "mcp_servers": { "s": stdio(&[&argument]) } });
        let host = Host::of(&config).opened(LATEST);
        host.request("tools/list", &json!({}));
        let pid: u32 =
            wait_for("the child runs", || std::fs::read_to_string(&file).ok()?.parse().ok());
        (host, pid)
    };
    let (mut host, child) = start();
    host.end_input();
    let (code, stderr) = host.wait_for_end();
    assert_eq!(code, Some(0), "{stderr}");
    wait_until("its child ends", || !is_alive(child));

    // What is in flight when the input ends is answered still.
    let (mut host, _) = start();
    let id = host.begin("tools/call", &call("echo", &json!({ "message": "last" })));
    host.end_input();
    assert_eq!(host.answer_to(&id)["result"]["content"][0]["text"], "last");
    assert_eq!(host.wait_for_end().0, Some(0));
}

#[test]
fn a_host_that_lists_at_once_sees_servers_that_take_a_while() {
    let upstream = HttpUpstream::absent();
    upstream.hold(Some("initialize"));
    upstream.come();
    let mut config = config(&upstream.url());
    config["first_list_ms"] = json!(0);
    let listing = in_background(move || {
        let host = Host::of(&config).opened(LATEST);
        host.request("tools/list", &json!({}))
    });
    upstream.wait_until("contact is made", |seen| !seen.last_initialize.is_empty());
    stays_so("the list is waited for", Duration::from_secs(1), || !listing.is_finished());
    upstream.hold(None);
    let listed = listing.join().unwrap();
    assert!(listed["result"]["tools"].as_array().is_some_and(|it| !it.is_empty()), "{listed}");
}

#[test]
fn an_initialize_that_is_refused_holds_nobody_up() {
    let upstream = HttpUpstream::start();
    let host = Host::of(&config(&upstream.url()));
    // An id that is in use: that of a stream which stays open.
    let filter = json!({ "notifications": { "toolsListChanged": true } });
    let id = host.begin_stateless("subscriptions/listen", &filter);
    host.wait(|it| it["method"] == "notifications/subscriptions/acknowledged");
    let mut opening = initialize(0, LATEST, &json!({}));
    opening["id"] = id.clone();
    host.send(&opening);
    assert_eq!(host.answer_to(&id)["error"]["code"], -32600);
    let host = host.opened(LATEST);
    let listed = host.request("tools/list", &json!({}));
    assert!(listed["result"]["tools"].is_array(), "{listed}");
}

#[test]
fn a_host_that_is_gone_is_waited_for_by_nobody() {
    let upstream = HttpUpstream::start();
    let directory = Directory::new();
    let path = directory.path().join("config.json");
    std::fs::write(&path, config(&upstream.url()).to_string()).unwrap();
    let mut gateway = Command::new(binary())
        .args(["stdio", "--config", path.to_str().unwrap()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = [
        initialize(0, LATEST, &json!({})),
        request_message(&json!(1), "tools/call", &call("slow", &json!({ "label": "x" }))),
    ];
    let mut input = gateway.stdin.take().unwrap();
    lines.iter().for_each(|line| writeln!(input, "{line}").unwrap());
    upstream.wait_for_slow(1);
    drop((gateway.stdout.take(), input));
    let ended = wait_within(Duration::from_secs(8), "it ends before limits.drain_ms", || {
        gateway.try_wait().unwrap()
    });
    assert_eq!(ended.code(), Some(0));
}

#[test]
fn lines_that_cannot_be_read_are_refused_and_cost_nothing_else() {
    let upstream = HttpUpstream::start();
    let mut config = config(&upstream.url());
    config["limits"] = json!({ "body_bytes": 4096 });
    let host = Host::of(&config).opened(LATEST);
    host.send_line("");
    host.send_line("no JSON");
    let refused = host.wait(|it| it["error"]["code"] == -32700);
    assert!(refused["id"].is_null());
    host.send_line(&format!("\"{}\"", "x".repeat(100_000)));
    host.wait(|it| {
        it["error"]["message"].to_string().contains("limits.body_bytes (4096 bytes)")
    });
    host.send(&json!({ "jsonrpc": "2.0", "id": 7, "method": 7 }));
    assert_eq!(host.answer_to(&json!(7))["error"]["code"], -32600);
    let id = host.begin("tools/call", &call("slow", &json!({ "label": "x" })));
    upstream.wait_for_slow(1);
    host.send(&request_message(&id, "ping", &json!({})));
    assert_eq!(host.answer_to(&id)["error"]["code"], -32600, "the id is in use");
    assert_eq!(host.request("ping", &json!({}))["result"], json!({}));
    upstream.release_slow();
}

#[test]
fn a_gateway_in_front_of_another_passes_everything_and_connects_again() {
    let upstream = HttpUpstream::start();
    let config = json!({
        // No outgoing connection of another test takes this port meanwhile.
        "listen": format!("127.0.0.1:{}", free_port()),
        "api_keys": [{ "name": "host", "key": KEY }],
        "mcp_servers": { "one": { "url": upstream.url(), "transport": "http" } },
    });
    let gateway = Gateway::started(config.clone());
    let address = gateway.address().to_owned();
    let host = Host::before(&format!("http://{address}"), KEY).opened(LATEST);
    check_session(&host, &upstream);
    assert!(gateway.stop().code == Some(0));
    let _again = Gateway::started(config);
    wait_until("it serves again", || {
        let echoed = host.request("tools/call", &call("echo", &json!({ "message": "x" })));
        echoed["result"]["content"][0]["text"] == "x"
    });
    let stateless = Host::before(&format!("http://{address}/mcp"), KEY);
    let echoed = stateless.stateless("tools/call", &call("echo", &json!({ "message": "y" })));
    assert_eq!(echoed["result"]["content"][0]["text"], "y", "{echoed}");
}

#[test]
fn a_gateway_of_lines_may_share_the_state_of_a_running_one() {
    let upstream = HttpUpstream::start();
    let state = Directory::new();
    let mut config = config(&upstream.url());
    config["state_dir"] = json!(state.path());
    config["mcp_servers"]["s"]["pin"] = json!("enforce");
    let gateway = Gateway::started(config.clone());
    gateway.wait_until_well(&["s"]);
    let pins = || std::fs::read(state.path().join("pins.s")).ok();
    let before = wait_for("what is pinned is written", pins);
    let mut host = Host::of(&config).opened(LATEST);
    let echoed = host.request("tools/call", &call("echo", &json!({ "message": "x" })));
    assert_eq!(echoed["result"]["content"][0]["text"], "x", "{echoed}");
    host.end_input();
    assert_eq!(host.wait_for_end().0, Some(0));
    assert_eq!(pins(), Some(before));
    assert_eq!(gateway.get("/healthz").status(), 200);
}
