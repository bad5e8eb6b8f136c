//! Views: a server's lists may depend on a client's capabilities. Only differences from the
//! shared lists are kept, by server and by declared capabilities.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, MutexGuard};
use std::time::{Duration, Instant};

use super::left_out::LeftOut;
use super::merge::{self, Listed, Named, Profile};
use super::{Catalogue, Pinned};
use crate::config::Naming;
use crate::limits::{
    LIST_TTL_MIN, REFRESH_INTERVAL, USER_UPSTREAMS_MAX, VIEW_BYTES_MAX, VIEW_CATALOGUES_MAX,
    VIEW_IDLE, VIEW_ITEM_BYTES, VIEWS_BYTES_MAX,
};
use crate::protocol::call::{Kind, PrincipalId};
use crate::protocol::listed_item::Malformed;
use crate::protocol::modern::Freshness;
use crate::protocol::pieces::{self, Usage};
use crate::protocol::raw::Raw;
use crate::protocol::server_name::ServerName;
use crate::protocol::view::{LastUse, Untold, ViewId};
use crate::sync::Mutex;

/// A server, and the view of it.
pub type Key = (ServerName, ViewId);

/// One server's lists for clients that declare the same capabilities.
#[derive(Debug)]
pub struct View {
    /// The lists that differ from the shared ones.
    lists: HashMap<Kind, Named>,
    pinned: Option<Pinned>,
    read: HashMap<Kind, (Freshness, Instant)>,
    /// The time at which the view was read.
    read_at: Instant,
    /// True if the view may have changed since.
    is_stale: AtomicBool,
    /// The time of the last use, which may be before the last reading.
    used: Arc<LastUse>,
    /// The principal that wanted the view first, if there is one.
    by: Option<PrincipalId>,
    n_bytes: usize,
    /// True if the view has more bytes than may be kept; then the shared lists are served.
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

    /// A server's lists with those of this view in place of the shared ones.
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

/// The lists of a view as they were read.
#[derive(Debug)]
pub(super) struct ReadView {
    pub(super) lists: Vec<(Kind, Named)>,
    pub(super) freshness: Vec<(Kind, Freshness)>,
    pub(super) read_at: Instant,
    pub(super) left_out: LeftOut,
    pub(super) untold: Untold,
    pub(super) used: Arc<LastUse>,
    pub(super) by: Option<PrincipalId>,
}

impl ReadView {
    /// Removes items that the shared lists have too; returns the items that they have not, and
    /// the number of items that are left out because there are more bytes than
    /// [`VIEW_BYTES_MAX`].
    pub(super) fn against(&mut self, shared: &Listed) -> (Vec<(Kind, String, Raw)>, usize) {
        let (mut differing, mut n_over, mut bytes_left) = (Vec::new(), 0, VIEW_BYTES_MAX);
        for (kind, list) in &mut self.lists {
            let known = shared.lists.get(kind).into_iter().flatten();
            let known: HashMap<&str, _> = known.map(|(own, it)| (own.as_str(), it)).collect();
            list.retain_mut(|(own, object)| {
                if let Some(same) = known.get(own.as_str()).filter(|same| **same == object) {
                    // Their text stands in memory once.
                    *object = (*same).clone();
                    return true;
                }
                let left = bytes_left.checked_sub(item_bytes(own, object));
                let (Some(left), 0) = (left, n_over) else {
                    n_over += 1;
                    return false;
                };
                bytes_left = left;
                differing.push((*kind, own.clone(), object.clone()));
                true
            });
            // Where most items are shared, little of the memory that was read is still used.
            pieces::compact(list);
        }
        (differing, n_over)
    }
}

/// The bytes for which an item of a view counts.
fn item_bytes(own: &str, object: &Raw) -> usize {
    own.len() + object.get().len() + VIEW_ITEM_BYTES
}

/// Bytes that the lists of a view hold: also of memory that others own, who may drop it before.
fn held_bytes(lists: &HashMap<Kind, Named>) -> usize {
    let items = || lists.values().flatten();
    let beside: usize = items().map(|(own, _)| own.len() + VIEW_ITEM_BYTES).sum();
    beside + Usage::of(items().map(|(_, object)| object)).held_bytes()
}

/// What becomes of a view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stays {
    /// It stays.
    AsItIs,
    /// It stays, and is read again when it is needed.
    UntilReadAgain,
    /// It is dropped.
    No,
}

