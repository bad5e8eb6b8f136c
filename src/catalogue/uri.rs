//! Whose a URI is, and how a server's URI is written where clients are to come back with it.

use std::sync::Arc;

use super::name::{of_server, split_server};
use super::{Catalogue, Item, Server, template};
use crate::protocol::call::Kind;
use crate::protocol::capabilities;
use crate::protocol::links;
use crate::protocol::server_name::ServerName;

impl Catalogue {
    /// Whose a URI without the mark of a server is, among the items and servers that the two
    /// admit: of the server that lists it or such a template, of the one that has a template for
    /// it, or of the only one that has resources at all; of several the first in the
    /// configuration.
    pub fn owner_of_bare(
        &self,
        uri: &str,
        sees: impl Fn(&Item) -> bool,
        sees_server: impl Fn(&ServerName) -> bool,
    ) -> Option<ServerName> {
        let kinds = [Kind::Resource, Kind::Template].into_iter();
        let mut listed =
            kinds.flat_map(|kind| self.called(kind, uri)).filter(|item| sees(item));
        let covers = |item: &&Arc<Item>| sees(item) && template::covers(&item.own, uri);
        let mut covering = self.in_order(Kind::Template).iter().filter(covers);
        if let Some(item) = listed.next().or_else(|| covering.next()) {
            return Some(item.server.clone());
        }
        let mut having = self
            .servers
            .iter()
            .filter(|(name, server)| sees_server(name) && may_have_resources(server));
        let only = having.next().map(|(name, _)| name.clone());
        if having.next().is_some() { None } else { only }
    }

    /// What a client is given instead of a URI of that server's, so that it leads back there:
    /// nothing where it does as it is, seen by whoever sees all. `uri` is as the server wrote it.
    pub(super) fn instead_of(&self, server: &ServerName, uri: &str) -> Option<String> {
        let is_marked =
            split_server(uri).is_some_and(|(name, _)| self.owners.server(name).is_some());
        let leads_back = || match self.owner_of_bare(uri, |_| true, |_| true) {
            Some(owner) => owner == *server,
            None => links::is_of_the_web(uri),
        };
        (is_marked || !leads_back()).then(|| of_server(server, uri))
    }
}

fn may_have_resources(server: &Server) -> bool {
    let said = server.initialized.as_ref().map(|said| said.capabilities.get());
    let said = said.unwrap_or(capabilities::NOT_YET_KNOWN);
    capabilities::have(said, Kind::Resource.capability())
}
