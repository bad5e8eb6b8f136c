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
    /// `prompts/list`
    PromptsList,
    /// `prompts/get`
    PromptsGet,
    /// `resources/list`
    ResourcesList,
    /// `resources/templates/list`
    ResourcesTemplatesList,
    /// `resources/read`
    ResourcesRead,
    /// `resources/subscribe`
    ResourcesSubscribe,
    /// `resources/unsubscribe`
    ResourcesUnsubscribe,
    /// `completion/complete`
    CompletionComplete,
    /// `logging/setLevel`
    LoggingSetLevel,
    /// `tasks/get`
    TasksGet,
    /// `tasks/result`
    TasksResult,
    /// `tasks/list`
    TasksList,
    /// `tasks/cancel`
    TasksCancel,
    /// `tasks/update`
    TasksUpdate,
    /// `server/discover`
    ServerDiscover,
    /// `subscriptions/listen`
    SubscriptionsListen,
}

impl Method {
    /// Every method.
    pub const ALL: [Method; 20] = [
        Self::Initialize,
        Self::Ping,
        Self::ToolsList,
        Self::ToolsCall,
        Self::PromptsList,
        Self::PromptsGet,
        Self::ResourcesList,
        Self::ResourcesTemplatesList,
        Self::ResourcesRead,
        Self::ResourcesSubscribe,
        Self::ResourcesUnsubscribe,
        Self::CompletionComplete,
        Self::LoggingSetLevel,
        Self::TasksGet,
        Self::TasksResult,
        Self::TasksList,
        Self::TasksCancel,
        Self::TasksUpdate,
        Self::ServerDiscover,
        Self::SubscriptionsListen,
    ];

    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Initialize => "initialize",
            Self::Ping => "ping",
            Self::ToolsList => "tools/list",
            Self::ToolsCall => "tools/call",
            Self::PromptsList => "prompts/list",
            Self::PromptsGet => "prompts/get",
            Self::ResourcesList => "resources/list",
            Self::ResourcesTemplatesList => "resources/templates/list",
            Self::ResourcesRead => "resources/read",
            Self::ResourcesSubscribe => "resources/subscribe",
            Self::ResourcesUnsubscribe => "resources/unsubscribe",
            Self::CompletionComplete => "completion/complete",
            Self::LoggingSetLevel => "logging/setLevel",
            Self::TasksGet => "tasks/get",
            Self::TasksResult => "tasks/result",
            Self::TasksList => "tasks/list",
            Self::TasksCancel => "tasks/cancel",
            Self::TasksUpdate => "tasks/update",
            Self::ServerDiscover => "server/discover",
            Self::SubscriptionsListen => "subscriptions/listen",
        }
    }

    /// The method of that name.
    pub fn parse(name: &str) -> Option<Method> {
        Self::ALL.into_iter().find(|method| method.as_str() == name)
    }

    /// True if sending the request twice does no more than sending it once.
    pub fn is_safe_to_repeat(self) -> bool {
        match self {
            Self::Initialize
            | Self::Ping
            | Self::ToolsList
            | Self::PromptsList
            | Self::PromptsGet
            | Self::ResourcesList
            | Self::ResourcesTemplatesList
            | Self::ResourcesRead
            | Self::ResourcesSubscribe
            | Self::ResourcesUnsubscribe
            | Self::CompletionComplete
            | Self::LoggingSetLevel
            | Self::TasksGet
            | Self::TasksList
            | Self::ServerDiscover
            | Self::SubscriptionsListen => true,
            // A task's result may be given once only.
            Self::ToolsCall | Self::TasksResult | Self::TasksCancel | Self::TasksUpdate => {
                false
            }
        }
    }

    /// True if the answer is made of what all servers behind the gateway answer.
    pub fn tells_of_all(self) -> bool {
        match self {
            Self::Initialize
            | Self::ServerDiscover
            | Self::ToolsList
            | Self::PromptsList
            | Self::ResourcesList
            | Self::ResourcesTemplatesList => true,
            Self::Ping
            | Self::ToolsCall
            | Self::PromptsGet
            | Self::ResourcesRead
            | Self::ResourcesSubscribe
            | Self::ResourcesUnsubscribe
            | Self::CompletionComplete
            | Self::LoggingSetLevel
            | Self::TasksGet
            | Self::TasksResult
            | Self::TasksList
            | Self::TasksCancel
            | Self::TasksUpdate
            | Self::SubscriptionsListen => false,
        }
    }

    /// The parameter that names the object of a request, and that stands in a modern request's
    /// `Mcp-Name` header (2026-07-28, basic/transports/streamable-http, Standard Request
    /// Headers).
    pub fn mirrored_name(self) -> Option<&'static str> {
        match self {
            Self::ToolsCall | Self::PromptsGet => Some("name"),
            Self::ResourcesRead => Some("uri"),
            Self::Initialize
            | Self::Ping
            | Self::ToolsList
            | Self::PromptsList
            | Self::ResourcesList
            | Self::ResourcesTemplatesList
            | Self::ResourcesSubscribe
            | Self::ResourcesUnsubscribe
            | Self::CompletionComplete
            | Self::LoggingSetLevel
            | Self::TasksGet
            | Self::TasksResult
            | Self::TasksList
            | Self::TasksCancel
            | Self::TasksUpdate
            | Self::ServerDiscover
            | Self::SubscriptionsListen => None,
        }
    }
}

/// Names of notifications.
pub mod notification {
    /// Client to server: the handshake is over.
    pub const INITIALIZED: &str = "notifications/initialized";
    /// Both directions: the sender no longer wants the answer to a request.
    pub const CANCELLED: &str = "notifications/cancelled";
    /// Both directions: the progress of a request.
    pub const PROGRESS: &str = "notifications/progress";
    /// Server to client: a log message.
    pub const MESSAGE: &str = "notifications/message";
    /// Server to client: the list of tools has changed.
    pub const TOOLS_LIST_CHANGED: &str = "notifications/tools/list_changed";
    /// Server to client: the list of prompts has changed.
    pub const PROMPTS_LIST_CHANGED: &str = "notifications/prompts/list_changed";
    /// Server to client: the list of resources, or of templates, has changed.
    pub const RESOURCES_LIST_CHANGED: &str = "notifications/resources/list_changed";
    /// Server to client: a resource that was subscribed to has changed.
    pub const RESOURCES_UPDATED: &str = "notifications/resources/updated";
    /// Both directions: the status of a task.
    pub const TASKS_STATUS: &str = "notifications/tasks/status";
    /// The status of a task in the tasks extension of revisions without sessions.
    pub const TASKS: &str = "notifications/tasks";
    /// Server to client: the interaction at an elicitation's URL is over.
    pub const ELICITATION_COMPLETE: &str = "notifications/elicitation/complete";
    /// Client to server: the roots have changed.
    pub const ROOTS_LIST_CHANGED: &str = "notifications/roots/list_changed";
    /// Server to client: a subscription has begun.
    pub const SUBSCRIPTIONS_ACKNOWLEDGED: &str = "notifications/subscriptions/acknowledged";

    /// Every notification of all revisions.
    pub const ALL: [&str; 13] = [
        INITIALIZED,
        CANCELLED,
        PROGRESS,
        MESSAGE,
        TOOLS_LIST_CHANGED,
        PROMPTS_LIST_CHANGED,
        RESOURCES_LIST_CHANGED,
        RESOURCES_UPDATED,
        TASKS_STATUS,
        TASKS,
        ELICITATION_COMPLETE,
        ROOTS_LIST_CHANGED,
        SUBSCRIPTIONS_ACKNOWLEDGED,
    ];
}
