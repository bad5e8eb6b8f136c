//! What an upstream's HTTP head says besides its answer: refusals as clients are told them, and
//! redirects.

use serde_json::{Value, json};

use crate::support::gateway::Gateway;
use crate::support::http::Response;
use crate::support::mcp::request_message;
use crate::support::mcp_sse::SseClient;
use crate::support::modern::ModernClient;
use crate::support::upstream_http::HttpUpstream;
use crate::support::wait_for;

const CHALLENGE: &str = "Bearer realm=\"as\", scope=\"all of-my-token\"";

#[track_caller]
fn told(error: &Value) {
    assert_eq!(error["server"], "s", "{error}");
    assert_eq!(error["upstream_status"], 429, "{error}");
    assert_eq!(error["retry_after_s"], 30, "{error}");
    let told = "Bearer realm=\"as\", scope=\"all [secret]\"";
    assert_eq!(error["www_authenticate"], told, "{error}");
}

#[track_caller]
fn asked_to_wait(answer: &Response) {
    assert_eq!(answer.header("Retry-After"), Some("30"), "{answer}");
    assert_eq!(answer.header("WWW-Authenticate"), None, "it asks for no key of the gateway's");
}

#[test]
fn a_refusal_of_an_upstream_reaches_every_door_with_what_it_says() {
    let upstream = HttpUpstream::start();
    let headers = json!({ "X-Token": "of-my-token" });
    let server = json!({ "url": upstream.url(), "transport": "http", "headers": headers });
    let gateway = Gateway::started(json!({ "mcp_servers": { "s": server } }));
    let client = gateway.mcp();
    let mut older = SseClient::open(gateway.address(), "/sse");
    upstream.fail_with_head(&[("WWW-Authenticate", CHALLENGE), ("Retry-After", "30")]);
    upstream.fail_with(Some(429));

    let answer = gateway.call("echo", &json!({"message": "m"})).expect(502);
    told(&answer.json()["error"]);
    asked_to_wait(&answer);

    let params = json!({ "name": "echo", "arguments": { "message": "m" } });
    let message = request_message(&json!(77), "tools/call", &params);
    let answer = client.post(&message.to_string()).expect(200);
    told(&answer.message()["error"]["data"]);
    asked_to_wait(&answer);

    let modern = ModernClient::to(&gateway);
    let message = modern.message(&modern.fresh_id(), "tools/call", &params);
    let answer = gateway.send(&modern.post_request(&message)).expect(200);
    told(&answer.message()["error"]["data"]);
    asked_to_wait(&answer);

    let answer = older.request("tools/call", &params);
    told(&answer["error"]["data"]);
}

#[test]
fn a_server_that_refuses_from_the_start_says_how_it_wants_to_be_asked() {
    let upstream = HttpUpstream::absent();
    upstream.fail_with_head(&[("WWW-Authenticate", CHALLENGE), ("Retry-After", "30")]);
    upstream.fail_with(Some(429));
    upstream.come();
    let headers = json!({ "X-Token": "of-my-token" });
    let server = json!({ "url": upstream.url(), "transport": "http", "headers": headers });
    let gateway = Gateway::with(json!({ "mcp_servers": { "s": server } })).start();
    let failure = wait_for("a failure", || {
        let failure = gateway.status_of("s")["last_failure"].clone();
        (!failure.is_null()).then_some(failure)
    });
    assert_eq!(failure["upstream_status"], 429, "{failure}");
    assert_eq!(failure["retry_after_s"], 30, "{failure}");
    let list = wait_for("the list tells of it", || {
        let list = gateway.list();
        (list["upstreams"][0]["outcome"] == "failed").then_some(list)
    });
    told(&list["upstreams"][0]);
    let answer = gateway.call("echo", &json!({})).expect(502);
    told(&answer.json()["error"]);
    asked_to_wait(&answer);
    assert!(!gateway.stderr().contains("of-my-token"));
}

#[test]
fn a_server_behind_a_redirect_serves_and_status_says_where() {
    for status in [307, 308] {
        let upstream = HttpUpstream::absent();
        upstream.redirect(status, "/mcp/");
        upstream.come();
        let gateway = Gateway::before(&upstream.url());
        let told = gateway.status_of("s");
        assert_eq!(told["redirected_to"], format!("http://{}/mcp/", upstream.address()));
        assert_eq!(gateway.call_text("echo", &json!({"message": "m"})), "m");
        // A client that can be asked has a session of its own there.
        let client = gateway.mcp();
        client.call("echo", &json!({"message": "m"}));
        drop(gateway.stop());
        assert!(upstream.n_deleted() >= 1, "the end of a session follows, too");
    }
}

#[test]
fn a_redirect_to_another_host_is_told_and_not_followed() {
    let upstream = HttpUpstream::absent();
    upstream.redirect(307, "http://sign-in.example/mcp?state=1");
    upstream.come();
    let server = json!({ "url": upstream.url(), "transport": "http" });
    let gateway = Gateway::with(json!({ "mcp_servers": { "s": server } })).start();
    let failure = wait_for("a failure", || {
        let failure = gateway.status_of("s")["last_failure"]["message"].clone();
        failure.as_str().map(str::to_owned)
    });
    assert!(
        failure.contains("redirects (status 307) to http://sign-in.example/mcp,"),
        "{failure}"
    );
    let answer = gateway.call("echo", &json!({})).expect(502);
    assert!(answer.text().contains("http://sign-in.example/mcp,"), "{answer}");
    assert_eq!(gateway.status_of("s")["redirected_to"], Value::Null);
}
