//! Bounds of sign-in to servers and of sign-in by users.

use std::time::Duration;

/// Bytes of a document of an authorization server, of a resource's metadata, and of an answer of
/// a token endpoint.
pub const OAUTH_DOCUMENT_BYTES_MAX: usize = 256 * 1024;
/// Bytes of a URL in such a document.
pub const OAUTH_URL_BYTES_MAX: usize = 2048;
/// Bytes of a text in such a document that is neither a URL nor a token: a scope, an algorithm,
/// a description.
pub const OAUTH_TEXT_BYTES_MAX: usize = 1024;
/// Elements of a list in such a document; further ones are not read.
pub const OAUTH_LIST_ELEMENTS_MAX: usize = 256;
/// Bytes of an access token, a refresh token or an assertion. Servers' heads have room for a few
/// kilobytes.
pub const OAUTH_TOKEN_BYTES_MAX: usize = 32 * 1024;
/// Bytes of an authorization code, a state, and a client's id or secret.
pub const OAUTH_CODE_BYTES_MAX: usize = 4096;
/// Scopes of one request or token; further ones are not read.
pub const OAUTH_SCOPES_MAX: usize = 128;
/// Fields of a form or of a callback's query.
pub const OAUTH_FORM_FIELDS_MAX: usize = 64;
/// Authorization servers of one resource that are tried; further ones are not read.
pub const AUTHORIZATION_SERVERS_MAX: usize = 8;
/// Challenges in the `WWW-Authenticate` fields of one answer; further ones are not read.
pub const CHALLENGES_MAX: usize = 16;
/// Parameters of one challenge; further ones are not read.
pub const CHALLENGE_PARAMETERS_MAX: usize = 32;
/// Bytes of the PEM text of a private key.
pub const PRIVATE_KEY_BYTES_MAX: usize = 64 * 1024;
/// The time for which an assertion that authenticates this OAuth client is valid.
pub const CLIENT_ASSERTION_LIFE: Duration = Duration::from_secs(120);
/// The longest time for which an access token is believed to live, whatever `expires_in` says.
pub const ACCESS_TOKEN_LIFE_MAX: Duration = Duration::from_secs(366 * 24 * 3600);
