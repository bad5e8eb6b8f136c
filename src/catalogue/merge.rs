//! Pure: merges the lists of all servers into one snapshot.

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
use crate::protocol::listed_item::{self, ListedItem, Malformed, ReadItem};
use crate::protocol::mirror;
use crate::protocol::pieces::{self, Packing, Usage};
use crate::protocol::raw::{Raw, RawObject, string};
use crate::protocol::server_name::ServerName;

/// The configuration of a server, as the merge uses it.
#[derive(Debug, Clone)]
pub struct Profile {
    /// The server's NAME.
    pub name: ServerName,
    /// The server's description and alias.
    pub label: Arc<ServerLabel>,
    /// The globs that the server's own tool names must match.
    pub tools: Globs,
    /// The treatment of a tool that has changed.
    pub pin: Pin,
}

/// The configured texts that present a server to people, besides its NAME.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServerLabel {
    /// The description.
    pub description: Option<String>,
    /// The alias, which replaces NAME in offered names.
    pub alias: Option<String>,
}

/// A list: each item's own name and its object, as read.
pub type Named = Vec<(String, Raw)>;

/// A server's lists, and its state.
#[derive(Debug, Clone, Default)]
pub struct Listed {
    /// The server's state.
    pub server: Server,
    /// The server's items.
    pub lists: HashMap<Kind, Named>,
}

/// Reads a list of objects, makes each valid for clients, and keeps those that can be offered.
pub fn read_items(kind: Kind, objects: Vec<Raw>) -> (Named, Unusable) {
    let read = |object: Raw| {
        let ListedItem { name, mended } = listed_item::read(kind, object.get())?;
        Ok((name, mended.map_or(object, Raw::from_valid)))
    };
    usable(kind, objects.into_iter().map(read).collect())
}

/// The items of a list that can be offered. An item that cannot be made valid, that cannot be
/// shown or whose name stood before is left out.
pub fn usable(kind: Kind, items: Vec<ReadItem>) -> (Named, Unusable) {
    let mut seen = HashSet::with_capacity(items.len());
    let mut unusable = Unusable::default();
    let mut named = Vec::with_capacity(items.len());
    for item in items {
        match item {
            Ok((name, object)) => {
                let reason = if !is_usable(kind, &name) {
                    "its name cannot be shown, or is too long"
                } else if !seen.insert(name.clone()) {
                    "its name stood before"
                } else {
                    named.push((name, object));
                    continue;
                };
                unusable.add(shown(Malformed { name: Some(name), reason: reason.to_owned() }));
            }
            Err(malformed) => unusable.add(shown(malformed)),
        }
    }
    (named, unusable)
}

/// The name and the reason for people: short, and without hidden characters.
fn shown(malformed: Malformed) -> Malformed {
    let of = |text: &str| {
        let start = text.chars().take(UPSTREAM_TEXT_CHARS_MAX);
        start.map(|c| if is_hidden(c) { '\u{fffd}' } else { c }).collect::<String>()
    };
    Malformed { name: malformed.name.as_deref().map(of), reason: of(&malformed.reason) }
}

/// True for control characters, and for those that turn the direction of text: they would rewrite
/// the line in which they stand.
fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// True if people and programs can tell the name from others. A name that only looks like another
/// one is a different name, and passes.
fn is_usable(kind: Kind, own: &str) -> bool {
    !own.is_empty()
        && match kind {
            Kind::Tool | Kind::Prompt => {
                !own.chars().any(is_hidden) && own.chars().nth(OWN_NAME_CHARS_MAX).is_none()
            }
            // Such names are URIs, whose form is the server's own affair.
            Kind::Resource | Kind::Template => true,
        }
}

/// Puts the known text in the place of an equal one: the text stands in memory once, as long as
/// its memory holds not much else.
pub fn share(list: &mut Named, known: &Named) {
    let known: HashMap<&str, &Raw> = known.iter().map(|(own, it)| (own.as_str(), it)).collect();
    for (own, object) in &mut *list {
        if let Some(same) = known.get(own.as_str()).filter(|same| **same == object) {
            *object = (*same).clone();
        }
    }
    pieces::compact(list);
}

/// Merges the lists of `servers`, which come in the order of the configuration.
pub fn merge(naming: &Naming, servers: &[(Profile, Listed)]) -> Catalogue {
    merge_after(&Catalogue::default(), naming, servers, &|| true).unwrap_or_default()
}

