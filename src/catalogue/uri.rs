//! The servers of URIs, and the form of a server's URI with which clients can come back.

use std::sync::Arc;

use super::name::{of_server, split_server};
use super::{Catalogue, Item, Server, Steps, template};
use crate::limits::{
    LINK_LOOKED_UP_BYTES_MAX, LOOK_UP_STEPS_MAX, TEMPLATE_BYTES_MAX, TEMPLATES_STEPS_MAX,
};
use crate::protocol::call::Kind;
use crate::protocol::capabilities;
use crate::protocol::links;
use crate::protocol::server_name::ServerName;

impl Catalogue {
    /// The server of a URI without a server's mark, among the items and servers that the two
    /// closures admit: the server that lists the URI or such a template, the one with a template
    /// for it, or the only one that has resources at all; of several the first in the
    /// configuration. Also returns that server's spelling of the URI, where it lists it. Where
    /// the steps are too few, templates do not count.
    pub fn owner_of_bare(
        &self,
        uri: &str,
        sees: impl Fn(&Item) -> bool,
        sees_server: impl Fn(&ServerName) -> bool,
        steps: &mut Steps,
    ) -> Option<(ServerName, String)> {
        if let Some(item) = self.lister(uri, sees) {
            return Some((item.server.clone(), item.own.clone()));
        }
        let owner = self.coverer(uri, &sees_server, steps).or_else(|| {
            let mut having = self.having_resources.iter().filter(|name| sees_server(name));
            let only = having.next();
            if having.next().is_some() { None } else { only }
        });
        Some((owner?.clone(), uri.to_owned()))
    }

    /// The item with this URI, or the template that is written so.
    pub fn lister(&self, uri: &str, sees: impl Fn(&Item) -> bool) -> Option<&Arc<Item>> {
        let template = || self.called(Kind::Template, uri).iter().find(|item| sees(item));
        self.listed(uri, &sees).or_else(template)
    }

    /// The server with a template for a URI.
    fn coverer(
        &self,
        uri: &str,
        sees_server: impl Fn(&ServerName) -> bool,
        steps: &mut Steps,
    ) -> Option<&ServerName> {
        if uri.len() > TEMPLATE_BYTES_MAX {
            return None;
        }
        let uri = template::spelled(uri);
        let mut seen = self.templates.sets.iter().filter(|(server, _)| sees_server(server));
        // One server's templates must not use up the steps of the next.
        let covering =
            seen.find(|(_, set)| steps.part(TEMPLATES_STEPS_MAX, |it| set.covers(&uri, it)));
        covering.map(|(server, _)| server)
    }

    /// The server's own URI for the requested `whole`, which is its NAME and `rest`: the rest,
    /// unless the server has only the whole. A URI of its own may begin with its NAME.
    pub fn own_of_marked(
        &self,
        server: &ServerName,
        whole: &str,
        rest: &str,
        steps: &mut Steps,
    ) -> String {
        let is_its = |item: &Item| item.server == *server;
        let lists = |uri: &str| Some(self.lister(uri, is_its)?.own.clone());
        let mut covers = |uri: &str| self.coverer(uri, |it| it == server, steps).is_some();
        lists(rest).or_else(|| lists(whole)).unwrap_or_else(|| {
            let is_whole = !covers(rest) && covers(whole);
            if is_whole { whole } else { rest }.to_owned()
        })
    }

    /// The URI that a client is given in place of a server's URI, so that it leads back to that
    /// server: none where the URI itself does, for clients that see the servers of `sees`. `uri`
    /// is as the server wrote it. Where the steps are too few, the URI gets the NAME, which is
    /// never wrong.
    pub(super) fn instead_of(
        &self,
        server: &ServerName,
        uri: &str,
        sees: &dyn Fn(&ServerName) -> bool,
        steps: &mut Steps,
    ) -> Option<String> {
        if links::is_data(uri) {
            return None;
        }
        let marked = split_server(uri).and_then(|(name, _)| self.owners.server(name));
        let is_marked = marked.is_some_and(sees);
        let leads_back = |steps: &mut Steps| {
            let is_looked_up = uri.len() <= LINK_LOOKED_UP_BYTES_MAX && steps.take(uri.len());
            let look = |_| self.owner_of_bare(uri, |item| sees(&item.server), sees, steps);
            match is_looked_up.then_some(()).and_then(look) {
                Some((owner, _)) if !steps.is_cut() => owner == *server,
                Some(_) | None => links::is_of_the_web(uri),
            }
        };
        let leads_back = !is_marked && steps.part(LOOK_UP_STEPS_MAX, leads_back);
        (!leads_back).then(|| of_server(server, uri))
    }
}

/// True if a server may have resources.
pub(super) fn may_have_resources(server: &Server) -> bool {
    let said = server.initialized.as_ref().map(|said| said.capabilities.get());
    let said = said.unwrap_or(capabilities::NOT_YET_KNOWN);
    capabilities::have(said, Kind::Resource.capability())
}

#[cfg(test)]
mod tests {
    use super::super::merge::{Listed, Profile, merge, read_items};
    use super::*;
    use crate::access::glob::Globs;
    use crate::config::{Naming, Pin, Prefix};
    use crate::protocol::raw::{Raw, string};

