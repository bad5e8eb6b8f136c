//! Reading an upstream's lists: of every kind that it declares, all pages; and when they are
//! read again.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::error::Stage;
use crate::limits::{LIST_TTL_MIN, REFRESH_INTERVAL, RELIST_INTERVAL, UPSTREAM_LIST_PAGES_MAX};
use crate::protocol::call::{About, Kind, Outcome, Outgoing};
use crate::protocol::jsonrpc::{RpcError, code};
use crate::protocol::legacy::Initialized;
use crate::protocol::modern::Freshness;
use crate::protocol::raw::{Raw, RawObject, elements, string};
use crate::protocol::revision::Era;
use crate::protocol::view::ViewId;
use crate::wait::Interrupted;

use super::Event;
use super::backoff::Retry;
use super::connection::{self, Refusal, Trouble, cut, declares};
use super::link::{Core, Opened, Own};
use super::supervisor::Supervisor;

/// What is known of the lists, and when they are to be read again, apart from the refresh.
#[derive(Default)]
pub(super) struct Lists(HashMap<Kind, List>);

#[derive(Default)]
struct List {
    /// The upstream has said so since it was read.
    changed: bool,
    /// Somebody looked for something in it in vain.
    wanted: bool,
    /// Before that, another change is not followed.
    quiet_until: Option<Instant>,
    /// It could not be had the last time.
    retry: Retry,
    /// What is told next is what the upstream has told to be new.
    announced: bool,
    /// It has been told once.
    known: bool,
    /// It could be read the last time.
    readable: bool,
    /// What was left out of it then.
    left_out: usize,
    /// Its time is over then.
    stale_at: Option<Instant>,
}

/// One list as it was read.
struct Items {
    items: Vec<Raw>,
    left_out: usize,
    /// What the upstream says of it, if anything.
    freshness: Option<Freshness>,
}

impl List {
    /// When it is to be read, if so; a change that nothing keeps waiting is due `now`.
    fn due(&self, now: Instant) -> Option<Instant> {
        // What could not be had is not asked for sooner because it has changed.
        if let Some(at) = self.retry.at() {
            return Some(at);
        }
        let change = self.changed.then(|| self.quiet_until.unwrap_or(now));
        let want = self.wanted.then_some(now);
        [change, want, self.stale_at].into_iter().flatten().min()
    }

    /// Gives whether the upstream has announced what was read.
    fn told(&mut self) -> bool {
        let first = !std::mem::replace(&mut self.known, true);
        std::mem::take(&mut self.announced) || first
    }
}

impl Lists {
    fn of(&mut self, kind: Kind) -> &mut List {
        self.0.entry(kind).or_default()
    }

    /// The upstream has said so; templates change without a notification of their own.
    pub(super) fn note_changed(&mut self, kinds: &[Kind]) {
        for kind in kinds {
            self.of(*kind).changed = true;
            if *kind == Kind::Resource {
                self.of(Kind::Template).changed = true;
            }
        }
    }

    /// Somebody looked for something in these lists in vain.
    pub(super) fn note_wanted(&mut self, kinds: &[Kind]) {
        kinds.iter().for_each(|kind| self.of(*kind).wanted = true);
    }

    /// Those to be read by now.
    pub(super) fn due(&self, now: Instant) -> Vec<Kind> {
        let due = |kind: &Kind| self.0.get(kind).and_then(|list| list.due(now));
        Kind::ALL.into_iter().filter(|kind| due(kind).is_some_and(|at| at <= now)).collect()
    }

    /// When the next one is to be read.
    pub(super) fn next_due(&self, now: Instant) -> Option<Instant> {
        self.0.values().filter_map(|list| list.due(now)).min()
    }

    /// Those that do not wait for another try.
    pub(super) fn not_waiting(&self, now: Instant) -> Vec<Kind> {
        let waits = |kind: &Kind| self.0.get(kind).is_some_and(|it| it.retry.is_waiting(now));
        Kind::ALL.into_iter().filter(|kind| !waits(kind)).collect()
    }

