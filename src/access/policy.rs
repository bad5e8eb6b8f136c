//! What a principal may use, and what one request wants of that.

use std::sync::Arc;

use super::glob::ToolGlobs;
use crate::protocol::call::PrincipalId;
use crate::protocol::server_name::ServerName;

/// What a key may use. The default may use everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    /// Servers; where there is no list, those of which it may use a tool.
    pub servers: Option<Vec<ServerName>>,
    /// Tools, whatever they are offered as; all where there is no pattern.
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

/// Whoever a key stands for.
#[derive(Debug)]
pub struct Principal {
    /// The key's name; none without keys.
    pub name: Option<Arc<str>>,
    /// What it may use.
    pub policy: Policy,
    /// An admin is told the state of all servers, of those too that its policy excludes.
    pub is_admin: bool,
}

impl Principal {
    /// Who asks where no key is asked for: `is_admin` where that is from this machine.
    pub fn without_key(peer: Nearness) -> Principal {
        let is_admin = match peer {
            Nearness::Local => true,
            Nearness::Remote => false,
        };
        Principal { name: None, policy: Policy::default(), is_admin }
    }
}

/// From where somebody asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nearness {
    /// From this machine.
    Local,
    /// From another one.
    Remote,
}

/// What one request or session can see: what its key may use, narrowed by its endpoint and its
/// `x-mcp-servers` header. Narrowing never widens.
#[derive(Debug, Clone)]
pub struct Scope {
    /// Who asks.
    pub principal: Arc<Principal>,
    /// The one server of a per-server endpoint.
    pub only: Option<ServerName>,
    /// The servers of the narrowing header.
    pub narrowed: Option<Arc<[ServerName]>>,
    /// Which admission, counted from 0, let the request in.
    pub admission: u64,
    /// Whose share of what is bounded its requests take; none where nobody else can come.
    pub charged: Option<PrincipalId>,
}

impl Scope {
    /// Whether the server exists for this scope.
    pub fn sees_server(&self, server: &ServerName) -> bool {
        let listed = |list: &[ServerName]| list.contains(server);
        self.only.as_ref().is_none_or(|only| only == server)
            && self.narrowed.as_deref().is_none_or(listed)
            && self.principal.policy.sees_server(server)
    }

    /// The scope sees the tool that the server calls `own`, and policies `qualified`.
    pub fn sees_tool(&self, server: &ServerName, own: &str, qualified: &str) -> bool {
        self.sees_server(server) && self.principal.policy.tools.admits(server, own, qualified)
    }

    /// True if the scope may use some tool of the server.
    pub fn uses_tools_of(&self, server: &ServerName) -> bool {
        self.sees_server(server) && self.principal.policy.tools.admits_any_of(server)
    }

    /// The scope sees every tool of the servers that it sees.
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
        let principal = Arc::new(Principal { name: None, policy, is_admin: false });
        Scope { principal, only: None, narrowed: None, admission: 0, charged: None }
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
