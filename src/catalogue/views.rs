//! What only some clients see: a server's lists may depend on what a client declares. Only what
//! differs from what all see is kept, by server and by what is declared.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::left_out::LeftOut;
use super::merge::{self, Listed, Named, Profile};
use super::{Catalogue, Pinned};
use crate::config::Naming;
use crate::limits::{
    LIST_TTL_MIN, REFRESH_INTERVAL, VIEW_CATALOGUES_MAX, VIEW_IDLE, VIEWS_BYTES_MAX,
};
use crate::protocol::call::Kind;
use crate::protocol::listed_item::Malformed;
use crate::protocol::modern::Freshness;
use crate::protocol::server_name::ServerName;
use crate::protocol::view::{Untold, ViewId};

/// Whose view of which server.
pub type Key = (ServerName, ViewId);

/// One server's lists as clients see them that declare the same.
#[derive(Debug)]
pub struct View {
    /// Those that differ from what all see; the others follow that.
    lists: HashMap<Kind, Named>,
    pinned: Option<Pinned>,
    read: HashMap<Kind, (Freshness, Instant)>,
    /// When it was read.
    read_at: Instant,
    /// It may have changed since.
    is_stale: AtomicBool,
    /// When it was used last, in microseconds after it was read.
    used_us: AtomicU64,
    n_bytes: usize,
    left_out: LeftOut,
}

impl View {
    fn touch(&self) {
        let us = u64::try_from(self.read_at.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.used_us.fetch_max(us, Ordering::Relaxed);
    }

    fn used_at(&self) -> Instant {
        self.read_at + Duration::from_micros(self.used_us.load(Ordering::Relaxed))
    }

    fn is_old(&self) -> bool {
        let is_over = |(said, read_at): &(Freshness, Instant)| {
            let ttl = Duration::from_millis(said.ttl_ms).max(LIST_TTL_MIN);
            said.ttl_ms > 0 && read_at.elapsed() > ttl
        };
        self.is_stale.load(Ordering::Relaxed)
            || self.read_at.elapsed() > REFRESH_INTERVAL
            || self.read.values().any(is_over)
    }

    /// A server's lists with this in place of what all see.
    fn over(&self, shared: &Listed) -> Listed {
        let mut listed = shared.clone();
        listed.lists.extend(self.lists.iter().map(|(kind, list)| (*kind, list.clone())));
        listed.server.read.extend(self.read.iter().map(|(kind, it)| (*kind, *it)));
        if self.lists.contains_key(&Kind::Tool) {
            listed.server.pinned = self.pinned.clone();
        }
        listed
    }
}

/// What was read of a server for some clients.
#[derive(Debug)]
pub(super) struct ReadView {
    pub(super) lists: Vec<(Kind, Named)>,
    pub(super) freshness: Vec<(Kind, Freshness)>,
    pub(super) read_at: Instant,
    pub(super) left_out: LeftOut,
    pub(super) untold: Untold,
}

impl ReadView {
    /// Finds what all see, too; gives the tools that are not among that.
    pub(super) fn against(&mut self, shared: &Listed) -> Named {
        let mut differing = Vec::new();
        for (kind, list) in &mut self.lists {
            let known = shared.lists.get(kind).into_iter().flatten();
            let known: HashMap<&str, _> = known.map(|(own, it)| (own.as_str(), it)).collect();
            for (own, object) in list {
                match known.get(own.as_str()) {
                    // Their text stands in memory once.
                    Some(same) if *same == object => *object = (*same).clone(),
                    Some(_) | None if *kind == Kind::Tool => {
                        differing.push((own.clone(), object.clone()));
                    }
                    Some(_) | None => (),
                }
            }
        }
        differing
    }
}

/// All views, as the thread that rebuilds the snapshot has them.
#[derive(Debug)]
pub(super) struct Views {
    max: usize,
    views: HashMap<Key, Arc<View>>,
}

impl Views {
    pub(super) fn new(max: usize) -> Views {
        Views { max, views: HashMap::new() }
    }

