//! Views, the lists that only some clients see: a view is read when a client first needs it, and
//! the shared lists are served where that takes too long.

use std::sync::Arc;
use std::time::Instant;

use super::send::route_to;
use super::users::own_id;
use super::{CallOptions, Pipeline};
use crate::access::policy::Scope;
use crate::catalogue::Health;
use crate::limits::VIEW_TIMEOUT;
use crate::protocol::server_name::ServerName;
use crate::protocol::view::ViewId;
use crate::upstream::{Upstream, Viewer};
use crate::wait::Wait;

/// The lists that a client sees of a server, where they may be others than all see.
pub(super) fn view_of(upstream: &Upstream, viewer: &Viewer<'_>) -> Option<ViewId> {
    upstream.view_of(viewer, route_to(upstream, Some(viewer.client()), None))
}

impl Pipeline {
    /// Has the client's views of the servers in scope read, where they are not known yet, and
    /// waits for them, and for the lists of its user: [`VIEW_TIMEOUT`] at most in all, and no longer
    /// than on `wait`, the request's own where it has one. The client is notified when they come later. Old views are read again
    /// without a wait. Returns true if there was a wait.
    pub(super) fn await_views(
        &self,
        scope: &Scope,
        options: CallOptions<'_>,
        server: Option<&ServerName>,
        wait: Option<&Arc<Wait>>,
    ) -> bool {
        let began = Instant::now();
        let has_waited = self.await_user_lists(scope, server, wait);
        let Some(client) = options.client else { return has_waited };
        let viewer = Viewer::new(client, options.about, options.views);
        let is_meant = |name: &ServerName| {
            scope.sees_server(name)
                && server.is_none_or(|server| server == name)
                && own_id(scope, name).is_none()
        };
        let seen: Vec<Arc<Upstream>> = self
            .upstreams
            .all()
            .values()
            .filter(|it| is_meant(it.name()) && view_of(it, &viewer).is_some())
            .cloned()
            .collect();
        if self.coming(&seen, &viewer).is_empty() {
            return has_waited;
        }
        let left = VIEW_TIMEOUT.saturating_sub(began.elapsed());
        let plain = if wait.is_none() { Wait::plain(left).ok() } else { None };
        let Some(wait) = wait.or(plain.as_ref()) else { return has_waited };
        let _within = wait.within(left);
        let Some(_place) = self.catalogue.waiting().enter(scope.charged.as_ref(), wait) else {
            return has_waited;
        };
        loop {
            let coming = self.coming(&seen, &viewer);
            if coming.is_empty() {
                return true;
            }
            if wait.until(None, None).is_err() {
                coming.iter().for_each(|(upstream, id)| upstream.missed_view(*id));
                return true;
            }
        }
    }

    /// The upstreams whose view is not known and may come soon.
    fn coming<'a>(
        &self,
        upstreams: &'a [Arc<Upstream>],
        viewer: &Viewer<'_>,
    ) -> Vec<(&'a Arc<Upstream>, ViewId)> {
        let shared = self.catalogue.current();
        let coming = |upstream: &'a Arc<Upstream>| {
            let name = upstream.name();
            // A server that is down, or has not answered yet, reports when it has.
            if shared.servers.get(name).is_none_or(|known| known.health != Health::Well) {
                return None;
            }
            let id = view_of(upstream, viewer)?;
            let is_coming = match self.catalogue.is_view_old(name, id) {
                Some(false) => false,
                Some(true) => {
                    upstream.want_view(viewer, id);
                    false
                }
                None => upstream.want_view(viewer, id),
            };
            is_coming.then_some((upstream, id))
        };
        upstreams.iter().filter_map(coming).collect()
    }
}
