//! Names with any lists, and with any servers down: no name leads to a server to which the
//! configuration does not give it.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::merge::{Listed, Profile, ServerLabel, merge, read_items};
use super::{Catalogue, Health, Item, Resolution, Server};
use crate::access::glob::Globs;
use crate::config::{Naming, Pin, Prefix};
use crate::limits::OFFERED_NAME_CHARS_MAX;
use crate::protocol::call::Kind;
use crate::protocol::raw::{Raw, string};
use crate::protocol::server_name::ServerName;

const WORLDS: u64 = 250;

/// Marsaglia's xorshift64: the same numbers on every machine.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % u64::try_from(n).unwrap()).unwrap()
    }

    fn pick<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }
}

struct Configured {
    name: ServerName,
    alias: Option<String>,
    tools: Vec<String>,
}

struct World {
    prefix: Prefix,
    separator: String,
    servers: Vec<Configured>,
    /// A disabled server keeps its names, and is in no list.
    disabled: Option<ServerName>,
}

impl World {
    fn random(random: &mut Random) -> World {
        let separator = (*random.pick(&["-", "_", "__", "."])).to_owned();
        let joint = if separator == "." { "-" } else { separator.as_str() };
        let mut names: Vec<String> = Vec::new();
        for _ in 0..2 + random.below(4) {
            let mut name = (*random.pick(&["a", "b", "bank", "bank-x", "a_"])).to_owned();
            if !names.is_empty() && random.below(2) == 0 {
                name = format!("{}{joint}{name}", random.pick(&names));
            }
            if random.below(12) == 0 && name.len() < 40 {
                name = format!("{name}{}", "y".repeat(60));
            }
            if ServerName::parse(&name).is_some() && !names.contains(&name) {
                names.push(name);
            }
        }
        let mut servers: Vec<Configured> = Vec::new();
        for name in &names {
            let alias =
                format!("{}{separator}{}", random.pick(&names), random.pick(&["q", "a"]));
            let is_free = !names.contains(&alias)
                && !servers.iter().any(|it| it.alias.as_ref() == Some(&alias));
            servers.push(Configured {
                name: ServerName::parse(name).unwrap(),
                alias: (is_free && random.below(4) == 0).then_some(alias),
                tools: Vec::new(),
            });
        }
        let prefix = *random.pick(&[Prefix::Auto, Prefix::Always, Prefix::Never]);
        let disabled =
            (servers.len() > 1 && random.below(3) == 0).then(|| servers.remove(0).name);
        let mut world = World { prefix, separator, servers, disabled };
        world.list_tools(random);
        // The second turn uses the names that others are offered under, as a hostile server
        // would.
        for _ in 0..2 {
            let all = world.merged(&vec![true; world.servers.len()]);
            let offered: Vec<String> =
                all.items(Kind::Tool).iter().map(|item| item.offered.clone()).collect();
            world.imitate(random, &offered);
        }
        world
    }

    fn beginnings(&self) -> Vec<(&ServerName, String)> {
        let of = |it: &'_ Configured| {
            let names = [Some(it.name.to_string()), it.alias.clone()];
            names.into_iter().flatten().collect::<Vec<_>>()
        };
        let all =
            self.servers.iter().flat_map(|it| of(it).into_iter().map(move |n| (&it.name, n)));
        let disabled = self.disabled.iter().map(|name| (name, name.to_string()));
        all.chain(disabled)
            .map(|(it, name)| (it, format!("{name}{}", self.separator)))
            .collect()
    }

    fn list_tools(&mut self, random: &mut Random) {
        let beginnings: Vec<String> = self.beginnings().into_iter().map(|(_, it)| it).collect();
        for at in 0..self.servers.len() {
            for _ in 0..random.below(6) {
                let word = (*random.pick(&["x", "y", "transfer", ""])).to_owned();
                let long = "t".repeat(70);
                let tool = match random.below(6) {
                    0 => format!("{}{word}", random.pick(&beginnings)),
                    1 => format!(
                        "{}{}{word}",
                        random.pick(&beginnings),
                        random.pick(&beginnings)
                    ),
                    // The rest of a longer NAME behind a shorter one.
                    2 => {
                        let other = random.pick(&beginnings).clone();
                        let own = format!("{}{}", self.servers[at].name, self.separator);
                        format!("{}{word}", other.strip_prefix(&own).unwrap_or(&other))
                    }
                    3 => format!("{}{long}{word}", random.pick(&beginnings)),
                    _ => word,
                };
                if !tool.is_empty() {
                    self.servers[at].tools.push(tool);
                }
            }
        }
    }

    /// Lets some servers list others' offered names, whole, or behind their own NAME.
    fn imitate(&mut self, random: &mut Random, offered: &[String]) {
        if offered.is_empty() {
            return;
        }
        for _ in 0..3 {
            let n_servers = self.servers.len();
            let server = &mut self.servers[random.below(n_servers)];
            let name = random.pick(offered);
            let own = format!("{}{}", server.name, self.separator);
            let rest = name.strip_prefix(&own).filter(|rest| !rest.is_empty()).unwrap_or(name);
            server.tools.push(rest.to_owned());
        }
    }

    fn naming(&self) -> Naming {
        let servers = self.servers.iter().map(|it| (&it.name, it.alias.as_deref()));
        let disabled = self.disabled.iter().map(|name| (name, None));
        Naming::new(self.prefix, &self.separator, servers.chain(disabled))
    }

    /// The catalogue while only some servers have listed.
    fn merged(&self, are_up: &[bool]) -> Catalogue {
        let servers = self.servers.iter().zip(are_up).map(|(it, is_up)| {
            let profile = Profile {
                name: it.name.clone(),
                label: Arc::new(ServerLabel { description: None, alias: it.alias.clone() }),
                tools: Globs::default(),
                pin: Pin::Off,
            };
            let object = |name: &String| {
                let (name, schema) = (string(name), r#"{"type":"object"}"#);
                Raw::from_valid(format!("{{\"name\":{name},\"inputSchema\":{schema}}}"))
            };
            let tools = it.tools.iter().filter(|_| *is_up).map(object).collect();
            let lists = HashMap::from([(Kind::Tool, read_items(Kind::Tool, tools).0)]);
            let server = Server { health: Health::Well, ..Server::default() };
            (profile, Listed { server, lists })
        });
        merge(&self.naming(), &servers.collect::<Vec<_>>())
    }

    /// The owner of a name, found by comparing each NAME.
    fn owner(&self, name: &str) -> Option<&ServerName> {
        let beginnings = self.beginnings();
        let begins = beginnings.into_iter().filter(|(_, it)| name.starts_with(it.as_str()));
        begins.max_by_key(|(_, it)| it.len()).map(|(server, _)| server)
    }
}

