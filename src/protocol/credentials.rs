//! What a client brings along for servers whose credentials are each user's own: who the user is,
//! and the headers that go on to a server.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};

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

/// The credentials of one request's user. Only tests have a default: credentials that are made of
/// nothing are nobody's, and would be shared by all for whom they are made.
#[derive(Clone, PartialEq, Eq)]
#[cfg_attr(test, derive(Default))]
pub struct UserCredentials {
    /// The principal; none where no key is required and nobody has signed in.
    pub principal: Option<PrincipalId>,
    /// SHA-256 of the key with which the user came, if it was one: whoever has another key of the
    /// same name is somebody else.
    pub key: Option<[u8; 32]>,
    /// The user's name: the value of `${user.name}`.
    pub name: Option<Arc<str>>,
    /// The claims of the user's access token that servers name: the values of
    /// `${user.claims.X}`.
    pub claims: Option<Arc<BTreeMap<String, String>>>,
    /// The headers for servers, in order.
    pub headers: Vec<ForwardedHeader>,
    /// The servers that are reached with these credentials, as far as is known.
    pub own: Vec<OwnServer>,
}

/// A server that is reached with a user's own credentials.
#[derive(Clone, PartialEq, Eq)]
pub struct OwnServer {
    server: ServerName,
    named: Arc<Named>,
    /// The digest of the credentials there, once it was needed.
    id: OnceLock<CredentialsId>,
}

impl OwnServer {
    /// The server, and the parts of the user that its digest is made of.
    fn made_of(&self) -> (&ServerName, &Named) {
        (&self.server, &self.named)
    }
}

/// The parts of a user that the configuration of one server names. Other parts do not count there:
/// a token that is renewed would begin everything anew.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Named {
    /// True if the user's name is one of them.
    pub name: bool,
    /// The claims.
    pub claims: BTreeSet<String>,
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

    /// The first header of those for servers that `counts` that the client gives more than once: a
    /// server could read either value.
    pub fn repeated(&self, counts: impl Fn(&ServerName) -> bool) -> Option<&ForwardedHeader> {
        let is_same =
            |a: &ForwardedHeader, b: &ForwardedHeader| a.server == b.server && a.name == b.name;
        let mut each = self.headers.iter().enumerate();
        let again = each.find(|(at, header)| {
            counts(&header.server)
                && self.headers.iter().take(*at).any(|before| is_same(before, header))
        });
        again.map(|(_, header)| header)
    }

    /// True if these are the credentials of the same user with the same headers, for the same
    /// servers: at each server their digests are the same.
    pub fn is_same(&self, other: &UserCredentials) -> bool {
        self.principal == other.principal
            && self.key == other.key
            && self.name == other.name
            && self.claims == other.claims
            && self.headers == other.headers
            && self
                .own
                .iter()
                .map(OwnServer::made_of)
                .eq(other.own.iter().map(OwnServer::made_of))
    }

    /// The servers that are reached with these credentials.
    pub fn own_servers(&self) -> impl Iterator<Item = &ServerName> {
        self.own.iter().map(|own| &own.server)
    }

    /// The digest of these credentials at a server that is reached with them; none at another one.
    pub fn own_id(&self, server: &ServerName) -> Option<CredentialsId> {
        let own = self.own.iter().find(|own| own.server == *server)?;
        Some(*own.id.get_or_init(|| self.digest(server, &own.named)))
    }

    /// The digest under which everything is kept that is made with these credentials at that
    /// server.
    pub fn id(&self, server: &ServerName) -> CredentialsId {
        self.own_id(server).unwrap_or_else(|| self.digest(server, &Named::default()))
    }

    fn digest(&self, server: &ServerName, named: &Named) -> CredentialsId {
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
        let key = self.key.iter().flatten().map(|byte| format!("{byte:02x}"));
        add(&key.collect::<String>());
        add(self.name.as_deref().filter(|_| named.name).unwrap_or_default());
        add("claims");
        for (name, value) in self.claims.iter().flat_map(|claims| claims.iter()) {
            if named.claims.contains(name) {
                add(name);
                add(value);
            }
        }
        add("headers");
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

/// The servers that may be reached with users' own credentials, and the parts of these that count.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PerUser {
    /// All servers, each with the names of the headers that clients may give for it. Those
    /// without any are here too, since the longest NAME owns a header.
    pub forwarding: Vec<(ServerName, Vec<String>)>,
    /// The servers that can be reached only for a user, each with the parts of the user that its
    /// configuration names.
    pub naming: Vec<(ServerName, Arc<Named>)>,
}

