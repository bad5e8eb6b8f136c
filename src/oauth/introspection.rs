//! Pure: what an authorization server says of a token that it is asked about (RFC 7662).

use super::form::Form;
use super::jwt::{Claims, Wanted, WrongToken, is_for_clients, read_claims};
use crate::limits::OAUTH_DOCUMENT_BYTES_MAX;
use crate::protocol::raw::RawObject;
use crate::secret::Secret;

/// Adds the question about a token to a form (RFC 7662, section 2.1).
pub fn ask(form: &mut Form, token: &Secret) {
    form.push("token", token.expose());
    form.push("token_type_hint", "access_token");
}

/// What came of a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Introspected {
    /// The token is good.
    Active(Claims),
    /// The token is not good, for the authorization server or for this resource.
    Refused(WrongToken),
}

/// Reads an answer to the question about a token (RFC 7662, section 2.2). Its members are those of
/// a JWT. Only `exp` may be missing: the authorization server says by `active` that the token has
/// not ended, and is asked again. `aud` must be there, since a token may be meant for another
/// resource of the same authorization server.
///
/// # Errors
/// It is no such answer, with the fault as text.
pub fn read(body: &[u8], wanted: Wanted<'_>, now: u64) -> Result<Introspected, &'static str> {
    if body.len() > OAUTH_DOCUMENT_BYTES_MAX {
        return Err("the answer of the introspection is too large");
    }
    let text =
        std::str::from_utf8(body).map_err(|_| "the introspection answered with no text")?;
    let object =
        RawObject::parse(text).map_err(|_| "the introspection answered with no JSON object")?;
    match object.get("active") {
        Some("true") => (),
        Some("false") => return Ok(Introspected::Refused(WrongToken::Inactive)),
        Some(_) | None => return Err("the introspection does not say if the token is active"),
    }
    Ok(match active(&object, text, wanted, now) {
        Ok(claims) => Introspected::Active(claims),
        Err(wrong) => Introspected::Refused(wrong),
    })
}

fn active(
    object: &RawObject<'_>,
    text: &str,
    wanted: Wanted<'_>,
    now: u64,
) -> Result<Claims, WrongToken> {
    let member = |name: &'static str| {
        let is_there = object.get(name).is_some_and(|text| text != "null");
        let text = if is_there { object.string(name) } else { Ok(None) };
        text.map_err(|_| WrongToken::Claim(name))
    };
    if let Some(issuer) = member("iss")?.filter(|issuer| issuer != wanted.issuer) {
        return Err(WrongToken::Issuer(super::jws::told(&issuer)));
    }
    let is_access =
        |kind: &String| ["bearer", "dpop"].iter().any(|it| it.eq_ignore_ascii_case(kind));
    if member("token_type")?.is_some_and(|kind| !is_access(&kind)) || is_for_clients(object) {
        return Err(WrongToken::NotAnAccessToken);
    }
    let mut with_end = object.clone();
    if object.get("exp").is_none_or(|text| text == "null") {
        with_end.set("exp", u64::MAX.to_string());
    }
    read_claims(&with_end, text, wanted, now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oauth::jwt::Subject;

    const NOW: u64 = 1_800_000_000;
    const WANTED: Wanted<'_> =
        Wanted { issuer: "https://idp.example", audience: "api", base: None };

    fn answered(body: &str) -> Result<Introspected, &'static str> {
        read(body.as_bytes(), WANTED, NOW)
    }

    #[test]
    fn an_active_token_has_the_claims_of_the_answer() {
        let body = r#"{"active":true,"aud":["api"],"sub":"s","scope":"a b","exp":1800000060,
            "token_type":"Bearer","iss":"https://idp.example","username":null}"#;
        let Ok(Introspected::Active(claims)) = answered(body) else { panic!() };
        assert_eq!(claims.subject, Subject::User("s".to_owned()));
        assert_eq!((claims.expires_at, claims.scopes.len()), (NOW + 60, 2));
        assert_eq!(claims.text, body);
        let endless = r#"{"active":true,"aud":"api","client_id":"c","exp":null}"#;
        let Ok(Introspected::Active(claims)) = answered(endless) else { panic!() };
        assert_eq!(claims.subject, Subject::Client("c".to_owned()));
        assert_eq!(claims.expires_at, u64::MAX);
    }

    #[test]
    fn what_is_not_for_this_resource_is_refused() {
        let refused = |body: &str| match answered(body) {
            Ok(Introspected::Refused(wrong)) => wrong,
            other => panic!("{body}: {other:?}"),
        };
        assert_eq!(refused(r#"{"active":false,"sub":7}"#), WrongToken::Inactive);
        let with = |more: &str| format!(r#"{{"active":true,"sub":"s",{more}}}"#);
        assert_eq!(refused(&with(r#""exp":1"#)), WrongToken::Audience);
        assert_eq!(refused(&with(r#""aud":"other""#)), WrongToken::Audience);
        assert_eq!(refused(&with(r#""aud":"api","exp":1"#)), WrongToken::Expired);
        assert_eq!(refused(&with(r#""aud":"api","nbf":1900000000"#)), WrongToken::NotYet);
        let other = refused(&with(r#""aud":"api","iss":"https://evil.example""#));
        assert_eq!(other, WrongToken::Issuer("https://evil.example".to_owned()));
        let refresh = refused(&with(r#""aud":"api","token_type":"refresh_token""#));
        assert_eq!(refresh, WrongToken::NotAnAccessToken);
        let nobody = refused(r#"{"active":true,"aud":"api"}"#);
        assert_eq!(nobody, WrongToken::Missing("sub"));
    }

    #[test]
    fn what_is_no_answer_says_nothing_of_the_token() {
        let whole = r#"{"active":true,"aud":"api","sub":"s"}"#;
        for end in 0..whole.len() {
            assert!(answered(&whole[..end]).is_err(), "cut at {end}");
        }
        for bad in ["[]", "{}", r#"{"active":"true"}"#, r#"{"active":1}"#, "<html>"] {
            assert!(answered(bad).is_err(), "{bad}");
        }
        assert!(answered(r#"{"active":false,"active":true,"aud":"api"}"#).is_err());
        assert!(read(&[0xff], WANTED, NOW).is_err());
        assert!(read(&vec![b' '; OAUTH_DOCUMENT_BYTES_MAX + 1], WANTED, NOW).is_err());
    }
}
