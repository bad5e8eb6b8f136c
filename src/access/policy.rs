//! What a principal may use, and what one request wants of that.

use std::sync::Arc;

use super::glob::ToolGlobs;
use crate::protocol::call::PrincipalId;
use crate::protocol::server_name::ServerName;

/// What a key may use. The default may use everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    /// Servers; all where there is no list.
    pub servers: Option<Vec<ServerName>>,
    /// Tools, whatever they are offered as; all where there is no pattern.
    pub tools: ToolGlobs,
}

/// Whoever a key stands for.
#[derive(Debug)]
pub struct Principal {
    /// The key's name; none without keys.
    pub name: Option<Arc<str>>,
    /// What it may use.
    pub policy: Policy,
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
            && self.principal.policy.servers.as_deref().is_none_or(listed)
    }

    /// The scope sees the tool that the server calls `own`, and policies `qualified`.
    pub fn sees_tool(&self, server: &ServerName, own: &str, qualified: &str) -> bool {
        self.sees_server(server) && self.principal.policy.tools.admits(server, own, qualified)
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
            tools: ToolGlobs::new(tools, &Owners::new("-", [(&name("a"), None)])),
        };
        let principal = Arc::new(Principal { name: None, policy });
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
    fn tools_are_told_by_their_whole_name() {
        let scope = scope(None, &["a-get_*", "!a-get_secret"]);
        assert!(scope.sees_tool(&name("a"), "get_x", "a-get_x"));
        assert!(!scope.sees_tool(&name("a"), "get_secret", "a-get_secret"));
        assert!(!scope.sees_tool(&name("b"), "get_x", "b-get_x"));
    }
}
