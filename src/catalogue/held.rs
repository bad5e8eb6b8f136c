//! The bytes of memory that a snapshot of the lists holds, as `/status` shows them.

use super::published::Snapshot;
use super::{Catalogue, Item, Shared};
use crate::protocol::call::Kind;

/// Bytes of items in memory.
#[derive(Debug, Clone, Copy, Default)]
pub struct HeldBytes {
    /// The bytes of items that only some clients see.
    pub views: usize,
    /// The bytes of items that all clients see.
    pub lists: usize,
}

impl Shared {
    /// The bytes that the present snapshot holds.
    pub fn held_bytes(&self) -> HeldBytes {
        let Snapshot { catalogue, shown } = self.read().clone();
        let views = shown.map(|shown| shown.n_bytes()).unwrap_or_default();
        HeldBytes { views, lists: catalogue.n_bytes() }
    }
}

impl Catalogue {
    /// The bytes of all items, both as their servers wrote them and as they are offered.
    fn n_bytes(&self) -> usize {
        let of = |item: &Item| {
            let forms = [Some(item), item.alone.as_deref()];
            let offered = forms.into_iter().flatten().map(|it| &it.offered_object);
            let offered: usize = offered.map(|it| it.len_beside(&item.own_object)).sum();
            item.own_object.get().len() + offered
        };
        let items = Kind::ALL.into_iter().flat_map(|kind| self.in_order(kind));
        items.map(|item| of(item)).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::access::glob::Globs;
    use crate::catalogue::merge::{self, Listed, Named, Profile};
    use crate::config::{Naming, Pin, Prefix};
    use crate::protocol::listed_item::Taken;
    use crate::protocol::pieces::Usage;
    use crate::protocol::raw::Raw;
    use crate::protocol::server_name::ServerName;

    const ITEMS: usize = 900;

    /// A list as it is read, whose first items differ from those before.
    fn read(n_items: usize, n_changed: usize) -> Named {
        let mut taken = Taken::default();
        for n in 0..n_items {
            let text = "x".repeat(1000 + usize::from(n < n_changed));
            let schema = r#""inputSchema":{"type":"object"}"#;
            let tool = format!(r#"{{"name":"t{n}","description":"{text}",{schema}}}"#);
            taken.take(Kind::Tool, &tool);
        }
        merge::usable(Kind::Tool, taken.items()).0
    }

    #[track_caller]
    fn assert_compact<'a>(texts: impl Iterator<Item = &'a Raw> + Clone) {
        let bytes: usize = texts.clone().map(|text| text.get().len()).sum();
        let held = Usage::of(texts).held_bytes();
        assert!(held <= 2 * bytes, "{held} bytes are held of {bytes}");
    }

    #[test]
    fn what_a_list_holds_goes_with_its_items_however_it_changes() {
        let name = ServerName::parse("s").unwrap();
        let naming = Naming::new(Prefix::Always, "-", [(&name, None)]);
        let (label, tools) = (Default::default(), Globs::default());
        let profile = Profile { name, label, tools, pin: Pin::Off };
        let (mut catalogue, mut known) = (Catalogue::default(), Named::new());
        let change = |n: usize| (ITEMS, n * ITEMS / 40);
        for (n_items, n_changed) in (0..=40).map(change).chain([(3, 0), (2, 1)]) {
            let mut list = read(n_items, n_changed);
            merge::share(&mut list, &known);
            known = list.clone();
            let lists = HashMap::from([(Kind::Tool, list)]);
            let servers = [(profile.clone(), Listed { lists, ..Listed::default() })];
            catalogue = merge::merge_after(&catalogue, &naming, &servers, &|| true).unwrap();
            assert_compact(known.iter().map(|(_, object)| object));
            let items = catalogue.items(Kind::Tool);
            assert_eq!(items.len(), n_items);
            assert_compact(items.iter().map(|item| &item.own_object));
            assert_compact(items.iter().map(|item| &item.offered_object));
            assert!(catalogue.n_bytes() < 2 * n_items * 1200);
        }
    }
}
