//! Many lists → one. Pure.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::left_out::Unusable;
use super::name::{self, Offered, Unnamed};
use super::pins::Subject;
use super::{Catalogue, Clash, Clashes, Item, List, Server, Steps, uri};
use crate::access::glob::Globs;
use crate::config::{Naming, Pin};
use crate::limits::{
    CLASHES_TOLD_MAX, MERGED_LINKS_STEPS_MAX, OWN_NAME_CHARS_MAX, UPSTREAM_TEXT_CHARS_MAX,
};
use crate::protocol::call::Kind;
use crate::protocol::for_revision::Output;
use crate::protocol::links;
use crate::protocol::listed_item::{self, ListedItem, Malformed};
use crate::protocol::mirror;
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
    /// What is done about a tool that changes.
    pub pin: Pin,
}

/// Each item's own name and object, as read.
pub type Named = Vec<(String, Raw)>;

/// What a server has listed, and how it is.
#[derive(Debug, Clone, Default)]
pub struct Listed {
    /// How the server is.
    pub server: Server,
    /// Its items.
    pub lists: HashMap<Kind, Named>,
}

/// Takes the names out of a list of objects, each as clients can be given it. One that no client
/// could be given, that cannot be shown or whose name stood before is left out.
pub fn read_items(kind: Kind, objects: Vec<Raw>) -> (Named, Unusable) {
    let mut seen = HashSet::with_capacity(objects.len());
    let mut unusable = Unusable::default();
    let mut named = Vec::with_capacity(objects.len());
    for object in objects {
        match listed_item::read(kind, object.get()) {
            Ok(ListedItem { name, mended }) => {
                let reason = if !is_usable(kind, &name) {
                    "its name cannot be shown, or is too long"
                } else if !seen.insert(name.clone()) {
                    "its name stood before"
                } else {
                    named.push((name, mended.map_or(object, Raw::from_valid)));
                    continue;
                };
                unusable.add(shown(Malformed { name: Some(name), reason: reason.to_owned() }));
            }
            Err(malformed) => unusable.add(shown(malformed)),
        }
    }
    (named, unusable)
}

/// What people are told of an item is short and holds no character that is not seen.
fn shown(malformed: Malformed) -> Malformed {
    let of = |text: &str| {
        let start = text.chars().take(UPSTREAM_TEXT_CHARS_MAX);
        start.map(|c| if is_hidden(c) { '\u{fffd}' } else { c }).collect::<String>()
    };
    Malformed { name: malformed.name.as_deref().map(of), reason: of(&malformed.reason) }
}

/// Control characters, and those that turn the direction of text, would rewrite the line in which
/// they stand.
fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Whether people and programs can tell the name from others. A name that only looks like another
/// one is not that one, and passes.
fn is_usable(kind: Kind, own: &str) -> bool {
    !own.is_empty()
        && match kind {
            Kind::Tool | Kind::Prompt => {
                !own.chars().any(is_hidden) && own.chars().nth(OWN_NAME_CHARS_MAX).is_none()
            }
            // They are URIs, of which that is the server's own affair.
            Kind::Resource | Kind::Template => true,
        }
}

/// Merges the lists of `servers`, which come in the order of the configuration.
pub fn merge(naming: &Naming, servers: &[(Profile, Listed)]) -> Catalogue {
    let mut clashes = Clashes::default();
    let mut of = |kind, so_far: &Catalogue| {
        List::new(items(naming, kind, servers, so_far, &mut clashes))
    };
    let mut catalogue = Catalogue {
        owners: naming.owners.clone(),
        servers: servers
            .iter()
            .map(|(profile, listed)| (profile.name.clone(), listed.server.clone()))
            .collect(),
        order: servers.iter().map(|(profile, _)| profile.name.clone()).collect(),
        separator: naming.separator.clone(),
        having_resources: having_resources(servers),
        ..Catalogue::default()
    };
    catalogue.resources = of(Kind::Resource, &catalogue);
    catalogue.templates = of(Kind::Template, &catalogue);
    // What these link to is known by now.
    catalogue.tools = of(Kind::Tool, &catalogue);
    catalogue.prompts = of(Kind::Prompt, &catalogue);
    catalogue.clashes = clashes;
    catalogue
}

