//! Views, the lists that only some clients see: a view is read when a client first needs it, and
//! the shared lists are served where that takes too long.

use std::sync::Arc;

use super::{CallOptions, Pipeline};
use crate::access::policy::Scope;
use crate::catalogue::Health;
use crate::limits::VIEW_TIMEOUT;
use crate::protocol::server_name::ServerName;
use crate::upstream::{Upstream, Viewer};
use crate::wait::Wait;

impl Pipeline {
    /// Has the client's views of the servers in scope read, where they are not known yet, and
    /// waits for them: [`VIEW_TIMEOUT`] at most, and no longer than on `wait`, the request's own
    /// where it has one. The client is notified when they come later. Old views are read again
    /// without a wait. Returns true if there was a wait.
    pub(super) fn await_views(
        &self,
        scope: &Scope,
        options: CallOptions<'_>,
        server: Option<&ServerName>,
        wait: Option<&Arc<Wait>>,
    ) -> bool {
        let Some(client) = options.client else { return false };
        let viewer = Viewer::new(client, options.about, options.views);
        let is_meant = |name: &ServerName| {
            scope.sees_server(name) && server.is_none_or(|server| server == name)
        };
        let seen: Vec<Arc<Upstream>> = self
            .upstreams
            .all()
            .values()
            .filter(|it| is_meant(it.name()) && it.view_of(&viewer).is_some())
            .cloned()
            .collect();
        if self.coming(&seen, &viewer).is_empty() {
            return false;
        }
        let plain = if wait.is_none() { Wait::plain(VIEW_TIMEOUT).ok() } else { None };
        let Some(wait) = wait.or(plain.as_ref()) else { return false };
        let _within = wait.within(VIEW_TIMEOUT);
        let Some(_place) = self.catalogue.waiting().enter(scope.charged.as_ref(), wait) else {
            return false;
        };
        loop {
            let coming = self.coming(&seen, &viewer);
            if coming.is_empty() {
                return true;
            }
            if wait.until(None, None).is_err() {
                coming.iter().for_each(|upstream| upstream.missed_view(&viewer));
                return true;
            }
        }
    }

    /// The upstreams whose view is not known and may come soon.
    fn coming<'a>(
        &self,
        upstreams: &'a [Arc<Upstream>],
        viewer: &Viewer<'_>,
    ) -> Vec<&'a Arc<Upstream>> {
        let shared = self.catalogue.current();
        let is_coming = |upstream: &&Arc<Upstream>| {
            let name = upstream.name();
            // A server that is down, or has not answered yet, reports when it has.
            if shared.servers.get(name).is_none_or(|known| known.health != Health::Well) {
                return false;
            }
            let Some(id) = upstream.view_of(viewer) else { return false };
            match self.catalogue.is_view_old(name, id) {
                Some(false) => false,
                Some(true) => {
                    upstream.want_view(viewer);
                    false
                }
                None => upstream.want_view(viewer),
            }
        };
        upstreams.iter().filter(is_coming).collect()
    }
}
