//! Pure: how this OAuth client comes to be known to an authorization server: the choice of the
//! way, the client metadata document, and dynamic registration (RFC 7591).

use serde_json::{Map, Value};

use super::client_authentication::AuthenticationMethod;
use super::fetch::FetchAnswer;
use super::scope::Refreshes;
use super::server_metadata::ServerMetadata;
use super::token::grant_type;
use super::unusable::{Unusable, plain, shown};
use super::web_url::{Scheme, WebUrl};
use crate::limits::{OAUTH_CODE_BYTES_MAX, OAUTH_TEXT_BYTES_MAX};
use crate::secret::Secret;

/// The name of this OAuth client that authorization servers show to people.
pub const CLIENT_NAME: &str = "Trunkline";

/// How this OAuth client is known to an authorization server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RegistrationWay {
    /// By the `client_id` of the configuration.
    Configured,
    /// By the URL of its metadata document, which is its `client_id`.
    MetadataDocument(WebUrl),
    /// By dynamic registration at this endpoint.
    Dynamic(WebUrl),
}

/// Tells if the configuration has a `client_id` for the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConfiguredClient {
    /// It has one.
    Present,
    /// It has none.
    Absent,
}

/// Chooses the way in the order of the specification (client registration). `document` is the URL
/// of this OAuth client's metadata document, where it has one; it counts only if it is `https` and
/// has a path.
///
/// # Errors
/// If there is no way: the text says what to configure.
pub fn choose(
    configured: ConfiguredClient,
    document: Option<&WebUrl>,
    server: &ServerMetadata,
) -> Result<RegistrationWay, Unusable> {
    if configured == ConfiguredClient::Present {
        return Ok(RegistrationWay::Configured);
    }
    if server.client_id_metadata_document_supported
        && let Some(document) = document.filter(|it| can_be_client_id(it))
    {
        return Ok(RegistrationWay::MetadataDocument(document.clone()));
    }
    if let Some(endpoint) = &server.registration_endpoint {
        return Ok(RegistrationWay::Dynamic(endpoint.clone()));
    }
    let issuer = shown(&server.issuer);
    Err(Unusable::new(if server.client_id_metadata_document_supported {
        format!(
            "the authorization server {issuer} wants a client metadata document: set public_url \
             to an https address that it can reach, or client_id"
        )
    } else {
        format!("the authorization server {issuer} registers nobody by itself: set client_id")
    }))
}

/// True for a URL that can be the `client_id` of its document (client registration, Client ID
/// Metadata Documents; draft-ietf-oauth-client-id-metadata-document section 3).
fn can_be_client_id(url: &WebUrl) -> bool {
    let has_dots = url.path().split('/').any(|part| part == "." || part == "..");
    url.scheme() == Scheme::Https && url.path().len() > 1 && !has_dots
}

/// The description that this OAuth client gives of itself.
#[derive(Debug, Clone)]
pub struct ClientMetadata<'a> {
    /// The grant that this OAuth client uses, and all that follows from it.
    pub grant: RegisteredGrant<'a>,
    /// `token_endpoint_auth_method`.
    pub authentication_method: AuthenticationMethod,
    /// `dpop_bound_access_tokens`, where wanted (RFC 9449 section 5.2).
    pub dpop_bound: bool,
}

/// A grant that an OAuth client is registered for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RegisteredGrant<'a> {
    /// A person signs in with a browser.
    AuthorizationCode {
        /// `redirect_uris`.
        redirect_uris: &'a [String],
        /// Tells if `grant_types` has `refresh_token`, see [`ServerMetadata::refreshes`].
        refreshes: Refreshes,
    },
    /// The client's own credentials are enough (RFC 6749, section 4.4).
    ClientCredentials,
    /// An assertion that another party has signed (RFC 7523, section 2.1).
    JwtBearer,
}

