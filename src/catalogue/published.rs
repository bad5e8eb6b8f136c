//! The snapshot that is served at present, for all threads that read it or wait for the next one.

use std::sync::{Arc, RwLockReadGuard};

use super::Catalogue;
use super::pages::Pages;
use super::views::{Shown, ViewsTold};
use super::waiting::Waiting;
use crate::budget::Budget;
use crate::protocol::server_name::ServerName;
use crate::protocol::view::ViewId;
use crate::sync::RwLock;

/// Gives the view by which a server lists, if by any.
pub type ViewOf<'a> = &'a dyn Fn(&ServerName) -> Option<ViewId>;

/// The current snapshot, for all threads that read it or wait for the next one.
#[derive(Debug, Clone)]
pub struct Shared(Arc<Published>);

#[derive(Debug)]
struct Published {
    current: RwLock<Snapshot>,
    waiting: Waiting,
    pages: Pages,
}

/// The catalogue that all clients see, and the views that some see instead.
#[derive(Debug, Clone, Default)]
pub(super) struct Snapshot {
    pub(super) catalogue: Arc<Catalogue>,
    /// None where there are no views.
    pub(super) shown: Option<Arc<Shown>>,
}

impl Shared {
    /// Without a snapshot; at most `max_waiting` requests wait for one at once, and the pages
    /// that are being sent to clients count against `budget`.
    pub fn new(max_waiting: usize, budget: Budget) -> Shared {
        let (current, waiting) = (RwLock::default(), Waiting::new(max_waiting));
        Shared(Arc::new(Published { current, waiting, pages: Pages::new(budget) }))
    }

    /// The pages of lists as text.
    pub fn pages(&self) -> &Pages {
        &self.0.pages
    }

    /// The requests that wait for the next snapshot.
    pub fn waiting(&self) -> &Waiting {
        &self.0.waiting
    }

    pub(super) fn read(&self) -> RwLockReadGuard<'_, Snapshot> {
        self.0.current.read()
    }

    /// The current snapshot, which does not change while it is held.
    pub fn current(&self) -> Arc<Catalogue> {
        self.read().catalogue.clone()
    }

    /// The snapshot for clients that have one of the views `ids` of a server; `ids` is called
    /// only where some view differs. `is_served` gives the view by which a server lists for the
    /// client, and `user` the one by which it lists for the client's user alone.
    pub fn seen_by(
        &self,
        ids: impl FnOnce() -> [ViewId; 2],
        is_served: ViewOf<'_>,
        user: Option<ViewOf<'_>>,
    ) -> Arc<Catalogue> {
        let Snapshot { catalogue, shown } = self.read().clone();
        let shown = shown.filter(|shown| shown.is_any_other());
        let seen = shown.and_then(|shown| {
            let ids = ids();
            let key = |server: &ServerName| match user.and_then(|user| user(server)) {
                Some(id) => shown.key_of_user(server, id),
                None => shown.key(server, ids, is_served),
            };
            shown.catalogue(&key, &catalogue)
        });
        seen.unwrap_or(catalogue)
    }

    /// The snapshot for a caller that has no view but those of its user: `user` gives the view by
    /// which a server lists for that one.
    pub fn seen_by_user(&self, user: &dyn Fn(&ServerName) -> Option<ViewId>) -> Arc<Catalogue> {
        let Snapshot { catalogue, shown } = self.read().clone();
        let shown = shown.filter(|shown| shown.is_any_other());
        let seen = shown.and_then(|shown| {
            let key = |server: &ServerName| shown.key_of_user(server, user(server)?);
            shown.catalogue(&key, &catalogue)
        });
        seen.unwrap_or(catalogue)
    }

    /// True if a view of a server is old; none if it is unknown. The call counts as a use of the
    /// view.
    pub fn is_view_old(&self, server: &ServerName, id: ViewId) -> Option<bool> {
        let shown = self.read().shown.clone()?;
        shown.is_old(&(server.clone(), id))
    }

    /// The views of a server for which `is_told` is true, for `/status`.
    pub fn views_of(&self, server: &ServerName, is_told: &dyn Fn(ViewId) -> bool) -> ViewsTold {
        let shown = self.read().shown.clone();
        shown.map(|shown| shown.told_of(server, is_told)).unwrap_or_default()
    }

    /// The views of the snapshot.
    pub(super) fn shown(&self) -> Option<Arc<Shown>> {
        self.read().shown.clone()
    }

    /// Makes this the current snapshot. The caller wakes waiting requests once sessions are
    /// notified.
    pub(super) fn publish(&self, catalogue: Arc<Catalogue>, shown: Option<Arc<Shown>>) {
        let snapshot = Snapshot { catalogue, shown };
        *self.0.current.write() = snapshot;
        self.0.pages.forget_former();
    }
}
