//! Pure: how an OAuth client authenticates at a token endpoint (RFC 6749 section 2.3, RFC 7523).

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::rand::SecureRandom;
use serde_json::Map;

use super::form::{self, Form};
use super::random::random_id;
use super::server_metadata::ServerMetadata;
use super::signing_key::SigningKey;
use super::unusable::{Unusable, shown};
use crate::limits::CLIENT_ASSERTION_LIFE;
use crate::secret::Secret;

/// `token_endpoint_auth_method`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthenticationMethod {
    /// `client_secret_basic`.
    ClientSecretBasic,
    /// `client_secret_post`.
    ClientSecretPost,
    /// `none`: a public OAuth client.
    None,
    /// `private_key_jwt`.
    PrivateKeyJwt,
}

impl AuthenticationMethod {
    /// All.
    pub const ALL: [AuthenticationMethod; 4] =
        [Self::ClientSecretBasic, Self::ClientSecretPost, Self::None, Self::PrivateKeyJwt];

    /// The registered name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ClientSecretBasic => "client_secret_basic",
            Self::ClientSecretPost => "client_secret_post",
            Self::None => "none",
            Self::PrivateKeyJwt => "private_key_jwt",
        }
    }

    /// The method of this registered name.
    pub fn parse(name: &str) -> Option<AuthenticationMethod> {
        Self::ALL.into_iter().find(|method| method.as_str() == name)
    }

    /// The method for the OAuth client of this id and these credentials, among those that the
    /// authorization server supports. One that lists none supports `client_secret_basic` (RFC 8414
    /// section 2), and every one is believed to take a public OAuth client and a configured key.
    ///
    /// # Errors
    /// If the authorization server supports none that these credentials can do.
    pub fn choose(
        id: &str,
        credentials: &ClientCredentials,
        server: &ServerMetadata,
    ) -> Result<AuthenticationMethod, Unusable> {
        let listed = server.token_endpoint_auth_methods_supported.as_deref();
        let is_in = |all: &[String], method: Self| all.iter().any(|it| it == method.as_str());
        let has = |method: Self| listed.is_some_and(|all| is_in(all, method));
        let refuse = |what: &str| {
            let listed = shown(&listed.unwrap_or_default().join(", "));
            Err(Unusable::new(format!(
                "the authorization server takes {listed} at its token endpoint, not {what}"
            )))
        };
        match credentials {
            ClientCredentials::Public => Ok(Self::None),
            ClientCredentials::PrivateKey(_)
                if listed.is_none() || has(Self::PrivateKeyJwt) =>
            {
                Ok(Self::PrivateKeyJwt)
            }
            ClientCredentials::PrivateKey(_) => refuse("a private key"),
            ClientCredentials::Secret(secret) => {
                // Servers differ in whether they decode what RFC 6749 section 2.3.1 encodes.
                let is_plain = |text: &str| form::encode(text) == text;
                let is_safe = is_plain(id) && is_plain(secret.expose());
                match (has(Self::ClientSecretBasic), has(Self::ClientSecretPost)) {
                    (true, true) if is_safe => Ok(Self::ClientSecretBasic),
                    (_, true) => Ok(Self::ClientSecretPost),
                    (true, false) => Ok(Self::ClientSecretBasic),
                    (false, false) if listed.is_none() => Ok(Self::ClientSecretBasic),
                    (false, false) if has(Self::None) => Ok(Self::None),
                    (false, false) => refuse("a secret"),
                }
            }
        }
    }

    /// The method to ask for in a dynamic registration: `none` where it is supported, because PKCE
    /// protects the grant and there is no secret to keep.
    pub fn for_registration(server: &ServerMetadata) -> AuthenticationMethod {
        let Some(listed) = &server.token_endpoint_auth_methods_supported else {
            return Self::ClientSecretBasic;
        };
        let wanted = [Self::None, Self::ClientSecretBasic, Self::ClientSecretPost];
        let is_listed = |method: &Self| listed.iter().any(|it| it == method.as_str());
        wanted.into_iter().find(is_listed).unwrap_or(Self::ClientSecretBasic)
    }
}

/// By what an OAuth client can show that it is the one.
#[derive(Debug)]
pub enum ClientCredentials {
    /// By nothing: a public OAuth client.
    Public,
    /// By a secret that it shares with the authorization server.
    Secret(Secret),
    /// By a private key whose public half the authorization server knows.
    PrivateKey(SigningKey),
}

/// An OAuth client at one authorization server.
#[derive(Debug)]
pub struct OAuthClient<'a> {
    /// `client_id`.
    pub id: &'a str,
    /// Its credentials.
    pub credentials: &'a ClientCredentials,
    /// How it authenticates.
    pub method: AuthenticationMethod,
}

