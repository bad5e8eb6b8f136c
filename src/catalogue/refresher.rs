//! The thread that rebuilds the snapshot when an upstream changes. It never waits for an
//! upstream: what supervisors have read comes as events.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, select};

use super::merge::{self, Listed, Profile};
use super::pins::Pins;
use super::store::Store;
use super::{Health, Server, Shared};
use crate::access::glob::Globs;
use crate::config::{Naming, Pin, UpstreamConfig};
use crate::limits::PINS_ACCEPTED_INTERVAL;
use crate::protocol::call::Kind;
use crate::protocol::mirror;
use crate::protocol::server_name::ServerName;
use crate::upstream::{Event, Report};

/// Who hears that a list of a server has changed.
pub type Tell = Box<dyn Fn(&ServerName, Kind) + Send>;

/// What a reload wants of the snapshot.
#[derive(Debug)]
pub struct Configure {
    /// How items are named from here on.
    pub naming: Naming,
    /// The servers from here on, as their upstreams were given them.
    pub upstreams: Vec<Arc<UpstreamConfig>>,
    /// Hears when the snapshot shows it and those whose lists differ are told.
    pub done: Sender<()>,
}

/// One server: how it is configured, and what it has listed.
#[derive(Debug)]
struct Known {
    config: Arc<UpstreamConfig>,
    profile: Profile,
    listed: Listed,
}

impl Known {
    /// What `old` has listed stands until it is read anew, if that is the same server.
    fn new(config: &Arc<UpstreamConfig>, naming: &Naming, old: Option<Known>) -> Known {
        let is_same = |old: &Known| Arc::ptr_eq(&old.config, config);
        let mut listed = match old {
            Some(old) if is_same(&old) => old.listed,
            Some(old) if old.config.target.is_same_server(&config.target) => {
                let server = Server { health: Health::Connecting, ..old.listed.server };
                Listed { server, ..old.listed }
            }
            Some(_) | None => Listed::default(),
        };
        let shown = config.alias.as_deref().unwrap_or(config.name.as_str());
        listed.server.prefix = format!("{shown}{}", naming.separator);
        let profile = Profile {
            name: config.name.clone(),
            alias: config.alias.clone(),
            tools: Globs::new(config.tools.as_deref().unwrap_or_default()),
            pin: config.pin,
        };
        Known { config: config.clone(), profile, listed }
    }
}

/// What the next snapshot is made of.
pub struct Refresher {
    naming: Naming,
    servers: BTreeMap<ServerName, Known>,
    shared: Shared,
    tell: Tell,
    /// Where lists outlive the process, if anywhere.
    store: Option<Store>,
    /// What tools were when they were first seen, if any server has pins.
    pins: Option<Pins>,
}

impl std::fmt::Debug for Refresher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Refresher").field("servers", &self.servers).finish_non_exhaustive()
    }
}

impl Refresher {
    /// Publishes a first snapshot, in which every server is still connecting and has what is
    /// stored of it. `tell` hears of each change after the snapshot that shows it is published.
    pub fn new(
        naming: Naming,
        upstreams: &[Arc<UpstreamConfig>],
        shared: Shared,
        tell: Tell,
        store: Option<Store>,
        pins: Option<Pins>,
    ) -> Refresher {
        let servers = BTreeMap::new();
        let mut refresher = Refresher { naming, servers, shared, tell, store, pins };
        refresher.take(upstreams);
        refresher.publish();
        refresher
    }

    /// Runs until every sender of reports is gone.
    pub fn run(mut self, reports: &Receiver<Report>, configure: &Receiver<Configure>) {
        let mut configure = configure.clone();
        let mut looked = Instant::now();
        loop {
            select! {
                recv(reports) -> report => match report {
                    Ok(report) => self.hear(report),
                    Err(_) => return,
                },
                recv(configure) -> wanted => match wanted {
                    Ok(wanted) => self.configure(wanted),
                    Err(_) => configure = crossbeam_channel::never(),
                },
                default(PINS_ACCEPTED_INTERVAL) => (),
            }
            // Also when there is always an event.
            if self.has_pins() && looked.elapsed() >= PINS_ACCEPTED_INTERVAL {
                self.take_accepted();
                looked = Instant::now();
            }
        }
    }

    fn has_pins(&self) -> bool {
        self.servers.values().any(|known| known.profile.pin != Pin::Off)
    }