fn having_resources(servers: &[(Profile, Listed)]) -> Vec<ServerName> {
    let having = servers.iter().filter(|(_, it)| uri::may_have_resources(&it.server));
    having.map(|(profile, _)| profile.name.clone()).collect()
}

fn items(
    naming: &Naming,
    kind: Kind,
    servers: &[(Profile, Listed)],
    so_far: &Catalogue,
    clashes: &mut Clashes,
) -> Vec<Arc<Item>> {
    let mut unnamed = Vec::new();
    let mut objects = Vec::new();
    let mut withheld = Vec::new();
    for (profile, listed) in servers {
        for (own, object) in listed.lists.get(&kind).into_iter().flatten() {
            if kind != Kind::Tool || profile.tools.admits(own) {
                let shown = profile.alias.as_deref().unwrap_or(profile.name.as_str());
                unnamed.push(Unnamed { server: &profile.name, shown, own });
                objects.push(object);
                let pinned = listed.server.pinned.as_ref();
                let subject = Subject::of(kind);
                withheld.push(pinned.is_some_and(|pinned| pinned.withholds(subject, own)));
            }
        }
    }
    let offered = match kind {
        Kind::Tool | Kind::Prompt => {
            let prefixed = name::is_prefixed(naming, servers.len());
            name::offered(naming, prefixed, &unnamed)
        }
        Kind::Resource | Kind::Template => name::offered_uris(naming, &unnamed),
    };
    for (item, offered) in unnamed.iter().zip(&offered) {
        clashes.note(kind, item, offered);
    }
    // Each server has its share, so that one server's links never change what another's become.
    let n_steps = MERGED_LINKS_STEPS_MAX / servers.len().max(1);
    let mut steps: HashMap<&ServerName, Steps> = HashMap::new();
    unnamed
        .iter()
        .zip(objects)
        .zip(withheld)
        .zip(offered)
        .map(|(((item, object), is_withheld), offered)| {
            Arc::new(Item {
                kind,
                server: item.server.clone(),
                own: item.own.to_owned(),
                qualified: name::qualified(naming, item.server, item.own),
                offered_object: led_back(
                    so_far,
                    item.server,
                    renamed(kind, object, item.own, &offered.name),
                    steps.entry(item.server).or_insert_with(|| Steps::new(n_steps)),
                ),
                own_object: object.clone(),
                is_withheld,
                mirrors: match kind {
                    Kind::Tool => mirror::annotations(object.get()),
                    Kind::Prompt | Kind::Resource | Kind::Template => Ok(Vec::new()),
                },
                output: match kind {
                    Kind::Tool => Output::of(object.get()),
                    Kind::Prompt | Kind::Resource | Kind::Template => Output::Object,
                },
                offered: offered.name,
            })
        })
        .collect()
}

/// The object with links that lead back to its server among several.
fn led_back(catalogue: &Catalogue, server: &ServerName, object: Raw, steps: &mut Steps) -> Raw {
    if catalogue.servers.len() < 2 || !links::may_hold_in_item(object.get()) {
        return object;
    }
    let mut instead = |uri: &str| catalogue.instead_of(server, uri, steps);
    links::in_item(object.get(), &mut instead).map_or(object, Raw::from_valid)
}

impl Clashes {
    fn note(&mut self, kind: Kind, item: &Unnamed<'_>, offered: &Offered) {
        let Some((name, owner)) = &offered.clash else { return };
        if self.told.len() >= CLASHES_TOLD_MAX {
            self.n_further += 1;
            return;
        }
        self.told.push(Clash {
            kind,
            server: item.server.clone(),
            own: item.own.to_owned(),
            name: name.clone(),
            owner: owner.clone(),
            offered: offered.name.clone(),
        });
    }
}

