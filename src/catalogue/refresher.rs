//! The thread that rebuilds the snapshot when an upstream changes. It never waits for an
//! upstream: what supervisors have read comes as events.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::{Receiver, RecvTimeoutError};

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
use crate::upstream::Event;

/// Who hears that a list of a server has changed.
pub type Tell = Box<dyn Fn(&ServerName, Kind) + Send>;

/// What the next snapshot is made of.
pub struct Refresher {
    naming: Naming,
    servers: BTreeMap<ServerName, (Profile, Listed)>,
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
        upstreams: &[UpstreamConfig],
        shared: Shared,
        tell: Tell,
        mut store: Option<Store>,
        mut pins: Option<Pins>,
    ) -> Refresher {
        let servers = upstreams
            .iter()
            .map(|upstream| {
                let profile = Profile {
                    name: upstream.name.clone(),
                    alias: upstream.alias.clone(),
                    tools: Globs::new(upstream.tools.as_deref().unwrap_or_default()),
                    pin: upstream.pin,
                };
                let shown = upstream.alias.as_deref().unwrap_or(upstream.name.as_str());
                let prefix = format!("{shown}{}", naming.separator);
                let server = Server { prefix, ..Server::default() };
                let mut listed = Listed { server, ..Listed::default() };
                if let Some(store) = &mut store {
                    store.load(upstream, &mut listed);
                }
                judge(&mut pins, &profile, &mut listed);
                (upstream.name.clone(), (profile, listed))
            })
            .collect();
        if let Some(store) = &store {
            store.sweep();
        }
        let refresher = Refresher { naming, servers, shared, tell, store, pins };
        refresher.publish();
        refresher
    }

    /// Runs until every sender of events is gone.
    pub fn run(mut self, events: &Receiver<Event>) {
        let has_pins = self.servers.values().any(|(profile, _)| profile.pin != Pin::Off);
        let mut looked = Instant::now();
        loop {
            let event = if has_pins {
                events.recv_timeout(PINS_ACCEPTED_INTERVAL)
            } else {
                events.recv().map_err(|_| RecvTimeoutError::Disconnected)
            };
            match event {
                Ok(event) => {
                    let changed = self.apply(event);
                    self.publish();
                    if let Some((server, kinds)) = changed {
                        for kind in kinds {
                            (self.tell)(&server, kind);
                        }
                    }
                }
                Err(RecvTimeoutError::Timeout) => (),
                Err(RecvTimeoutError::Disconnected) => return,
            }
            // Also when there is always an event.
            if has_pins && looked.elapsed() >= PINS_ACCEPTED_INTERVAL {
                self.take_accepted();
                looked = Instant::now();
            }
        }
    }

    /// Offers what somebody has accepted.
    fn take_accepted(&mut self) {
        let accepted = self.pins.as_mut().map(Pins::take_accepted).unwrap_or_default();
        if accepted.is_empty() {
            return;
        }
        for server in &accepted {
            if let Some((profile, listed)) = self.servers.get_mut(server) {
                judge(&mut self.pins, profile, listed);
            }
        }
        self.publish();
        for server in &accepted {
            (self.tell)(server, Kind::Tool);
        }
    }

    fn apply(&mut self, event: Event) -> Option<(ServerName, Vec<Kind>)> {
        match event {
            Event::Ready { server, initialized } => {
                let (_, listed) = self.servers.get_mut(&server)?;
                listed.server.initialized = Some(Arc::new(initialized));
                None
            }
            Event::Lists { server, lists, freshness, read_at, left_out, announced } => {
                let (profile, listed) = self.servers.get_mut(&server)?;
                let mut unnamed = 0;
                let mut kinds = Vec::new();
                for (kind, objects) in lists {
                    let (named, n) = merge::read_items(kind, objects);
                    unnamed += n;
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
                if unnamed > 0 {
                    log::warn!(
                        target: "catalogue",
                        "{server}: {unnamed} listed items have no name, or one that stood before"
                    );
                }
                let read = freshness.into_iter().map(|(kind, it)| (kind, (it, read_at)));
                listed.server.read.extend(read);
                listed.server.left_out = left_out + unnamed;
                listed.server.health = Health::Well;
                listed.server.has_answered = true;
                judge(&mut self.pins, profile, listed);
                if let Some(store) = &mut self.store {
                    store.save(&server, listed);
                }
                Some((server, kinds))
            }
            Event::Failed { server, failure } => {
                let (_, listed) = self.servers.get_mut(&server)?;
                listed.server.health =
                    Health::Failed { stage: failure.stage, message: failure.message };
                None
            }
        }
    }

    fn publish(&self) {
        let servers: Vec<(Profile, Listed)> = self.servers.values().cloned().collect();
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
        let mut refresher =
            Refresher::new(config.naming, &config.upstreams, shared.clone(), tell, None, None);
        let server = ServerName::parse("s").unwrap();
        let said = Freshness { ttl_ms: 60_000, is_private: false };
        refresher.apply(Event::Lists {
            server: server.clone(),
            lists: vec![(Kind::Tool, Vec::new())],
            freshness: vec![(Kind::Tool, said)],
            read_at: Instant::now().checked_sub(Duration::from_secs(50)).unwrap(),
            left_out: 0,
            announced: true,
        });
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
            config.naming,
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
                let item = |name: &&str| Raw::from_valid(format!(r#"{{"{key}":"{name}"}}"#));
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
            refresher.apply(event).unwrap().1
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
            Refresher::new(config.naming, &config.upstreams, shared, tell, None, None);
        let server = ServerName::parse("s").unwrap();
        let item = |name: &str| Raw::from_valid(format!(r#"{{"name":"{name}"}}"#));
        let known = &mut refresher.servers.get_mut(&server).unwrap().1;
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
        assert_eq!(refresher.apply(event).unwrap().1, [Kind::Prompt]);
        assert!(!refresher.servers.get(&server).unwrap().1.server.is_stale());
    }
}
