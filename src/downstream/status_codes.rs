//! Status, headers and body for outcomes and failures. All status codes for clients are here.

use std::io;

use super::endpoint::{Dialect, Endpoint};
use super::refusal_text::{foreign_message, refusal_members};
use crate::error::{CallError, HttpRefusal, Side, Stage, whole_seconds};
use crate::http::{Answer, Responder};
use crate::limits::UPSTREAM_ERROR_CHARS_MAX;
use crate::protocol::call::Kind;
use crate::protocol::headers::{JSON, MIRRORED};
use crate::protocol::jsonrpc::{RequestId, RpcError, code, error_response};
use crate::protocol::server_name::ServerName;
use crate::telemetry;
use crate::telemetry::outcome::CallOutcome;
use crate::telemetry::redact;
use crate::telemetry::rejected::Reason;

/// The word for a server that has not answered in time.
pub(super) const TIMEOUT_WORD: &str = "timeout";

/// The request succeeded.
pub const OK: u16 = 200;
/// A message was taken; its answer, if any, comes on a stream.
pub const ACCEPTED: u16 = 202;
/// There is no body.
pub const NO_CONTENT: u16 = 204;
/// The statuses of pages for people: of an answer that belongs to nothing, of one that is somebody
/// else's, of a page that is not there, of an authorization server that failed, and of a gateway
/// at its bounds.
pub const BAD_REQUEST: u16 = 400;
/// See [`BAD_REQUEST`].
pub const FORBIDDEN: u16 = 403;
/// See [`BAD_REQUEST`].
pub const NOT_FOUND: u16 = 404;
/// See [`BAD_REQUEST`].
pub const BAD_GATEWAY: u16 = 502;
/// See [`BAD_REQUEST`].
pub const UNAVAILABLE: u16 = 503;

/// The headers of an event stream: no cache, no proxy that holds events back.
pub const STREAM_HEADERS: [(&str, &str); 3] = [
    ("Content-Type", crate::protocol::headers::EVENT_STREAM),
    ("Cache-Control", "no-cache, no-transform"),
    ("X-Accel-Buffering", "no"),
];

/// The most unknown members that are named; each is cut to a number of characters.
const UNKNOWN_MEMBERS_TOLD_MAX: usize = 8;
const MEMBER_CHARS_MAX: usize = 64;