    /// Offers what somebody has accepted.
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
        self.publish();
        for server in &accepted {
            (self.tell)(server, Kind::Tool);
        }
    }

    fn hear(&mut self, report: Report) {
        let changed = self.apply(report);
        self.publish();
        if let Some((server, kinds)) = changed {
            for kind in kinds {
                (self.tell)(&server, kind);
            }
        }
    }

    fn take(&mut self, upstreams: &[Arc<UpstreamConfig>]) {
        let mut old = std::mem::take(&mut self.servers);
        for config in upstreams {
            let old = old.remove(&config.name);
            let is_known = old
                .as_ref()
                .is_some_and(|old| old.config.target.is_same_server(&config.target));
            let mut known = Known::new(config, &self.naming, old);
            if let Some(store) = self.store.as_mut().filter(|_| !is_known) {
                store.load(config, &mut known.listed);
            }
            judge(&mut self.pins, &known.profile, &mut known.listed);
            self.servers.insert(config.name.clone(), known);
        }
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
        for kind in Kind::ALL {
            for server in after.differing(&before, kind) {
                (self.tell)(&server, kind);
            }
        }
        // Whoever wanted it may have gone.
        wanted.done.try_send(()).ok();
    }

    fn apply(&mut self, report: Report) -> Option<(ServerName, Vec<Kind>)> {
        let known = self.servers.get_mut(&report.config.name)?;
        // Another one may have taken its place since.
        if !Arc::ptr_eq(&known.config, &report.config) {
            return None;
        }
        let listed = &mut known.listed;
        match report.event {
            Event::Ready { server: _, initialized } => {
                listed.server.initialized = Some(Arc::new(initialized));
                None
            }
            Event::Lists { server, lists, freshness, read_at, left_out, announced } => {
                let mut kinds = Vec::new();
                for (kind, objects) in lists {
                    let (named, unusable) = merge::read_items(kind, objects);
                    listed.server.left_out.note(&server, kind, unusable);
                    let known = listed.lists.entry(kind).or_default();
                    // A list that was only read again is no news, nor is one that an earlier
                    // process has told of.
                    let was_stale = listed.server.stale.remove(&kind);
                    let is_news = (announced && !was_stale) || *known != named;
                    if kind == Kind::Tool && is_news {
                        tell_of_mirrors(&server, &named);
                    }
                    *known = named;
                    // Resources and templates are told of by one notification.
                    let is_told =
                        kinds.iter().any(|told: &Kind| told.changed() == kind.changed());
                    if is_news && !is_told {
                        kinds.push(kind);
                    }
                }
                let read = freshness.into_iter().map(|(kind, it)| (kind, (it, read_at)));
                listed.server.read.extend(read);
                listed.server.left_out.set_over_bounds(left_out);
                listed.server.health = Health::Well;
                listed.server.has_answered = true;
                judge(&mut self.pins, &known.profile, listed);
                if let Some(store) = &mut self.store {
                    store.save(&server, listed);
                }
                Some((server, kinds))
            }
            Event::Failed { server: _, failure } => {
                listed.server.health =
                    Health::Failed { stage: failure.stage, message: failure.message };
                None
            }
        }
    }

    fn publish(&self) {
        let servers: Vec<(Profile, Listed)> = self
            .servers
            .values()
            .map(|known| (known.profile.clone(), known.listed.clone()))
            .collect();
        self.shared.publish(merge::merge(&self.naming, &servers));
    }
}

/// Holds a server's tools against their pins.
fn judge(pins: &mut Option<Pins>, profile: &Profile, listed: &mut Listed) {
    let (Some(pins), Some(tools)) = (pins, listed.lists.get(&Kind::Tool)) else { return };
    let offered = |(own, _): &&(String, _)| profile.tools.admits(own);
    let tools = tools.iter().filter(offered).cloned().collect();
    listed.server.pinned = pins.judge(&profile.name, profile.pin, &tools);
}

