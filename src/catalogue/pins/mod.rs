//! Pins: digests of each item of a server's lists and of its instructions when they were first
//! seen. A later change is reported, or withheld until it is accepted, so that nothing changes
//! unnoticed for a client that trusted the first form.
//!
//! Only the running gateway writes the files of pins. `trunkline pins accept` leaves a file
//! beside them that names the accepted items by digest: a later change stays withheld. The
//! gateway takes those files while it runs, or when it starts.

pub mod command;
mod definition;
mod kept;
mod review;
mod subject;
mod told;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::Pinned;
use super::name::near;
use crate::config::Pin;
use crate::error::PinCause;
use crate::limits::SIMILAR_NAMES_MAX;
use crate::protocol::server_name::ServerName;
use crate::state::framed::Form;
use crate::state::{StateDir, Writer};
use kept::{PINNED_SERVERS, PinnedServers, Seen, ServerPins, file_name};
use told::News;

pub use definition::Difference;
pub use review::Review;
pub use subject::Subject;

/// The beginning of the names of files with accepted items, before the time and the process.
const ACCEPTED: &str = "pins-accepted.";
const ACCEPTED_FORM: Form = Form { name: "pins-accepted", version: 1 };

/// Shorter names are not compared.
const SIMILAR_NAME_BYTES_MIN: usize = 4;

/// Accepted items of one server, and their digests.
#[derive(Debug, Serialize, Deserialize)]
struct Accepted {
    server: String,
    #[serde(default)]
    tools: BTreeMap<String, String>,
    /// Items of other kinds, by the kind's word.
    #[serde(default)]
    others: BTreeMap<String, BTreeMap<String, String>>,
}

/// A server's items and instructions that can be pinned.
#[derive(Debug, Default)]
pub struct Said<'a> {
    /// Each item's kind, own name and JSON text.
    pub items: Vec<(Subject, &'a str, Cow<'a, str>)>,
    /// The kinds whose lists are complete: a pinned item that is missing there has gone.
    pub whole: Vec<Subject>,
}

/// All pins, used by the catalogue's thread.
#[derive(Debug)]
pub struct Pins {
    directory: Arc<StateDir>,
    writer: Writer,
    servers: HashMap<ServerName, ServerPins>,
    pinned_servers: PinnedServers,
    /// Files of accepted items that were taken, and are removed once the pins are on the disk.
    taken: HashSet<String>,
    /// Files that the disk refused to read; each is logged once.
    unread: HashSet<String>,
}

impl Pins {
    /// Reads the pins, and the items accepted since.
    pub fn load(directory: Arc<StateDir>, writer: Writer) -> Pins {
        let (servers, pinned_servers) = kept::load(&directory);
        let (taken, unread) = (HashSet::new(), HashSet::new());
        let mut pins = Pins { directory, writer, servers, pinned_servers, taken, unread };
        pins.take_accepted();
        pins
    }

    /// Compares a server's items with their pins: pins new ones, and logs changed ones.
    pub fn judge(&mut self, server: &ServerName, pin: Pin, said: &Said<'_>) -> Option<Pinned> {
        if pin == Pin::Off {
            return None;
        }
        let may_have_been = self.pinned_servers.may_have(server);
        let of_others = self.servers.iter().filter(|(other, _)| *other != server);
        let n_text_bytes: usize = of_others.map(|(_, pins)| pins.n_text_bytes()).sum();
        let known = self.servers.entry(server.clone()).or_insert_with(|| match may_have_been {
            true => ServerPins::lost(),
            false => ServerPins::default(),
        });
        known.note_texts_of_others(n_text_bytes);
        let mut news = News::default();
        let (changed, others) = (BTreeMap::new(), BTreeMap::new());
        let mut pinned = Pinned { pin, n_pinned: 0, changed, others, causes: BTreeMap::new() };
        for (subject, own, item) in &said.items {
            let seen = known.look(*subject, own, item, pin);
            news.note(*subject, own, seen);
            match seen {
                Seen::New | Seen::Same | Seen::Restored => continue,
                Seen::NewUnpinned | Seen::Changed | Seen::Anew | Seen::Unpinned => (),
            }
            let entry = known.of(*subject).get(*own);
            let cause = match entry {
                None => Some(PinCause::TooMany),
                Some(entry) if entry.sha256.is_some() => None,
                Some(_) if known.is_lost => Some(PinCause::Lost),
                Some(_) => Some(PinCause::NotAccepted),
            };
            if let Some(cause) = cause {
                pinned.causes.insert((*subject, (*own).to_owned()), cause);
            }
            let since = entry.and_then(|entry| entry.changed.as_ref()).map(|it| it.since);
            let changed = pinned.changed_mut(*subject);
            changed.insert((*own).to_owned(), since.unwrap_or_else(now_seconds));
        }
        for subject in &said.whole {
            let of_kind = said.items.iter().filter(|(of, _, _)| of == subject);
            known.note_gone(*subject, &of_kind.map(|(_, own, _)| *own).collect());
        }
        for (subject, own, like) in similar(known, &news.unknown) {
            known.note_like(subject, &own, &like);
            told::of_similar(server, subject, &own, &like);
        }
        pinned.n_pinned = known.n_pinned();
        news.tell(server, pin, known.is_lost);
        self.save(server, Vec::new());
        if let Some(file) = self.pinned_servers.unwritten() {
            self.writer.replace(PINNED_SERVERS, file);
        }
        Some(pinned)
    }

