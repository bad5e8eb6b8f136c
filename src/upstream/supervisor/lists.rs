//! Reading an upstream's lists: of every kind that it declares, all pages.

use std::time::{Duration, Instant};

use crate::config::Role;
use crate::error::Stage;
use crate::limits::{LIST_BYTES_MAX, UNDECLARED_LIST_TIMEOUT, UPSTREAM_LIST_PAGES_MAX};
use crate::protocol::call::{About, Kind, Outcome, Outgoing, PrincipalId};
use crate::protocol::jsonrpc::{RpcError, code};
use crate::protocol::legacy::Initialized;
use crate::protocol::listed_item::{ReadItem, Taken, unwell_behind};
use crate::protocol::modern::Freshness;
use crate::protocol::raw::{Raw, RawObject, string, try_each_element};
use crate::protocol::revision::Era;
use crate::protocol::view::ViewId;
use crate::upstream::handshake::declares;
use crate::wait::Interrupted;

use super::Supervisor;
use super::list_failures::{in_list, is_bearable, is_unclear};
use super::list_times::stale_at;
use super::view_readings::ViewReading;
use crate::upstream::Event;
use crate::upstream::failure::{Failure, FailureKind, Refusal, cut};
use crate::upstream::session::context::{GatewaySink, Opened, SessionContext};
use crate::upstream::status::FailureReport;

/// One list as it was read.
struct Items {
    items: Vec<ReadItem>,
    left_out: usize,
    /// What the upstream says of it, if anything.
    freshness: Option<Freshness>,
    /// What it says of servers behind it that are not well, an array's text.
    unwell: Option<String>,
}

/// What came of reading some lists at one time.
struct Round {
    read_at: Instant,
    lists: Vec<(Kind, Vec<ReadItem>)>,
    freshness: Vec<(Kind, Freshness)>,
    /// Those that the upstream gave.
    n_read: usize,
    failed: Vec<(Kind, Failure)>,
}

/// What is known of the tools of an upstream that does not declare that it has any.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum UndeclaredTools {
    #[default]
    ServerEvents,
    /// The session of this generation was asked for them and has none.
    None(u64),
    /// It has some, and is taken for one that declares them from then on.
    Some,
    /// To be asked was too much for the upstream.
    NeverAsk,
}

impl Supervisor {
    /// Reads the lists of these kinds and tells of them, all at once. One that cannot be had is
    /// tried again by and by, and says nothing of the session: calls go on.
    ///
    /// # Errors
    /// The session is gone, or answers nothing else either.
    pub(crate) fn list(&mut self, opened: &Opened, kinds: &[Kind]) -> Result<(), Failure> {
        self.lists.begin(Instant::now(), kinds);
        let mut round = Round {
            read_at: self.context.mailbox.readings.begin(kinds),
            lists: Vec::with_capacity(kinds.len()),
            freshness: Vec::new(),
            n_read: 0,
            failed: Vec::new(),
        };
        for kind in kinds.iter().copied() {
            self.read(opened, kind, &mut round)?;
        }
        let doubt =
            round.failed.iter().find(|(_, it)| is_unclear(it)).map(|(_, it)| it.clone());
        let doubt = doubt.or_else(|| self.why_down().filter(|_| round.n_read == 0));
        self.tell_lists(round);
        doubt.map_or(Ok(()), |why| self.look(opened, why))
    }

    fn read(&mut self, opened: &Opened, kind: Kind, round: &mut Round) -> Result<(), Failure> {
        let began = Instant::now();
        let items = if declares(&opened.initialized, kind.capability())
            || (kind == Kind::Tool && self.undeclared == UndeclaredTools::Some)
        {
            let timeout = self.context.config.timeout;
            Some(self.items(kind, timeout).map_err(in_list))
        } else if kind == Kind::Tool {
            self.undeclared_tools(opened)?.map(Ok)
        } else {
            None
        };
        let now = Instant::now();
        match items {
            None => {
                self.lists.absent(kind);
                round.lists.push((kind, Vec::new()));
            }
            Some(Ok(Items { items, left_out, freshness: said, unwell })) => {
                if self.context.config.role == Role::OtherGateway {
                    self.health.lock().unwell_behind = unwell;
                }
                let said = said.filter(|_| opened.is_modern());
                let is_told_of = opened.tells_of(kind);
                let stale_at = said.and_then(|it| stale_at(it, round.read_at, is_told_of));
                round.freshness.push((kind, said.unwrap_or(Freshness::UNKNOWN)));
                if left_out > 0 {
                    log::warn!(target: "upstream",
                        "{}: {left_out} {} are left out \
                        (limits.upstream_tools, or more than {} bytes)",
                        self.context.name(), kind.list_key(), list_bytes_max(&self.context));
                }
                self.lists.read(kind, left_out, stale_at);
                round.lists.push((kind, items));
                round.n_read += 1;
            }
            Some(Err(failure)) if self.context.mailbox.is_stopped() => return Err(failure),
            Some(Err(failure)) => {
                let took = now.saturating_duration_since(began);
                self.lists.failed(kind, now, took, failure.asked_pause());
                self.context.mailbox.readings.put_off(kind, self.lists.of(kind).retry.at());
                if !self.session.is_open() {
                    return Err(failure);
                }
                self.remember_list(kind, &failure);
                round.failed.push((kind, failure));
            }
        }
        Ok(())
    }

