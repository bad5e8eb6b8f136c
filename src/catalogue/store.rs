//! The last good catalogue on disk: each server's introduction and lists, so that a gateway
//! which starts again offers the same before any server has answered.
//!
//! Each server has a file with one JSON object:
//! `{"target","revision","capabilities","server_info"?,"instructions"?,"left_out","lists"}`.
//! `target` is a keyed digest of the server's address: a server with a new address must not be
//! given the old one's tools, and no secret stands on the disk.

use std::collections::HashMap;
use std::sync::Arc;

use ring::{digest, hmac};

use super::merge::{Listed, read_items};
use crate::config::{Target, UpstreamConfig};
use crate::limits::STATE_FILE_BYTES_MAX;
use crate::protocol::call::Kind;
use crate::protocol::legacy::Initialized;
use crate::protocol::pieces::Packing;
use crate::protocol::raw::{RawObject, elements, push_string, string};
use crate::protocol::revision::Revision;
use crate::protocol::server_introduction;
use crate::protocol::server_name::ServerName;
use crate::state::framed::{Form, hex};
use crate::state::{self, StateDir, Writer};

/// A list that was read, compared with the known one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Reading {
    /// No list was known.
    First,
    Same,
    Other,
}

const FORM: Form = Form { name: "catalogue", version: 1 };
/// The beginning of a file's name, before the server's; no name of a server has a dot.
const PREFIX: &str = state::LISTS;

/// The stored files, used by the catalogue's thread.
#[derive(Debug)]
pub struct Store {
    directory: Arc<StateDir>,
    writer: Writer,
    key: hmac::Key,
    upstreams: HashMap<ServerName, Stored>,
}

#[derive(Debug)]
struct Stored {
    target: String,
    /// The digest of the body that was read or written last.
    digest: Option<digest::Digest>,
    /// The parts of that body besides lists: the server's introduction, and the number of items
    /// that are left out. None where the body was not made of present values.
    said: Option<(Arc<Initialized>, usize)>,
    /// True once it is logged that the body is too large.
    is_too_large: bool,
}

impl Store {
    /// `key` is that of the sessions.
    pub fn new(directory: Arc<StateDir>, writer: Writer, key: &[u8; 32]) -> Store {
        let master = hmac::Key::new(hmac::HMAC_SHA256, key);
        let derived = hmac::sign(&master, b"catalogue-target");
        let key = hmac::Key::new(hmac::HMAC_SHA256, derived.as_ref());
        Store { directory, writer, key, upstreams: HashMap::new() }
    }

    /// Reads the stored lists of a server with the same address into `listed`.
    pub fn load(&mut self, upstream: &UpstreamConfig, listed: &mut Listed) {
        let target = hex(hmac::sign(&self.key, &described(&upstream.target)).as_ref());
        let file = file_name(&upstream.name);
        let body = self.directory.read(&file, FORM);
        let mut stored = Stored { target, digest: None, said: None, is_too_large: false };
        if let Some(body) = body {
            match parse(&body, &stored.target, listed) {
                Some(Read::Stored) => {
                    stored.digest = Some(digest::digest(&digest::SHA256, &body));
                    let n_left_out = listed.server.left_out.count();
                    let said = listed.server.initialized.clone();
                    stored.said = said.map(|said| (said, n_left_out));
                }
                // The new server's lists will be written over it.
                Some(Read::OfAnotherTarget) => (),
                None => self.directory.set_aside(&file, "it does not hold what it should"),
            }
        }
        self.upstreams.insert(upstream.name.clone(), stored);
    }

    /// Removes the files of servers for which `is_there` is false.
    pub fn keep(&mut self, is_there: impl Fn(&ServerName) -> bool) {
        self.upstreams.retain(|server, _| is_there(server));
        let is_unknown = |name: &str| {
            let server = name.strip_prefix(PREFIX).and_then(ServerName::parse);
            server.is_some_and(|server| !self.upstreams.contains_key(&server))
        };
        self.directory.remove_where(is_unknown);
    }

