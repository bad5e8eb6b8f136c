//! What a client brings along for servers whose credentials are each user's own: who the user is,
//! and the headers that go on to a server.

use std::collections::BTreeMap;
use std::sync::Arc;

use ring::digest;

use super::call::PrincipalId;
use super::credentials_id::CredentialsId;
use super::server_name::ServerName;

/// A header that a client gives for one server: the name in lower case, and the value, which is a
/// secret.
#[derive(Clone, PartialEq, Eq)]
pub struct ForwardedHeader {
    /// The server that gets the header.
    pub server: ServerName,
    /// The header's name at the server, in lower case.
    pub name: String,
    /// The header's value, which must never be shown.
    pub value: String,
}

/// The credentials of one request's user.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct UserCredentials {
    /// The principal; none where no key is required and nobody has signed in.
    pub principal: Option<PrincipalId>,
    /// The user's name: the value of `${user.name}`.
    pub name: Option<Arc<str>>,
    /// What the user's access token says: the values of `${user.claims.X}`.
    pub claims: Option<Arc<BTreeMap<String, String>>>,
    /// The headers for servers, in order.
    pub headers: Vec<ForwardedHeader>,
}

impl std::fmt::Debug for UserCredentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UserCredentials").field("name", &self.name).finish_non_exhaustive()
    }
}

impl UserCredentials {
    /// The headers that go on to that server.
    pub fn headers_for(&self, server: &ServerName) -> impl Iterator<Item = &ForwardedHeader> {
        self.headers.iter().filter(move |header| header.server == *server)
    }

    /// The digest under which everything is kept that is made with these credentials at that
    /// server.
    pub fn id(&self, server: &ServerName) -> CredentialsId {
        let mut context = digest::Context::new(&digest::SHA256);
        let mut add = |text: &str| {
            // With its length, so that no text can stand for two others.
            context.update(&u64::try_from(text.len()).unwrap_or(u64::MAX).to_be_bytes());
            context.update(text.as_bytes());
        };
        add(server.as_str());
        match &self.principal {
            None => add("nobody"),
            Some(PrincipalId::Key(name)) => {
                add("key");
                add(name);
            }
            Some(PrincipalId::Session(id)) => {
                add("session");
                add(id);
            }
            Some(PrincipalId::Address(address)) => {
                add("address");
                add(&address.to_string());
            }
            Some(PrincipalId::Credentials(id)) => {
                add("credentials");
                add(&u128::from_be_bytes(*id.as_bytes()).to_string());
            }
        }
        add(self.name.as_deref().unwrap_or_default());
        for (name, value) in self.claims.iter().flat_map(|claims| claims.iter()) {
            add(name);
            add(value);
        }
        for header in self.headers_for(server) {
            add(&header.name);
            add(&header.value);
        }
        let mut id = [0; 16];
        // Half of the digest distinguishes credentials as surely.
        id.iter_mut().zip(context.finish().as_ref()).for_each(|(to, from)| *to = *from);
        CredentialsId::new(id)
    }
}

/// A configured text that may name the user: `${user.name}` and `${user.claims.X}`.
#[derive(Clone, PartialEq, Eq)]
pub struct UserText(Vec<Part>);

#[derive(Clone, PartialEq, Eq)]
enum Part {
    /// A text as it stands, which may be a secret.
    Text(String),
    Name,
    Claim(String),
}

/// Stands before and behind what is put in for the user. No header and no variable may hold it.
const MARK: char = '\u{0}';

/// What the text of a reference (between its braces) stands for in a configured value until the
/// value is read by [`UserText::parse`]. None where the reference is about nothing of a user.
///
/// # Errors
/// The fault of a reference that begins with `user.` and names nothing.
pub fn user_reference(inside: &str) -> Option<Result<String, String>> {
    let about = inside.strip_prefix("user.")?;
    let is_known = about == "name"
        || about.strip_prefix("claims.").is_some_and(|claim| {
            let ok = |c: char| c.is_ascii_alphanumeric() || "_-.:/".contains(c);
            !claim.is_empty() && claim.chars().all(ok)
        });
    Some(if is_known {
        Ok(format!("{MARK}{about}{MARK}"))
    } else {
        Err(format!(
            "\"${{{inside}}}\" is neither \"${{user.name}}\" nor \"${{user.claims.X}}\""
        ))
    })
}

/// True if a configured value names the user.
pub fn names_user(value: &str) -> bool {
    value.contains(MARK)
}

/// A configured value without its references to the user.
pub fn without_user(value: &str) -> String {
    value.split(MARK).step_by(2).collect()
}

impl UserText {
    /// Reads a configured value.
    pub fn parse(value: &str) -> UserText {
        let parts = value.split(MARK).enumerate().filter_map(|(at, text)| {
            Some(match (at % 2, text) {
                (0, "") => return None,
                (0, text) => Part::Text(text.to_owned()),
                (_, "name") => Part::Name,
                (_, about) => Part::Claim(about.strip_prefix("claims.")?.to_owned()),
            })
        });
        UserText(parts.collect())
    }

    /// The text for one user.
    ///
    /// # Errors
    /// What is not known of the user.
    pub fn of(&self, user: &UserCredentials) -> Result<String, String> {
        let mut text = String::new();
        for part in &self.0 {
            match part {
                Part::Text(it) => text.push_str(it),
                Part::Name => {
                    let name = user.name.as_deref();
                    text.push_str(name.ok_or("the caller has no name: it uses no key")?);
                }
                Part::Claim(claim) => {
                    let value = user.claims.as_ref().and_then(|claims| claims.get(claim));
                    let value = value.ok_or_else(|| {
                        format!(
                            "the caller's access token has no claim {claim:?} that is a text"
                        )
                    })?;
                    text.push_str(value);
                }
            }
        }
        Ok(text)
    }
}

