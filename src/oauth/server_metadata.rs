//! Pure: the metadata of an authorization server (RFC 8414, OpenID Connect Discovery 1.0).

use super::json_document::JsonDocument;
use super::scope::Refreshes;
use super::unusable::{Unusable, shown};
use super::web_url::WebUrl;
use crate::limits::OAUTH_URL_BYTES_MAX;

/// The one method of PKCE that is used.
const S256: &str = "S256";

/// The description that an authorization server gives of itself. All endpoints are secure URLs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServerMetadata {
    /// `issuer` of the document, with which answers and tokens are compared by its characters.
    /// Empty for [`ServerMetadata::fallback`].
    pub issuer: String,
    /// `authorization_endpoint`.
    pub authorization_endpoint: Option<WebUrl>,
    /// `token_endpoint`. There is one in everything that [`ServerMetadata::read`] returns.
    pub token_endpoint: Option<WebUrl>,
    /// `registration_endpoint` (RFC 7591).
    pub registration_endpoint: Option<WebUrl>,
    /// `revocation_endpoint` (RFC 7009).
    pub revocation_endpoint: Option<WebUrl>,
    /// `scopes_supported`.
    pub scopes_supported: Option<Vec<String>>,
    /// `grant_types_supported`.
    pub grant_types_supported: Option<Vec<String>>,
    /// `code_challenge_methods_supported`.
    pub code_challenge_methods_supported: Option<Vec<String>>,
    /// `token_endpoint_auth_methods_supported`.
    pub token_endpoint_auth_methods_supported: Option<Vec<String>>,
    /// `token_endpoint_auth_signing_alg_values_supported`.
    pub token_endpoint_auth_signing_alg_values_supported: Option<Vec<String>>,
    /// `dpop_signing_alg_values_supported` (RFC 9449 section 5.1).
    pub dpop_signing_alg_values_supported: Option<Vec<String>>,
    /// `client_id_metadata_document_supported`.
    pub client_id_metadata_document_supported: bool,
    /// `authorization_response_iss_parameter_supported` (RFC 9207 section 3).
    pub authorization_response_iss_parameter_supported: bool,
}

/// Where the metadata of an issuer are, in the order in which they are tried (authorization server
/// discovery, Authorization Server Metadata Discovery).
pub fn locations(issuer: &WebUrl) -> Vec<WebUrl> {
    let (oauth, openid) =
        ("/.well-known/oauth-authorization-server", "/.well-known/openid-configuration");
    // RFC 8414 section 3.1: a slash at the end is removed before the insertion.
    let path = issuer.path().trim_end_matches('/');
    let mut paths = vec![format!("{oauth}{path}"), format!("{openid}{path}")];
    if !path.is_empty() {
        paths.push(format!("{path}{openid}"));
    }
    paths.iter().map(|path| issuer.with_path(path)).collect()
}

/// True if the issuer that a document names is the one that was asked (RFC 8414 section 3.3):
/// identical, by the characters. Only a slash that is the whole path may be there or not. Either
/// form has its metadata at the same place, and many a protected resource writes the issuer of its
/// authorization server with the slash, because its URL type does; the official SDKs take that too.
pub fn is_same_issuer(named: &str, asked: &str) -> bool {
    let origin = |text: &str| {
        let url = WebUrl::parse(text).ok()?;
        let is_bare = matches!(url.path(), "" | "/") && url.query().is_none();
        is_bare.then(|| text.trim_end_matches('/').to_owned())
    };
    named == asked || origin(named).is_some_and(|it| Some(it) == origin(asked))
}

