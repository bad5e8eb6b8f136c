//! The modern wire ↔ the internal model: revisions from 2026-07-28, which have no sessions.
//! Every request carries what a session would remember (basic/index, General fields, `_meta`).

use std::sync::Arc;

use super::call::{Call, Caller};
use super::jsonrpc::{RequestId, RpcError, code};
use super::legacy::{self, Initialized};
use super::log_level::LogLevel;
use super::method::Method;
use super::raw::{Raw, RawObject, holds, push_string, string, try_each_element};
use super::revision::{Era, Revision};
use super::server_introduction;
use crate::limits::{INPUT_REQUEST_BYTES_MAX, INTRODUCTION_BYTES_MAX, REQUEST_STATE_BYTES_MAX};

/// Members of a request's parameters that a retry with input adds.
pub const RETRY_MEMBERS: [&str; 2] = ["inputResponses", "requestState"];

/// Keys of `_meta` that the revision reserves.
pub mod key {
    /// The revision that a request is written in.
    pub const PROTOCOL_VERSION: &str = "io.modelcontextprotocol/protocolVersion";
    /// The client's name and version.
    pub const CLIENT_INFO: &str = "io.modelcontextprotocol/clientInfo";
    /// The client's capabilities.
    pub const CLIENT_CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";
    /// The level from which log messages of a request are wanted.
    pub const LOG_LEVEL: &str = "io.modelcontextprotocol/logLevel";
    /// The id of the `subscriptions/listen` request that a notification belongs to.
    pub const SUBSCRIPTION_ID: &str = "io.modelcontextprotocol/subscriptionId";
    /// The server's name and version.
    pub const SERVER_INFO: &str = "io.modelcontextprotocol/serverInfo";
}

/// The member with the type of a result.
const RESULT_TYPE: &str = "resultType";
/// The member with the time for which a result is fresh, in milliseconds.
const TTL: &str = "ttlMs";
/// The member that says who may share a result.
const CACHE_SCOPE: &str = "cacheScope";

/// The gateway as a client or a server, an `Implementation`'s text.
fn implementation() -> String {
    format!("{{\"name\":\"trunkline\",\"version\":\"{}\"}}", env!("CARGO_PKG_VERSION"))
}

/// The revision that a message's parameters declare; such a message is a modern one
/// (basic/versioning, Compatibility Matrix).
pub fn declared_version(params: Option<&str>) -> Option<String> {
    let fields = RawObject::parse(params?).ok()?;
    let meta = RawObject::parse(fields.get("_meta")?).ok()?;
    meta.string(key::PROTOCOL_VERSION).ok().flatten()
}

/// True if a body may declare that it is a stateless request, by a search of the text.
pub fn may_declare_version(body: &[u8]) -> bool {
    let slash = key::PROTOCOL_VERSION.find('/').unwrap_or_default();
    std::str::from_utf8(body).is_ok_and(|text| holds(text, key::PROTOCOL_VERSION, slash))
}

/// The name that a client gives itself in a request: in its `_meta`, or in `initialize`.
pub fn client_name(params: Option<&str>) -> Option<Arc<str>> {
    let fields = RawObject::parse(params?).ok()?;
    let meta = fields.get("_meta").and_then(|meta| RawObject::parse(meta).ok());
    let info = meta.as_ref().and_then(|meta| meta.get(key::CLIENT_INFO));
    legacy::client_name(info.or_else(|| fields.get("clientInfo"))?)
}

/// A modern request's parameters, split into their parts.
#[derive(Debug)]
pub struct Envelope<'a> {
    /// The caller that `_meta` describes.
    pub caller: Arc<Caller>,
    /// The parameters without `_meta`.
    pub params: RawObject<'a>,
    /// `_meta` without the protocol's own keys.
    pub meta: Option<RawObject<'a>>,
    /// The token's JSON text, if the client wants progress.
    pub progress_token: Option<String>,
}