    /// What the upstream says from here on is not in these lists any more.
    fn begin(&mut self, kinds: &[Kind]) {
        for kind in kinds {
            let list = self.of(*kind);
            list.retry.give_up();
            (list.wanted, list.stale_at) = (false, None);
            if std::mem::take(&mut list.changed) {
                list.quiet_until = Some(Instant::now() + RELIST_INTERVAL);
                list.announced = true;
            }
        }
    }

    fn read(&mut self, kind: Kind, left_out: usize, stale_at: Option<Instant>) {
        let list = self.of(kind);
        list.stale_at = stale_at;
        (list.readable, list.left_out) = (true, left_out);
        list.retry.went_well();
    }

    /// The upstream declares none of these.
    fn absent(&mut self, kind: Kind) {
        let list = self.of(kind);
        (list.readable, list.left_out) = (false, 0);
    }

    fn failed(&mut self, kind: Kind, trouble: &Trouble) {
        let list = self.of(kind);
        list.readable = false;
        // Where it gave none in time or one that makes no sense, another try costs too much.
        if matches!(trouble.kind, connection::Kind::Refused(_) | connection::Kind::Overloaded) {
            list.retry.failed(Instant::now(), None);
        }
    }

    fn is_any_readable(&self) -> bool {
        self.0.values().any(|list| list.readable)
    }

    fn left_out(&self) -> usize {
        self.0.values().map(|list| list.left_out).sum()
    }
}

impl Supervisor {
    /// Reads the lists of these kinds and tells of them, all at once.
    ///
    /// # Errors
    /// The session is of no use. That one list cannot be had only leaves that out.
    pub(super) fn list(&mut self, opened: &Opened, kinds: &[Kind]) -> Result<(), Trouble> {
        self.lists.begin(kinds);
        let read_at = self.core.nudge.readings.begin(kinds);
        let (mut lists, mut freshness) = (Vec::with_capacity(kinds.len()), Vec::new());
        let mut failed = Vec::new();
        for kind in kinds.iter().copied() {
            if !declares(&opened.initialized, kind.capability()) {
                self.lists.absent(kind);
                lists.push((kind, Vec::new()));
                continue;
            }
            match self.items(kind).map_err(in_list) {
                Ok(Items { items, left_out, freshness: said }) => {
                    let said = said.filter(|_| opened.is_modern());
                    let is_told_of = opened.tells_of(kind);
                    let stale_at = said.and_then(|it| stale_at(it, read_at, is_told_of));
                    freshness.push((kind, said.unwrap_or(Freshness::UNKNOWN)));
                    if left_out > 0 {
                        log::warn!(target: "upstream",
                            "{}: {left_out} {} are left out \
                            (limits.upstream_tools, limits.upstream_result_bytes)",
                            self.core.name(), kind.list_key());
                    }
                    self.lists.read(kind, left_out, stale_at);
                    lists.push((kind, items));
                }
                Err(trouble) if is_bearable(kind, &trouble) => {
                    self.lists.failed(kind, &trouble);
                    self.core.nudge.readings.put_off(kind, self.lists.of(kind).retry.at());
                    failed.push((kind, trouble));
                }
                Err(trouble) => return Err(trouble),
            }
        }
        for (kind, trouble) in &failed {
            if *kind == Kind::Tool && !self.lists.is_any_readable() {
                // Its session is well: only the lists are known no better than before.
                self.note(trouble);
                return Ok(());
            }
            self.remember(trouble);
        }
        let mut announced = false;
        for (kind, _) in &lists {
            announced |= self.lists.of(*kind).told();
        }
        let (server, left_out) = (self.core.name().clone(), self.lists.left_out());
        let unread = failed.into_iter().map(|(kind, _)| kind).collect();
        self.tell(Event::Lists {
            server,
            lists,
            unread,
            freshness,
            read_at,
            left_out,
            announced,
        });
        Ok(())
    }