/// The server and the header that a request header `x-mcp-{server}-{header}` names: of several
/// servers whose NAMEs it could begin with, the one with the longest. `configured` has the servers
/// that get headers, each with the names of those. Neither case matters.
pub fn forwarded<'a>(
    field: &str,
    configured: impl IntoIterator<Item = (&'a ServerName, &'a [String])>,
) -> Option<(&'a ServerName, String)> {
    let prefix = field.get(..6).filter(|it| it.eq_ignore_ascii_case("x-mcp-"))?;
    let rest = field.get(prefix.len()..)?;
    let mut found: Option<(&ServerName, String)> = None;
    for (server, headers) in configured {
        let name = server.as_str();
        let Some(begin) = rest.get(..name.len()) else { continue };
        if !begin.eq_ignore_ascii_case(name) {
            continue;
        }
        let Some(header) = rest.get(name.len()..).and_then(|it| it.strip_prefix('-')) else {
            continue;
        };
        // A longer NAME owns the header, also where its configuration does not list it.
        if found.as_ref().is_some_and(|(other, _)| other.as_str().len() > name.len()) {
            continue;
        }
        let is_listed = headers.iter().any(|it| it.eq_ignore_ascii_case(header));
        let header = if is_listed { header.to_ascii_lowercase() } else { String::new() };
        found = Some((server, header));
    }
    found.filter(|(_, header)| !header.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> ServerName {
        ServerName::parse(text).unwrap()
    }

    #[test]
    fn the_longest_name_owns_a_header_whether_or_not_it_lists_it() {
        let servers = [name("git"), name("git-hub"), name("slack_1")];
        let lists = [
            vec!["hub-token".to_owned(), "Authorization".to_owned()],
            vec!["x-key".into()],
            vec!["token".into()],
        ];
        let of = |field: &str| {
            let configured = servers.iter().zip(lists.iter().map(Vec::as_slice));
            forwarded(field, configured).map(|(server, header)| format!("{server} {header}"))
        };
        assert_eq!(of("x-mcp-git-authorization").as_deref(), Some("git authorization"));
        assert_eq!(of("X-MCP-Git-AUTHORIZATION").as_deref(), Some("git authorization"));
        assert_eq!(of("x-mcp-git-hub-x-key").as_deref(), Some("git-hub x-key"));
        assert_eq!(of("x-mcp-git-hub-token"), None, "it is git-hub's, which does not list it");
        assert_eq!(of("x-mcp-slack_1-token").as_deref(), Some("slack_1 token"));
        for none in [
            "x-mcp-servers",
            "x-mcp-git",
            "x-mcp-git-",
            "x-mcp-gitauthorization",
            "git-authorization",
            "x-mcp-é",
        ] {
            assert_eq!(of(none), None, "{none}");
        }
    }

    #[test]
    fn credentials_differ_with_the_user_the_server_and_each_header() {
        let header = |server: &str, name: &str, value: &str| ForwardedHeader {
            server: ServerName::parse(server).unwrap(),
            name: name.to_owned(),
            value: value.to_owned(),
        };
        let key = |name: &str| Some(PrincipalId::Key(name.into()));
        let one = UserCredentials {
            principal: key("one"),
            headers: vec![header("a", "x", "1"), header("b", "x", "2")],
            ..UserCredentials::default()
        };
        let id = one.id(&name("a"));
        assert_eq!(id, one.clone().id(&name("a")));
        assert_ne!(id, one.id(&name("b")));
        assert_ne!(id, UserCredentials { principal: key("two"), ..one.clone() }.id(&name("a")));
        assert_ne!(id, UserCredentials { principal: None, ..one.clone() }.id(&name("a")));
        let other = vec![header("a", "x", "2"), header("b", "x", "2")];
        assert_ne!(id, UserCredentials { headers: other, ..one.clone() }.id(&name("a")));
        let only_b_differs = vec![header("a", "x", "1"), header("b", "x", "3")];
        assert_eq!(
            id,
            UserCredentials { headers: only_b_differs, ..one.clone() }.id(&name("a"))
        );
        let moved = vec![header("a", "x1", "")];
        assert_ne!(id, UserCredentials { headers: moved, ..one }.id(&name("a")));
    }

    #[test]
    fn a_text_says_who_the_user_is_or_what_is_not_known() {
        let reference = |inside| user_reference(inside).unwrap().unwrap();
        let value =
            format!("u={} t={}", reference("user.name"), reference("user.claims.tenant"));
        assert!(names_user(&value) && !names_user("plain"));
        let text = UserText::parse(&value);
        let claims = BTreeMap::from([("tenant".to_owned(), "t1".to_owned())]);
        let user = UserCredentials {
            name: Some("alice".into()),
            claims: Some(Arc::new(claims)),
            ..UserCredentials::default()
        };
        assert_eq!(text.of(&user).as_deref(), Ok("u=alice t=t1"));
        let nameless = UserCredentials::default();
        assert!(text.of(&nameless).unwrap_err().contains("no name"));
        let unclaimed = UserCredentials { claims: None, ..user };
        assert!(text.of(&unclaimed).unwrap_err().contains("\"tenant\""));
        assert!(user_reference("NAME").is_none());
        for wrong in ["user.", "user.nam", "user.claims.", "user.claims.a b"] {
            assert!(user_reference(wrong).unwrap().is_err(), "{wrong}");
        }
    }
}
