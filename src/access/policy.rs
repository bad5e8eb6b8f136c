//! The rights of a principal, and their narrowing by one request.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use super::glob::ToolGlobs;
use super::user::User;
use crate::protocol::call::PrincipalId;
use crate::protocol::credentials::UserCredentials;
use crate::protocol::server_name::ServerName;

/// The servers and tools that a key may use. The default may use everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    /// The servers; without a list, the servers of which the key may use a tool.
    pub servers: Option<Vec<ServerName>>,
    /// The tools, by patterns over their qualified names; all where there is no pattern.
    pub tools: ToolGlobs,
}

impl Policy {
    /// True if a principal with this policy may know of the server.
    fn sees_server(&self, server: &ServerName) -> bool {
        match &self.servers {
            Some(servers) => servers.contains(server),
            None => self.tools.includes_any_of(server),
        }
    }
}

/// A client's identity and rights, from its key or from its user's access token.
#[derive(Debug)]
pub struct Principal {
    /// The name for people, in lines and `/status`: the key's name, or that of the user. None
    /// without either.
    pub name: Option<Arc<str>>,
    /// The text that tells the principal from every other one, across reloads and restarts: the
    /// key's name, or the id of the user, which no key's name can be. None without either.
    pub id: Option<Arc<str>>,
    /// The servers and tools that it may use.
    pub policy: Policy,
    /// True for an admin, who is told the state of all servers, also of those that the policy
    /// excludes.
    pub is_admin: bool,
    /// SHA-256 of the key, if there is one. What belongs to a person (a sign-in at a server) belongs
    /// to the key itself: another person may be given a key of the same name.
    pub key: Option<[u8; 32]>,
    /// The user, where the client came with an access token.
    pub user: Option<User>,
}

impl Principal {
    /// The principal in metrics: the key's name, and for all users of one issuer that issuer,
    /// because labels are of the configuration and never of clients.
    pub fn label(&self) -> Option<&Arc<str>> {
        self.user.as_ref().map(|user| &user.issuer_name).or(self.name.as_ref())
    }

    /// The principal of a client where no key is required: an admin if the client is on this
    /// machine.
    pub fn without_key(peer: Nearness) -> Principal {
        let is_admin = match peer {
            Nearness::Local => true,
            Nearness::Remote => false,
        };
        let (name, id, key, user) = (None, None, None, None);
        Principal { name, id, policy: Policy::default(), is_admin, key, user }
    }
}

impl Principal {
    /// The principal as a user, for servers whose credentials are each user's own; without claims.
    pub fn user(&self) -> UserCredentials {
        UserCredentials {
            principal: self.id.clone().map(PrincipalId::Key),
            key: self.key,
            name: self.name.clone(),
            claims: None,
            headers: Vec::new(),
            own: Vec::new(),
        }
    }

    /// The text of a claim of the user's access token; see [`User::claim`].
    pub fn claim(&self, name: &str) -> Option<String> {
        self.user.as_ref()?.claim(name)
    }
}

/// A token that was accepted. A session, a stream or a call that goes on after its request asks
/// it what the token is worth by then.
pub trait Lease: fmt::Debug + Send + Sync {
    /// The principal that was let in.
    fn principal(&self) -> &Arc<Principal>;

    /// The same user's principal under the present configuration; none where the configuration
    /// gives the user no rights any more. A token that has ended makes no difference.
    fn present(&self) -> Option<Arc<Principal>>;

    /// True if the token has not ended, as far as is known, and still gives rights. Never waits.
    fn is_good(&self) -> bool;

    /// The time from which on the token is no longer accepted, whatever else happens.
    fn ends(&self) -> Instant;
}

/// A lease that may be shared; none for whoever came with a key, or without one.
pub type OptionalLease = Option<Arc<dyn Lease>>;

/// The distance of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nearness {
    /// The client is on this machine.
    Local,
    /// The client is on another machine.
    Remote,
}

