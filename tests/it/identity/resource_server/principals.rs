//! A user is an issuer and a subject: what belongs to one is no other's.

use serde_json::{Value, json};

use super::{KEY, client, config, echo, gateway, rules, with};
use crate::support::duplex::{Door, Duplex};
use crate::support::gateway::{Directory, Gateway};
use crate::support::http::Request;
use crate::support::issuer::Issuer;
use crate::support::mcp::request_message;
use crate::support::upstream_http::HttpUpstream;
use crate::support::{in_background, wait_for};

/// The status of a list in that session with that token.
fn listing(gateway: &Gateway, session: &str, token: &str) -> u16 {
    let message = request_message(&json!(1), "tools/list", &json!({}));
    let client = client(gateway, token).in_session(session);
    client.post(&message.to_string()).status()
}

#[test]
fn sessions_are_their_user_s_whichever_token_they_come_with() {
    let (upstream, one, two) = (HttpUpstream::start(), Issuer::start(), Issuer::start());
    let gateway = gateway(&upstream, &[&one, &two]);
    let first = client(&gateway, &one.token("alice", &["staff"])).opened();
    let session = first.session().to_owned();
    let is = |token: &str, status: u16| assert_eq!(listing(&gateway, &session, token), status);
    // Another token, also with other rights.
    is(&one.token("alice", &["ops"]), 200);
    // Another user, the same subject at another issuer, a key.
    is(&one.token("bob", &["staff"]), 404);
    is(&two.token("alice", &["staff"]), 404);
    is(KEY, 404);
    let other = client(&gateway, &two.token("alice", &["staff"])).in_session(&session);
    other.end().expect(404);
    is(&one.token("alice", &["staff"]), 200);
    let of_key = client(&gateway, KEY).opened();
    assert_eq!(listing(&gateway, of_key.session(), &one.token("operator", &["staff"])), 404);
}

#[test]
fn sessions_outlive_a_restart_for_their_user_alone() {
    let (upstream, one, two, state) =
        (HttpUpstream::start(), Issuer::start(), Issuer::start(), Directory::new());
    let mut config = config(&upstream, &[one.config(), two.config()], &rules());
    config["state_dir"] = json!(state.path());
    let gateway = Gateway::started(config.clone());
    let session = client(&gateway, &one.token("alice", &["staff"])).opened();
    let session = session.session().to_owned();
    gateway.stop();
    let gateway = Gateway::started(config);
    for stranger in [two.token("alice", &["staff"]), one.token("bob", &["staff"]), KEY.into()] {
        assert_eq!(listing(&gateway, &session, &stranger), 404);
    }
    assert_eq!(listing(&gateway, &session, &one.token("alice", &["staff"])), 200);
}

#[test]
fn each_user_has_calls_of_their_own() {
    let (upstream, one, two) = (HttpUpstream::start(), Issuer::start(), Issuer::start());
    let gateway = gateway(&upstream, &[&one, &two]);
    let call = |token: &str| gateway.send(&with(echo(), token)).status();
    for issuer in [&one, &two] {
        for user in ["alice", "bob"] {
            // Each with another token.
            assert_eq!(call(&issuer.token_for(user, &["few"], 3000)), 200);
            assert_eq!(call(&issuer.token_for(user, &["few"], 3001)), 200);
            let spent = gateway.send(&with(echo(), &issuer.token_for(user, &["few"], 3002)));
            let retry = spent.header("Retry-After").unwrap().parse::<u64>().unwrap();
            assert!(spent.status() == 429 && (1..=30).contains(&retry), "{spent}");
        }
    }
}

#[test]
fn twenty_users_at_once_see_only_what_is_theirs() {
    let (upstream, issuer) = (HttpUpstream::start(), Issuer::start());
    let gateway = gateway(&upstream, &[&issuer]);
    let address = gateway.address().to_owned();
    let users: Vec<_> = (0..20)
        .map(|n| {
            let (token, address) =
                (issuer.token(&format!("user-{n}"), &["staff"]), address.clone());
            in_background(move || {
                let client =
                    crate::support::mcp::McpClient::new(&address).with_key(&token).opened();
                for round in 0..5 {
                    let text = format!("{n}-{round}");
                    let result = client.call("s-echo", &json!({ "message": text }));
                    assert_eq!(result["content"][0]["text"], text);
                }
                (token, client.session().to_owned())
            })
        })
        .collect();
    let users: Vec<(String, String)> =
        users.into_iter().map(|user| user.join().unwrap()).collect();
    for (n, (token, session)) in users.iter().enumerate() {
        assert_eq!(listing(&gateway, session, token), 200);
        let (_, of_other) = &users[(n + 1) % users.len()];
        assert_eq!(listing(&gateway, of_other, token), 404);
    }
}

