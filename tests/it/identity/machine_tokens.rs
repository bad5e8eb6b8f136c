//! Access tokens that the gateway has for itself: before it connects, and what is known of the server
//! meanwhile.

use std::time::Duration;

use serde_json::{Value, json};

use super::upstream_sign_in::{call, configured};
use crate::support::authorization_server::AuthorizationServer;
use crate::support::gateway::{Directory, Gateway};
use crate::support::upstream_http::HttpUpstream;
use crate::support::upstream_modern::ModernUpstream;
use crate::support::wait_until;

fn authorization_server() -> AuthorizationServer {
    let auth = AuthorizationServer::start();
    auth.set_metadata("token_endpoint_auth_methods_supported", json!(["client_secret_basic"]));
    auth
}

fn machine() -> Value {
    json!({ "grant": "client_credentials", "client_id": "me", "client_secret": "hush hush" })
}

#[test]
fn a_server_that_lets_everybody_in_gets_the_token_of_the_configuration_all_the_same() {
    let (auth, upstream, state) =
        (authorization_server(), HttpUpstream::start(), Directory::new());
    let protection = auth.protect(&upstream);
    protection.admit_strangers();
    let server = json!({
        "url": upstream.url(), "transport": "http", "oauth": machine(),
        "headers": { "X-Tenant": "ours" },
    });
    let config = json!({
        "mcp_servers": { "s": server }, "state_dir": state.path(), "first_list_ms": 100,
    });
    let gateway = Gateway::with(config).start();
    gateway.wait_until_well(&["s"]);
    call(&gateway);
    for (head, body) in protection.strangers() {
        assert!(body.contains("\"ping\""), "{body}");
        assert_eq!(head.header("X-Tenant"), Some("ours"));
    }
    assert!(protection.n_admitted() > 1);
    assert_eq!(auth.seen_of("POST /token").len(), 1);
}

#[test]
fn a_server_that_comes_later_than_the_gateway_is_reached_with_a_token() {
    let (auth, upstream, state) =
        (authorization_server(), HttpUpstream::absent(), Directory::new());
    let protection = auth.protect(&upstream);
    let gateway = configured(&upstream.url(), machine(), &state).start();
    wait_until("it is told that the server is away", || {
        gateway.status_of("s").to_string().contains("connection refused")
    });
    upstream.come();
    gateway.wait_until_well(&["s"]);
    call(&gateway);
    assert_eq!(protection.n_refused(), 1, "the question how it wants credentials");
}

/// The time for a token is longer than a server of unknown era has for its first answer.
#[test]
fn an_authorization_server_that_is_slow_makes_no_server_one_with_sessions() {
    let (auth, upstream, state) =
        (authorization_server(), ModernUpstream::start(), Directory::new());
    auth.protect(&upstream);
    auth.be_slow(Duration::from_secs(6));
    let gateway = configured(&upstream.url(), machine(), &state).start();
    gateway.wait_until_well(&["s"]);
    call(&gateway);
    assert!(upstream.requests_of("initialize").is_empty());
    for method in ["server/discover", "tools/list", "tools/call"] {
        let request = upstream.requests_of(method).pop().unwrap();
        let meta = &request.message["params"]["_meta"];
        let declared = &meta["io.modelcontextprotocol/clientCapabilities"]["extensions"];
        let expected = json!({ "io.modelcontextprotocol/oauth-client-credentials": {} });
        assert_eq!(*declared, expected, "{method}");
    }
}

#[test]
fn a_client_that_brings_assertions_registers_itself_for_them() {
    let (auth, upstream, state) =
        (AuthorizationServer::start(), HttpUpstream::start(), Directory::new());
    auth.protect(&upstream);
    let file = state.path().join("jwt");
    std::fs::write(&file, "YQ.YQ.YQ").unwrap();
    let oauth = json!({ "grant": "jwt_bearer", "assertion_file": file });
    let gateway = configured(&upstream.url(), oauth, &state).start();
    gateway.wait_until_well(&["s"]);
    call(&gateway);
    let registered = &auth.seen_of("POST /register")[0];
    let body: Value = serde_json::from_str(registered.field("body")).unwrap();
    let grant = "urn:ietf:params:oauth:grant-type:jwt-bearer";
    assert_eq!((&body["grant_types"], &body["response_types"]), (&json!([grant]), &json!([])));
    assert_eq!(body.get("redirect_uris"), None);
}
