//! The thread that rebuilds the snapshot when an upstream changes. It never waits for an
//! upstream: what supervisors have read comes as events.

use std::collections::BTreeMap;

use crossbeam_channel::Receiver;

use super::merge::{self, Listed, Profile};
use super::{Health, Server, Shared};
use crate::access::glob::Globs;
use crate::config::{Naming, UpstreamConfig};
use crate::protocol::call::Notice;
use crate::protocol::server_name::ServerName;
use crate::upstream::Event;

/// What the next snapshot is made of.
pub struct Refresher {
    naming: Naming,
    servers: BTreeMap<ServerName, (Profile, Listed)>,
    shared: Shared,
    tell: Box<dyn Fn(Notice) + Send>,
}

impl std::fmt::Debug for Refresher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Refresher").field("servers", &self.servers).finish_non_exhaustive()
    }
}

impl Refresher {
    /// Publishes a first snapshot, in which every server is still connecting. `tell` hears of
    /// each change after the snapshot that shows it is published.
    pub fn new(
        naming: Naming,
        upstreams: &[UpstreamConfig],
        shared: Shared,
        tell: Box<dyn Fn(Notice) + Send>,
    ) -> Refresher {
        let servers = upstreams
            .iter()
            .map(|upstream| {
                let profile = Profile {
                    name: upstream.name.clone(),
                    alias: upstream.alias.clone(),
                    tools: Globs::new(upstream.tools.as_deref().unwrap_or_default()),
                };
                let shown = upstream.alias.as_deref().unwrap_or(upstream.name.as_str());
                let prefix = format!("{shown}{}", naming.separator);
                let server = Server { prefix, ..Server::default() };
                let listed = Listed { server, tools: Vec::new() };
                (upstream.name.clone(), (profile, listed))
            })
            .collect();
        let refresher = Refresher { naming, servers, shared, tell };
        refresher.publish();
        refresher
    }

    /// Runs until every sender of events is gone.
    pub fn run(mut self, events: &Receiver<Event>) {
        while let Ok(event) = events.recv() {
            let notice = self.apply(event);
            self.publish();
            if let Some(notice) = notice {
                (self.tell)(notice);
            }
        }
    }

    fn apply(&mut self, event: Event) -> Option<Notice> {
        match event {
            Event::Ready { server, initialized } => {
                let (_, listed) = self.servers.get_mut(&server)?;
                listed.server.instructions = initialized.instructions;
                None
            }
            Event::Tools { server, tools, left_out, announced } => {
                let (_, listed) = self.servers.get_mut(&server)?;
                let (tools, unnamed) = merge::read_tools(tools);
                if unnamed > 0 {
                    log::warn!(
                        target: "catalogue",
                        "{server}: {unnamed} listed tools have no name, or one that stood before"
                    );
                }
                let differs = listed.tools != tools;
                listed.tools = tools;
                listed.server.left_out = left_out + unnamed;
                listed.server.health = Health::Well;
                listed.server.has_answered = true;
                // A list that was only read again is no news.
                (announced || differs).then_some(Notice::ToolsListChanged(server))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Overrides};
    use crate::protocol::raw::Raw;

    #[test]
    fn a_list_is_told_of_if_it_differs_or_was_announced() {
        let text = r#"{"mcp_servers":{"s":{"url":"http://127.0.0.1:9/mcp"}}}"#;
        let config = Config::parse(text, &|_| None, &Overrides::default()).unwrap();
        let tell = Box::new(|_| ());
        let mut refresher =
            Refresher::new(config.naming, &config.upstreams, Shared::default(), tell);
        let mut is_told = |names: &[&str], announced: bool| {
            let server = ServerName::parse("s").unwrap();
            let tool = |name: &&str| Raw::from_valid(format!(r#"{{"name":"{name}"}}"#));
            let tools = names.iter().map(tool).collect();
            refresher.apply(Event::Tools { server, tools, left_out: 0, announced }).is_some()
        };
        assert!(is_told(&[], true));
        assert!(!is_told(&[], false));
        assert!(is_told(&["a"], false));
        assert!(!is_told(&["a"], false));
        assert!(is_told(&["a"], true));
        assert!(is_told(&["b"], false));
    }
}