/// The inputs of an assertion beside the key.
pub struct AssertionInputs<'a> {
    /// `aud`: the issuer of the authorization server, or the URL of its token endpoint where it
    /// has no metadata.
    pub audience: &'a str,
    /// `token_endpoint_auth_signing_alg_values_supported` of its metadata.
    pub algorithms: Option<&'a [String]>,
    /// The time, in seconds since 1970.
    pub now: u64,
    /// Randomness for the identifier of the assertion and for its signature.
    pub random: &'a dyn SecureRandom,
}

impl fmt::Debug for AssertionInputs<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AssertionInputs {{ audience: {:?}, now: {} }}", self.audience, self.now)
    }
}

impl OAuthClient<'_> {
    /// Adds to the form what authenticates this OAuth client, and returns the value of the
    /// `authorization` header where that does.
    ///
    /// # Errors
    /// If the method and the credentials do not go together, or if the key cannot sign.
    pub fn authenticate(
        &self,
        form: &mut Form,
        inputs: &AssertionInputs<'_>,
    ) -> Result<Option<Secret>, Unusable> {
        use AuthenticationMethod as Method;
        match (self.method, self.credentials) {
            (Method::None, _) => {
                form.push("client_id", self.id);
                Ok(None)
            }
            (Method::ClientSecretPost, ClientCredentials::Secret(secret)) => {
                form.push("client_id", self.id);
                form.push("client_secret", secret.expose());
                Ok(None)
            }
            (Method::ClientSecretBasic, ClientCredentials::Secret(secret)) => {
                let (id, secret) = (form::encode(self.id), form::encode(secret.expose()));
                let credentials = STANDARD.encode(format!("{id}:{secret}"));
                Ok(Some(Secret::new(format!("Basic {credentials}"))))
            }
            (Method::PrivateKeyJwt, ClientCredentials::PrivateKey(key)) => {
                let assertion = self.assertion(key, inputs)?;
                form.push("client_id", self.id);
                form.push(
                    "client_assertion_type",
                    "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
                );
                form.push("client_assertion", assertion.expose());
                Ok(None)
            }
            (
                Method::ClientSecretPost | Method::ClientSecretBasic,
                ClientCredentials::Public | ClientCredentials::PrivateKey(_),
            ) => Err(Unusable::new(format!("{} needs a client secret", self.method.as_str()))),
            (
                Method::PrivateKeyJwt,
                ClientCredentials::Public | ClientCredentials::Secret(_),
            ) => Err(Unusable::new("private_key_jwt needs a private key")),
        }
    }

    /// The assertion of RFC 7523 section 3. Its audience is the issuer alone: one that other
    /// servers accept too could be replayed at them (RFC 7523bis). It has no `kid`: the name under
    /// which the key is registered is not known here, and with another one it would not be found.
    fn assertion(
        &self,
        key: &SigningKey,
        inputs: &AssertionInputs<'_>,
    ) -> Result<Secret, Unusable> {
        let algorithm = key.choose_algorithm(inputs.algorithms)?;
        let mut header = Map::new();
        header.insert("typ".to_owned(), "JWT".into());
        let mut claims = Map::new();
        claims.insert("iss".to_owned(), self.id.into());
        claims.insert("sub".to_owned(), self.id.into());
        claims.insert("aud".to_owned(), inputs.audience.into());
        claims.insert("iat".to_owned(), inputs.now.into());
        let ends = inputs.now.saturating_add(CLIENT_ASSERTION_LIFE.as_secs());
        claims.insert("exp".to_owned(), ends.into());
        claims.insert("jti".to_owned(), random_id(inputs.random)?.into());
        key.sign(algorithm, header, &claims, inputs.random).map(Secret::new)
    }
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use ring::rand::SystemRandom;
    use serde_json::Value;

    use super::*;

    fn server(methods: Option<&[&str]>) -> ServerMetadata {
        let owned = |all: &[&str]| all.iter().map(|it| (*it).to_owned()).collect();
        ServerMetadata {
            token_endpoint_auth_methods_supported: methods.map(owned),
            ..ServerMetadata::default()
        }
    }

    fn secret(text: &str) -> ClientCredentials {
        ClientCredentials::Secret(Secret::new(text.to_owned()))
    }

    fn key() -> SigningKey {
        let der = SigningKey::generate(&SystemRandom::new()).unwrap();
        SigningKey::from_pkcs8(&der).unwrap()
    }

    #[test]
    fn the_method_is_one_that_both_sides_can_do() {
        use AuthenticationMethod as Method;
        let (basic, post, none) = ("client_secret_basic", "client_secret_post", "none");
        let (public, private) =
            (ClientCredentials::Public, ClientCredentials::PrivateKey(key()));
        for (credentials, methods, expected) in [
            (&public, None, Some(Method::None)),
            (&public, Some(vec![basic]), Some(Method::None)),
            (&secret("s"), None, Some(Method::ClientSecretBasic)),
            (&secret("s"), Some(vec![post, basic]), Some(Method::ClientSecretBasic)),
            (&secret("s:%"), Some(vec![post, basic]), Some(Method::ClientSecretPost)),
            (&secret("s:%"), Some(vec![basic]), Some(Method::ClientSecretBasic)),
            (&secret("s"), Some(vec![post]), Some(Method::ClientSecretPost)),
            (&secret("s"), Some(vec![none]), Some(Method::None)),
            (&secret("s"), Some(vec!["tls_client_auth"]), None),
            (&secret("s"), Some(vec![]), None),
            (&private, None, Some(Method::PrivateKeyJwt)),
            (&private, Some(vec![basic, "private_key_jwt"]), Some(Method::PrivateKeyJwt)),
            (&private, Some(vec![basic]), None),
        ] {
            let chosen = Method::choose("id", credentials, &server(methods.as_deref()));
            assert_eq!(chosen.ok(), expected, "{methods:?}");
        }
        for (methods, expected) in [
            (None, Method::ClientSecretBasic),
            (Some(vec![basic, none]), Method::None),
            (Some(vec![post]), Method::ClientSecretPost),
            (Some(vec!["private_key_jwt"]), Method::ClientSecretBasic),
        ] {
            assert_eq!(Method::for_registration(&server(methods.as_deref())), expected);
        }
    }

    fn authenticate(
        method: AuthenticationMethod,
        credentials: &ClientCredentials,
    ) -> Result<(String, Option<String>), Unusable> {
        let mut form = Form::new();
        let random = SystemRandom::new();
        let inputs = AssertionInputs {
            audience: "https://as.example",
            algorithms: None,
            now: 1_000,
            random: &random,
        };
        let client = OAuthClient { id: "my id", credentials, method };
        let header = client.authenticate(&mut form, &inputs)?;
        Ok((form.query(), header.map(|it| it.expose().to_owned())))
    }

    #[test]
    fn secrets_travel_as_the_method_says() {
        use AuthenticationMethod as Method;
        let credentials = secret("a:b é");
        let (form, header) = authenticate(Method::ClientSecretBasic, &credentials).unwrap();
        // RFC 6749 section 2.3.1: both are form-encoded first.
        let expected = STANDARD.encode("my+id:a%3Ab+%C3%A9");
        assert_eq!((form.as_str(), header), ("", Some(format!("Basic {expected}"))));
        let (form, header) = authenticate(Method::ClientSecretPost, &credentials).unwrap();
        assert_eq!(form, "client_id=my+id&client_secret=a%3Ab+%C3%A9");
        assert_eq!(header, None);
        let (form, header) = authenticate(Method::None, &credentials).unwrap();
        assert_eq!((form.as_str(), header), ("client_id=my+id", None));
        let public = ClientCredentials::Public;
        for method in
            [Method::ClientSecretBasic, Method::ClientSecretPost, Method::PrivateKeyJwt]
        {
            assert!(authenticate(method, &public).is_err());
        }
    }

    #[test]
    fn an_assertion_is_for_one_authorization_server_and_two_minutes() {
        let credentials = ClientCredentials::PrivateKey(key());
        let method = AuthenticationMethod::PrivateKeyJwt;
        let assertion = || {
            let (query, header) = authenticate(method, &credentials).unwrap();
            assert_eq!(header, None);
            let form = Form::parse(&query).unwrap();
            let kind = form.once("client_assertion_type").unwrap();
            assert_eq!(kind, Some("urn:ietf:params:oauth:client-assertion-type:jwt-bearer"));
            form.once("client_assertion").unwrap().unwrap().to_owned()
        };
        let decoded = |text: &str| {
            let header = URL_SAFE_NO_PAD.decode(text.split('.').next().unwrap()).unwrap();
            assert_eq!(header, br#"{"typ":"JWT","alg":"ES256"}"#);
            let claims = text.split('.').nth(1).unwrap().to_owned();
            serde_json::from_slice::<Value>(&URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap()
        };
        let (one, other) = (decoded(&assertion()), decoded(&assertion()));
        assert_eq!(one["iss"], "my id");
        assert_eq!(one["sub"], "my id");
        assert_eq!(one["aud"], "https://as.example");
        assert_eq!((one["iat"].as_u64(), one["exp"].as_u64()), (Some(1_000), Some(1_120)));
        assert_ne!(one["jti"], other["jti"]);
    }
}
