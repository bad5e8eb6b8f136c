//! Compares two snapshots: finds the servers of which another list is offered now than before,
//! whose clients are notified.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Catalogue, Item};
use crate::protocol::call::Kind;
use crate::protocol::server_name::ServerName;

/// The reason for another snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum News {
    /// Servers have listed, or pins were accepted.
    Lists,
    /// The configuration is another one.
    Configuration,
}

impl Catalogue {
    /// The servers whose offered items of a kind differ from those in `before`. Where servers
    /// have listed anew, names and links also change with other servers' lists: only the server
    /// that has listed anew counts, because a client that sees both is notified of that one, and
    /// no other client may learn of it.
    pub(super) fn differing(
        &self,
        before: &Catalogue,
        kind: Kind,
        news: News,
    ) -> Vec<ServerName> {
        let offered = |catalogue: &Catalogue| {
            let mut by_server: BTreeMap<ServerName, Vec<Arc<Item>>> = BTreeMap::new();
            for item in catalogue.items(kind) {
                by_server.entry(item.server.clone()).or_default().push(item.clone());
            }
            by_server.values_mut().for_each(|items| items.sort_by(|a, b| a.own.cmp(&b.own)));
            by_server
        };
        let (before, after) = (offered(before), offered(self));
        let both: BTreeSet<&ServerName> = before.keys().chain(after.keys()).collect();
        let looks_same = |(a, b): (&Arc<Item>, &Arc<Item>)| {
            let is_own_same = || a.own == b.own && a.own_object == b.own_object;
            let is_offered_same =
                || a.offered == b.offered && a.offered_object == b.offered_object;
            Arc::ptr_eq(a, b)
                || match news {
                    News::Lists => is_own_same(),
                    News::Configuration => is_offered_same(),
                }
        };
        let is_same = |name: &ServerName| match (before.get(name), after.get(name)) {
            (Some(a), Some(b)) => a.len() == b.len() && a.iter().zip(b).all(looks_same),
            (before, after) => before.is_none() && after.is_none(),
        };
        both.into_iter().filter(|name| !is_same(name)).cloned().collect()
    }
}