impl<'a> Envelope<'a> {
    /// The call of this request.
    pub fn into_call(self, method: Method) -> Call<'a> {
        let Envelope { caller, params, meta, progress_token } = self;
        Call { caller, method, params, meta, progress_token }
    }
}

/// Reads a modern request, whose `_meta` describes the caller.
///
/// # Errors
/// The parameters or their `_meta` lack a member that every request must carry, or the revision
/// is not served without a session.
pub fn read_envelope(params: Option<&str>) -> Result<Envelope<'_>, RpcError> {
    let wrong = |what: &str| RpcError::new(code::INVALID_PARAMS, what);
    let lacks = || {
        wrong(&format!(
            "\"params._meta\" must be an object with \"{}\" and \"{}\".",
            key::PROTOCOL_VERSION,
            key::CLIENT_CAPABILITIES
        ))
    };
    let mut params = RawObject::parse(params.ok_or_else(lacks)?).map_err(|error| {
        wrong(&format!("The parameters are no acceptable object: {error}."))
    })?;
    let Some(std::borrow::Cow::Borrowed(meta)) = params.remove("_meta") else {
        return Err(lacks());
    };
    let mut meta = RawObject::parse(meta).map_err(|_| lacks())?;
    let version = meta.string(key::PROTOCOL_VERSION).ok().flatten().ok_or_else(lacks)?;
    let revision = Revision::parse(&version)
        .filter(|revision| revision.era() == Era::Modern)
        .ok_or_else(|| unsupported_version(&version))?;
    let capabilities = meta.remove(key::CLIENT_CAPABILITIES).ok_or_else(lacks)?;
    if capabilities.len() > INTRODUCTION_BYTES_MAX || RawObject::parse(&capabilities).is_err() {
        return Err(wrong(&format!(
            "\"{}\" must be an object of at most {INTRODUCTION_BYTES_MAX} bytes.",
            key::CLIENT_CAPABILITIES
        )));
    }
    let log_level = match meta.remove(key::LOG_LEVEL) {
        None => None,
        Some(level) => Some(
            read_level(&level)
                .ok_or_else(|| wrong(&format!("\"{}\" is no log level.", key::LOG_LEVEL)))?,
        ),
    };
    let progress_token = meta.remove("progressToken").map(std::borrow::Cow::into_owned);
    if progress_token.as_deref().is_some_and(|token| RequestId::parse(token).is_none()) {
        return Err(wrong("\"_meta.progressToken\" must be a string or an integer."));
    }
    meta.remove(key::PROTOCOL_VERSION);
    let client = meta.remove(key::CLIENT_INFO).and_then(|info| legacy::client_name(&info));
    let capabilities = Raw::from_valid(capabilities.into_owned());
    let caller = Arc::new(Caller { revision, capabilities, log_level, client });
    let meta = (!meta.is_empty()).then_some(meta);
    Ok(Envelope { caller, params, meta, progress_token })
}

fn read_level(text: &str) -> Option<LogLevel> {
    LogLevel::parse(&serde_json::from_str::<String>(text).ok()?)
}

/// Adds the members of `_meta` that a request of the gateway carries, besides those of its
/// client.
pub fn write_meta(meta: &mut RawObject<'_>, capabilities: &str, log_level: Option<LogLevel>) {
    meta.set(key::PROTOCOL_VERSION, string(Revision::LATEST_MODERN.as_str()));
    meta.set(key::CLIENT_INFO, implementation());
    meta.set(key::CLIENT_CAPABILITIES, capabilities.to_owned());
    if let Some(level) = log_level {
        meta.set(key::LOG_LEVEL, string(level.as_str()));
    }
}