    fn items(&mut self, kind: Kind) -> Result<Items, Trouble> {
        let core = self.core.clone();
        items(&core, kind, About::default(), &mut |outgoing| self.ask_list(outgoing))
    }

    fn ask_list(&mut self, outgoing: &Outgoing<'_>) -> Result<Outcome, Trouble> {
        let wait = self.busy()?;
        let began = Instant::now();
        let answer =
            self.link.request_open(&mut self.lane, outgoing, &wait, &mut Own(&self.core));
        if let Ok(Outcome::Complete(_)) = &answer {
            let mut vitals = self.vitals.lock();
            vitals.latency = Some(began.elapsed());
            vitals.breaker.well();
        }
        answer
    }

    /// Reads the lists as clients see them whose requests declare this, and tells of them.
    pub(super) fn read_view(&mut self, opened: &Opened, id: ViewId, capabilities: &str) {
        let core = self.core.clone();
        let about = About { capabilities, ..About::default() };
        let read = read_all(&core, &opened.initialized, about, &mut |outgoing| {
            self.ask_list(outgoing)
        });
        let event = view_event(&core, id, read);
        self.tell(event);
    }
}

/// Sends a request for a page and gives its answer.
type Ask<'a> = dyn FnMut(&Outgoing<'_>) -> Result<Outcome, Trouble> + 'a;

/// Lists that were read one after the other.
pub(super) struct ReadLists {
    lists: Vec<(Kind, Vec<Raw>)>,
    freshness: Vec<(Kind, Freshness)>,
    read_at: Instant,
    left_out: usize,
}

/// Reads all lists as whoever asks sees them.
///
/// # Errors
/// None could be had, or the session is of no use.
pub(super) fn read_all(
    core: &Core,
    initialized: &Initialized,
    about: About<'_>,
    ask: &mut Ask<'_>,
) -> Result<ReadLists, Trouble> {
    let read_at = Instant::now();
    let mut read = ReadLists { lists: Vec::new(), freshness: Vec::new(), read_at, left_out: 0 };
    let mut failed = None;
    for kind in Kind::ALL {
        if !declares(initialized, kind.capability()) {
            read.lists.push((kind, Vec::new()));
            continue;
        }
        match items(core, kind, about, ask).map_err(in_list) {
            Ok(items) => {
                let said =
                    items.freshness.filter(|_| initialized.revision.era() == Era::Modern);
                read.freshness.push((kind, said.unwrap_or(Freshness::UNKNOWN)));
                read.left_out += items.left_out;
                read.lists.push((kind, items.items));
            }
            Err(trouble) if is_bearable(kind, &trouble) => failed = Some(trouble),
            Err(trouble) => return Err(trouble),
        }
    }
    match failed {
        Some(trouble) if read.freshness.is_empty() => Err(trouble),
        Some(_) | None => Ok(read),
    }
}

/// What is told of a view that was to be read.
pub(super) fn view_event(core: &Core, id: ViewId, read: Result<ReadLists, Trouble>) -> Event {
    match read {
        Ok(ReadLists { lists, freshness, read_at, left_out }) => {
            let (server, is_missed) = (core.name().clone(), core.views.was_read(id));
            Event::View { server, id, lists, freshness, read_at, left_out, is_missed }
        }
        // Whoever wants it asks for it on the shared session.
        Err(trouble) if trouble.is_stateless() => {
            core.views.forget(id);
            Event::NoView
        }
        Err(trouble) => {
            core.views.failed(id);
            if let Some(more) = core.told.turn() {
                log::info!(target: "upstream",
                    "{}: lists that only some clients see could not be read ({}): {}{more}",
                    core.name(), trouble.stage, core.scrubbed(trouble.clone()).message);
            }
            Event::NoView
        }
    }
}