    /// Queues the write of a server's lists, if they differ from the stored ones. The file is
    /// made only where a value differs: a server may list the same again and again.
    pub(super) fn save(&mut self, server: &ServerName, listed: &Listed, reading: Reading) {
        let Some(stored) = self.upstreams.get_mut(server) else { return };
        let Some(initialized) = &listed.server.initialized else { return };
        let n_left_out = listed.server.left_out.count();
        let is_said = |(said, n): &(Arc<Initialized>, usize)| {
            (Arc::ptr_eq(said, initialized) || said == initialized) && *n == n_left_out
        };
        if reading == Reading::Same && stored.said.as_ref().is_some_and(is_said) {
            return;
        }
        stored.said = Some((initialized.clone(), n_left_out));
        let body = body(&stored.target, initialized, listed);
        let digest = digest::digest(&digest::SHA256, body.as_bytes());
        if stored.digest.is_some_and(|known| known.as_ref() == digest.as_ref()) {
            return;
        }
        stored.digest = Some(digest);
        let file = FORM.frame(body.as_bytes());
        let is_too_large = u64::try_from(file.len()).is_ok_and(|n| n > STATE_FILE_BYTES_MAX);
        if is_too_large && !stored.is_too_large {
            log::warn!(
                target: "catalogue",
                "{server}: its lists are not kept on disk: they have more than \
                 {STATE_FILE_BYTES_MAX} bytes"
            );
        }
        stored.is_too_large = is_too_large;
        match is_too_large {
            true => self.writer.remove(&file_name(server)),
            false => self.writer.replace(&file_name(server), file),
        }
    }
}

fn file_name(server: &ServerName) -> String {
    format!("{PREFIX}{server}")
}

/// The address of a server. Credentials, which may be exchanged any day, are not a part of it.
fn described(target: &Target) -> Vec<u8> {
    let mut parts: Vec<&[u8]> = Vec::new();
    match target {
        Target::Http(http) => parts.extend([&b"http"[..], http.url.as_bytes()]),
        Target::Stdio(stdio) => {
            parts.extend([&b"stdio"[..], stdio.command.as_bytes()]);
            parts
                .push(stdio.cwd.as_ref().map_or(b"", |cwd| cwd.as_os_str().as_encoded_bytes()));
            parts.extend(stdio.args.iter().map(String::as_bytes));
        }
    }
    let mut described = Vec::new();
    for part in parts {
        described.extend_from_slice(part);
        // No part holds a null character.
        described.push(0);
    }
    described
}

fn body(target: &str, initialized: &Initialized, listed: &Listed) -> String {
    let mut out = format!(
        "{{\"target\":\"{target}\",\"revision\":\"{}\",\"capabilities\":{}",
        initialized.revision,
        initialized.capabilities.get()
    );
    if let Some(info) = &initialized.server_info {
        out.push_str(",\"server_info\":");
        out.push_str(info.get());
    }
    if let Some(instructions) = &initialized.instructions {
        out.push_str(",\"instructions\":");
        push_string(&mut out, instructions);
    }
    out.push_str(&format!(",\"left_out\":{},\"lists\":{{", listed.server.left_out.count()));
    let lists = Kind::ALL.iter().filter_map(|kind| Some((kind, listed.lists.get(kind)?)));
    for (n, (kind, items)) in lists.enumerate() {
        if n > 0 {
            out.push(',');
        }
        out.push_str(&string(kind.list_key()));
        out.push_str(":[");
        for (n, (_, object)) in items.iter().enumerate() {
            if n > 0 {
                out.push(',');
            }
            out.push_str(object.get());
        }
        out.push(']');
    }
    out.push_str("}}");
    out
}

/// The result of reading a body.
enum Read {
    Stored,
    OfAnotherTarget,
}

