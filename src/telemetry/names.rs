//! The names of OpenTelemetry's semantic conventions that spans bear: those of MCP
//! (opentelemetry.io/docs/specs/semconv/gen-ai/mcp) and the general ones that it refers to.

/// The name of the program, of the resource.
pub(super) const SERVICE_NAME: &str = "service.name";
/// Its version.
pub(super) const SERVICE_VERSION: &str = "service.version";
/// The method of the request.
pub(super) const METHOD: &str = "mcp.method.name";
/// The session that it came in.
pub(super) const SESSION: &str = "mcp.session.id";
/// JSON-RPC's id of the request.
pub(super) const RPC_ID: &str = "jsonrpc.request.id";
/// The tool that is called.
pub(super) const TOOL: &str = "gen_ai.tool.name";
/// The prompt that is got.
pub(super) const PROMPT: &str = "gen_ai.prompt.name";
/// What a call of a tool is.
pub(super) const OPERATION: &str = "gen_ai.operation.name";
/// The value of [`OPERATION`] for a call of a tool.
pub(super) const EXECUTE_TOOL: &str = "execute_tool";
/// What kind of failure it was; absent where there was none.
pub(super) const ERROR: &str = "error.type";
/// The address of the client.
pub(super) const CLIENT: &str = "client.address";
/// The user agent, or the name that the client gives itself.
pub(super) const USER_AGENT: &str = "user_agent.original";
/// The server behind the gateway, by its name in the configuration. The conventions have no name
/// for it.
pub(super) const SERVER: &str = "trunkline.server";
/// How the request came in. The conventions have no name for it.
pub(super) const DOOR: &str = "trunkline.door";
/// The name of the key. The conventions have no name for it.
pub(super) const KEY: &str = "trunkline.key";
/// What the request is called in the log.
pub(super) const REQUEST: &str = "trunkline.request.id";
