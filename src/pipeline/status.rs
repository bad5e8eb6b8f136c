//! The status of servers, as far as a scope may know it.

use std::collections::HashMap;
use std::sync::Arc;

use super::route::sees;
use super::{CallOptions, Pipeline};
use crate::access::policy::Scope;
use crate::catalogue::{Catalogue, Pinned, Server, ViewsTold};
use crate::protocol::call::Kind;
use crate::protocol::listed_item::Malformed;
use crate::protocol::server_name::ServerName;
use crate::protocol::view::ViewId;
use crate::upstream::authorization::SignInStatus;
use crate::upstream::{FailureReport, State, Status, Upstream, advice};

impl Pipeline {
    /// The status of each server that the scope sees, for `/status`.
    pub fn status(&self, scope: &Scope) -> Vec<ServerStatus> {
        let catalogue = self.catalogue_for(scope, CallOptions::default());
        let mut offered: HashMap<&ServerName, [usize; 4]> = HashMap::new();
        for (at, kind) in Kind::ALL.into_iter().enumerate() {
            for item in catalogue.items(kind).iter().filter(|item| sees(scope, item)) {
                if let Some(n) = offered.entry(&item.server).or_default().get_mut(at) {
                    *n += 1;
                }
            }
        }
        self.upstreams
            .all()
            .values()
            .filter(|upstream| scope.sees_server(upstream.name()))
            .map(|base| {
                // A user that has an upstream of its own is told of that one.
                let own = self.known_of_user(scope, base.name());
                let upstream = own.as_ref().unwrap_or(base);
                let known = catalogue.servers.get(upstream.name());
                let mut left_out_items: Vec<(Kind, Malformed)> = known
                    .into_iter()
                    .flat_map(|known| known.left_out.named())
                    .map(|(kind, item)| (kind, item.clone()))
                    .collect();
                let own_view = self.user_view(scope, upstream.name());
                let is_told = |view: ViewId| {
                    !view.is_of_user() || scope.principal.is_admin || Some(view) == own_view
                };
                let ViewsTold { n_views, items: of_views, n_over } =
                    self.catalogue.views_of(upstream.name(), &is_told);
                let n_of_all = left_out_items.len();
                for item in of_views {
                    if !left_out_items.contains(&item) {
                        left_out_items.push(item);
                    }
                }
                let n_of_views = left_out_items.len() - n_of_all;
                // It is unknown if a key would see a tool that is not offered.
                left_out_items
                    .retain(|(kind, _)| *kind != Kind::Tool || scope.sees_all_tools());
                let mut status = upstream.status();
                let users = scope.principal.is_admin.then(|| self.users_of(base, &mut status));
                let target = &upstream.config().target;
                // A failure of a server that is well belongs to some client's call.
                let failure =
                    status.last_failure.as_ref().filter(|_| status.state != State::Ready);
                let advised =
                    failure.and_then(|it| advice::of(target, it, &status.stderr).to_do);
                ServerStatus {
                    server: upstream.name().clone(),
                    advice: advised,
                    description: upstream.config().description.clone(),
                    required: upstream.config().required,
                    offered: offered.get(upstream.name()).copied().unwrap_or_default(),
                    left_out: known.map_or(0, |known| known.left_out.count())
                        + n_of_views
                        + n_over,
                    left_out_items,
                    n_views,
                    is_stale: known.is_some_and(Server::is_stale),
                    pinned: known
                        .and_then(|server| server.pinned.clone())
                        .map(|pinned| as_seen(pinned, &catalogue, upstream.name(), scope)),
                    n_unattributed: self.callers.n_unattributed(upstream.name()),
                    wants_person: base.authorization().is_some()
                        && base.config().oauth().is_some_and(|it| it.grant.wants_person()),
                    sign_in: base.authorization().map(|it| it.status()),
                    users: users.flatten(),
                    upstream: status,
                }
            })
            .collect()
    }

