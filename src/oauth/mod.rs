//! Pure: OAuth 2 and JOSE as values, for both roles: Trunkline as OAuth client of MCP servers, and
//! as resource server for its own clients. No socket, thread, clock or log; time and randomness
//! are arguments.
