//! Reading an upstream's lists: of every kind that it declares, all pages.

use crate::error::Stage;
use crate::limits::UPSTREAM_LIST_PAGES_MAX;
use crate::protocol::call::{Kind, Outcome, Outgoing};
use crate::protocol::jsonrpc::{RpcError, code};
use crate::protocol::raw::{Raw, RawObject, elements, string};
use crate::wait::Interrupted;

use super::Event;
use super::connection::{self, Refusal, Trouble, cut, declares};
use super::link::{Opened, Own};
use super::supervisor::Supervisor;

impl Supervisor {
    /// Reads the lists of these kinds and tells of them, all at once.
    ///
    /// # Errors
    /// The session is of no use. That one list cannot be had only leaves that out.
    pub(super) fn list(&mut self, opened: &Opened, kinds: &[Kind]) -> Result<(), Trouble> {
        let mut lists = Vec::with_capacity(kinds.len());
        let mut failed = Vec::new();
        let mut was_any_read = false;
        for kind in kinds.iter().copied() {
            if !declares(&opened.initialized, kind.capability()) {
                self.left_out.remove(&kind);
                lists.push((kind, Vec::new()));
                continue;
            }
            match self.items(kind).map_err(in_list) {
                Ok((items, left_out)) => {
                    if left_out > 0 {
                        log::warn!(target: "upstream",
                            "{}: {left_out} {} are left out (limits.upstream_tools)",
                            self.core.name(), kind.list_key());
                    }
                    was_any_read = true;
                    self.left_out.insert(kind, left_out);
                    lists.push((kind, items));
                }
                Err(trouble) if is_bearable(kind, &trouble) => failed.push((kind, trouble)),
                Err(trouble) => return Err(trouble),
            }
        }
        for (kind, trouble) in &failed {
            if *kind == Kind::Tool && !was_any_read {
                // Its session is well: only the lists are known no better than before.
                self.note(trouble);
                return Ok(());
            }
            self.remember(trouble);
        }
        if !lists.is_empty() {
            let left_out = self.left_out.values().sum();
            self.tell(Event::Lists { server: self.core.name().clone(), lists, left_out });
        }
        Ok(())
    }

    fn items(&mut self, kind: Kind) -> Result<(Vec<Raw>, usize), Trouble> {
        let max = self.core.limits.upstream_tools;
        let (mut all, mut left_out) = (Vec::new(), 0);
        let mut cursor: Option<String> = None;
        for _ in 0..UPSTREAM_LIST_PAGES_MAX {
            let page = match self.page(kind, cursor.as_deref())? {
                Ok(page) => page,
                // Many servers with resources do not know of templates.
                Err(error)
                    if kind == Kind::Template && error.code == code::METHOD_NOT_FOUND =>
                {
                    return Ok((all, left_out));
                }
                Err(error) => return Err(refused(kind, &error)),
            };
            let (items, next) = read_page(kind, &page)?;
            for item in items {
                if all.len() < max {
                    all.push(item);
                } else {
                    left_out += 1;
                }
            }
            // A cursor that stays the same would never end.
            if next.is_none() || next == cursor {
                return Ok((all, left_out));
            }
            cursor = next;
        }
        log::warn!(target: "upstream", "{}: its list of {} has more than {UPSTREAM_LIST_PAGES_MAX} pages",
            self.core.name(), kind.list_key());
        Ok((all, left_out))
    }

    fn page(
        &mut self,
        kind: Kind,
        cursor: Option<&str>,
    ) -> Result<Result<Raw, RpcError>, Trouble> {
        let mut params = RawObject::default();
        if let Some(cursor) = cursor {
            params.set("cursor", string(cursor));
        }
        let outgoing = Outgoing {
            method: kind.list_method().as_str(),
            is_safe_to_repeat: true,
            params,
            meta: None,
            wants_progress: false,
        };
        let wait = self.busy()?;
        let began = std::time::Instant::now();
        match self.link.request(&mut self.lane, &outgoing, &wait, &mut Own(&self.core))? {
            Outcome::Complete(page) => {
                self.vitals.lock().latency = Some(began.elapsed());
                Ok(Ok(page))
            }
            Outcome::Error { error, .. } => Ok(Err(error)),
        }
    }
}

