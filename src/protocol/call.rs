//! The internal model: a call that is whole in itself, as the stateless revisions have it. A
//! legacy session remembers what a modern request repeats.

use std::hash::{Hash, Hasher};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use super::credentials_id::CredentialsId;
use super::jsonrpc::{self, RequestId, RpcError};
use super::log_level::LogLevel;
use super::method::{Method, notification};
use super::modern;
use super::question::Question;
use super::raw::{Raw, RawObject, push_string};
use super::revision::Revision;
use super::server_name::ServerName;

/// The caller as the protocol knows it: a modern request carries this in `_meta`, and a legacy
/// client sends it in `initialize`.
#[derive(Debug, Clone, PartialEq)]
pub struct Caller {
    /// The revision that the client speaks.
    pub revision: Revision,
    /// The client's capabilities, an object's text.
    pub capabilities: Raw,
    /// The level from which the caller wants log messages of this call, where its request names
    /// one.
    pub log_level: Option<LogLevel>,
    /// The name that the client gives itself, for the log alone.
    pub client: Option<Arc<str>>,
}

impl Caller {
    /// A caller that speaks no MCP itself (REST): no capabilities.
    pub fn plain() -> Caller {
        Caller {
            revision: Revision::LATEST_LEGACY,
            capabilities: Raw::from_valid("{}".to_owned()),
            log_level: None,
            client: None,
        }
    }
}

/// One request of a client, over any transport and of any era.
#[derive(Debug)]
pub struct Call<'a> {
    /// The caller.
    pub caller: Arc<Caller>,
    /// The method that is called.
    pub method: Method,
    /// The parameters as the client wrote them, without `_meta`.
    pub params: RawObject<'a>,
    /// The parameters' `_meta`, without the progress token.
    pub meta: Option<RawObject<'a>>,
    /// The token's JSON text, if the client wants progress.
    pub progress_token: Option<String>,
}

/// How a call ended. A failure before a server answered is a [`crate::error::CallError`].
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// The result, an object's text.
    Complete(Raw),
    /// The server answered with an error of its own.
    Error {
        /// The server that answered.
        server: ServerName,
        /// The error object.
        error: RpcError,
    },
    /// The server needs answers of the client first; the same call is then made again with them
    /// (2026-07-28, basic/patterns/mrtr).
    InputRequired {
        /// The server that needs them.
        server: ServerName,
        /// Requests by key, an object's text; none where the server needs only a retry.
        requests: Option<Raw>,
        /// The state that the retry must carry.
        state: Option<String>,
    },
}

/// A kind of item that a server offers in lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Called by name.
    Tool,
    /// Got by name.
    Prompt,
    /// Read by URI.
    Resource,
    /// A URI with places to fill in.
    Template,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Kind; 4] = [Self::Tool, Self::Prompt, Self::Resource, Self::Template];

    /// The method that lists it.
    pub fn list_method(self) -> Method {
        match self {
            Self::Tool => Method::ToolsList,
            Self::Prompt => Method::PromptsList,
            Self::Resource => Method::ResourcesList,
            Self::Template => Method::ResourcesTemplatesList,
        }
    }

    /// The member of the list's result that holds the items.
    pub fn list_key(self) -> &'static str {
        match self {
            Self::Tool => "tools",
            Self::Prompt => "prompts",
            Self::Resource => "resources",
            Self::Template => "resourceTemplates",
        }
    }

    /// The singular, for `/status`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tool => "tool",
            Self::Prompt => "prompt",
            Self::Resource => "resource",
            Self::Template => "resource_template",
        }
    }

    /// The singular, for people.
    pub fn noun(self) -> &'static str {
        match self {
            Self::Tool => "tool",
            Self::Prompt => "prompt",
            Self::Resource => "resource",
            Self::Template => "resource template",
        }
    }

    /// The member of an item that names it in requests.
    pub fn name_key(self) -> &'static str {
        match self {
            Self::Tool | Self::Prompt => "name",
            Self::Resource => "uri",
            Self::Template => "uriTemplate",
        }
    }

    /// The capability of servers that have items of this kind.
    pub fn capability(self) -> &'static str {
        match self {
            Self::Tool => "tools",
            Self::Prompt => "prompts",
            Self::Resource | Self::Template => "resources",
        }
    }

    /// The notification that the list has changed.
    pub fn changed(self) -> &'static str {
        match self {
            Self::Tool => notification::TOOLS_LIST_CHANGED,
            Self::Prompt => notification::PROMPTS_LIST_CHANGED,
            Self::Resource | Self::Template => notification::RESOURCES_LIST_CHANGED,
        }
    }
}

