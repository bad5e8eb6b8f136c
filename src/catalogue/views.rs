//! What only some clients see: a server's lists may depend on what a client declares. Only what
//! differs from what all see is kept, by server and by what is declared.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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
use crate::protocol::raw::Raw;
use crate::protocol::server_name::ServerName;
use crate::protocol::view::{LastUse, Untold, ViewId};

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
    /// When it was used last, also before it was read again.
    used: Arc<LastUse>,
    n_bytes: usize,
    /// It has more than may be kept, so that what all see is served.
    is_too_large: bool,
    left_out: LeftOut,
}

impl View {
    fn touch(&self) {
        self.used.note(Instant::now());
    }

    fn differs(&self) -> bool {
        !self.lists.is_empty()
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
        if self.differs() {
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
    pub(super) used: Arc<LastUse>,
}

impl ReadView {
    /// Finds what all see, too; gives the items that are not among that.
    pub(super) fn against(&mut self, shared: &Listed) -> Vec<(Kind, String, Raw)> {
        let mut differing = Vec::new();
        for (kind, list) in &mut self.lists {
            let known = shared.lists.get(kind).into_iter().flatten();
            let known: HashMap<&str, _> = known.map(|(own, it)| (own.as_str(), it)).collect();
            for (own, object) in list {
                match known.get(own.as_str()) {
                    // Their text stands in memory once.
                    Some(same) if *same == object => *object = (*same).clone(),
                    Some(_) | None => differing.push((*kind, own.clone(), object.clone())),
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
        let mut n_bytes =
            lists.values().flatten().map(|(own, it)| own.len() + it.get().len()).sum();
        let is_too_large = n_bytes > VIEWS_BYTES_MAX;
        if is_too_large {
            if !old.as_ref().is_some_and(|old| old.is_too_large) {
                let (server, _) = &key;
                log::warn!(target: "catalogue", "{server}: what only some clients see has \
                    more than {VIEWS_BYTES_MAX} bytes and is not offered");
            }
            n_bytes = 0;
            lists.clear();
        }
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
        let read_at = read.read_at;
        let freshness = read.freshness.into_iter().map(|(kind, it)| (kind, (it, read_at)));
        let view = View {
            lists,
            pinned,
            read: freshness.collect(),
            read_at,
            is_stale: AtomicBool::new(false),
            used: read.used,
            n_bytes,
            is_too_large,
            left_out: read.left_out,
        };
        self.make_room(&view);
        self.views.insert(key, Arc::new(view));
        told
    }

    /// Those that show what all see have a bound of their own: they keep nothing, and crowd out
    /// none that does.
    fn make_room(&mut self, new: &View) {
        loop {
            let of_kind =
                || self.views.iter().filter(|(_, view)| view.differs() == new.differs());
            let used: usize = of_kind().map(|(_, view)| view.n_bytes).sum();
            if of_kind().count() < self.max && used + new.n_bytes <= VIEWS_BYTES_MAX {
                return;
            }
            let oldest = of_kind().min_by_key(|(_, view)| view.used.at());
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

    /// Drops a view that is none any more. Gives whether there was one.
    pub(super) fn remove(&mut self, key: &Key) -> bool {
        self.views.remove(key).is_some()
    }

    /// Drops those that nobody has used for long. Gives whether there were any.
    pub(super) fn sweep(&mut self) -> bool {
        let before = self.views.len();
        self.views.retain(|_, view| view.used.at().elapsed() < VIEW_IDLE);
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

/// What all see, by server.
pub(super) type Servers = Arc<Vec<(Profile, Listed)>>;

/// What a published snapshot shows to some clients.
#[derive(Debug)]
pub(super) struct Shown {
    naming: Naming,
    /// What all see.
    servers: Servers,
    views: HashMap<Key, Arc<View>>,
    /// Whether one of them shows something else than what all see.
    is_any_other: bool,
    /// Merged when first wanted; by the views that differ.
    merged: Mutex<HashMap<BTreeSet<Key>, Arc<Catalogue>>>,
}

impl Shown {
    pub(super) fn new(
        naming: Naming,
        servers: Servers,
        views: HashMap<Key, Arc<View>>,
    ) -> Shown {
        let is_any_other = views.values().any(|view| view.differs());
        Shown { naming, servers, views, is_any_other, merged: Mutex::default() }
    }

    /// The same with other views, where what all see is the same: what was merged of views that
    /// have not changed stands.
    pub(super) fn with_views(&self, views: HashMap<Key, Arc<View>>) -> Shown {
        let stays = |key: &Key| match (self.views.get(key), views.get(key)) {
            (Some(old), Some(new)) => Arc::ptr_eq(old, new),
            (Some(_), None) | (None, _) => false,
        };
        let mut merged = self.merged().clone();
        merged.retain(|keys, _| keys.iter().all(stays));
        let shown = Shown::new(self.naming.clone(), self.servers.clone(), views);
        Shown { merged: Mutex::new(merged), ..shown }
    }

    fn merged(&self) -> MutexGuard<'_, HashMap<BTreeSet<Key>, Arc<Catalogue>>> {
        self.merged.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether anybody sees something else than what all see.
    pub(super) fn is_any_other(&self) -> bool {
        self.is_any_other
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

    /// Of these views of a server, the one whose lists its client sees: where both are known, that
    /// which `is_served` says, as a server may serve clients in either way; where that is not
    /// known yet, the other one until it is, which does not count as using it.
    fn key(
        &self,
        server: &ServerName,
        ids: [ViewId; 2],
        is_served: &dyn Fn(&ServerName) -> Option<ViewId>,
    ) -> Option<Key> {
        let known = ids.map(|id| (server.clone(), id));
        let mut known = known.into_iter().filter(|key| self.views.contains_key(key));
        let first = known.next()?;
        let served = is_served(server);
        let key = if Some(first.1) == served { first } else { known.next().unwrap_or(first) };
        let view = self.views.get(&key)?;
        if Some(key.1) == served {
            view.touch();
        }
        view.differs().then_some(key)
    }

    /// What clients see of these views; none where that is what all see. `is_served`: of which of
    /// them a server's lists are, if of any.
    pub(super) fn catalogue(
        &self,
        ids: [ViewId; 2],
        is_served: &dyn Fn(&ServerName) -> Option<ViewId>,
        shared: &Catalogue,
    ) -> Option<Arc<Catalogue>> {
        let servers = self.servers.iter().map(|(profile, _)| &profile.name);
        let keys: BTreeSet<Key> =
            servers.filter_map(|server| self.key(server, ids, is_served)).collect();
        if keys.is_empty() {
            return None;
        }
        if let Some(known) = self.merged().get(&keys) {
            return Some(known.clone());
        }
        // Several may do this at once; nobody waits for it.
        let mut servers = (*self.servers).clone();
        for (profile, listed) in &mut servers {
            let of = |key: &&Key| key.0 == profile.name;
            if let Some(view) = keys.iter().find(of).and_then(|key| self.views.get(key)) {
                *listed = view.over(listed);
            }
        }
        let catalogue = merge::merge_after(shared, &self.naming, &servers, &|| true)?;
        let catalogue = catalogue.sharing(shared);
        let mut merged = self.merged();
        if merged.len() >= VIEW_CATALOGUES_MAX && !merged.contains_key(&keys) {
            merged.clear();
        }
        Some(merged.entry(keys).or_insert_with(|| Arc::new(catalogue)).clone())
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
        let (used, untold) = (Arc::new(LastUse::new(read_at)), Untold::default());
        ReadView { lists, freshness: Vec::new(), read_at, left_out, used, untold }
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
        let differing = more.against(&shared);
        let names: Vec<_> =
            differing.iter().map(|(kind, own, _)| (*kind, own.as_str())).collect();
        assert_eq!(names, [(Kind::Tool, "b"), (Kind::Prompt, "p")]);
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
        let known = &views.views[&key(4)];
        assert!(known.is_too_large && !known.differs(), "what all see is served");
        assert_eq!(views.views.len(), 3, "and the others stay");
    }

    #[test]
    fn a_catalogue_of_some_shares_what_all_see() {
        let naming = Naming::new(Prefix::Never, "-", [(&name("s"), None)]);
        let profile = Profile {
            name: name("s"),
            label: Arc::default(),
            tools: Globs::default(),
            pin: Pin::Off,
        };
        let servers = vec![(profile, listed(&["a"]))];
        let shared = merge::merge(&naming, &servers);
        let mut views = Views::new(8);
        let id = key(1).1;
        let mut more = read(&[(Kind::Tool, &["a", "b"])]);
        more.against(&servers[0].1);
        views.insert(key(1), more, &servers[0].1, None);
        let shown = Shown::new(naming, Arc::new(servers), views.known());
        let other = ViewId::of_request("{}");
        let served = |_: &ServerName| Some(id);
        assert!(shown.catalogue([other, other], &served, &shared).is_none());
        let seen = shown.catalogue([id, other], &served, &shared).unwrap();
        let own: Vec<&str> = seen.items(Kind::Tool).iter().map(|it| it.own.as_str()).collect();
        assert_eq!(own, ["a", "b"]);
        assert!(Arc::ptr_eq(&seen.items(Kind::Tool)[0], &shared.items(Kind::Tool)[0]));
        let again = shown.catalogue([id, other], &served, &shared).unwrap();
        assert!(Arc::ptr_eq(&seen, &again));
        // Another view leaves alone what was merged of this one.
        views.insert(key(2), read(&[(Kind::Tool, &["c"])]), &shown.servers[0].1, None);
        let next = shown.with_views(views.known());
        assert!(Arc::ptr_eq(&seen, &next.catalogue([id, other], &served, &shared).unwrap()));
        views.insert(key(1), read(&[(Kind::Tool, &["c"])]), &shown.servers[0].1, None);
        let next = shown.with_views(views.known());
        assert!(!Arc::ptr_eq(&seen, &next.catalogue([id, other], &served, &shared).unwrap()));
    }

    #[test]
    fn a_server_that_serves_otherwise_than_before_shows_its_new_view() {
        let naming = Naming::new(Prefix::Never, "-", [(&name("s"), None)]);
        let profile = Profile {
            name: name("s"),
            label: Arc::default(),
            tools: Globs::default(),
            pin: Pin::Off,
        };
        let servers = vec![(profile, listed(&["a"]))];
        let shared = merge::merge(&naming, &servers);
        let (session, request) = (key(1).1, ViewId::of_request("{}"));
        let mut views = Views::new(8);
        views.insert(key(1), read(&[(Kind::Tool, &["old"])]), &servers[0].1, None);
        let shown = Shown::new(naming, Arc::new(servers), views.known());
        let own = |shown: &Shown, served: ViewId| {
            let seen = shown.catalogue([session, request], &|_| Some(served), &shared);
            seen.map(|it| it.items(Kind::Tool)[0].own.clone())
        };
        let used = views.views[&key(1)].used.at();
        assert_eq!(own(&shown, request).as_deref(), Some("old"), "the other is not known yet");
        assert_eq!(views.views[&key(1)].used.at(), used, "but is not used by that");
        let new = (name("s"), request);
        views.insert(new.clone(), read(&[(Kind::Tool, &["new"])]), &shown.servers[0].1, None);
        let shown = shown.with_views(views.known());
        assert_eq!(own(&shown, request).as_deref(), Some("new"));
        assert_eq!(own(&shown, session).as_deref(), Some("old"));
        // One that shows what all see hides the other all the same.
        views.insert(new, read(&[(Kind::Tool, &["a"])]), &shown.servers[0].1, None);
        assert_eq!(own(&shown.with_views(views.known()), request), None);
        assert!(views.remove(&key(1)) && !views.remove(&key(1)));
    }

    #[test]
    fn views_that_show_what_all_see_crowd_out_none() {
        let (shared, mut views) = (listed(&["a"]), Views::new(2));
        views.insert(key(1), read(&[(Kind::Tool, &["b"])]), &shared, None);
        for n in 2..6 {
            views.insert(key(n), read(&[(Kind::Tool, &["a"])]), &shared, None);
        }
        assert!(has(&views, 1));
        assert_eq!(views.views.len(), 3, "they are bounded, too");
        let shown = |views: &Views| {
            Shown::new(
                Naming::new(Prefix::Never, "-", [(&name("s"), None)]),
                Arc::default(),
                views.known(),
            )
        };
        assert!(shown(&views).is_any_other());
        views.remove(&key(1));
        assert!(!shown(&views).is_any_other(), "nobody looks a view up for these");
    }

    #[test]
    fn a_view_that_is_read_again_is_not_used_by_that() {
        let (shared, mut views) = (listed(&["a"]), Views::new(2));
        let first = read(&[(Kind::Tool, &["b"])]);
        let (used, used_at) = (first.used.clone(), first.used.at());
        views.insert(key(1), first, &shared, None);
        let again = ReadView { used, ..read(&[(Kind::Tool, &["b"])]) };
        views.insert(key(1), again, &shared, None);
        assert_eq!(views.views[&key(1)].used.at(), used_at);
    }
}