    /// Keeps a view; the ones that were not used for longest make room. Gives the kinds of which
    /// clients are to be told: it shows something else than before, or nobody knows any more what
    /// it showed and its server says that this has changed.
    pub(super) fn insert(
        &mut self,
        key: Key,
        read: ReadView,
        shared: &Listed,
        pinned: Option<Pinned>,
    ) -> Vec<Kind> {
        let old = self.views.remove(&key);
        let mut lists: HashMap<Kind, Named> = read.lists.into_iter().collect();
        // What could not be had this time stands.
        for (kind, list) in old.iter().flat_map(|old| &old.lists) {
            lists.entry(*kind).or_insert_with(|| list.clone());
        }
        lists.retain(|kind, list| {
            shared.lists.get(kind).map_or(!list.is_empty(), |shared| shared != list)
        });
        let is_shown = old.is_some() || read.untold.is_missed;
        let kinds = Kind::ALL.into_iter().filter(|kind| {
            if old.is_none() && read.untold.announced.contains(kind) {
                return true;
            }
            let before = old.as_ref().and_then(|old| old.lists.get(kind));
            let before = before.or_else(|| shared.lists.get(kind)).map_or(&[][..], |it| it);
            let now = lists.get(kind).or_else(|| shared.lists.get(kind));
            is_shown && before != now.map_or(&[][..], |it| it)
        });
        let told = kinds.collect();
        let n_bytes =
            lists.values().flatten().map(|(own, it)| own.len() + it.get().len()).sum();
        if n_bytes > VIEWS_BYTES_MAX {
            let (server, _) = &key;
            log::warn!(target: "catalogue", "{server}: what only some clients see has more than \
                {VIEWS_BYTES_MAX} bytes and is not offered");
            return Vec::new();
        }
        self.make_room(n_bytes);
        let view = View {
            lists,
            pinned,
            read: read
                .freshness
                .into_iter()
                .map(|(kind, it)| (kind, (it, read.read_at)))
                .collect(),
            read_at: read.read_at,
            is_stale: AtomicBool::new(false),
            used_us: AtomicU64::new(0),
            n_bytes,
            left_out: read.left_out,
        };
        if let Some(old) = old {
            let used = old.used_at().saturating_duration_since(view.read_at);
            view.used_us.store(u64::try_from(used.as_micros()).unwrap_or(0), Ordering::Relaxed);
        }
        self.views.insert(key, Arc::new(view));
        told
    }

    fn make_room(&mut self, n_bytes: usize) {
        loop {
            let used: usize = self.views.values().map(|view| view.n_bytes).sum();
            if self.views.len() < self.max && used + n_bytes <= VIEWS_BYTES_MAX {
                return;
            }
            let oldest = self.views.iter().min_by_key(|(_, view)| view.used_at());
            let Some(oldest) = oldest.map(|(key, _)| key.clone()) else { return };
            self.views.remove(&oldest);
        }
    }

    /// What all see of a server has changed, and what some see may have.
    pub(super) fn may_have_changed(&self, server: &ServerName) {
        for ((of, _), view) in &self.views {
            if of == server {
                view.is_stale.store(true, Ordering::Relaxed);
            }
        }
    }

    /// Drops the views of servers of which `stays` says nothing. Gives whether there were any.
    pub(super) fn retain(&mut self, stays: impl Fn(&ServerName) -> bool) -> bool {
        let before = self.views.len();
        self.views.retain(|(server, _), _| stays(server));
        self.views.len() != before
    }

    /// Drops those that nobody has used for long. Gives whether there were any.
    pub(super) fn sweep(&mut self) -> bool {
        let before = self.views.len();
        self.views.retain(|_, view| view.used_at().elapsed() < VIEW_IDLE);
        self.views.len() != before
    }

    /// What is left out of a view that is known.
    pub(super) fn left_out(&self, key: &Key) -> Option<&LeftOut> {
        self.views.get(key).map(|view| &view.left_out)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.views.is_empty()
    }

