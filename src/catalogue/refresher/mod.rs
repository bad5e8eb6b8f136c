//! The thread that rebuilds the snapshot when a server changes. It never waits for a server:
//! supervisors read the lists and send them as events.

mod gathered;
mod view_reports;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, select};

use gathered::Read;

use super::clashes::{self, ToldClashes};
use super::differing::News;
use super::merge::{self, Listed, Profile, ServerLabel};
use super::pins::{Pins, Said, Subject};
use super::store::{Reading, Store};
use super::views::{Shown, Stays, Views};
use super::{Catalogue, Health, Item, Pinned, Server, Shared};
use crate::access::glob::Globs;
use crate::config::{Naming, Pin, UpstreamConfig};
use crate::limits::{PAGES_KEPT_TIME, PINS_ACCEPTED_INTERVAL};
use crate::protocol::call::Kind;
use crate::protocol::legacy::Initialized;
use crate::protocol::listed_item::ReadItem;
use crate::protocol::raw::string;
use crate::protocol::server_name::ServerName;
use crate::protocol::view::ViewId;
use crate::upstream::{Event, FailureReport, Report};

/// Is called when a list of a server has changed.
pub type Tell = Box<dyn Fn(&ServerName, Kind) + Send>;

/// Is called when a list of a server has changed for clients with a view.
pub type TellView = Box<dyn Fn(&ServerName, Kind, ViewId) + Send>;

/// A new configuration for the snapshot.
#[derive(Debug)]
pub struct Configure {
    /// The naming from here on.
    pub naming: Naming,
    /// The servers from here on, as their upstreams were given them.
    pub upstreams: Vec<Arc<UpstreamConfig>>,
    /// Is told when the snapshot shows the configuration and clients whose lists differ are
    /// notified.
    pub done: Sender<()>,
}

/// One server: its configuration and its lists.
#[derive(Debug)]
struct Known {
    config: Arc<UpstreamConfig>,
    profile: Profile,
    listed: Listed,
}

impl Known {
    /// A server with the lists of `old` until new ones are read, if it is the same server.
    fn new(config: &Arc<UpstreamConfig>, old: Option<Known>) -> Known {
        let is_same = |old: &Known| Arc::ptr_eq(&old.config, config);
        let listed = match old {
            Some(old) if is_same(&old) => old.listed,
            Some(old) if old.config.target.is_same_server(&config.target) => {
                let (health, connecting_since) = (Health::Connecting, Instant::now());
                let server = Server { health, connecting_since, ..old.listed.server };
                Listed { server, ..old.listed }
            }
            Some(_) | None => Listed::default(),
        };
        let listed = if config.is_per_user() { Listed::of_users() } else { listed };
        let profile = Profile {
            name: config.name.clone(),
            label: Arc::new(ServerLabel {
                description: config.description.clone(),
                alias: config.alias.clone(),
            }),
            tools: Globs::new(config.tools.as_deref().unwrap_or_default()),
            pin: config.pin,
        };
        Known { config: config.clone(), profile, listed }
    }
}

impl Listed {
    /// A server to which nobody connects but for a user, whose lists are a view. Lists from before
    /// it was configured so are nobody's.
    fn of_users() -> Listed {
        let mut listed = Listed::default();
        listed.server.health = Health::Well;
        listed.server.has_answered = true;
        listed
    }
}

/// The state of the catalogue's thread: the inputs of the next snapshot.
pub struct Refresher {
    naming: Naming,
    servers: BTreeMap<ServerName, Known>,
    /// The servers' NAMEs in the order of the configuration.
    order: Vec<ServerName>,
    told_clashes: ToldClashes,
    shared: Shared,
    tell: Tell,
    /// The store in which lists outlive the process, if there is one.
    store: Option<Store>,
    /// The pins, if any server has some.
    pins: Option<Pins>,
    /// The views that only some clients see.
    views: Views,
    tell_view: TellView,
}

impl std::fmt::Debug for Refresher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Refresher").field("servers", &self.servers).finish_non_exhaustive()
    }
}

impl Refresher {
    /// Publishes a first snapshot, in which every server is still connecting and has its stored
    /// lists. `tell` is called for each change after the snapshot that shows it is published.
    pub fn new(
        naming: Naming,
        upstreams: &[Arc<UpstreamConfig>],
        shared: Shared,
        tell: Tell,
        store: Option<Store>,
        pins: Option<Pins>,
    ) -> Refresher {
        let (servers, order) = (BTreeMap::new(), Vec::new());
        let (views, tell_view) = (Views::new(0), Box::new(|_: &ServerName, _, _| ()));
        let told_clashes = ToldClashes::default();
        let mut refresher = Refresher {
            naming,
            servers,
            order,
            told_clashes,
            shared,
            tell,
            store,
            pins,
            views,
            tell_view,
        };
        refresher.take(upstreams);
        refresher.publish();
        refresher
    }

