//! Pins: what each tool was when it was first seen, so that one which changes behind the back of
//! whoever trusted it is told of, or withheld until somebody accepts it.
//!
//! The running gateway alone writes the files of pins. `trunkline pins accept` leaves a file beside
//! them that names what is accepted, by its digest: whatever came after that stays withheld. The
//! gateway takes those files while it runs, or when it starts.

mod definition;
mod kept;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::Pinned;
use super::merge::Named;
use super::name::near;
use crate::config::Pin;
use crate::limits::{NEAR_NAMES_MAX, PINNED_TOOLS_MAX, PINS_BYTES_MAX};
use crate::protocol::server_name::ServerName;
use crate::state::framed::Form;
use crate::state::{StateDir, Writer};
use kept::{PINNED_SERVERS, PINS_FORM, PinnedServers, Seen, ServerPins, file_name};

/// Before the time and the process in the name of what is accepted.
const ACCEPTED: &str = "pins-accepted.";
const ACCEPTED_FORM: Form = Form { name: "pins-accepted", version: 1 };

/// Changed tools that one line of the log names.
const TOLD_TOOLS_MAX: usize = 8;

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
    servers: HashMap<ServerName, ServerPins>,
    pinned_servers: PinnedServers,
    /// Files of what is accepted that were taken, and go once the pins are on the disk.
    taken: HashSet<String>,
    /// Those that the disk refused to read; said once.
    unread: HashSet<String>,
}

impl Pins {
    /// Reads them, with what was accepted since.
    pub fn load(directory: Arc<StateDir>, writer: Writer) -> Pins {
        let (servers, pinned_servers) = kept::load(&directory);
        let (taken, unread) = (HashSet::new(), HashSet::new());
        let mut pins = Pins { directory, writer, servers, pinned_servers, taken, unread };
        pins.take_accepted();
        pins
    }

    /// Looks at the tools that a server lists: pins those that are new, and tells of those that
    /// are not what they were.
    pub fn judge(&mut self, server: &ServerName, pin: Pin, tools: &Named) -> Option<Pinned> {
        if pin == Pin::Off {
            return None;
        }
        let may_have_been = self.pinned_servers.may_have(server);
        let known = self.servers.entry(server.clone()).or_insert_with(|| match may_have_been {
            true => ServerPins::lost(),
            false => ServerPins::default(),
        });
        let (mut n_new, mut n_unpinned, mut n_restored) = (0, 0, 0);
        let (mut changed, mut news) = (BTreeMap::new(), Vec::new());
        for (own, object) in tools {
            match known.look(own, definition::sha256(object.get())) {
                Seen::Same => continue,
                Seen::New => {
                    n_new += 1;
                    continue;
                }
                Seen::Restored => {
                    n_restored += 1;
                    continue;
                }
                Seen::Anew => news.push(own.as_str()),
                Seen::Unpinned => n_unpinned += 1,
                Seen::Changed => (),
            }
            let known = known.tools.get(own).and_then(|entry| entry.changed.as_ref());
            changed.insert(own.clone(), known.map_or_else(now_seconds, |known| known.since));
        }
        let (n_pinned, is_lost) = (known.n_pinned(), known.is_lost);
        if n_new > 0 {
            log::info!(target: "pins", "{server}: tools pinned as they are now: {n_new}");
        }
        if n_restored > 0 {
            log::info!(target: "pins", "{server}: tools that are again what they were: {n_restored}");
        }
        if n_unpinned > 0 {
            log::warn!(
                target: "pins",
                "{server}: tools over what is pinned of a server ({PINNED_TOOLS_MAX} tools, \
                 {PINS_BYTES_MAX} bytes): {n_unpinned}; they are {}",
                done(pin)
            );
        }
        if !news.is_empty() {
            tell_of_change(server, pin, is_lost, &news);
        }
        if n_new + n_restored + news.len() > 0 {
            self.save(server, Vec::new());
        }
        if let Some(file) = self.pinned_servers.unwritten() {
            self.writer.replace(PINNED_SERVERS, file);
        }
        Some(Pinned { pin, n_pinned, changed })
    }

