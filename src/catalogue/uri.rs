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
    /// configuration. And how that server spells it, where it lists it.
    pub fn owner_of_bare(
        &self,
        uri: &str,
        sees: impl Fn(&Item) -> bool,
        sees_server: impl Fn(&ServerName) -> bool,
    ) -> Option<(ServerName, String)> {
        if let Some(item) = self.lister(uri, &sees) {
            return Some((item.server.clone(), item.own.clone()));
        }
        let owner = self.coverer(uri, sees).or_else(|| {
            let mut having = self
                .servers
                .iter()
                .filter(|(name, server)| sees_server(name) && may_have_resources(server));
            let only = having.next().map(|(name, _)| name);
            if having.next().is_some() { None } else { only }
        });
        Some((owner?.clone(), uri.to_owned()))
    }

    /// Who lists a URI, or a template that is written so.
    pub fn lister(&self, uri: &str, sees: impl Fn(&Item) -> bool) -> Option<&Arc<Item>> {
        let mut items = self.listed(uri).iter().chain(self.called(Kind::Template, uri));
        items.find(|item| sees(item))
    }

    /// Who has a template for a URI.
    pub fn coverer(&self, uri: &str, sees: impl Fn(&Item) -> bool) -> Option<&ServerName> {
        let covers = |item: &&Arc<Item>| sees(item) && template::covers(&item.own, uri);
        self.in_order(Kind::Template).iter().find(covers).map(|item| &item.server)
    }

    /// What a server calls what was asked for under `whole`, which is its NAME and `rest`: the
    /// rest, unless only the whole is something that it has. A URI of its own may begin so.
    pub fn own_of_marked(&self, server: &ServerName, whole: &str, rest: &str) -> String {
        let is_its = |item: &Item| item.server == *server;
        let lists = |uri: &str| Some(self.lister(uri, is_its)?.own.clone());
        let covers = |uri: &str| self.coverer(uri, is_its).is_some();
        lists(rest).or_else(|| lists(whole)).unwrap_or_else(|| {
            let is_whole = !covers(rest) && covers(whole);
            if is_whole { whole } else { rest }.to_owned()
        })
    }

    /// What a client is given instead of a URI of that server's, so that it leads back there:
    /// nothing where it does as it is, seen by whoever sees all. `uri` is as the server wrote it.
    pub(super) fn instead_of(&self, server: &ServerName, uri: &str) -> Option<String> {
        let is_marked =
            split_server(uri).is_some_and(|(name, _)| self.owners.server(name).is_some());
        let leads_back = || match self.owner_of_bare(uri, |_| true, |_| true) {
            Some((owner, _)) => owner == *server,
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
