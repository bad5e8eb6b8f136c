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
/// The claims of a JWT that was verified, `signed`, hold where the answer is silent, and the answer
/// must not contradict them in whose the token is and by which key it is bound.
///
/// # Errors
/// It is no such answer, with the fault as text.
pub fn read(
    body: &[u8],
    wanted: Wanted<'_>,
    signed: Option<&Claims>,
    now: u64,
) -> Result<Introspected, &'static str> {
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
    let claims = check(&object, wanted).and_then(|()| match signed {
        None => read_alone(&object, text, wanted, now),
        Some(signed) => read_beside(&object, signed, wanted, now),
    });
    Ok(match claims {
        // The key to which the token is bound is needed to check proofs (RFC 9449, section 6.2).
        Ok(claims) if claims.bound_to.is_none() && is_of_type(&object, "dpop") => {
            Introspected::Refused(WrongToken::Confirmation)
        }
        Ok(claims) => Introspected::Active(claims),
        Err(wrong) => Introspected::Refused(wrong),
    })
}

/// Checks that the answer is about an access token of the issuer.
fn check(object: &RawObject<'_>, wanted: Wanted<'_>) -> Result<(), WrongToken> {
    let member = |name: &'static str| {
        let text = if says(object, name) { object.string(name) } else { Ok(None) };
        text.map_err(|_| WrongToken::Claim(name))
    };
    if let Some(issuer) = member("iss")?.filter(|issuer| issuer != wanted.issuer) {
        return Err(WrongToken::Issuer(super::jws::told(&issuer)));
    }
    let is_access = member("token_type")?.is_none()
        || is_of_type(object, "bearer")
        || is_of_type(object, "dpop");
    if !is_access || is_for_clients(object) {
        return Err(WrongToken::NotAnAccessToken);
    }
    Ok(())
}

/// True if the answer says that the token is of that type (RFC 7662, `token_type`).
fn is_of_type(object: &RawObject<'_>, wanted: &str) -> bool {
    let kind = if says(object, "token_type") { object.string("token_type") } else { Ok(None) };
    kind.is_ok_and(|kind| kind.is_some_and(|kind| kind.eq_ignore_ascii_case(wanted)))
}

/// Reads what an answer says of an opaque token.
fn read_alone(
    object: &RawObject<'_>,
    text: &str,
    wanted: Wanted<'_>,
    now: u64,
) -> Result<Claims, WrongToken> {
    let mut with_end = object.clone();
    if !says(object, "exp") {
        with_end.set("exp", u64::MAX.to_string());
    }
    read_claims(&with_end, text, wanted, now)
}

/// Reads what an answer says of a JWT beside what the JWT says of itself. The claims are those of
/// the JWT with the answer's members in their places.
fn read_beside(
    object: &RawObject<'_>,
    signed: &Claims,
    wanted: Wanted<'_>,
    now: u64,
) -> Result<Claims, WrongToken> {
    let mut all = RawObject::parse(&signed.text).map_err(|_| WrongToken::Claim("sub"))?;
    // Both names are those of the scopes.
    if says(object, "scope") || says(object, "scp") {
        all.remove("scope");
        all.remove("scp");
    }
    for (name, value) in object.iter().filter(|(_, value)| *value != "null") {
        all.set(name, value);
    }
    let mut claims = read_claims(&all, &all.to_text(), wanted, now)?;
    if claims.subject != signed.subject {
        return Err(WrongToken::Contradiction("sub"));
    }
    if signed.bound_to.is_some() && claims.bound_to != signed.bound_to {
        return Err(WrongToken::Contradiction("cnf"));
    }
    claims.expires_at = claims.expires_at.min(signed.expires_at);
    if claims.resources.is_empty() {
        claims.resources.clone_from(&signed.resources);
    } else if !signed.resources.is_empty() {
        claims.resources.retain(|it| signed.resources.contains(it));
        if claims.resources.is_empty() {
            return Err(WrongToken::Audience);
        }
    }
    Ok(claims)
}

