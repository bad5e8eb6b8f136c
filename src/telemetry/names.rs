//! The attribute names of spans, from OpenTelemetry's semantic conventions: those of MCP
//! (opentelemetry.io/docs/specs/semconv/gen-ai/mcp) and the general ones that they refer to.

/// The name of the program.
pub(super) const SERVICE_NAME: &str = "service.name";
/// The version of the program.
pub(super) const SERVICE_VERSION: &str = "service.version";
/// The method of the request.
pub(super) const METHOD: &str = "mcp.method.name";
/// The session of the request.
pub(super) const SESSION: &str = "mcp.session.id";
/// JSON-RPC's id of the request.
pub(super) const RPC_ID: &str = "jsonrpc.request.id";
/// The tool that is called.
pub(super) const TOOL: &str = "gen_ai.tool.name";
/// The prompt that is got.
pub(super) const PROMPT: &str = "gen_ai.prompt.name";
/// The kind of operation that a tool's call is.
pub(super) const OPERATION: &str = "gen_ai.operation.name";
/// The value of [`OPERATION`] for a call of a tool.
pub(super) const EXECUTE_TOOL: &str = "execute_tool";
/// The kind of failure; absent where there was none.
pub(super) const ERROR: &str = "error.type";
/// The address of the client.
pub(super) const CLIENT: &str = "client.address";
/// The user agent, or the name that the client gives itself.
pub(super) const USER_AGENT: &str = "user_agent.original";
/// The server behind the gateway, by its name in the configuration. The conventions have no name
/// for it.
pub(super) const SERVER: &str = "trunkline.server";
/// The door by which the request came in. The conventions have no name for it.
pub(super) const DOOR: &str = "trunkline.door";
/// The name of the key. The conventions have no name for it.
pub(super) const KEY: &str = "trunkline.key";
/// The request's id in the log.
pub(super) const REQUEST: &str = "trunkline.request.id";