/// Reads one list, all pages.
fn items(
    core: &Core,
    kind: Kind,
    about: About<'_>,
    ask: &mut Ask<'_>,
) -> Result<Items, Trouble> {
    let max = core.limits.upstream_tools;
    let mut bytes_left = core.limits.upstream_result_bytes;
    let (mut all, mut left_out) = (Vec::new(), 0);
    let mut freshness: Option<Freshness> = None;
    let mut cursor: Option<String> = None;
    for _ in 0..UPSTREAM_LIST_PAGES_MAX {
        let page = match page(kind, about, cursor.as_deref(), ask)? {
            Ok(page) => page,
            // Many servers with resources do not know of templates.
            Err(error) if kind == Kind::Template && error.code == code::METHOD_NOT_FOUND => {
                return Ok(Items { items: all, left_out, freshness });
            }
            Err(error) => return Err(refused(kind, &error)),
        };
        let Page { items, next, said } = read_page(kind, &page)?;
        // All pages together are as fresh as the least fresh of them.
        freshness = match (freshness, said) {
            (Some(so_far), Some(said)) => Some(so_far.and(said)),
            (so_far, said) => so_far.or(said),
        };
        for item in items {
            let rest = bytes_left.checked_sub(item.get().len());
            if let Some(rest) = rest.filter(|_| left_out == 0 && all.len() < max) {
                bytes_left = rest;
                all.push(item);
            } else {
                left_out += 1;
            }
        }
        // A cursor that stays the same would never end.
        if next.is_none() || next == cursor {
            return Ok(Items { items: all, left_out, freshness });
        }
        cursor = next;
    }
    log::warn!(target: "upstream", "{}: its list of {} has more than {UPSTREAM_LIST_PAGES_MAX} pages",
            core.name(), kind.list_key());
    Ok(Items { items: all, left_out, freshness })
}

fn page(
    kind: Kind,
    about: About<'_>,
    cursor: Option<&str>,
    ask: &mut Ask<'_>,
) -> Result<Result<Raw, RpcError>, Trouble> {
    let mut params = RawObject::default();
    if let Some(cursor) = cursor {
        params.set("cursor", string(cursor));
    }
    let outgoing = Outgoing { about, ..Outgoing::own(kind.list_method(), params) };
    match ask(&outgoing)? {
        Outcome::Complete(page) => Ok(Ok(page)),
        Outcome::Error { error, .. } => Ok(Err(error)),
        Outcome::InputRequired { .. } => Err(wants_input()),
    }
}

