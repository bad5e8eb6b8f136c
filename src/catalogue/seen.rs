//! Items for clients that see only some servers: such an item must not show that there are other
//! servers.
//!
//! The items of earlier servers decide if a URI, or a name without a prefix, stands as its server
//! has it; and links depend on other servers' items. Neither may show a server that the client
//! may not see.

use std::collections::HashMap;
use std::sync::Arc;

use super::merge::renamed;
use super::name::split_server;
use super::{Catalogue, Item, Steps};
use crate::limits::SEEN_ITEMS_MAX;
use crate::protocol::call::Kind;
use crate::protocol::links;
use crate::protocol::raw::Raw;
use crate::protocol::server_name::ServerName;
use crate::sync::Mutex;

/// The servers and items that a client sees.
pub struct Sight<'a> {
    /// The servers, sorted by name.
    pub servers: &'a [ServerName],
    /// Returns true for the items.
    pub sees: &'a dyn Fn(&Item) -> bool,
}

impl Sight<'_> {
    fn sees_server(&self, server: &ServerName) -> bool {
        self.servers.contains(server)
    }
}

/// Items with links as some clients see them, shared so that pages are the same for all clients
/// that see the same servers.
#[derive(Debug, Default)]
pub(super) struct SeenItems(Mutex<HashMap<SeenKey, Arc<Item>>>);

#[derive(Debug, PartialEq, Eq, Hash)]
struct SeenKey {
    kind: Kind,
    offered: String,
    /// True if the item has its plain name.
    is_plain: bool,
    servers: Box<[ServerName]>,
}

impl SeenItems {
    fn get(&self, key: &SeenKey) -> Option<Arc<Item>> {
        self.0.lock().get(key).cloned()
    }

    fn keep(&self, key: SeenKey, item: Arc<Item>) -> Arc<Item> {
        let mut items = self.0.lock();
        if items.len() >= SEEN_ITEMS_MAX {
            items.clear();
        }
        items.entry(key).or_insert(item).clone()
    }
}

impl Catalogue {
    /// The item for clients with this sight. Where the steps are too few, a link names its
    /// server, which is never wrong.
    pub fn as_seen(&self, item: &Arc<Item>, sight: &Sight<'_>, steps: &mut Steps) -> Arc<Item> {
        let Some(alone) = &item.alone else { return item.clone() };
        let is_plain = self.is_plain(item, sight.sees, &|it| sight.sees_server(it));
        let sees_all = sight.servers.len() == self.servers.len();
        match sight.servers {
            [_] if is_plain => return alone.clone(),
            _ if !links::may_hold_in_item(item.own_object.get()) => {
                return if is_plain { alone.clone() } else { item.clone() };
            }
            _ if sees_all && item.offered == self.name_if(item, is_plain) => {
                return item.clone();
            }
            _ => (),
        }
        let (offered, servers) = (item.offered.clone(), sight.servers.into());
        let key = SeenKey { kind: item.kind, offered, is_plain, servers };
        if let Some(known) = self.seen.get(&key) {
            return known;
        }
        let name = self.name_if(item, is_plain);
        let plain = renamed(item.kind, &item.own_object, &item.own, name);
        let seen = Item {
            kind: item.kind,
            server: item.server.clone(),
            own: item.own.clone(),
            offered: name.to_owned(),
            qualified: item.qualified.clone(),
            offered_object: self.led_back_for(item, plain, sight, steps),
            own_object: item.own_object.clone(),
            is_withheld: item.is_withheld,
            mirrors: item.mirrors.clone(),
            output: item.output,
            label: item.label.clone(),
            alone: None,
        };
        self.seen.keep(key, Arc::new(seen))
    }

    fn led_back_for(
        &self,
        item: &Item,
        object: Raw,
        sight: &Sight<'_>,
        steps: &mut Steps,
    ) -> Raw {
        if sight.servers.len() < 2 {
            return object;
        }
        let sees = |server: &ServerName| sight.sees_server(server);
        let mut instead = |uri: &str| self.instead_of(&item.server, uri, &sees, steps);
        links::in_item(object.get(), &mut instead).map_or(object, Raw::from_valid)
    }

    /// The name of an item for clients that see these items.
    pub(super) fn name_seen<'a>(
        &self,
        item: &'a Item,
        sees: &dyn Fn(&Item) -> bool,
    ) -> &'a str {
        self.name_if(item, self.is_plain(item, sees, &|_| true))
    }

    fn name_if<'a>(&self, item: &'a Item, is_plain: bool) -> &'a str {
        let plain = item.alone.as_ref().filter(|_| is_plain);
        plain.map_or(&item.offered, |alone| &alone.offered)
    }

    /// True if the item can have its plain name: no earlier server that is seen has that name,
    /// and it belongs to no other server that is seen.
    fn is_plain(
        &self,
        item: &Item,
        sees: &dyn Fn(&Item) -> bool,
        sees_server: &dyn Fn(&ServerName) -> bool,
    ) -> bool {
        let Some(alone) = &item.alone else { return false };
        if alone.offered == item.offered {
            return true;
        }
        let is_uri = match item.kind {
            Kind::Resource | Kind::Template => true,
            Kind::Tool | Kind::Prompt => false,
        };
        let marked = split_server(&item.own).filter(|_| is_uri);
        let owner = marked.and_then(|(name, _)| self.owners.server(name));
        if owner.is_some_and(|owner| *owner != item.server && sees_server(owner)) {
            return false;
        }
        let first = self.called(item.kind, &item.own).iter().find(|it| sees(it));
        first.is_some_and(|first| first.server == item.server)
    }
}