#[test]
fn lines_name_the_user_and_metrics_the_issuer() {
    let (upstream, issuer) = (HttpUpstream::start(), Issuer::start());
    let mut config = config(&upstream, &[issuer.config()], &rules());
    config["log"] = json!({ "access": true, "format": "json" });
    let gateway = Gateway::started(config);
    let odd = "mallory\n{\"key\":\"operator\"}";
    for subject in ["alice", odd] {
        gateway.send(&with(echo(), &issuer.token(subject, &["staff"]))).expect(200);
    }
    let lines: Vec<Value> = wait_for("both lines", || {
        let log = gateway.stderr();
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let calls: Vec<Value> = lines.filter(|it| it["tool"] == "s-echo").collect();
        (calls.len() == 2).then_some(calls)
    });
    let name = |line: &Value| line["key"].as_str().unwrap().to_owned();
    let is_there = |start: &str| lines.iter().any(|line| name(line).starts_with(start));
    assert!(is_there("alice@127.0.0.1") && is_there("mallory%0A"), "{lines:?}");
    let metrics = gateway.get("/metrics").expect(200).text().to_owned();
    let calls =
        metrics.lines().find(|it| it.starts_with("trunkline_tool_calls_total{")).unwrap();
    assert!(calls.ends_with(" 2") && !metrics.contains("alice"), "{calls}");
}

#[test]
fn a_session_has_the_rights_of_the_token_that_its_client_came_with_last() {
    let (one, two, issuer) = (HttpUpstream::start(), HttpUpstream::start(), Issuer::start());
    let mut config = config(
        &one,
        &[issuer.config()],
        &json!([
            { "claim": "groups", "any": ["ops"], "servers": ["*"] },
            { "claim": "groups", "any": ["staff"], "servers": ["s"] },
        ]),
    );
    config["mcp_servers"]["t"] = json!({ "url": two.url(), "transport": "http" });
    let gateway = Gateway::started(config);
    gateway.wait_for_tool("t-echo");
    let both = issuer.token("alice", &["ops"]);
    let session = Duplex::to(&gateway, Door::Streamable).key(&both).open();
    let tools =
        |token: &str| client(&gateway, token).in_session(&session.session()).tool_names();
    assert!(tools(&both).contains(&"t-echo".to_owned()));
    const TOOLS_CHANGED: &str = "notifications/tools/list_changed";
    let n_told = || session.told(TOOLS_CHANGED).len();
    let before = n_told();
    // Another token with the same rights changes nothing.
    tools(&issuer.token_for("alice", &["ops"], 3000));
    assert!(!tools(&issuer.token("alice", &["staff"])).contains(&"t-echo".to_owned()));
    session.wait_told_times(TOOLS_CHANGED, before + 1);
    assert!(tools(&both).contains(&"t-echo".to_owned()));
    session.wait_told_times(TOOLS_CHANGED, before + 2);
}

/// A rule and a server that is told of the claim read the same one, where two have its name.
#[test]
fn a_server_is_told_the_claim_that_rules_go_by() {
    let (upstream, issuer) = (HttpUpstream::start(), Issuer::start());
    let rules = json!([{ "claim": "app.role", "any": ["user"] }]);
    let mut config = config(&upstream, &[issuer.config()], &rules);
    config["mcp_servers"]["s"]["headers"] = json!({ "X-Role": "${user.claims.app.role}" });
    let gateway = Gateway::with(config).start();
    let mut claims = issuer.claims("alice", 3600);
    claims["app.role"] = json!("user");
    claims["app"] = json!({ "role": "admin" });
    claims["zz"] = json!({});
    for (flat, nested) in [("app.role", "app"), ("app", "app.role")] {
        // Whichever stands last.
        let mut ordered = String::from("{");
        for name in claims.as_object().unwrap().keys().filter(|it| !it.starts_with("app")) {
            ordered.push_str(&format!("{}:{},", json!(name), claims[name]));
        }
        let (first, last) = (&claims[flat], &claims[nested]);
        ordered.push_str(&format!("{}:{first},{}:{last}}}", json!(flat), json!(nested)));
        gateway.send(&with(echo(), &issuer.sign_text(&ordered))).expect(200);
        let headers = upstream.last_headers();
        let role = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("x-role"));
        assert_eq!(role.map(|(_, value)| value.as_str()), Some("user"), "{ordered}");
    }
}