/// As [`merge`], after another snapshot, whose unchanged items are taken over: only changed ones
/// are read. None where `goes_on` ends the merge; it is asked between any two items.
pub fn merge_after(
    before: &Catalogue,
    naming: &Naming,
    servers: &[(Profile, Listed)],
    goes_on: &dyn Fn() -> bool,
) -> Option<Catalogue> {
    let mut clashes = Clashes::default();
    let mut of = |kind, so_far: &Catalogue| {
        let made = Making { naming, kind, servers, so_far, before };
        Some(List::new(made.items(&mut clashes, goes_on)?))
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
    catalogue.resources = of(Kind::Resource, &catalogue)?;
    catalogue.templates = of(Kind::Template, &catalogue)?;
    // The servers of the URIs in these items' links are known by now.
    catalogue.tools = of(Kind::Tool, &catalogue)?;
    catalogue.prompts = of(Kind::Prompt, &catalogue)?;
    catalogue.clashes = clashes;
    Some(catalogue)
}

fn having_resources(servers: &[(Profile, Listed)]) -> Vec<ServerName> {
    let having = servers.iter().filter(|(_, it)| uri::may_have_resources(&it.server));
    having.map(|(profile, _)| profile.name.clone()).collect()
}

/// The inputs of one kind's list.
struct Making<'a> {
    naming: &'a Naming,
    kind: Kind,
    servers: &'a [(Profile, Listed)],
    /// The part of this snapshot that is made.
    so_far: &'a Catalogue,
    /// The snapshot before.
    before: &'a Catalogue,
}

/// An item that has no offered name yet.
struct Nameless<'a> {
    of: Unnamed<'a>,
    object: &'a Raw,
    label: &'a Arc<ServerLabel>,
    is_withheld: bool,
}

impl<'a> Making<'a> {
    fn items(
        &self,
        clashes: &mut Clashes,
        goes_on: &dyn Fn() -> bool,
    ) -> Option<Vec<Arc<Item>>> {
        let nameless = self.nameless();
        let unnamed: Vec<Unnamed<'_>> = nameless.iter().map(|item| item.of).collect();
        let (naming, kind) = (self.naming, self.kind);
        let offered = match kind {
            Kind::Tool | Kind::Prompt => {
                let prefixed = name::is_prefixed(naming, self.servers.len());
                name::offered(naming, prefixed, &unnamed)
            }
            Kind::Resource | Kind::Template => name::offered_uris(naming, &unnamed),
        };
        for (item, offered) in unnamed.iter().zip(&offered) {
            clashes.note(kind, item, offered);
        }
        // Each server has its share of steps, so that one server's links never change the links
        // of another.
        let n_steps = MERGED_LINKS_STEPS_MAX / self.servers.len().max(1);
        let mut steps: HashMap<&ServerName, Steps> = HashMap::new();
        let (taken_over, mut objects) =
            (self.taken_over(&nameless, &offered), Packing::default());
        let mut items = Vec::with_capacity(nameless.len());
        for ((item, offered), known) in nameless.iter().zip(offered).zip(taken_over) {
            if !goes_on() {
                return None;
            }
            if let Some(known) = known {
                items.push(Made::TakenOver(known.clone()));
                continue;
            }
            let steps = steps.entry(item.of.server).or_insert_with(|| Steps::new(n_steps));
            items.push(Made::new(self.item(item, offered, steps), &mut objects));
        }
        let mut objects = objects.finish().into_iter();
        Some(items.into_iter().map(|made| made.item(&mut objects)).collect())
    }

    /// The items of the snapshot before that are taken over: unchanged ones, whose memory holds
    /// not much else.
    fn taken_over(
        &self,
        nameless: &[Nameless<'_>],
        offered: &[Offered],
    ) -> Vec<Option<&'a Arc<Item>>> {
        let both = || nameless.iter().zip(offered);
        let mut stand: Vec<_> = both().map(|(item, it)| self.standing(item, it)).collect();
        let own = Usage::of(stand.iter().flatten().map(|known| &known.own_object));
        let shown = Usage::of(stand.iter().flatten().map(|known| &known.offered_object));
        for ((item, _), known) in both().zip(&mut stand) {
            known.take_if(|known| {
                let Item { own_object, offered_object, .. } = &***known;
                let is_elsewhere = own_object.piece() != item.object.piece();
                let is_of_its_own = offered_object.piece() != own_object.piece();
                (is_elsewhere && own.is_sparse(own_object))
                    || (is_of_its_own && shown.is_sparse(offered_object))
            });
        }
        stand
    }

