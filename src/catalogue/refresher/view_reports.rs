//! The catalogue's thread: reports with views, the lists that only some clients see.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::merge::{self, Listed, Profile};
use super::super::pins::{Pins, Said, Subject};
use super::super::views::{ReadView, Shown};
use super::{Pinned, Refresher};
use crate::config::UpstreamConfig;
use crate::protocol::call::Kind;
use crate::protocol::raw::Raw;
use crate::protocol::view::ViewId;
use crate::upstream::{Event, Report};

impl Refresher {
    /// As `publish`, where the shared lists have not changed.
    pub(super) fn publish_views(&self) {
        let shown = (!self.views.is_empty()).then(|| {
            let known = self.views.known();
            let next = match self.shared.shown() {
                Some(shown) => shown.with_views(known),
                None => Shown::new(self.naming.clone(), Arc::new(self.listed()), known),
            };
            Arc::new(next)
        });
        self.shared.publish(self.shared.current(), shown);
    }

    /// Takes a report with a view; gives any other report back.
    pub(super) fn hear_view(&mut self, report: Report) -> Option<Report> {
        let Report { config, event } = report;
        let (id, used, lists, freshness, read_at, left_out, untold, reading) = match event {
            Event::View { id, used, lists, freshness, read_at, left_out, untold, reading } => {
                (id, used, lists, freshness, read_at, left_out, untold, reading)
            }
            // Waiting requests look again.
            Event::ViewFailed => return None,
            Event::NoView { id } => {
                self.drop_view(&config, id);
                return None;
            }
            event @ (Event::Ready { .. } | Event::Lists { .. } | Event::Failed { .. }) => {
                return Some(Report { config, event });
            }
        };
        let server = config.name.clone();
        let known = self.servers.get(&server).filter(|it| Arc::ptr_eq(&it.config, &config))?;
        let key = (server.clone(), id);
        // Items that are left out of the shared lists were logged.
        let left_out_before =
            self.views.left_out(&key).unwrap_or(&known.listed.server.left_out).clone();
        let mut read = ReadView {
            lists: Vec::new(),
            freshness,
            read_at,
            left_out: left_out_before,
            used,
            untold,
            by: reading.by().cloned(),
        };
        for (kind, items) in lists {
            let (named, unusable) = merge::usable(kind, items);
            read.left_out.note(&server, kind, unusable);
            read.lists.push((kind, named));
        }
        let (differing, n_over) = read.against(&known.listed);
        read.left_out.note_over_bounds(&server, left_out + n_over);
        let pinned = judge_view(&mut self.pins, &known.profile, &known.listed, &differing);
        let kinds = self.views.insert(key, read, &known.listed, pinned);
        self.publish_views();
        // The view is kept, so that another one can be read.
        drop((differing, reading));
        self.told_clashes.tell(&self.shared.seen_by(|| [id, id], &|_| Some(id), None).clashes);
        for kind in kinds {
            (self.tell_view)(&server, kind, id);
        }
        None
    }

    fn drop_view(&mut self, config: &Arc<UpstreamConfig>, id: ViewId) {
        let known = self.servers.get(&config.name);
        if known.is_some_and(|it| Arc::ptr_eq(&it.config, config))
            && self.views.remove(&(config.name.clone(), id))
        {
            self.publish_views();
        }
    }
}

/// Compares a view's items with the pins of its server, as with shared lists.
fn judge_view(
    pins: &mut Option<Pins>,
    profile: &Profile,
    shared: &Listed,
    differing: &[(Kind, String, Raw)],
) -> Option<Pinned> {
    let mut all = shared.server.pinned.clone();
    let Some(pins) = pins.as_mut().filter(|_| !differing.is_empty()) else { return all };
    let offered = differing
        .iter()
        .filter(|(kind, own, _)| *kind != Kind::Tool || profile.tools.admits(own));
    let items = offered
        .map(|(kind, own, object)| (Subject::of(*kind), own.as_str(), object.get().into()))
        .collect();
    let said = Said { items, whole: Vec::new() };
    let judged = pins.judge(&profile.name, profile.pin, &said)?;
    if let Some(all) = &mut all {
        for (subject, own, _) in &said.items {
            all.changed_mut(*subject).remove(*own);
            all.causes.remove(&(*subject, (*own).to_owned()));
        }
        all.causes.extend(judged.causes);
        all.n_pinned = judged.n_pinned;
        all.changed.extend(judged.changed);
        for (subject, changed) in judged.others {
            all.changed_mut(subject).extend(changed);
        }
    }
    let (changed, others) = (BTreeMap::new(), BTreeMap::new());
    let (pin, n_pinned, causes) = (profile.pin, judged.n_pinned, BTreeMap::new());
    let none = Pinned { pin, n_pinned, changed, others, causes };
    all.or(Some(none))
}
