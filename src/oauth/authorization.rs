//! Pure: the authorization request, and the answer that a browser brings to the callback (RFC 6749
//! section 4.1, RFC 9207).

use std::fmt;

use super::scope::Scopes;
use super::unusable::Unusable;
use super::web_url::WebUrl;
use crate::secret::Secret;

/// An authorization request.
#[derive(Debug, Clone)]
pub struct AuthorizationRequest<'a> {
    /// `authorization_endpoint`, which may have a query of its own.
    pub endpoint: &'a WebUrl,
    /// `client_id`.
    pub client_id: &'a str,
    /// `redirect_uri`.
    pub redirect_uri: &'a str,
    /// `state`.
    pub state: &'a Secret,
    /// `code_challenge`, by S256.
    pub code_challenge: &'a str,
    /// `resource` (RFC 8707).
    pub resource: &'a str,
    /// `scope`.
    pub scopes: &'a Scopes,
    /// `dpop_jkt`: the thumbprint of the key to which the code is bound (RFC 9449 section 10).
    pub dpop_jkt: Option<&'a str>,
}

impl AuthorizationRequest<'_> {
    /// The URL that a browser opens.
    pub fn url(&self) -> String {
        unimplemented!()
    }
}

/// What a browser brought to the callback, unchecked but for its form.
#[derive(Debug, Clone)]
pub struct AuthorizationAnswer {
    state: Secret,
    issuer: Option<String>,
    code: Option<Secret>,
    error: Option<String>,
    error_description: Option<String>,
}

/// What the answer is held against: what was recorded before the browser was sent away.
#[derive(Debug, Clone, Copy)]
pub struct ExpectedAnswer<'a> {
    /// The issuer of the authorization server, none where it has no metadata.
    pub issuer: Option<&'a str>,
    /// `authorization_response_iss_parameter_supported` of its metadata.
    pub names_issuer: bool,
}

/// Why an answer has no code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AnswerError {
    /// The answer is not the expected authorization server's, or has the wrong form: nothing of it
    /// may be shown or used.
    NotTheirs(Unusable),
    /// The authorization server refuses.
    Refused {
        /// `error`, as in RFC 6749 section 4.1.2.1: `access_denied`, `invalid_scope`, …
        error: String,
        /// `error_description`, cut and without control characters.
        description: Option<String>,
    },
}

impl fmt::Display for AnswerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotTheirs(why) => why.fmt(f),
            Self::Refused { error, description: None } => f.write_str(error),
            Self::Refused { error, description: Some(text) } => write!(f, "{error}: {text}"),
        }
    }
}

impl AuthorizationAnswer {
    /// Reads the query of a callback.
    ///
    /// # Errors
    /// If there is no `state`, or if a parameter is there twice or too long.
    pub fn read(query: &str) -> Result<AuthorizationAnswer, Unusable> {
        let _ = query;
        unimplemented!()
    }

    /// Reads what a person pasted: the whole URL of the callback, or its query.
    ///
    /// # Errors
    /// As [`AuthorizationAnswer::read`].
    pub fn read_pasted(text: &str) -> Result<AuthorizationAnswer, Unusable> {
        let _ = text;
        unimplemented!()
    }

    /// `state`, by which the sign-in is found.
    pub fn state(&self) -> &Secret {
        &self.state
    }

    /// The authorization code, if the answer is the expected authorization server's (authorization,
    /// Authorization Response Validation).
    ///
    /// # Errors
    /// If it is not, or if the authorization server refuses.
    pub fn code(&self, expected: ExpectedAnswer<'_>) -> Result<Secret, AnswerError> {
        let _ = expected;
        unimplemented!()
    }
}
