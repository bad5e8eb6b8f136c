//! Tests of the verification of JWTs.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::*;
use crate::oauth::test_issuer::{TestKey, jwks};

const NOW: u64 = 1_800_000_000;
const ISSUER: &str = "https://idp.example";
const AUDIENCE: &str = "https://mcp.example/mcp";
const WANTED: Wanted<'_> =
    Wanted { issuer: ISSUER, audience: AUDIENCE, base: None, machine_clients: &[] };

/// Claims that are good, with those of `changes` in the place of theirs or behind them; a change
/// to nothing leaves the claim out.
fn claims(changes: &[(&str, &str)]) -> String {
    let (issuer, audience) = (format!("{ISSUER:?}"), format!("{AUDIENCE:?}"));
    let exp = (NOW + 600).to_string();
    let mut all: Vec<(&str, &str)> =
        vec![("iss", &issuer), ("aud", &audience), ("sub", "\"alice\""), ("exp", &exp)];
    for (name, value) in changes {
        all.retain(|(it, _)| it != name);
        all.push((name, value));
    }
    let all = all.iter().filter(|(_, value)| !value.is_empty());
    let members: Vec<_> = all.map(|(name, value)| format!("{name:?}:{value}")).collect();
    format!("{{{}}}", members.join(","))
}

fn set(keys: &[&str]) -> JwkSet {
    JwkSet::parse(jwks(keys).as_bytes()).unwrap()
}

fn verify(token: &str, keys: &JwkSet) -> Result<Claims, WrongToken> {
    let unverified = Unverified::read(token)?;
    let claims = unverified.check(WANTED, NOW)?;
    unverified.signed_by(keys)?;
    Ok(claims)
}

/// The claims of a token that is signed as it should be.
fn checked(changes: &[(&str, &str)]) -> Result<Claims, WrongToken> {
    let key = TestKey::ed25519(1);
    verify(&key.token("k", &claims(changes)), &set(&[&key.jwk("k")]))
}

