//! Tools as plain JSON, in the gateway's own dialect and in LiteLLM's. The parts of the latter
//! alone are in `litellm.rs`.

pub(super) mod litellm;

use std::sync::Arc;
use std::time::Duration;

use super::authentication::bound;
use super::endpoint::Dialect;
use super::list_pages::server_outcome;
use super::status_codes::{self, Problem};
use super::{Front, TransportSwitch};
use crate::access::policy::Scope;
use crate::error::CallError;
use crate::http::{Head, Request, Responder};
use crate::limits::{CALL_TIMEOUT_MAX, JSON_DEPTH_MAX};
use crate::pipeline::{CallOptions, ItemList, Names};
use crate::protocol::call::{Call, CallSink, Caller, Kind, Notice, Outcome};
use crate::protocol::headers;
use crate::protocol::method::Method;
use crate::protocol::question::Question;
use crate::protocol::raw::{self, Raw, RawObject};
use crate::telemetry::outcome::{CallOutcome, Door};
use crate::telemetry::request;
use crate::wait::Wait;

/// A sink that drops messages: REST has no place for messages before a result.
pub(super) struct NoSink;

impl CallSink for NoSink {
    fn notice(&self, _: Notice) {}
    fn ask(&self, question: Question) {
        question.refuse();
    }
    fn has_client(&self) -> bool {
        false
    }
}

/// The body of a call.
#[derive(Debug)]
struct CallBody<'a> {
    params: RawObject<'a>,
    server: Option<String>,
    timeout: Option<Duration>,
}

/// The body of a list. It holds pages that clients with the same items share.
#[derive(Debug)]
struct ListBody {
    /// The texts of arrays.
    pages: Vec<Raw>,
    /// The text behind the tools.
    end: String,
}

impl ListBody {
    /// The pieces of the text: all arrays as one.
    fn pieces(&self) -> Vec<&[u8]> {
        let mut pieces: Vec<&[u8]> = Vec::with_capacity(2 * self.pages.len() + 4);
        pieces.push(b"{\"tools\":[");
        for page in &self.pages {
            let items = page.get().strip_prefix('[').and_then(|it| it.strip_suffix(']'));
            if pieces.len() > 1 {
                pieces.push(b",");
            }
            pieces.push(items.unwrap_or_default().as_bytes());
        }
        pieces.push(b"]");
        pieces.push(self.end.as_bytes());
        pieces.push(b"\n");
        pieces
    }
}

impl Front {
    pub(super) fn rest_list(
        &self,
        head: &Head,
        scope: &Scope,
        dialect: Dialect,
        responder: Responder,
    ) {
        request::ask(Door::Rest, Method::ToolsList.as_str(), None);
        let query = head.query.as_deref();
        let asked = match dialect {
            Dialect::Plain => query_value(query, "server"),
            Dialect::Litellm => litellm::server_asked_for(query),
        };
        let list = self.switched_on(TransportSwitch::Rest).and_then(|()| {
            let server = self.server_asked_for(scope, asked, dialect)?;
            let client = Some(responder.client());
            self.pipeline.await_first_lists(scope, server.as_deref(), client);
            let options = CallOptions { server: server.as_deref(), ..CallOptions::default() };
            self.list_body(scope, options, dialect)
        });
        request::answered(list.as_ref().map_or_else(Problem::outcome, |_| CallOutcome::Ok));
        // If the client has gone, the answer is not missed.
        match list {
            Ok(body) => {
                let (pieces, own_bytes) = (body.pieces(), body.end.len());
                status_codes::send_counted_json(responder, &pieces, own_bytes).ok()
            }
            Err(problem) => problem.send(responder, &problem.rest_body(dialect)).ok(),
        };
    }