/// The error for a revision that is not served in this way (basic/versioning, Protocol Version
/// Negotiation).
pub fn unsupported_version(requested: &str) -> RpcError {
    let requested: String = requested.chars().take(40).collect();
    let supported: Vec<&str> = Revision::ALL.into_iter().map(Revision::as_str).collect();
    let data = serde_json::json!({ "supported": supported, "requested": requested });
    RpcError {
        code: code::UNSUPPORTED_PROTOCOL_VERSION,
        message: "Unsupported protocol version".to_owned(),
        data: Some(Raw::from_valid(data.to_string())),
    }
}

/// The error for a request that needs `capabilities` which the client has not declared.
pub fn missing_capability<'a>(capabilities: impl IntoIterator<Item = &'a str>) -> RpcError {
    let required: serde_json::Map<_, _> =
        capabilities.into_iter().map(|name| (name.to_owned(), serde_json::json!({}))).collect();
    let names: Vec<&str> = required.keys().map(String::as_str).collect();
    let message = format!("This needs client capabilities: {}.", names.join(", "));
    let data = serde_json::json!({ "requiredCapabilities": required });
    RpcError {
        code: code::MISSING_CLIENT_CAPABILITY,
        message,
        data: Some(Raw::from_valid(data.to_string())),
    }
}

/// The error for a header that does not agree with the body (basic/transports/streamable-http,
/// Server Validation).
pub fn header_mismatch(what: impl Into<String>) -> RpcError {
    RpcError::new(code::HEADER_MISMATCH, format!("Header mismatch: {}", what.into()))
}

/// An error for a modern client: without codes of earlier revisions, which must not be emitted
/// any more (basic/index, Error Codes).
pub fn error_for(mut error: RpcError) -> RpcError {
    error.code = match error.code {
        code::RESOURCE_NOT_FOUND => code::INVALID_PARAMS,
        // Mirrored headers are between the gateway and its servers; the client cannot mend
        // them.
        code::URL_ELICITATION_REQUIRED | code::HEADER_MISMATCH => code::INTERNAL_ERROR,
        other => other,
    };
    error
}

/// True for an error code that only a modern server gives (basic/versioning, Backward
/// Compatibility).
pub fn is_modern_error(code: i64) -> bool {
    [code::HEADER_MISMATCH, code::MISSING_CLIENT_CAPABILITY, code::UNSUPPORTED_PROTOCOL_VERSION]
        .contains(&code)
}

/// The time for which a result is fresh, and who may share it (server/utilities/caching). In this
/// order the stricter of two is the smaller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Freshness {
    /// The time in milliseconds; 0 is stale at once.
    pub ttl_ms: u64,
    /// True if the result is for this caller alone.
    pub is_private: bool,
}

impl Freshness {
    /// The freshness of a result that does not tell it.
    pub const UNKNOWN: Freshness = Freshness { ttl_ms: 0, is_private: true };

    /// The freshness of a result made of both.
    pub fn and(self, other: Freshness) -> Freshness {
        Freshness {
            ttl_ms: self.ttl_ms.min(other.ttl_ms),
            is_private: self.is_private || other.is_private,
        }
    }

    /// The freshness that a result tells, if it tells any. A missing member counts as the
    /// strictest value; a negative time as 0.
    pub fn of(fields: &RawObject<'_>) -> Option<Freshness> {
        let (ttl, scope) = (fields.get(TTL), fields.get(CACHE_SCOPE));
        (ttl.is_some() || scope.is_some()).then(|| Freshness {
            ttl_ms: ttl.and_then(|text| text.parse().ok()).unwrap_or_default(),
            is_private: scope != Some("\"public\""),
        })
    }
}

/// A modern server's result in terms of the internal model.
#[derive(Debug, Clone, PartialEq)]
pub enum Read {
    /// The whole result, without its type and its server's name. Its freshness is still in it.
    Complete(Raw),
    /// The server needs input of the client first (basic/patterns/mrtr).
    InputRequired {
        /// Requests by key, an object's text; none where the server needs only a retry.
        requests: Option<Raw>,
        /// The state that the retry must carry.
        state: Option<String>,
    },
}