impl ServerMetadata {
    /// Reads the metadata of the authorization server with this issuer.
    ///
    /// # Errors
    /// If `issuer` in the document is another one, if there is no `token_endpoint`, if an endpoint
    /// for signing in is not secure, or if a member has the wrong type. Other endpoints that are
    /// not secure count as absent.
    pub fn read(document: &JsonDocument, issuer: &str) -> Result<ServerMetadata, Unusable> {
        let named = document.needed_text("issuer", OAUTH_URL_BYTES_MAX)?;
        if !is_same_issuer(named, issuer) {
            return Err(Unusable::new(format!(
                "the metadata are those of the issuer {}, not of {}",
                shown(named),
                shown(issuer)
            )));
        }
        Self::of(document, named)
    }

    fn of(document: &JsonDocument, issuer: &str) -> Result<ServerMetadata, Unusable> {
        let token_endpoint = document.secure_url("token_endpoint")?;
        if token_endpoint.is_none() {
            return Err(Unusable::new("the metadata have no token_endpoint"));
        }
        Ok(ServerMetadata {
            issuer: issuer.to_owned(),
            token_endpoint,
            authorization_endpoint: document.secure_url("authorization_endpoint")?,
            registration_endpoint: document.secure_url("registration_endpoint")?,
            // No sign-in fails for it.
            revocation_endpoint: document.secure_url("revocation_endpoint").unwrap_or_default(),
            scopes_supported: document.texts("scopes_supported")?,
            grant_types_supported: document.texts("grant_types_supported")?,
            code_challenge_methods_supported: document
                .texts("code_challenge_methods_supported")?,
            token_endpoint_auth_methods_supported: document
                .texts("token_endpoint_auth_methods_supported")?,
            token_endpoint_auth_signing_alg_values_supported: document
                .texts("token_endpoint_auth_signing_alg_values_supported")?,
            dpop_signing_alg_values_supported: document
                .texts("dpop_signing_alg_values_supported")?,
            client_id_metadata_document_supported: document
                .flag("client_id_metadata_document_supported")?,
            authorization_response_iss_parameter_supported: document
                .flag("authorization_response_iss_parameter_supported")?,
        })
    }

    /// The metadata of an authorization server that has none: the default endpoints of the first
    /// revision with authorization, at the origin of the MCP server (its section Fallbacks for
    /// Servers without Metadata Discovery). That revision demands PKCE of all.
    ///
    /// # Errors
    /// If the origin is not secure.
    pub fn fallback(server: &WebUrl) -> Result<ServerMetadata, Unusable> {
        if !server.is_secure() {
            return Err(Unusable::new(format!("{} is not https", server.origin())));
        }
        Ok(ServerMetadata {
            authorization_endpoint: Some(server.with_path("/authorize")),
            token_endpoint: Some(server.with_path("/token")),
            registration_endpoint: Some(server.with_path("/register")),
            code_challenge_methods_supported: Some(vec![S256.to_owned()]),
            ..ServerMetadata::default()
        })
    }

    /// Checks what the authorization code grant needs: an authorization endpoint, and PKCE with
    /// S256 (security considerations, Authorization Code Protection).
    ///
    /// # Errors
    /// Says what is missing.
    pub fn check_authorization_code(&self) -> Result<&WebUrl, Unusable> {
        let refuse = |what: &str| self.lacks(what);
        let methods = self.code_challenge_methods_supported.as_ref();
        match methods {
            Some(methods) if methods.iter().any(|method| method == S256) => (),
            Some(_) => return Err(refuse("supports PKCE, but not with S256")),
            None => return Err(refuse("does not say that it supports PKCE")),
        }
        let endpoint = self.authorization_endpoint.as_ref();
        endpoint.ok_or_else(|| refuse("has no authorization_endpoint"))
    }

    /// The token endpoint.
    ///
    /// # Errors
    /// If there is none.
    pub fn check_token_endpoint(&self) -> Result<&WebUrl, Unusable> {
        self.token_endpoint.as_ref().ok_or_else(|| self.lacks("has no token_endpoint"))
    }

    fn lacks(&self, what: &str) -> Unusable {
        Unusable::new(match self.issuer.as_str() {
            "" => format!("the authorization server {what}"),
            issuer => format!("the authorization server {} {what}", shown(issuer)),
        })
    }