impl ClientMetadata<'_> {
    /// The client metadata document, for its own URL. It is that of a public OAuth client,
    /// whatever the method, because a document that all can read has no secret.
    pub fn document(&self, client_id: &WebUrl) -> String {
        let mut document = Map::new();
        document.insert("client_id".to_owned(), client_id.as_str().into());
        document.extend(self.members(AuthenticationMethod::None));
        Value::from(document).to_string()
    }

    /// The body of a registration request. It names no `scope`, which is optional (RFC 7591,
    /// section 2): an authorization server may refuse any scope that was not registered, and a
    /// server may ask for further ones at any time.
    pub fn registration_request(&self) -> Secret {
        Secret::new(Value::from(self.members(self.authentication_method)).to_string())
    }

    fn members(&self, method: AuthenticationMethod) -> Map<String, Value> {
        let mut members = Map::new();
        let mut put = |name: &str, value: Value| members.insert(name.to_owned(), value);
        put("client_name", CLIENT_NAME.into());
        let alone = match self.grant {
            RegisteredGrant::AuthorizationCode { redirect_uris, refreshes } => {
                put("redirect_uris", redirect_uris.to_vec().into());
                let with_refresh = match refreshes {
                    Refreshes::Yes => Some(grant_type::REFRESH_TOKEN),
                    Refreshes::No => None,
                };
                let grants = std::iter::once(grant_type::AUTHORIZATION_CODE);
                put("grant_types", grants.chain(with_refresh).collect());
                put("response_types", vec!["code"].into());
                put("application_type", application_type(redirect_uris).into());
                None
            }
            RegisteredGrant::ClientCredentials => Some(grant_type::CLIENT_CREDENTIALS),
            RegisteredGrant::JwtBearer => Some(grant_type::JWT_BEARER),
        };
        if let Some(grant) = alone {
            // Its tokens come from the token endpoint alone (RFC 7591, section 2.1). Without a list
            // of response types the registration would be for codes.
            put("grant_types", vec![grant].into());
            put("response_types", Value::Array(Vec::new()));
        }
        put("token_endpoint_auth_method", method.as_str().into());
        if self.dpop_bound {
            put("dpop_bound_access_tokens", true.into());
        }
        members
    }
}

/// `native` where browsers come back to this machine, `web` elsewhere (client registration,
/// Application Type and Redirect URI Constraints).
fn application_type(redirect_uris: &[String]) -> &'static str {
    let is_local = |uri: &String| WebUrl::parse(uri).is_ok_and(|url| url.is_loopback());
    if redirect_uris.iter().any(is_local) { "native" } else { "web" }
}

/// An OAuth client as an authorization server has registered it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegisteredClient {
    /// `client_id`.
    pub client_id: String,
    /// `client_secret`.
    pub client_secret: Option<Secret>,
    /// `client_secret_expires_at`, in seconds since 1970; none if it does not end.
    pub client_secret_expires_at: Option<u64>,
    /// `token_endpoint_auth_method`.
    pub authentication_method: AuthenticationMethod,
}

impl RegisteredClient {
    /// Reads the answer to a registration request that asked for the method `asked`.
    ///
    /// # Errors
    /// If the authorization server refuses, with what it says; if the answer has no `client_id`,
    /// or if a member has the wrong type.
    pub fn read(
        answer: &FetchAnswer,
        asked: AuthenticationMethod,
    ) -> Result<RegisteredClient, Unusable> {
        if !answer.is_success() {
            return Err(refusal(answer));
        }
        let document =
            answer.document().map_err(|error| error.at("the answer to the registration"))?;
        let secret = document.text("client_secret", OAUTH_CODE_BYTES_MAX)?;
        let secret = secret.filter(|text| !text.is_empty());
        let client_secret = secret.map(|text| Secret::new(text.to_owned()));
        let method = document.text("token_endpoint_auth_method", OAUTH_TEXT_BYTES_MAX)?;
        let authentication_method = match method.filter(|name| !name.is_empty()) {
            None => method_where_none_is_named(asked, client_secret.as_ref()),
            Some(name) => AuthenticationMethod::parse(name).ok_or_else(|| {
                let name = shown(name);
                Unusable::new(format!("the authorization server wants the method {name}"))
            })?,
        };
        let ends = document.value("client_secret_expires_at").and_then(Value::as_u64);
        Ok(RegisteredClient {
            client_id: document.needed_text("client_id", OAUTH_CODE_BYTES_MAX)?.to_owned(),
            client_secret,
            // Zero says that it does not end (RFC 7591 section 3.2.1).
            client_secret_expires_at: ends.filter(|seconds| *seconds > 0),
            authentication_method,
        })
    }
}