/// All views, used by the catalogue's thread.
#[derive(Debug)]
pub(super) struct Views {
    max: usize,
    views: HashMap<Key, Arc<View>>,
}

impl Views {
    pub(super) fn new(max: usize) -> Views {
        Views { max, views: HashMap::new() }
    }

    /// Keeps a view; the views that were not used for longest make room. Returns the kinds of
    /// which clients are to be notified: the view differs from the one before, or the one before
    /// is unknown and the server says that its list has changed.
    pub(super) fn insert(
        &mut self,
        key: Key,
        read: ReadView,
        shared: &Listed,
        pinned: Option<Pinned>,
    ) -> Vec<Kind> {
        let old = self.views.remove(&key);
        let mut lists: HashMap<Kind, Named> = read.lists.into_iter().collect();
        // A list that could not be read this time stays.
        for (kind, list) in old.iter().flat_map(|old| &old.lists) {
            lists.entry(*kind).or_insert_with(|| list.clone());
        }
        lists.retain(|kind, list| {
            shared.lists.get(kind).map_or(!list.is_empty(), |shared| shared != list)
        });
        let is_shown = old.is_some() || read.untold.is_missed;
        let mut n_bytes = held_bytes(&lists);
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
            if *kind == Kind::Tool && read.untold.is_sign_in_over {
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
            by: read.by,
            n_bytes,
            is_too_large,
            left_out: read.left_out,
        };
        self.make_room(key.1, &view);
        self.views.insert(key, Arc::new(view));
        told
    }

    /// Makes room: of the principal that holds most, the views that were not used for longest are
    /// dropped. Views that equal the shared lists have a bound of their own: they hold no items,
    /// and crowd out none that does.
    fn make_room(&mut self, id: ViewId, new: &View) {
        let is_of_user = id.is_of_user();
        loop {
            let of_kind =
                || self.views.iter().filter(|(_, view)| view.differs() == new.differs());
            let used: usize = of_kind().map(|(_, view)| view.n_bytes).sum();
            let alike = of_kind().filter(|((_, id), _)| id.is_of_user() == is_of_user).count();
            // Users' views have their own number, since each has an upstream that reads it.
            let max = if is_of_user { USER_UPSTREAMS_MAX } else { self.max };
            if alike < max && used + new.n_bytes <= VIEWS_BYTES_MAX {
                return;
            }
            let mut held: HashMap<Option<&PrincipalId>, usize> = HashMap::new();
            for view in of_kind().map(|(_, view)| &**view).chain([new]) {
                *held.entry(view.by.as_ref()).or_default() += view.n_bytes;
            }
            let of_holder =
                |view: &View| held.get(&view.by.as_ref()).copied().unwrap_or_default();
            let oldest = of_kind()
                .filter(|((_, id), _)| alike < max || id.is_of_user() == is_of_user)
                .min_by_key(|(_, view)| (Reverse(of_holder(view)), view.used.at()))
                .map(|(key, _)| key.clone());
            let Some(oldest) = oldest else { return };
            self.views.remove(&oldest);
        }
    }

    /// Notes that the shared lists of a server have changed, and its views may have.
    pub(super) fn may_have_changed(&self, server: &ServerName) {
        for ((of, _), view) in &self.views {
            if of == server {
                view.is_stale.store(true, Ordering::Relaxed);
            }
        }
    }

    /// Drops views, or notes that they may have changed, as `stays` says.
    pub(super) fn retain(&mut self, stays: impl Fn(&Key) -> Stays) {
        self.views.retain(|key, view| match stays(key) {
            Stays::AsItIs => true,
            Stays::UntilReadAgain => {
                view.is_stale.store(true, Ordering::Relaxed);
                true
            }
            Stays::No => false,
        });
    }

    /// Drops a view that the server no longer has. True if there was one.
    pub(super) fn remove(&mut self, key: &Key) -> bool {
        self.views.remove(key).is_some()
    }

    /// Drops views that were not used for long. True if there were any.
    pub(super) fn sweep(&mut self) -> bool {
        let before = self.views.len();
        self.views.retain(|_, view| view.used.at().elapsed() < VIEW_IDLE);
        self.views.len() != before
    }

