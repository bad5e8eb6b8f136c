//! A user who has not signed in at a server whose credentials are each user's own: the call asks
//! its client to open the gateway's page, and goes on once the user has signed in there.

use serde_json::{Value, json};

use super::sign_in_pages::{cookie_of, form, target_of, way_back};
use crate::support::authorization_server::AuthorizationServer;
use crate::support::duplex::{DOORS, Duplex};
use crate::support::ears::all_capabilities;
use crate::support::gateway::{Directory, Gateway};
use crate::support::http::{Request, exchange};
use crate::support::modern::ModernClient;
use crate::support::upstream_http::HttpUpstream;

const ALICE: &str = "key-of-alice-00000";
const BOB: &str = "key-of-bob-0000000";

struct Scene {
    auth: AuthorizationServer,
    _upstream: HttpUpstream,
    _state: Directory,
    gateway: Gateway,
}

impl Scene {
    fn start() -> Scene {
        let (auth, upstream, state) =
            (AuthorizationServer::start(), HttpUpstream::start(), Directory::new());
        auth.protect(&upstream);
        let gateway = Gateway::with(json!({
            "mcp_servers": { "s": {
                "url": upstream.url(), "transport": "http", "oauth": true, "credentials": "per_user",
            } },
            "state_dir": state.path(),
            "first_list_ms": 100,
            "api_keys": [{ "name": "alice", "key": ALICE }, { "name": "bob", "key": BOB }],
        }))
        .start();
        Scene { auth, _upstream: upstream, _state: state, gateway }
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