    pub(super) fn known(&self) -> HashMap<Key, Arc<View>> {
        self.views.clone()
    }
}

/// What a published snapshot shows to some clients.
#[derive(Debug)]
pub(super) struct Shown {
    naming: Naming,
    /// What all see.
    servers: Vec<(Profile, Listed)>,
    views: HashMap<Key, Arc<View>>,
    /// Merged when first wanted; by the views that differ.
    merged: Mutex<HashMap<BTreeSet<Key>, Arc<Catalogue>>>,
}

impl Shown {
    pub(super) fn new(
        naming: Naming,
        servers: Vec<(Profile, Listed)>,
        views: HashMap<Key, Arc<View>>,
    ) -> Shown {
        Shown { naming, servers, views, merged: Mutex::default() }
    }

    /// What is known of a view: whether it should be read again.
    pub(super) fn is_old(&self, key: &Key) -> Option<bool> {
        let view = self.views.get(key)?;
        view.touch();
        Some(view.is_old())
    }

    /// How many views there are of a server, and what is left out of them that can be named.
    pub(super) fn told_of(&self, server: &ServerName) -> (usize, Vec<(Kind, Malformed)>) {
        let mut items: Vec<(Kind, Malformed)> = Vec::new();
        let of_server = || self.views.iter().filter(|((of, _), _)| of == server);
        for (kind, item) in of_server().flat_map(|(_, view)| view.left_out.named()) {
            if !items.iter().any(|(of, it)| *of == kind && it == item) {
                items.push((kind, item.clone()));
            }
        }
        (of_server().count(), items)
    }