    fn nameless(&self) -> Vec<Nameless<'a>> {
        let mut all = Vec::new();
        for (profile, listed) in self.servers {
            let (pinned, subject) = (listed.server.pinned.as_ref(), Subject::of(self.kind));
            let shown = profile.label.alias.as_deref().unwrap_or(profile.name.as_str());
            for (own, object) in listed.lists.get(&self.kind).into_iter().flatten() {
                if self.kind != Kind::Tool || profile.tools.admits(own) {
                    let of = Unnamed { server: &profile.name, shown, own };
                    let is_withheld = pinned.is_some_and(|it| it.withholds(subject, own));
                    let label = &profile.label;
                    all.push(Nameless { of, object, label, is_withheld });
                }
            }
        }
        all
    }

    /// The item of that name in the snapshot before, if its server wrote the same text.
    fn known(&self, item: &Nameless<'_>, offered: &str) -> Option<&'a Arc<Item>> {
        let Nameless { of: Unnamed { server, own, .. }, object, .. } = *item;
        self.before.list(self.kind).by_offered.get(offered).filter(|known| {
            known.server == *server && known.own == own && known.own_object == *object
        })
    }

    /// As `known`, if the offered item would be made the same again.
    fn standing(&self, item: &Nameless<'_>, offered: &Offered) -> Option<&'a Arc<Item>> {
        self.known(item, &offered.name).filter(|known| {
            known.is_withheld == item.is_withheld
                && known.label == *item.label
                && known.alone.as_ref().map(|item| &item.offered) == offered.alone.as_ref()
                && self.before.separator == self.naming.separator
                // Links depend on other items too.
                && !links::may_hold_in_item(item.object.get())
        })
    }

    fn item(&self, item: &Nameless<'_>, offered: Offered, steps: &mut Steps) -> Item {
        let known = self.known(item, &offered.name);
        let Offered { name: offered, alone, .. } = offered;
        let Nameless { of: Unnamed { server, own, .. }, object, label, is_withheld } = *item;
        let is_tool = self.kind == Kind::Tool;
        let (mirrors, output) = match known {
            Some(known) => (known.mirrors.clone(), known.output),
            None if is_tool => (mirror::annotations(object.get()), Output::of(object.get())),
            None => (Ok(Vec::new()), Output::Object),
        };
        let plain = renamed(self.kind, object, own, &offered);
        let item = Item {
            kind: self.kind,
            server: server.clone(),
            own: own.to_owned(),
            qualified: name::qualified(self.naming, server, own),
            offered_object: led_back(self.so_far, server, plain.clone(), steps),
            own_object: object.clone(),
            is_withheld,
            mirrors,
            output,
            label: label.clone(),
            offered,
            alone: None,
        };
        with_alone(item, plain, alone)
    }
}

/// An item of the next snapshot.
enum Made {
    TakenOver(Arc<Item>),
    /// The offered object is the server's own.
    AsItIs(Item),
    /// The offered object is packed with others; until it is taken out, the own object is in its
    /// place.
    Packed(Item),
}

impl Made {
    fn new(mut item: Item, objects: &mut Packing) -> Made {
        if item.offered_object.piece() == item.own_object.piece() {
            return Made::AsItIs(item);
        }
        objects.push(item.offered_object.get());
        item.offered_object = item.own_object.clone();
        Made::Packed(item)
    }

    fn item(self, objects: &mut impl Iterator<Item = Raw>) -> Arc<Item> {
        match self {
            Made::TakenOver(item) => item,
            Made::AsItIs(item) => Arc::new(item),
            Made::Packed(mut item) => {
                if let Some(object) = objects.next() {
                    item.offered_object = object;
                }
                Arc::new(item)
            }
        }
    }
}

/// The item with the form for clients that see no other server: `plain` is its object with the
/// links as its server wrote them, `name` its name there if that is another one.
fn with_alone(item: Item, plain: Raw, name: Option<String>) -> Item {
    if name.is_none() && plain == item.offered_object {
        return item;
    }
    let object = match &name {
        Some(name) => renamed(item.kind, &item.own_object, &item.own, name),
        None => plain,
    };
    let alone = Item {
        kind: item.kind,
        server: item.server.clone(),
        own: item.own.clone(),
        offered: name.unwrap_or_else(|| item.offered.clone()),
        qualified: item.qualified.clone(),
        offered_object: object,
        own_object: item.own_object.clone(),
        is_withheld: item.is_withheld,
        mirrors: item.mirrors.clone(),
        output: item.output,
        label: item.label.clone(),
        alone: None,
    };
    Item { alone: Some(Arc::new(alone)), ..item }
}

/// The object with links that lead back to its server, where there are several servers.
fn led_back(catalogue: &Catalogue, server: &ServerName, object: Raw, steps: &mut Steps) -> Raw {
    if catalogue.servers.len() < 2 || !links::may_hold_in_item(object.get()) {
        return object;
    }
    let mut instead = |uri: &str| catalogue.instead_of(server, uri, &|_| true, steps);
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

/// The object with that name.
pub(super) fn renamed(kind: Kind, object: &Raw, own: &str, offered: &str) -> Raw {
    if own == offered {
        return object.clone();
    }
    match RawObject::parse(object.get()) {
        Ok(mut fields) => {
            fields.set(kind.name_key(), string(offered));
            Raw::from_valid(fields.to_text())
        }
        // The object was read before, so it reads again.
        Err(_) => object.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::{Health, Pinned, Resolution};
    use crate::config::Prefix;
    use std::collections::BTreeMap;

    fn server(name: &str, tools: &[&str]) -> (Profile, Listed) {
        let profile = Profile {
            name: ServerName::parse(name).unwrap(),
            label: Arc::default(),
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
    fn what_has_not_changed_is_taken_over_and_not_read_again() {
        let naming = naming(Prefix::Auto, &["a", "b"]);
        let mut servers = [server("a", &["x", "y"]), server("b", &["x"])];
        let before = merge(&naming, &servers);
        let changed = r#"{"name":"y","inputSchema":{"type":"object","x-mcp-header":"h"}}"#;
        let list = servers[0].1.lists.get_mut(&Kind::Tool).unwrap();
        // The same text elsewhere in memory, and a changed one.
        list[0].1 = Raw::from_valid(list[0].1.get().to_owned());
        list[1].1 = Raw::from_valid(changed.to_owned());
        let after = merge_after(&before, &naming, &servers, &|| true).unwrap();
        let item = |of: &Catalogue, at: usize| of.items(Kind::Tool)[at].clone();
        let taken: Vec<bool> =
            (0..3).map(|at| Arc::ptr_eq(&item(&before, at), &item(&after, at))).collect();
        assert_eq!(taken, [true, false, true]);
        assert!(item(&before, 1).mirrors.is_ok() && item(&after, 1).mirrors.is_err());
        // The server's list shares the text of the item.
        let mut list = servers[0].1.lists[&Kind::Tool].clone();
        share(&mut list, &before_of(&before));
        assert!(std::ptr::eq(list[0].1.get(), item(&after, 0).own_object.get()));
        // Another withholding, and another separator, make another item.
        let changed = BTreeMap::from([("x".to_owned(), 1)]);
        servers[1].1.server.pinned = Some(Pinned {
            pin: Pin::Enforce,
            n_pinned: 1,
            changed,
            others: BTreeMap::new(),
            causes: BTreeMap::new(),
        });
        let after = merge_after(&before, &naming, &servers, &|| true).unwrap();
        assert_eq!(after.items(Kind::Tool).len(), 2);
        let names = [ServerName::parse("a").unwrap(), ServerName::parse("b").unwrap()];
        let dotted = Naming::new(Prefix::Never, ".", names.iter().map(|it| (it, None)));
        let dashed = Naming::new(Prefix::Never, "-", names.iter().map(|it| (it, None)));
        let before = merge(&dashed, &servers);
        let after = merge_after(&before, &dotted, &servers, &|| true).unwrap();
        assert_eq!(item(&after, 0).qualified, "a.x");
    }

    fn before_of(before: &Catalogue) -> Named {
        let of_a = before.items(Kind::Tool).iter().filter(|it| it.server.as_str() == "a");
        of_a.map(|it| (it.own.clone(), it.own_object.clone())).collect()
    }

    #[test]
    fn a_merge_ends_between_two_items() {
        let servers = [server("a", &["x", "y", "z"])];
        let naming = naming(Prefix::Auto, &["a"]);
        for n in 0..4_usize {
            let left = std::cell::Cell::new(n);
            let goes_on = || left.replace(left.get().saturating_sub(1)) > 0;
            let merged = merge_after(&Catalogue::default(), &naming, &servers, &goes_on);
            assert_eq!(merged.is_some(), n >= 3, "{n}");
        }
    }

    #[test]
    fn an_item_over_its_bound_is_left_out_and_named() {
        let long = "x".repeat(crate::limits::LISTED_ITEM_BYTES_MAX);
        let tool = |name: &str, description: &str| {
            let schema = r#""inputSchema":{"type":"object"}"#;
            let text = format!(r#"{{"name":"{name}","description":"{description}",{schema}}}"#);
            Raw::from_valid(text)
        };
        let (tools, unusable) = read_items(Kind::Tool, vec![tool("a", &long), tool("b", "b")]);
        assert_eq!((tools.len(), unusable.count()), (1, 1));
        let mut left_out = crate::catalogue::left_out::LeftOut::default();
        left_out.note(&ServerName::parse("s").unwrap(), Kind::Tool, unusable);
        let (_, named) = left_out.named().next().unwrap();
        assert_eq!(named.name.as_deref(), Some("a"));
        assert!(named.reason.contains("more than 262144 bytes"), "{}", named.reason);
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