/// The servers and tools that one request or session can see: those that its key may use,
/// narrowed by its endpoint and its `x-mcp-servers` header. Narrowing never widens.
#[derive(Debug, Clone)]
pub struct Scope {
    /// The principal that asks.
    pub principal: Arc<Principal>,
    /// The one server of a per-server endpoint.
    pub only: Option<ServerName>,
    /// The servers of the narrowing header.
    pub narrowed: Option<Arc<[ServerName]>>,
    /// The number of the admission, counted from 0, that let the request in.
    pub admission: u64,
    /// The principal in whose share its requests count; none where no other principal can come.
    pub charged: Option<PrincipalId>,
    /// The access token that let the request in.
    pub lease: OptionalLease,
    /// The credentials for servers whose credentials are each user's own; none where there is no
    /// such server.
    pub user: Option<Arc<UserCredentials>>,
}

impl Scope {
    /// True if the scope sees the server.
    pub fn sees_server(&self, server: &ServerName) -> bool {
        let listed = |list: &[ServerName]| list.contains(server);
        self.only.as_ref().is_none_or(|only| only == server)
            && self.narrowed.as_deref().is_none_or(listed)
            && self.principal.policy.sees_server(server)
    }

    /// True if the scope sees the tool with the server's own name `own` and the qualified name
    /// `qualified`.
    pub fn sees_tool(&self, server: &ServerName, own: &str, qualified: &str) -> bool {
        self.sees_server(server) && self.principal.policy.tools.admits(server, own, qualified)
    }

    /// True if the scope may use some tool of the server.
    pub fn uses_tools_of(&self, server: &ServerName) -> bool {
        self.sees_server(server) && self.principal.policy.tools.admits_any_of(server)
    }

    /// True if the scope sees every tool of the servers that it sees.
    pub fn sees_all_tools(&self) -> bool {
        self.principal.policy.tools == ToolGlobs::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::owners::Owners;

    fn name(text: &str) -> ServerName {
        ServerName::parse(text).unwrap()
    }

    fn scope(servers: Option<&[&str]>, tools: &[&str]) -> Scope {
        let policy = Policy {
            servers: servers.map(|list| list.iter().map(|s| name(s)).collect()),
            tools: ToolGlobs::new(
                tools,
                &Owners::new("-", [(&name("a"), None), (&name("b"), None)]),
            ),
        };
        let principal =
            Principal { policy, is_admin: false, ..Principal::without_key(Nearness::Remote) };
        let principal = Arc::new(principal);
        Scope {
            principal,
            only: None,
            narrowed: None,
            admission: 0,
            charged: None,
            lease: None,
            user: None,
        }
    }

    #[test]
    fn narrowing_never_widens() {
        let mut scope = scope(Some(&["a", "b"]), &[]);
        assert!(scope.sees_server(&name("a")) && !scope.sees_server(&name("c")));
        scope.narrowed = Some([name("b"), name("c")].into());
        assert!(!scope.sees_server(&name("a")));
        assert!(scope.sees_server(&name("b")));
        assert!(!scope.sees_server(&name("c")));
        scope.only = Some(name("a"));
        assert!(!scope.sees_server(&name("b")));
    }

    #[test]
    fn without_a_list_those_servers_are_seen_whose_tools_are() {
        let (a, b) = (name("a"), name("b"));
        let by_tools = scope(None, &["a-get_*"]);
        assert!(by_tools.sees_server(&a) && !by_tools.sees_server(&b));
        let both = scope(Some(&["a", "b"]), &["a-get_*"]);
        assert!(both.sees_server(&b) && !both.uses_tools_of(&b) && both.uses_tools_of(&a));
        let none = scope(None, &["!*"]);
        assert!(none.sees_server(&a) && !none.uses_tools_of(&a));
    }

    #[test]
    fn tools_are_told_by_their_whole_name() {
        let scope = scope(None, &["a-get_*", "!a-get_secret"]);
        assert!(scope.sees_tool(&name("a"), "get_x", "a-get_x"));
        assert!(!scope.sees_tool(&name("a"), "get_secret", "a-get_secret"));
        assert!(!scope.sees_tool(&name("b"), "get_x", "b-get_x"));
    }
}
