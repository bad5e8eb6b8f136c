//! Pure: sets of scopes, and which of them are asked for.

use std::fmt;

use crate::limits::{OAUTH_SCOPES_MAX, OAUTH_TEXT_BYTES_MAX};

/// The scope of a refresh token (OpenID Connect Core section 11).
const OFFLINE_ACCESS: &str = "offline_access";

/// A set of scopes in the order in which they were named.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scopes(Vec<String>);

impl Scopes {
    /// Reads scopes with spaces between them (RFC 6749 section 3.3). What is no scope is left
    /// out.
    pub fn parse(text: &str) -> Scopes {
        text.split(' ').collect()
    }

    /// The scopes, each once.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    /// True if there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// True if the set has this scope.
    pub fn contains(&self, scope: &str) -> bool {
        self.0.iter().any(|it| it == scope)
    }

    /// True if the set has `offline_access`.
    pub fn wants_refresh_token(&self) -> bool {
        self.contains(OFFLINE_ACCESS)
    }

    /// True if every scope of `other` is in this set.
    pub fn covers(&self, other: &Scopes) -> bool {
        other.iter().all(|scope| self.contains(scope))
    }

    /// These scopes and those of `other`.
    #[must_use]
    pub fn union(&self, other: &Scopes) -> Scopes {
        self.iter().chain(other.iter()).collect()
    }

    /// The value of a `scope` parameter, none for the empty set.
    pub fn parameter(&self) -> Option<String> {
        (!self.is_empty()).then(|| self.to_string())
    }
}

impl<'a> FromIterator<&'a str> for Scopes {
    fn from_iter<I: IntoIterator<Item = &'a str>>(scopes: I) -> Scopes {
        let mut set = Scopes::default();
        for scope in scopes {
            if set.0.len() < OAUTH_SCOPES_MAX && is_scope(scope) && !set.contains(scope) {
                set.0.push(scope.to_owned());
            }
        }
        set
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(" "))
    }
}

/// True for a `scope-token` of RFC 6749 section 3.3.
fn is_scope(text: &str) -> bool {
    let is_scope_byte = |byte: u8| matches!(byte, b'!' | b'#'..=b'[' | b']'..=b'~');
    !text.is_empty() && text.len() <= OAUTH_TEXT_BYTES_MAX && text.bytes().all(is_scope_byte)
}

/// The lists of scopes of which those to ask for are chosen.
#[derive(Debug, Clone, Copy, Default)]
pub struct ScopeSources<'a> {
    /// `scopes` of the configuration.
    pub configured: Option<&'a [String]>,
    /// `scope` of the challenge.
    pub challenged: Option<&'a str>,
    /// `scopes_supported` of the protected resource's metadata.
    pub of_resource: Option<&'a [String]>,
    /// `scopes_supported` of the authorization server's metadata.
    pub of_authorization_server: Option<&'a [String]>,
}

/// The scopes of the first request: those of the configuration, else of the challenge, else those
/// that the resource supports, else none (authorization, Scope Selection Strategy).
/// `offline_access` is added where the authorization server offers it and scopes are not
/// configured (authorization, Refresh Tokens), but never alone: a request without scopes gets the
/// authorization server's own defaults, one with `offline_access` would get nothing else.
pub fn select(sources: ScopeSources<'_>, refreshes: Refreshes) -> Scopes {
    if let Some(configured) = sources.configured {
        return configured.iter().map(String::as_str).collect();
    }
    let challenged = sources.challenged.map(Scopes::parse).filter(|it| !it.is_empty());
    let supported = || sources.of_resource.map(|all| all.iter().map(String::as_str).collect());
    let chosen = challenged.or_else(supported).unwrap_or_default();
    let offered = sources.of_authorization_server.unwrap_or_default();
    match refreshes {
        Refreshes::Yes
            if !chosen.is_empty() && offered.iter().any(|scope| scope == OFFLINE_ACCESS) =>
        {
            chosen.union(&Scopes::parse(OFFLINE_ACCESS))
        }
        Refreshes::Yes | Refreshes::No => chosen,
    }
}

/// The scopes of a step-up: those requested before and those of the challenge (authorization,
/// Step-Up Authorization Flow).
pub fn step_up(requested: &Scopes, challenged: Option<&str>) -> Scopes {
    requested.union(&challenged.map(Scopes::parse).unwrap_or_default())
}

/// Tells if a grant can be answered with a refresh token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refreshes {
    /// As the authorization code grant can.
    Yes,
    /// As grants of machines, which are made anew instead (RFC 6749 section 4.4.3).
    No,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owned(scopes: &[&str]) -> Vec<String> {
        scopes.iter().map(|scope| (*scope).to_owned()).collect()
    }

    #[test]
    fn scopes_are_read_each_once_and_what_is_none_is_left_out() {
        for (text, expected) in [
            ("a b a", Some("a b")),
            ("  a  b ", Some("a b")),
            ("", None),
            (" ", None),
            ("https://h/scope:x#[]^~!", Some("https://h/scope:x#[]^~!")),
            ("a\"b c\\d é a\tb e\nf ok", Some("ok")),
        ] {
            assert_eq!(Scopes::parse(text).parameter().as_deref(), expected, "{text}");
        }
        let many: Vec<String> = (0..10_000).map(|n| n.to_string()).collect();
        assert_eq!(Scopes::parse(&many.join(" ")).iter().count(), OAUTH_SCOPES_MAX);
    }

    #[test]
    fn scopes_are_chosen_in_the_order_of_the_specification() {
        let (configured, resource) = (owned(&["conf"]), owned(&["r1", "r2"]));
        let server = owned(&["r1", "offline_access"]);
        let all = ScopeSources {
            configured: Some(&configured),
            challenged: Some("chal"),
            of_resource: Some(&resource),
            of_authorization_server: Some(&server),
        };
        let chosen = |sources| select(sources, Refreshes::Yes).to_string();
        assert_eq!(chosen(all), "conf");
        let none: &[String] = &[];
        assert_eq!(chosen(ScopeSources { configured: Some(none), ..all }), "");
        let all = ScopeSources { configured: None, ..all };
        assert_eq!(chosen(all), "chal offline_access");
        assert_eq!(select(all, Refreshes::No).to_string(), "chal");
        let all = ScopeSources { challenged: Some(" "), ..all };
        assert_eq!(chosen(all), "r1 r2 offline_access");
        let all = ScopeSources { of_authorization_server: Some(&resource), ..all };
        assert_eq!(chosen(all), "r1 r2");
        // Nothing but `offline_access` would shut out the authorization server's own defaults.
        let bare =
            ScopeSources { of_authorization_server: Some(&server), ..ScopeSources::default() };
        assert_eq!(chosen(bare), "");
    }

    #[test]
    fn a_step_up_keeps_what_was_requested() {
        let requested = Scopes::parse("a b");
        assert_eq!(step_up(&requested, Some("b c")).to_string(), "a b c");
        assert_eq!(step_up(&requested, None), requested);
        assert!(step_up(&requested, Some("c")).covers(&requested));
        assert!(!requested.covers(&Scopes::parse("a c")));
    }
}
