//! The stored pins: one file for each server, so that none can cost another its pins, and one
//! that names the servers with pins, so that a lost file differs from a server's first start.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::definition::{sha256, sha256_of_members};
use super::now_seconds;
use super::subject::Subject;
use crate::config::Pin;
use crate::limits::{
    ALL_PINS_TEXTS_BYTES_MAX, PINNED_TEXT_BYTES_MAX, PINNED_TOOLS_MAX, PINS_BYTES_MAX,
    PINS_TEXTS_BYTES_MAX,
};
use crate::protocol::server_name::ServerName;
use crate::state::StateDir;
use crate::state::framed::Form;

/// The beginning of a file's name, before the server's; no name of a server has a dot.
const PREFIX: &str = "pins.";
pub(super) const PINS_FORM: Form = Form { name: "pins", version: 3 };
/// Files of this version have tools only, digests of some of their members, and no texts.
const PINS_FORM_OLD: Form = Form { name: "pins", version: 2 };
/// Names of all servers that ever had pins. The writer sorts files by name, and this one comes
/// after the pins, so that a crash between the two loses nothing.
pub(super) const PINNED_SERVERS: &str = "servers-pinned";
const PINNED_SERVERS_FORM: Form = Form { name: "servers-pinned", version: 1 };
/// Bytes of an entry in the file besides names and texts: two digests, times, keys.
const ENTRY_BYTES: usize = 384;

/// The pin of an item: its digest when it was first seen or accepted, and its changed form.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Entry {
    /// None where the item is not accepted yet: in mode `locked`, or because the pin was lost.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) sha256: Option<String>,
    /// True if the digest is one of a file of version 2.
    #[serde(skip_serializing_if = "is_false", default)]
    is_old: bool,
    /// The pinned text, where there was room for it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) text: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) changed: Option<Changed>,
    /// The time since when the server no longer lists the item, in seconds since the epoch.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) gone: Option<u64>,
    /// The similar name of an item that had gone when this one came.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) like: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Changed {
    pub(super) sha256: String,
    #[serde(skip_serializing_if = "is_false", default)]
    is_old: bool,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) text: Option<Text>,
    /// The time at which the change was seen, in seconds since the epoch.
    pub(super) since: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_false(flag: &bool) -> bool {
    !flag
}

/// A JSON text, which stands in the file unchanged. It is parsed when it is taken in, and not
/// each time the file is made.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Text(Box<RawValue>);

impl Text {
    /// None if the text is no JSON.
    fn of(json: &str) -> Option<Text> {
        RawValue::from_string(json.to_owned()).ok().map(Text)
    }

    pub(super) fn get(&self) -> &str {
        self.0.get()
    }
}

/// The result of comparing an item with its pin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    /// The item was unknown, and is pinned now.
    New,
    /// The item was unknown, and is not pinned until it is accepted.
    NewUnpinned,
    /// The item is unchanged.
    Same,
    /// The item is the pinned one again, after a change.
    Restored,
    /// The item is changed as before.
    Changed,
    /// The item is changed in a new way.
    Anew,
    /// The item exceeds the number that can be pinned.
    Unpinned,
}

/// Entries by the items' own names.
pub(super) type Entries = BTreeMap<String, Entry>;

/// The pins of one server.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct ServerPins {
    /// True if the pins were lost: no item counts as unchanged until all are accepted.
    #[serde(default)]
    pub(super) is_lost: bool,
    tools: Entries,
    #[serde(default)]
    prompts: Entries,
    #[serde(default)]
    resources: Entries,
    #[serde(default)]
    resource_templates: Entries,
    /// One entry at most, without a name.
    #[serde(default)]
    instructions: Entries,
    /// The most bytes of the file, without texts.
    #[serde(skip)]
    n_bytes: usize,
    #[serde(skip)]
    n_text_bytes: usize,
    /// Bytes of the texts in all other servers' pins.
    #[serde(skip)]
    n_others_text_bytes: usize,
    /// True if the file on disk is outdated.
    #[serde(skip)]
    is_unwritten: bool,
}

impl ServerPins {
    pub(super) fn lost() -> ServerPins {
        ServerPins { is_lost: true, ..ServerPins::default() }
    }