    /// The whole list, in the pages that MCP clients get too.
    fn list_body(
        &self,
        scope: &Scope,
        options: CallOptions<'_>,
        dialect: Dialect,
    ) -> Result<ListBody, Problem> {
        let failed = |error: CallError| Problem::from_call(&error);
        let mut list = self.pipeline.list(scope, options, Kind::Tool).map_err(failed)?;
        let end = match dialect {
            Dialect::Plain => list_end(&list),
            Dialect::Litellm => {
                list.names = Names::WithServer;
                litellm::list_end(&list, options.server.is_some())?
            }
        };
        let pages = list.pages(self.limits.page_items);
        let pages = pages.map(|page| self.pipeline.page_text(scope, &list, page, None));
        Ok(ListBody { pages: pages.collect::<Result<_, _>>().map_err(failed)?, end })
    }

    /// The NAME of the requested server, if there is one. LiteLLM takes an alias too.
    fn server_asked_for(
        &self,
        scope: &Scope,
        asked: Option<String>,
        dialect: Dialect,
    ) -> Result<Option<String>, Problem> {
        match (asked, dialect) {
            (Some(asked), Dialect::Litellm) => {
                let server = self.pipeline.server_called(scope, &asked);
                let server = server.map_err(|error| Problem::from_call(&error))?;
                Ok(Some(server.as_str().to_owned()))
            }
            (asked, Dialect::Plain | Dialect::Litellm) => Ok(asked),
        }
    }

    pub(super) fn rest_call(
        &self,
        posted: &Request,
        scope: &Scope,
        dialect: Dialect,
        responder: Responder,
    ) {
        request::ask(Door::Rest, Method::ToolsCall.as_str(), None);
        let outcome = self.call_by_rest(posted, scope, dialect, &responder);
        request::answered(outcome.as_ref().map_or_else(Problem::outcome, |_| CallOutcome::Ok));
        match outcome {
            Ok(Outcome::Complete(result)) => {
                let own_bytes = result.keeper().map_or(result.get().len(), |_| 0);
                let body = [result.get().as_bytes(), b"\n"];
                status_codes::send_counted_json(responder, &body, own_bytes).ok()
            }
            Ok(Outcome::Error { server, error }) => {
                let problem = Problem::from_upstream_error(server.as_str(), &error);
                problem.send(responder, &problem.rest_body(dialect)).ok()
            }
            Ok(Outcome::InputRequired { server, .. }) => {
                let problem = Problem::wants_input(&server);
                problem.send(responder, &problem.rest_body(dialect)).ok()
            }
            Err(problem) => problem.send(responder, &problem.rest_body(dialect)).ok(),
        };
    }

    fn call_by_rest(
        &self,
        request: &Request,
        scope: &Scope,
        dialect: Dialect,
        responder: &Responder,
    ) -> Result<Outcome, Problem> {
        self.switched_on(TransportSwitch::Rest)?;
        let declared = request.head.headers.get("content-type");
        if !declared.is_some_and(headers::is_json) {
            return Err(Problem::not_json());
        }
        let body = read_call(&request.body, dialect)?;
        let server = self.server_asked_for(scope, body.server, dialect)?;
        let call = Call {
            caller: Arc::new(Caller::plain()),
            method: Method::ToolsCall,
            params: body.params,
            meta: None,
            progress_token: None,
        };
        // For REST, hanging up is the only way to cancel.
        let client = Some(responder.client());
        let wait = Wait::new(CALL_TIMEOUT_MAX, CALL_TIMEOUT_MAX, client)
            .map_err(|_| Problem::overloaded("no descriptor is left"))?;
        bound(&wait, scope);
        let options = CallOptions {
            server: server.as_deref(),
            timeout: body.timeout,
            ..CallOptions::default()
        };
        self.pipeline
            .call(scope, options, call, &wait, &NoSink)
            .map_err(|error| Problem::from_call(&error))
    }
}

fn server_key(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Plain => "server",
        Dialect::Litellm => "server_id",
    }
}

