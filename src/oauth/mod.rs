//! Pure: OAuth 2 and JOSE as values, for both roles: Trunkline as OAuth client of MCP servers, and
//! as resource server for its own clients. No socket, thread, clock or log; time and randomness
//! are arguments.

pub mod authorization;
pub mod challenge;
pub mod client_authentication;
pub mod dpop;
pub mod dpop_proof_check;
pub mod fetch;
pub mod form;
pub mod introspection;
pub mod issuer_name;
pub mod json_document;
pub mod jwk;
pub mod jws;
pub mod jwt;
pub mod pkce;
pub mod random;
pub mod registration;
pub mod resource_metadata;
pub mod scope;
pub mod server_metadata;
pub mod signing_key;
pub mod token;
pub mod unusable;
pub mod web_url;

#[cfg(test)]
pub(crate) mod scripted_fetch;
#[cfg(test)]
pub(crate) mod test_issuer;
