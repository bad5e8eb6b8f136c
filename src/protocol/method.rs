//! The protocol's methods by name.

/// A request method that the gateway knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Method {
    /// `initialize`
    Initialize,
    /// `ping`
    Ping,
    /// `tools/list`
    ToolsList,
    /// `tools/call`
    ToolsCall,
}

impl Method {
    /// Every method.
    pub const ALL: [Method; 4] =
        [Self::Initialize, Self::Ping, Self::ToolsList, Self::ToolsCall];

    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Initialize => "initialize",
            Self::Ping => "ping",
            Self::ToolsList => "tools/list",
            Self::ToolsCall => "tools/call",
        }
    }

    /// The method of that name.
    pub fn parse(name: &str) -> Option<Method> {
        Self::ALL.into_iter().find(|method| method.as_str() == name)
    }

    /// Whether sending the request twice does no more than sending it once.
    pub fn is_safe_to_repeat(self) -> bool {
        match self {
            Self::Initialize | Self::Ping | Self::ToolsList => true,
            Self::ToolsCall => false,
        }
    }
}

/// Names of notifications.
pub mod notification {
    /// Client to server: the handshake is over.
    pub const INITIALIZED: &str = "notifications/initialized";
    /// Either way: a request is no longer wanted.
    pub const CANCELLED: &str = "notifications/cancelled";
    /// Either way: how far a request has come.
    pub const PROGRESS: &str = "notifications/progress";
    /// Server to client: the list of tools has changed.
    pub const TOOLS_LIST_CHANGED: &str = "notifications/tools/list_changed";
}
