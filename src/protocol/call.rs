//! The internal model: a call that is whole in itself, as the stateless revisions have it. A
//! legacy session is a memory of what a modern request repeats.

use std::sync::Arc;

use super::jsonrpc::{RequestId, RpcError};
use super::method::Method;
use super::raw::{Raw, RawObject, push_string};
use super::revision::Revision;
use super::server_name::ServerName;

/// Who calls, as far as the protocol knows: what a modern request carries in `_meta`, and what
/// a legacy client said in `initialize`.
#[derive(Debug, Clone, PartialEq)]
pub struct Caller {
    /// The revision that the client speaks.
    pub revision: Revision,
    /// The client's capabilities, an object's text.
    pub capabilities: Raw,
}

impl Caller {
    /// A caller that speaks no MCP itself (REST): no capabilities.
    pub fn plain() -> Caller {
        Caller {
            revision: Revision::LATEST_LEGACY,
            capabilities: Raw::from_valid("{}".to_owned()),
        }
    }
}

/// One request of a client, whichever door and era it came through.
#[derive(Debug)]
pub struct Call<'a> {
    /// Who calls.
    pub caller: Arc<Caller>,
    /// What is wanted.
    pub method: Method,
    /// The parameters as the client wrote them, without `_meta`.
    pub params: RawObject<'a>,
    /// The parameters' `_meta`, without the progress token.
    pub meta: Option<RawObject<'a>>,
    /// The token's JSON text, if the client wants progress.
    pub progress_token: Option<String>,
}

/// What came of a call. What failed before an upstream answered is a [`crate::error::CallError`].
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// The result, an object's text.
    Complete(Raw),
    /// The upstream answered with an error of its own.
    Error {
        /// Which one.
        server: ServerName,
        /// Its error object.
        error: RpcError,
    },
}

/// A message that comes during a call, or to whoever subscribes.
#[derive(Debug, Clone, PartialEq)]
pub enum Notice {
    /// How far this call has come: the parameters of `notifications/progress`, whose token is
    /// the gateway's own.
    Progress(Raw),
    /// The tools of a server have changed.
    ToolsListChanged(ServerName),
}

/// What a call's thread hears while the call runs.
pub trait CallSink {
    /// A message for the caller of this call.
    fn notice(&mut self, notice: Notice);
    /// Nothing has come for a while: a chance to keep the client's connection alive.
    fn silence(&mut self);
}

/// A request on its way to an upstream. The link that sends it mints the id, which is the
/// progress token too.
#[derive(Debug)]
pub struct Outgoing<'a> {
    /// The method.
    pub method: Method,
    /// Parameters without `_meta`.
    pub params: RawObject<'a>,
    /// `_meta` without a progress token.
    pub meta: Option<RawObject<'a>>,
    /// Whether the caller wants progress.
    pub wants_progress: bool,
}

impl Outgoing<'_> {
    /// The message's text under `id`.
    pub fn to_message(&self, id: &RequestId) -> String {
        let mut out = String::with_capacity(256);
        out.push_str("{\"jsonrpc\":\"2.0\",\"id\":");
        out.push_str(id.as_json());
        out.push_str(",\"method\":");
        push_string(&mut out, self.method.as_str());
        out.push_str(",\"params\":");
        self.write_params(id, &mut out);
        out.push('}');
        out
    }

    fn write_params(&self, id: &RequestId, out: &mut String) {
        let token = id.as_json();
        let mut meta = self.meta.clone().unwrap_or_default();
        if self.wants_progress {
            meta.set("progressToken", token);
        }
        if meta.is_empty() && self.meta.is_none() {
            return self.params.write(out);
        }
        let mut params = self.params.clone();
        params.set("_meta", meta.to_text());
        params.write(out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_is_the_progress_token_and_the_rest_is_kept() {
        let outgoing = Outgoing {
            method: Method::ToolsCall,
            params: RawObject::parse(r#"{"name":"echo","x":[1]}"#).unwrap(),
            meta: Some(RawObject::parse(r#"{"trace":"t"}"#).unwrap()),
            wants_progress: true,
        };
        assert_eq!(
            outgoing.to_message(&RequestId::from(7)),
            r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"echo","x":[1],"_meta":{"trace":"t","progressToken":7}}}"#
        );
    }
}
