//! Pins: what each tool was when it was first seen, so that one which changes behind the back of
//! whoever trusted it is told of, or withheld until somebody accepts it.
//!
//! The running gateway alone writes the file of pins. `trunkline pins accept` leaves a file beside
//! it that names what is accepted, by its digest: whatever came after that stays withheld. The
//! gateway takes those files while it runs, or when it starts.

mod definition;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::Pinned;
use super::merge::Named;
use super::name::near;
use crate::config::Pin;
use crate::limits::{NEAR_NAMES_MAX, PINNED_TOOLS_MAX};
use crate::protocol::server_name::ServerName;
use crate::state::framed::Form;
use crate::state::{StateDir, Writer};

const PINS: &str = "pins";
const PINS_FORM: Form = Form { name: "pins", version: 1 };
/// Before the time and the process in the name of what is accepted.
const ACCEPTED: &str = "pins-accepted.";
const ACCEPTED_FORM: Form = Form { name: "pins-accepted", version: 1 };

/// Changed tools that one line of the log names.
const TOLD_TOOLS_MAX: usize = 8;

/// A tool's digest when it was first seen or accepted, and the other one that it has now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Entry {
    sha256: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    changed: Option<Changed>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Changed {
    sha256: String,
    /// Seconds since the epoch.
    since: u64,
}

/// Servers' tools by their own names.
type Entries = BTreeMap<String, BTreeMap<String, Entry>>;

/// What somebody accepts: tools of one server, and their digests.
#[derive(Debug, Serialize, Deserialize)]
struct Accepted {
    server: String,
    tools: BTreeMap<String, String>,
}

/// The pins, as the thread that rebuilds the snapshot uses them.
#[derive(Debug)]
pub struct Pins {
    directory: Arc<StateDir>,
    writer: Writer,
    entries: Entries,
}

impl Pins {
    /// Reads them, with what was accepted since.
    pub fn load(directory: Arc<StateDir>, writer: Writer) -> Pins {
        let is_there = directory.changed_at(PINS).is_some();
        let body = directory.read(PINS, PINS_FORM);
        let entries = body.as_deref().and_then(|body| match serde_json::from_slice(body) {
            Ok(entries) => Some(entries),
            Err(error) => {
                directory.set_aside(PINS, &error.to_string());
                None
            }
        });
        if is_there && entries.is_none() {
            log::warn!(target: "pins", "the pins are lost: tools are pinned anew as they are now");
        }
        let mut pins = Pins { directory, writer, entries: entries.unwrap_or_default() };
        pins.take_accepted();
        pins
    }

    /// Looks at the tools that a server lists: pins those that are new, and tells of those that
    /// are not what they were.
    pub fn judge(&mut self, server: &ServerName, pin: Pin, tools: &Named) -> Option<Pinned> {
        if pin == Pin::Off {
            return None;
        }
        let known = self.entries.entry(server.to_string()).or_default();
        let (mut n_new, mut n_unpinned, mut n_restored) = (0, 0, 0);
        let (mut changed, mut news) = (BTreeMap::new(), Vec::new());
        for (own, object) in tools {
            let sha256 = definition::sha256(object.get());
            if let Some(entry) = known.get_mut(own) {
                match entry.look(sha256) {
                    Seen::Same => continue,
                    Seen::Restored => {
                        n_restored += 1;
                        continue;
                    }
                    Seen::Anew => news.push(own.as_str()),
                    Seen::Changed => (),
                }
                let since = entry.changed.as_ref().map_or(0, |changed| changed.since);
                changed.insert(own.clone(), since);
            } else if known.len() < PINNED_TOOLS_MAX {
                known.insert(own.clone(), Entry { sha256, changed: None });
                n_new += 1;
            } else {
                changed.insert(own.clone(), now_seconds());
                n_unpinned += 1;
            }
        }
        let n_pinned = known.len();
        if n_new > 0 {
            log::info!(target: "pins", "{server}: tools pinned as they are now: {n_new}");
        }
        if n_restored > 0 {
            log::info!(target: "pins", "{server}: tools that are again what they were: {n_restored}");
        }
        if n_unpinned > 0 {
            let max = PINNED_TOOLS_MAX;
            log::warn!(target: "pins", "{server}: tools over the {max} that are pinned: {n_unpinned}");
        }
        if !news.is_empty() {
            tell_of_change(server, pin, &news);
        }
        if n_new + n_restored + news.len() > 0 {
            self.save();
        }
        Some(Pinned { pin, n_pinned, changed })
    }

    /// Takes what somebody has accepted; gives the servers whose pins are others now.
    pub fn take_accepted(&mut self) -> HashSet<ServerName> {
        let names = self.directory.names();
        let mut servers = HashSet::new();
        for name in names.iter().filter(|name| name.starts_with(ACCEPTED)) {
            // Half written files and those that were set aside end otherwise.
            if !name.ends_with(char::is_numeric) || name.contains("corrupt") {
                continue;
            }
            let body = self.directory.read(name, ACCEPTED_FORM);
            let accepted = body.and_then(|body| serde_json::from_slice::<Accepted>(&body).ok());
            if let Some(accepted) = accepted
                && let Some(server) = ServerName::parse(&accepted.server)
                && self.accept(&accepted)
            {
                servers.insert(server);
            }
            // After the pins, which come first by name. Taken once more, it changes nothing.
            self.writer.remove(name);
        }
        if !servers.is_empty() {
            self.save();
        }
        servers
    }