    pub(super) fn of(&self, subject: Subject) -> &Entries {
        match subject {
            Subject::Tool => &self.tools,
            Subject::Prompt => &self.prompts,
            Subject::Resource => &self.resources,
            Subject::Template => &self.resource_templates,
            Subject::Instructions => &self.instructions,
        }
    }

    pub(super) fn of_mut(&mut self, subject: Subject) -> &mut Entries {
        match subject {
            Subject::Tool => &mut self.tools,
            Subject::Prompt => &mut self.prompts,
            Subject::Resource => &mut self.resources,
            Subject::Template => &mut self.resource_templates,
            Subject::Instructions => &mut self.instructions,
        }
    }

    /// All entries with their kinds.
    pub(super) fn all(&self) -> impl Iterator<Item = (Subject, &str, &Entry)> {
        Subject::ALL.into_iter().flat_map(|subject| {
            self.of(subject).iter().map(move |(own, entry)| (subject, own.as_str(), entry))
        })
    }

    /// Reads the file of a server, of this version or the one before; none where there is no
    /// file.
    pub(super) fn look_at(
        directory: &StateDir,
        name: &str,
    ) -> Result<Option<ServerPins>, String> {
        let (body, is_old) = match directory.look_at(name, PINS_FORM) {
            Ok(body) => (body, false),
            Err(why) => match directory.look_at(name, PINS_FORM_OLD) {
                Ok(body) => (body, true),
                Err(_) => return Err(why),
            },
        };
        let Some(body) = body else { return Ok(None) };
        let mut pins = ServerPins::parse(&body)?;
        if is_old {
            for entry in pins.tools.values_mut() {
                entry.is_old = true;
                entry.changed.iter_mut().for_each(|changed| changed.is_old = true);
            }
        }
        Ok(Some(pins))
    }

    fn parse(body: &[u8]) -> Result<ServerPins, String> {
        let mut pins: ServerPins =
            serde_json::from_slice(body).map_err(|error| error.to_string())?;
        pins.n_bytes = pins.all().map(|(_, own, entry)| entry.bytes(own)).sum();
        pins.n_text_bytes = pins.all().map(|(_, _, entry)| entry.text_bytes()).sum();
        Ok(pins)
    }

    /// The whole file.
    pub(super) fn file(&self) -> Vec<u8> {
        // Maps of strings and numbers always serialise, and texts were read as JSON.
        PINS_FORM.frame(&serde_json::to_vec(self).unwrap_or_default())
    }

    /// The whole file, if it must be written.
    pub(super) fn unwritten(&mut self) -> Option<Vec<u8>> {
        std::mem::take(&mut self.is_unwritten).then(|| self.file())
    }

    /// Bytes of all texts that are kept.
    pub(super) fn n_text_bytes(&self) -> usize {
        self.n_text_bytes
    }

    /// Sets the bytes of the texts in all other servers' pins.
    pub(super) fn note_texts_of_others(&mut self, bytes: usize) {
        self.n_others_text_bytes = bytes;
    }

    /// Drops all texts. The digests still show that an item has changed, but not how.
    pub(super) fn forget_texts(&mut self) {
        for subject in Subject::ALL {
            for entry in self.of_mut(subject).values_mut() {
                entry.text = None;
                entry.changed.iter_mut().for_each(|changed| changed.text = None);
            }
        }
        self.n_text_bytes = 0;
    }