/// Reads a modern server's result.
///
/// # Errors
/// The text is no result of that revision; the error says why.
pub fn read_result(result: &Raw) -> Result<Read, String> {
    let mut fields =
        RawObject::parse(result.get()).map_err(|error| format!("it is no object: {error}"))?;
    let kind = fields.string(RESULT_TYPE).map_err(|_| "\"resultType\" is no string")?;
    match kind.as_deref() {
        Some("input_required") => {
            let requests = fields.get("inputRequests").filter(|text| *text != "null");
            if requests.is_some_and(|text| text.len() > INPUT_REQUEST_BYTES_MAX) {
                return Err(format!(
                    "\"inputRequests\" has more than {INPUT_REQUEST_BYTES_MAX} bytes"
                ));
            }
            if fields.get("requestState").is_some_and(|it| it.len() > REQUEST_STATE_BYTES_MAX) {
                return Err(format!(
                    "\"requestState\" has more than {REQUEST_STATE_BYTES_MAX} bytes"
                ));
            }
            let requests = requests.map(|text| Raw::from_valid(text.to_owned()));
            if requests.as_ref().is_some_and(|it| RawObject::parse(it.get()).is_err()) {
                return Err("\"inputRequests\" is no object".to_owned());
            }
            let state = fields
                .string("requestState")
                .map_err(|_| "\"requestState\" is no string".to_owned())?;
            if requests.is_none() && state.is_none() {
                return Err("it wants input but says neither which nor a state".to_owned());
            }
            Ok(Read::InputRequired { requests, state })
        }
        None | Some("complete") => {
            let meta = fields.get("_meta").and_then(|meta| RawObject::parse(meta).ok());
            let meta =
                meta.filter(|meta| meta.get(key::SERVER_INFO).is_some()).map(|mut meta| {
                    meta.remove(key::SERVER_INFO);
                    (!meta.is_empty()).then(|| meta.to_text())
                });
            if kind.is_none() && meta.is_none() {
                return Ok(Read::Complete(result.clone()));
            }
            fields.remove(RESULT_TYPE);
            match meta {
                Some(Some(meta)) => fields.set("_meta", meta),
                Some(None) => drop(fields.remove("_meta")),
                None => (),
            }
            Ok(Read::Complete(result.rewritten(fields.to_text())))
        }
        // The result has an extension's type: only a client that knows the extension has asked
        // for it.
        Some(_) => Ok(Read::Complete(result.clone())),
    }
}

/// A result for a modern client. `freshness` is added where the result does not tell its own, and
/// only for methods whose results must tell it.
pub fn write_result(result: &str, freshness: Option<Freshness>) -> String {
    write_result_of(implementation(), result, freshness)
}

/// A result for a modern client, from a server that is described by `info`.
pub fn write_result_of(info: String, result: &str, freshness: Option<Freshness>) -> String {
    let Ok(mut fields) = RawObject::parse(result) else { return result.to_owned() };
    let meta = fields.get("_meta").and_then(|meta| RawObject::parse(meta).ok());
    let mut meta = meta.unwrap_or_default();
    meta.set(key::SERVER_INFO, info);
    let meta = meta.to_text();
    if fields.get(RESULT_TYPE).is_none() {
        fields.set(RESULT_TYPE, "\"complete\"");
    }
    if let Some(freshness) = freshness {
        let freshness = Freshness::of(&fields).unwrap_or(freshness);
        fields.set(TTL, freshness.ttl_ms.to_string());
        let scope = if freshness.is_private { "\"private\"" } else { "\"public\"" };
        fields.set(CACHE_SCOPE, scope);
    }
    fields.set("_meta", meta);
    fields.to_text()
}

