//! Scripted servers of the modern era: no session, every request whole in itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use trunkline::config::{Secret, StdioTarget, Target, UpstreamConfig};
use trunkline::protocol::call::{About, Outcome, Outgoing};
use trunkline::protocol::raw::RawObject;
use trunkline::protocol::session_route::SessionRoute;

use crate::upstream::rig::*;

pub(crate) const MODERN: &str = "2026-07-28";
pub(crate) const LEGACY: &str = "2025-11-25";

/// What such a server says of itself.
pub(crate) const DISCOVERED: &str = r#"{"resultType":"complete","supportedVersions":["2026-07-28"],"capabilities":{"tools":{"listChanged":true},"resources":{"subscribe":true}},"ttlMs":0,"cacheScope":"private","_meta":{"io.modelcontextprotocol/serverInfo":{"name":"m","version":"1"}}}"#;

/// An error response to this request.
pub(crate) fn error(seen: &Seen, status: u16, code: i64, data: &str) -> Reply {
    let (id, kind) = (seen.id(), "application/json");
    let body = format!(
        r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":{code},"message":"as scripted","data":{data}}}}}"#
    );
    Reply::Body(status, String::new(), kind, body)
}

/// As a server that knows nothing but the modern revision refuses everything else.
pub(crate) fn unsupported(seen: &Seen) -> Reply {
    error(seen, 400, -32022, r#"{"supported":["2026-07-28"],"requested":"?"}"#)
}

/// What a well-behaved modern server answers.
pub(crate) fn modern(seen: &Seen) -> Reply {
    if seen.method != "POST" {
        return Reply::status(405, "");
    }
    if seen.header("mcp-protocol-version") != Some(MODERN) {
        return unsupported(seen);
    }
    assert_eq!(seen.header("mcp-method"), Some(seen.rpc().as_str()));
    assert_eq!(seen.header("mcp-session-id"), None);
    let meta = r#""io.modelcontextprotocol/protocolVersion":"2026-07-28""#;
    assert!(seen.body.contains(meta), "{}", seen.body);
    match seen.rpc().as_str() {
        "server/discover" => Reply::json(seen.result(DISCOVERED)),
        "tools/list" => Reply::json(
            seen.result(
                r#"{"resultType":"complete","tools":[{"name":"fresh","inputSchema":{}}]}"#,
            ),
        ),
        "resources/list" => Reply::json(seen.result(r#"{"resources":[]}"#)),
        "resources/templates/list" => Reply::json(seen.result(r#"{"resourceTemplates":[]}"#)),
        "tools/call" => Reply::json(
            seen.result(r#"{"resultType":"complete","content":[],"_meta":{"io.modelcontextprotocol/serverInfo":{"name":"m","version":"1"}}}"#),
        ),
        "subscriptions/listen" => Reply::Hang,
        _ => error(seen, 404, -32601, "null"),
    }
}

/// As a server of the older era answers what it does not know.
pub(crate) fn legacy(seen: &Seen) -> Reply {
    let has_session = seen.session() == "s1" || seen.rpc() == "initialize";
    if seen.method == "POST" && !has_session {
        let body = r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32600,"message":"Bad Request: Missing session ID"}}"#;
        return Reply::Body(400, String::new(), "application/json", body.to_owned());
    }
    well(seen)
}

/// A modern server that is well but for `tools/call`.
pub(crate) fn modern_calls(script: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Server {
    Server::start(
        move |seen| if seen.rpc() == "tools/call" { script(seen) } else { modern(seen) },
    )
}

/// A server that can be exchanged for one of the other era while it runs.
pub(crate) fn exchangeable(is_modern: bool) -> (Server, Arc<AtomicBool>) {
    let switch = Arc::new(AtomicBool::new(is_modern));
    let mine = switch.clone();
    let serve = move |seen: &Seen| {
        if mine.load(Ordering::SeqCst) { modern(seen) } else { legacy(seen) }
    };
    (Server::start(serve), switch)
}

impl Rig {
    /// The revision that `/status` shows.
    pub(crate) fn revision(&self) -> String {
        self.upstream.status().revision.map(|it| it.to_string()).unwrap_or_default()
    }

    /// Any request, over the shared link.
    pub(crate) fn ask(&self, method: &str, params: &str) -> Outcome {
        let outgoing = outgoing(method, params);
        self.upstream
            .request(SessionRoute::Shared, &outgoing, &wait(5000), &Sink::default())
            .unwrap()
    }
}

pub(crate) fn outgoing<'a>(method: &'a str, params: &'a str) -> Outgoing<'a> {
    let is_safe_to_repeat = method != "tools/call";
    Outgoing {
        method,
        is_safe_to_repeat,
        params: RawObject::parse(params).unwrap(),
        meta: None,
        wants_progress: false,
        about: About::default(),
        charged: None,
        mirrored: Vec::new(),
    }
}

/// A modern server in the shell, which says on its standard error what comes. `$id` is the
/// request's id; `call` says what happens at `tools/call`, `legacy` at `initialize`.
pub(crate) fn modern_child(before: &str, call: &str, legacy: &str) -> UpstreamConfig {
    let text = format!(
        r#"{before}
say() {{ echo "$1"; }}
answer() {{ say "{{\"jsonrpc\":\"2.0\",\"id\":$id,\"result\":$1}}"; }}
refuse() {{ say "{{\"jsonrpc\":\"2.0\",\"id\":$id,\"error\":{{\"code\":$1,\"message\":\"as scripted\"}}}}"; }}
while read -r line; do
  rest=${{line#*\"id\":}}; id=${{rest%%[,\}}]*}}
  case "$line" in
    *'"server/discover"'*) echo discover >&2; answer "$DISCOVERED";;
    *'"initialize"'*) echo initialize >&2; {legacy};;
    *'"tools/list"'*) answer '{{"tools":[{{"name":"sh"}}]}}';;
    *'"tools/call"'*) {call};;
    *'"resources/list"'*) answer '{{"resources":[]}}';;
    *'"resources/templates/list"'*) answer '{{"resourceTemplates":[]}}';;
    *cancelled*) echo cancelled >&2;;
  esac
done"#
    );
    let env = [("INIT", INITIALIZED), ("DISCOVERED", DISCOVERED)];
    config(Target::Stdio(StdioTarget {
        command: "sh".to_owned(),
        args: vec!["-c".to_owned(), text],
        env: env.map(|(name, value)| (name.to_owned(), Secret::new(value.to_owned()))).into(),
        cwd: None,
        folder: None,
    }))
}