    /// Takes accepted items; returns the servers whose pins have changed. The pins of each are
    /// written once, for any number of files.
    pub fn take_accepted(&mut self) -> HashSet<ServerName> {
        let names = self.directory.names();
        self.taken.retain(|taken| names.contains(taken));
        self.unread.retain(|unread| names.contains(unread));
        let mut servers: HashMap<ServerName, Vec<String>> = HashMap::new();
        for name in names.into_iter().filter(|name| name.starts_with(ACCEPTED)) {
            // Names of half written files and of those that were set aside end otherwise.
            let is_one = name.ends_with(char::is_numeric) && !name.contains("corrupt");
            if !is_one || self.taken.contains(&name) {
                continue;
            }
            match self.directory.read_now(&name, ACCEPTED_FORM) {
                Ok(Some(body)) => {
                    if let Some(server) = self.take(&name, &body) {
                        servers.entry(server).or_default().push(name);
                    }
                }
                // The file has gone, or was set aside.
                Ok(None) => (),
                // The file holds accepted items: the file stays until it can be read.
                Err(error) => {
                    if self.unread.insert(name.clone()) {
                        log::warn!(target: "pins", "{name} cannot be read now: {error}");
                    }
                }
            }
        }
        let changed = servers.keys().cloned().collect();
        for (server, taken) in servers {
            // After a crash they are taken once more, which changes nothing.
            self.save(&server, taken);
        }
        changed
    }

    fn take(&mut self, name: &str, body: &[u8]) -> Option<ServerName> {
        let accepted = match serde_json::from_slice::<Accepted>(body) {
            Ok(accepted) => accepted,
            Err(error) => {
                self.directory.set_aside(name, &error.to_string());
                return None;
            }
        };
        self.taken.insert(name.to_owned());
        let server = ServerName::parse(&accepted.server);
        let mut taken = Vec::new();
        if let Some(known) = server.as_ref().and_then(|server| self.servers.get_mut(server)) {
            for (subject, items) in accepted.of_subjects() {
                let own = known.accept(subject, items);
                taken.extend(own.into_iter().map(|own| (subject, own.to_owned())));
            }
        }
        for (subject, own) in &taken {
            let what = subject.named(own);
            log::info!(target: "pins", "{}: accepted as it is now: {what}", accepted.server);
        }
        let changed = server.filter(|_| !taken.is_empty());
        if changed.is_none() {
            self.writer.remove(name);
        }
        changed
    }

    /// Queues the write of a server's pins, if they have changed; files that are then superfluous
    /// are removed after it.
    fn save(&mut self, server: &ServerName, then_remove: Vec<String>) {
        let Some(file) = self.servers.get_mut(server).and_then(ServerPins::unwritten) else {
            return;
        };
        self.writer.replace_then_remove(&file_name(server), file, then_remove);
        self.pinned_servers.add(server);
    }
}

impl Accepted {
    fn of_subjects(&self) -> impl Iterator<Item = (Subject, &BTreeMap<String, String>)> {
        Subject::ALL.into_iter().filter_map(|subject| {
            let others = || self.others.get(subject.as_str());
            let is_tools = subject == Subject::Tool;
            Some((subject, if is_tools { &self.tools } else { others()? }))
        })
    }
}

/// New items whose names are similar to those of items that have gone, with these names.
fn similar(known: &ServerPins, new: &[(Subject, &str)]) -> Vec<(Subject, String, String)> {
    let gone = |subject: Subject| {
        let entries = known.of(subject).iter().filter(|(_, entry)| entry.gone.is_some());
        entries.map(|(own, _)| own.as_str()).take(SIMILAR_NAMES_MAX).collect::<BTreeSet<_>>()
    };
    let gone: BTreeMap<Subject, BTreeSet<&str>> =
        Subject::ALL.into_iter().map(|subject| (subject, gone(subject))).collect();
    let like = |(subject, own): &(Subject, &str)| {
        // Short names are all similar.
        let is_long = |name: &str| name.len() >= SIMILAR_NAME_BYTES_MIN;
        let names = gone.get(subject)?.iter().copied().filter(|it| is_long(it) && is_long(own));
        let like = near(own, names, 1).pop()?;
        Some((*subject, (*own).to_owned(), like))
    };
    new.iter().take(SIMILAR_NAMES_MAX).filter_map(like).collect()
}

fn now_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests;