impl PerUser {
    /// True if no server may be reached with users' own credentials.
    pub fn is_none(&self) -> bool {
        self.naming.is_empty() && self.forwarding.iter().all(|(_, headers)| headers.is_empty())
    }

    /// The credentials of the request of a user that has these header fields; none where no
    /// server would be reached with them. `claim` gives the text of a claim that a server names.
    pub fn credentials<'a>(
        &self,
        user: UserCredentials,
        claim: impl Fn(&str) -> Option<String>,
        fields: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Option<UserCredentials> {
        let configured =
            || self.forwarding.iter().map(|(it, headers)| (it, headers.as_slice()));
        let mut headers = Vec::new();
        for (field, value) in fields {
            if let Some((server, name)) = forwarded(field, configured()) {
                let (server, value) = (server.clone(), value.trim().to_owned());
                headers.push(ForwardedHeader { server, name, value });
            }
        }
        let of = |server: &ServerName, named: &Arc<Named>| OwnServer {
            server: server.clone(),
            named: named.clone(),
            id: OnceLock::new(),
        };
        let mut own: Vec<OwnServer> =
            self.naming.iter().map(|(server, named)| of(server, named)).collect();
        for header in &headers {
            if !own.iter().any(|own| own.server == header.server) {
                own.push(of(&header.server, &Arc::default()));
            }
        }
        if own.is_empty() {
            return None;
        }
        let names: BTreeSet<&String> =
            self.naming.iter().flat_map(|(_, named)| &named.claims).collect();
        let claims: BTreeMap<String, String> =
            names.into_iter().filter_map(|name| Some((name.clone(), claim(name)?))).collect();
        let claims = (!claims.is_empty()).then(|| Arc::new(claims));
        Some(UserCredentials { claims, headers, own, ..user })
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

/// Stands before and behind what is put in for the user: a noncharacter of Unicode, which no
/// configured text may hold.
const MARK: char = '\u{10FFFF}';

/// Claims that differ from token to token of one user: with each token, whatever was made with
/// them would begin anew.
const PASSING_CLAIMS: [&str; 9] =
    ["exp", "iat", "nbf", "jti", "auth_time", "nonce", "at_hash", "sid", "uti"];

/// What the text of a reference (between its braces) stands for in a configured value until the
/// value is read by [`UserText::parse`]. None where the reference is about nothing of a user.
///
/// # Errors
/// The fault of a reference that begins with `user.` and names nothing.
pub fn user_reference(inside: &str) -> Option<Result<String, String>> {
    let about = inside.strip_prefix("user.")?;
    if let Some(claim) = about.strip_prefix("claims.").filter(|it| PASSING_CLAIMS.contains(it))
    {
        return Some(Err(format!(
            "\"${{{inside}}}\" names {claim:?}, which is another one in each token of a user"
        )));
    }
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

/// True if a configured value names the user: it holds the character that stands for references
/// to the user, which no text of the file may hold itself.
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

    /// Adds the parts of a user that the text names.
    pub fn add_to(&self, named: &mut Named) {
        for part in &self.0 {
            match part {
                Part::Text(_) => (),
                Part::Name => named.name = true,
                Part::Claim(claim) => drop(named.claims.insert(claim.clone())),
            }
        }
    }

    /// The text for one user, of whom every part `fits`.
    ///
    /// # Errors
    /// The part of the user that is not known, or does not fit.
    pub fn of(
        &self,
        user: &UserCredentials,
        fits: impl Fn(&str) -> bool,
    ) -> Result<String, String> {
        let check = |value: &str, whose: &dyn Fn() -> String| {
            if fits(value) {
                return Ok(());
            }
            Err(format!("{} has characters that cannot be sent there", whose()))
        };
        let mut text = String::new();
        for part in &self.0 {
            match part {
                Part::Text(it) => text.push_str(it),
                Part::Name => {
                    let name = user.name.as_deref().ok_or(
                        "the caller has no name, which a key of the gateway would give it",
                    )?;
                    check(name, &|| "the caller's name".to_owned())?;
                    text.push_str(name);
                }
                Part::Claim(claim) => {
                    let value = user.claims.as_ref().and_then(|claims| claims.get(claim));
                    let value = value.ok_or_else(|| {
                        format!(
                            "the caller's access token has no claim {claim:?} that is a text"
                        )
                    })?;
                    check(value, &|| {
                        format!("the claim {claim:?} of the caller's access token")
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
        assert_ne!(id, UserCredentials { key: Some([1; 32]), ..one.clone() }.id(&name("a")));
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
    fn only_what_servers_use_of_a_user_counts() {
        let claims = |exp: &str, tenant: &str| {
            let all = [("exp", exp), ("tenant", tenant)];
            let all = all.map(|(name, value)| (name.to_owned(), value.to_owned()));
            BTreeMap::from(all)
        };
        let (a, b, c) = (name("a"), name("b"), name("c"));
        let per_user = PerUser {
            forwarding: vec![(a.clone(), vec!["x-key".into()]), (b.clone(), Vec::new())],
            naming: vec![(
                c.clone(),
                Arc::new(Named { name: false, claims: ["tenant".to_owned()].into() }),
            )],
        };
        let of = |exp: &str, tenant: &str, fields: &[(&'static str, &'static str)]| {
            let claims = claims(exp, tenant);
            let claim = |name: &str| claims.get(name).cloned();
            let user = UserCredentials::default();
            per_user.credentials(user, claim, fields.iter().copied()).unwrap()
        };
        let one = of("1", "t", &[]);
        assert_eq!(one.own_servers().collect::<Vec<_>>(), [&c]);
        assert_eq!(one.id(&c), of("2", "t", &[]).id(&c), "a claim that no server names");
        assert_ne!(one.id(&c), of("1", "u", &[]).id(&c));
        assert_eq!(one.own_id(&a), None);
        let given = of("1", "t", &[("x-mcp-a-x-key", " k "), ("x-mcp-b-x-key", "no")]);
        assert_eq!(given.own_servers().collect::<Vec<_>>(), [&c, &a]);
        assert_eq!(given.headers.len(), 1);
        assert_eq!(given.headers[0].value, "k");
        assert_eq!(given.own_id(&c), one.own_id(&c));
        let renamed = UserCredentials { name: Some("n".into()), ..Default::default() };
        let renamed = per_user.credentials(renamed, |_| None, []).unwrap();
        let nameless = per_user.credentials(UserCredentials::default(), |_| None, []).unwrap();
        assert_eq!(renamed.id(&c), nameless.id(&c), "a name that no server names");
        // Where no server names the user, a request without such headers has nothing of a user.
        let forwards = PerUser { naming: Vec::new(), ..per_user };
        assert!(!forwards.is_none());
        assert!(forwards.credentials(one, |_| None, [("x-mcp-b-x-key", "no")]).is_none());
        assert!(PerUser { forwarding: vec![(b, Vec::new())], ..PerUser::default() }.is_none());
    }

    #[test]
    fn credentials_are_the_same_only_where_each_server_would_say_so() {
        let with = |naming: &[(&str, bool)]| {
            let named = |it: bool| Arc::new(Named { name: it, claims: BTreeSet::new() });
            let naming = naming.iter().map(|(server, it)| (name(server), named(*it))).collect();
            let per_user = PerUser { forwarding: Vec::new(), naming };
            let user = UserCredentials { name: Some("n".into()), ..Default::default() };
            per_user.credentials(user, |_| None, []).unwrap()
        };
        let one = with(&[("a", false)]);
        // A digest that was needed makes no difference.
        one.own_id(&name("a"));
        assert!(one.is_same(&with(&[("a", false)])));
        let (more, named) = (with(&[("a", false), ("b", false)]), with(&[("a", true)]));
        assert!(!one.is_same(&more) && !more.is_same(&one) && !one.is_same(&named));
        assert!(!one.is_same(&UserCredentials { key: Some([1; 32]), ..one.clone() }));
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
        let any = |_: &str| true;
        assert_eq!(text.of(&user, any).as_deref(), Ok("u=alice t=t1"));
        let unfit = |value: &'static str| text.of(&user, move |it| it != value).unwrap_err();
        assert!(unfit("t1").starts_with("the claim \"tenant\" of the caller's"));
        assert!(unfit("alice").starts_with("the caller's name has characters"));
        let nameless = UserCredentials::default();
        assert!(text.of(&nameless, any).unwrap_err().contains("no name"));
        let unclaimed = UserCredentials { claims: None, ..user };
        assert!(text.of(&unclaimed, any).unwrap_err().contains("\"tenant\""));
        assert!(user_reference("NAME").is_none());
        let passing = user_reference("user.claims.exp").unwrap().unwrap_err();
        assert!(passing.contains("\"exp\", which is another one in each token"), "{passing}");
        for wrong in ["user.", "user.nam", "user.claims.", "user.claims.a b"] {
            assert!(user_reference(wrong).unwrap().is_err(), "{wrong}");
        }
    }
}
