//! Pure: `WWW-Authenticate`, read and written (RFC 9110 section 11.6.1, RFC 6750 section 3, RFC
//! 9728 section 5.1).

use super::token::TokenType;

/// One challenge of a `WWW-Authenticate` field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge {
    /// The scheme as written.
    pub scheme: String,
    /// The parameters with their names in lower case, without quotes and escapes.
    pub parameters: Vec<(String, String)>,
}

/// Reads the challenges of all fields of one answer, and skips what is none.
pub fn read<'a>(fields: impl IntoIterator<Item = &'a str>) -> Vec<Challenge> {
    let _ = fields;
    unimplemented!()
}

/// A challenge that asks for an access token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenChallenge {
    /// The scheme: `Bearer`, or `DPoP` (RFC 9449 section 7.1).
    pub token_type: TokenType,
    /// `resource_metadata`: where the protected resource's metadata are.
    pub resource_metadata: Option<String>,
    /// `scope`: the scopes that the request needs, with spaces between them.
    pub scope: Option<String>,
    /// `error`: `invalid_token`, `insufficient_scope`, `invalid_request`, `use_dpop_nonce`, …
    pub error: Option<String>,
    /// `error_description`.
    pub error_description: Option<String>,
    /// `algs` of a DPoP challenge.
    pub algorithms: Option<String>,
}

impl TokenChallenge {
    /// A challenge without parameters.
    pub fn new(token_type: TokenType) -> TokenChallenge {
        TokenChallenge {
            token_type,
            resource_metadata: None,
            scope: None,
            error: None,
            error_description: None,
            algorithms: None,
        }
    }

    /// The first challenge of the fields that asks for an access token, filled up from later ones:
    /// a server that takes both kinds of tokens often writes its parameters in one of the two.
    pub fn read<'a>(fields: impl IntoIterator<Item = &'a str>) -> Option<TokenChallenge> {
        let _ = fields;
        unimplemented!()
    }

    /// The field's value.
    pub fn field(&self) -> String {
        unimplemented!()
    }
}
