//! `trunkline pins`.

use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use super::command::Pins;
use super::{complain, exit, fail, print, refused, shown, usage};
use crate::catalogue::pins::command::{self, Changes, Line, PinState, Texts, Unusable};
use crate::catalogue::pins::{Difference, Subject};
use crate::config::{Config, Pin, PinnedServer};
use crate::state::StateDir;
use crate::telemetry::timestamp::rfc3339;

pub(super) fn run(path: &Path, what: &Pins) -> u8 {
    let (state_dir, servers) = match Config::pinned(path) {
        Ok(found) => found,
        Err(problems) => return refused(path, &problems),
    };
    let config = Kept { state_dir, servers };
    match what {
        Pins::List => list(&config),
        Pins::Diff { server, tool } => match pinned(&config, server) {
            Ok((directory, upstream)) => diff(&directory, upstream, tool.as_deref()),
            Err(code) => code,
        },
        Pins::Accept { server, tool } => match pinned(&config, server) {
            Ok((directory, upstream)) => accept(&directory, upstream, tool.as_deref()),
            Err(code) => code,
        },
    }
}

/// The parts of the configuration that the commands about pins read.
struct Kept {
    state_dir: Option<PathBuf>,
    servers: Vec<PinnedServer>,
}

/// A server that has pins, and the directory that keeps them.
fn pinned<'a>(config: &'a Kept, server: &str) -> Result<(StateDir, &'a PinnedServer), u8> {
    let found = config.servers.iter().find(|upstream| upstream.name.as_str() == server);
    let Some(upstream) = found else {
        let names: Vec<&str> = config.servers.iter().map(|it| it.name.as_str()).collect();
        let there = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        return Err(usage(&format!("pins: there is no server {server:?}; there is: {there}")));
    };
    // A server with pins has a directory that keeps them.
    let Some(state) = config.state_dir.as_ref().filter(|_| upstream.pin != Pin::Off) else {
        return Err(usage(&format!("pins: the server {server:?} has \"pin\": \"off\"")));
    };
    Ok((StateDir::of_another(state), upstream))
}

fn list(config: &Kept) -> u8 {
    let servers = config.servers.iter().filter(|upstream| upstream.pin != Pin::Off);
    let Some(state) = &config.state_dir else {
        return usage("pins: no server has \"pin\"");
    };
    let directory = StateDir::of_another(state);
    let mut text = String::new();
    for upstream in servers {
        match command::list(&directory, &upstream.name) {
            Ok(lines) => {
                for line in lines {
                    text.push_str(&format!(
                        "{} {}\n",
                        upstream.name,
                        told(&line, upstream.pin)
                    ));
                }
            }
            Err(error) => return refuse(upstream, None, &error),
        }
    }
    if text.is_empty() {
        complain("trunkline: pins: nothing is pinned, as far as is written");
    }
    print(&text)
}

/// `tool NAME: changed since TIME, withheld`.
fn told(line: &Line, pin: Pin) -> String {
    let at = |seconds: u64| rfc3339(UNIX_EPOCH + Duration::from_secs(seconds));
    let done = if pin.withholds() { "withheld" } else { "served" };
    let mut text = match line.state {
        PinState::Pinned => format!("{}: pinned", named(line.subject, &line.own)),
        PinState::Changed(since) => {
            format!("{}: changed since {}, {done}", named(line.subject, &line.own), at(since))
        }
        PinState::Unpinned(since) => {
            format!(
                "{}: not pinned since {}, {done}",
                named(line.subject, &line.own),
                at(since)
            )
        }
    };
    if let Some(gone) = line.gone {
        text.push_str(&format!("; gone since {}", at(gone)));
    }
    if let Some(like) = &line.like {
        text.push_str(&format!(
            "; came when {}, which has a similar name, had gone",
            shown(like)
        ));
    }
    text
}

fn diff(directory: &StateDir, upstream: &PinnedServer, tool: Option<&str>) -> u8 {
    match command::diff(directory, &upstream.name, tool) {
        Ok(changes) if changes.is_empty() => nothing(),
        Ok(changes) => {
            let of = |changes: &Changes| format!("{} {}", upstream.name, differing(changes));
            print(&changes.iter().map(of).collect::<String>())
        }
        Err(error) => refuse(upstream, tool, &error),
    }
}

fn differing(changes: &Changes) -> String {
    let mut text = format!("{}\n", named(changes.subject, &changes.own));
    match changes.texts {
        Texts::Both => (),
        Texts::New => text.push_str("- not pinned\n"),
        Texts::PinnedNotKept => text.push_str("- the pinned text was not kept\n"),
        Texts::ChangedNotKept => text.push_str("+ the text as it is now was not kept\n"),
    }
    let was_kept = changes.texts == Texts::Both;
    for Difference { at, old, new } in &changes.differences {
        let at = if at.is_empty() { String::new() } else { format!("{}: ", shown(at)) };
        let mut line = |sign: char, side: &Option<String>| match side {
            Some(side) => text.push_str(&format!("{sign} {at}{}\n", shown(side))),
            None if was_kept => text.push_str(&format!("{sign} {at}(absent)\n")),
            None => (),
        };
        line('-', old);
        line('+', new);
    }
    text
}

fn accept(directory: &StateDir, upstream: &PinnedServer, tool: Option<&str>) -> u8 {
    match command::accept(directory, &upstream.name, tool) {
        Ok(names) if names.is_empty() => nothing(),
        Ok(names) => {
            let line = |(subject, own): &(Subject, String)| {
                let what = match subject {
                    Subject::Tool => shown(own),
                    Subject::Prompt
                    | Subject::Resource
                    | Subject::Template
                    | Subject::Instructions => named(*subject, own),
                };
                format!("accepted {} {what}\n", upstream.name)
            };
            print(&names.iter().map(line).collect::<String>())
        }
        Err(error) => refuse(upstream, tool, &error),
    }
}

fn nothing() -> u8 {
    complain(
        "trunkline: pins: nothing has changed there, as far as is written: what a gateway has \
         just seen may take a moment, and minutes where tools change all the time",
    );
    exit::FINE
}

fn refuse(upstream: &PinnedServer, tool: Option<&str>, error: &Unusable) -> u8 {
    match error {
        Unusable::UnknownTool(near) => {
            let close = match near.as_slice() {
                [] => String::new(),
                near => format!("; close to it: {}", near.join(", ")),
            };
            let (server, tool) = (&upstream.name, tool.unwrap_or_default());
            complain(&format!("trunkline: pins: {server} has no pinned tool {tool:?}{close}"));
            exit::UNAVAILABLE
        }
        Unusable::Disk(what) => fail(&format!("pins: {what}")),
    }
}

fn named(subject: Subject, own: &str) -> String {
    match subject {
        Subject::Tool | Subject::Prompt | Subject::Resource | Subject::Template => {
            format!("{} {}", subject.as_str(), shown(own))
        }
        Subject::Instructions => subject.as_str().to_owned(),
    }
}