/// A result for a legacy client: without its freshness.
pub fn without_freshness(result: &Raw) -> Raw {
    match RawObject::parse(result.get()) {
        Ok(mut fields) => {
            let (ttl, scope) = (fields.remove(TTL), fields.remove(CACHE_SCOPE));
            if ttl.is_none() && scope.is_none() {
                return result.clone();
            }
            result.rewritten(fields.to_text())
        }
        Err(_) => result.clone(),
    }
}

/// The result that asks a client for input.
pub fn input_required(requests: Option<&str>, state: Option<&str>) -> String {
    let mut fields = RawObject::default();
    fields.set(RESULT_TYPE, "\"input_required\"");
    if let Some(requests) = requests {
        fields.set("inputRequests", requests);
    }
    if let Some(state) = state {
        fields.set("requestState", string(state));
    }
    write_result(&fields.to_text(), None)
}

/// The result of `server/discover` as the gateway gives it, without what
/// [`write_result`] adds.
pub fn discover_result(capabilities: &str, instructions: Option<&str>) -> String {
    let supported: Vec<&str> = Revision::ALL.into_iter().map(Revision::as_str).collect();
    let mut out = format!(
        "{{\"supportedVersions\":{},\"capabilities\":{capabilities}",
        serde_json::json!(supported)
    );
    if let Some(instructions) = instructions {
        out.push_str(",\"instructions\":");
        push_string(&mut out, instructions);
    }
    out.push('}');
    out
}