    /// Tells if the authorization server can give refresh tokens: unless it lists its grants
    /// without them.
    pub fn refreshes(&self) -> Refreshes {
        match &self.grant_types_supported {
            Some(grants) if !grants.iter().any(|grant| grant == "refresh_token") => {
                Refreshes::No
            }
            Some(_) | None => Refreshes::Yes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> WebUrl {
        WebUrl::parse(text).unwrap()
    }

    fn read(json: &str, issuer: &str) -> Result<ServerMetadata, String> {
        let document = JsonDocument::parse(json.as_bytes()).map_err(|it| it.to_string())?;
        ServerMetadata::read(&document, issuer).map_err(|it| it.to_string())
    }

    #[test]
    fn the_places_of_the_metadata_are_those_of_the_specification() {
        for (issuer, expected) in [
            (
                "https://auth.example.com/tenant1",
                vec![
                    "https://auth.example.com/.well-known/oauth-authorization-server/tenant1",
                    "https://auth.example.com/.well-known/openid-configuration/tenant1",
                    "https://auth.example.com/tenant1/.well-known/openid-configuration",
                ],
            ),
            (
                "https://auth.example.com/a/b/",
                vec![
                    "https://auth.example.com/.well-known/oauth-authorization-server/a/b",
                    "https://auth.example.com/.well-known/openid-configuration/a/b",
                    "https://auth.example.com/a/b/.well-known/openid-configuration",
                ],
            ),
            (
                "https://auth.example.com",
                vec![
                    "https://auth.example.com/.well-known/oauth-authorization-server",
                    "https://auth.example.com/.well-known/openid-configuration",
                ],
            ),
            (
                "http://localhost:9/",
                vec![
                    "http://localhost:9/.well-known/oauth-authorization-server",
                    "http://localhost:9/.well-known/openid-configuration",
                ],
            ),
        ] {
            let places: Vec<_> =
                locations(&url(issuer)).iter().map(|it| it.as_str().to_owned()).collect();
            assert_eq!(places, expected, "{issuer}");
        }
    }

    #[test]
    fn the_issuer_is_identical_or_the_metadata_are_not_used() {
        let with = |issuer: &str| {
            format!(r#"{{"issuer":"{issuer}","token_endpoint":"https://as.example/token"}}"#)
        };
        assert!(read(&with("https://as.example"), "https://as.example").is_ok());
        for other in [
            "https://as.example/x",
            "https://AS.example",
            "https://as.example:443",
            "https://as.exampl%65",
            "http://as.example",
            "https://evil.example",
            "",
        ] {
            assert!(read(&with(other), "https://as.example").is_err(), "{other}");
        }
        assert!(read(r#"{"token_endpoint":"https://x/t"}"#, "https://as.example").is_err());
    }

    #[test]
    fn a_slash_that_is_the_whole_path_makes_no_other_issuer() {
        let with = |named: &str, asked: &str| {
            let json = format!(r#"{{"issuer":"{named}","token_endpoint":"https://h/t"}}"#);
            read(&json, asked).map(|it| it.issuer).ok()
        };
        for (named, asked) in [
            ("https://h.example:8443", "https://h.example:8443/"),
            ("https://h.example:8443/", "https://h.example:8443"),
        ] {
            // What the document says counts from then on.
            assert_eq!(with(named, asked).as_deref(), Some(named));
        }
        for (named, asked) in [
            ("https://h.example/x/", "https://h.example/x"),
            ("https://h.example/x", "https://h.example/x/"),
            ("https://h.example//", "https://h.example"),
            ("https://H.example/", "https://h.example"),
            ("https://h.example:443/", "https://h.example"),
            ("https://evil.example/", "https://h.example"),
            ("https://h.example/?", "https://h.example"),
        ] {
            assert_eq!(with(named, asked), None, "{named}");
        }
    }

    #[test]
    fn endpoints_are_secure_and_members_have_their_types() {
        for (members, why) in [
            (r#""token_endpoint":"http://as.example/t""#, "is not https"),
            (
                r#""token_endpoint":"http://127.0.0.1/t","registration_endpoint":"http://h/k""#,
                "is not https",
            ),
            (r#""token_endpoint":"https://u:p@h/t""#, "password"),
            (
                r#""token_endpoint":"https://h/t","authorization_endpoint":"javascript:x""#,
                "scheme",
            ),
            (
                r#""token_endpoint":"https://h/t","authorization_endpoint":"https://h/a#b""#,
                "fragment",
            ),
            (r#""token_endpoint":["https://h/t"]"#, "is no text"),
            (r#""token_endpoint":"""#, "no token_endpoint"),
            (r#""authorization_endpoint":"https://h/a""#, "no token_endpoint"),
            (r#""token_endpoint":"https://h/t","scopes_supported":"a""#, "is no list"),
            (
                r#""token_endpoint":"https://h/t","client_id_metadata_document_supported":1"#,
                "is no true or false",
            ),
        ] {
            let json = format!(r#"{{"issuer":"https://h",{members}}}"#);
            let error = read(&json, "https://h").unwrap_err();
            assert!(error.contains(why), "{members}: {error}");
        }
        for json in ["[]", "null", "1", "", "{", r#"{"issuer":"a","issuer":"a"}"#] {
            assert!(read(json, "https://h").is_err(), "{json}");
        }
        let deep = format!(r#"{{"issuer":{}1{}}}"#, "[".repeat(500), "]".repeat(500));
        assert!(read(&deep, "https://h").is_err());
    }

    #[test]
    fn pkce_with_s256_is_needed_for_a_code() {
        let with = |members: &str| {
            let json = format!(
                r#"{{"issuer":"https://h","token_endpoint":"https://h/t"
                    {members},"authorization_response_iss_parameter_supported":true}}"#
            );
            read(&json, "https://h").unwrap()
        };
        let endpoint = r#","authorization_endpoint":"https://h/a""#;
        let s256 = r#","code_challenge_methods_supported":["plain","S256"]"#;
        let good = with(&format!("{endpoint}{s256}"));
        assert_eq!(good.check_authorization_code().unwrap().as_str(), "https://h/a");
        assert!(good.authorization_response_iss_parameter_supported);
        assert!(with(endpoint).check_authorization_code().is_err());
        let plain = r#","code_challenge_methods_supported":["plain"]"#;
        assert!(with(&format!("{endpoint}{plain}")).check_authorization_code().is_err());
        assert!(with(s256).check_authorization_code().is_err());
    }

    #[test]
    fn a_server_without_metadata_has_the_default_endpoints() {
        let metadata = ServerMetadata::fallback(&url("https://h.example/v1/mcp?x")).unwrap();
        let endpoint = metadata.check_authorization_code().unwrap();
        assert_eq!(endpoint.as_str(), "https://h.example/authorize");
        assert_eq!(
            metadata.check_token_endpoint().unwrap().as_str(),
            "https://h.example/token"
        );
        let endpoint = metadata.registration_endpoint.as_ref().unwrap();
        assert_eq!(endpoint.as_str(), "https://h.example/register");
        assert_eq!(metadata.issuer, "");
        assert!(ServerMetadata::fallback(&url("http://h.example/mcp")).is_err());
        let error = ServerMetadata::default().check_token_endpoint().unwrap_err();
        assert_eq!(error.as_str(), "the authorization server has no token_endpoint");
    }

    #[test]
    fn refresh_tokens_are_expected_unless_the_grants_are_listed_without_them() {
        let mut metadata = ServerMetadata::default();
        assert_eq!(metadata.refreshes(), Refreshes::Yes);
        metadata.grant_types_supported = Some(vec!["authorization_code".to_owned()]);
        assert_eq!(metadata.refreshes(), Refreshes::No);
    }
}