    fn accept(&mut self, accepted: &Accepted) -> bool {
        let Some(known) = self.entries.get_mut(&accepted.server) else { return false };
        let mut is_other = false;
        for (own, sha256) in &accepted.tools {
            let Some(entry) = known.get_mut(own) else { continue };
            // What it has become since then nobody has accepted.
            if entry.changed.as_ref().is_some_and(|changed| changed.sha256 == *sha256) {
                *entry = Entry { sha256: sha256.clone(), changed: None };
                is_other = true;
                log::info!(
                    target: "pins",
                    "{}: the tool {own:?} is accepted as it is now", accepted.server
                );
            }
        }
        is_other
    }

    fn file(&self) -> Vec<u8> {
        // Maps of strings and numbers always serialise.
        PINS_FORM.frame(&serde_json::to_vec(&self.entries).unwrap_or_default())
    }

    fn save(&self) {
        self.writer.replace(PINS, self.file());
    }
}

/// What a look at a tool finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    /// What it was.
    Same,
    /// What it was, after it had been something else.
    Restored,
    /// Something else, as before.
    Changed,
    /// Something that it has not been before.
    Anew,
}

impl Entry {
    fn look(&mut self, sha256: String) -> Seen {
        if self.sha256 == sha256 {
            return if self.changed.take().is_some() { Seen::Restored } else { Seen::Same };
        }
        let known = self.changed.as_ref();
        if known.is_some_and(|known| known.sha256 == sha256) {
            return Seen::Changed;
        }
        let since = known.map_or_else(now_seconds, |known| known.since);
        self.changed = Some(Changed { sha256, since });
        Seen::Anew
    }
}

/// One line, however many: a server may change all its tools every second.
fn tell_of_change(server: &ServerName, pin: Pin, tools: &[&str]) {
    let named: Vec<String> =
        tools.iter().take(TOLD_TOOLS_MAX).map(|own| format!("{own:?}")).collect();
    let more = match tools.len().saturating_sub(TOLD_TOOLS_MAX) {
        0 => String::new(),
        n => format!(" and {n} more"),
    };
    let done = match pin {
        Pin::Enforce => "are withheld",
        Pin::Off | Pin::Warn => "are served",
    };
    log::warn!(
        target: "pins",
        "{server}: tools have changed since they were pinned, and {done}: {}{more}. To accept \
         that: trunkline pins accept {server} [TOOL]",
        named.join(", ")
    );
}

/// Why nothing can be accepted.
#[derive(Debug, PartialEq, Eq)]
pub enum NotAccepted {
    /// No tool of that name has been seen; names that are close to it.
    UnknownTool(Vec<String>),
    /// The files cannot be read or written.
    Disk(String),
}

/// Accepts changed tools of a server as they were seen last: one, or all. Gives their names; the
/// gateway that has the directory takes them from there on, or at its next start.
///
/// # Errors
/// There is no such tool, or the directory cannot be used.
pub fn accept(
    directory: &StateDir,
    server: &ServerName,
    tool: Option<&str>,
) -> Result<Vec<String>, NotAccepted> {
    let disk = |what: &str, error: &dyn std::fmt::Display| {
        NotAccepted::Disk(format!("{PINS} cannot be {what}: {error}"))
    };
    let body = directory.look_at(PINS, PINS_FORM).map_err(|error| disk("read", &error))?;
    let entries: Entries = match body {
        Some(body) => serde_json::from_slice(&body).map_err(|error| disk("read", &error))?,
        None => Entries::new(),
    };
    let none = BTreeMap::new();
    let known = entries.get(server.as_str()).unwrap_or(&none);
    if let Some(tool) = tool
        && !known.contains_key(tool)
    {
        let names = known.keys().map(String::as_str);
        return Err(NotAccepted::UnknownTool(near(tool, names, NEAR_NAMES_MAX)));
    }
    let wanted = known.iter().filter(|(own, _)| tool.is_none_or(|tool| tool == *own));
    let tools: BTreeMap<String, String> = wanted
        .filter_map(|(own, entry)| Some((own.clone(), entry.changed.as_ref()?.sha256.clone())))
        .collect();
    if tools.is_empty() {
        return Ok(Vec::new());
    }
    let names = tools.keys().cloned().collect();
    let accepted = Accepted { server: server.to_string(), tools };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let name = format!("{ACCEPTED}{:020}-{}", now.as_nanos(), std::process::id());
    let body = serde_json::to_vec(&accepted).unwrap_or_default();
    directory
        .replace(&name, &ACCEPTED_FORM.frame(&body))
        .map_err(|error| disk("written", &error))?;
    Ok(names)
}

fn now_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
