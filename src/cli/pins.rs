//! `trunkline pins accept`.

use std::path::Path;

use super::{complain, exit, fail, print, usage};
use crate::catalogue::pins::{self, NotAccepted};
use crate::config::{Config, Overrides, Pin};
use crate::state::StateDir;

pub(super) fn accept(path: &Path, server: &str, tool: Option<&str>) -> u8 {
    let config = match Config::load(path, &Overrides::default()) {
        Ok(config) => config,
        Err(problems) => {
            for problem in problems {
                complain(&format!("trunkline: {}: {problem}", path.display()));
            }
            return exit::CONFIG;
        }
    };
    let found = config.upstreams.iter().find(|upstream| upstream.name.as_str() == server);
    let Some(upstream) = found else {
        let names: Vec<&str> = config.upstreams.iter().map(|it| it.name.as_str()).collect();
        let there = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        return usage(&format!("pins: there is no server {server:?}; there is: {there}"));
    };
    // A server with pins has somewhere to keep them.
    let Some(state) = config.state_dir.as_ref().filter(|_| upstream.pin != Pin::Off) else {
        return usage(&format!("pins: the server {server:?} has \"pin\": \"off\""));
    };
    match pins::accept(&StateDir::of_another(state), &upstream.name, tool) {
        Ok(names) if names.is_empty() => {
            complain(
                "trunkline: pins: nothing has changed there, as far as is written: what a gateway \
                 has just seen may take a moment, and minutes where tools change all the time",
            );
            exit::FINE
        }
        Ok(names) => {
            let line = |name: &String| format!("accepted {server} {}\n", name.escape_debug());
            print(&names.iter().map(line).collect::<String>())
        }
        Err(NotAccepted::UnknownTool(near)) => {
            let close = match near.as_slice() {
                [] => String::new(),
                near => format!("; close to it: {}", near.join(", ")),
            };
            let tool = tool.unwrap_or_default();
            complain(&format!("trunkline: pins: {server} has no pinned tool {tool:?}{close}"));
            exit::UNAVAILABLE
        }
        Err(NotAccepted::Disk(what)) => fail(&format!("pins: {what}")),
    }
}