/// Tools whose parameters cannot be mirrored as they say (2026-07-28, basic/transports/
/// streamable-http, Schema Extension).
fn tell_of_mirrors(server: &ServerName, tools: &merge::Named) {
    for (name, object) in tools {
        if let Err(reason) = mirror::annotations(object.get()) {
            log::warn!(
                target: "catalogue",
                "{server}: the tool {name:?} is not for clients of the modern era: {reason}"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Overrides};
    use crate::protocol::modern::Freshness;
    use crate::protocol::raw::Raw;
    use std::time::{Duration, Instant};

    #[test]
    fn of_the_time_that_a_list_is_fresh_only_the_rest_is_left() {
        let text = r#"{"mcp_servers":{"s":{"url":"http://127.0.0.1:9/mcp"}}}"#;
        let config = Config::parse(text, &|_| None, &Overrides::default()).unwrap();
        let tell = Box::new(|_: &ServerName, _| ());
        let shared = Shared::default();
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
            freshness: vec![(Kind::Tool, said)],
            read_at: Instant::now().checked_sub(Duration::from_secs(50)).unwrap(),
            left_out: 0,
            announced: true,
        };
        refresher.apply(Report { config: config.upstreams[0].clone(), event });
        refresher.publish();
        let catalogue = shared.current();
        let known = catalogue.servers.get(&server).unwrap();
        let tools = known.freshness(Kind::Tool);
        assert!((5_000..=10_000).contains(&tools.ttl_ms) && !tools.is_private, "{tools:?}");
        assert_eq!(known.freshness(Kind::Prompt), Freshness::UNKNOWN);
    }

    #[test]
    fn a_list_is_told_of_if_it_differs_or_was_announced() {
        let text = r#"{"mcp_servers":{"s":{"url":"http://127.0.0.1:9/mcp"}}}"#;
        let config = Config::parse(text, &|_| None, &Overrides::default()).unwrap();
        let tell = Box::new(|_: &ServerName, _| ());
        let mut refresher = Refresher::new(
            config.naming.clone(),
            &config.upstreams,
            Shared::default(),
            tell,
            None,
            None,
        );
        let mut told = |lists: &[(Kind, &[&str])], announced: bool| {
            let server = ServerName::parse("s").unwrap();
            let lists = lists.iter().map(|(kind, names)| {
                let key = kind.name_key();
                let key = if key == "name" { "title" } else { key };
                let item = |name: &&str| {
                    let rest = format!(r#""name":"{name}","inputSchema":{{"type":"object"}}"#);
                    Raw::from_valid(format!(r#"{{"{key}":"{name}",{rest}}}"#))
                };
                (*kind, names.iter().map(item).collect())
            });
            let lists = lists.collect();
            let event = Event::Lists {
                server,
                lists,
                freshness: Vec::new(),
                read_at: Instant::now(),
                left_out: 0,
                announced,
            };
            let report = Report { config: config.upstreams[0].clone(), event };
            refresher.apply(report).unwrap().1
        };
        let tools = Kind::Tool;
        assert_eq!(told(&[(tools, &[])], true), [tools]);
        assert_eq!(told(&[(tools, &[])], false), []);
        assert_eq!(told(&[(tools, &["a"])], false), [tools]);
        assert_eq!(told(&[(tools, &["a"])], false), []);
        assert_eq!(told(&[(tools, &["a"])], true), [tools]);
        assert_eq!(told(&[(tools, &["b"]), (Kind::Prompt, &[])], false), [tools]);
        let both: [(Kind, &[&str]); 2] = [(Kind::Resource, &["a:"]), (Kind::Template, &["b:"])];
        assert_eq!(told(&both, false), [Kind::Resource]);
        assert_eq!(told(&[both[0], (Kind::Template, &["c:"])], false), [Kind::Template]);
        assert_eq!(told(&both, true), [Kind::Resource]);
    }

    #[test]
    fn a_list_of_an_earlier_process_that_still_stands_is_no_news() {
        let text = r#"{"mcp_servers":{"s":{"url":"http://127.0.0.1:9/mcp"}}}"#;
        let config = Config::parse(text, &|_| None, &Overrides::default()).unwrap();
        let tell = Box::new(|_: &ServerName, _| ());
        let shared = Shared::default();
        let mut refresher =
            Refresher::new(config.naming.clone(), &config.upstreams, shared, tell, None, None);
        let server = ServerName::parse("s").unwrap();
        let item = |name: &str| {
            Raw::from_valid(format!(r#"{{"name":"{name}","inputSchema":{{"type":"object"}}}}"#))
        };
        let known = &mut refresher.servers.get_mut(&server).unwrap().listed;
        for kind in [Kind::Tool, Kind::Prompt] {
            known.lists.insert(kind, merge::read_items(kind, vec![item("a")]).0);
            known.server.stale.insert(kind);
        }
        let event = Event::Lists {
            server: server.clone(),
            lists: vec![(Kind::Tool, vec![item("a")]), (Kind::Prompt, vec![item("b")])],
            freshness: Vec::new(),
            read_at: Instant::now(),
            left_out: 0,
            announced: true,
        };
        let report = Report { config: config.upstreams[0].clone(), event };
        assert_eq!(refresher.apply(report).unwrap().1, [Kind::Prompt]);
        assert!(!refresher.servers.get(&server).unwrap().listed.server.is_stale());
    }
}