    /// As [`Refresher::new`], with at most `max` views of servers' lists.
    pub fn with_views(self, max: usize, tell_view: TellView) -> Refresher {
        Refresher { views: Views::new(max), tell_view, ..self }
    }

    /// Runs until every sender of reports is gone. Once the process ends, reports are only
    /// dropped, so that the end does not wait for merged lists that no client will see.
    pub fn run(mut self, reports: &Receiver<Report>, configure: &Receiver<Configure>) {
        let mut configure = configure.clone();
        let mut looked = Instant::now();
        loop {
            if self.is_stopping() {
                return reports.iter().for_each(drop);
            }
            select! {
                recv(reports) -> report => match report {
                    Ok(report) => self.hear(report, reports),
                    Err(_) => return,
                },
                recv(configure) -> wanted => match wanted {
                    Ok(wanted) => self.configure(wanted),
                    Err(_) => configure = crossbeam_channel::never(),
                },
                default(PINS_ACCEPTED_INTERVAL) => (),
            }
            // This also runs when there is always an event.
            if looked.elapsed() >= PINS_ACCEPTED_INTERVAL {
                if self.has_pins() {
                    self.take_accepted();
                }
                if self.views.sweep() {
                    self.publish_views();
                    self.shared.waiting().wake();
                }
                looked = Instant::now();
                if let Some(then) = looked.checked_sub(PAGES_KEPT_TIME) {
                    self.shared.pages().forget_unused_since(then);
                }
            }
        }
    }

    fn is_stopping(&self) -> bool {
        self.shared.waiting().is_ended()
    }

    fn has_pins(&self) -> bool {
        self.servers.values().any(|known| known.profile.pin != Pin::Off)
    }

    /// Offers accepted items.
    fn take_accepted(&mut self) {
        let accepted = self.pins.as_mut().map(Pins::take_accepted).unwrap_or_default();
        if accepted.is_empty() {
            return;
        }
        for server in &accepted {
            if let Some(known) = self.servers.get_mut(server) {
                judge(&mut self.pins, &known.profile, &mut known.listed);
            }
        }
        let before = self.shared.current();
        self.publish();
        let after = self.shared.current();
        for kind in Kind::ALL {
            let differing = after.differing(&before, kind, News::Lists);
            differing.iter().for_each(|server| (self.tell)(server, kind));
        }
        self.shared.waiting().wake();
    }

    fn take(&mut self, upstreams: &[Arc<UpstreamConfig>]) {
        let mut old = std::mem::take(&mut self.servers);
        self.order = upstreams.iter().map(|config| config.name.clone()).collect();
        let before: HashMap<ServerName, Arc<UpstreamConfig>> =
            old.iter().map(|(name, known)| (name.clone(), known.config.clone())).collect();
        for config in upstreams {
            let old = old.remove(&config.name);
            let is_known = old
                .as_ref()
                .is_some_and(|old| old.config.target.is_same_server(&config.target));
            let mut known = Known::new(config, old);
            let is_stored = !is_known && !config.is_per_user();
            if let Some(store) = self.store.as_mut().filter(|_| is_stored) {
                store.load(config, &mut known.listed);
            }
            judge(&mut self.pins, &known.profile, &mut known.listed);
            self.servers.insert(config.name.clone(), known);
        }
        // The list of a server with another configuration may differ for clients. A user goes on
        // with its lists until new ones are read, as all do with the shared ones.
        let stays = |(name, id): &(ServerName, ViewId)| {
            let Some((old, new)) = before.get(name).zip(self.servers.get(name)) else {
                return Stays::No;
            };
            if Arc::ptr_eq(old, &new.config) {
                Stays::AsItIs
            } else if id.is_of_user()
                && new.config.may_be_per_user()
                && old.target.is_same_server(&new.config.target)
            {
                Stays::UntilReadAgain
            } else {
                Stays::No
            }
        };
        self.views.retain(stays);
        if let Some(store) = &mut self.store {
            store.keep(|server| self.servers.contains_key(server));
        }
    }

    fn configure(&mut self, wanted: Configure) {
        let before = self.shared.current();
        self.naming = wanted.naming;
        self.take(&wanted.upstreams);
        self.publish();
        let after = self.shared.current();
        clashes::tell_of_renamed(&before, &after);
        for kind in Kind::ALL {
            for server in after.differing(&before, kind, News::Configuration) {
                (self.tell)(&server, kind);
            }
        }
        self.shared.waiting().wake();
        // The reload that waited for it may have given up.
        wanted.done.try_send(()).ok();
    }

