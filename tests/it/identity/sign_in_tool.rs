//! The tool that leads a user who has not signed in at a server to the sign-in: it is listed in
//! place of the server's tools, and gone when these are there.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::asked_to_sign_in::{ALICE, BOB, sign_in, text_of, url_of};
use crate::support::authorization_server::{AuthorizationServer, Protection};
use crate::support::duplex::{DOORS, Duplex};
use crate::support::ears::{Say, all_capabilities};
use crate::support::gateway::{Directory, Gateway};
use crate::support::http::Request;
use crate::support::modern::ModernClient;
use crate::support::upstream_http::HttpUpstream;
use crate::support::wait_for;

const TOOLS_CHANGED: &str = "notifications/tools/list_changed";

/// `linear`, at which users sign in, and another server beside it.
struct Scene {
    auth: AuthorizationServer,
    protection: Arc<Protection>,
    linear: HttpUpstream,
    _other: HttpUpstream,
    _state: Directory,
    gateway: Gateway,
}

fn configured(linear: &HttpUpstream) -> Value {
    json!({
        "url": linear.url(), "transport": "http", "oauth": true, "credentials": "per_user",
        "description": "Issues",
    })
}

impl Scene {
    fn start() -> Scene {
        let (auth, linear, other) =
            (AuthorizationServer::start(), HttpUpstream::start(), HttpUpstream::start());
        linear.serve_only_tools(&["echo"]);
        other.serve_only_tools(&["echo"]);
        let protection = auth.protect(&linear);
        let state = Directory::new();
        let gateway = Gateway::with(json!({
            "mcp_servers": {
                "linear": configured(&linear),
                "other": { "url": other.url(), "transport": "http" },
            },
            "state_dir": state.path(),
            "first_list_ms": 100,
            "api_keys": [
                { "name": "alice", "key": ALICE },
                { "name": "bob", "key": BOB },
                { "name": "narrow", "key": "key-of-narrow-0000", "tools": ["linear-get_*"] },
                { "name": "elsewhere", "key": "key-of-elsewhere-0", "servers": ["other"] },
            ],
        }))
        .start();
        gateway.wait_until_well(&["other"]);
        Scene { auth, protection, linear, _other: other, _state: state, gateway }
    }

    fn listed(&self, key: &str, path: &str) -> Vec<String> {
        let request = Request::get(path).header("x-api-key", key);
        names(&self.gateway.send(&request).expect(200).json()["tools"])
    }

    fn called(&self, key: &str, name: &str) -> crate::support::http::Response {
        let body = json!({ "name": name });
        let request = Request::post("/mcp/tools/call", &body).header("x-api-key", key);
        self.gateway.send(&request)
    }

    fn sign_in_by_rest(&self, key: &str) {
        let told = self.called(key, "linear-sign_in").expect_error(502);
        assert_eq!(told["code"], "needs_sign_in", "{told}");
        let message = told["message"].as_str().unwrap();
        let url = message.split(' ').find(|word| word.starts_with("http://")).unwrap();
        sign_in(self.gateway.address(), url, key);
    }
}

