//! Pure: how an OAuth client authenticates at a token endpoint (RFC 6749 section 2.3, RFC 7523).

use ring::rand::SecureRandom;

use super::form::Form;
use super::server_metadata::ServerMetadata;
use super::signing_key::SigningKey;
use super::unusable::Unusable;
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
    /// All, in the order of preference where several do.
    pub const ALL: [AuthenticationMethod; 4] =
        [Self::PrivateKeyJwt, Self::ClientSecretBasic, Self::ClientSecretPost, Self::None];

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

    /// The method for an OAuth client that has these credentials, among those that the
    /// authorization server supports.
    ///
    /// # Errors
    /// If the authorization server supports none that these credentials can do.
    pub fn choose(
        credentials: &ClientCredentials,
        server: &ServerMetadata,
    ) -> Result<AuthenticationMethod, Unusable> {
        let _ = (credentials, server);
        unimplemented!()
    }

    /// The method to ask for in a dynamic registration.
    pub fn for_registration(server: &ServerMetadata) -> AuthenticationMethod {
        let _ = server;
        unimplemented!()
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

/// What an assertion needs beside the key.
pub struct AssertionInputs<'a> {
    /// `aud`: the issuer of the authorization server, or the URL of its token endpoint where it
    /// has no issuer.
    pub audience: &'a str,
    /// The time, in seconds since 1970.
    pub now: u64,
    /// Randomness for the identifier of the assertion and for its signature.
    pub random: &'a dyn SecureRandom,
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
        let _ = (form, inputs);
        unimplemented!()
    }
}
