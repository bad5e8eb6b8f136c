//! Many lists → one. Pure.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::name::{self, Unnamed};
use super::{Catalogue, Server, Tool};
use crate::access::glob::Globs;
use crate::config::Naming;
use crate::protocol::raw::{Raw, RawObject, string};
use crate::protocol::server_name::ServerName;

/// What the merge knows of a server whatever it lists.
#[derive(Debug, Clone)]
pub struct Profile {
    /// Its NAME.
    pub name: ServerName,
    /// Replaces NAME in offered names.
    pub alias: Option<String>,
    /// Over the server's own names.
    pub tools: Globs,
}

/// What a server has listed, and how it is.
#[derive(Debug, Clone)]
pub struct Listed {
    /// How the server is.
    pub server: Server,
    /// Each tool's own name and object, as read.
    pub tools: Vec<(String, Raw)>,
}

/// Takes the names out of a list of tool objects. What has no name, or one that stood before,
/// is left out and counted.
pub fn read_tools(tools: Vec<Raw>) -> (Vec<(String, Raw)>, usize) {
    let mut seen = HashMap::with_capacity(tools.len());
    let mut left_out = 0;
    let mut named = Vec::with_capacity(tools.len());
    for tool in tools {
        let own =
            RawObject::parse(tool.get()).ok().and_then(|o| o.string("name").ok().flatten());
        match own {
            Some(own) if !own.is_empty() && seen.insert(own.clone(), ()).is_none() => {
                named.push((own, tool));
            }
            Some(_) | None => left_out += 1,
        }
    }
    (named, left_out)
}

/// Merges the lists of `servers`, which are sorted by name.
pub fn merge(naming: &Naming, servers: &[(Profile, Listed)]) -> Catalogue {
    let prefixed = name::is_prefixed(naming, servers.len());
    let mut unnamed = Vec::new();
    let mut objects = Vec::new();
    for (profile, listed) in servers {
        for (own, object) in &listed.tools {
            if profile.tools.admits(own) {
                let shown = profile.alias.as_deref().unwrap_or(profile.name.as_str());
                unnamed.push(Unnamed { server: &profile.name, shown, own });
                objects.push(object);
            }
        }
    }
    let offered = name::offered(naming, prefixed, &unnamed);
    let mut tools: Vec<Arc<Tool>> = unnamed
        .iter()
        .zip(objects)
        .zip(offered)
        .map(|((tool, object), offered)| {
            Arc::new(Tool {
                server: tool.server.clone(),
                own: tool.own.to_owned(),
                qualified: name::qualified(naming, tool.server, tool.own),
                offered_object: renamed(object, tool.own, &offered),
                own_object: object.clone(),
                offered,
            })
        })
        .collect();
    tools.sort_by(|a, b| a.offered.cmp(&b.offered));
    index(tools, servers)
}

fn index(tools: Vec<Arc<Tool>>, servers: &[(Profile, Listed)]) -> Catalogue {
    let mut by_offered = HashMap::with_capacity(tools.len());
    let mut by_own: HashMap<String, Vec<Arc<Tool>>> = HashMap::with_capacity(tools.len());
    for tool in &tools {
        by_offered.insert(tool.offered.clone(), tool.clone());
        by_own.entry(tool.own.clone()).or_default().push(tool.clone());
    }
    let servers: BTreeMap<ServerName, Server> = servers
        .iter()
        .map(|(profile, listed)| (profile.name.clone(), listed.server.clone()))
        .collect();
    Catalogue { tools, by_offered, by_own, servers }
}

fn renamed(object: &Raw, own: &str, offered: &str) -> Raw {
    if own == offered {
        return object.clone();
    }
    match RawObject::parse(object.get()) {
        Ok(mut fields) => {
            fields.set("name", string(offered));
            Raw::from_valid(fields.to_text())
        }
        // It was read once, so it reads again.
        Err(_) => object.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::{Health, Resolution};
    use crate::config::Prefix;

    fn server(name: &str, tools: &[&str]) -> (Profile, Listed) {
        let profile = Profile {
            name: ServerName::parse(name).unwrap(),
            alias: None,
            tools: Globs::default(),
        };
        let objects = tools
            .iter()
            .map(|own| Raw::from_valid(format!(r#"{{"x":1,"name":"{own}","y":[2]}}"#)))
            .collect();
        let (tools, left_out) = read_tools(objects);
        assert_eq!(left_out, 0);
        let server = Server { health: Health::Well, ..Server::default() };
        (profile, Listed { server, tools })
    }

    fn two() -> Catalogue {
        let naming = Naming { prefix: Prefix::Auto, separator: "-".to_owned() };
        merge(&naming, &[server("a", &["z", "echo"]), server("b", &["echo"])])
    }

    #[test]
    fn the_list_is_sorted_and_only_the_name_changes() {
        let names: Vec<_> = two().tools.iter().map(|tool| tool.offered.clone()).collect();
        assert_eq!(names, ["a-echo", "a-z", "b-echo"]);
        assert_eq!(two().tools[1].offered_object.get(), r#"{"x":1,"name":"a-z","y":[2]}"#);
    }

    #[test]
    fn a_bare_name_serves_where_one_server_has_it() {
        let all = |_: &Tool| true;
        assert!(
            matches!(two().resolve("a-echo", all), Resolution::Found(t) if t.own == "echo")
        );
        assert!(matches!(two().resolve("z", all), Resolution::Found(t) if t.offered == "a-z"));
        assert!(matches!(
            two().resolve("echo", all),
            Resolution::Ambiguous(names) if names == ["a-echo", "b-echo"]
        ));
        let only_b = |tool: &Tool| tool.server.as_str() == "b";
        assert!(
            matches!(two().resolve("echo", only_b), Resolution::Found(t) if t.offered == "b-echo")
        );
        assert!(matches!(two().resolve("a-echo", only_b), Resolution::Unknown(_)));
    }

    #[test]
    fn what_has_no_name_or_one_that_stood_before_is_left_out() {
        let raw = |text: &str| Raw::from_valid(text.to_owned());
        let list = vec![raw(r#"{"name":"a"}"#), raw("{}"), raw("7"), raw(r#"{"name":"a"}"#)];
        let (tools, left_out) = read_tools(list);
        assert_eq!((tools.len(), left_out), (1, 3));
    }
}