/// Reads a body into `listed`. None if the text is no such body.
fn parse(body: &[u8], target: &str, listed: &mut Listed) -> Option<Read> {
    let fields = RawObject::parse(std::str::from_utf8(body).ok()?).ok()?;
    if fields.string("target").ok()?? != target {
        return Some(Read::OfAnotherTarget);
    }
    let revision = Revision::parse(&fields.string("revision").ok()??)?;
    let (info, instructions) = (fields.get("server_info"), fields.get("instructions"));
    let capabilities = Some(fields.get("capabilities")?);
    let initialized = server_introduction::read(revision, capabilities, info, instructions);
    let stored = RawObject::parse(fields.get("lists")?).ok()?;
    let mut lists = HashMap::new();
    for kind in Kind::ALL {
        let Some(text) = stored.get(kind.list_key()) else { continue };
        let mut objects = Packing::default();
        elements(text).ok()?.into_iter().for_each(|item| objects.push(item));
        lists.insert(kind, read_items(kind, objects.finish()).0);
    }
    listed.server.initialized = Some(Arc::new(initialized));
    // Their names are known when the server lists again.
    listed.server.left_out.set_over_bounds(serde_json::from_str(fields.get("left_out")?).ok()?);
    listed.server.stale = lists.keys().copied().collect();
    listed.lists = lists;
    Some(Read::Stored)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::raw::Raw;

    fn listed() -> Listed {
        let mut listed = Listed::default();
        listed.server.initialized = Some(Arc::new(Initialized {
            revision: Revision::LATEST_LEGACY,
            capabilities: Raw::from_valid(r#"{"tools":{}}"#.to_owned()),
            server_info: Some(Raw::from_valid(r#"{"name":"x"}"#.to_owned())),
            instructions: Some("\"use\"\nit".to_owned()),
            cut: Vec::new(),
        }));
        listed.server.left_out.set_over_bounds(3);
        let tool = |text: &str| Raw::from_valid(text.to_owned());
        let tools = vec![tool(r#"{"name":"b","x":1.50,"inputSchema":{"type":"object"}}"#)];
        listed.lists.insert(Kind::Tool, read_items(Kind::Tool, tools).0);
        listed.lists.insert(Kind::Prompt, Vec::new());
        listed
    }

    #[test]
    fn what_was_listed_reads_back_as_it_was_and_is_stale() {
        let written = listed();
        let initialized = written.server.initialized.clone().unwrap();
        let text = body("t", &initialized, &written);
        let mut read = Listed::default();
        assert!(matches!(parse(text.as_bytes(), "t", &mut read), Some(Read::Stored)));
        assert_eq!(read.lists, written.lists);
        assert_eq!(read.server.initialized, written.server.initialized);
        assert_eq!((read.server.left_out.count(), read.server.stale.len()), (3, 2));
        assert!(read.server.is_stale() && !read.server.has_answered);
        assert_eq!(body("t", &initialized, &read), text);
    }

    #[test]
    fn a_file_is_made_only_where_something_differs() {
        let path = std::env::temp_dir().join(format!("trunkline-store-{}", std::process::id()));
        let directory = Arc::new(StateDir::open(&path).unwrap());
        let (writer, joined) = state::start(directory.clone()).unwrap();
        let mut store = Store::new(directory, writer, &[0; 32]);
        let mut known = listed();
        let server = ServerName::parse("s").unwrap();
        let (target, is_too_large) = ("t".to_owned(), false);
        let stored = Stored { target, digest: None, said: None, is_too_large };
        store.upstreams.insert(server.clone(), stored);
        let digest = |store: &Store| {
            store.upstreams.get(&server).unwrap().digest.map(|it| it.as_ref().to_vec())
        };
        store.save(&server, &known, Reading::Same);
        let first = digest(&store);
        assert!(first.is_some(), "nothing was stored");
        // The readings decide, without a look at the lists.
        known.lists.remove(&Kind::Prompt);
        store.save(&server, &known, Reading::Same);
        assert_eq!(digest(&store), first);
        store.save(&server, &known, Reading::Other);
        let second = digest(&store);
        assert_ne!(second, first);
        known.server.left_out.set_over_bounds(4);
        store.save(&server, &known, Reading::Same);
        assert_ne!(digest(&store), second);
        drop((store, joined));
        std::fs::remove_dir_all(&path).ok();
    }

    #[test]
    fn what_is_another_s_or_no_list_changes_nothing() {
        let written = listed();
        let text = body("t", &written.server.initialized.clone().unwrap(), &written);
        let mut read = Listed::default();
        let other = parse(text.as_bytes(), "other", &mut read);
        assert!(matches!(other, Some(Read::OfAnotherTarget)));
        for text in ["", "[]", "{}", r#"{"target":"t"}"#, &text.replace("\"lists\"", "\"l\"")] {
            assert!(parse(text.as_bytes(), "t", &mut read).is_none(), "{text}");
        }
        assert!(read.lists.is_empty() && read.server.initialized.is_none());
    }

    #[test]
    fn a_target_is_where_and_how() {
        let stdio = |args: &[&str]| {
            described(&Target::Stdio(crate::config::StdioTarget {
                command: "c".to_owned(),
                args: args.iter().map(|arg| (*arg).to_owned()).collect(),
                env: Vec::new(),
                cwd: None,
                folder: None,
            }))
        };
        assert_ne!(stdio(&["a", "b"]), stdio(&["ab"]));
        assert_ne!(stdio(&["a"]), stdio(&["a", ""]));
        assert_eq!(stdio(&["a"]), stdio(&["a"]));
    }
}