    /// Compares an item with its pin.
    pub(super) fn look(&mut self, subject: Subject, own: &str, item: &str, pin: Pin) -> Seen {
        let n_text_bytes = self.n_text_bytes + item.len();
        let fits = item.len() <= PINNED_TEXT_BYTES_MAX
            && n_text_bytes <= PINS_TEXTS_BYTES_MAX
            && n_text_bytes + self.n_others_text_bytes <= ALL_PINS_TEXTS_BYTES_MAX;
        let text = || fits.then(|| Text::of(item)).flatten();
        if let Some(entry) = self.of_mut(subject).get_mut(own) {
            if entry.is_as_kept(item) {
                return Seen::Same;
            }
            let before = entry.text_bytes();
            let (seen, is_unwritten) = entry.look(subject, item, text);
            let after = entry.text_bytes();
            self.n_text_bytes = self.n_text_bytes + after - before;
            self.is_unwritten |= is_unwritten;
            return seen;
        }
        let is_trusted = !self.is_lost && pin != Pin::Locked;
        let digest = sha256(subject, item);
        let (entry, seen) = if is_trusted {
            (Entry { sha256: Some(digest), text: text(), ..Entry::default() }, Seen::New)
        } else {
            let seen = if self.is_lost { Seen::Anew } else { Seen::NewUnpinned };
            let (is_old, since) = (false, now_seconds());
            let changed = Changed { sha256: digest, is_old, text: text(), since };
            (Entry { changed: Some(changed), ..Entry::default() }, seen)
        };
        let n_bytes = self.n_bytes + entry.bytes(own);
        if self.of(subject).len() >= PINNED_TOOLS_MAX || n_bytes > PINS_BYTES_MAX {
            return Seen::Unpinned;
        }
        self.n_bytes = n_bytes;
        self.n_text_bytes += entry.text_bytes();
        self.is_unwritten = true;
        self.of_mut(subject).insert(own.to_owned(), entry);
        seen
    }

    /// Notes the items of a kind that the server no longer lists: all but `listed`.
    pub(super) fn note_gone(&mut self, subject: Subject, listed: &BTreeSet<&str>) {
        let now = now_seconds();
        let gone = self
            .of_mut(subject)
            .iter_mut()
            .filter(|(own, entry)| entry.gone.is_none() && !listed.contains(own.as_str()));
        let n_gone = gone.map(|(_, entry)| entry.gone = Some(now)).count();
        self.is_unwritten |= n_gone > 0;
    }

    /// Notes the similar name of an item that had gone when this one came.
    pub(super) fn note_like(&mut self, subject: Subject, own: &str, like: &str) {
        let n_bytes = self.n_bytes + 2 * like.len();
        let Some(entry) = self.of_mut(subject).get_mut(own) else { return };
        if n_bytes <= PINS_BYTES_MAX && entry.like.is_none() {
            entry.like = Some(like.to_owned());
            self.n_bytes = n_bytes;
            self.is_unwritten = true;
        }
    }

    /// The number of tools that have a pinned digest.
    pub(super) fn n_pinned(&self) -> usize {
        self.tools.values().filter(|entry| entry.sha256.is_some()).count()
    }

    /// Accepts items of a kind by name and digest; returns those that were changed.
    pub(super) fn accept<'a>(
        &mut self,
        subject: Subject,
        accepted: &'a BTreeMap<String, String>,
    ) -> Vec<&'a str> {
        let mut taken = Vec::new();
        for (own, digest) in accepted {
            let Some(entry) = self.of_mut(subject).get_mut(own) else { continue };
            // Only the form with this digest was accepted; a later change was not.
            let is_meant = |changed: &mut Changed| changed.sha256 == *digest;
            let before = entry.text_bytes();
            if let Some(Changed { sha256, is_old, text, .. }) = entry.changed.take_if(is_meant)
            {
                *entry = Entry { sha256: Some(sha256), is_old, text, ..entry.clone() };
                let after = entry.text_bytes();
                self.n_text_bytes = self.n_text_bytes + after - before;
                taken.push(own.as_str());
            }
        }
        self.is_unwritten |= !taken.is_empty();
        if !taken.is_empty() && self.all().all(|(_, _, entry)| entry.sha256.is_some()) {
            self.is_lost = false;
        }
        taken
    }
}

impl Entry {
    /// True if no digest is needed: the text equals the kept one, and the item is unchanged.
    fn is_as_kept(&self, item: &str) -> bool {
        self.text.as_ref().is_some_and(|text| text.get() == item)
            && self.sha256.is_some()
            && !self.is_old
            && self.changed.is_none()
            && self.gone.is_none()
    }

