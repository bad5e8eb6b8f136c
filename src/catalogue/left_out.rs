//! Items that a server lists and the gateway does not offer: their number, names and reasons.

use std::collections::HashMap;
use std::sync::Arc;

use crate::limits::{LEFT_OUT_NAMED_MAX, VIEW_BYTES_MAX};
use crate::protocol::call::Kind;
use crate::protocol::listed_item::Malformed;
use crate::protocol::server_name::ServerName;
use crate::telemetry::Seldom;

/// The items of one list that cannot be offered.
#[derive(Debug, Clone, Default)]
pub struct Unusable {
    n: usize,
    /// The first of these items.
    named: Vec<Malformed>,
}

impl Unusable {
    /// Adds an item.
    pub fn add(&mut self, item: Malformed) {
        self.n += 1;
        if self.named.len() < LEFT_OUT_NAMED_MAX {
            self.named.push(item);
        }
    }

    /// The number of items.
    pub fn count(&self) -> usize {
        self.n
    }
}

/// The items of one server that are not offered.
#[derive(Debug, Clone)]
pub struct LeftOut {
    over_bounds: usize,
    unusable: HashMap<Kind, Unusable>,
    /// Limits the log lines, since the server's lists may change every second.
    lines: Arc<Seldom>,
}

impl Default for LeftOut {
    fn default() -> LeftOut {
        let lines = Arc::new(Seldom::up_to(LEFT_OUT_NAMED_MAX));
        LeftOut { over_bounds: 0, unusable: HashMap::new(), lines }
    }
}

impl LeftOut {
    /// Sets the number of items in all lists that were over a bound when the lists were read
    /// last, or that an earlier process has left out.
    pub fn set_over_bounds(&mut self, n: usize) {
        self.over_bounds = n;
    }

    /// As `set_over_bounds`, for a list that only some clients see; a new number is logged.
    pub fn note_over_bounds(&mut self, server: &ServerName, n: usize) {
        if n > 0
            && n != self.over_bounds
            && let Some(behind) = self.lines.turn()
        {
            log::warn!(
                target: "catalogue",
                "{server}: of what only some clients see {n} items are left out: they are more \
                than limits.upstream_tools, or than {VIEW_BYTES_MAX} bytes{behind}"
            );
        }
        self.over_bounds = n;
    }

    /// The number of items over a bound.
    pub fn over_bounds(&self) -> usize {
        self.over_bounds
    }

    /// The number of items that are not offered.
    pub fn count(&self) -> usize {
        self.over_bounds + self.unusable.values().map(|unusable| unusable.n).sum::<usize>()
    }

    /// The items that can be named, each with its kind.
    pub fn named(&self) -> impl Iterator<Item = (Kind, &Malformed)> {
        Kind::ALL.into_iter().flat_map(|kind| {
            let unusable = self.unusable.get(&kind);
            unusable.into_iter().flat_map(move |it| it.named.iter().map(move |it| (kind, it)))
        })
    }

    /// Sets the unusable items of a list, and logs those that were not there the last time.
    pub fn note(&mut self, server: &ServerName, kind: Kind, unusable: Unusable) {
        let before = self.unusable.remove(&kind).unwrap_or_default();
        for item in unusable.named.iter().filter(|item| !before.named.contains(item)) {
            let Some(behind) = self.lines.turn() else { continue };
            let (kind, reason) = (kind.as_str(), &item.reason);
            match &item.name {
                Some(name) => log::warn!(
                    target: "catalogue",
                    "{server}: the {kind} {name:?} is left out: {reason}{behind}"
                ),
                None => log::warn!(
                    target: "catalogue",
                    "{server}: a {kind} is left out: {reason}{behind}"
                ),
            }
        }
        let unnamed = unusable.n - unusable.named.len();
        if unnamed > 0 && before.n != unusable.n {
            log::warn!(
                target: "catalogue",
                "{server}: {unnamed} more of its {} are left out", kind.list_key()
            );
        }
        self.unusable.insert(kind, unusable);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unusable(n: usize) -> Unusable {
        let mut unusable = Unusable::default();
        for n in 0..n {
            unusable.add(Malformed { name: Some(n.to_string()), reason: "r".to_owned() });
        }
        unusable
    }

    #[test]
    fn all_are_counted_and_the_first_are_named() {
        let server = ServerName::parse("s").unwrap();
        let mut left_out = LeftOut::default();
        left_out.set_over_bounds(7);
        left_out.note(&server, Kind::Prompt, unusable(2));
        left_out.note(&server, Kind::Tool, unusable(LEFT_OUT_NAMED_MAX + 3));
        assert_eq!(left_out.count(), 7 + 2 + LEFT_OUT_NAMED_MAX + 3);
        let named: Vec<Kind> = left_out.named().map(|(kind, _)| kind).collect();
        assert_eq!(named.len(), LEFT_OUT_NAMED_MAX + 2);
        assert_eq!(named.last(), Some(&Kind::Prompt));
        left_out.note(&server, Kind::Tool, unusable(0));
        assert_eq!(left_out.count(), 9);
    }
}