/// Only some methods' results may want input (2026-07-28, basic/patterns/mrtr, Supported
/// Requests).
fn wants_input() -> Trouble {
    Trouble::nonsense("it wants input for what takes none")
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
        connection::Kind::Refused(_) | connection::Kind::Overloaded => true,
        connection::Kind::Nonsense | connection::Kind::Interrupted(Interrupted::Deadline) => {
            kind != Kind::Tool
        }
        connection::Kind::Interrupted(
            Interrupted::Cancelled
            | Interrupted::ClientGone
            | Interrupted::Stopping
            | Interrupted::Retired,
        )
        | connection::Kind::SessionGone
        | connection::Kind::Broke => false,
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

/// When a list is to be read again because its time is over. One that is never fresh is not
/// asked for again and again where its changes are told.
fn stale_at(said: Freshness, read_at: Instant, is_told_of: bool) -> Option<Instant> {
    let ttl = Duration::from_millis(said.ttl_ms);
    let is_due = ttl < REFRESH_INTERVAL && !(ttl.is_zero() && is_told_of);
    is_due.then(|| read_at + ttl.max(LIST_TTL_MIN))
}

/// One page of a list.
#[derive(Debug, PartialEq)]
struct Page {
    /// Each of its own, so that the page can go.
    items: Vec<Raw>,
    /// The next page's cursor.
    next: Option<String>,
    said: Option<Freshness>,
}

fn read_page(kind: Kind, page: &Raw) -> Result<Page, Trouble> {
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
    Ok(Page { items, next, said: Freshness::of(&fields) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_gives_its_items_and_its_cursor() {
        let page = |text: &str| Raw::from_valid(text.to_owned());
        let tools = r#"{"tools":[{"name":"a"},{"name":"b"}],"nextCursor":"2"}"#;
        let Page { items, next, said } = read_page(Kind::Tool, &page(tools)).unwrap();
        assert_eq!((items.len(), next.as_deref(), said), (2, Some("2"), None));
        let fresh = page(r#"{"tools":[],"ttlMs":5,"cacheScope":"public"}"#);
        let said = read_page(Kind::Tool, &fresh).unwrap().said;
        assert_eq!(said, Some(Freshness { ttl_ms: 5, is_private: false }));
        let none = page(r#"{"resourceTemplates":[]}"#);
        let empty = Page { items: vec![], next: None, said: None };
        assert_eq!(read_page(Kind::Template, &none).unwrap(), empty);
        assert!(read_page(Kind::Tool, &page(r#"{"tools":{}}"#)).is_err());
        let trouble = read_page(Kind::Prompt, &page("{}")).unwrap_err();
        assert!(trouble.message.contains("prompts/list"), "{}", trouble.message);
    }

    #[test]
    fn a_list_whose_time_is_over_is_due() {
        let now = Instant::now();
        let after = |ttl_ms: u64, is_told_of: bool| {
            let freshness = Freshness { ttl_ms, is_private: true };
            stale_at(freshness, now, is_told_of).map(|at| at - now)
        };
        assert_eq!(after(60_000, true), Some(Duration::from_secs(60)));
        assert_eq!(after(1, true), Some(LIST_TTL_MIN));
        assert_eq!(after(0, false), Some(LIST_TTL_MIN));
        // The refresh is soon enough for these.
        assert_eq!((after(0, true), after(86_400_000, true)), (None, None));
        let mut lists = Lists::default();
        lists.read(Kind::Prompt, 0, Some(now));
        assert_eq!(lists.due(now), [Kind::Prompt]);
        lists.begin(&[Kind::Prompt]);
        assert_eq!(lists.next_due(now), None);
    }

    #[test]
    fn a_change_is_followed_at_once_and_the_next_one_of_its_kind_later() {
        let mut lists = Lists::default();
        lists.note_changed(&[Kind::Resource]);
        let due = lists.due(Instant::now());
        assert_eq!(due, [Kind::Resource, Kind::Template]);
        lists.begin(&due);
        assert_eq!(lists.next_due(Instant::now()), None);
        lists.note_changed(&[Kind::Resource, Kind::Prompt]);
        assert_eq!(lists.due(Instant::now()), [Kind::Prompt]);
        assert_eq!(lists.due(Instant::now() + RELIST_INTERVAL), Kind::ALL[1..]);
    }

    #[test]
    fn a_list_is_announced_the_first_time_and_where_the_upstream_said_so() {
        let mut lists = Lists::default();
        assert!(lists.of(Kind::Tool).told());
        assert!(!lists.of(Kind::Tool).told());
        lists.note_changed(&[Kind::Tool]);
        lists.begin(&[Kind::Tool]);
        assert!(lists.of(Kind::Tool).told());
        assert!(!lists.of(Kind::Tool).told());
    }

    #[test]
    fn only_a_list_that_was_refused_is_asked_for_again_soon() {
        let mut lists = Lists::default();
        let soon = Instant::now() + crate::limits::BACKOFF_MAX;
        let late = Trouble::interrupted(Interrupted::Deadline, Stage::Answer, true);
        lists.failed(Kind::Prompt, &late);
        lists.failed(Kind::Tool, &refused(Kind::Tool, &RpcError::new(1, "no")));
        assert_eq!(lists.due(soon), [Kind::Tool]);
        lists.begin(&[Kind::Tool]);
        assert!(lists.due(soon).is_empty() && !lists.is_any_readable());
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