    /// The catalogue of servers, each with its name, its resources and its templates.
    fn merged(servers: &[(&str, &[&str], &[String])]) -> Catalogue {
        let servers: Vec<(Profile, Listed)> = servers
            .iter()
            .map(|(name, resources, templates)| {
                let of = |kind: Kind, uris: Vec<&str>| {
                    let object = |uri: &str| {
                        let (key, uri) = (kind.name_key(), string(uri));
                        Raw::from_valid(format!(r#"{{"name":"n","{key}":{uri}}}"#))
                    };
                    (kind, read_items(kind, uris.into_iter().map(object).collect()).0)
                };
                let templates = templates.iter().map(String::as_str).collect();
                let lists =
                    [of(Kind::Resource, resources.to_vec()), of(Kind::Template, templates)];
                let name = ServerName::parse(name).unwrap();
                let profile = Profile {
                    name,
                    label: Arc::default(),
                    tools: Globs::default(),
                    pin: Pin::Off,
                };
                (profile, Listed { lists: lists.into(), ..Listed::default() })
            })
            .collect();
        let names = servers.iter().map(|(profile, _)| (&profile.name, None));
        merge(&Naming::new(Prefix::Auto, "-", names), &servers)
    }

    fn owner(catalogue: &Catalogue, uri: &str, hidden: &str) -> Option<(String, String)> {
        let mut steps = Steps::new(LOOK_UP_STEPS_MAX);
        let sees = |server: &ServerName| server.as_str() != hidden;
        let found = catalogue.owner_of_bare(uri, |item| sees(&item.server), sees, &mut steps);
        found.map(|(server, own)| (server.to_string(), own))
    }

    #[test]
    fn a_uri_that_only_a_hidden_server_spells_so_is_of_who_spells_it_otherwise() {
        let any = ["{+x}".to_owned()];
        let catalogue = merged(&[
            ("a", &["x://caf%C3%A9"], &[]),
            ("b", &["x://café"], &[]),
            ("c", &[], &any),
        ]);
        for (uri, hidden, expected) in [
            ("x://caf%C3%A9", "", ("a", "x://caf%C3%A9")),
            ("x://café", "", ("b", "x://café")),
            ("x://caf%C3%A9", "a", ("b", "x://café")),
            ("x://caf%c3%a9", "a", ("b", "x://café")),
            ("x://café", "b", ("a", "x://caf%C3%A9")),
            ("x://other", "b", ("c", "x://other")),
        ] {
            let (server, own) = owner(&catalogue, uri, hidden).unwrap();
            assert_eq!((server.as_str(), own.as_str()), expected, "{uri} without {hidden:?}");
        }
    }

    #[test]
    fn thousands_of_links_among_thousands_of_templates_cost_little() {
        let templates: Vec<String> = (0..20_000).map(|n| format!("ui://t{n}/{{id}}")).collect();
        let catalogue = merged(&[("a", &[], &templates), ("b", &[], &[])]);
        let b = ServerName::parse("b").unwrap();
        let mut steps = Steps::new(200_000);
        for n in 0..2000 {
            let marked =
                catalogue.instead_of(&b, &format!("ui://app{n}/main"), &|_| true, &mut steps);
            assert_eq!(marked, Some(format!("ui://b+app{n}/main")));
        }
        assert!(!steps.is_cut());
    }

    #[test]
    fn templates_that_cost_much_keep_no_others_from_being_found() {
        let costly: Vec<String> =
            (0..2000).map(|n| format!("{{a}}{{b}}{{+c}}-{n}{{+d}}!")).collect();
        let plain = ["z{+x}".to_owned()];
        let catalogue = merged(&[("a", &[], &costly), ("b", &[], &plain), ("c", &[], &[])]);
        let [b, c] = ["b", "c"].map(|name| ServerName::parse(name).unwrap());
        let uri = format!("z{}!", "-".repeat(1500));
        assert_eq!(owner(&catalogue, &uri, "").unwrap().0, "b");
        // The form of another server's link is not in doubt then.
        let mut steps = Steps::new(3 * TEMPLATES_STEPS_MAX);
        for _ in 0..2000 {
            let marked = Some(format!("c+{uri}"));
            assert_eq!(catalogue.instead_of(&c, &uri, &|_| true, &mut steps), marked);
        }
        assert!(steps.is_cut() && !steps.take(1));
        // A URI that a client fetches by itself, or that holds its data, stays.
        for uri in ["https://x/y", "data:text/plain,x"] {
            assert_eq!(catalogue.instead_of(&b, uri, &|_| true, &mut steps), None);
        }
        let data = "data:text/plain,x";
        let mut steps = Steps::new(LOOK_UP_STEPS_MAX);
        assert_eq!(catalogue.instead_of(&c, data, &|_| true, &mut steps), None);
    }

    #[test]
    fn another_spelling_and_templates_stand_in_memory_once() {
        let templates = ["x://{a}".to_owned()];
        let both = || merged(&[("a", &["x://é"], &templates), ("b", &[], &[])]);
        let (before, after) = (both(), both());
        let after = after.sharing(&before);
        let seen = |catalogue: &Catalogue| catalogue.listed("x://%C3%A9", |_| true).cloned();
        assert!(Arc::ptr_eq(&seen(&before).unwrap(), &seen(&after).unwrap()));
        let [before, after] = [before, after].map(|it| it.templates.sets[0].1.clone());
        assert!(Arc::ptr_eq(&before, &after));
    }
}
