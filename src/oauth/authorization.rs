//! Pure: the authorization request, and the answer that a browser brings to the callback (RFC 6749
//! section 4.1, RFC 9207).

use std::fmt;

use super::form::Form;
use super::scope::Scopes;
use super::unusable::{Unusable, plain};
use super::web_url::WebUrl;
use crate::limits::{OAUTH_CODE_BYTES_MAX, OAUTH_TEXT_BYTES_MAX, OAUTH_URL_BYTES_MAX};
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
    pub resource: Option<&'a str>,
    /// `scope`.
    pub scopes: &'a Scopes,
    /// `dpop_jkt`: the thumbprint of the key to which the code is bound (RFC 9449 section 10).
    pub dpop_jkt: Option<&'a str>,
}

impl AuthorizationRequest<'_> {
    /// The URL that a browser opens. `prompt=consent` goes with `offline_access`, which OpenID
    /// providers ignore without it (OpenID Connect Core section 11).
    pub fn url(&self) -> String {
        let mut form = Form::new();
        form.push("response_type", "code");
        form.push("client_id", self.client_id);
        form.push("redirect_uri", self.redirect_uri);
        form.push("state", self.state.expose());
        form.push("code_challenge", self.code_challenge);
        form.push("code_challenge_method", "S256");
        form.push_some("resource", self.resource);
        form.push_some("scope", self.scopes.parameter().as_deref());
        if self.scopes.wants_refresh_token() {
            form.push("prompt", "consent");
        }
        form.push_some("dpop_jkt", self.dpop_jkt);
        // RFC 6749 section 3.1: a query of the endpoint's own is kept, and no parameter is there
        // twice.
        let mut url = self.endpoint.without_query().as_str().to_owned();
        let own = self.endpoint.query().unwrap_or_default().split('&');
        let is_kept = |pair: &&str| !pair.is_empty() && !form.has_name_of(pair);
        for (n_before, pair) in own.filter(is_kept).chain([form.query().as_str()]).enumerate() {
            url.push(if n_before == 0 { '?' } else { '&' });
            url.push_str(pair);
        }
        url
    }
}

/// The answer that a browser brought to the callback, unchecked but for its form.
#[derive(Debug, Clone)]
pub struct AuthorizationAnswer {
    state: Secret,
    issuer: Option<String>,
    code: Option<Secret>,
    error: Option<String>,
    error_description: Option<String>,
}

/// The facts that were recorded before the browser was sent away, against which the answer is held.
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

impl std::error::Error for AnswerError {}

