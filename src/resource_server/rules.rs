//! Pure: the rules of the configuration, and the rights that they give to a token.

use std::sync::Arc;

use crate::access::glob::ToolGlobs;
use crate::access::policy::Policy;
use crate::access::user::find_claim;
use crate::config::{ClaimConfig, RuleConfig};
use crate::protocol::owners::Owners;
use crate::protocol::raw;

/// The claims that are both the scopes of a token.
const SCOPE_CLAIMS: [&str; 2] = ["scope", "scp"];

/// The rules, in their order.
#[derive(Debug, Default)]
pub(super) struct Rules {
    rules: Vec<Rule>,
    /// The scopes of which rules speak, each once.
    scopes: Vec<Arc<str>>,
    /// The scope that a client without rights is told to ask for.
    asked: Option<Arc<str>>,
}

#[derive(Debug)]
struct Rule {
    claim: Option<ClaimConfig>,
    rights: Rights,
}

/// What a rule gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rights {
    /// The servers and tools.
    pub(super) policy: Policy,
    /// The calls that a user may make in a minute.
    pub(super) calls_per_minute: Option<u32>,
    /// True for an admin.
    pub(super) is_admin: bool,
}

impl Rules {
    /// Reads the rules' globs as those of tools of these servers.
    pub(super) fn new(rules: &[RuleConfig], owners: &Owners) -> Rules {
        let mut scopes: Vec<Arc<str>> = Vec::new();
        let of_scopes = rules.iter().filter_map(|rule| rule.claim.as_ref());
        let of_scopes = of_scopes.filter(|claim| is_scope(&claim.name));
        let asked = of_scopes.clone().next_back().and_then(|claim| claim.any.first());
        let asked = asked.map(|scope| scope.as_str().into());
        for scope in of_scopes.flat_map(|claim| &claim.any) {
            if !scopes.iter().any(|it| **it == **scope) {
                scopes.push(scope.as_str().into());
            }
        }
        let rule = |rule: &RuleConfig| Rule {
            claim: rule.claim.clone(),
            rights: Rights {
                policy: Policy {
                    servers: rule.servers.clone(),
                    tools: ToolGlobs::new(rule.tools.as_deref().unwrap_or_default(), owners),
                },
                calls_per_minute: rule.calls_per_minute,
                is_admin: rule.admin,
            },
        };
        Rules { rules: rules.iter().map(rule).collect(), scopes, asked }
    }

    /// The rights of a token: those of the first rule that matches.
    pub(super) fn rights(&self, claims: &str, scopes: &[String]) -> Option<&Rights> {
        let matches = |rule: &&Rule| match &rule.claim {
            None => true,
            Some(claim) if is_scope(&claim.name) => {
                scopes.iter().any(|scope| claim.any.contains(scope))
            }
            Some(claim) => {
                let value = find_claim(claims, &claim.name);
                value.is_some_and(|value| has_any(&value, &claim.any))
            }
        };
        self.rules.iter().find(matches).map(|rule| &rule.rights)
    }

    /// The scopes of which rules speak, each once.
    pub(super) fn scopes(&self) -> &[Arc<str>] {
        &self.scopes
    }

    /// The one scope that a client without rights is told to ask for: the first of the last rule
    /// about scopes. One is enough for rights, and rules stand in the order in which they count,
    /// so that those that give most come first.
    pub(super) fn asked(&self) -> Option<&Arc<str>> {
        self.asked.as_ref()
    }
}

fn is_scope(claim: &str) -> bool {
    SCOPE_CLAIMS.contains(&claim)
}

