//! What a snapshot holds of memory, for people to see.

use super::{Catalogue, Item, Shared, Snapshot};
use crate::protocol::call::Kind;

/// Bytes of items.
#[derive(Debug, Clone, Copy, Default)]
pub struct HeldBytes {
    /// Of what only some clients see.
    pub views: usize,
    /// Of what all see.
    pub lists: usize,
}

impl Shared {
    /// What the snapshot holds as it is now.
    pub fn held_bytes(&self) -> HeldBytes {
        let Snapshot { catalogue, shown } = self.read().clone();
        let views = shown.map(|shown| shown.n_bytes()).unwrap_or_default();
        HeldBytes { views, lists: catalogue.n_bytes() }
    }
}

impl Catalogue {
    /// Of all items, as their servers wrote them and as they are offered.
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