    /// The users of a server, where its credentials are each user's own. Their calls and sessions
    /// are added to those of the server.
    fn users_of(&self, base: &Upstream, status: &mut Status) -> Option<Users> {
        if !base.may_be_per_user() {
            return None;
        }
        let mut users = Users::default();
        (status.in_flight, status.waiting, status.sessions) = base.in_use();
        for upstream in self.upstreams.users_of(base.name()) {
            let (in_flight, waiting, sessions) = upstream.in_use();
            status.in_flight += in_flight;
            status.waiting += waiting;
            status.sessions += sessions;
            users.count += 1;
            match upstream.state() {
                State::Ready => users.ready += 1,
                State::Starting { .. } => users.starting += 1,
                State::NeedsSignIn => users.needing_sign_in += 1,
                State::BackingOff { .. } | State::Down { .. } => {
                    let failure = upstream.failure_of_user();
                    let name = upstream.name_of_user();
                    users.failing.extend(failure.map(|failure| (name, failure)));
                }
            }
        }
        Some(users)
    }
}

/// The status of a server, for `/status`.
#[derive(Debug)]
pub struct ServerStatus {
    /// The server's NAME.
    pub server: ServerName,
    /// The description, for people.
    pub description: Option<String>,
    /// True if `/readyz` waits for the server.
    pub required: bool,
    /// The numbers of offered items, in the order of [`Kind::ALL`].
    offered: [usize; 4],
    /// The number of listed items that are not offered.
    pub left_out: usize,
    /// Items that are not offered, as far as they can be named and the scope could see them.
    pub left_out_items: Vec<(Kind, Malformed)>,
    /// The number of views of its lists.
    pub n_views: usize,
    /// True if its listed items are those that an earlier process knew.
    pub is_stale: bool,
    /// The pins, where the server has any: with the changed tools that the scope sees.
    pub pinned: Option<Pinned>,
    /// The number of messages that named no call and reached no client, because they may have
    /// been about any client.
    pub n_unattributed: u64,
    /// Advice for the operator on its last failure, if the server is not well.
    pub advice: Option<String>,
    /// True if a person signs in there for the gateway.
    pub wants_person: bool,
    /// How the gateway's own sign-in there is, where it has one.
    pub sign_in: Option<SignInStatus>,
    /// Its users, where its credentials are each user's own; only for an admin.
    pub users: Option<Users>,
    /// The upstream's state.
    pub upstream: Status,
}

/// The users of a server whose credentials are each user's own.
#[derive(Debug, Default)]
pub struct Users {
    /// The number of users that reach it now, or try to.
    pub count: usize,
    /// Those of them for which it is ready.
    pub ready: usize,
    /// Those for which first contact is being made.
    pub starting: usize,
    /// Those who have not signed in there.
    pub needing_sign_in: usize,
    /// The failures of the others: the name of the user's key, where it has one, and the failure.
    pub failing: Vec<(Option<Arc<str>>, FailureReport)>,
}

impl ServerStatus {
    /// The number of items of a kind that the scope sees of the server.
    pub fn offered(&self, kind: Kind) -> usize {
        let mut offered = Kind::ALL.into_iter().zip(self.offered);
        offered.find(|(of, _)| *of == kind).map_or(0, |(_, n)| n)
    }
}

/// The pins of a server without the changed items that the scope does not see.
fn as_seen(
    mut pinned: Pinned,
    catalogue: &Catalogue,
    server: &ServerName,
    scope: &Scope,
) -> Pinned {
    let seen = |kind: Kind, own: &str| {
        let mut items = catalogue.called(kind, own).iter();
        items.any(|item| item.server == *server && sees(scope, item))
    };
    pinned.changed.retain(|own, _| seen(Kind::Tool, own));
    for (subject, changed) in &mut pinned.others {
        let kind = subject.kind();
        changed.retain(|own, _| kind.is_none_or(|kind| seen(kind, own)));
    }
    pinned
}
