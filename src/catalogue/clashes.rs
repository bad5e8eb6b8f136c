//! What operators are told of names: those that are refused to a server, and those that a reload
//! has changed.

use std::collections::{HashMap, HashSet};

use super::{Catalogue, Clash};
use crate::limits::{RENAMED_A_LINE_MAX, RENAMED_TOLD_MAX};
use crate::protocol::call::Kind;
use crate::protocol::server_name::ServerName;

/// Tells of each name that is refused in `next` and was not before, once.
pub(super) fn tell_of_new(before: &Catalogue, next: &Catalogue) {
    let known: HashSet<&Clash> = before.clashes.told.iter().collect();
    for clash in next.clashes.told.iter().filter(|clash| !known.contains(clash)) {
        let Clash { kind, server, own, name, owner, offered } = clash;
        let kind = kind.noun();
        log::warn!(
            target: "catalogue",
            "{server}: the {kind} {own:?} is offered as {offered:?}: the name {name:?} is {owner}'s"
        );
    }
    let (old, new) = (before.clashes.n_further, next.clashes.n_further);
    if new > old {
        log::warn!(target: "catalogue", "{new} further names are refused to servers");
    }
}

/// Tells which offered names a reload has changed.
pub(super) fn tell_of_renamed(before: &Catalogue, after: &Catalogue) {
    let mut n_told = 0;
    let mut n_further = 0;
    for kind in Kind::ALL {
        let mut by_server: Vec<(&ServerName, Vec<String>)> = Vec::new();
        for (server, old, new) in renamed(before, after, kind) {
            if n_told == RENAMED_TOLD_MAX {
                n_further += 1;
                continue;
            }
            n_told += 1;
            let told = format!("{old:?} is now {new:?}");
            match by_server.last_mut() {
                Some((last, all)) if *last == server => all.push(told),
                Some(_) | None => by_server.push((server, vec![told])),
            }
        }
        for (server, all) in by_server {
            for some in all.chunks(RENAMED_A_LINE_MAX) {
                let (kind, names) = (kind.list_key(), some.join(", "));
                log::info!(target: "catalogue", "{server}: {kind} have other names: {names}");
            }
        }
    }
    if n_further > 0 {
        log::info!(target: "catalogue", "{n_further} further items have other names");
    }
}

/// Items that are offered under another name than before, in the order of the configuration.
fn renamed<'a>(
    before: &'a Catalogue,
    after: &'a Catalogue,
    kind: Kind,
) -> impl Iterator<Item = (&'a ServerName, &'a str, &'a str)> {
    let old: HashMap<(&str, &str), &str> = before
        .in_order(kind)
        .iter()
        .map(|item| ((item.server.as_str(), item.own.as_str()), item.offered.as_str()))
        .collect();
    after.in_order(kind).iter().filter_map(move |item| {
        let old = old.get(&(item.server.as_str(), item.own.as_str()))?;
        (*old != item.offered).then_some((&item.server, *old, item.offered.as_str()))
    })
}
