//! The files of pins as `trunkline pins` reads them, and the files that it leaves for the
//! gateway.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use super::definition::{self, Difference};
use super::kept::{Entry, ServerPins, Text, file_name};
use super::{ACCEPTED, ACCEPTED_FORM, Accepted, Subject};
use crate::catalogue::name::near;
use crate::limits::NEAR_NAMES_MAX;
use crate::protocol::server_name::ServerName;
use crate::state::StateDir;

/// The reason why pins cannot be shown or accepted.
#[derive(Debug, PartialEq, Eq)]
pub enum Unusable {
    /// No item of that name has been seen; these names are close to it.
    UnknownTool(Vec<String>),
    /// The files cannot be read or written.
    Disk(String),
}

/// One pin, as its file has it.
#[derive(Debug, PartialEq, Eq)]
pub struct Line {
    /// The kind of the pinned item.
    pub subject: Subject,
    /// The item's own name.
    pub own: String,
    /// The state of the pin.
    pub state: PinState,
    /// The time since when the server no longer lists the item, in seconds since the epoch.
    pub gone: Option<u64>,
    /// The similar name of an item that had gone when this one came.
    pub like: Option<String>,
}

/// The state of a pin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PinState {
    /// The item is unchanged.
    Pinned,
    /// The item has changed at this time, in seconds since the epoch.
    Changed(u64),
    /// The item was first seen at this time, and is not accepted yet.
    Unpinned(u64),
}

/// The changes of one item.
#[derive(Debug, PartialEq, Eq)]
pub struct Changes {
    /// The kind of the item.
    pub subject: Subject,
    /// The item's own name.
    pub own: String,
    /// The texts that were kept.
    pub texts: Texts,
    /// The places in which the texts differ.
    pub differences: Vec<Difference>,
}

/// The texts of a changed item that were kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Texts {
    /// Both texts.
    Both,
    /// The item is new, and has no pinned text.
    New,
    /// The pinned text was not kept.
    PinnedNotKept,
    /// The present text was not kept.
    ChangedNotKept,
}

fn read(directory: &StateDir, server: &ServerName) -> Result<ServerPins, Unusable> {
    let file = file_name(server);
    let known = ServerPins::look_at(directory, &file)
        .map_err(|error| Unusable::Disk(format!("{file} cannot be read: {error}")))?;
    Ok(known.unwrap_or_default())
}

/// The entries with a name; all entries without one.
fn meant<'a>(
    known: &'a ServerPins,
    name: Option<&str>,
) -> Result<Vec<(Subject, &'a str, &'a Entry)>, Unusable> {
    let Some(name) = name else { return Ok(known.all().collect()) };
    let is_meant = |subject: Subject, own: &str| match subject {
        Subject::Instructions => name == subject.as_str(),
        Subject::Tool | Subject::Prompt | Subject::Resource | Subject::Template => own == name,
    };
    let found: Vec<_> =
        known.all().filter(|(subject, own, _)| is_meant(*subject, own)).collect();
    if found.is_empty() {
        let names = known.all().map(|(_, own, _)| own);
        return Err(Unusable::UnknownTool(near(name, names, NEAR_NAMES_MAX)));
    }
    Ok(found)
}

/// All pins of a server.
///
/// # Errors
/// The server's file of pins cannot be read.
pub fn list(directory: &StateDir, server: &ServerName) -> Result<Vec<Line>, Unusable> {
    let known = read(directory, server)?;
    let line = |(subject, own, entry): (Subject, &str, &Entry)| Line {
        subject,
        own: own.to_owned(),
        state: match (&entry.changed, &entry.sha256) {
            (None, _) => PinState::Pinned,
            (Some(changed), Some(_)) => PinState::Changed(changed.since),
            (Some(changed), None) => PinState::Unpinned(changed.since),
        },
        gone: entry.gone,
        like: entry.like.clone(),
    };
    Ok(known.all().map(line).collect())
}

/// The changes of a server: of one item, or of all.
///
/// # Errors
/// There is no such item, or the server's file of pins cannot be read.
pub fn diff(
    directory: &StateDir,
    server: &ServerName,
    name: Option<&str>,
) -> Result<Vec<Changes>, Unusable> {
    let known = read(directory, server)?;
    let changes = |(subject, own, entry): (Subject, &str, &Entry)| {
        let changed = entry.changed.as_ref()?;
        let text = |text: &Option<Text>| text.as_ref().map(|text| text.get().to_owned());
        let (old, new) = (text(&entry.text), text(&changed.text));
        let texts = match (&entry.sha256, &old, &new) {
            (_, _, None) => Texts::ChangedNotKept,
            (None, _, Some(_)) => Texts::New,
            (Some(_), None, Some(_)) => Texts::PinnedNotKept,
            (Some(_), Some(_), Some(_)) => Texts::Both,
        };
        let differences = match texts {
            Texts::ChangedNotKept => Vec::new(),
            Texts::Both | Texts::New | Texts::PinnedNotKept => {
                definition::differences(old.as_deref(), new.as_deref())
            }
        };
        Some(Changes { subject, own: own.to_owned(), texts, differences })
    };
    Ok(meant(&known, name)?.into_iter().filter_map(changes).collect())
}

/// Accepts changed items of a server as they were seen last: those with a name, or all. Returns
/// them; the gateway that uses the directory takes them at once, or at its next start.
///
/// # Errors
/// There is no such item, or the directory cannot be used.
pub fn accept(
    directory: &StateDir,
    server: &ServerName,
    name: Option<&str>,
) -> Result<Vec<(Subject, String)>, Unusable> {
    let known = read(directory, server)?;
    let mut accepted = Accepted {
        server: server.to_string(),
        tools: BTreeMap::new(),
        others: BTreeMap::new(),
    };
    let mut names = Vec::new();
    for (subject, own, entry) in meant(&known, name)? {
        let Some(changed) = &entry.changed else { continue };
        let items = match subject {
            Subject::Tool => &mut accepted.tools,
            Subject::Prompt | Subject::Resource | Subject::Template | Subject::Instructions => {
                accepted.others.entry(subject.as_str().to_owned()).or_default()
            }
        };
        items.insert(own.to_owned(), changed.sha256.clone());
        names.push((subject, own.to_owned()));
    }
    if names.is_empty() {
        return Ok(names);
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let file = format!("{ACCEPTED}{:020}-{}", now.as_nanos(), std::process::id());
    let body = serde_json::to_vec(&accepted).unwrap_or_default();
    directory
        .replace(&file, &ACCEPTED_FORM.frame(&body))
        .map_err(|error| Unusable::Disk(format!("{file} cannot be written: {error}")))?;
    Ok(names)
}