    /// Some servers list tools that they do not declare. Whoever is not known to is asked once a
    /// session, and whatever it answers is no failure.
    ///
    /// # Errors
    /// The session is gone.
    fn undeclared_tools(&mut self, opened: &Opened) -> Result<Option<Items>, Failure> {
        let asked = UndeclaredTools::None(opened.generation);
        if self.undeclared == UndeclaredTools::NeverAsk || self.undeclared == asked {
            return Ok(None);
        }
        let before = std::mem::replace(&mut self.undeclared, asked);
        match self.items(Kind::Tool, UNDECLARED_LIST_TIMEOUT) {
            Ok(items) if items.items.is_empty() => Ok(None),
            Ok(items) => {
                self.undeclared = UndeclaredTools::Some;
                self.context.views.found_undeclared_tools();
                self.introduce(opened);
                Ok(Some(items))
            }
            Err(failure) => {
                let was_too_much = matches!(
                    failure.kind,
                    FailureKind::Broke | FailureKind::Interrupted(Interrupted::Deadline)
                );
                if was_too_much && before == UndeclaredTools::ServerEvents {
                    self.undeclared = UndeclaredTools::NeverAsk;
                }
                if self.session.is_open() { Ok(None) } else { Err(failure) }
            }
        }
    }

    /// Tells of what was read, and that tools could not be read, if so.
    fn tell_lists(&mut self, round: Round) {
        let Round { read_at, lists, freshness, n_read: _, failed: unread } = round;
        self.health.lock().unread = self.lists.unread();
        let failed = self.lists.failure(Kind::Tool);
        let server = self.context.name().clone();
        // An upstream whose tools are not known has not listed anything yet.
        let is_listed = failed.is_none() || self.lists.is_any_readable();
        if is_listed {
            let (server, left_out) = (server.clone(), self.lists.left_out());
            let unread = unread.into_iter().map(|(kind, _)| kind).collect();
            self.tell(Event::Lists { server, lists, unread, freshness, read_at, left_out });
        }
        if let Some(failure) = failed {
            self.tell(Event::Failed { server, failure });
        }
        if !self.lists.is_any_failing() {
            self.probing.went_well();
        }
    }

    /// Remembers that a list could not be had, and logs it once.
    fn remember_list(&mut self, kind: Kind, failure: &Failure) {
        let failure = self.context.report(failure);
        self.health.lock().last_failure = Some(failure.clone());
        let list = self.lists.of(kind);
        let same = |last: &FailureReport| last.message == failure.message;
        let is_news = !list.failure.as_ref().is_some_and(same);
        list.failure = Some(failure.clone());
        if is_news && let Some(more) = self.context.told.turn() {
            log::warn!(target: "upstream", "{}: its {} cannot be read ({}): {}{more}",
                self.context.name(), kind.list_key(), failure.stage, failure.message);
        }
    }

    fn items(&mut self, kind: Kind, within: Duration) -> Result<Items, Failure> {
        let context = self.context.clone();
        let mut bytes_left = list_bytes_max(&context);
        items(&context, kind, Asker::default(), &mut bytes_left, &mut |outgoing| {
            self.ask_list(outgoing, within)
        })
    }

    fn ask_list(
        &mut self,
        outgoing: &Outgoing<'_>,
        within: Duration,
    ) -> Result<Outcome, Failure> {
        let wait = self.busy()?;
        let _bound = wait.within(within);
        let began = Instant::now();
        let answer = self.session.request_open(
            &mut self.connection,
            outgoing,
            &wait,
            &GatewaySink(&self.context),
        );
        if let Ok(Outcome::Complete(_)) = &answer {
            let mut health = self.health.lock();
            health.latency = Some(began.elapsed());
            health.breaker.well();
        }
        answer
    }