/// The method of an answer that names none: the one that was asked for, unless that needs a secret
/// and none came.
fn method_where_none_is_named(
    asked: AuthenticationMethod,
    secret: Option<&Secret>,
) -> AuthenticationMethod {
    let needs_secret = match asked {
        AuthenticationMethod::ClientSecretBasic | AuthenticationMethod::ClientSecretPost => {
            true
        }
        AuthenticationMethod::None | AuthenticationMethod::PrivateKeyJwt => false,
    };
    if needs_secret && secret.is_none() { AuthenticationMethod::None } else { asked }
}

/// The words of an authorization server that does not register this OAuth client (RFC 7591 section
/// 3.2.2): its error and the description, and nothing else of the answer.
fn refusal(answer: &FetchAnswer) -> Unusable {
    let document = answer.document().ok();
    let told = |name: &str| document.as_ref()?.value(name)?.as_str().map(plain);
    let mut text = format!("the registration is refused with HTTP {}", answer.status);
    for member in ["error", "error_description"].into_iter().filter_map(told) {
        text.push_str(": ");
        text.push_str(&member);
    }
    Unusable::new(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> WebUrl {
        WebUrl::parse(text).unwrap()
    }

    #[test]
    fn the_way_is_chosen_in_the_order_of_the_specification() {
        use ConfiguredClient::{Absent, Present};
        let document = url("https://me.example/oauth/client.json");
        let endpoint = url("https://as.example/register");
        let server = |cimd, registers: bool| ServerMetadata {
            client_id_metadata_document_supported: cimd,
            registration_endpoint: registers.then(|| endpoint.clone()),
            ..ServerMetadata::default()
        };
        let dynamic = RegistrationWay::Dynamic(endpoint.clone());
        let by_document = RegistrationWay::MetadataDocument(document.clone());
        for (configured, own, server, expected) in [
            (Present, Some(&document), server(true, true), Some(RegistrationWay::Configured)),
            (Present, None, server(false, false), Some(RegistrationWay::Configured)),
            (Absent, Some(&document), server(true, true), Some(by_document)),
            (Absent, Some(&document), server(false, true), Some(dynamic.clone())),
            (Absent, None, server(true, true), Some(dynamic.clone())),
            (Absent, None, server(true, false), None),
            (Absent, Some(&document), server(false, false), None),
        ] {
            assert_eq!(choose(configured, own, &server).ok(), expected);
        }
        for other in [
            "http://localhost:1/oauth/client.json",
            "https://me.example/",
            "https://me.example",
        ] {
            let way = choose(Absent, Some(&url(other)), &server(true, true)).unwrap();
            assert_eq!(way, dynamic, "{other}");
        }
    }

    fn metadata(redirect_uris: &[String]) -> ClientMetadata<'_> {
        ClientMetadata {
            grant: RegisteredGrant::AuthorizationCode {
                redirect_uris,
                refreshes: Refreshes::Yes,
            },
            authentication_method: AuthenticationMethod::ClientSecretBasic,
            dpop_bound: false,
        }
    }

    #[test]
    fn a_client_without_persons_is_registered_for_its_own_grant_and_no_redirect() {
        for (grant, name) in [
            (RegisteredGrant::ClientCredentials, "client_credentials"),
            (RegisteredGrant::JwtBearer, "urn:ietf:params:oauth:grant-type:jwt-bearer"),
        ] {
            let request = ClientMetadata { grant, ..metadata(&[]) }.registration_request();
            assert_eq!(
                request.expose(),
                format!(
                    r#"{{"client_name":"Trunkline","grant_types":["{name}"],"response_types":[],"token_endpoint_auth_method":"client_secret_basic"}}"#
                )
            );
        }
    }

    #[test]
    fn the_document_and_the_request_say_who_this_is() {
        let redirect = ["https://me.example/oauth/callback".to_owned()];
        let document = metadata(&redirect).document(&url("https://me.example/c.json"));
        assert_eq!(
            document,
            r#"{"client_id":"https://me.example/c.json","client_name":"Trunkline","redirect_uris":["https://me.example/oauth/callback"],"grant_types":["authorization_code","refresh_token"],"response_types":["code"],"application_type":"web","token_endpoint_auth_method":"none"}"#
        );
        for local in ["http://127.0.0.1:1/oauth/callback", "http://localhost/oauth/callback"] {
            let redirect = [local.to_owned()];
            let metadata = ClientMetadata {
                grant: RegisteredGrant::AuthorizationCode {
                    redirect_uris: &redirect,
                    refreshes: Refreshes::No,
                },
                dpop_bound: true,
                ..metadata(&redirect)
            };
            let request: Value =
                serde_json::from_str(metadata.registration_request().expose()).unwrap();
            assert_eq!(request["application_type"], "native");
            assert_eq!(request["grant_types"], Value::from(vec!["authorization_code"]));
            assert_eq!(request["token_endpoint_auth_method"], "client_secret_basic");
            assert_eq!(request.get("scope"), None);
            assert_eq!(request["dpop_bound_access_tokens"], true);
        }
    }

    fn read_with(status: u16, body: &str) -> Result<RegisteredClient, String> {
        let body = body.as_bytes().to_vec();
        let answer = FetchAnswer { status, body, ..FetchAnswer::default() };
        RegisteredClient::read(&answer, AuthenticationMethod::ClientSecretBasic)
            .map_err(|error| error.to_string())
    }

    fn read(body: &str) -> Result<RegisteredClient, String> {
        read_with(201, body)
    }

    #[test]
    fn a_registration_s_answer_is_read() {
        let json = r#"{"client_id":"id","client_secret":"sekrit","client_secret_expires_at":0,
            "token_endpoint_auth_method":"client_secret_post"}"#;
        let client = read(json).unwrap();
        assert_eq!(client.client_id, "id");
        assert_eq!(client.client_secret.as_ref().unwrap().expose(), "sekrit");
        assert_eq!(client.client_secret_expires_at, None);
        assert_eq!(client.authentication_method, AuthenticationMethod::ClientSecretPost);
        assert!(!format!("{client:?}").contains("sekrit"));
        let of = |json: &str| read(json).unwrap().authentication_method;
        let basic = AuthenticationMethod::ClientSecretBasic;
        assert_eq!(of(r#"{"client_id":"id","client_secret":"s"}"#), basic);
        assert_eq!(of(r#"{"client_id":"id"}"#), AuthenticationMethod::None);
        assert_eq!(
            of(r#"{"client_id":"id","client_secret":null}"#),
            AuthenticationMethod::None
        );
    }

    #[test]
    fn a_refused_registration_says_why() {
        let json = r#"{"error":"invalid_redirect_uri","error_description":"not\nweb"}"#;
        let refused = |status, body: &str| read_with(status, body).unwrap_err();
        assert_eq!(
            refused(400, json),
            "the registration is refused with HTTP 400: invalid_redirect_uri: not web"
        );
        assert!(refused(403, "<html>").ends_with("HTTP 403"));
        for json in [
            "{}",
            "[]",
            r#"{"client_id":""}"#,
            r#"{"client_id":7}"#,
            r#"{"client_id":"id","client_id":"other"}"#,
            r#"{"client_id":"id","client_secret":{}}"#,
            r#"{"client_id":"a\u0000b"}"#,
            r#"{"client_id":"id","token_endpoint_auth_method":"tls_client_auth"}"#,
        ] {
            assert!(read(json).is_err(), "{json}");
        }
    }
}
