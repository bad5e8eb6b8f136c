//! The gateway as an OAuth resource server: access tokens of scripted issuers at its doors.

pub(crate) mod doors;
pub(crate) mod ends;
pub(crate) mod metadata;
pub(crate) mod principals;
pub(crate) mod proofs;
pub(crate) mod trouble;

use serde_json::{Value, json};

use crate::support::gateway::Gateway;
use crate::support::http::Request;
use crate::support::issuer::Issuer;
use crate::support::mcp::McpClient;
use crate::support::upstream_http::HttpUpstream;

/// A key beside the tokens, with which the tests look at the gateway.
const KEY: &str = "0123456789abcdef-operator";

/// Rules for the groups of the tests.
fn rules() -> Value {
    json!([
        { "claim": "groups", "any": ["ops"], "servers": ["*"], "admin": true },
        { "claim": "groups", "any": ["staff"] },
        { "claim": "groups", "any": ["few"], "calls_per_minute": 2 },
        { "claim": "scope", "any": ["tools:read"], "tools": ["s-echo"] },
    ])
}

fn config(upstream: &HttpUpstream, issuers: &[Value], rules: &Value) -> Value {
    json!({
        "api_keys": [{ "name": "operator", "key": KEY, "admin": true }],
        "oauth": { "issuers": issuers, "rules": rules },
        "prefix": "always",
        "mcp_servers": { "s": { "url": upstream.url(), "transport": "http" } },
    })
}

/// A gateway before one server, `s`, for the users of these issuers.
#[track_caller]
fn gateway(upstream: &HttpUpstream, issuers: &[&Issuer]) -> Gateway {
    let issuers: Vec<Value> = issuers.iter().map(|it| it.config()).collect();
    Gateway::started(config(upstream, &issuers, &rules()))
}

fn with(request: Request, token: &str) -> Request {
    request.header("Authorization", &format!("Bearer {token}"))
}

fn echo() -> Request {
    let body = json!({ "name": "s-echo", "arguments": { "message": "hello" } });
    Request::post("/mcp/tools/call", &body)
}

fn client(gateway: &Gateway, token: &str) -> McpClient {
    McpClient::new(gateway.address()).with_key(token)
}