#[test]
fn every_algorithm_is_verified() {
    for key in [TestKey::p256(), TestKey::ed25519(1), TestKey::rsa()] {
        let keys = set(&[&TestKey::ed25519(9).jwk("other"), &key.jwk("k")]);
        let claims_text = claims(&[]);
        let verified = verify(&key.token("k", &claims_text), &keys).unwrap();
        assert_eq!(verified.subject, Subject::User("alice".to_owned()));
        assert_eq!((verified.expires_at, verified.text), (NOW + 600, claims_text));
    }
    let key = TestKey::rsa();
    let token = key.sign(r#"{"alg":"PS256","kid":"k"}"#, &claims(&[]));
    assert!(verify(&token, &set(&[&key.jwk("k")])).is_ok());
    let key = TestKey::ed25519(1);
    let token = key.sign(r#"{"alg":"Ed25519"}"#, &claims(&[]));
    assert!(verify(&token, &set(&[&key.jwk("k")])).is_ok());
}

#[test]
fn no_header_makes_another_algorithm_of_a_key() {
    let (rsa, ec) = (TestKey::rsa(), TestKey::p256());
    let keys = set(&[&rsa.jwk("r"), &ec.jwk("e")]);
    let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
    // HMAC with the public key as its secret, in the forms in which libraries have taken it.
    let pem = include_str!("../../../tests/library/rsa_test_key.pem");
    for secret in [rsa.members(), rsa.jwk("r"), pem.to_owned(), String::new()] {
        let header = r#"{"alg":"HS256","kid":"r"}"#;
        let signed = format!("{}.{}", encode(header), encode(&claims(&[])));
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret.as_bytes());
        let tag = ring::hmac::sign(&key, signed.as_bytes());
        let token = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(tag));
        let wrong = WrongToken::Form(UnusableJws::Algorithm("HS256".to_owned()));
        assert_eq!(verify(&token, &keys), Err(wrong));
    }
    for none in ["none", "None", "NONE", "", "rs256", "RS512", "ES384", "HS512", "dir"] {
        let header = format!(r#"{{"alg":"{none}","kid":"r"}}"#);
        for signature in ["", "AA"] {
            let token = format!("{}.{}.{signature}", encode(&header), encode(&claims(&[])));
            let wrong = verify(&token, &keys).unwrap_err();
            assert!(matches!(wrong, WrongToken::Form(UnusableJws::Algorithm(_))), "{wrong:?}");
        }
    }
    // A key of another kind than the algorithm's.
    for (key, kid, alg) in [(&ec, "e", "RS256"), (&rsa, "r", "ES256"), (&ec, "e", "EdDSA")] {
        let token = key.sign(&format!(r#"{{"alg":"{alg}","kid":"{kid}"}}"#), &claims(&[]));
        let wrong = WrongToken::UnknownKey(Some(kid.to_owned()));
        assert_eq!(verify(&token, &keys), Err(wrong), "{alg}");
    }
}

#[test]
fn a_key_in_the_token_counts_for_nothing() {
    let (ours, theirs) = (TestKey::p256(), TestKey::p256());
    let keys = set(&[&ours.jwk("k")]);
    let jwk = theirs.jwk("k");
    for member in [
        format!(r#""jwk":{jwk}"#),
        r#""jku":"https://evil.example/jwks""#.to_owned(),
        r#""x5u":"https://evil.example/cert""#.to_owned(),
        r#""x5c":["MIIB"]"#.to_owned(),
    ] {
        let header = format!(r#"{{"alg":"ES256","kid":"k",{member}}}"#);
        let forged = theirs.sign(&header, &claims(&[]));
        assert_eq!(verify(&forged, &keys), Err(WrongToken::Signature), "{member}");
        assert!(verify(&ours.sign(&header, &claims(&[])), &keys).is_ok(), "{member}");
    }
    let unknown = theirs.token("t", &claims(&[]));
    assert_eq!(verify(&unknown, &keys), Err(WrongToken::UnknownKey(Some("t".to_owned()))));
    let header = r#"{"alg":"ES256","kid":"k","crit":["exp"],"exp":1}"#;
    let critical = verify(&ours.sign(header, &claims(&[])), &keys);
    assert_eq!(critical, Err(WrongToken::Form(UnusableJws::Critical)));
}

#[test]
fn a_token_without_a_key_id_is_tried_with_the_keys_of_its_kind() {
    let (one, two) = (TestKey::p256(), TestKey::p256());
    let keys = set(&[&TestKey::rsa().jwk("r"), &one.jwk("a"), &two.jwk("b")]);
    let header = r#"{"alg":"ES256"}"#;
    assert!(verify(&two.sign(header, &claims(&[])), &keys).is_ok());
    let forged = TestKey::p256().sign(header, &claims(&[]));
    assert_eq!(verify(&forged, &keys), Err(WrongToken::Signature));
    let none = verify(&forged, &set(&[&TestKey::rsa().jwk("r")]));
    assert_eq!(none, Err(WrongToken::UnknownKey(None)));
}

#[test]
fn only_access_tokens_are_taken() {
    let key = TestKey::ed25519(1);
    let keys = set(&[&key.jwk("k")]);
    let of_type = |typ: &str| {
        let header = format!(r#"{{"alg":"EdDSA","kid":"k"{typ}}}"#);
        verify(&key.sign(&header, &claims(&[])), &keys)
    };
    for good in ["", "at+jwt", "AT+JWT", "application/at+jwt", "JWT", "jwt", "application/jwt"]
    {
        let typ = if good.is_empty() { String::new() } else { format!(r#","typ":"{good}""#) };
        assert!(of_type(&typ).is_ok(), "{good}");
    }
    for bad in [
        "dpop+jwt",
        "id_token+jwt",
        "logout+jwt",
        "oauth-id-jag+jwt",
        "JOSE",
        "",
        "secevent+jwt",
    ] {
        let wrong = of_type(&format!(r#","typ":"{bad}""#));
        assert!(matches!(wrong, Err(WrongToken::Type(_))), "{bad}: {wrong:?}");
    }
    assert!(matches!(of_type(r#","typ":7"#), Err(WrongToken::Form(_))));
    for of_clients in [
        ("at_hash", "\"x\""),
        ("c_hash", "\"x\""),
        ("events", "{}"),
        ("typ", "\"ID\""),
        ("typ", "\"Refresh\""),
        ("token_use", "\"id\""),
    ] {
        assert_eq!(checked(&[of_clients]), Err(WrongToken::NotAnAccessToken), "{of_clients:?}");
    }
    assert!(checked(&[("typ", "\"Bearer\""), ("nonce", "\"n\"")]).is_ok());
}

#[test]
fn issuer_and_audience_are_compared_exactly() {
    for other in ["https://idp.example/", "https://IDP.example", "http://idp.example", ""] {
        let wrong = checked(&[("iss", &format!("{other:?}"))]);
        assert!(matches!(wrong, Err(WrongToken::Issuer(_))), "{other}: {wrong:?}");
    }
    assert_eq!(checked(&[("iss", "")]), Err(WrongToken::Missing("iss")));
    assert_eq!(checked(&[("iss", "[]")]), Err(WrongToken::Claim("iss")));
    let several = format!(r#"["https://other.example",{AUDIENCE:?}]"#);
    assert!(checked(&[("aud", &several)]).is_ok());
    for other in [
        "",
        "[]",
        "null",
        "\"\"",
        "\"https://mcp.example/mcp/\"",
        "\"https://mcp.example\"",
        "\"https://mcp.example/mcp/evil\"",
        "\"HTTPS://mcp.example/mcp\"",
        "[\"a\",\"b\"]",
    ] {
        assert_eq!(checked(&[("aud", other)]), Err(WrongToken::Audience), "{other}");
    }
    for malformed in ["7", "{}", "[7]", "[[]]", "true"] {
        assert_eq!(checked(&[("aud", malformed)]), Err(WrongToken::Claim("aud")));
    }
    let many = format!("[{}\"a\"]", "\"a\",".repeat(OAUTH_LIST_ELEMENTS_MAX));
    assert_eq!(checked(&[("aud", &many)]), Err(WrongToken::Claim("aud")));
    // A host alone is the same with its slash.
    assert!(is_same_audience("https://mcp.example/", "https://mcp.example"));
    assert!(is_same_audience("https://mcp.example", "https://mcp.example/"));
    for (one, other) in [
        ("https://mcp.example//", "https://mcp.example/"),
        ("https://mcp.example/mcp/", "https://mcp.example/mcp"),
        ("https:///", "https://"),
        ("api", "api/"),
    ] {
        assert!(!is_same_audience(one, other), "{one} {other}");
    }
}

#[test]
fn times_have_a_leeway_of_thirty_seconds_and_no_more() {
    let exp = |at: u64| checked(&[("exp", &at.to_string())]).map(|claims| claims.expires_at);
    assert_eq!(exp(NOW - 29), Ok(NOW - 29));
    assert_eq!(exp(NOW - 30), Err(WrongToken::Expired));
    assert_eq!(exp(0), Err(WrongToken::Expired));
    assert_eq!(exp(u64::MAX), Ok(u64::MAX));
    let nbf = |at: u64| checked(&[("nbf", &at.to_string())]).map(|_| ());
    assert_eq!(nbf(NOW + 30), Ok(()));
    assert_eq!(nbf(NOW + 31), Err(WrongToken::NotYet));
    let iat = |at: u64| checked(&[("iat", &at.to_string())]).map(|_| ());
    assert_eq!(iat(NOW + 30), Ok(()));
    assert_eq!(iat(NOW + 31), Err(WrongToken::FromTheFuture));
    let fraction = checked(&[("exp", &format!("{}.75", NOW + 1))]).unwrap();
    assert_eq!(fraction.expires_at, NOW + 1);
    assert_eq!(checked(&[("exp", "1.8000006e9")]).unwrap().expires_at, NOW + 600);
    for absent in ["", "null"] {
        assert_eq!(checked(&[("exp", absent)]), Err(WrongToken::Missing("exp")));
    }
    for (name, wrong) in [("exp", "exp"), ("nbf", "nbf"), ("iat", "iat")] {
        for bad in ["\"1\"", "-1", "1e300", "[]", "true", "99999999999999999999"] {
            assert_eq!(checked(&[(name, bad)]), Err(WrongToken::Claim(wrong)), "{name} {bad}");
        }
    }
}

#[test]
fn a_token_without_a_subject_is_not_its_clients() {
    let subject = |changes: &[(&str, &str)]| checked(changes).map(|claims| claims.subject);
    let client = |id: &str| Err(WrongToken::NoSubject(id.to_owned()));
    let none = ("sub", "");
    assert_eq!(subject(&[none, ("client_id", "\"alice\""), ("azp", "\"z\"")]), client("alice"));
    assert_eq!(subject(&[none, ("azp", "\"z\"")]), client("z"));
    assert_eq!(subject(&[("sub", "\"\""), ("azp", "\"z\"")]), client("z"));
    assert_eq!(subject(&[none]), Err(WrongToken::Missing("sub")));
    assert_eq!(subject(&[("sub", "7")]), Err(WrongToken::Claim("sub")));
    let long = format!("\"{}\"", "s".repeat(SUBJECT_BYTES_MAX + 1));
    assert_eq!(subject(&[("sub", &long)]), Err(WrongToken::Claim("sub")));
}

#[test]
fn scopes_come_in_several_forms() {
    let scopes =
        |changes: &[(&str, &str)]| checked(changes).map(|claims| claims.scopes.join("|"));
    assert_eq!(scopes(&[("scope", "\"a  b a\"")]).as_deref(), Ok("a|b"));
    assert_eq!(scopes(&[("scope", "[\"a\",\"b\"]")]).as_deref(), Ok("a|b"));
    assert_eq!(scopes(&[("scp", "\"a b\"")]).as_deref(), Ok("a|b"));
    assert_eq!(scopes(&[("scp", "[\"a\",\"b\"]"), ("scope", "\"c\"")]).as_deref(), Ok("c|a|b"));
    assert_eq!(scopes(&[]).as_deref(), Ok(""));
    assert_eq!(scopes(&[("scope", "7")]), Err(WrongToken::Claim("scope")));
    let many: Vec<_> = (0..=TOKEN_SCOPES_MAX).map(|n| n.to_string()).collect();
    let many = format!("\"{}\"", many.join(" "));
    assert_eq!(scopes(&[("scope", &many)]), Err(WrongToken::Claim("scope")));
}

#[test]
fn a_confirmation_that_cannot_be_checked_is_refused() {
    let bound = |cnf: &str| checked(&[("cnf", cnf)]).map(|claims| claims.bound_to.is_some());
    let jkt = "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs";
    assert_eq!(bound(&format!(r#"{{"jkt":"{jkt}"}}"#)), Ok(true));
    assert_eq!(bound("null"), Ok(false));
    let both = format!(r#"{{"jkt":"{jkt}","x5t#S256":"{jkt}"}}"#);
    for other in [r#"{"x5t#S256":"a"}"#, r#"{"kid":"a"}"#, "{}", &both] {
        assert_eq!(bound(other), Err(WrongToken::Confirmation), "{other}");
    }
    for malformed in ["7", r#"{"jkt":7}"#, r#"{"jkt":"short"}"#, r#"{"jkt":""}"#] {
        assert_eq!(bound(malformed), Err(WrongToken::Claim("cnf")), "{malformed}");
    }
}

#[test]
fn members_that_stand_twice_are_refused() {
    let key = TestKey::ed25519(1);
    let keys = set(&[&key.jwk("k")]);
    let header = r#"{"alg":"EdDSA","kid":"k"}"#;
    let twice = claims(&[]).replacen('{', r#"{"sub":"root","#, 1);
    assert!(matches!(verify(&key.sign(header, &twice), &keys), Err(WrongToken::Form(_))));
    let twice = r#"{"alg":"none","alg":"EdDSA","kid":"k"}"#;
    let wrong = verify(&key.sign(twice, &claims(&[])), &keys);
    assert!(matches!(wrong, Err(WrongToken::Form(UnusableJws::Malformed(_)))));
}

#[test]
fn a_token_cut_or_changed_anywhere_is_refused() {
    let key = TestKey::ed25519(1);
    let keys = set(&[&key.jwk("k")]);
    let token = key.token("k", &claims(&[]));
    assert!(verify(&token, &keys).is_ok());
    for end in 0..token.len() {
        assert!(verify(&token[..end], &keys).is_err(), "cut at {end}");
        let mut bytes = token.clone().into_bytes();
        for byte in [b'A', b'.', b'=', b' ', b'+', 0xff] {
            if bytes[end] != byte {
                let kept = std::mem::replace(&mut bytes[end], byte);
                let changed = String::from_utf8_lossy(&bytes).into_owned();
                assert!(verify(&changed, &keys).is_err(), "{byte} at {end}");
                bytes[end] = kept;
            }
        }
    }
    for behind in [".", "A", "=", " ", "\n", ".AA.AA"] {
        assert!(verify(&format!("{token}{behind}"), &keys).is_err(), "{behind:?}");
    }
    let long = key.token("k", &claims(&[("pad", &format!("\"{}\"", "p".repeat(16_384)))]));
    assert_eq!(verify(&long, &keys), Err(WrongToken::Form(UnusableJws::TooLong)));
    let jwe = "eyJhbGciOiJkaXIifQ.AA.AA.AA.AA";
    assert_eq!(verify(jwe, &keys), Err(WrongToken::Form(UnusableJws::Encrypted)));
}

#[test]
fn a_base_that_ends_with_a_slash_is_no_resource_itself() {
    for (aud, base, is_accepted) in [
        ("https://g", "https://g", true),
        ("https://g/", "https://g", true),
        ("https://g", "https://g/", false),
        ("https://g/", "https://g/", false),
        ("https://g/mcp", "https://g/", true),
        ("https://gg/mcp", "https://g/", false),
    ] {
        let text = format!(r#"{{"aud":"{aud}"}}"#);
        let claims = RawObject::parse(&text).unwrap();
        let found = resources(&claims, Wanted { base: Some(base), ..WANTED });
        assert_eq!(found.is_ok(), is_accepted, "{aud} {base}");
    }
}