fn read_call(body: &[u8], dialect: Dialect) -> Result<CallBody<'_>, Problem> {
    let text = std::str::from_utf8(body)
        .map_err(|_| Problem::bad_request("The body is not UTF-8."))?;
    if raw::is_deeper_than(text, JSON_DEPTH_MAX) {
        return Err(Problem::bad_request("The body nests too deep."));
    }
    let mut params = RawObject::parse(text).map_err(|error| {
        Problem::bad_request(format!("The body must be one JSON object: {error}."))
    })?;
    let key = server_key(dialect);
    let server = params
        .string(key)
        .map_err(|_| Problem::bad_request(format!("\"{key}\" must be a string.")))?;
    params.remove(key);
    if dialect == Dialect::Litellm {
        // `metadata` holds labels for LiteLLM's log, which do not concern the call.
        params.remove("metadata");
    }
    let timeout = match params.remove("timeout_ms") {
        None => None,
        Some(text) => match text.parse::<u64>() {
            Ok(ms) if ms > 0 => Some(Duration::from_millis(ms)),
            _ => {
                let what = "\"timeout_ms\" must be a whole number of milliseconds above 0.";
                return Err(Problem::bad_request(what));
            }
        },
    };
    let mut call = RawObject::default();
    match params.remove("name") {
        Some(name) => call.set("name", name),
        None if dialect == Dialect::Litellm => return Err(Problem::missing_parameter("name")),
        // Other faults of the body are reported first.
        None => (),
    }
    // Some clients write `null` for no arguments.
    if let Some(arguments) = params.remove("arguments").filter(|text| text != "null") {
        call.set("arguments", arguments);
    }
    let unknown: Vec<&str> = params.iter().map(|(key, _)| key).collect();
    if !unknown.is_empty() {
        return Err(Problem::unknown_members(
            &unknown,
            &["name", "arguments", key, "timeout_ms"],
        ));
    }
    Ok(CallBody { params: call, server, timeout })
}

/// The text behind the tools.
fn list_end(list: &ItemList) -> String {
    let outcomes = list.servers.iter().map(server_outcome);
    let outcomes = serde_json::Value::Array(outcomes.collect());
    format!(",\"upstreams\":{outcomes}}}")
}

/// The value of `key` in a query, decoded.
pub(crate) fn query_value(query: Option<&str>, key: &str) -> Option<String> {
    query?.split('&').find_map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (name == key).then(|| percent_decoded(value))
    })
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let decoded = match byte {
            b'%' => {
                let mut ahead = rest.clone();
                let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
                match (digit(ahead.next()), digit(ahead.next())) {
                    (Some(high), Some(low)) => {
                        rest = ahead;
                        u8::try_from(high * 16 + low).unwrap_or(b'%')
                    }
                    _ => b'%',
                }
            }
            b'+' => b' ',
            other => other,
        };
        bytes.push(decoded);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_decoded() {
        let query = Some("a=1&server=my%5Fmcp+x%zz&b");
        assert_eq!(query_value(query, "server").as_deref(), Some("my_mcp x%zz"));
        assert_eq!(query_value(query, "b").as_deref(), Some(""));
        assert_eq!(query_value(query, "c"), None);
    }

    #[test]
    fn a_call_body_says_what_is_wrong_with_it() {
        for (body, part) in [
            ("[]", "object"),
            ("{", "object"),
            (r#"{"server":1}"#, "\"server\""),
            (r#"{"timeout_ms":"1"}"#, "timeout_ms"),
            (r#"{"timeout_ms":-1}"#, "timeout_ms"),
            (r#"{"name":"a","arguments":{},"colour":1}"#, "\"colour\""),
            (r#"{"name":"a","server_id":"s"}"#, "\"server_id\""),
            (r#"{"name":"a","metadata":{}}"#, "\"metadata\""),
        ] {
            let problem = read_call(body.as_bytes(), Dialect::Plain).unwrap_err();
            assert_eq!(problem.status, 400, "{body}");
            assert!(problem.message.contains(part), "{body}: {}", problem.message);
        }
    }
}