fn found(
    catalogue: &Catalogue,
    name: &str,
    sees: impl Fn(&Item) -> bool,
) -> Option<ServerName> {
    match catalogue.resolve(Kind::Tool, name, sees) {
        Resolution::Found(item) => Some(item.server.clone()),
        Resolution::Ambiguous(_) | Resolution::Unknown(_) => None,
    }
}

/// Checks every snapshot by itself: offered names fit and differ, each leads to its item, and so
/// does the full name.
fn check_whole(world: &World, all: &Catalogue) {
    let items = all.in_order(Kind::Tool);
    let distinct: BTreeSet<&String> = items.iter().map(|item| &item.offered).collect();
    assert_eq!(distinct.len(), items.len());
    for item in items {
        assert!(item.offered.chars().count() <= OFFERED_NAME_CHARS_MAX, "{item:?}");
        assert_eq!(found(all, &item.offered, |_| true), Some(item.server.clone()), "{item:?}");
        let full = format!("{}{}{}", item.server, world.separator, item.own);
        let is_offered = items.iter().any(|it| it.offered == full);
        // The name may end as another server's hash form, which an imitator has.
        let is_its = |owner: &ServerName| *owner == item.server;
        let ends_well = all.owners.of(&full).is_some_and(is_its);
        if world.owner(&full).is_some_and(is_its) && ends_well && !is_offered {
            let Resolution::Found(it) = all.resolve(Kind::Tool, &full, |_| true) else {
                panic!("{full} leads nowhere: {item:?}");
            };
            // Behind its alias, another tool of the same server may have the name.
            assert!(it.server == item.server && full.ends_with(&it.own), "{full}: {it:?}");
        }
        let is_plain = item.offered == item.own || item.offered == full;
        if is_plain && let Some(owner) = world.owner(&item.offered) {
            assert_eq!(owner, &item.server, "{item:?}");
        }
    }
}

#[test]
fn no_name_leads_to_a_server_that_it_is_not_given_to() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for _ in 0..WORLDS {
        let world = World::random(&mut random);
        let all = world.merged(&vec![true; world.servers.len()]);
        check_whole(&world, &all);
        let mut names: BTreeSet<String> = BTreeSet::new();
        for item in all.in_order(Kind::Tool) {
            names.extend([item.offered.clone(), item.own.clone(), item.qualified.clone()]);
            let n_chars = item.offered.chars().count().min(60);
            names.insert(item.offered.chars().take(n_chars).collect());
        }
        for (_, beginning) in world.beginnings() {
            names.extend(["x", "transfer", ""].map(|rest| format!("{beginning}{rest}")));
        }
        for _ in 0..6 {
            let are_up: Vec<bool> =
                world.servers.iter().map(|_| random.below(2) == 0).collect();
            let some = world.merged(&are_up);
            let hidden = random.pick(&world.servers).name.clone();
            let sees_all = random.below(2) == 0;
            for name in &names {
                let sees = |item: &Item| sees_all || item.server != hidden;
                let Some(server) = found(&some, name, sees) else { continue };
                // A hash form is offered for one server, and never for another.
                let mut items = all.in_order(Kind::Tool).iter();
                let is_form = |item: &Item| {
                    let plain = name.strip_suffix(&item.own);
                    plain.is_none_or(|it| !it.is_empty() && !it.ends_with(&world.separator))
                };
                let form = items.find(|item| item.offered == *name && is_form(item));
                let owner = form.map(|item| &item.server).or_else(|| world.owner(name));
                let is_right = owner.is_none_or(|owner| *owner == server);
                assert!(is_right, "{name:?} of {owner:?} leads to {server}");
            }
        }
    }
}