/// A refusal or failure, before it gets the form of a transport.
#[derive(Debug, Clone, PartialEq)]
pub struct Problem {
    /// The HTTP status.
    pub status: u16,
    /// REST's word for the problem.
    pub code: &'static str,
    /// JSON-RPC's error code.
    pub rpc_code: i64,
    /// A sentence for the client.
    pub message: String,
    /// Further members of the error, and of JSON-RPC's `data`.
    pub details: Vec<(&'static str, serde_json::Value)>,
    /// Further headers.
    pub headers: Vec<(&'static str, String)>,
}

impl Problem {
    pub(super) fn new(
        status: u16,
        code: &'static str,
        rpc_code: i64,
        message: impl Into<String>,
    ) -> Self {
        Problem {
            status,
            code,
            rpc_code,
            message: message.into(),
            details: Vec::new(),
            headers: Vec::new(),
        }
    }

    /// A request that is refused before any work is done for it. It is counted here, since a
    /// refusal is put into words once, by any transport.
    fn refusal(
        reason: Reason,
        status: u16,
        code: &'static str,
        rpc_code: i64,
        message: impl Into<String>,
    ) -> Problem {
        let message = message.into();
        telemetry::request::turned_away(reason, None, &message);
        Problem::new(status, code, rpc_code, message)
    }

    /// Adds a member to the error.
    pub fn with(mut self, key: &'static str, value: impl Into<serde_json::Value>) -> Problem {
        self.details.push((key, value.into()));
        self
    }

    pub(super) fn header(mut self, name: &'static str, value: impl Into<String>) -> Problem {
        self.headers.push((name, value.into()));
        self
    }

    /// The request is malformed.
    pub fn bad_request(message: impl Into<String>) -> Problem {
        Problem::refusal(
            Reason::BadRequest,
            400,
            "invalid_request",
            code::INVALID_REQUEST,
            message,
        )
    }

    /// The request does not fit the transport: no session, a wrong header.
    pub fn bad_transport(message: impl Into<String>) -> Problem {
        Problem::refusal(Reason::BadRequest, 400, "invalid_request", code::BAD_REQUEST, message)
    }

    /// A text that is no JSON-RPC message.
    pub fn malformed(error: &RpcError) -> Problem {
        let message = error.message.clone();
        Problem::refusal(Reason::BadRequest, 400, "invalid_request", error.code, message)
    }

    /// A foreign `Host` or `Origin`, as it was sent, and the key that admits it.
    pub fn foreign(header: &str, sent: Option<&str>, key: &str) -> Problem {
        let message = foreign_message(header, sent, key);
        Problem::refusal(Reason::Origin, 403, "foreign_origin", code::BAD_REQUEST, message)
    }

    /// A file of the state directory cannot be read or written.
    pub fn not_kept(what: &str) -> Problem {
        Problem::new(500, "state_unusable", code::INTERNAL_ERROR, what)
    }

    /// Nobody can sign in at a server for the gateway; the text says why.
    pub fn no_sign_in(why: String) -> Problem {
        Problem::new(409, "no_sign_in", code::INVALID_PARAMS, why)
    }

    /// No item of that name is pinned for a server.
    pub fn not_pinned(server: &ServerName, near: &[String]) -> Problem {
        let close = if near.is_empty() {
            String::new()
        } else {
            format!("; close: {}", near.join(", "))
        };
        let message = format!("nothing of that name is pinned of {server}{close}");
        Problem::new(404, "not_pinned", code::INVALID_PARAMS, message)
            .with("server", server.as_str())
            .with("near", near)
    }

    /// A body has unknown members.
    pub fn unknown_members(unknown: &[&str], known: &[&str]) -> Problem {
        let quoted = |keys: &[&str]| {
            let keys = keys.iter().take(UNKNOWN_MEMBERS_TOLD_MAX);
            let keys = keys.map(|key| format!("{:?}", redact::excerpt(key, MEMBER_CHARS_MAX)));
            keys.collect::<Vec<String>>().join(", ")
        };
        let (unknown, may_have) = (quoted(unknown), quoted(known));
        let hint = if known.contains(&"arguments") {
            "; what the tool is given stands in \"arguments\""
        } else {
            ""
        };
        Problem::bad_request(format!(
            "The body has unknown members: {unknown}. It may have {may_have}{hint}."
        ))
    }

    /// A call lacks a parameter, in LiteLLM's words.
    pub fn missing_parameter(key: &str) -> Problem {
        let message = format!("\"{key}\" is missing.");
        let code = code::INVALID_PARAMS;
        Problem::refusal(Reason::BadRequest, 400, "missing_parameter", code, message)
    }

    /// The only server whose list was requested has none to show; `word` gives the reason.
    pub fn unlisted(server: &ServerName, word: &'static str, message: &str) -> Problem {
        let status = if word == TIMEOUT_WORD { 504 } else { 502 };
        let message = format!("Failed to list tools from server {server}: {message}");
        Problem::new(status, word, code::INTERNAL_ERROR, message)
            .with("server", server.as_str())
    }

    /// The request is for admins only.
    pub fn not_admin() -> Problem {
        let message = "This needs a key with \"admin\": true, or, without keys, to be asked from \
                       this machine; /metrics and /status are at \"admin_listen\" too.";
        let word = "not_admin";
        telemetry::request::turned_away(Reason::Unauthorized, Some(word), message);
        Problem::new(403, word, code::BAD_REQUEST, message)
    }

    /// The configuration was read again, and has faults.
    pub fn bad_configuration(problems: Vec<String>) -> Problem {
        let message = "The configuration stays as it was.";
        Problem::new(422, "bad_configuration", code::INTERNAL_ERROR, message)
            .with("problems", problems)
    }

    /// The configuration was applied in part only.
    pub fn reloaded_in_part(why: &str) -> Problem {
        let message =
            format!("The configuration was taken over in part only and is tried again: {why}");
        Problem::new(500, "reloaded_in_part", code::INTERNAL_ERROR, message)
    }

    /// Nothing is served at the path.
    pub fn unknown_path() -> Problem {
        Problem::nothing_at(
            "There is nothing at this path. Served are /, /mcp, /mcp/NAME of a server, \
             /mcp/tools/list, /mcp/tools/call, /mcp-rest/tools/list, /mcp-rest/tools/call, \
             /mcp/sse, /sse, /healthz, /readyz, /status, /metrics, /reload, /openapi.json and \
             /config.schema.json.",
        )
    }

    /// The gateway has no client metadata document.
    pub fn no_client_document() -> Problem {
        Problem::nothing_at(
            "There is no client metadata document: authorization servers read one only at an https \
             address, and \"public_url\" is none.",
        )
    }

    /// Nothing is served at the path of `admin_listen`.
    pub fn unknown_admin_path() -> Problem {
        Problem::nothing_at(
            "There is nothing at this path of admin_listen. Served there are /healthz, /readyz, \
             /status and /metrics. Everything else is served at listen.",
        )
    }

    fn nothing_at(message: &str) -> Problem {
        Problem::refusal(Reason::UnknownPath, 404, "unknown_path", code::BAD_REQUEST, message)
    }

    /// The session is unknown, has ended, or belongs to another key.
    pub fn unknown_session() -> Problem {
        let message = "Session not found. Open a new one with initialize.";
        let code = code::SESSION_NOT_FOUND;
        Problem::refusal(Reason::UnknownSession, 404, "unknown_session", code, message)
    }

    /// The path serves other methods.
    pub fn wrong_method(allowed: &[&str]) -> Problem {
        let allowed = allowed.join(", ");
        let message = format!("This path serves {allowed}.");
        let code = code::BAD_REQUEST;
        Problem::refusal(Reason::BadRequest, 405, "wrong_method", code, message)
            .header("Allow", allowed)
    }

    /// `Accept` admits no form of the answer.
    pub fn not_acceptable(wanted: &str) -> Problem {
        let message = format!("Not Acceptable: the Accept header must admit {wanted}.");
        Problem::refusal(Reason::BadRequest, 406, "not_acceptable", code::BAD_REQUEST, message)
    }

    /// The body is not declared as JSON.
    pub fn not_json() -> Problem {
        let message = "The body must be declared as \"Content-Type: application/json\".";
        let code = code::BAD_REQUEST;
        Problem::refusal(Reason::BadRequest, 415, "unsupported_media_type", code, message)
    }

    /// The configuration switches the transport off.
    pub fn switched_off(transport: &str, serving: &[&str]) -> Problem {
        let instead = if serving.is_empty() {
            "No transport serves.".to_owned()
        } else {
            format!("Serving instead: {}.", serving.join(", "))
        };
        let message =
            format!("The transport {transport} is switched off (\"transports\"). {instead}");
        Problem::new(501, "switched_off", code::BAD_REQUEST, message).with("serving", serving)
    }

    /// A bound is reached.
    pub fn overloaded(what: &str) -> Problem {
        let error = CallError::Overloaded { what: what.to_owned() };
        Problem::from_call(&error)
    }

    /// Required servers have not answered yet; `missing` are those that may be named. This is an
    /// answer, not a refusal.
    pub fn not_ready(missing: &[&str]) -> Problem {
        if missing.is_empty() {
            return Problem::unready("a required server has not answered yet".to_owned());
        }
        let (n, names) = (missing.len(), missing.join(", "));
        let message = format!("{}: {names}", Problem::have_not_answered(n));
        Problem::unready(message).with("n_missing", n).with("missing", missing)
    }

    /// As [`Problem::not_ready`], for a client that may only know the number.
    pub fn not_ready_without_names(n_missing: usize) -> Problem {
        Problem::unready(Problem::have_not_answered(n_missing)).with("n_missing", n_missing)
    }

    fn unready(message: String) -> Problem {
        let problem = Problem::new(503, "not_ready", code::INTERNAL_ERROR, message);
        problem.header("Retry-After", "1")
    }

    fn have_not_answered(n_missing: usize) -> String {
        match n_missing {
            1 => "1 required server has not answered yet".to_owned(),
            n => format!("{n} required servers have not answered yet"),
        }
    }

    /// A header stands twice that may stand once: another reader could use the other value.
    pub fn repeated(field: &str) -> Problem {
        let code =
            if MIRRORED.contains(&field) { code::HEADER_MISMATCH } else { code::BAD_REQUEST };
        let message = format!("Bad Request: the {field} header stands more than once.");
        Problem::refusal(Reason::BadRequest, 400, "invalid_request", code, message)
    }

    /// A server needs input that this client cannot give.
    pub fn wants_input(server: &ServerName) -> Problem {
        let message = format!(
            "The server {server} wants input from the client, which cannot be asked over this \
             transport."
        );
        Problem::new(502, "upstream_failed", code::INTERNAL_ERROR, message)
            .with("server", server.as_str())
            .with("stage", Stage::Answer.as_str())
    }

    /// The engine in use has no long-lived streams.
    pub fn no_streams() -> Problem {
        let message = "Streams need the default HTTP engine.";
        Problem::new(405, "wrong_method", code::BAD_REQUEST, message).header("Allow", "POST")
    }

    /// The outcome of the request, where the call has noted none.
    pub fn outcome(&self) -> CallOutcome {
        match self.status {
            502 => CallOutcome::UpstreamError,
            503 => CallOutcome::Overloaded,
            504 => CallOutcome::Timeout,
            _ => CallOutcome::ClientError,
        }
    }

    /// The problem of a failed call.
    pub fn from_call(error: &CallError) -> Problem {
        let problem = Problem::of_failure(error);
        let word = if matches!(error, CallError::Withheld { .. }) {
            // The gateway refuses it, whoever is to blame.
            Some("withheld")
        } else {
            (error.side() != Side::Upstream).then_some(problem.code)
        };
        telemetry::request::failed(error, word);
        problem
    }

    fn of_failure(error: &CallError) -> Problem {
        let text = error.to_string();
        match error {
            CallError::Invalid(_) => {
                Problem::new(400, "invalid_request", code::INVALID_PARAMS, text)
            }
            CallError::Unknown { kind: Kind::Tool, near, .. } => {
                Problem::new(404, "unknown_tool", code::INVALID_PARAMS, text)
                    .with("near", near.as_slice())
            }
            CallError::Unknown { kind: Kind::Prompt, near, .. } => {
                Problem::new(404, "unknown_prompt", code::INVALID_PARAMS, text)
                    .with("near", near.as_slice())
            }
            CallError::Unknown { kind: Kind::Resource | Kind::Template, name, .. } => {
                Problem::new(404, "unknown_resource", code::RESOURCE_NOT_FOUND, text)
                    .with("uri", name.as_str())
            }
            CallError::UnknownServer { near, .. } => {
                Problem::new(404, "unknown_server", code::INVALID_PARAMS, text)
                    .with("near", near.as_slice())
            }
            CallError::Ambiguous { kind, candidates, .. } => {
                let word = match kind {
                    Kind::Tool => "ambiguous_tool",
                    Kind::Prompt => "ambiguous_prompt",
                    Kind::Resource | Kind::Template => "ambiguous_resource",
                };
                Problem::new(409, word, code::INVALID_PARAMS, text)
                    .with("candidates", candidates.as_slice())
            }
            CallError::RateLimited { retry_after } => {
                let seconds = whole_seconds(*retry_after);
                let code = code::INTERNAL_ERROR;
                // The time is in the body too, for transports that answer on a stream.
                Problem::refusal(Reason::Rate, 429, "rate_limited", code, text)
                    .with("retry_after_s", seconds)
                    .header("Retry-After", seconds.to_string())
            }
            CallError::Withheld { .. }
            | CallError::UpstreamFailed { .. }
            | CallError::NeedsSignIn { .. }
            | CallError::UpstreamDown { .. }
            | CallError::UpstreamTimeout { .. } => Problem::of_upstream(error, text),
            CallError::Overloaded { .. } => {
                let code = code::INTERNAL_ERROR;
                Problem::refusal(Reason::Overloaded, 503, "overloaded", code, text)
                    .header("Retry-After", "1")
            }
            CallError::ShuttingDown => {
                let code = code::INTERNAL_ERROR;
                Problem::refusal(Reason::Overloaded, 503, "shutting_down", code, text)
                    .header("Retry-After", "5")
            }
            // 499 is nginx's; the client has gone.
            CallError::Cancelled => Problem::new(499, "cancelled", code::INTERNAL_ERROR, text),
            CallError::Internal => Problem::new(500, "internal", code::INTERNAL_ERROR, text),
        }
    }

    /// A failure for which a server, which is named, is to blame.
    fn of_upstream(error: &CallError, text: String) -> Problem {
        let named = |status, word| {
            let problem = Problem::new(status, word, code::INTERNAL_ERROR, text);
            match error.server() {
                Some(server) => problem.with("server", server.as_str()),
                None => problem,
            }
        };
        if let CallError::Withheld { .. } = error {
            return named(502, "tool_withheld");
        }
        if let CallError::NeedsSignIn { .. } = error {
            return named(502, "needs_sign_in");
        }
        if let CallError::UpstreamTimeout { stage, .. } = error {
            return named(504, "upstream_timeout").with("stage", stage.as_str());
        }
        let problem = named(502, "upstream_failed");
        match error {
            CallError::UpstreamDown { stage, since, next_try, .. } => {
                let seconds = whole_seconds(*next_try);
                problem
                    .with("stage", stage.as_str())
                    .with("down_since", since.as_str())
                    .with("retry_after_s", seconds)
                    .header("Retry-After", seconds.to_string())
            }
            CallError::UpstreamFailed { stage, refusal, .. } => {
                let problem = problem.with("stage", stage.as_str());
                match refusal {
                    Some(refusal) => problem.refused_upstream(refusal),
                    None => problem,
                }
            }
            CallError::Withheld { .. }
            | CallError::NeedsSignIn { .. }
            | CallError::UpstreamTimeout { .. }
            | CallError::Invalid(_)
            | CallError::Unknown { .. }
            | CallError::UnknownServer { .. }
            | CallError::Ambiguous { .. }
            | CallError::RateLimited { .. }
            | CallError::Overloaded { .. }
            | CallError::ShuttingDown
            | CallError::Cancelled
            | CallError::Internal => problem,
        }
    }

    /// Adds the details of a server's refusal.
    fn refused_upstream(self, refusal: &HttpRefusal) -> Problem {
        let members = refusal_members(refusal).into_iter();
        let problem = members.fold(self, |problem, (key, value)| problem.with(key, value));
        match &refusal.retry_after {
            Some(again) => problem.header("Retry-After", again.to_string()),
            None => problem,
        }
    }

    /// A server's JSON-RPC error for REST: wrong arguments are the client's fault, all else the
    /// server's.
    pub fn from_upstream_error(server: &str, error: &RpcError) -> Problem {
        let (status, word) = if error.code == code::INVALID_PARAMS {
            (400, "invalid_arguments")
        } else {
            (502, "upstream_error")
        };
        let said = redact::excerpt(&error.message, UPSTREAM_ERROR_CHARS_MAX);
        let message = format!("The server {server} answered with an error: {said}");
        let problem = Problem::new(status, word, error.code, message)
            .with("server", server)
            .with("rpc_code", error.code);
        match error.data.as_ref().and_then(|data| serde_json::from_str(data.get()).ok()) {
            Some(serde_json::Value::Null) | None => problem,
            Some(data) => problem.with("data", data),
        }
    }

    /// The answer to a head whose body was not read.
    pub fn to_answer(&self, endpoint: Option<Endpoint<'_>>) -> Answer {
        let mut headers = self.headers.clone();
        headers.push(("Content-Type", JSON.to_owned()));
        Answer { status: self.status, headers, body: self.body_for(endpoint).into_bytes() }
    }

    /// Answers with `body`.
    ///
    /// # Errors
    /// The client has gone.
    pub fn send(&self, responder: Responder, body: &str) -> io::Result<()> {
        let mut headers: Vec<(&str, &str)> =
            self.headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        headers.push(("Content-Type", JSON));
        responder.respond(self.status, &headers, &[body.as_bytes()])
    }

    /// Answers with a JSON-RPC error.
    ///
    /// # Errors
    /// The client has gone.
    pub fn send_rpc(&self, responder: Responder, id: Option<&RequestId>) -> io::Result<()> {
        self.send(responder, &error_response(id, &self.to_rpc()))
    }
}

/// The status of an error response to a stateless request (2026-07-28, basic/index, Error Codes,
/// and basic/transports/streamable-http). Where the specification names none, it is 200.
pub fn modern_status(rpc_code: i64) -> u16 {
    match rpc_code {
        code::METHOD_NOT_FOUND => 404,
        code::PARSE_ERROR
        | code::INVALID_REQUEST
        | code::INVALID_PARAMS
        | code::HEADER_MISMATCH
        | code::MISSING_CLIENT_CAPABILITY
        | code::UNSUPPORTED_PROTOCOL_VERSION => 400,
        _ => OK,
    }
}

/// Answers 200 with JSON in pieces.
///
/// # Errors
/// The client has gone.
pub fn send_json(responder: Responder, body: &[&[u8]]) -> io::Result<()> {
    responder.respond(OK, &[("Content-Type", JSON)], body)
}

/// As [`send_json`], where all but `own_bytes` of the body are counted against
/// `limits.buffered_bytes` already.
///
/// # Errors
/// As [`send_json`].
pub fn send_counted_json(
    responder: Responder,
    body: &[&[u8]],
    own_bytes: usize,
) -> io::Result<()> {
    responder.respond_counted(OK, &[("Content-Type", JSON)], body, own_bytes)
}

/// The body of an answer that the engine itself gives.
pub fn engine_body(status: u16, reason: &str) -> String {
    let word = match status {
        408 => "timeout",
        413 => "body_too_large",
        431 => "headers_too_large",
        500 => "internal",
        503 => "overloaded",
        _ => "invalid_request",
    };
    Problem::new(status, word, code::BAD_REQUEST, reason).rest_body(Dialect::Plain)
}