fn renamed(kind: Kind, object: &Raw, own: &str, offered: &str) -> Raw {
    if own == offered {
        return object.clone();
    }
    match RawObject::parse(object.get()) {
        Ok(mut fields) => {
            fields.set(kind.name_key(), string(offered));
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
            pin: Pin::Off,
        };
        let objects = tools
            .iter()
            .map(|own| {
                Raw::from_valid(format!(
                    r#"{{"x":1,"name":"{own}","inputSchema":{{"type":"object"}}}}"#
                ))
            })
            .collect();
        let (tools, unusable) = read_items(Kind::Tool, objects);
        assert_eq!(unusable.count(), 0);
        let server = Server { health: Health::Well, ..Server::default() };
        (profile, Listed { server, lists: HashMap::from([(Kind::Tool, tools)]) })
    }

    fn naming(prefix: Prefix, names: &[&str]) -> Naming {
        let names: Vec<_> = names.iter().map(|it| ServerName::parse(it).unwrap()).collect();
        Naming::new(prefix, "-", names.iter().map(|it| (it, None)))
    }

    fn two() -> Catalogue {
        let servers = [server("a", &["z", "echo"]), server("b", &["echo"])];
        merge(&naming(Prefix::Auto, &["a", "b"]), &servers)
    }

    #[test]
    fn the_list_is_sorted_and_only_the_name_changes() {
        let names: Vec<_> =
            two().items(Kind::Tool).iter().map(|tool| tool.offered.clone()).collect();
        assert_eq!(names, ["a-echo", "a-z", "b-echo"]);
        assert_eq!(
            two().items(Kind::Tool)[1].offered_object.get(),
            r#"{"x":1,"name":"a-z","inputSchema":{"type":"object"}}"#
        );
    }

    #[test]
    fn a_bare_name_serves_where_one_server_has_it() {
        let all = |_: &Item| true;
        assert!(
            matches!(two().resolve(Kind::Tool, "a-echo", all), Resolution::Found(t) if t.own == "echo")
        );
        assert!(
            matches!(two().resolve(Kind::Tool, "z", all), Resolution::Found(t) if t.offered == "a-z")
        );
        assert!(matches!(
            two().resolve(Kind::Tool, "echo", all),
            Resolution::Ambiguous(names) if names == ["a-echo", "b-echo"]
        ));
        let only_b = |tool: &Item| tool.server.as_str() == "b";
        assert!(
            matches!(two().resolve(Kind::Tool, "echo", only_b), Resolution::Found(t) if t.offered == "b-echo")
        );
        assert!(matches!(two().resolve(Kind::Tool, "a-echo", only_b), Resolution::Unknown(_)));
    }

    #[test]
    fn a_name_that_cannot_be_shown_is_left_out() {
        let long = "x".repeat(OWN_NAME_CHARS_MAX + 1);
        for own in ["", "a\n", "\u{1b}[2J", "\u{9b}", "\u{202e}a", "a\u{2069}", &long] {
            assert!(!is_usable(Kind::Tool, own), "{own:?}");
        }
        for own in ["a", "a b", "\u{435}cho", "\u{1f980}", &long[1..]] {
            assert!(is_usable(Kind::Tool, own), "{own:?}");
        }
        assert!(is_usable(Kind::Resource, &format!("file:///{long}")));
    }

    #[test]
    fn what_is_as_it_should_be_is_not_copied() {
        let text = Raw::from_valid(r#"{"name":"a","description":null}"#.to_owned());
        let (prompts, _) = read_items(Kind::Prompt, vec![text]);
        assert_eq!(prompts[0].1.get(), r#"{"name":"a"}"#);
        let buffer = Arc::new(r#"[ {"name":"a", "x":1.0} ]"#.to_owned());
        let item = Raw::part_of(&buffer, &buffer[2..buffer.len() - 2]);
        let (prompts, _) = read_items(Kind::Prompt, vec![item]);
        assert!(std::ptr::eq(prompts[0].1.get(), &buffer[2..buffer.len() - 2]));
    }

    #[test]
    fn what_has_no_name_or_one_that_stood_before_is_left_out() {
        let raw = |text: &str| Raw::from_valid(text.to_owned());
        let list = vec![raw(r#"{"name":"a"}"#), raw("{}"), raw("7"), raw(r#"{"name":"a"}"#)];
        let (prompts, unusable) = read_items(Kind::Prompt, list);
        assert_eq!((prompts.len(), unusable.count()), (1, 3));
    }
}
