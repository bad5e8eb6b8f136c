//! Pure: finds the endpoint of a path, and its methods.

use crate::oauth::resource_metadata::WELL_KNOWN;

/// The form of REST answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// The gateway's own form.
    Plain,
    /// LiteLLM's present form.
    Litellm,
}

/// A document that describes the gateway to programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Document {
    /// JSON Schema of the configuration.
    ConfigSchema,
    /// OpenAPI of the REST part.
    OpenApi,
}

/// The endpoints of sign-ins at servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OAuthEndpoint<'a> {
    /// A browser comes back from an authorization server.
    Callback,
    /// The client metadata document.
    ClientDocument,
    /// The page with this id, where a browser begins.
    SignIn(&'a str),
}

/// The service at a path. A per-server endpoint carries the server's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoint<'a> {
    /// REST: the list of tools.
    RestList(Dialect),
    /// REST: a call.
    RestCall(Dialect),
    /// Streamable HTTP; a plain GET is an HTTP+SSE stream.
    Mcp(Option<&'a str>),
    /// The HTTP+SSE stream.
    Sse(Option<&'a str>),
    /// HTTP+SSE messages.
    SseMessages(Option<&'a str>),
    /// Shows that the process lives.
    Healthz,
    /// Shows that the required servers have answered.
    Readyz,
    /// The state of the gateway and its servers.
    Status,
    /// Calls and refusals as they happen.
    StatusEvents,
    /// The metrics.
    Metrics,
    /// The changes that wait for a review of pins.
    Pins,
    /// Accepts pins as they are now.
    PinsAccept,
    /// Invites an admin to sign in at a server.
    Invite,
    /// A sign-in at a server.
    OAuth(OAuthEndpoint<'a>),
    /// A file of the console, whose page stands at `/`.
    Console(&'a str),
    /// A description for programs.
    Document(Document),
    /// The metadata of the protected resource at a path, which is empty for the whole gateway.
    ResourceMetadata(&'a str),
    /// Reads the configuration again.
    Reload,
}

/// The files that the page at `/` loads.
const CONSOLE_FILES: [&str; 5] =
    ["console.css", "console.js", "console-base.js", "console-tools.js", "console-activity.js"];

impl<'a> Endpoint<'a> {
    /// The endpoint of a path; with or without its trailing slash it is the same.
    pub fn find(path: &'a str) -> Option<Endpoint<'a>> {
        if path == "/" {
            return Some(Endpoint::Console(""));
        }
        if let Some(resource) = path.strip_prefix(WELL_KNOWN)
            && (resource.is_empty() || resource.starts_with('/'))
        {
            return Some(Endpoint::ResourceMetadata(resource));
        }
        let path = path.strip_suffix('/').unwrap_or(path);
        let mut parts = path.strip_prefix('/')?.split('/');
        let parts = [parts.next(), parts.next(), parts.next(), parts.next(), parts.next()];
        Some(match parts {
            [Some("healthz"), None, ..] => Endpoint::Healthz,
            [Some("readyz"), None, ..] => Endpoint::Readyz,
            [Some("status"), None, ..] => Endpoint::Status,
            [Some("metrics"), None, ..] => Endpoint::Metrics,
            [Some("status"), Some("events"), None, ..] => Endpoint::StatusEvents,
            [Some("status"), Some("pins"), None, ..] => Endpoint::Pins,
            [Some("status"), Some("pins"), Some("accept"), None, _] => Endpoint::PinsAccept,
            [Some("status"), Some("sign-in"), None, ..] => Endpoint::Invite,
            [Some("oauth"), Some("callback"), None, ..] => {
                Endpoint::OAuth(OAuthEndpoint::Callback)
            }
            [Some("oauth"), Some("client.json"), None, ..] => {
                Endpoint::OAuth(OAuthEndpoint::ClientDocument)
            }
            [Some("oauth"), Some("sign-in"), Some(id), None, _] if !id.is_empty() => {
                Endpoint::OAuth(OAuthEndpoint::SignIn(id))
            }
            [Some(file), None, ..] if CONSOLE_FILES.contains(&file) => Endpoint::Console(file),
            [Some("reload"), None, ..] => Endpoint::Reload,
            [Some("config.schema.json"), None, ..] => {
                Endpoint::Document(Document::ConfigSchema)
            }
            [Some("openapi.json"), None, ..] => Endpoint::Document(Document::OpenApi),
            [Some("mcp"), Some("tools"), Some("list"), None, _] => {
                Endpoint::RestList(Dialect::Plain)
            }
            [Some("mcp"), Some("tools"), Some("call"), None, _] => {
                Endpoint::RestCall(Dialect::Plain)
            }
            [Some("mcp-rest"), Some("tools"), Some("list"), None, _] => {
                Endpoint::RestList(Dialect::Litellm)
            }
            [Some("mcp-rest"), Some("tools"), Some("call"), None, _] => {
                Endpoint::RestCall(Dialect::Litellm)
            }
            [Some("sse"), None, ..] => Endpoint::Sse(None),
            [Some("mcp"), rest @ ..] => under_mcp(None, rest)?,
            [Some(server), Some("mcp"), a, b, None] => {
                under_mcp(Some(server), [a, b, None, None])?
            }
            [Some(server), Some("sse"), None, ..] => Endpoint::Sse(Some(server)),
            _ => return None,
        })
    }

    /// The methods that the path serves.
    pub fn methods(self) -> &'static [&'static str] {
        match self {
            Self::RestList(_)
            | Self::Healthz
            | Self::Readyz
            | Self::Status
            | Self::Metrics
            | Self::Pins
            | Self::Document(_)
            | Self::ResourceMetadata(_)
            | Self::Console(_) => &["GET", "HEAD", "OPTIONS"],
            Self::RestCall(_)
            | Self::SseMessages(_)
            | Self::PinsAccept
            | Self::Invite
            | Self::Reload => &["POST", "OPTIONS"],
            Self::OAuth(OAuthEndpoint::ClientDocument) => &["GET", "HEAD", "OPTIONS"],
            // A program that only looks must not use a sign-in up.
            Self::OAuth(OAuthEndpoint::Callback) => &["GET", "OPTIONS"],
            Self::OAuth(OAuthEndpoint::SignIn(_)) => &["GET", "POST", "OPTIONS"],
            Self::Mcp(_) => &["GET", "POST", "DELETE", "OPTIONS"],
            Self::Sse(_) | Self::StatusEvents => &["GET", "OPTIONS"],
        }
    }

    /// The server of a per-server endpoint.
    pub fn server(self) -> Option<&'a str> {
        match self {
            Self::Mcp(server) | Self::Sse(server) | Self::SseMessages(server) => server,
            Self::RestList(_)
            | Self::RestCall(_)
            | Self::Healthz
            | Self::Readyz
            | Self::Status
            | Self::StatusEvents
            | Self::Metrics
            | Self::Pins
            | Self::PinsAccept
            | Self::Invite
            | Self::OAuth(_)
            | Self::Console(_)
            | Self::Document(_)
            | Self::ResourceMetadata(_)
            | Self::Reload => None,
        }
    }

    /// True if errors are JSON-RPC's here rather than REST's.
    pub fn speaks_mcp(self) -> bool {
        matches!(self, Self::Mcp(_) | Self::Sse(_) | Self::SseMessages(_))
    }

    /// True if the path is served without a key.
    pub fn is_open(self) -> bool {
        matches!(self, Self::Readyz | Self::OAuth(OAuthEndpoint::SignIn(_)))
            || self.is_unauthenticated()
    }

    /// True if nobody is asked who they are, since the answer is the same for all. A wrong key or
    /// token does not matter either, and no issuer is waited for.
    pub fn is_unauthenticated(self) -> bool {
        match self {
            Self::Healthz
            | Self::Console(_)
            | Self::ResourceMetadata(_)
            | Self::OAuth(OAuthEndpoint::Callback | OAuthEndpoint::ClientDocument) => true,
            Self::OAuth(OAuthEndpoint::SignIn(_))
            | Self::RestList(_)
            | Self::RestCall(_)
            | Self::Mcp(_)
            | Self::Sse(_)
            | Self::SseMessages(_)
            | Self::Readyz
            | Self::Status
            | Self::StatusEvents
            | Self::Metrics
            | Self::Pins
            | Self::PinsAccept
            | Self::Invite
            | Self::Document(_)
            | Self::Reload => false,
        }
    }
}

/// The endpoint for the rest behind `/mcp`, or `/{server}/mcp`.
fn under_mcp<'a>(server: Option<&'a str>, rest: [Option<&'a str>; 4]) -> Option<Endpoint<'a>> {
    match (server, rest) {
        (_, [None, ..]) => Some(Endpoint::Mcp(server)),
        (_, [Some("sse"), None, ..]) => Some(Endpoint::Sse(server)),
        (_, [Some("sse"), Some("messages"), None, _]) => Some(Endpoint::SseMessages(server)),
        (None, [Some(server), a, b, None]) if !server.is_empty() => {
            under_mcp(Some(server), [a, b, None, None])
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lead_to_their_endpoints_with_and_without_a_slash() {
        for (path, expected) in [
            ("/mcp/tools/list", Endpoint::RestList(Dialect::Plain)),
            ("/mcp-rest/tools/call", Endpoint::RestCall(Dialect::Litellm)),
            ("/mcp", Endpoint::Mcp(None)),
            ("/sse", Endpoint::Sse(None)),
            ("/mcp/sse", Endpoint::Sse(None)),
            ("/mcp/sse/messages", Endpoint::SseMessages(None)),
            ("/mcp/demo", Endpoint::Mcp(Some("demo"))),
            ("/demo/mcp", Endpoint::Mcp(Some("demo"))),
            ("/mcp/demo/sse", Endpoint::Sse(Some("demo"))),
            ("/mcp/demo/sse/messages", Endpoint::SseMessages(Some("demo"))),
            ("/demo/mcp/sse/messages", Endpoint::SseMessages(Some("demo"))),
            ("/healthz", Endpoint::Healthz),
            ("/status/events", Endpoint::StatusEvents),
            ("/status/pins", Endpoint::Pins),
            ("/status/pins/accept", Endpoint::PinsAccept),
            ("/console.js", Endpoint::Console("console.js")),
            ("/reload", Endpoint::Reload),
            ("/.well-known/oauth-protected-resource", Endpoint::ResourceMetadata("")),
            ("/status/sign-in", Endpoint::Invite),
            ("/oauth/callback", Endpoint::OAuth(OAuthEndpoint::Callback)),
            ("/oauth/client.json", Endpoint::OAuth(OAuthEndpoint::ClientDocument)),
            ("/oauth/sign-in/x", Endpoint::OAuth(OAuthEndpoint::SignIn("x"))),
            // A server may have that name.
            ("/oauth/mcp", Endpoint::Mcp(Some("oauth"))),
            ("/openapi.json", Endpoint::Document(Document::OpenApi)),
            ("/config.schema.json", Endpoint::Document(Document::ConfigSchema)),
        ] {
            assert_eq!(Endpoint::find(path), Some(expected), "{path}");
            if !matches!(expected, Endpoint::ResourceMetadata(_)) {
                assert_eq!(Endpoint::find(&format!("{path}/")), Some(expected), "{path}/");
            }
        }
    }

    #[test]
    fn other_paths_lead_nowhere() {
        for path in [
            "//",
            "",
            "mcp",
            "/console",
            "/mcp//",
            "/mcp/tools/list/x",
            "/a/b",
            "/oauth",
            "/oauth/sign-in",
            "/oauth/sign-in//",
            "/oauth/callback/x",
            "/mcp/a/b",
            "/mcp/a/b/c/d",
        ] {
            assert_eq!(Endpoint::find(path), None, "{path:?}");
        }
    }
}
