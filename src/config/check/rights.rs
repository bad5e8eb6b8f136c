//! Checks what a key or a rule allows: its servers, and its globs over tools.

use super::check_globs;
use super::key_globs::{self, Holder};
use crate::config::Naming;
use crate::config::file::foreign::nearest;
use crate::config::file::reader::Reader;
use crate::config::file::{Placed, RawServer};
use crate::protocol::server_name::ServerName;

/// The glob of whoever may use no tool.
const NO_TOOL: &str = "!*";

/// The servers and globs of a holder, checked.
pub(super) struct Rights {
    pub(super) servers: Option<Vec<ServerName>>,
    pub(super) tools: Option<Vec<String>>,
}

/// Checks the rights at `at`.
pub(super) fn check(
    reader: &Reader<'_>,
    holder: Holder,
    at: &str,
    (servers, tools): (Option<&[Placed]>, Option<&[Placed]>),
    all: &[RawServer],
    naming: &Naming,
) -> Rights {
    let noun = holder.noun();
    let names = servers.map(|list| server_names(reader, holder, list, all));
    if servers.is_some_and(<[_]>::is_empty) {
        let what = format!("this {noun} may use no server; without \"servers\" it may use all");
        reader.warn(format!("{at}/servers"), what);
    }
    let mut globs = check_globs(reader, tools);
    if tools.is_some_and(<[_]>::is_empty) {
        let what = format!("this {noun} may use no tool; without \"tools\" it may use all");
        reader.warn(format!("{at}/tools"), what);
        globs = Some(vec![NO_TOOL.to_owned()]);
    }
    for (at, glob) in tools.into_iter().flatten() {
        let unclear = key_globs::unclear(naming, holder, &glob.value, names.as_deref());
        if let Some(what) = unclear {
            reader.warn(at, format!("{:?} {what}", glob.written));
        }
    }
    if names.is_none()
        && let Some(globs) = &globs
        && let Some(what) = key_globs::hides(naming, holder, globs)
    {
        reader.warn(format!("{at}/tools"), what);
    }
    Rights { servers: names, tools: globs }
}

fn server_names(
    reader: &Reader<'_>,
    holder: Holder,
    list: &[Placed],
    servers: &[RawServer],
) -> Vec<ServerName> {
    let mut names = Vec::with_capacity(list.len());
    for (at, text) in list {
        if holder == Holder::Rule && text.value == "*" {
            names.extend(servers.iter().filter_map(|server| ServerName::parse(&server.name)));
            continue;
        }
        let known = servers.iter().any(|server| server.name == text.value);
        match ServerName::parse(&text.value) {
            Some(name) if known => names.push(name),
            Some(_) | None => {
                let names = servers.iter().map(|server| server.name.as_str());
                let near = nearest(&text.value, names)
                    .map(|near| format!("; did you mean {near:?}?"))
                    .unwrap_or_default();
                let what = format!("no server has this name: {:?}{near}", text.written);
                reader.problem(at, what);
            }
        }
    }
    names
}