/// A notification that a server sends, during a call or outside of one.
#[derive(Debug, Clone, PartialEq)]
pub enum Notice {
    /// The call's progress: the parameters of `notifications/progress`, whose token is
    /// the gateway's own.
    Progress(Raw),
    /// The parameters of `notifications/message`.
    Log(Raw),
    /// The parameters of `notifications/resources/updated`.
    ResourceUpdated(Raw),
    /// The server no longer wants an answer to a request of its own.
    Withdrawn {
        /// The server that asked. Ids of different servers have nothing to do with each other.
        server: ServerName,
        /// The request's id.
        id: RequestId,
    },
    /// Any other notification, but for those of changed lists.
    Other {
        /// The notification's method.
        method: String,
        /// The notification's parameters, an object's text.
        params: Option<Raw>,
    },
}

/// The owner of something that lasts longer than a request, or that is bounded. A task, and all
/// else that later requests refer to, belongs to a key or a user, whichever of their sessions
/// asks; without either it belongs to a session, because then nothing else tells clients apart.
/// Bounds are shared by keys and users, and without either by addresses, because any client opens
/// sessions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PrincipalId {
    /// The key of that name, or the user of that id, which is never a key's name.
    Key(Arc<str>),
    /// The session of that id.
    Session(Arc<str>),
    /// All clients of that address, for IPv6 of its network.
    Address(IpAddr),
    /// Whoever has these credentials at a server whose credentials are each user's own.
    Credentials(CredentialsId),
}

/// The bytes of a session's id that are hashed, from its end, which is random: several tables are
/// looked into for each call, and an id is long.
const HASHED_ID_BYTES: usize = 16;

impl Hash for PrincipalId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self {
            Self::Key(name) => (0_u8, name).hash(state),
            Self::Session(id) => {
                let bytes = id.as_bytes();
                let from = bytes.len().saturating_sub(HASHED_ID_BYTES);
                (1_u8, bytes.get(from..)).hash(state);
            }
            Self::Address(address) => (2_u8, address).hash(state),
            Self::Credentials(id) => (3_u8, id).hash(state),
        }
    }
}

impl PrincipalId {
    /// The owner of a session: the key of that name, or the user of that id, if it was opened
    /// with a key or a token, else the session.
    pub fn new(key: Option<&Arc<str>>, session: &Arc<str>) -> PrincipalId {
        key.map_or_else(|| Self::Session(session.clone()), |key| Self::Key(key.clone()))
    }

    /// All clients of that address. One host of IPv6 has a whole network of 64 bits (RFC 4291,
    /// section 2.5.1).
    pub fn of_address(address: IpAddr) -> PrincipalId {
        Self::Address(match address {
            IpAddr::V4(_) => address,
            IpAddr::V6(ip) => {
                IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX)))
            }
        })
    }
}

/// The client whose own upstream session a request goes through.
#[derive(Debug, Clone, PartialEq)]
pub struct Client {
    /// The id of the client's session with the gateway, or a text in its place for a principal
    /// that has none.
    pub session: Arc<str>,
    /// True if the client's own upstream sessions carry one call at a time: several requests of
    /// one principal that are whole in themselves need not be of one client.
    pub is_exclusive: bool,
    /// The capabilities that the client declared and that are declared to servers for it: an
    /// object's text.
    pub capabilities: Raw,
    /// True if the client declares sampling, elicitation or roots, so that it can be asked.
    pub can_be_asked: bool,
    /// The principal in whose share its upstream sessions count, as [`Outgoing::charged`].
    pub charged: Option<PrincipalId>,
}

