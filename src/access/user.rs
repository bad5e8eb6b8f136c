//! A user who has signed in at an authorization server: the principal of an access token.

use std::sync::Arc;

use super::quota::Bucket;
use crate::protocol::raw::RawObject;
use crate::sync::Mutex;

/// Bytes of a user's name before it is cut.
const NAME_BYTES_MAX: usize = 96;
/// Characters of the user's id behind a name that was cut.
const NAME_ID_CHARS: usize = 32;

/// A user, as an access token says who that is. Two users are the same if their issuer and their
/// subject are.
#[derive(Debug)]
pub struct User {
    /// The issuer, as the configuration has it.
    pub issuer: Arc<str>,
    /// The issuer in names and labels: its host and path.
    pub issuer_name: Arc<str>,
    /// The subject: unique and never given to somebody else within the issuer.
    pub subject: Box<str>,
    /// The kind of the subject.
    pub kind: SubjectKind,
    /// The claims of the token, or the members of the introspection's answer: a JSON object.
    pub claims: Arc<str>,
    /// The calls that the user has left, where a rule bounds them. All tokens of the user share
    /// it.
    pub quota: Option<Arc<Mutex<Bucket>>>,
}

/// The kind of a subject. A person and an OAuth client are never the same, even where their texts
/// are: whoever can register clients chooses their ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SubjectKind {
    /// The subject of a token (`sub`).
    Subject,
    /// The OAuth client itself, of a token without subject.
    Client,
}

impl User {
    /// The text that tells this user from every other one and from every key: a key's name has no
    /// control character. It is as long for every user, and the same after a restart.
    pub fn id(issuer: &str, kind: SubjectKind, subject: &str) -> Arc<str> {
        let mut digest = ring::digest::Context::new(&ring::digest::SHA256);
        digest.update(match kind {
            SubjectKind::Subject => b"subject ",
            SubjectKind::Client => b"client  ",
        });
        // The length keeps the two apart.
        digest.update(&issuer.len().to_be_bytes());
        digest.update(issuer.as_bytes());
        digest.update(subject.as_bytes());
        let mut id = String::from("\u{1}");
        for byte in digest.finish().as_ref() {
            id.push_str(&format!("{byte:02x}"));
        }
        id.into()
    }

    /// The user's name, `subject@issuer`, and `client/id@issuer` for an OAuth client itself. Two
    /// users have two names, in which nothing can end a word, a line or a header: other characters
    /// are percent-encoded, and a long subject is cut and ends in a part of the user's id.
    pub fn name(kind: SubjectKind, subject: &str, issuer: &str, issuer_name: &str) -> Arc<str> {
        let mut name = String::from(match kind {
            SubjectKind::Subject => "",
            SubjectKind::Client => "client/",
        });
        for byte in subject.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~@|:+".contains(&byte) {
                name.push(char::from(byte));
            } else {
                name.push_str(&format!("%{byte:02X}"));
            }
        }
        if name.len() > NAME_BYTES_MAX {
            name.truncate(NAME_BYTES_MAX);
            let id = User::id(issuer, kind, subject);
            name.push('*');
            name.extend(id.chars().skip(1).take(NAME_ID_CHARS));
        }
        name.push('@');
        name.push_str(issuer_name);
        name.into()
    }

    /// The text of a claim that is a string, a number or a boolean, for values that are made of
    /// users' claims. It is the claim that a rule with that name is about: a server is told
    /// nothing else than what the gateway decides by.
    pub fn claim(&self, name: &str) -> Option<String> {
        let value = find_claim(&self.claims, name)?;
        match value.as_bytes().first()? {
            b'"' => serde_json::from_str(&value).ok(),
            b'{' | b'[' | b'n' => None,
            _ => Some(value),
        }
    }
}

/// The JSON text of a claim: of the member with that name, else the one to which the name leads as
/// a path with dots.
pub fn find_claim(claims: &str, name: &str) -> Option<String> {
    let object = RawObject::parse(claims).ok()?;
    if let Some(value) = object.get(name) {
        return Some(value.to_owned());
    }
    let places = name.match_indices('.');
    places.filter_map(|(at, _)| Some((name.get(..at)?, name.get(at + 1..)?))).find_map(
        |(first, rest)| {
            let inner = object.get(first).filter(|text| text.starts_with('{'))?;
            find_claim(inner, rest)
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(claims: &str) -> User {
        User {
            issuer: "https://idp.example".into(),
            issuer_name: "idp.example".into(),
            subject: "s".into(),
            kind: SubjectKind::Subject,
            claims: claims.into(),
            quota: None,
        }
    }

    #[test]
    fn ids_differ_where_issuer_or_subject_does_and_are_no_names_of_keys() {
        let ids = [("a", "bc"), ("ab", "c"), ("", "abc"), ("abc", ""), ("a", "b")]
            .map(|(issuer, subject)| User::id(issuer, SubjectKind::Subject, subject));
        for (index, one) in ids.iter().enumerate() {
            assert!(one.starts_with(char::is_control) && one.len() == 65);
            assert!(ids.iter().skip(index + 1).all(|other| one != other));
        }
        assert_eq!(ids[0], User::id("a", SubjectKind::Subject, "bc"));
        assert_ne!(ids[0], User::id("a", SubjectKind::Client, "bc"));
    }

    #[test]
    fn names_are_bounded_and_differ() {
        let of = |kind, subject: &str| User::name(kind, subject, "https://h", "h");
        let name = |subject: &str| of(SubjectKind::Subject, subject);
        assert_eq!(&*name("auth0|5f7"), "auth0|5f7@h");
        assert_eq!(&*name("a@b.example"), "a@b.example@h");
        assert_eq!(&*name("a b\n\"é/%20"), "a%20b%0A%22%C3%A9%2F%2520@h");
        assert_eq!(&*of(SubjectKind::Client, "a"), "client/a@h");
        assert_ne!(name("client/a"), of(SubjectKind::Client, "a"));
        let long = "é".repeat(200);
        let (one, two) = (name(&format!("{long}1")), name(&format!("{long}2")));
        assert!(one != two && one.len() == NAME_BYTES_MAX + 1 + NAME_ID_CHARS + 2, "{one}");
    }

    #[test]
    fn claims_are_found_by_name_and_by_path() {
        let user = user(
            r#"{"email":"a@b","n":7,"ok":true,"no":null,"https://x.y/role":"r","a.b":"flat",
                "a":{"b":"deep","c":{"d":"deeper"},"l":["x"]}}"#,
        );
        let claim = |name: &str| user.claim(name);
        assert_eq!(claim("email").as_deref(), Some("a@b"));
        assert_eq!(claim("n").as_deref(), Some("7"));
        assert_eq!(claim("ok").as_deref(), Some("true"));
        assert_eq!(claim("https://x.y/role").as_deref(), Some("r"));
        assert_eq!(claim("a.b").as_deref(), Some("flat"));
        assert_eq!(claim("a.c.d").as_deref(), Some("deeper"));
        for absent in ["no", "a", "a.l", "a.", ".a", "", "email.x", "b"] {
            assert_eq!(claim(absent), None, "{absent}");
        }
    }
}
