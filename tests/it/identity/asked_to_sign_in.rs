//! A user who has not signed in at a server whose credentials are each user's own: the call asks
//! its client to open the gateway's page, and goes on once the user has signed in there.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Value, json};

use super::sign_in_pages::{cookie_of, form, target_of, way_back};
use crate::support::authorization_server::{AuthorizationServer, Protection};
use crate::support::duplex::{DOORS, Duplex};
use crate::support::ears::all_capabilities;
use crate::support::gateway::{Directory, Gateway};
use crate::support::http::{Connection, Request, exchange};
use crate::support::modern::ModernClient;
use crate::support::upstream_http::HttpUpstream;

pub(super) const ALICE: &str = "key-of-alice-00000";
pub(super) const BOB: &str = "key-of-bob-0000000";

struct Scene {
    auth: AuthorizationServer,
    protection: Arc<Protection>,
    _upstream: HttpUpstream,
    _state: Directory,
    gateway: Gateway,
}

impl Scene {
    fn start() -> Scene {
        Scene::with(json!({}))
    }

    fn with(log: Value) -> Scene {
        let (auth, upstream, state) =
            (AuthorizationServer::start(), HttpUpstream::start(), Directory::new());
        let protection = auth.protect(&upstream);
        let gateway = Gateway::with(json!({
            "mcp_servers": { "s": {
                "url": upstream.url(), "transport": "http", "oauth": true, "credentials": "per_user",
            } },
            "state_dir": state.path(),
            "first_list_ms": 100,
            "log": log,
            "api_keys": [
                { "name": "alice", "key": ALICE },
                { "name": "bob", "key": BOB },
                { "name": "root", "key": "key-of-root-000000", "admin": true },
            ],
        }))
        .start();
        Scene { auth, protection, _upstream: upstream, _state: state, gateway }
    }

    /// Does in a browser what the page wants, with that key.
    fn sign_in(&self, url: &str, key: &str) {
        sign_in(self.gateway.address(), url, key);
    }
}

/// Does in a browser what the page wants, with that key.
pub(super) fn sign_in(address: &str, url: &str, key: &str) {
    let path = url.strip_prefix(&format!("http://{address}")).unwrap();
    let shown = exchange(address, &Request::get(path)).expect(200);
    assert!(shown.text().contains("name=\"key\""), "{}", shown.text());
    let on = exchange(address, &form(path, &format!("key={key}"))).expect(200);
    let (cookie, target) = (cookie_of(&on), target_of(&on));
    let back = way_back(&target);
    exchange(address, &Request::get(&back).header("Cookie", &cookie)).expect(200);
}

/// The page to which a question leads.
pub(super) fn url_of(params: &Value) -> String {
    assert_eq!(params["mode"], "url", "{params}");
    params["url"].as_str().unwrap().to_owned()
}

pub(super) fn text_of(answer: &Value) -> &str {
    answer["content"][0]["text"].as_str().unwrap_or_else(|| panic!("{answer}"))
}

#[test]
fn a_client_with_a_session_is_asked_and_its_call_goes_on() {
    let scene = Scene::start();
    for door in DOORS {
        let client = Duplex::to(&scene.gateway, door).key(ALICE).named("alice").open();
        let call = client.begin_call("echo", &json!({ "message": "hello" }));
        if door == DOORS[0] {
            let asked = client.wait_asked("elicitation/create");
            let params = asked.message["params"].clone();
            assert!(params["message"].as_str().unwrap().contains("Sign in to s"), "{params}");
            scene.sign_in(&url_of(&params), ALICE);
            let done = client.wait_told("notifications/elicitation/complete");
            assert_eq!(done["elicitationId"], params["elicitationId"]);
        }
        let answer = call.join().unwrap();
        assert_eq!(text_of(&answer["result"]), "hello", "{answer}");
        assert!(client.names("tools/list", "tools", "name").contains(&"echo".to_owned()));
    }
}

#[test]
fn a_stateless_client_is_asked_by_an_input_required_result() {
    let scene = Scene::start();
    let (address, key) = (scene.gateway.address().to_owned(), BOB);
    let client = ModernClient::to(&scene.gateway)
        .key(key)
        .declaring(all_capabilities())
        .answering(move |question| {
            sign_in(&address, &url_of(&question["params"]), key);
            crate::support::ears::Say::Result(json!({ "action": "accept" }))
        });
    let run = client.run_call("echo", &json!({ "message": "hello" }));
    assert_eq!(run.asked(), [["elicitation/create"]]);
    assert_eq!(text_of(&run.message["result"]), "hello", "{}", run.message);
    // It is bob's account alone.
    let other = ModernClient::to(&scene.gateway).key(ALICE);
    let refused = other.ask("echo", &json!({ "message": "hello" }));
    assert!(refused.text.contains("/oauth/sign-in/"), "{}", refused.text);
}

