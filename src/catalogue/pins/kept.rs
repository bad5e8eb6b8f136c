//! What is kept of pins: a file a server, so that none can cost another its pins, and one that
//! says of which servers there are some, so that a file that is lost is told from a first look.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::{Deserialize, Serialize};

use super::now_seconds;
use crate::limits::{PINNED_TOOLS_MAX, PINS_BYTES_MAX};
use crate::protocol::server_name::ServerName;
use crate::state::StateDir;
use crate::state::framed::Form;

/// Before the server's name in the file's; no name of a server has a dot.
const PREFIX: &str = "pins.";
pub(super) const PINS_FORM: Form = Form { name: "pins", version: 2 };
/// Names of all servers of which tools were ever pinned. By its name written after the pins, so
/// that a crash between the two loses nothing.
pub(super) const PINNED_SERVERS: &str = "servers-pinned";
const PINNED_SERVERS_FORM: Form = Form { name: "servers-pinned", version: 1 };
/// Bytes of an entry in the file beside its name: two digests, a time, keys.
const ENTRY_BYTES: usize = 256;

/// A tool's digest when it was first seen or accepted, and the other one that it has now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Entry {
    /// Nothing where what was pinned is lost, and nobody has accepted the tool since.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) sha256: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) changed: Option<Changed>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Changed {
    pub(super) sha256: String,
    /// Seconds since the epoch.
    pub(super) since: u64,
}

/// What a look at a tool finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    /// Nothing was known of it: it is pinned.
    New,
    /// What it was.
    Same,
    /// What it was, after it had been something else.
    Restored,
    /// Something else, as before.
    Changed,
    /// Something that it has not been before.
    Anew,
    /// One too many to be pinned.
    Unpinned,
}

/// The pins of one server.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct ServerPins {
    /// What was pinned is lost: no tool is taken for what it was until all are accepted.
    #[serde(default)]
    pub(super) is_lost: bool,
    /// By the tools' own names.
    pub(super) tools: BTreeMap<String, Entry>,
    /// Bytes of the file at most.
    #[serde(skip)]
    n_bytes: usize,
}

impl ServerPins {
    pub(super) fn lost() -> ServerPins {
        ServerPins { is_lost: true, ..ServerPins::default() }
    }

    pub(super) fn parse(body: &[u8]) -> Result<ServerPins, String> {
        let mut pins: ServerPins =
            serde_json::from_slice(body).map_err(|error| error.to_string())?;
        pins.n_bytes = pins.tools.keys().map(|own| entry_bytes(own)).sum();
        Ok(pins)
    }

    /// The whole file.
    pub(super) fn file(&self) -> Vec<u8> {
        // Maps of strings and numbers always serialise.
        PINS_FORM.frame(&serde_json::to_vec(self).unwrap_or_default())
    }

    /// Holds a tool against its pin.
    pub(super) fn look(&mut self, own: &str, sha256: String) -> Seen {
        if let Some(entry) = self.tools.get_mut(own) {
            return entry.look(sha256);
        }
        let n_bytes = self.n_bytes + entry_bytes(own);
        if self.tools.len() >= PINNED_TOOLS_MAX || n_bytes > PINS_BYTES_MAX {
            return Seen::Unpinned;
        }
        self.n_bytes = n_bytes;
        let (entry, seen) = if self.is_lost {
            let changed = Changed { sha256, since: now_seconds() };
            (Entry { sha256: None, changed: Some(changed) }, Seen::Anew)
        } else {
            (Entry { sha256: Some(sha256), changed: None }, Seen::New)
        };
        self.tools.insert(own.to_owned(), entry);
        seen
    }

    /// Tools of which it is known what they were.
    pub(super) fn n_pinned(&self) -> usize {
        self.tools.values().filter(|entry| entry.sha256.is_some()).count()
    }

    /// Takes tools as they are now, by name and digest; gives those that were something else.
    pub(super) fn accept<'a>(
        &mut self,
        accepted: &'a BTreeMap<String, String>,
    ) -> Vec<&'a str> {
        let mut taken = Vec::new();
        for (own, sha256) in accepted {
            let Some(entry) = self.tools.get_mut(own) else { continue };
            // What it has become since then nobody has accepted.
            if entry.changed.as_ref().is_some_and(|changed| changed.sha256 == *sha256) {
                *entry = Entry { sha256: Some(sha256.clone()), changed: None };
                taken.push(own.as_str());
            }
        }
        if !taken.is_empty() && self.tools.values().all(|entry| entry.sha256.is_some()) {
            self.is_lost = false;
        }
        taken
    }
}

impl Entry {
    fn look(&mut self, sha256: String) -> Seen {
        if self.sha256.as_ref() == Some(&sha256) {
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

/// Bytes of an entry at most: of a name's characters, some are written as two.
fn entry_bytes(own: &str) -> usize {
    2 * own.len() + ENTRY_BYTES
}

/// The name of a server's file of pins.
pub(super) fn file_name(server: &ServerName) -> String {
    format!("{PREFIX}{server}")
}

/// Of which servers there are pins.
#[derive(Debug, Default)]
pub(super) struct PinnedServers {
    names: BTreeSet<String>,
    /// Nobody knows: any server may have had some.
    is_lost: bool,
    /// The file says the same, or is to be written so.
    is_written: bool,
}

impl PinnedServers {
    pub(super) fn add(&mut self, server: &ServerName) {
        self.is_written &= !self.names.insert(server.to_string());
    }

    /// The whole file, where it is to be written.
    pub(super) fn unwritten(&mut self) -> Option<Vec<u8>> {
        let file = (!self.is_written).then(|| self.file());
        self.is_written = true;
        file
    }

    /// Whether a server may have been pinned before.
    pub(super) fn may_have(&self, server: &ServerName) -> bool {
        self.is_lost || self.names.contains(server.as_str())
    }

    fn file(&self) -> Vec<u8> {
        PINNED_SERVERS_FORM.frame(&serde_json::to_vec(&self.names).unwrap_or_default())
    }
}

/// Reads all pins there are. A file that cannot be used, or not be read, is set aside: it would
/// be written over.
pub(super) fn load(directory: &StateDir) -> (HashMap<ServerName, ServerPins>, PinnedServers) {
    let names = directory.names();
    let server = |name: &String| ServerName::parse(name.strip_prefix(PREFIX)?);
    let mut all = HashMap::new();
    for server in names.iter().filter_map(server) {
        let name = file_name(&server);
        let read = directory.look_at(&name, PINS_FORM);
        let pins = match read.and_then(|body| body.map(|it| ServerPins::parse(&it)).transpose())
        {
            Ok(pins) => pins.unwrap_or_else(ServerPins::lost),
            Err(why) => {
                directory.set_aside(&name, &why);
                ServerPins::lost()
            }
        };
        all.insert(server, pins);
    }
    let read = directory.look_at(PINNED_SERVERS, PINNED_SERVERS_FORM);
    let parse = |body: Vec<u8>| serde_json::from_slice(&body).map_err(|it| it.to_string());
    let (names, is_lost) = match read.and_then(|body| body.map(parse).transpose()) {
        Ok(Some(names)) => (names, false),
        // Without any pins, it is the first start.
        Ok(None) => (BTreeSet::new(), !all.is_empty()),
        Err(why) => {
            directory.set_aside(PINNED_SERVERS, &why);
            (BTreeSet::new(), true)
        }
    };
    let mut servers = PinnedServers { names, is_lost, is_written: !is_lost };
    // A crash may have come between the two.
    all.keys().for_each(|server| servers.add(server));
    (all, servers)
}