/// True if a claim is one of `any`, or a list that has one of them. Numbers and booleans are
/// compared as they are written.
fn has_any(value: &str, any: &[String]) -> bool {
    let is_one = |value: &str| match value.as_bytes().first() {
        Some(b'"') => {
            serde_json::from_str::<String>(value).is_ok_and(|text| any.contains(&text))
        }
        Some(b'{' | b'[' | b'n') | None => false,
        Some(_) => any.iter().any(|it| it == value),
    };
    if value.starts_with('[') {
        return raw::elements(value).is_ok_and(|all| all.into_iter().any(is_one));
    }
    is_one(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::server_name::ServerName;

    fn rule(claim: Option<(&str, &[&str])>, tool: &str) -> RuleConfig {
        let claim = claim.map(|(name, any)| ClaimConfig {
            name: name.to_owned(),
            any: any.iter().map(|it| (*it).to_owned()).collect(),
        });
        let tools = Some(vec![tool.to_owned()]);
        RuleConfig { claim, servers: None, tools, calls_per_minute: None, admin: false }
    }

    fn rules(rules: &[RuleConfig]) -> Rules {
        let name = ServerName::parse("a").unwrap();
        Rules::new(rules, &Owners::new("-", [(&name, None)]))
    }

    /// The tool that the first matching rule allows.
    fn allowed(rules: &Rules, claims: &str, scopes: &[&str]) -> Option<&'static str> {
        let scopes: Vec<_> = scopes.iter().map(|it| (*it).to_owned()).collect();
        let rights = rules.rights(claims, &scopes)?;
        let server = ServerName::parse("a").unwrap();
        let admits =
            |tool: &str| rights.policy.tools.admits(&server, tool, &format!("a-{tool}"));
        ["one", "two", "all"].into_iter().find(|tool| admits(tool))
    }

    #[test]
    fn the_first_rule_that_matches_counts() {
        let rules = rules(&[
            rule(Some(("groups", &["ops", "dev"])), "a-one"),
            rule(Some(("scope", &["mcp:read", "mcp:call"])), "a-two"),
            rule(Some(("realm_access.roles", &["admin"])), "a-all"),
            rule(Some(("level", &["7", "true"])), "a-all"),
        ]);
        assert_eq!(allowed(&rules, r#"{"groups":"dev"}"#, &["mcp:read"]), Some("one"));
        assert_eq!(allowed(&rules, r#"{"groups":["x","ops"]}"#, &[]), Some("one"));
        assert_eq!(allowed(&rules, r#"{"groups":["x"]}"#, &["y", "mcp:call"]), Some("two"));
        let nested = r#"{"realm_access":{"roles":["admin"]}}"#;
        assert_eq!(allowed(&rules, nested, &[]), Some("all"));
        assert_eq!(allowed(&rules, r#"{"level":7}"#, &[]), Some("all"));
        assert_eq!(allowed(&rules, r#"{"level":[false,true]}"#, &[]), Some("all"));
        for none in [
            "{}",
            r#"{"groups":"ops dev"}"#,
            r#"{"groups":["OPS"]}"#,
            r#"{"groups":{"ops":true}}"#,
            r#"{"groups":[["ops"]]}"#,
            r#"{"groups":null}"#,
            // The claim alone is no scope: scopes are read where the token is.
            r#"{"scope":"mcp:read"}"#,
        ] {
            assert_eq!(allowed(&rules, none, &["mcp"]), None, "{none}");
        }
        let scopes: Vec<_> = rules.scopes().iter().map(|it| &**it).collect();
        assert_eq!(scopes, ["mcp:read", "mcp:call"]);
        assert_eq!(rules.asked().map(|it| &**it), Some("mcp:read"));
    }

    #[test]
    fn a_client_is_told_to_ask_for_no_more_than_gives_rights() {
        let asked = |of: &[(&str, &[&str])]| {
            let all: Vec<_> = of.iter().map(|claim| rule(Some(*claim), "a-all")).collect();
            rules(&all).asked().map(|it| it.to_string())
        };
        let all: [(&str, &[&str]); 3] =
            [("scope", &["mcp:admin"]), ("scp", &["mcp:read", "mcp:all"]), ("groups", &["x"])];
        assert_eq!(asked(&all).as_deref(), Some("mcp:read"));
        assert_eq!(asked(&all[..1]).as_deref(), Some("mcp:admin"));
        assert_eq!(asked(&[("groups", &["x"])]), None);
    }

    #[test]
    fn a_rule_without_claim_is_about_every_token() {
        let all = rules(&[rule(None, "a-all"), rule(Some(("x", &["y"])), "a-one")]);
        assert_eq!(allowed(&all, r#"{"x":"y"}"#, &[]), Some("all"));
        assert_eq!(allowed(&rules(&[]), "{}", &[]), None);
    }
}
