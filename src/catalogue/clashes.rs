//! Log lines about names: those that are refused to a server, and those that a reload has
//! changed.

use std::collections::{HashMap, HashSet};

use super::{Catalogue, Clash, Clashes};
use crate::limits::{
    CLASHES_REMEMBERED_MAX, CLASHES_TOLD_MAX, RENAMED_A_LINE_MAX, RENAMED_TOLD_MAX,
};
use crate::protocol::call::Kind;
use crate::protocol::server_name::ServerName;
use crate::telemetry::Seldom;

/// The refused names that were logged. A name that its server takes back and lists again is not
/// logged again.
#[derive(Debug)]
pub(super) struct ToldClashes {
    told: HashSet<Clash>,
    n_further: usize,
    lines: Seldom,
}

impl Default for ToldClashes {
    fn default() -> ToldClashes {
        let lines = Seldom::up_to(CLASHES_TOLD_MAX);
        ToldClashes { told: HashSet::new(), n_further: 0, lines }
    }
}

impl ToldClashes {
    /// Logs each new clash.
    pub(super) fn tell(&mut self, clashes: &Clashes) {
        for clash in &clashes.told {
            if self.told.len() >= CLASHES_REMEMBERED_MAX {
                self.told.clear();
            }
            if self.told.insert(clash.clone())
                && let Some(behind) = self.lines.turn()
            {
                let Clash { kind, server, own, name, owner, offered } = clash;
                let kind = kind.noun();
                log::warn!(
                    target: "catalogue",
                    "{server}: the {kind} {own:?} is offered as {offered:?}: the name {name:?} is \
                    {owner}'s{behind}"
                );
            }
        }
        if clashes.n_further > self.n_further {
            let n = clashes.n_further;
            log::warn!(target: "catalogue", "{n} further names are refused to servers");
            self.n_further = n;
        }
    }
}

/// Logs the offered names that a reload has changed.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_and_goes_is_told_of_once_and_what_is_remembered_is_bounded() {
        let [a, b] = ["a", "b"].map(|it| ServerName::parse(it).unwrap());
        let clash = |own: &str| Clash {
            kind: Kind::Tool,
            server: a.clone(),
            own: own.to_owned(),
            name: own.to_owned(),
            owner: b.clone(),
            offered: format!("{own}_12345678"),
        };
        let mut told = ToldClashes::default();
        for _ in 0..3 {
            told.tell(&Clashes { told: vec![clash("b-x")], n_further: 1 });
            told.tell(&Clashes::default());
        }
        assert_eq!((told.told.len(), told.n_further), (1, 1));
        for n in 0..2 * CLASHES_REMEMBERED_MAX {
            told.tell(&Clashes { told: vec![clash(&format!("b-{n}"))], n_further: 0 });
        }
        assert!(told.told.len() <= CLASHES_REMEMBERED_MAX);
    }
}