    /// Reads the lists as clients see them whose requests declare this, and tells of them.
    pub(crate) fn read_view(
        &mut self,
        opened: &Opened,
        id: ViewId,
        capabilities: &str,
        reading: ViewReading,
    ) {
        let context = self.context.clone();
        let about = About { capabilities, ..About::default() };
        let (asker, timeout) = (Asker { about, charged: reading.by() }, context.config.timeout);
        let read = read_all(&context, &opened.initialized, asker, &mut |outgoing| {
            self.ask_list(outgoing, timeout)
        });
        let event = view_event(&context, id, read, reading);
        self.tell(event);
    }
}

/// Sends a request for a page and gives its answer.
type Ask<'a> = dyn FnMut(&Outgoing<'_>) -> Result<Outcome, Failure> + 'a;

/// For whom lists are read: what is said of it, and who is charged for the answers while they are
/// read.
#[derive(Clone, Copy, Default)]
pub(crate) struct Asker<'a> {
    pub(crate) about: About<'a>,
    pub(crate) charged: Option<&'a PrincipalId>,
}

/// Bytes of all items of one list, or of the lists of one view.
fn list_bytes_max(context: &SessionContext) -> usize {
    context.limits.upstream_result_bytes.min(LIST_BYTES_MAX)
}

/// Lists that were read one after the other.
pub(crate) struct ReadLists {
    lists: Vec<(Kind, Vec<ReadItem>)>,
    freshness: Vec<(Kind, Freshness)>,
    read_at: Instant,
    left_out: usize,
}

/// Reads all lists as whoever asks sees them.
///
/// # Errors
/// None could be had, or the session is of no use.
pub(crate) fn read_all(
    context: &SessionContext,
    initialized: &Initialized,
    asker: Asker<'_>,
    ask: &mut Ask<'_>,
) -> Result<ReadLists, Failure> {
    let (read_at, mut bytes_left) = (Instant::now(), list_bytes_max(context));
    let mut read = ReadLists { lists: Vec::new(), freshness: Vec::new(), read_at, left_out: 0 };
    let mut failed = None;
    for kind in Kind::ALL {
        let is_found = kind == Kind::Tool && context.views.has_undeclared_tools();
        if !is_found && !declares(initialized, kind.capability()) {
            read.lists.push((kind, Vec::new()));
            continue;
        }
        match items(context, kind, asker, &mut bytes_left, ask).map_err(in_list) {
            Ok(items) => {
                let said =
                    items.freshness.filter(|_| initialized.revision.era() == Era::Modern);
                read.freshness.push((kind, said.unwrap_or(Freshness::UNKNOWN)));
                read.left_out += items.left_out;
                read.lists.push((kind, items.items));
            }
            Err(failure) if is_bearable(&failure) => failed = Some(failure),
            Err(failure) => return Err(failure),
        }
    }
    match failed {
        Some(failure) if read.freshness.is_empty() => Err(failure),
        Some(_) | None => Ok(read),
    }
}

/// What is told of a view that was to be read.
pub(crate) fn view_event(
    context: &SessionContext,
    id: ViewId,
    read: Result<ReadLists, Failure>,
    reading: ViewReading,
) -> Event {
    match read {
        Ok(ReadLists { lists, freshness, read_at, left_out }) => {
            let (used, untold) = context.views.was_read(id);
            Event::View { id, used, lists, freshness, read_at, left_out, untold, reading }
        }
        // Whoever wants it asks for it on the shared session.
        Err(failure) if failure.is_stateless() => {
            context.views.forget(id);
            Event::NoView { id }
        }
        Err(failure) => {
            context.views.failed(id, failure.asked_pause());
            if let Some(more) = context.told.turn() {
                log::info!(target: "upstream",
                    "{}: lists that only some clients see could not be read ({}): {}{more}",
                    context.name(), failure.stage, context.scrubbed(failure.clone()).message);
            }
            Event::ViewFailed
        }
    }
}

