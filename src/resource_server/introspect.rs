//! Introspection (RFC 7662): the question to an issuer about one token.

use std::time::Instant;

use super::denied::Denied;
use super::introspection_turns::Introspecting;
use super::issuer::Issuer;
use super::issuer_metadata::Authentication;
use super::reading::reach_of;
use crate::config::IntrospectionConfig;
use crate::limits::INTROSPECTION_TIMEOUT;
use crate::oauth::fetch::{FetchAnswer, FetchContent, FetchRequest, Reach};
use crate::oauth::form::{self, Form};
use crate::oauth::introspection::{self, Introspected};
use crate::oauth::jwt::Claims;
use crate::oauth::web_url::WebUrl;
use crate::secret::Secret;

/// Asks an issuer about a token, until `deadline` at most; `signed` is what the token says of
/// itself, where it is a JWT that was verified.
///
/// # Errors
/// It does not answer as it should.
pub(super) fn introspect(
    issuer: &Issuer,
    config: &IntrospectionConfig,
    token: &Secret,
    signed: Option<&Claims>,
    (now, deadline): (u64, Instant),
) -> Result<Introspected, Denied> {
    let metadata = issuer.metadata();
    let (url, reach) = match (&config.endpoint, &metadata) {
        // Whoever configures a URL decides where requests go.
        (Some(url), _) => (WebUrl::parse(url).ok(), Reach::Loopback),
        (None, Some(metadata)) => {
            let url = metadata.introspection_endpoint.clone();
            let issuer = WebUrl::parse(&issuer.config.issuer).ok();
            let reach = url.as_ref().zip(issuer).map(|(url, issuer)| reach_of(url, &issuer));
            (url, reach.unwrap_or(Reach::PublicOnly))
        }
        (None, None) => return Err(issuer.unavailable("its metadata could not be read")),
    };
    let Some(url) = url else {
        return Err(issuer.unavailable("its metadata have no introspection_endpoint"));
    };
    let ask = |authentication| {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Fault::Here("it answers slowly".to_owned()));
        }
        let mut form = Form::new();
        introspection::ask(&mut form, token);
        let headers = authenticate(&mut form, authentication, config);
        let body = form.encoded();
        let request = FetchRequest {
            url: &url,
            content: FetchContent::Form(&body),
            headers: &headers,
            reach,
            timeout: left.min(INTROSPECTION_TIMEOUT),
        };
        issuer.fetch.fetch(&request).map_err(|error| Fault::OfIssuer(error.to_string()))
    };
    let stated = metadata.and_then(|it| it.authentication);
    let answer = match stated {
        Some(stated) => ask(stated),
        None => ask_in_either_way(&issuer.introspecting, ask),
    };
    let read = |body: Vec<u8>| {
        let read = introspection::read(&body, issuer.wanted(), signed, now);
        read.map_err(|why| Fault::Here(why.to_owned()))
    };
    match answer.and_then(read_body).and_then(read) {
        Ok(answer) => {
            issuer.introspecting.note(None);
            Ok(answer)
        }
        // It says nothing of the questions about other tokens, and anybody can send such a token.
        Err(Fault::Here(why)) => Err(issuer.unavailable(&why)),
        Err(Fault::OfIssuer(why)) => {
            issuer.introspecting.note(Some(Instant::now()));
            Err(issuer.unavailable(&why))
        }
    }
}

/// Why a question has no answer, as text.
enum Fault {
    /// The issuer answers no questions at present.
    OfIssuer(String),
    /// This one question is not answered, or was not asked.
    Here(String),
}

/// Asks in the way that the issuer has taken before, and in the other one where the issuer refuses
/// the OAuth client: it may only refuse the way (RFC 6749, section 5.2).
fn ask_in_either_way(
    introspecting: &Introspecting,
    ask: impl Fn(Authentication) -> Result<FetchAnswer, Fault>,
) -> Result<FetchAnswer, Fault> {
    let usual = introspecting.authentication();
    let answer = ask(usual)?;
    if !answer.may_refuse_client() {
        return Ok(answer);
    }
    match ask(usual.other()) {
        Ok(other) if other.is_success() => {
            introspecting.note_authentication(usual.other());
            Ok(other)
        }
        Ok(_) | Err(_) => Ok(answer),
    }
}

fn read_body(answer: FetchAnswer) -> Result<Vec<u8>, Fault> {
    if answer.is_success() {
        return Ok(answer.body);
    }
    let why = format!("the introspection answered {}", answer.status);
    // It may not take the gateway for its OAuth client (RFC 7662, section 2.3).
    let is_of_issuer = answer.is_unavailable() || answer.refuses_credentials();
    Err(if is_of_issuer { Fault::OfIssuer(why) } else { Fault::Here(why) })
}

/// The header or the fields by which the gateway says who it is (RFC 6749, section 2.3.1, where id
/// and secret are encoded as in a form before the colon joins them).
fn authenticate(
    form: &mut Form,
    authentication: Authentication,
    config: &IntrospectionConfig,
) -> Vec<(&'static str, Secret)> {
    use base64::Engine;
    let (id, secret) = (config.client_id.as_str(), config.client_secret.expose());
    match authentication {
        Authentication::Basic => {
            let both = format!("{}:{}", form::encode(id), form::encode(secret));
            let both = base64::engine::general_purpose::STANDARD.encode(both);
            vec![("authorization", Secret::new(format!("Basic {both}")))]
        }
        Authentication::Post => {
            form.push("client_id", id);
            form.push("client_secret", secret);
            Vec::new()
        }
    }
}