/// The receiver of all that a server sends while a call runs, on the call's thread. The call's
/// wait keeps the client's connection alive, so the sink is not told of silence.
pub trait CallSink {
    /// A message for the caller of this call.
    fn notice(&self, notice: Notice);
    /// The server asks the client of this call something. The call goes on meanwhile.
    fn ask(&self, question: Question);
    /// True if a client waits for messages during the call. Where none does, the call is given
    /// only the messages that name it.
    fn has_client(&self) -> bool {
        true
    }
    /// The request is about to be sent over the session with the server that has this number.
    fn sent_over(&self, _session: u64) {}
}

/// A request on its way to a server. The session that sends it mints its id, which is the
/// progress token too.
#[derive(Debug)]
pub struct Outgoing<'a> {
    /// The method, which the gateway need not know.
    pub method: &'a str,
    /// True if sending the request twice does no more than sending it once.
    pub is_safe_to_repeat: bool,
    /// Parameters without `_meta`.
    pub params: RawObject<'a>,
    /// `_meta` without a progress token.
    pub meta: Option<RawObject<'a>>,
    /// True if the caller wants progress.
    pub wants_progress: bool,
    /// The caller, as a stateless request tells of it.
    pub about: About<'a>,
    /// The principal in whose share the request counts; none for the gateway's own requests, and
    /// where no other principal can come.
    pub charged: Option<PrincipalId>,
    /// Headers into which parameters are mirrored, where a request has headers: the name behind
    /// `Mcp-Param-`, and the value.
    pub mirrored: Vec<(String, String)>,
}

/// The caller as each stateless request tells of it; a session tells it once.
#[derive(Debug, Clone, Copy)]
pub struct About<'a> {
    /// The caller's capabilities, an object's text.
    pub capabilities: &'a str,
    /// The level from which log messages of the call are wanted.
    pub log_level: Option<LogLevel>,
    /// True if the caller's session has told the level to servers that keep sessions.
    pub is_level_told: bool,
}

impl Default for About<'_> {
    fn default() -> Self {
        About { capabilities: "{}", log_level: None, is_level_told: true }
    }
}

impl<'a> Outgoing<'a> {
    /// A request that the gateway makes for itself: it has no principal and is safe to repeat.
    pub fn own(method: Method, params: RawObject<'a>) -> Outgoing<'a> {
        Outgoing {
            method: method.as_str(),
            is_safe_to_repeat: true,
            params,
            meta: None,
            wants_progress: false,
            about: About::default(),
            charged: None,
            mirrored: Vec::new(),
        }
    }

    /// The message's text under `id`, whole in itself as stateless revisions have it.
    pub fn to_modern_message(&self, id: &RequestId) -> String {
        self.to_modern_message_with(self.about.capabilities, id)
    }

    /// [`Outgoing::to_modern_message`] with other capabilities than the caller's.
    pub fn to_modern_message_with(&self, capabilities: &str, id: &RequestId) -> String {
        let mut meta = self.meta.clone().unwrap_or_default();
        if self.wants_progress {
            meta.set("progressToken", id.as_json());
        }
        modern::write_meta(&mut meta, capabilities, self.about.log_level);
        let mut params = self.params.clone();
        params.set("_meta", meta.to_text());
        jsonrpc::request(id, self.method, Some(&params.to_text()))
    }

    /// The message's text under `id`, for a session.
    pub fn to_message(&self, id: &RequestId) -> String {
        let mut out = String::with_capacity(256);
        out.push_str("{\"jsonrpc\":\"2.0\",\"id\":");
        out.push_str(id.as_json());
        out.push_str(",\"method\":");
        push_string(&mut out, self.method);
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
            method: "tools/call",
            is_safe_to_repeat: false,
            params: RawObject::parse(r#"{"name":"echo","x":[1]}"#).unwrap(),
            meta: Some(RawObject::parse(r#"{"trace":"t"}"#).unwrap()),
            wants_progress: true,
            about: About::default(),
            charged: None,
            mirrored: Vec::new(),
        };
        assert_eq!(
            outgoing.to_message(&RequestId::from(7)),
            r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"echo","x":[1],"_meta":{"trace":"t","progressToken":7}}}"#
        );
    }
}