    /// Applies a report; returns the lists that it has read.
    fn apply(&mut self, report: Report) -> Read {
        let Report { config, event } = report;
        let Some(known) = self.servers.get_mut(&config.name) else { return Vec::new() };
        // Another server may have taken its place since.
        if !Arc::ptr_eq(&known.config, &config) {
            return Vec::new();
        }
        let listed = &mut known.listed;
        match event {
            Event::Ready { server, initialized } => {
                let era = initialized.revision.era();
                let before = listed.server.initialized.as_ref().map(|it| it.revision.era());
                if before.is_some_and(|before| before != era) {
                    // Those views are of sessions that the server keeps no more, or the other way
                    // round.
                    self.views.retain(|(of, id)| match *of == server && !id.is_of_user() {
                        true => Stays::No,
                        false => Stays::AsItIs,
                    });
                }
                self.views.may_have_changed(&server);
                tell_of_cut(&server, listed.server.initialized.as_deref(), &initialized);
                listed.server.initialized = Some(Arc::new(initialized));
                judge(&mut self.pins, &known.profile, listed);
                Vec::new()
            }
            Event::Lists { server, lists, unread, freshness, read_at, left_out } => {
                let read = lists.iter().map(|(kind, _)| *kind);
                listed.server.asked.extend(read.chain(unread).map(|kind| (kind, read_at)));
                if lists.is_empty() {
                    return Vec::new();
                }
                let read = lists.into_iter().map(|(kind, items)| {
                    (server.clone(), kind, take_list(&server, kind, items, listed))
                });
                let read: Read = read.collect();
                let freshness = freshness.into_iter().map(|(kind, it)| (kind, (it, read_at)));
                listed.server.read.extend(freshness);
                listed.server.left_out.set_over_bounds(left_out);
                listed.server.health = Health::Well;
                listed.server.has_answered = true;
                judge(&mut self.pins, &known.profile, listed);
                let is_same = read.iter().all(|(_, _, reading)| *reading == Reading::Same);
                if let Some(store) = &mut self.store {
                    let reading = if is_same { Reading::Same } else { Reading::Other };
                    store.save(&server, listed, reading);
                }
                if !is_same {
                    self.views.may_have_changed(&server);
                }
                read
            }
            // These events were handled before.
            Event::View { .. } | Event::ViewFailed | Event::NoView { .. } => Vec::new(),
            Event::Failed { server: _, failure } => {
                let FailureReport { stage, message, refusal, .. } = failure;
                listed.server.health = Health::Failed { stage, message, refusal };
                Vec::new()
            }
        }
    }

    /// Publishes the present lists, unless the process ends meanwhile.
    fn publish(&mut self) {
        let servers = self.listed();
        let (before, goes_on) = (self.shared.current(), || !self.shared.waiting().is_ended());
        let Some(next) = merge::merge_after(&before, &self.naming, &servers, &goes_on) else {
            return;
        };
        self.told_clashes.tell(&next.clashes);
        let shown = (!self.views.is_empty()).then(|| {
            let (naming, known) = (self.naming.clone(), self.views.known());
            Arc::new(Shown::new(naming, Arc::new(servers), known))
        });
        tell_of_mirrors(&before, &next);
        self.shared.publish(Arc::new(next), shown);
    }

    fn listed(&self) -> Vec<(Profile, Listed)> {
        let of = |known: &Known| (known.profile.clone(), known.listed.clone());
        self.order.iter().filter_map(|name| self.servers.get(name)).map(of).collect()
    }
}

/// Takes in one list.
fn take_list(
    server: &ServerName,
    kind: Kind,
    items: Vec<ReadItem>,
    listed: &mut Listed,
) -> Reading {
    let (mut named, unusable) = merge::usable(kind, items);
    listed.server.left_out.note(server, kind, unusable);
    listed.server.stale.remove(&kind);
    let known = listed.lists.get(&kind);
    let reading = match known {
        None => Reading::First,
        Some(known) if *known == named => Reading::Same,
        Some(_) => Reading::Other,
    };
    // Unchanged items go on with the text that is in memory.
    if let Some(known) = known {
        merge::share(&mut named, known);
    }
    listed.lists.insert(kind, named);
    reading
}