fn names(tools: &Value) -> Vec<String> {
    let tools = tools.as_array().unwrap_or_else(|| panic!("{tools}")).iter();
    tools.map(|tool| tool["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_client_with_a_session_is_led_to_the_sign_in_by_a_tool_of_its_list() {
    for door in DOORS {
        let scene = Scene::start();
        let client = Duplex::to(&scene.gateway, door).key(ALICE).named("alice").open();
        let second = Duplex::to(&scene.gateway, door).key(ALICE).named("alice").open();
        let of_bob = Duplex::to(&scene.gateway, door).key(BOB).named("bob").open();
        let tools = client.list("tools/list", "tools");
        assert_eq!(names(&json!(tools)), ["linear-sign_in", "other-echo"], "{door:?}");
        assert_eq!(tools[0]["title"], "Sign in at linear");
        assert!(tools[0]["description"].as_str().unwrap().contains("Issues"), "{}", tools[0]);
        assert_eq!(tools[0]["inputSchema"]["type"], "object");
        for other in [&second, &of_bob] {
            assert_eq!(names(&json!(other.list("tools/list", "tools"))).len(), 2);
        }
        let instructions = second.initialized()["instructions"].as_str().unwrap_or_default();
        assert!(instructions.contains("linear-sign_in"), "{}", second.initialized());

        let call = client.begin_call("linear-sign_in", &json!({}));
        let asked = client.wait_asked("elicitation/create");
        sign_in(scene.gateway.address(), &url_of(&asked.message["params"]), ALICE);
        let answer = call.join().unwrap();
        let text = text_of(&answer["result"]);
        assert!(text.contains("You are signed in at linear. It has 1 tool"), "{text}");
        for told in [&client, &second] {
            told.wait_told(TOOLS_CHANGED);
            let now = told.names("tools/list", "tools", "name");
            assert_eq!(now, ["linear-echo", "other-echo"], "{door:?}");
        }
        // It is alice's account alone.
        let of_bob = of_bob.names("tools/list", "tools", "name");
        assert_eq!(of_bob, ["linear-sign_in", "other-echo"]);
        // A client with an old list is told so.
        let again = client.call("linear-sign_in", &json!({}));
        assert!(text_of(&again).contains("You are signed in"), "{again}");
    }
}

#[test]
fn a_stateless_client_is_led_to_the_sign_in_by_a_tool_of_its_list() {
    let scene = Scene::start();
    let address = scene.gateway.address().to_owned();
    let client = ModernClient::to(&scene.gateway)
        .key(ALICE)
        .declaring(all_capabilities())
        .answering(move |question| {
            sign_in(&address, &url_of(&question["params"]), ALICE);
            Say::Result(json!({ "action": "accept" }))
        });
    assert_eq!(client.tool_names(), ["linear-sign_in", "other-echo"]);
    let discovered = client.result("server/discover", &json!({}));
    assert!(discovered["instructions"].to_string().contains("linear-sign_in"), "{discovered}");
    let mut listening = client.listen(&json!({ "toolsListChanged": true }));
    let run = client.run_call("linear-sign_in", &json!({}));
    assert_eq!(run.asked(), [["elicitation/create"]]);
    assert!(text_of(&run.message["result"]).contains("It has 1 tool"), "{}", run.message);
    assert_eq!(listening.next()["method"], TOOLS_CHANGED);
    assert_eq!(client.tool_names(), ["linear-echo", "other-echo"]);
    // One that cannot be asked is told where to go.
    let other = ModernClient::to(&scene.gateway).key(BOB);
    assert_eq!(other.tool_names(), ["linear-sign_in", "other-echo"]);
    let refused = other.ask("linear-sign_in", &json!({}));
    assert!(refused.text.contains("/oauth/sign-in/"), "{}", refused.text);
}

#[test]
fn every_endpoint_lists_the_tool_until_the_user_has_signed_in() {
    let scene = Scene::start();
    assert_eq!(scene.listed(ALICE, "/mcp/tools/list"), ["linear-sign_in", "other-echo"]);
    assert_eq!(scene.listed(ALICE, "/mcp/tools/list?server=linear"), ["linear-sign_in"]);
    assert_eq!(scene.listed(ALICE, "/mcp/tools/list?server=other"), ["other-echo"]);
    assert_eq!(scene.listed(ALICE, "/mcp-rest/tools/list"), ["linear-sign_in", "echo"]);
    // Whatever tools a key may use: prompts and resources want the sign-in too.
    let narrow = "key-of-narrow-0000";
    assert_eq!(scene.listed(narrow, "/mcp/tools/list"), ["linear-sign_in"]);
    let elsewhere = "key-of-elsewhere-0";
    assert_eq!(scene.listed(elsewhere, "/mcp/tools/list"), ["other-echo"]);
    scene.called(elsewhere, "linear-sign_in").expect_error(404);
    let alone = Duplex::to(&scene.gateway, DOORS[0]).key(ALICE).at("/linear/mcp").open();
    assert_eq!(alone.names("tools/list", "tools", "name"), ["linear-sign_in"]);
    let refused = alone.refused("tools/call", &json!({ "name": "no_such_tool" }));
    assert!(refused["message"].is_string(), "{refused}");

    scene.sign_in_by_rest(ALICE);
    alone.wait_told(TOOLS_CHANGED);
    assert_eq!(alone.names("tools/list", "tools", "name"), ["echo"]);
    let after = wait_for("its tools are listed", || {
        let listed = scene.listed(ALICE, "/mcp/tools/list");
        listed.contains(&"linear-echo".to_owned()).then_some(listed)
    });
    assert_eq!(after, ["linear-echo", "other-echo"]);
    let again = scene.called(ALICE, "linear-sign_in").expect(200).json();
    assert!(text_of(&again).contains("You are signed in"), "{again}");
    assert_eq!(scene.listed(BOB, "/mcp/tools/list"), ["linear-sign_in", "other-echo"]);
}

#[test]
fn the_tool_comes_back_when_the_sign_in_has_ended_and_goes_again() {
    let scene = Scene::start();
    let client = Duplex::to(&scene.gateway, DOORS[0]).key(ALICE).named("alice").open();
    client.list("tools/list", "tools");
    scene.sign_in_by_rest(ALICE);
    client.wait_told(TOOLS_CHANGED);
    scene.auth.end_access_tokens();
    scene.auth.end_refresh_tokens();
    let refused = scene.called(ALICE, "linear-echo").expect_error(502);
    assert_eq!(refused["code"], "needs_sign_in", "{refused}");
    // What was listed stays: a call of it leads to the sign-in too.
    let names = client.names("tools/list", "tools", "name");
    assert_eq!(names, ["linear-echo", "linear-sign_in", "other-echo"]);
    let before = client.told(TOOLS_CHANGED).len();
    scene.sign_in_by_rest(ALICE);
    client.wait_told_times(TOOLS_CHANGED, before + 1);
    let names = client.names("tools/list", "tools", "name");
    assert_eq!(names, ["linear-echo", "other-echo"]);
}

#[test]
fn a_tool_of_that_name_is_the_server_s_own() {
    let scene = Scene::start();
    scene.linear.serve_only_tools(&["echo", "sign_in"]);
    scene.listed(ALICE, "/mcp/tools/list");
    scene.sign_in_by_rest(ALICE);
    let is_listed = || {
        let listed = scene.listed(ALICE, "/mcp/tools/list");
        (listed.len() > 2).then_some(listed)
    };
    let listed = wait_for("its tools are listed", is_listed);
    assert_eq!(listed, ["linear-echo", "linear-sign_in", "other-echo"]);
    let before = scene.linear.seen().n_calls("sign_in");
    scene.called(ALICE, "linear-sign_in");
    assert_eq!(scene.linear.seen().n_calls("sign_in"), before + 1);
    scene.auth.end_access_tokens();
    scene.auth.end_refresh_tokens();
    let refused = scene.called(ALICE, "linear-sign_in").expect_error(502);
    assert_eq!(refused["code"], "needs_sign_in", "{refused}");
    assert_eq!(scene.listed(ALICE, "/mcp/tools/list"), listed);
}

#[test]
fn the_tool_is_listed_while_the_lists_need_more_scopes() {
    let scene = Scene::start();
    scene.sign_in_by_rest(BOB);
    scene.protection.need_for("tools/list", "read");
    let client = Duplex::to(&scene.gateway, DOORS[0]).key(ALICE).named("alice").open();
    client.list("tools/list", "tools");
    // The first sign-in brings no such scope: nobody knows of it yet.
    scene.sign_in_by_rest(ALICE);
    let names = || client.names("tools/list", "tools", "name");
    let is_told = || {
        let told = scene.called(ALICE, "linear-sign_in");
        (told.status() == 502).then(|| told.expect_error(502))
    };
    let told = wait_for("more scopes are wanted", is_told);
    assert_eq!(told["code"], "needs_sign_in", "{told}");
    assert_eq!(names(), ["linear-sign_in", "other-echo"]);
    scene.sign_in_by_rest(ALICE);
    wait_for("its tools are listed", || {
        (names() == ["linear-echo", "other-echo"]).then_some(())
    });
    let scopes = scene.auth.seen_of("GET /authorize");
    assert_eq!(scopes.last().unwrap().field("scope"), "read");
}

#[test]
fn a_call_goes_on_once_the_scopes_of_the_lists_are_there() {
    let scene = Scene::start();
    scene.protection.need_for("tools/list", "read");
    let address = scene.gateway.address().to_owned();
    let client = ModernClient::to(&scene.gateway)
        .key(ALICE)
        .declaring(all_capabilities())
        .answering(move |question| {
            sign_in(&address, &url_of(&question["params"]), ALICE);
            Say::Result(json!({ "action": "accept" }))
        });
    let began = Instant::now();
    let run = client.run_call("linear-echo", &json!({ "message": "hello" }));
    assert_eq!(text_of(&run.message["result"]), "hello", "{}", run.message);
    assert_eq!(run.asked(), [["elicitation/create"], ["elicitation/create"]]);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert_eq!(client.tool_names(), ["linear-echo", "other-echo"]);
}