impl AuthorizationAnswer {
    /// Reads the query of a callback.
    ///
    /// # Errors
    /// If there is no `state`, or if a parameter is there twice or too long.
    pub fn read(query: &str) -> Result<AuthorizationAnswer, Unusable> {
        let form = Form::parse(query)?;
        let once = |name: &str, bytes_max: usize| match form.once(name)? {
            Some(value) if value.len() > bytes_max => {
                Err(Unusable::new(format!("the parameter {name} has over {bytes_max} bytes")))
            }
            Some("") | None => Ok(None),
            Some(value) => Ok(Some(value.to_owned())),
        };
        let state = once("state", OAUTH_CODE_BYTES_MAX)?;
        Ok(AuthorizationAnswer {
            state: Secret::new(state.ok_or_else(|| Unusable::new("there is no state"))?),
            issuer: once("iss", OAUTH_URL_BYTES_MAX)?,
            code: once("code", OAUTH_CODE_BYTES_MAX)?.map(Secret::new),
            error: once("error", OAUTH_TEXT_BYTES_MAX)?,
            // For people only, so it is cut and never a reason to refuse.
            error_description: form.once("error_description")?.map(str::to_owned),
        })
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
        let not_theirs = |what: &str| Err(AnswerError::NotTheirs(Unusable::new(what)));
        match (&self.issuer, expected.issuer) {
            // Simple comparison: no normalisation of any kind.
            (Some(named), Some(issuer)) if named == issuer => (),
            (Some(_), Some(_)) => {
                return not_theirs(
                    "the answer is of another issuer than the one that was asked",
                );
            }
            (None, _) if expected.names_issuer => {
                return not_theirs(
                    "the answer does not name its issuer, as this one's always do",
                );
            }
            // An authorization server without metadata has no issuer to compare with.
            (None, _) | (Some(_), None) => (),
        }
        match (&self.error, &self.code) {
            (Some(error), _) => Err(AnswerError::Refused {
                error: plain(error),
                description: self.error_description.as_deref().map(plain),
            }),
            (None, Some(code)) => Ok(code.clone()),
            (None, None) => not_theirs("the answer has neither a code nor an error"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ISSUER: &str = "https://as.example";

    fn request_url(endpoint: &str, scopes: &str) -> String {
        let endpoint = WebUrl::parse(endpoint).unwrap();
        let state = Secret::new("st&te".to_owned());
        let request = AuthorizationRequest {
            endpoint: &endpoint,
            client_id: "https://me.example/oauth/client.json",
            redirect_uri: "http://127.0.0.1:8080/oauth/callback",
            state: &state,
            code_challenge: "chall-enge_",
            resource: Some("https://mcp.example/mcp"),
            scopes: &Scopes::parse(scopes),
            dpop_jkt: None,
        };
        assert!(!format!("{request:?}").contains("st&te"));
        request.url()
    }

    #[test]
    fn a_request_has_all_parameters_behind_the_endpoint_s_own() {
        let rest = "response_type=code&client_id=https%3A%2F%2Fme.example%2Foauth%2Fclient.json\
                    &redirect_uri=http%3A%2F%2F127.0.0.1%3A8080%2Foauth%2Fcallback&state=st%26te\
                    &code_challenge=chall-enge_&code_challenge_method=S256\
                    &resource=https%3A%2F%2Fmcp.example%2Fmcp";
        for (endpoint, start) in [
            ("https://as.example/authorize", "https://as.example/authorize?"),
            ("https://as.example/authorize?", "https://as.example/authorize?"),
            ("https://as.example/a?tenant=x%20y", "https://as.example/a?tenant=x%20y&"),
            ("https://as.example/a?x&", "https://as.example/a?x&"),
            ("https://as.example/a?st%61te=evil&x=1&client_id", "https://as.example/a?x=1&"),
            ("https://as.example", "https://as.example?"),
        ] {
            assert_eq!(request_url(endpoint, ""), format!("{start}{rest}"));
        }
        let with_scopes = request_url("https://as.example/a", "a:b c");
        assert!(with_scopes.ends_with("&scope=a%3Ab+c"), "{with_scopes}");
        let offline = request_url("https://as.example/a", "a offline_access");
        assert!(offline.ends_with("&scope=a+offline_access&prompt=consent"), "{offline}");
    }

    fn code(query: &str, names_issuer: bool) -> Result<String, AnswerError> {
        let answer = AuthorizationAnswer::read(query).unwrap();
        let code = answer.code(ExpectedAnswer { issuer: Some(ISSUER), names_issuer })?;
        Ok(code.expose().to_owned())
    }

    #[test]
    fn the_issuer_of_an_answer_is_checked_as_the_table_says() {
        let good = "state=s&code=c&iss=https%3A%2F%2Fas.example";
        let without = "state=s&code=c";
        for names_issuer in [true, false] {
            assert_eq!(code(good, names_issuer).as_deref(), Ok("c"));
            for wrong in [
                "https%3A%2F%2Fas.example%2F",
                "https%3A%2F%2FAS.example",
                "https%3A%2F%2Fas.example%3A443",
                "https%3A%2F%2Fas.exampl%2565",
                "HTTPS%3A%2F%2Fas.example",
                "http%3A%2F%2Fas.example",
                "https%3A%2F%2Fevil.example",
            ] {
                let of_code = code(&format!("state=s&code=c&iss={wrong}"), names_issuer);
                assert!(matches!(of_code, Err(AnswerError::NotTheirs(_))), "{wrong}");
                // Nothing of an error with the wrong issuer is shown.
                let of_error = format!("state=s&error=evil&error_description=evil&iss={wrong}");
                let told = code(&of_error, names_issuer).unwrap_err().to_string();
                assert!(!told.contains("evil"), "{told}");
            }
        }
        assert!(matches!(code(without, true), Err(AnswerError::NotTheirs(_))));
        assert_eq!(code(without, false).as_deref(), Ok("c"));
        let error = "state=s&error=access_denied";
        assert!(matches!(code(error, true), Err(AnswerError::NotTheirs(_))));
        assert_eq!(code(error, false).unwrap_err().to_string(), "access_denied");
        let answer = AuthorizationAnswer::read(good).unwrap();
        let expected = ExpectedAnswer { issuer: None, names_issuer: false };
        assert_eq!(answer.code(expected).unwrap().expose(), "c");
    }

    #[test]
    fn an_error_counts_before_a_code_and_is_shown_in_plain_text() {
        let query = "state=s&code=c&error=access_denied&error_description=No%0d%0a%1b[31mno";
        let error = code(query, false).unwrap_err();
        assert_eq!(error.to_string(), "access_denied: No   [31mno");
        let long = format!("state=s&error=e&error_description={}", "x".repeat(100_000));
        assert!(code(&long, false).unwrap_err().to_string().len() < 2 * OAUTH_TEXT_BYTES_MAX);
        assert!(matches!(code("state=s", false), Err(AnswerError::NotTheirs(_))));
        assert!(matches!(code("state=s&code=", false), Err(AnswerError::NotTheirs(_))));
    }

    #[test]
    fn an_answer_without_form_is_refused() {
        let long = format!("state={}", "x".repeat(OAUTH_CODE_BYTES_MAX + 1));
        let many = format!("state=s{}", "&a=b".repeat(1000));
        for query in [
            "",
            "code=c",
            "state=",
            "state=a&state=b",
            "state=s&code=a&code=b",
            "state=s&iss=a&iss=b",
            "state=%ff",
            &long,
            &many,
        ] {
            assert!(AuthorizationAnswer::read(query).is_err(), "{query:.40}");
        }
        let answer = AuthorizationAnswer::read("state=s%20e&code=sekrit").unwrap();
        assert_eq!(answer.state().expose(), "s e");
        let printed = format!("{answer:?}");
        assert!(!printed.contains("sekrit") && !printed.contains("s e"), "{printed}");
    }
}