fn says(object: &RawObject<'_>, name: &str) -> bool {
    object.get(name).is_some_and(|text| text != "null")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oauth::jwk::Thumbprint;
    use crate::oauth::jwt::Subject;

    const NOW: u64 = 1_800_000_000;
    const WANTED: Wanted<'_> = Wanted {
        issuer: "https://idp.example",
        audience: "api",
        base: None,
        machine_clients: &[],
    };

    fn answered(body: &str) -> Result<Introspected, &'static str> {
        read(body.as_bytes(), WANTED, None, NOW)
    }

    #[test]
    fn an_active_token_has_the_claims_of_the_answer() {
        let body = r#"{"active":true,"aud":["api"],"sub":"s","scope":"a b","exp":1800000060,
            "token_type":"Bearer","iss":"https://idp.example","username":null}"#;
        let Ok(Introspected::Active(claims)) = answered(body) else { panic!() };
        assert_eq!(claims.subject, Subject::User("s".to_owned()));
        assert_eq!((claims.expires_at, claims.scopes.len()), (NOW + 60, 2));
        assert_eq!(claims.text, body);
        let endless = r#"{"active":true,"aud":"api","sub":"s","client_id":"c","exp":null}"#;
        let Ok(Introspected::Active(claims)) = answered(endless) else { panic!() };
        assert_eq!(claims.expires_at, u64::MAX);
    }

    #[test]
    fn a_token_without_a_subject_is_its_clients_where_that_has_no_users() {
        let with = |clients: &[String], more: &str| {
            let body = format!(r#"{{"active":true,"aud":"api","client_id":"c"{more}}}"#);
            let wanted = Wanted { machine_clients: clients, ..WANTED };
            match read(body.as_bytes(), wanted, None, NOW).unwrap() {
                Introspected::Active(claims) => Ok(claims.subject),
                Introspected::Refused(wrong) => Err(wrong),
            }
        };
        let clients = ["c".to_owned()];
        assert_eq!(with(&[], ""), Err(WrongToken::NoSubject("c".to_owned())));
        assert_eq!(with(&["b".to_owned()], ""), with(&[], ""));
        let own = Ok(Subject::Client("c".to_owned()));
        for more in ["", r#","username":"c""#, r#","sub":"","email":null"#] {
            assert_eq!(with(&clients, more), own, "{more}");
        }
        let user = with(&clients, r#","sub":"s","username":"u""#);
        assert_eq!(user, Ok(Subject::User("s".to_owned())));
        for (claim, value) in [("username", r#""u""#), ("auth_time", "1"), ("amr", "[]")] {
            let denied = with(&clients, &format!(r#","{claim}":{value}"#));
            assert_eq!(denied, Err(WrongToken::OfPerson(claim)));
        }
    }

    #[test]
    fn an_answer_about_a_jwt_neither_forgets_nor_contradicts_it() {
        let thumbprint = Thumbprint::parse("0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I");
        let signed = Claims {
            subject: Subject::User("s".to_owned()),
            expires_at: NOW + 60,
            scopes: vec!["a".to_owned(), "b".to_owned()],
            bound_to: thumbprint,
            resources: vec!["https://h/one".to_owned(), "https://h/two".to_owned()],
            text: r#"{"sub":"s","aud":["https://h/one","https://h/two"],"exp":1800000060,
                "scp":"a b","groups":["x"],"cnf":{"jkt":"0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}}"#
                .to_owned(),
        };
        let wanted = Wanted { base: Some("https://h"), ..WANTED };
        let said = |more: &str| {
            let body = format!(r#"{{"active":true{more}}}"#);
            match read(body.as_bytes(), wanted, Some(&signed), NOW).unwrap() {
                Introspected::Active(claims) => Ok(claims),
                Introspected::Refused(wrong) => Err(wrong),
            }
        };
        let silent = said("").unwrap();
        assert!(silent.text.contains(r#""groups":["x"]"#) && silent.text.contains("active"));
        assert_eq!(Claims { text: signed.text.clone(), ..silent }, signed);
        let later = said(r#","exp":1900000000,"scope":"a","aud":"https://h/two""#).unwrap();
        assert_eq!((later.expires_at, &later.scopes[..]), (NOW + 60, &["a".to_owned()][..]));
        assert_eq!(later.resources, ["https://h/two"]);
        assert_eq!(said(r#","exp":1800000030,"aud":"api""#).unwrap().expires_at, NOW + 30);
        assert_eq!(said(r#","aud":"api""#).unwrap().resources, signed.resources);
        let other_key = "wP38cbNFsbAqTtVUpJdtwFE94ANCHKmkLuP9OpNU-lI";
        for (more, wrong) in [
            (r#","sub":"t""#.to_owned(), WrongToken::Contradiction("sub")),
            (r#","sub":"""#.to_owned(), WrongToken::Missing("sub")),
            (r#","sub":"","client_id":"c""#.to_owned(), WrongToken::NoSubject("c".to_owned())),
            (format!(r#","cnf":{{"jkt":"{other_key}"}}"#), WrongToken::Contradiction("cnf")),
            (r#","aud":"https://h/three""#.to_owned(), WrongToken::Audience),
            (r#","aud":"other""#.to_owned(), WrongToken::Audience),
        ] {
            assert_eq!(said(&more), Err(wrong), "{more}");
        }
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
        let dpop = r#""aud":"api","token_type":"DPoP""#;
        assert_eq!(refused(&with(dpop)), WrongToken::Confirmation);
        let cnf = r#""cnf":{"jkt":"0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}"#;
        let bound = answered(&with(&format!("{dpop},{cnf}")));
        assert!(matches!(bound, Ok(Introspected::Active(_))), "{bound:?}");
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
        assert!(read(&[0xff], WANTED, None, NOW).is_err());
        assert!(read(&vec![b' '; OAUTH_DOCUMENT_BYTES_MAX + 1], WANTED, None, NOW).is_err());
    }
}