#[test]
fn a_challenge_asks_for_one_scope_and_metadata_name_all() {
    let (upstream, issuer) = (HttpUpstream::start(), Issuer::start());
    let rules = json!([
        { "claim": "scope", "any": ["mcp:admin"], "servers": ["*"], "admin": true },
        { "claim": "scope", "any": ["mcp:read", "mcp:call"] },
        { "claim": "groups", "any": ["staff"] },
    ]);
    let gateway = Gateway::started(config(&upstream, &[issuer.config()], &rules));
    let other = issuer.token("alice", &["others"]);
    for (request, status) in [(echo(), 401), (with(echo(), &other), 403)] {
        let refused = gateway.send(&request).expect(status);
        let told = refused.header("WWW-Authenticate").unwrap_or_default();
        assert!(told.contains("scope=\"mcp:read\""), "{told}");
    }
    let metadata = gateway.get("/.well-known/oauth-protected-resource/mcp").expect(200).json();
    assert_eq!(metadata["scopes_supported"], json!(["mcp:admin", "mcp:read", "mcp:call"]));
}

/// A server that is told something of its users cannot be reached for one of whom that is not
/// known, or cannot be sent.
#[test]
fn a_claim_that_cannot_be_sent_is_named_with_its_server() {
    let (upstream, issuer) = (HttpUpstream::start(), Issuer::start());
    let mut config = super::config(&upstream, &[issuer.config()], &super::rules());
    config["mcp_servers"]["mail"] = json!({
        "url": upstream.url(), "transport": "http",
        "headers": { "X-Mail": "m=${user.claims.email}" },
    });
    let gateway = Gateway::with(config).start();
    let of = |subject: &str, email: Value| {
        let mut claims = issuer.claims(subject, 3600);
        claims["groups"] = json!(["staff"]);
        claims["email"] = email;
        issuer.sign(&claims)
    };
    let call = |token: &str| {
        let body = json!({ "name": "mail-echo", "arguments": { "message": "m" } });
        gateway.send(&with(Request::post("/mcp/tools/call", &body), token))
    };
    call(&of("alice", json!("a@x"))).expect(200);
    let unfit = "mail: X-Mail: the claim \"email\" of the caller's access token has characters";
    let missing = "mail: X-Mail: the caller's access token has no claim \"email\"";
    for (subject, email, told) in
        [("bob", json!("x\r\nX-Evil: 1"), unfit), ("eve", json!(["e@x"]), missing)]
    {
        let token = of(subject, email);
        let answer = call(&token);
        let text = answer.json().to_string().replace("\\\"", "\"");
        assert!(answer.status() == 400 && text.contains(told), "{}: {text}", answer.status());
        let list = gateway.send(&with(Request::get("/mcp/tools/list"), &token)).expect(200);
        let entry =
            crate::support::gateway::entry_of(&list.json()["upstreams"], "mail").unwrap();
        let (_, behind) = told.split_once(": ").unwrap();
        assert!(entry.to_string().replace("\\\"", "\"").contains(behind), "{entry}");
    }
    let log = gateway.stderr();
    // One line for both, since clients could write as many as they like.
    assert_eq!(log.matches("mail: it cannot be reached for").count(), 1, "{log}");
    assert!(!log.contains("X-Evil") && log.contains("claim \"email\""), "{log}");
}

#[test]
fn a_watcher_hears_of_its_own_user_alone() {
    let (upstream, one, two) = (HttpUpstream::start(), Issuer::start(), Issuer::start());
    let gateway = gateway(&upstream, &[&one, &two]);
    let [mine, other] = [&one, &two].map(|issuer| issuer.token("alice", &["staff"]));
    let mut connection = gateway.connect();
    let watch = Request::get("/status/events").header("Accept", "text/event-stream");
    connection.send(&with(watch, &mine));
    let mut events = connection.into_events().expect_open();
    assert_eq!(events.next().json(), json!({ "everything": false }));
    for token in [&other, &mine] {
        gateway.send(&with(echo(), token)).expect(200);
    }
    let heard = events.next().json();
    assert!(heard["key"].as_str().unwrap().starts_with("alice@"), "{heard}");
    assert!(events.is_silent_for(std::time::Duration::from_millis(300)));
}