    /// What clients see of these views; none where that is what all see.
    pub(super) fn catalogue(
        &self,
        ids: [ViewId; 2],
        shared: &Catalogue,
    ) -> Option<Arc<Catalogue>> {
        let mut keys = BTreeSet::new();
        for (profile, _) in &self.servers {
            // A server has one or the other; both only where it has just changed its era.
            for id in ids {
                let key = (profile.name.clone(), id);
                if let Some(view) = self.views.get(&key) {
                    view.touch();
                    if !view.lists.is_empty() {
                        keys.insert(key);
                    }
                    break;
                }
            }
        }
        if keys.is_empty() {
            return None;
        }
        let mut merged = self.merged.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = merged.get(&keys) {
            return Some(known.clone());
        }
        let mut servers = self.servers.clone();
        for (profile, listed) in &mut servers {
            let of = |key: &&Key| key.0 == profile.name;
            if let Some(view) = keys.iter().find(of).and_then(|key| self.views.get(key)) {
                *listed = view.over(listed);
            }
        }
        let catalogue = merge::merge(&self.naming, &servers).sharing(shared);
        let catalogue = Arc::new(catalogue);
        if merged.len() >= VIEW_CATALOGUES_MAX {
            merged.clear();
        }
        merged.insert(keys, catalogue.clone());
        Some(catalogue)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::glob::Globs;
    use crate::config::{Pin, Prefix};
    use crate::protocol::raw::Raw;

    fn name(text: &str) -> ServerName {
        ServerName::parse(text).unwrap()
    }

    fn tools(names: &[&str]) -> Named {
        let text = |own: &&str| {
            let object = format!(r#"{{"name":"{own}","inputSchema":{{"type":"object"}}}}"#);
            ((*own).to_owned(), Raw::from_valid(object))
        };
        names.iter().map(text).collect()
    }

    fn listed(names: &[&str]) -> Listed {
        let lists = HashMap::from([(Kind::Tool, tools(names))]);
        Listed { lists, ..Listed::default() }
    }

    fn read(lists: &[(Kind, &[&str])]) -> ReadView {
        let lists = lists.iter().map(|(kind, names)| (*kind, tools(names))).collect();
        let (read_at, left_out) = (Instant::now(), LeftOut::default());
        let untold = Untold::default();
        ReadView { lists, freshness: Vec::new(), read_at, left_out, untold }
    }

    fn key(n: u32) -> Key {
        (name("s"), ViewId::of_session(&n.to_string()))
    }

    fn has(views: &Views, n: u32) -> bool {
        views.views.contains_key(&key(n))
    }

    #[test]
    fn only_what_differs_is_kept_and_told_of() {
        let (shared, mut views) = (listed(&["a"]), Views::new(8));
        let mut same = read(&[(Kind::Tool, &["a"]), (Kind::Prompt, &[])]);
        assert!(same.against(&shared).is_empty());
        assert_eq!(views.insert(key(1), same, &shared, None), []);
        let mut more = read(&[(Kind::Tool, &["a", "b"]), (Kind::Prompt, &["p"])]);
        assert_eq!(more.against(&shared), tools(&["b"]));
        let differing = views.insert(key(1), more, &shared, None);
        assert_eq!(differing, [Kind::Tool, Kind::Prompt]);
        // A list that could not be had stands.
        let prompts = views.insert(key(1), read(&[(Kind::Prompt, &[])]), &shared, None);
        assert_eq!(prompts, [Kind::Prompt]);
        let back = views.insert(key(1), read(&[(Kind::Tool, &["a"])]), &shared, None);
        assert_eq!(back, [Kind::Tool]);
    }

    #[test]
    fn of_a_view_that_is_not_known_those_who_may_have_seen_another_are_told() {
        let (shared, mut views) = (listed(&["a"]), Views::new(8));
        let more = || read(&[(Kind::Tool, &["a", "b"])]);
        assert_eq!(
            views.insert(key(1), more(), &shared, None),
            [],
            "whoever asked is given it"
        );
        let mut missed = more();
        missed.untold.is_missed = true;
        assert_eq!(views.insert(key(2), missed, &shared, None), [Kind::Tool]);
        let announced = || {
            let mut same = read(&[(Kind::Tool, &["a"])]);
            same.untold.announced = vec![Kind::Tool];
            same
        };
        assert_eq!(views.insert(key(3), announced(), &shared, None), [Kind::Tool]);
        assert_eq!(views.insert(key(3), announced(), &shared, None), [], "it is known by now");
    }

    #[test]
    fn the_view_that_was_not_used_for_longest_makes_room() {
        let (shared, mut views) = (listed(&["a"]), Views::new(2));
        for n in [1, 2] {
            views.insert(key(n), read(&[(Kind::Tool, &["b"])]), &shared, None);
        }
        views.views[&key(1)].touch();
        views.insert(key(3), read(&[(Kind::Tool, &["b"])]), &shared, None);
        assert!(has(&views, 1) && has(&views, 3) && !has(&views, 2));
        assert!(views.retain(|_| false) && views.is_empty());
    }

    #[test]
    fn bytes_are_bounded_over_all_views() {
        let (shared, mut views) = (listed(&[]), Views::new(8));
        let large = |bytes: usize| {
            let mut view = read(&[]);
            let object = Raw::from_valid(format!("\"{}\"", "x".repeat(bytes)));
            view.lists.push((Kind::Tool, vec![("a".to_owned(), object)]));
            view
        };
        for n in 1..=3 {
            views.insert(key(n), large(VIEWS_BYTES_MAX / 2 - 16), &shared, None);
        }
        assert_eq!(views.views.len(), 2);
        views.insert(key(4), large(VIEWS_BYTES_MAX), &shared, None);
        assert!(!has(&views, 4), "it would not fit alone");
    }

    #[test]
    fn a_catalogue_of_some_shares_what_all_see() {
        let naming = Naming::new(Prefix::Never, "-", [(&name("s"), None)]);
        let profile =
            Profile { name: name("s"), alias: None, tools: Globs::default(), pin: Pin::Off };
        let servers = vec![(profile, listed(&["a"]))];
        let shared = merge::merge(&naming, &servers);
        let mut views = Views::new(8);
        let id = key(1).1;
        let mut more = read(&[(Kind::Tool, &["a", "b"])]);
        more.against(&servers[0].1);
        views.insert(key(1), more, &servers[0].1, None);
        let shown = Shown::new(naming, servers, views.known());
        let other = ViewId::of_request("{}");
        assert!(shown.catalogue([other, other], &shared).is_none());
        let seen = shown.catalogue([id, other], &shared).unwrap();
        let own: Vec<&str> = seen.items(Kind::Tool).iter().map(|it| it.own.as_str()).collect();
        assert_eq!(own, ["a", "b"]);
        assert!(Arc::ptr_eq(&seen.items(Kind::Tool)[0], &shared.items(Kind::Tool)[0]));
        assert!(Arc::ptr_eq(&seen, &shown.catalogue([id, other], &shared).unwrap()));
    }
}
