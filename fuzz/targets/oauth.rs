//! What authorization servers, protected resources and browsers send: challenges, documents,
//! answers, URLs, keys.

use super::lines;
use crate::limits::{AUTHORIZATION_SERVERS_MAX, CHALLENGES_MAX, OAUTH_SCOPES_MAX};
use crate::oauth::authorization::{AnswerError, AuthorizationAnswer, ExpectedAnswer};
use crate::oauth::challenge::{self, TokenChallenge};
use crate::oauth::client_authentication::AuthenticationMethod;
use crate::oauth::fetch::FetchAnswer;
use crate::oauth::form::Form;
use crate::oauth::json_document::JsonDocument;
use crate::oauth::registration::RegisteredClient;
use crate::oauth::resource_metadata::{self, ResourceMetadata, canonical_resource};
use crate::oauth::scope::Scopes;
use crate::oauth::server_metadata::{self, ServerMetadata};
use crate::oauth::signing_key::SigningKey;
use crate::oauth::token::{TokenAnswer, read_id_jag};
use crate::oauth::web_url::WebUrl;

/// The server whose metadata are read.
const SERVER: &str = "https://mcp.example/a/mcp";
/// The issuer that was asked.
const ISSUER: &str = "https://as.example/tenant";

#[track_caller]
fn is_plain(text: &str) {
    assert!(!text.contains(char::is_control), "{text:?}");
}

/// The fields of `WWW-Authenticate`.
pub(super) fn challenges(data: &[u8]) {
    let fields = lines(data);
    let read = challenge::read(fields.iter().copied());
    assert!(read.len() <= CHALLENGES_MAX * fields.len());
    for challenge in &read {
        assert!(!challenge.scheme.is_empty() && challenge.scheme.is_ascii());
        for (name, value) in &challenge.parameters {
            assert_eq!(*name, name.to_ascii_lowercase());
            is_plain(value);
        }
    }
    let Some(asked) = TokenChallenge::read(fields.iter().copied()) else { return };
    let field = asked.field();
    assert!(field.bytes().all(|byte| (0x20..=0x7e).contains(&byte)), "{field:?}");
    let again = TokenChallenge::read([field.as_str()]).unwrap();
    assert_eq!(again.field(), field, "{asked:?}");
    let scopes = Scopes::parse(asked.scope.as_deref().unwrap_or_default());
    assert!(scopes.iter().count() <= OAUTH_SCOPES_MAX);
    assert_eq!(Scopes::parse(&scopes.to_string()), scopes);
}

/// URLs, queries and keys, a line each.
pub(super) fn oauth_texts(data: &[u8]) {
    for line in lines(data) {
        if let Ok(url) = WebUrl::parse(line) {
            urls(&url);
        }
        if let Ok(form) = Form::parse(line) {
            assert_eq!(Form::parse(&form.query()), Ok(form));
        }
        callback(line);
    }
    if let Ok(text) = std::str::from_utf8(data) {
        drop(SigningKey::from_pem(text));
    }
}

fn urls(url: &WebUrl) {
    let origin = WebUrl::parse(&url.origin()).unwrap();
    assert!(origin.has_origin_of(url));
    assert_eq!(origin.is_secure(), url.is_secure());
    let places = resource_metadata::locations(url);
    for place in places.iter().chain(&server_metadata::locations(url)) {
        assert!(place.has_origin_of(url), "{place}");
        assert!(place.path().contains("/.well-known/"), "{place}");
        // A place is at most a little longer than what it is made of.
        if let Ok(again) = WebUrl::parse(place.as_str()) {
            assert_eq!(again, *place);
        }
    }
    let resource = WebUrl::parse(&canonical_resource(url)).unwrap();
    assert!(resource.has_origin_of(url) && resource.query().is_none());
    if let Ok(fallback) = ServerMetadata::fallback(url) {
        assert!(fallback.check_token_endpoint().unwrap().is_secure());
    }
}

fn callback(query: &str) {
    let Ok(answer) = AuthorizationAnswer::read(query) else { return };
    assert!(!answer.state().expose().is_empty());
    let form = Form::parse(query).unwrap();
    let named = form.once("iss").unwrap().filter(|it| !it.is_empty());
    for names_issuer in [true, false] {
        let expected = ExpectedAnswer { issuer: Some(ISSUER), names_issuer };
        let is_theirs = match named {
            Some(named) => named == ISSUER,
            None => !names_issuer,
        };
        match answer.code(expected) {
            Ok(code) => {
                assert!(
                    is_theirs && form.once("error").unwrap().unwrap_or_default().is_empty()
                );
                assert_eq!(Some(code.expose()), form.once("code").unwrap());
            }
            Err(error) => {
                is_plain(&error.to_string());
                let is_shown = matches!(error, AnswerError::Refused { .. });
                assert!(is_theirs || !is_shown, "{error:?}");
            }
        }
    }
}

/// The documents and the answers.
pub(super) fn oauth_documents(data: &[u8]) {
    for status in [200, 201, 400, 503] {
        let answer = FetchAnswer { status, body: data.to_vec(), ..FetchAnswer::default() };
        match TokenAnswer::read(&answer) {
            Ok(token) => {
                let text = token.access_token.expose();
                assert!(answer.is_success() && !text.is_empty());
                assert!(text.bytes().all(|byte| byte.is_ascii_graphic()));
            }
            Err(error) => is_plain(&error.to_string()),
        }
        if let Err(error) = read_id_jag(&answer) {
            is_plain(&error.to_string());
        }
        match RegisteredClient::read(&answer, AuthenticationMethod::None) {
            Ok(client) => assert!(answer.is_success() && !client.client_id.is_empty()),
            Err(error) => is_plain(error.as_str()),
        }
    }
    let Ok(document) = JsonDocument::parse(data) else { return };
    let server = WebUrl::parse(SERVER).unwrap();
    match ResourceMetadata::read(&document, &server) {
        Ok(metadata) => {
            let resource = WebUrl::parse(&metadata.resource).unwrap();
            assert!(resource.has_origin_of(&server));
            assert!(metadata.authorization_servers.len() <= AUTHORIZATION_SERVERS_MAX);
            let written = JsonDocument::parse(metadata.to_json().as_bytes()).unwrap();
            assert_eq!(ResourceMetadata::read(&written, &server), Ok(metadata));
        }
        Err(error) => is_plain(error.as_str()),
    }
    match ServerMetadata::read(&document, ISSUER) {
        Ok(metadata) => {
            assert_eq!(metadata.issuer, ISSUER);
            let endpoints = [
                &metadata.authorization_endpoint,
                &metadata.token_endpoint,
                &metadata.registration_endpoint,
                &metadata.revocation_endpoint,
            ];
            assert!(endpoints.into_iter().flatten().all(WebUrl::is_secure));
            if let Err(error) = metadata.check_authorization_code() {
                is_plain(error.as_str());
            }
        }
        Err(error) => is_plain(error.as_str()),
    }
}