/// Compares a server's items and instructions with its pins.
fn judge(pins: &mut Option<Pins>, profile: &Profile, listed: &mut Listed) {
    let Some(pins) = pins else { return };
    let mut said = Said::default();
    for kind in Kind::ALL {
        let Some(items) = listed.lists.get(&kind) else { continue };
        let offered = items
            .iter()
            .filter(|(own, _)| kind != Kind::Tool || profile.tools.admits(own))
            .map(|(own, object)| (Subject::of(kind), own.as_str(), object.get().into()));
        said.items.extend(offered);
        // A stored list may be older than the pins.
        if !listed.server.stale.contains(&kind) {
            said.whole.push(Subject::of(kind));
        }
    }
    let initialized = listed.server.initialized.as_ref();
    if let Some(text) = initialized.and_then(|it| it.instructions.as_deref()) {
        said.items.push((Subject::Instructions, "", string(text).into()));
    }
    if !said.items.is_empty() || !said.whole.is_empty() {
        listed.server.pinned = pins.judge(&profile.name, profile.pin, &said);
    }
}

/// Logs the members of a server's introduction that were cut, where that is new.
fn tell_of_cut(server: &ServerName, before: Option<&Initialized>, now: &Initialized) {
    if !now.cut.is_empty() && before.is_none_or(|before| before.cut != now.cut) {
        let cut = now.cut.join(", ");
        log::warn!(target: "catalogue", "{server}: more is said than is kept in: {cut}");
    }
}

