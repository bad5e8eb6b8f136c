//! Pure: the bodies of refusals and failures, for the clients of each door.

use super::endpoint::{Dialect, Endpoint};
use super::reply::Problem;
use super::rest::litellm;
use crate::error::{HttpRefusal, RetryAfter};
use crate::limits::FOREIGN_CHARS_MAX;
use crate::protocol::jsonrpc::{RpcError, error_response};
use crate::protocol::raw::Raw;
use crate::telemetry::redact;

/// The text for a foreign `Host` or `Origin`, with the key that admits it. Where a proxy has
/// passed the request on, `public_url` is needed: with `allowed_hosts` alone clients would be
/// told paths that are not the proxy's.
pub(super) fn foreign_message(header: &str, sent: Option<&str>, key: &str) -> String {
    let sent = sent.map(|it| redact::excerpt(it, FOREIGN_CHARS_MAX));
    let is = sent.map_or_else(|| "is missing".to_owned(), |it| format!("{it:?} is foreign"));
    let public = if key == "admin_listen" {
        ""
    } else {
        ". Behind a proxy, set \"public_url\" to the address that clients use, with its path"
    };
    format!(
        "The {header} header {is}: it is none of this gateway's; {key:?} in its configuration \
         admits more{public}."
    )
}

impl Problem {
    fn details(&self) -> impl Iterator<Item = (String, serde_json::Value)> {
        self.details.iter().map(|(key, value)| ((*key).to_owned(), value.clone()))
    }

    /// The problem as a JSON-RPC error.
    pub fn to_rpc(&self) -> RpcError {
        let data = (!self.details.is_empty())
            .then(|| serde_json::Value::Object(self.details().collect()).to_string());
        RpcError {
            code: self.rpc_code,
            message: self.message.clone(),
            data: data.map(Raw::from_valid),
        }
    }

    /// The body in a REST dialect, with a line end for people who read it on a terminal.
    pub fn rest_body(&self, dialect: Dialect) -> String {
        let (outer, key, word) = match dialect {
            Dialect::Plain => ("error", "code", self.code),
            Dialect::Litellm => ("detail", "error", litellm::word(self.code)),
        };
        let mut error = serde_json::Map::new();
        error.insert(key.to_owned(), word.into());
        error.insert("message".to_owned(), self.message.clone().into());
        error.extend(self.details());
        format!("{}\n", serde_json::json!({ outer: error }))
    }

    /// The body as an endpoint's clients expect it.
    pub fn body_for(&self, endpoint: Option<Endpoint<'_>>) -> String {
        match endpoint {
            Some(endpoint) if endpoint.speaks_mcp() => error_response(None, &self.to_rpc()),
            Some(Endpoint::RestList(dialect) | Endpoint::RestCall(dialect)) => {
                self.rest_body(dialect)
            }
            Some(_) | None => self.rest_body(Dialect::Plain),
        }
    }
}

/// A refusal over HTTP as members of an error.
pub(super) fn refusal_members(refusal: &HttpRefusal) -> Vec<(&'static str, serde_json::Value)> {
    let mut members = vec![("upstream_status", refusal.status.into())];
    if let Some(challenge) = &refusal.www_authenticate {
        members.push(("www_authenticate", challenge.as_str().into()));
    }
    match &refusal.retry_after {
        Some(RetryAfter::Seconds(seconds)) => {
            members.push(("retry_after_s", (*seconds).into()))
        }
        Some(RetryAfter::Date(date)) => members.push(("retry_after", date.as_str().into())),
        None => (),
    }
    members
}

/// Adds the members of a refusal over HTTP to the object of a failure.
pub(super) fn add_refusal(failure: &mut serde_json::Value, refusal: Option<&HttpRefusal>) {
    if let (Some(fields), Some(refusal)) = (failure.as_object_mut(), refusal) {
        let members = refusal_members(refusal).into_iter();
        fields.extend(members.map(|(key, value)| (key.to_owned(), value)));
    }
}