#[test]
fn a_client_that_cannot_be_asked_is_told_where_to_sign_in_and_that_is_one_page() {
    let scene = Scene::start();
    let call = || {
        let body = json!({ "name": "echo", "arguments": { "message": "hello" } });
        let request = Request::post("/mcp/tools/call", &body).header("x-api-key", ALICE);
        scene.gateway.send(&request)
    };
    let told = call().expect_error(502);
    let url = |text: &str| {
        let from = text.find("http://").unwrap_or_else(|| panic!("{text}"));
        let rest = &text[from..];
        rest[..rest.find(' ').unwrap_or(rest.len())].to_owned()
    };
    let page = url(told["message"].as_str().unwrap());
    for _ in 0..6 {
        assert_eq!(url(call().expect_error(502)["message"].as_str().unwrap()), page);
    }
    // Somebody else's key shows nothing.
    let path = page.strip_prefix(&format!("http://{}", scene.gateway.address())).unwrap();
    exchange(scene.gateway.address(), &form(path, &format!("key={BOB}"))).expect(403);
    scene.sign_in(&page, ALICE);
    assert_eq!(text_of(&call().expect(200).json()), "hello");
    assert_eq!(scene.auth.seen_of("POST /register").len(), 1);
}

/// An authorization server that has lost a registration tells the person alone.
#[test]
fn a_registration_with_which_nobody_comes_back_is_replaced() {
    let scene = Scene::start();
    let address = scene.gateway.address();
    let begin = || {
        let body = json!({ "name": "echo", "arguments": { "message": "hello" } });
        let call = Request::post("/mcp/tools/call", &body).header("x-api-key", ALICE);
        let told = scene.gateway.send(&call).text().to_owned();
        let (_, url) = told.split_once(&format!("http://{address}")).unwrap();
        let path = url.split(' ').next().unwrap();
        let on = exchange(address, &form(path, &format!("key={ALICE}"))).expect(200);
        (target_of(&on), cookie_of(&on))
    };
    let n_registered = || scene.auth.seen_of("POST /register").len();
    for _ in 0..3 {
        begin();
        assert_eq!(n_registered(), 1);
    }
    let (target, cookie) = begin();
    assert_eq!(n_registered(), 2);
    let back = Request::get(&way_back(&target)).header("Cookie", &cookie);
    exchange(address, &back).expect(200);
}

/// An authorization server that does not know the client any more may know it again: the refresh
/// token is kept, and the user is asked all the same.
#[test]
fn a_user_whose_client_is_not_known_any_more_is_asked_to_sign_in() {
    let scene = Scene::start();
    scene.auth.set_lifetime(Some(std::time::Duration::from_secs(2)));
    let client = Duplex::to(&scene.gateway, DOORS[0]).key(ALICE).named("alice").open();
    for n_asked in 1..=2 {
        let call = client.begin_call("echo", &json!({ "message": "hello" }));
        let asked = client.wait_asked_times("elicitation/create", n_asked);
        scene.auth.fail_with(None);
        scene.sign_in(&url_of(&asked.message["params"]), ALICE);
        let answer = call.join().unwrap();
        assert_eq!(text_of(&answer["result"]), "hello", "{answer}");
        scene.auth.fail_with(Some((401, json!({ "error": "invalid_client" }))));
        std::thread::park_timeout(std::time::Duration::from_millis(2100));
    }
}

#[test]
fn a_user_who_declines_is_told_so() {
    let scene = Scene::start();
    let client = Duplex::to(&scene.gateway, DOORS[0])
        .key(ALICE)
        .declaring(all_capabilities())
        .answering(|_| crate::support::ears::Say::Result(json!({ "action": "decline" })))
        .open();
    let answer = client.begin_call("echo", &json!({ "message": "hello" })).join().unwrap();
    let message = answer["error"]["message"].as_str().unwrap_or_else(|| panic!("{answer}"));
    assert!(message.contains("declined"), "{message}");
}