fn refused(kind: Kind, error: &RpcError) -> Trouble {
    let method = kind.list_method().as_str();
    let what = format!("it refused {method}: {} ({})", cut(&error.message), error.code);
    Trouble::new(connection::Kind::Refused(Refusal::Plain), Stage::List, what)
}

/// Whether the upstream is of use although this list cannot be had. Tools are what most are
/// there for, so for them that means more than a plain refusal.
fn is_bearable(kind: Kind, trouble: &Trouble) -> bool {
    match trouble.kind {
        connection::Kind::Refused(_) => true,
        connection::Kind::Nonsense | connection::Kind::Interrupted(Interrupted::Deadline) => {
            kind != Kind::Tool
        }
        connection::Kind::Interrupted(
            Interrupted::Cancelled | Interrupted::ClientGone | Interrupted::Stopping,
        )
        | connection::Kind::SessionGone
        | connection::Kind::Broke
        | connection::Kind::Overloaded => false,
    }
}

fn in_list(trouble: Trouble) -> Trouble {
    let stage = match trouble.stage {
        Stage::Resolve | Stage::Spawn | Stage::Connect | Stage::Tls | Stage::Handshake => {
            trouble.stage
        }
        Stage::Slot
        | Stage::Send
        | Stage::Answer
        | Stage::Read
        | Stage::Parse
        | Stage::List => Stage::List,
    };
    Trouble { stage, ..trouble }
}

/// The items of one page, each of its own so that the page can go, and the next page's cursor.
fn read_page(kind: Kind, page: &Raw) -> Result<(Vec<Raw>, Option<String>), Trouble> {
    let (method, key) = (kind.list_method().as_str(), kind.list_key());
    let wrong = |what: &str| Trouble::nonsense(format!("its answer to {method} {what}"));
    let fields = RawObject::parse(page.get()).map_err(|_| wrong("is no object"))?;
    let items = fields.get(key).ok_or_else(|| wrong(&format!("has no {key:?}")))?;
    let items = elements(items).map_err(|_| wrong(&format!("has no array in {key:?}")))?;
    let items = items.into_iter().map(|item| Raw::from_valid(item.to_owned())).collect();
    let next = match fields.get("nextCursor") {
        None | Some("null") => None,
        Some(_) => fields.string("nextCursor").map_err(|_| wrong("has a wrong cursor"))?,
    };
    Ok((items, next))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_gives_its_items_and_its_cursor() {
        let page = |text: &str| Raw::from_valid(text.to_owned());
        let tools = r#"{"tools":[{"name":"a"},{"name":"b"}],"nextCursor":"2"}"#;
        let (items, next) = read_page(Kind::Tool, &page(tools)).unwrap();
        assert_eq!((items.len(), next.as_deref()), (2, Some("2")));
        let none = page(r#"{"resourceTemplates":[]}"#);
        assert_eq!(read_page(Kind::Template, &none).unwrap(), (vec![], None));
        assert!(read_page(Kind::Tool, &page(r#"{"tools":{}}"#)).is_err());
        let trouble = read_page(Kind::Prompt, &page("{}")).unwrap_err();
        assert!(trouble.message.contains("prompts/list"), "{}", trouble.message);
    }

    #[test]
    fn only_tools_are_worth_a_session() {
        let late = Interrupted::Deadline;
        let late = Trouble::interrupted(late, Stage::Answer, true);
        assert!(is_bearable(Kind::Prompt, &late) && !is_bearable(Kind::Tool, &late));
        let stopping = Trouble::interrupted(Interrupted::Stopping, Stage::Answer, true);
        assert!(!is_bearable(Kind::Prompt, &stopping));
    }
}