    /// The items that are left out of a known view.
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

/// The views of one server, for `/status`.
#[derive(Debug, Default)]
pub struct ViewsTold {
    /// The number of views that are kept.
    pub n_views: usize,
    /// The items that are left out of them and can be named.
    pub items: Vec<(Kind, Malformed)>,
    /// The largest number of items that bounds leave out of one of them.
    pub n_over: usize,
}

/// The shared lists, by server.
pub(super) type Servers = Arc<Vec<(Profile, Listed)>>;

/// The views of a published snapshot.
#[derive(Debug)]
pub(super) struct Shown {
    naming: Naming,
    /// The shared lists.
    servers: Servers,
    views: HashMap<Key, Arc<View>>,
    /// True if one of the views differs from the shared lists.
    is_any_other: bool,
    /// The catalogues, merged when first needed, by the views that differ.
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

    /// The same with other views, where the shared lists are the same: the catalogues of
    /// unchanged views stay.
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
        self.merged.lock()
    }

    /// True if any view differs from the shared lists.
    pub(super) fn is_any_other(&self) -> bool {
        self.is_any_other
    }

    /// True if a view should be read again; none if it is unknown.
    pub(super) fn is_old(&self, key: &Key) -> Option<bool> {
        let view = self.views.get(key)?;
        view.touch();
        Some(view.is_old())
    }

    /// Bytes that all views hold.
    pub(super) fn n_bytes(&self) -> usize {
        self.views.values().map(|view| view.n_bytes).sum()
    }

    /// The views of a server for which `is_told` is true: their number, the items that are left out of them and can be named,
    /// and the largest number of items that bounds leave out of one.
    pub(super) fn told_of(
        &self,
        server: &ServerName,
        is_told: &dyn Fn(ViewId) -> bool,
    ) -> ViewsTold {
        let mut items: Vec<(Kind, Malformed)> = Vec::new();
        let of_server =
            || self.views.iter().filter(|((of, id), _)| of == server && is_told(*id));
        for (kind, item) in of_server().flat_map(|(_, view)| view.left_out.named()) {
            if !items.iter().any(|(of, it)| *of == kind && it == item) {
                items.push((kind, item.clone()));
            }
        }
        let n_over = of_server().map(|(_, view)| view.left_out.over_bounds()).max();
        ViewsTold { n_views: of_server().count(), items, n_over: n_over.unwrap_or_default() }
    }

    /// The one of these views of a server whose lists the client sees: where both are known, the
    /// one that `is_served` gives, since a server may serve clients in either way; where that one
    /// is not known yet, the other one until it is, which does not count as a use.
    pub(super) fn key(
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

    /// A user's view of a server, where it is known and differs. That counts as a use.
    pub(super) fn key_of_user(&self, server: &ServerName, id: ViewId) -> Option<Key> {
        let key = (server.clone(), id);
        let view = self.views.get(&key)?;
        view.touch();
        view.differs().then_some(key)
    }

    /// The catalogue for clients with these views, of each server the one that `key` gives; none
    /// where it equals the shared one.
    pub(super) fn catalogue(
        &self,
        key: &dyn Fn(&ServerName) -> Option<Key>,
        shared: &Catalogue,
    ) -> Option<Arc<Catalogue>> {
        let servers = self.servers.iter().map(|(profile, _)| &profile.name);
        let keys: BTreeSet<Key> = servers.filter_map(key).collect();
        if keys.is_empty() {
            return None;
        }
        if let Some(known) = self.merged().get(&keys) {
            return Some(known.clone());
        }
        // Several threads may do this at once; none waits for another.
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
        let of_views = |keys: &BTreeSet<Key>| -> usize {
            keys.iter().filter_map(|key| self.views.get(key)).map(|view| view.n_bytes).sum()
        };
        let held: usize = merged.keys().chain([&keys]).map(of_views).sum();
        let held_too_much = held > VIEWS_BYTES_MAX;
        if held_too_much && !merged.contains_key(&keys) {
            merged.clear();
        }
        if merged.len() >= VIEW_CATALOGUES_MAX
            && !merged.contains_key(&keys)
            && let Some(any) = merged.keys().next().cloned()
        {
            merged.remove(&any);
        }
        Some(merged.entry(keys).or_insert_with(|| Arc::new(catalogue)).clone())
    }
}

#[cfg(test)]
mod tests;
