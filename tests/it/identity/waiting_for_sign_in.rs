//! Calls that wait while the person at the gateway's machine signs in.

use std::time::{Duration, Instant};

use serde_json::json;

use super::sign_in_pages::{cookie_of, form, target_of, way_back};
use super::upstream_sign_in::configured;
use crate::support::authorization_server::{AuthorizationServer, Browser, Consent, follow};
use crate::support::gateway::{Directory, Gateway};
use crate::support::http::{Request, exchange};
use crate::support::stopwatch::Stopwatch;
use crate::support::upstream_http::HttpUpstream;
use crate::support::{wait_for, wait_until};

/// A gateway that was signed in, and whose next request needs another sign-in, for which the person
/// takes their time.
struct Rig {
    auth: AuthorizationServer,
    _upstream: HttpUpstream,
    _state: Directory,
    browser: Browser,
    gateway: Gateway,
}

impl Rig {
    fn start(limits: serde_json::Value) -> Rig {
        let (auth, upstream) = (AuthorizationServer::start(), HttpUpstream::start());
        auth.protect(&upstream);
        let (state, browser) = (Directory::new(), Browser::start());
        let server = json!({
            "url": upstream.url(), "transport": "http", "oauth": true, "timeout_ms": 4000,
        });
        let start = |limits: &serde_json::Value| {
            let config = json!({
                "mcp_servers": { "s": server },
                "state_dir": state.path(),
                "first_list_ms": 100,
                "limits": limits,
            });
            let gateway = Gateway::with(config).env("BROWSER", &browser.command()).start();
            gateway.wait_until_well(&["s"]);
            gateway
        };
        // The limits may be too short for a person's sign-in.
        start(&json!({})).stop();
        let gateway = start(&limits);
        auth.consent(Consent::Nothing);
        auth.end_access_tokens();
        auth.end_refresh_tokens();
        Rig { auth, _upstream: upstream, _state: state, browser, gateway }
    }

    /// The page that was opened after the first.
    fn page(&self) -> String {
        let page = wait_for("a page is opened", || self.browser.pages().get(1).cloned());
        // Only then it does not matter what the person does next.
        wait_until("it is followed", || self.browser.n_followed() > 1);
        page
    }
}

#[test]
fn the_timeout_of_a_call_stands_still_until_the_person_is_done() {
    let rig = Rig::start(json!({}));
    std::thread::scope(|scope| {
        let calls: Vec<_> = (0..3)
            .map(|_| scope.spawn(|| rig.gateway.call("echo", &json!({ "text": "hi" }))))
            .collect();
        let page = rig.page();
        // Longer than the call may take.
        std::thread::park_timeout(Duration::from_millis(4500));
        assert!(calls.iter().all(|call| !call.is_finished()));
        rig.auth.consent(Consent::Grants);
        follow(&page);
        for call in calls {
            call.join().unwrap().expect(200);
        }
    });
    assert_eq!(rig.browser.pages().len(), 2);
}

#[test]
fn calls_wait_on_when_one_of_two_pages_is_refused() {
    let rig = Rig::start(json!({}));
    let send = |request: &Request| exchange(rig.gateway.address(), request);
    std::thread::scope(|scope| {
        let call = scope.spawn(|| rig.gateway.call("echo", &json!({ "text": "hi" })));
        let page = rig.page();
        let invited = send(&Request::post("/status/sign-in", &json!({ "server": "s" })));
        let cookie = cookie_of(&invited);
        let url = invited.json()["url"].as_str().unwrap().to_owned();
        let path = url.split_once(rig.gateway.address()).unwrap().1;
        let on = send(&form(path, "").header("Cookie", &cookie)).expect(200);
        rig.auth.consent(Consent::Denies);
        let back = way_back(&target_of(&on));
        let refused = send(&Request::get(&back).header("Cookie", &cookie));
        assert_ne!(refused.status(), 200, "{refused}");
        std::thread::park_timeout(Duration::from_millis(300));
        assert!(!call.is_finished());
        rig.auth.consent(Consent::Grants);
        follow(&page);
        call.join().unwrap().expect(200);
    });
}

#[test]
fn a_sign_in_that_is_not_finished_ends_the_wait_at_its_bound() {
    let rig = Rig::start(json!({ "parked_ms": 4000 }));
    let watch = Stopwatch::start(&rig.gateway);
    let answer = rig.gateway.call("echo", &json!({ "text": "hi" }));
    assert!(matches!(answer.status(), 502 | 504), "{answer}");
    watch.is_below("the wait for the person", Duration::from_secs(8));
    // The next one does not wait, and no other page is opened soon.
    let watch = Stopwatch::start(&rig.gateway);
    let answer = rig.gateway.call("echo", &json!({ "text": "hi" }));
    assert_eq!(answer.json()["error"]["code"], "needs_sign_in", "{answer}");
    watch.is_below("a call that waits for nobody", Duration::from_secs(3));
    assert_eq!(rig.browser.pages().len(), 2);
}

#[test]
fn a_stop_ends_the_calls_that_wait() {
    let rig = Rig::start(json!({ "drain_ms": 300 }));
    let Rig { auth: _auth, _upstream, _state, browser, gateway } = rig;
    let address = gateway.address().to_owned();
    let calling = crate::support::in_background(move || {
        use crate::support::http::{Request, try_exchange};
        let body = json!({ "name": "echo", "arguments": {} });
        drop(try_exchange(&address, &Request::post("/mcp/tools/call", &body)));
    });
    wait_until("a page is opened", || browser.pages().len() > 1);
    let began = Instant::now();
    let ended = gateway.stop();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
    drop(calling.join());
}

#[test]
fn a_reload_that_does_not_concern_the_server_keeps_its_sign_in() {
    let (auth, upstream) = (AuthorizationServer::start(), HttpUpstream::start());
    auth.protect(&upstream);
    let (state, browser) = (Directory::new(), Browser::start());
    let gateway = configured(&upstream.url(), json!(true), &state)
        .env("BROWSER", &browser.command())
        .start();
    gateway.wait_until_well(&["s"]);
    let server = json!({
        "url": upstream.url(), "transport": "http", "oauth": true, "description": "changed",
    });
    gateway.reload(&json!({
        "mcp_servers": { "s": server },
        "state_dir": state.path(),
        "first_list_ms": 100,
    }));
    wait_until("it is called again", || {
        gateway.call("echo", &json!({ "text": "hi" })).status() == 200
    });
    assert_eq!(browser.pages().len(), 1);
}