/// Reads one list, all pages, as far as `bytes_left` go, of which it takes what it reads.
fn items(
    context: &SessionContext,
    kind: Kind,
    asker: Asker<'_>,
    bytes_left: &mut usize,
    ask: &mut Ask<'_>,
) -> Result<Items, Failure> {
    let taken = Taken::default();
    let mut room =
        PoolCapacity { taken, n_left: context.limits.upstream_tools, bytes_left, left_out: 0 };
    let mut freshness: Option<Freshness> = None;
    let (mut cursor, mut unwell): (Option<String>, Option<String>) = (None, None);
    for _ in 0..UPSTREAM_LIST_PAGES_MAX {
        let page = match page(kind, asker, cursor.as_deref(), ask)? {
            Ok(page) => page,
            // Many servers with resources do not know of templates.
            Err(error) if kind == Kind::Template && error.code == code::METHOD_NOT_FOUND => {
                return Ok(room.items(freshness, unwell));
            }
            Err(error) => return Err(refused(kind, &error)),
        };
        let begun = Instant::now();
        let goes_on =
            || !context.mailbox.is_stopped() && begun.elapsed() < context.config.timeout;
        let Page { next, said, unwell: told } = read_page(kind, &page, &mut room, &goes_on)?;
        // All pages together are as fresh as the least fresh of them.
        freshness = match (freshness, said) {
            (Some(so_far), Some(said)) => Some(so_far.and(said)),
            (so_far, said) => so_far.or(said),
        };
        unwell = told.or(unwell);
        // A cursor that stays the same would never end.
        if next.is_none() || next == cursor {
            return Ok(room.items(freshness, unwell));
        }
        cursor = next;
    }
    log::warn!(target: "upstream", "{}: its list of {} has more than {UPSTREAM_LIST_PAGES_MAX} pages",
            context.name(), kind.list_key());
    Ok(room.items(freshness, unwell))
}

/// What is taken of a list, and how much more of it may be: what is over a bound is counted and
/// costs no memory.
struct PoolCapacity<'a> {
    taken: Taken,
    n_left: usize,
    bytes_left: &'a mut usize,
    left_out: usize,
}

impl PoolCapacity<'_> {
    /// Items are read here, on a thread of their server's own: whoever merges the lists of all
    /// servers waits for none.
    fn take(&mut self, kind: Kind, item: &str) {
        let n_left = self.n_left.checked_sub(1);
        let bytes_left = (*self.bytes_left).checked_sub(item.len());
        let (Some(n_left), Some(bytes_left), 0) = (n_left, bytes_left, self.left_out) else {
            self.left_out += 1;
            return;
        };
        (self.n_left, *self.bytes_left) = (n_left, bytes_left);
        self.taken.take(kind, item);
    }

    fn items(self, freshness: Option<Freshness>, unwell: Option<String>) -> Items {
        Items { items: self.taken.items(), left_out: self.left_out, freshness, unwell }
    }
}

fn page(
    kind: Kind,
    asker: Asker<'_>,
    cursor: Option<&str>,
    ask: &mut Ask<'_>,
) -> Result<Result<Raw, RpcError>, Failure> {
    let mut params = RawObject::default();
    if let Some(cursor) = cursor {
        params.set("cursor", string(cursor));
    }
    let Asker { about, charged } = asker;
    let own = Outgoing::own(kind.list_method(), params);
    let outgoing = Outgoing { about, charged: charged.cloned(), ..own };
    match ask(&outgoing)? {
        Outcome::Complete(page) => Ok(Ok(page)),
        Outcome::Error { error, .. } => Ok(Err(error)),
        Outcome::InputRequired { .. } => Err(wants_input()),
    }
}

/// Only some methods' results may want input (2026-07-28, basic/patterns/mrtr, Supported
/// Requests).
fn wants_input() -> Failure {
    Failure::nonsense("it wants input for what takes none")
}

fn refused(kind: Kind, error: &RpcError) -> Failure {
    let method = kind.list_method().as_str();
    let what = format!("it refused {method}: {} ({})", cut(&error.message), error.code);
    Failure::new(FailureKind::Refused(Refusal::Plain), Stage::List, what)
}

/// What a page of a list says beside its items.
#[derive(Debug, PartialEq)]
struct Page {
    /// The next page's cursor.
    next: Option<String>,
    said: Option<Freshness>,
    /// What another gateway says of servers behind it, an array's text.
    unwell: Option<String>,
}