/// Whoever reads what operators are told has no page of a user's.
#[test]
fn the_page_of_a_user_is_told_to_that_user_alone() {
    let scene = Scene::with(json!({ "level": "trace", "bodies": true, "access": true }));
    let mut watching = Connection::open(scene.gateway.address());
    let watch = Request::get("/status/events").header("x-api-key", "key-of-root-000000");
    watching.send(&watch.header("Accept", "text/event-stream"));
    let mut events = watching.into_events().expect_open();
    // From here on it is told what comes.
    assert_eq!(events.next().name, "open");
    let page_of = |text: &str| {
        let (_, page) = text.split_once("/oauth/sign-in/").unwrap_or_else(|| panic!("{text}"));
        page.chars().take_while(|c| c.is_ascii_alphanumeric() || "-_".contains(*c)).collect()
    };
    let mut pages: Vec<String> = Vec::new();
    let body = json!({ "name": "echo", "arguments": { "message": "hello" } });
    let rest = Request::post("/mcp/tools/call", &body).header("x-api-key", ALICE);
    pages.push(page_of(
        scene.gateway.send(&rest).expect_error(502)["message"].as_str().unwrap(),
    ));
    let client = Duplex::to(&scene.gateway, DOORS[0]).key(BOB).named("bob");
    let client = client.declaring(json!({})).open();
    let refused = client.refused("tools/call", &body);
    pages.push(page_of(refused["message"].as_str().unwrap()));
    let modern = ModernClient::to(&scene.gateway).key(BOB);
    pages.push(page_of(&modern.ask("echo", &json!({})).text));
    let asked = ModernClient::to(&scene.gateway).key(ALICE).declaring(all_capabilities());
    pages.push(page_of(&asked.ask("echo", &json!({})).text));
    scene.sign_in(
        &format!("http://{}/oauth/sign-in/{}", scene.gateway.address(), pages[0]),
        ALICE,
    );
    // Once the last of them is told, all are.
    let body = json!({ "name": "echo", "arguments": { "message": "the last one" } });
    let last = Request::post("/mcp/tools/call", &body).header("x-api-key", ALICE);
    scene.gateway.send(&last).expect(200);
    let mut told = String::new();
    let mut n_failed = 0;
    while !told.contains("\"outcome\":\"ok\"") || n_failed < 3 {
        let event = events.next();
        n_failed += usize::from(event.data.contains("needs a sign-in: open the page"));
        told.push_str(&event.data);
    }
    let log = scene.gateway.stderr();
    assert!(log.contains("needs a sign-in: open the page [secret] in a browser"), "{log}");
    for page in pages {
        assert_eq!(page.len(), 43, "{page}");
        assert!(!told.contains(&page), "{told}");
        assert!(!log.contains(&page), "{log}");
    }
}

/// The user has signed in, and one request needs more than the access token is good for.
#[test]
fn a_user_is_asked_again_where_a_call_needs_more_scopes() {
    let scene = Scene::start();
    scene.protection.need("basic");
    let client = Duplex::to(&scene.gateway, DOORS[0]).key(ALICE).named("alice").open();
    let signed_in_for = |client: &Duplex, n_asked: usize, tool: &str| {
        let call = client.begin_call(tool, &json!({ "message": "hello" }));
        let asked = client.wait_asked_times("elicitation/create", n_asked);
        scene.sign_in(&url_of(&asked.message["params"]), ALICE);
        let answer = call.join().unwrap();
        assert_eq!(text_of(&answer["result"]), "hello", "{answer}");
    };
    signed_in_for(&client, 1, "echo");
    scene.protection.need_for("tools/call", "write");
    signed_in_for(&client, 2, "echo");
    scene.protection.need_for("tools/call", "write more");
    let address = scene.gateway.address().to_owned();
    let modern = ModernClient::to(&scene.gateway)
        .key(ALICE)
        .declaring(all_capabilities())
        .answering(move |question| {
            sign_in(&address, &url_of(&question["params"]), ALICE);
            crate::support::ears::Say::Result(json!({ "action": "accept" }))
        });
    let run = modern.run_call("echo", &json!({ "message": "hello" }));
    assert_eq!(run.asked(), [["elicitation/create"]]);
    assert_eq!(text_of(&run.message["result"]), "hello", "{}", run.message);
    let asked = scene.auth.seen_of("GET /authorize");
    let scopes: Vec<BTreeSet<&str>> =
        asked.iter().map(|it| it.field("scope").split(' ').collect()).collect();
    let wanted = [&["basic"][..], &["basic", "write"], &["basic", "more", "write"]];
    assert_eq!(scopes, wanted.map(|it| it.iter().copied().collect()));
}

/// Nobody has to sign in for a call that is answered with the page, however often it comes.
#[test]
fn a_client_that_cannot_be_asked_is_told_each_time_where_more_scopes_are_had() {
    let scene = Scene::start();
    let body = json!({ "name": "echo", "arguments": { "message": "hello" } });
    let call = |key: &str| {
        let request = Request::post("/mcp/tools/call", &body).header("x-api-key", key);
        scene.gateway.send(&request)
    };
    let page_of = |told: &Value| {
        let message = told["message"].as_str().unwrap().to_owned();
        let page = message.split(' ').find(|word| word.starts_with("http://"));
        page.unwrap_or_else(|| panic!("{told}")).to_owned()
    };
    let first = page_of(&call(ALICE).expect_error(502));
    scene.sign_in(&first, ALICE);
    call(ALICE).expect(200);
    scene.protection.need_for("tools/call", "write");
    let mut page = String::new();
    for _ in 0..12 {
        let told = call(ALICE).expect_error(502);
        assert_eq!(told["code"], "needs_sign_in", "{told}");
        page = page_of(&told);
    }
    scene.sign_in(&page, ALICE);
    assert_eq!(text_of(&call(ALICE).expect(200).json()), "hello");
}
