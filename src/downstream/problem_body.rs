//! Pure: the bodies of refusals and failures, for the clients of each transport.

use super::endpoint::{Dialect, Endpoint};
use super::rest::litellm;
use super::status_codes::Problem;
use crate::protocol::jsonrpc::{RpcError, error_response};
use crate::protocol::raw::Raw;

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{CallError, Stage};
    use crate::protocol::server_name::ServerName;

    #[test]
    fn a_failed_upstream_is_named_with_its_stage() {
        let error = CallError::UpstreamFailed {
            server: ServerName::parse("a").unwrap(),
            stage: Stage::Connect,
            message: "connection refused".to_owned(),
            refusal: None,
        };
        let problem = Problem::from_call(&error);
        assert_eq!(problem.status, 502);
        let body: serde_json::Value =
            serde_json::from_str(&problem.rest_body(Dialect::Plain)).unwrap();
        assert_eq!(body["error"]["server"], "a");
        assert_eq!(body["error"]["stage"], "connect");
        let body: serde_json::Value =
            serde_json::from_str(&problem.rest_body(Dialect::Litellm)).unwrap();
        assert_eq!(body["detail"]["error"], "upstream_failed");
    }
}