/// Reads a server's answer to `server/discover`. None if it serves no modern revision that the
/// gateway speaks.
///
/// # Errors
/// The text is no such answer; the error says why.
pub fn read_discover_result(result: &str) -> Result<Option<Initialized>, String> {
    let fields = RawObject::parse(result).map_err(|error| format!("no object: {error}"))?;
    let versions = fields.get("supportedVersions").ok_or("\"supportedVersions\" is missing")?;
    let mut is_served = false;
    let revision = Revision::LATEST_MODERN;
    try_each_element(versions, &mut |version| {
        let version: String = serde_json::from_str(version).map_err(|_| "no string")?;
        is_served |= version == revision.as_str();
        Ok(())
    })
    .map_err(|_| "\"supportedVersions\" is no list of strings")?;
    if !is_served {
        return Ok(None);
    }
    let meta = fields.get("_meta").and_then(|meta| RawObject::parse(meta).ok());
    let info = meta.as_ref().and_then(|meta| meta.get(key::SERVER_INFO));
    let (capabilities, instructions) = (fields.get("capabilities"), fields.get("instructions"));
    Ok(Some(server_introduction::read(revision, capabilities, info, instructions)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const META: &str = r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{"roots":{}},"io.modelcontextprotocol/clientInfo":{"name":"c","version":"1"},"io.modelcontextprotocol/logLevel":"info","progressToken":7,"x":1}"#;

    #[test]
    fn a_call_is_whole_in_itself() {
        let params = format!(r#"{{"name":"t",{META}}}"#);
        assert_eq!(declared_version(Some(&params)).as_deref(), Some("2026-07-28"));
        let call = read_envelope(Some(&params)).unwrap().into_call(Method::ToolsCall);
        assert_eq!(call.params.to_text(), r#"{"name":"t"}"#);
        assert_eq!(call.meta.unwrap().to_text(), r#"{"x":1}"#);
        assert_eq!(call.progress_token.as_deref(), Some("7"));
        assert_eq!(call.caller.log_level, Some(LogLevel::Info));
        assert_eq!(call.caller.capabilities.get(), r#"{"roots":{}}"#);
    }

    #[test]
    fn a_request_without_its_envelope_is_malformed() {
        let version = key::PROTOCOL_VERSION;
        for (params, code) in [
            (None, code::INVALID_PARAMS),
            (Some("{}".to_owned()), code::INVALID_PARAMS),
            (Some(r#"{"_meta":7}"#.to_owned()), code::INVALID_PARAMS),
            (
                Some(format!(r#"{{"_meta":{{"{version}":"2026-07-28"}}}}"#)),
                code::INVALID_PARAMS,
            ),
            (
                Some(format!(r#"{{"_meta":{{"{version}":"1999-01-01"}}}}"#)),
                code::UNSUPPORTED_PROTOCOL_VERSION,
            ),
        ] {
            let error = read_envelope(params.as_deref()).unwrap_err();
            assert_eq!(error.code, code, "{params:?}");
        }
        let bad = META.replace("\"info\"", "\"loud\"");
        let error = read_envelope(Some(&format!("{{{bad}}}"))).unwrap_err();
        assert!(error.message.contains("log level"), "{error:?}");
    }

    #[test]
    fn what_a_server_wants_from_its_client_is_bounded() {
        let wants = |requests: usize, state: usize| {
            let (padding, state) = ("p".repeat(requests), "s".repeat(state));
            let text = format!(
                r#"{{"resultType":"input_required","inputRequests":{{"a":"{padding}"}},"requestState":"{state}"}}"#
            );
            read_result(&Raw::from_valid(text))
        };
        assert!(wants(1, 1).is_ok());
        assert!(wants(INPUT_REQUEST_BYTES_MAX, 1).unwrap_err().contains("inputRequests"));
        assert!(wants(1, REQUEST_STATE_BYTES_MAX).unwrap_err().contains("requestState"));
    }

    #[test]
    fn results_lose_and_gain_what_only_modern_ones_have() {
        let text = r#"{"content":[1],"resultType":"complete","_meta":{"io.modelcontextprotocol/serverInfo":{"name":"s"}}}"#;
        let read = read_result(&Raw::from_valid(text.to_owned())).unwrap();
        let Read::Complete(read) = read else { panic!("{read:?}") };
        assert_eq!(read.get(), r#"{"content":[1]}"#);
        let written = write_result(read.get(), None);
        assert!(written.starts_with(r#"{"content":[1],"resultType":"complete","_meta":{"#));
        let private = write_result("{}", Some(Freshness::UNKNOWN));
        assert!(private.contains(r#""ttlMs":0,"cacheScope":"private""#), "{private}");
        let own =
            write_result(r#"{"ttlMs":5,"cacheScope":"public"}"#, Some(Freshness::UNKNOWN));
        assert!(own.contains(r#""ttlMs":5,"cacheScope":"public""#), "{own}");
        let legacy = without_freshness(&Raw::from_valid(own));
        assert!(!legacy.get().contains("ttlMs"), "{legacy:?}");
    }

    #[test]
    fn a_result_that_wants_input_is_told_apart() {
        let read = |text: &str| read_result(&Raw::from_valid(text.to_owned()));
        let wants = r#"{"resultType":"input_required","inputRequests":{"a":{"method":"roots/list"}},"requestState":"s"}"#;
        let Ok(Read::InputRequired { requests, state }) = read(wants) else { panic!() };
        assert_eq!(requests.unwrap().get(), r#"{"a":{"method":"roots/list"}}"#);
        assert_eq!(state.as_deref(), Some("s"));
        assert!(read(r#"{"resultType":"input_required"}"#).is_err());
        assert!(read(r#"{"resultType":7}"#).is_err());
        let other = r#"{"resultType":"task","x":1}"#;
        assert_eq!(read(other), Ok(Read::Complete(Raw::from_valid(other.to_owned()))));
    }

    #[test]
    fn discovery_reads_back() {
        let text = discover_result(r#"{"tools":{}}"#, Some("hello"));
        let read = read_discover_result(&text).unwrap().unwrap();
        assert_eq!(read.revision, Revision::LATEST_MODERN);
        assert_eq!(read.instructions.as_deref(), Some("hello"));
        let legacy = r#"{"supportedVersions":["2025-11-25"],"capabilities":{}}"#;
        assert_eq!(read_discover_result(legacy), Ok(None));
        assert!(read_discover_result("{}").is_err());
    }
}