/// Puts a page's items where there is room for them, as long as `goes_on`.
fn read_page(
    kind: Kind,
    page: &Raw,
    room: &mut PoolCapacity<'_>,
    goes_on: &dyn Fn() -> bool,
) -> Result<Page, Failure> {
    let (method, key) = (kind.list_method().as_str(), kind.list_key());
    let wrong = |what: &str| Failure::nonsense(format!("its answer to {method} {what}"));
    let fields = RawObject::parse(page.get()).map_err(|_| wrong("is no object"))?;
    let items = fields.get(key).ok_or_else(|| wrong(&format!("has no {key:?}")))?;
    try_each_element(items, &mut |item| {
        room.take(kind, item);
        if goes_on() { Ok(()) } else { Err("nobody waits for it") }
    })
    .map_err(|_| {
        if goes_on() {
            wrong(&format!("has no array in {key:?}"))
        } else {
            wrong("takes too long to be read")
        }
    })?;
    let next = match fields.get("nextCursor") {
        None | Some("null") => None,
        Some(_) => fields.string("nextCursor").map_err(|_| wrong("has a wrong cursor"))?,
    };
    Ok(Page { next, said: Freshness::of(&fields), unwell: unwell_behind(&fields) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::LISTED_ITEM_BYTES_MAX;

    /// What comes of a page where there is so much room, and how many of its items are over.
    fn read(kind: Kind, text: &str, room: (usize, usize)) -> Result<(Page, Items), Failure> {
        let page = Raw::from_valid(text.to_owned());
        let (n_left, mut bytes_left) = room;
        let bytes_left = &mut bytes_left;
        let mut room =
            PoolCapacity { taken: Taken::default(), n_left, bytes_left, left_out: 0 };
        let page = read_page(kind, &page, &mut room, &|| true)?;
        Ok((page, room.items(None, None)))
    }

    const ENOUGH: (usize, usize) = (10, 1_000_000);

    #[test]
    fn a_page_gives_its_items_and_its_cursor() {
        let tools = r#"{"tools":[{"name":"a"},{"name":"b"}],"nextCursor":"2"}"#;
        let (page, room) = read(Kind::Tool, tools, ENOUGH).unwrap();
        assert_eq!((room.items.len(), page.next.as_deref(), page.said), (2, Some("2"), None));
        let fresh = r#"{"tools":[],"ttlMs":5,"cacheScope":"public"}"#;
        let said = read(Kind::Tool, fresh, ENOUGH).unwrap().0.said;
        assert_eq!(said, Some(Freshness { ttl_ms: 5, is_private: false }));
        let (page, room) = read(Kind::Template, r#"{"resourceTemplates":[]}"#, ENOUGH).unwrap();
        assert_eq!(
            (page, room.items.len()),
            (Page { next: None, said: None, unwell: None }, 0)
        );
        assert!(read(Kind::Tool, r#"{"tools":{}}"#, ENOUGH).is_err());
        let failure = read(Kind::Prompt, "{}", ENOUGH).map(|_| ()).unwrap_err();
        assert!(failure.message.contains("prompts/list"), "{}", failure.message);
    }

    #[test]
    fn a_stop_ends_the_reading_of_a_page_between_two_items() {
        let page = Raw::from_valid(format!(r#"{{"tools":[{}{{}}]}}"#, "{},".repeat(1000)));
        let bytes_left = &mut 9999;
        let taken = Taken::default();
        let mut room = PoolCapacity { taken, n_left: 9999, bytes_left, left_out: 0 };
        let failure = read_page(Kind::Tool, &page, &mut room, &|| false).map(drop).unwrap_err();
        assert!(failure.message.contains("takes too long"), "{}", failure.message);
        assert_eq!(room.taken.items().len(), 1);
    }

    #[test]
    fn items_over_a_bound_are_counted_and_cost_no_memory() {
        let zeros = format!(r#"{{"tools":[{}0]}}"#, "0,".repeat(200_000));
        let (_, room) = read(Kind::Tool, &zeros, ENOUGH).unwrap();
        assert_eq!((room.items.len(), room.left_out), (10, 199_991));
        let (_, room) = read(Kind::Tool, r#"{"tools":[12,345,6]}"#, (10, 4)).unwrap();
        // Nothing is taken behind what had no room.
        assert_eq!((room.items.len(), room.left_out), (1, 2));
        // Of a large one that is left out, no more is kept than is told.
        let name = "x".repeat(LISTED_ITEM_BYTES_MAX);
        let large = format!(r#"{{"tools":[{{"name":"{name}"}}]}}"#);
        let (_, room) = read(Kind::Tool, &large, ENOUGH).unwrap();
        let malformed = room.items[0].as_ref().unwrap_err();
        assert!(malformed.name.as_ref().unwrap().len() < 1000, "{malformed:?}");
        assert!(malformed.reason.contains("more than 262144 bytes"), "{malformed:?}");
    }
}