/// Logs the tools whose parameters cannot be mirrored as annotated (2026-07-28,
/// basic/transports/streamable-http, Schema Extension), where that is new.
fn tell_of_mirrors(before: &Catalogue, now: &Catalogue) {
    for item in now.items(Kind::Tool) {
        let Err(reason) = &item.mirrors else { continue };
        let known =
            before.find(Kind::Tool, &item.offered, |it| it.own_object == item.own_object);
        if known.is_none() {
            let Item { server, own, .. } = &**item;
            log::warn!(
                target: "catalogue",
                "{server}: the tool {own:?} is not for clients of the modern era: {reason}"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::Budget;
    use crate::config::{Config, Overrides};
    use crate::protocol::listed_item::Taken;
    use crate::protocol::modern::Freshness;
    use std::time::{Duration, Instant};

    #[test]
    fn of_the_time_that_a_list_is_fresh_only_the_rest_is_left() {
        let text = r#"{"mcp_servers":{"s":{"url":"http://127.0.0.1:9/mcp"}}}"#;
        let config = Config::parse(text, &|_| None, &Overrides::default()).unwrap();
        let tell = Box::new(|_: &ServerName, _| ());
        let shared = Shared::new(1, Budget::new(0));
        let mut refresher = Refresher::new(
            config.naming.clone(),
            &config.upstreams,
            shared.clone(),
            tell,
            None,
            None,
        );
        let server = ServerName::parse("s").unwrap();
        let said = Freshness { ttl_ms: 60_000, is_private: false };
        let event = Event::Lists {
            server: server.clone(),
            lists: vec![(Kind::Tool, Vec::new())],
            unread: Vec::new(),
            freshness: vec![(Kind::Tool, said)],
            read_at: Instant::now().checked_sub(Duration::from_secs(50)).unwrap(),
            left_out: 0,
        };
        refresher.apply(Report { config: config.upstreams[0].clone(), event });
        refresher.publish();
        let catalogue = shared.current();
        let known = catalogue.servers.get(&server).unwrap();
        let tools = known.freshness(Kind::Tool);
        assert!((5_000..=10_000).contains(&tools.ttl_ms) && !tools.is_private, "{tools:?}");
        assert_eq!(known.freshness(Kind::Prompt), Freshness::UNKNOWN);
    }

    const TOOLS: Kind = Kind::Tool;

    /// A refresher of the servers that `text` configures, with the notifications of changed lists
    /// and the snapshot at each.
    pub(super) struct Told {
        pub(super) refresher: Refresher,
        config: Config,
    }

    impl Told {
        pub(super) fn new(servers: &str) -> Told {
            let text = format!(r#"{{"mcp_servers":{servers}}}"#);
            let config = Config::parse(&text, &|_| None, &Overrides::default()).unwrap();
            let tell = Box::new(|_: &ServerName, _| ());
            let (naming, shared) = (config.naming.clone(), Shared::new(1, Budget::new(0)));
            let refresher = Refresher::new(naming, &config.upstreams, shared, tell, None, None);
            Told { refresher, config }
        }

        fn items(kind: Kind, names: &[&str]) -> Vec<ReadItem> {
            let rest = r#""name":"n","inputSchema":{"type":"object"}"#;
            let mut taken = Taken::default();
            for name in names {
                let text = match kind {
                    Kind::Tool | Kind::Prompt => rest.replace("\"n\"", &format!("\"{name}\"")),
                    Kind::Resource | Kind::Template => {
                        format!("\"{}\":\"{name}\",{rest}", kind.name_key())
                    }
                };
                taken.take(kind, &format!("{{{text}}}"));
            }
            taken.items()
        }

        /// A report that server `n` has listed these items.
        pub(super) fn report(&self, n: usize, lists: &[(Kind, &[&str])]) -> Report {
            let config = self.config.upstreams[n].clone();
            let read = |(kind, names): &(Kind, &[&str])| (*kind, Told::items(*kind, names));
            let event = Event::Lists {
                server: config.name.clone(),
                lists: lists.iter().map(read).collect(),
                unread: Vec::new(),
                freshness: Vec::new(),
                read_at: Instant::now(),
                left_out: 0,
            };
            Report { config, event }
        }

        fn of(&mut self, n: usize, lists: &[(Kind, &[&str])]) -> Vec<(String, Kind)> {
            let report = self.report(n, lists);
            let read = self.refresher.apply(report);
            let told = self.refresher.publish_read(read);
            told.into_iter().map(|(server, kind)| (server.to_string(), kind)).collect()
        }

        fn kinds(&mut self, lists: &[(Kind, &[&str])]) -> Vec<Kind> {
            self.of(0, lists).into_iter().map(|(_, kind)| kind).collect()
        }
    }

    #[test]
    fn a_list_is_told_of_if_what_is_offered_differs_or_is_the_first() {
        let mut told = Told::new(r#"{"s":{"url":"http://127.0.0.1:9/mcp"}}"#);
        assert_eq!(told.kinds(&[(TOOLS, &[])]), [TOOLS]);
        assert_eq!(told.kinds(&[(TOOLS, &[])]), []);
        assert_eq!(told.kinds(&[(TOOLS, &["a"])]), [TOOLS]);
        assert_eq!(told.kinds(&[(TOOLS, &["a"])]), []);
        assert_eq!(told.kinds(&[(TOOLS, &["b"]), (Kind::Prompt, &[])]), [TOOLS, Kind::Prompt]);
        let both: [(Kind, &[&str]); 2] = [(Kind::Resource, &["a:"]), (Kind::Template, &["b:"])];
        assert_eq!(told.kinds(&both), [Kind::Resource]);
        assert_eq!(told.kinds(&[both[0], (Kind::Template, &["c:"])]), [Kind::Template]);
        assert_eq!(told.kinds(&both), [Kind::Template]);
    }

    #[test]
    fn what_is_not_offered_may_change_and_nobody_is_told() {
        let mut told = Told::new(r#"{"s":{"url":"http://127.0.0.1:9/mcp","tools":["a*"]}}"#);
        assert_eq!(told.kinds(&[(TOOLS, &["a", "b"])]), [TOOLS]);
        assert_eq!(told.kinds(&[(TOOLS, &["a", "c", ""])]), []);
        assert_eq!(told.kinds(&[(TOOLS, &["a", "ab"])]), [TOOLS]);
    }

    /// A client that sees both is notified of the one that has listed, and no other client may
    /// learn of it.
    #[test]
    fn whose_names_depend_on_another_s_list_is_told_of_that_one() {
        let servers =
            r#"{"s":{"url":"http://127.0.0.1:9/mcp"},"t":{"url":"http://127.0.0.1:8/mcp"}}"#;
        let mut told = Told::new(servers);
        told.refresher.naming.prefix = crate::config::Prefix::Never;
        let of = |server: &str| (server.to_owned(), TOOLS);
        assert_eq!(told.of(1, &[(TOOLS, &["a"])]), [of("t")]);
        assert_eq!(told.of(0, &[(TOOLS, &["a"])]), [of("s")]);
    }

    #[test]
    fn a_list_of_an_earlier_process_that_still_stands_is_no_news() {
        let mut told = Told::new(r#"{"s":{"url":"http://127.0.0.1:9/mcp"}}"#);
        let server = ServerName::parse("s").unwrap();
        let known = &mut told.refresher.servers.get_mut(&server).unwrap().listed;
        for kind in [Kind::Tool, Kind::Prompt] {
            let items = merge::usable(kind, Told::items(kind, &["a"])).0;
            known.lists.insert(kind, items);
            known.server.stale.insert(kind);
        }
        told.refresher.publish();
        let lists: [(Kind, &[&str]); 2] = [(Kind::Tool, &["a"]), (Kind::Prompt, &["b"])];
        assert_eq!(told.kinds(&lists), [Kind::Prompt]);
        assert!(!told.refresher.servers.get(&server).unwrap().listed.server.is_stale());
    }
}