    /// Compares an item with this entry; returns the result, and true if the file must be
    /// written.
    fn look(
        &mut self,
        subject: Subject,
        item: &str,
        text: impl Fn() -> Option<Text>,
    ) -> (Seen, bool) {
        let is_back = self.gone.take().is_some();
        let digest = sha256(subject, item);
        let is = |known: &str, is_old: bool| match is_old {
            true => known == sha256_of_members(item),
            false => known == digest,
        };
        if self.sha256.as_deref().is_some_and(|known| is(known, self.is_old)) {
            let was_changed = self.changed.take().is_some();
            let is_news = self.is_old || self.text.is_none() && text().is_some();
            if is_news {
                (self.is_old, self.text) = (false, text());
                self.sha256 = Some(digest);
            }
            let seen = if was_changed { Seen::Restored } else { Seen::Same };
            return (seen, was_changed || is_news || is_back);
        }
        let known = self.changed.as_ref();
        let since = known.map_or_else(now_seconds, |known| known.since);
        let is_known = known.is_some_and(|known| is(&known.sha256, known.is_old));
        if is_known && known.is_some_and(|known| !known.is_old) {
            return (Seen::Changed, is_back);
        }
        self.changed = Some(Changed { sha256: digest, is_old: false, text: text(), since });
        (if is_known { Seen::Changed } else { Seen::Anew }, true)
    }

    /// The most bytes in the file, without texts: some of a name's characters are written as two.
    fn bytes(&self, own: &str) -> usize {
        2 * own.len() + 2 * self.like.as_ref().map_or(0, String::len) + ENTRY_BYTES
    }

    fn text_bytes(&self) -> usize {
        let changed = self.changed.as_ref().and_then(|changed| changed.text.as_ref());
        self.text.iter().chain(changed).map(|text| text.get().len()).sum()
    }
}

/// The name of a server's file of pins.
pub(super) fn file_name(server: &ServerName) -> String {
    format!("{PREFIX}{server}")
}

/// The names of servers that have pins.
#[derive(Debug, Default)]
pub(super) struct PinnedServers {
    names: BTreeSet<String>,
    /// True if the file was lost: any server may have had pins.
    is_lost: bool,
    /// True if the file on disk is up to date, or its write is queued.
    is_written: bool,
}

impl PinnedServers {
    pub(super) fn add(&mut self, server: &ServerName) {
        self.is_written &= !self.names.insert(server.to_string());
    }

    /// The whole file, if it must be written.
    pub(super) fn unwritten(&mut self) -> Option<Vec<u8>> {
        let file = (!self.is_written).then(|| self.file());
        self.is_written = true;
        file
    }

    /// True if a server may have had pins before.
    pub(super) fn may_have(&self, server: &ServerName) -> bool {
        self.is_lost || self.names.contains(server.as_str())
    }

    fn file(&self) -> Vec<u8> {
        PINNED_SERVERS_FORM.frame(&serde_json::to_vec(&self.names).unwrap_or_default())
    }
}

/// Reads all pins. A file that cannot be used, or not be read, is set aside, because it would be
/// written over.
pub(super) fn load(directory: &StateDir) -> (HashMap<ServerName, ServerPins>, PinnedServers) {
    let names = directory.names();
    let server = |name: &String| ServerName::parse(name.strip_prefix(PREFIX)?);
    let mut all = HashMap::new();
    let mut text_room = ALL_PINS_TEXTS_BYTES_MAX;
    for server in names.iter().filter_map(server) {
        let name = file_name(&server);
        let mut pins = match ServerPins::look_at(directory, &name) {
            Ok(pins) => pins.unwrap_or_else(ServerPins::lost),
            Err(why) => {
                directory.set_aside(&name, &why);
                ServerPins::lost()
            }
        };
        match text_room.checked_sub(pins.n_text_bytes) {
            Some(left) => text_room = left,
            None => pins.forget_texts(),
        }
        all.insert(server, pins);
    }
    let read = directory.look_at(PINNED_SERVERS, PINNED_SERVERS_FORM);
    let parse = |body: Vec<u8>| serde_json::from_slice(&body).map_err(|it| it.to_string());
    let (names, is_lost) = match read.and_then(|body| body.map(parse).transpose()) {
        Ok(Some(names)) => (names, false),
        // Without any pins, this is the first start.
        Ok(None) => (BTreeSet::new(), !all.is_empty()),
        Err(why) => {
            directory.set_aside(PINNED_SERVERS, &why);
            (BTreeSet::new(), true)
        }
    };
    let mut servers = PinnedServers { names, is_lost, is_written: !is_lost };
    // A crash may have come between the two writes.
    all.keys().for_each(|server| servers.add(server));
    (all, servers)
}