    /// Takes what somebody has accepted; gives the servers whose pins are others now.
    pub fn take_accepted(&mut self) -> HashSet<ServerName> {
        let names = self.directory.names();
        self.taken.retain(|taken| names.contains(taken));
        self.unread.retain(|unread| names.contains(unread));
        let mut servers = HashSet::new();
        for name in names.into_iter().filter(|name| name.starts_with(ACCEPTED)) {
            // Half written files and those that were set aside end otherwise.
            let is_one = name.ends_with(char::is_numeric) && !name.contains("corrupt");
            if !is_one || self.taken.contains(&name) {
                continue;
            }
            match self.directory.read_now(&name, ACCEPTED_FORM) {
                Ok(Some(body)) => servers.extend(self.take(name, &body)),
                // It has gone, or was set aside.
                Ok(None) => (),
                // Somebody has decided something: it stays until it can be read.
                Err(error) => {
                    if self.unread.insert(name.clone()) {
                        log::warn!(target: "pins", "{name} cannot be read now: {error}");
                    }
                }
            }
        }
        servers
    }

    fn take(&mut self, name: String, body: &[u8]) -> Option<ServerName> {
        let accepted = match serde_json::from_slice::<Accepted>(body) {
            Ok(accepted) => accepted,
            Err(error) => {
                self.directory.set_aside(&name, &error.to_string());
                return None;
            }
        };
        self.taken.insert(name.clone());
        let server = ServerName::parse(&accepted.server);
        let known = server.as_ref().and_then(|server| self.servers.get_mut(server));
        let taken = known.map(|known| known.accept(&accepted.tools)).unwrap_or_default();
        for own in &taken {
            log::info!(
                target: "pins",
                "{}: the tool {own:?} is accepted as it is now", accepted.server
            );
        }
        match server.filter(|_| !taken.is_empty()) {
            Some(server) => {
                // Taken once more after a crash, it changes nothing.
                self.save(&server, vec![name]);
                Some(server)
            }
            None => {
                self.writer.remove(&name);
                None
            }
        }
    }

    /// Has a server's pins written; what they make superfluous is removed then.
    fn save(&mut self, server: &ServerName, then_remove: Vec<String>) {
        let Some(known) = self.servers.get(server) else { return };
        self.writer.replace_then_remove(&file_name(server), known.file(), then_remove);
        self.pinned_servers.add(server);
    }
}

/// One line, however many: a server may change all its tools every second.
fn tell_of_change(server: &ServerName, pin: Pin, is_lost: bool, tools: &[&str]) {
    let named: Vec<String> =
        tools.iter().take(TOLD_TOOLS_MAX).map(|own| format!("{own:?}")).collect();
    let more = match tools.len().saturating_sub(TOLD_TOOLS_MAX) {
        0 => String::new(),
        n => format!(" and {n} more"),
    };
    let what = match is_lost {
        true => "what was pinned is lost, so nobody knows whether tools have changed: they",
        false => "tools have changed since they were pinned, and",
    };
    log::warn!(
        target: "pins",
        "{server}: {what} {}: {}{more}. To accept them as they are now: trunkline pins accept \
         {server} [TOOL]",
        done(pin),
        named.join(", ")
    );
}

fn done(pin: Pin) -> &'static str {
    match pin {
        Pin::Enforce => "are withheld",
        Pin::Off | Pin::Warn => "are served",
    }
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
    let file = file_name(server);
    let disk = |what: &str, error: &dyn std::fmt::Display| {
        NotAccepted::Disk(format!("{file} cannot be {what}: {error}"))
    };
    let body = directory.look_at(&file, PINS_FORM).map_err(|error| disk("read", &error))?;
    let known = match body {
        Some(body) => ServerPins::parse(&body).map_err(|error| disk("read", &error))?.tools,
        None => BTreeMap::new(),
    };
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

#[cfg(test)]
mod tests;
