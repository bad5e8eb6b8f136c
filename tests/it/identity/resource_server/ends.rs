//! What ends with a token, with an issuer and with a rule.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{client, config, echo, gateway, rules, with};
use crate::support::events::EventStream;
use crate::support::gateway::Gateway;
use crate::support::http::{Request, is_timeout};
use crate::support::issuer::Issuer;
use crate::support::mcp::request_message;
use crate::support::modern::ModernClient;
use crate::support::upstream_http::HttpUpstream;
use crate::support::wait_within;

/// A token is accepted for half a minute after its end, since clocks differ.
const LEEWAY_SECONDS: i64 = 30;
/// The promise: a token that ends ends its streams within a minute.
const MINUTE: Duration = Duration::from_secs(60);

/// Reads a stream until it ends.
#[track_caller]
fn until_end(what: &str, stream: &mut EventStream) {
    wait_within(MINUTE, &format!("the stream of {what} ends"), || {
        loop {
            match stream.try_next(Duration::from_millis(50)) {
                Ok(Some(_)) => (),
                Err(error) if is_timeout(&error) => return None,
                Ok(None) | Err(_) => return Some(()),
            }
        }
    });
}

#[test]
fn a_token_that_ends_ends_its_streams_and_no_session() {
    let (upstream, issuer) = (HttpUpstream::start(), Issuer::start());
    let gateway = gateway(&upstream, &[&issuer]);
    let left = 12;
    let short = issuer.token_for("alice", &["staff"], left - LEEWAY_SECONDS);
    let long = issuer.token("alice", &["staff"]);
    let mcp = client(&gateway, &short).opened();
    let (get, call) =
        (mcp.listen(), mcp.start_call(&json!(7), "s-slow", &json!({ "label": "x" })));
    let open = |path: &str| {
        let mut connection = gateway.connect();
        let request = Request::get(path).header("Accept", "text/event-stream");
        connection.send(&with(request, &short));
        connection.into_events().expect_open()
    };
    let (sse, watching) = (open("/sse"), open("/status/events"));
    let modern = ModernClient::to(&gateway).header("Authorization", &format!("Bearer {short}"));
    let listening = modern.start(
        "subscriptions/listen",
        &json!({ "notifications": {
        "toolsListChanged": true } }),
    );
    let kept = client(&gateway, &long).in_session(mcp.session()).listen();
    let began = Instant::now();
    for (what, mut stream) in [
        ("GET", get),
        ("HTTP+SSE", sse),
        ("/status/events", watching),
        ("subscriptions/listen", listening.into_events()),
    ] {
        until_end(what, &mut stream);
    }
    until_end("the call", &mut call.into_events());
    assert!(began.elapsed() < MINUTE + Duration::from_secs(left.unsigned_abs()));
    gateway.send(&with(echo(), &short)).expect(401);
    // The session is usable with another token of its user, whose streams go on.
    let again = client(&gateway, &long).in_session(mcp.session());
    assert!(again.tool_names().contains(&"s-echo".to_owned()));
    drop(kept);
}

#[test]
fn a_reload_ends_what_has_no_rights_any_more_and_narrows_the_rest() {
    let (upstream, one, two) = (HttpUpstream::start(), Issuer::start(), Issuer::start());
    let before = config(&upstream, &[one.config(), two.config()], &rules());
    let gateway = Gateway::started(before);
    let tokens =
        [one.token("a", &["staff"]), one.token("b", &["ops"]), two.token("c", &["ops"])];
    let clients = tokens.each_ref().map(|token| client(&gateway, token).opened());
    let status = |n: usize| {
        let message = request_message(&json!(1), "tools/list", &json!({}));
        clients[n].post(&message.to_string()).status()
    };
    assert_eq!([status(0), status(1), status(2)], [200; 3]);
    // The second issuer goes; staff may do less, and ops nothing.
    let narrowed = json!([{ "claim": "groups", "any": ["staff"], "tools": ["s-echo"] }]);
    gateway.reload(&config(&upstream, &[one.config()], &narrowed));
    assert_eq!([status(0), status(1), status(2)], [200, 403, 401]);
    assert_eq!(clients[0].tool_names(), ["s-echo"]);
    // What has ended stays so, when its user may come again.
    gateway.reload(&config(&upstream, &[one.config(), two.config()], &rules()));
    assert_eq!([status(0), status(1), status(2)], [200, 404, 404]);
}

#[test]
fn a_key_that_is_withdrawn_ends_its_tokens_only_when_it_is_read() {
    let (upstream, issuer) = (HttpUpstream::start(), Issuer::start());
    let gateway = gateway(&upstream, &[&issuer]);
    let old = issuer.token("alice", &["staff"]);
    gateway.send(&with(echo(), &old)).expect(200);
    issuer.rotate_to("two", crate::support::issuer::SigningKey::ed25519());
    let new = issuer.token("alice", &["staff"]);
    // The unknown key id has the keys read, once for all; another one soon after waits.
    wait_within(Duration::from_secs(20), "the new key is known", || {
        (gateway.send(&with(echo(), &new)).status() == 200).then_some(())
    });
    wait_within(Duration::from_secs(20), "the old key is known to be gone", || {
        (gateway.send(&with(echo(), &old)).status() == 401).then_some(())
    });
}
