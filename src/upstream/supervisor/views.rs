//! Lists as clients see them that declare something, where a server's lists may depend on that:
//! which are to be read, and when. Whoever has the session reads them: the thread of a client's
//! own session, and the supervisor where there are no sessions.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;

use crate::limits::{
    RELIST_INTERVAL, VIEW_REREAD_WITHIN, VIEW_TIMEOUT, VIEWS_SHARE_DIVISOR, VIEWS_SHARE_MIN,
};
use crate::protocol::call::{About, Client, Kind, PrincipalId};
use crate::protocol::capabilities::declare_nothing;
use crate::protocol::session_route::SessionRoute;
use crate::protocol::view::{LastUse, Untold, ViewId};

use super::view_readings::{ViewReading, ViewReadings};
use crate::upstream::backoff::{Backoff, Range};
use crate::upstream::session::context::Mailbox;
use crate::upstream::{Event, Report, Upstream};

/// Who looks at lists, as far as they may depend on it.
#[derive(Debug, Clone, Copy)]
pub struct Viewer<'a> {
    client: &'a Client,
    about: About<'a>,
    /// Of what a session of its own declares.
    of_session: ViewId,
    /// Of what each of its requests declares.
    of_request: ViewId,
}

impl<'a> Viewer<'a> {
    /// A client, and what its requests say of it. `ids`: what [`Viewer::ids_of`] gave, where that
    /// is known.
    pub fn new(client: &'a Client, about: About<'a>, ids: Option<[ViewId; 2]>) -> Viewer<'a> {
        let [of_session, of_request] = ids.unwrap_or_else(|| Viewer::ids_of(client, about));
        Viewer { client, about, of_session, of_request }
    }

    /// Under what the lists are known that such a client may see.
    pub fn ids_of(client: &Client, about: About<'_>) -> [ViewId; 2] {
        let of_session = ViewId::of_session(client.capabilities.get());
        [of_session, ViewId::of_request(about.capabilities)]
    }

    /// The client who looks.
    pub fn client(&self) -> &'a Client {
        self.client
    }

    /// Of these, a server's lists can be one only.
    pub fn ids(&self) -> [ViewId; 2] {
        [self.of_session, self.of_request]
    }
}

/// The views of one upstream that somebody wants.
pub(crate) struct Views {
    max: usize,
    readings: ViewReadings,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    entries: HashMap<ViewId, Entry>,
    /// The server lists tools which it does not declare: its shared session was asked for them.
    has_undeclared_tools: bool,
    /// Where they are told; none before the upstream has begun and once it has ended.
    reports: Option<Sender<Report>>,
}

struct Entry {
    /// What requests declare, where there are no sessions.
    capabilities: Option<Arc<str>>,
    is_wanted: bool,
    /// Since when it is being read.
    reading: Option<Instant>,
    /// Before that, it is not read again.
    not_before: Option<Instant>,
    has_failed: bool,
    backoff: Backoff,
    untold: Untold,
    used: Arc<LastUse>,
    /// Who wanted it first; nobody did of those whose lists have changed.
    by: Option<PrincipalId>,
}

/// What becomes of a view that somebody wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Want {
    /// It does not come soon.
    Nothing,
    /// Somebody reads it already.
    Coming,
    /// Somebody is to read it.
    Read,
}

impl Entry {
    fn new(capabilities: Option<&str>, by: Option<&PrincipalId>, now: Instant) -> Entry {
        Entry {
            capabilities: capabilities.map(Arc::from),
            is_wanted: false,
            reading: None,
            not_before: None,
            has_failed: false,
            backoff: Backoff::new(Range::UPSTREAM),
            untold: Untold::default(),
            used: Arc::new(LastUse::new(now)),
            by: by.cloned(),
        }
    }

    /// These lists may be others than those that were read.
    fn changed(&mut self, kinds: &[Kind]) {
        self.is_wanted = true;
        let announced = &mut self.untold.announced;
        for kind in kinds {
            if !announced.contains(kind) {
                announced.push(*kind);
            }
        }
    }

    fn due(&self, now: Instant) -> Option<Instant> {
        let is_due = self.is_wanted && self.reading.is_none();
        is_due.then(|| self.not_before.unwrap_or(now))
    }

    fn is_due(&self, now: Instant) -> bool {
        self.due(now).is_some_and(|at| at <= now)
    }

    /// One that is due is read from now on, if it may be.
    fn take(
        &mut self,
        now: Instant,
        readings: &ViewReadings,
        mailbox: &Arc<Mailbox>,
    ) -> Option<ViewReading> {
        let reading = readings.begin(self.by.as_ref(), mailbox)?;
        (self.is_wanted, self.reading) = (false, Some(now));
        Some(reading)
    }
}

impl Views {
    pub(crate) fn new(max: usize) -> Views {
        Views { max, readings: ViewReadings::default(), state: Mutex::default() }
    }

    /// They are told there from now on.
    pub(crate) fn begin(&self, reports: Sender<Report>) {
        self.lock().reports = Some(reports);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where views are told, while they are.
    pub(crate) fn reports(&self) -> Option<Sender<Report>> {
        self.lock().reports.clone()
    }

    /// Nothing is told any more.
    pub(crate) fn end(&self) {
        self.lock().reports = None;
    }

    /// The server lists tools although it does not declare any.
    pub(crate) fn found_undeclared_tools(&self) {
        self.lock().has_undeclared_tools = true;
    }

    /// Whether a session is to be asked for tools that it does not declare.
    pub(crate) fn has_undeclared_tools(&self) -> bool {
        self.lock().has_undeclared_tools
    }

    /// Somebody wants a view that is not known, or old. Gives whether it may come soon, and the
    /// view that made room for it, if that was the same principal's: what it has read stays a
    /// part of all, so that others' views stay.
    fn want(
        &self,
        id: ViewId,
        capabilities: Option<&str>,
        by: &PrincipalId,
        now: Instant,
    ) -> (Want, Option<ViewId>) {
        let mut state = self.lock();
        let mut gone = None;
        if !state.entries.contains_key(&id) {
            let share = (self.max / VIEWS_SHARE_DIVISOR).max(VIEWS_SHARE_MIN);
            let of_it =
                || state.entries.iter().filter(|(_, entry)| entry.by.as_ref() == Some(by));
            if of_it().count() >= share {
                let Some(oldest) = longest_unused(of_it()) else {
                    return (Want::Nothing, None);
                };
                state.entries.remove(&oldest);
                gone = Some(oldest);
            } else if !make_room(&mut state.entries, self.max) {
                return (Want::Nothing, None);
            }
        }
        let entry =
            state.entries.entry(id).or_insert_with(|| Entry::new(capabilities, Some(by), now));
        entry.used.note(now);
        if let Some(since) = entry.reading {
            let is_soon = now < since + VIEW_TIMEOUT;
            return (if is_soon { Want::Coming } else { Want::Nothing }, gone);
        }
        // One that was read just now is known in a moment, or had to make room for others already.
        entry.is_wanted = true;
        let is_put_off = entry.has_failed && entry.not_before.is_some_and(|at| now < at);
        (if is_put_off { Want::Nothing } else { Want::Read }, gone)
    }

    /// Somebody is served without it.
    fn missed(&self, id: ViewId) {
        if let Some(entry) = self.lock().entries.get_mut(&id) {
            entry.untold.is_missed = true;
        }
    }

    /// A session said that these lists of its view have changed. That nobody is known to have
    /// listed them says little: a client may have, before the gateway was started.
    pub(crate) fn changed(&self, id: ViewId, kinds: &[Kind], now: Instant) {
        let mut state = self.lock();
        if state.entries.contains_key(&id) || make_room(&mut state.entries, self.max) {
            state
                .entries
                .entry(id)
                .or_insert_with(|| Entry::new(None, None, now))
                .changed(kinds);
        }
    }

    /// The lists of views that requests declare may have changed, and these are said to have:
    /// those are read again that somebody has used within [`VIEW_REREAD_WITHIN`].
    pub(crate) fn requests_changed(&self, kinds: &[Kind], now: Instant) {
        let mut state = self.lock();
        let is_used =
            |entry: &Entry| now.saturating_duration_since(entry.used.at()) < VIEW_REREAD_WITHIN;
        let of_requests = state.entries.values_mut().filter(|it| it.capabilities.is_some());
        of_requests.filter(|it| is_used(it)).for_each(|entry| entry.changed(kinds));
    }

    /// When that view is to be read, if it is.
    pub(crate) fn due(&self, id: ViewId, now: Instant) -> Option<Instant> {
        self.lock().entries.get(&id)?.due(now)
    }

    /// When the next view that requests declare is to be read, if one is.
    pub(crate) fn next_due_of_requests(&self, now: Instant) -> Option<Instant> {
        let state = self.lock();
        let of_requests = state.entries.values().filter(|entry| entry.capabilities.is_some());
        of_requests.filter_map(|entry| entry.due(now)).min()
    }

    /// Whether the caller, whose thread `nudge` rings, is to read that view now. One that is due
    /// and may not be read yet is rung for when it may.
    pub(crate) fn take(
        &self,
        id: ViewId,
        now: Instant,
        mailbox: &Arc<Mailbox>,
    ) -> Option<ViewReading> {
        let mut state = self.lock();
        let entry = state.entries.get_mut(&id).filter(|entry| entry.is_due(now))?;
        entry.take(now, &self.readings, mailbox)
    }

    /// A view that the caller is to read now, and what its requests declare: of those that are
    /// due and may be read, the one that somebody has used last.
    pub(crate) fn take_of_requests(
        &self,
        now: Instant,
        mailbox: &Arc<Mailbox>,
    ) -> Option<(ViewId, Arc<str>, ViewReading)> {
        let mut state = self.lock();
        let of_requests = state
            .entries
            .iter_mut()
            .filter(|(_, entry)| entry.capabilities.is_some() && entry.is_due(now));
        let mut due: Vec<(&ViewId, &mut Entry)> = of_requests.collect();
        due.sort_by_key(|(_, entry)| std::cmp::Reverse(entry.used.at()));
        due.into_iter().find_map(|(id, entry)| {
            let reading = entry.take(now, &self.readings, mailbox)?;
            Some((*id, entry.capabilities.clone()?, reading))
        })
    }

    /// It was read. Gives when it was used last, and why clients are to be told.
    pub(crate) fn was_read(&self, id: ViewId) -> (Arc<LastUse>, Untold) {
        let (mut state, now) = (self.lock(), Instant::now());
        let Some(entry) = state.entries.get_mut(&id) else {
            return (Arc::new(LastUse::new(now)), Untold::default());
        };
        (entry.reading, entry.has_failed) = (None, false);
        entry.backoff.reset();
        entry.not_before = Some(now + RELIST_INTERVAL);
        (entry.used.clone(), std::mem::take(&mut entry.untold))
    }

    /// It could not be read: that is tried again after a while. `asked`: how long the server
    /// wants to be left alone.
    pub(crate) fn failed(&self, id: ViewId, asked: Option<Duration>) {
        if let Some(entry) = self.lock().entries.get_mut(&id) {
            (entry.reading, entry.has_failed, entry.is_wanted) = (None, true, true);
            entry.not_before = Some(Instant::now() + entry.backoff.next_asked(asked));
        }
    }

    /// The server has no sessions, so there is no such view.
    pub(crate) fn forget(&self, id: ViewId) {
        self.lock().entries.remove(&id);
    }
}

/// At the bound, the view that was wanted for longest ago is forgotten. False if there is none
/// that could be.
fn make_room(entries: &mut HashMap<ViewId, Entry>, max: usize) -> bool {
    if entries.len() < max {
        return true;
    }
    longest_unused(entries.iter()).and_then(|id| entries.remove(&id)).is_some()
}

/// Of those that are not being read.
fn longest_unused<'a>(
    entries: impl Iterator<Item = (&'a ViewId, &'a Entry)>,
) -> Option<ViewId> {
    let idle = entries.filter(|(_, entry)| entry.reading.is_none());
    idle.min_by_key(|(_, entry)| entry.used.at()).map(|(id, _)| *id)
}

impl Upstream {
    /// The lists that a client sees, where they may be others than those on the shared session:
    /// those of a session of its own, or of requests that say what it declares. `route`: which
    /// session carries its calls, whatever they say of log messages.
    pub fn view_of(&self, viewer: &Viewer<'_>, route: SessionRoute<'_>) -> Option<ViewId> {
        if !route.is_shared() {
            return Some(viewer.of_session);
        }
        let is_declared = !declare_nothing(viewer.about.capabilities);
        (self.session.is_stateless() && is_declared).then_some(viewer.of_request)
    }

    /// Has the lists read that a client sees, which are known as `id`. Gives whether they may come
    /// soon.
    pub fn want_view(&self, viewer: &Viewer<'_>, id: ViewId) -> bool {
        let (views, client) = (&self.context.views, viewer.client);
        let is_of_request = id == viewer.of_request;
        let declared = is_of_request.then_some(viewer.about.capabilities);
        // A key has as many sessions as it likes.
        let by = client.charged.clone();
        let by = by.unwrap_or_else(|| PrincipalId::Session(client.session.clone()));
        let (want, gone) = views.want(id, declared, &by, Instant::now());
        if let (Some(id), Some(reports)) = (gone, views.reports()) {
            // Where that is not heard, it goes when nobody has used it for long.
            let config = self.context.config.clone();
            reports.try_send(Report { config, event: Event::NoView { id } }).ok();
        }
        match want {
            Want::Nothing => return false,
            Want::Coming => return true,
            Want::Read => (),
        }
        if is_of_request {
            self.context.mailbox.idle.bell().ring();
            return true;
        }
        match self.pool.want_view(client, id) {
            Ok(()) => true,
            Err(failure) => {
                log::debug!(target: "upstream", "{}: what a client sees cannot be read: {}",
                    self.name(), self.context.scrubbed(failure).message);
                views.failed(id, None);
                views.missed(id);
                false
            }
        }
    }

    /// Somebody was given lists without those that were wanted: is told of them when they come.
    pub fn missed_view(&self, id: ViewId) {
        self.context.views.missed(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::BACKOFF_MIN;
    use std::time::Duration;

    /// Whether a view may come soon that somebody wants.
    fn comes(views: &Views, id: ViewId, capabilities: Option<&str>, now: Instant) -> bool {
        views.want(id, capabilities, &PrincipalId::Key("a".into()), now).0 != Want::Nothing
    }

    /// Whether a view is to be read now by whoever asks.
    fn takes(views: &Views, id: ViewId, now: Instant) -> bool {
        views.take(id, now, &Arc::new(Mailbox::new().unwrap())).is_some()
    }

    fn takes_of_requests(views: &Views, now: Instant) -> Option<(ViewId, Arc<str>)> {
        let mailbox = Arc::new(Mailbox::new().unwrap());
        views.take_of_requests(now, &mailbox).map(|(id, capabilities, _)| (id, capabilities))
    }

    fn id(n: u32) -> ViewId {
        ViewId::of_session(&n.to_string())
    }

    #[test]
    fn a_view_is_read_once_for_all_who_want_it() {
        let (views, now) = (Views::new(8), Instant::now());
        assert!(!takes(&views, id(1), now));
        assert!(comes(&views, id(1), None, now) && comes(&views, id(1), None, now));
        assert!(takes(&views, id(1), now) && !takes(&views, id(1), now));
        assert!(comes(&views, id(1), None, now), "it is being read");
        assert!(!comes(&views, id(1), None, now + VIEW_TIMEOUT), "nobody waits for ever");
        views.missed(id(1));
        assert!(views.was_read(id(1)).1.is_missed);
        assert_eq!(views.was_read(id(1)).1, Untold::default());
        assert_eq!(views.due(id(1), now), None);
    }

    #[test]
    fn a_change_is_read_again_after_a_pause_and_a_failure_after_a_longer_one() {
        let (views, now) = (Views::new(8), Instant::now());
        comes(&views, id(1), None, now);
        takes(&views, id(1), now);
        views.changed(id(1), &[Kind::Tool], now);
        views.changed(id(1), &[Kind::Tool, Kind::Prompt], now);
        assert_eq!(views.was_read(id(1)).1.announced, [Kind::Tool, Kind::Prompt]);
        assert!(views.due(id(1), now).is_some_and(|at| at >= now + RELIST_INTERVAL));
        let later = now + 2 * RELIST_INTERVAL;
        assert!(takes(&views, id(1), later));
        views.failed(id(1), None);
        assert!(views.due(id(1), later).is_some_and(|at| at >= now + BACKOFF_MIN / 2));
        assert!(!comes(&views, id(1), None, now), "it fails again and again");
        views.changed(id(2), &[Kind::Tool], now);
        assert!(takes(&views, id(2), now), "also where nobody is known to have listed it");
    }

    #[test]
    fn at_the_bound_the_one_that_nobody_wants_for_longest_goes() {
        let (views, now) = (Views::new(2), Instant::now());
        let later = |ms| now + std::time::Duration::from_millis(ms);
        comes(&views, id(1), None, now);
        comes(&views, id(2), Some("{}"), later(1));
        comes(&views, id(1), None, later(2));
        comes(&views, id(3), None, later(3));
        assert!(views.due(id(2), now).is_none() && views.due(id(1), now).is_some());
        assert!(takes(&views, id(1), later(4)) && takes(&views, id(3), later(4)));
        assert!(!comes(&views, id(4), None, later(5)), "all are being read");
    }

    #[test]
    fn what_requests_declare_is_the_supervisor_s() {
        let (views, now) = (Views::new(2), Instant::now());
        comes(&views, id(1), None, now);
        assert!(views.next_due_of_requests(now).is_none());
        comes(&views, id(2), Some("{\"a\":{}}"), now);
        let (taken, capabilities) = takes_of_requests(&views, now).unwrap();
        assert_eq!((taken, &*capabilities), (id(2), "{\"a\":{}}"));
        assert!(takes_of_requests(&views, now).is_none());
        views.was_read(id(2));
        views.requests_changed(&[], now);
        assert!(views.next_due_of_requests(now).is_some());
        assert!(takes(&views, id(1), now), "the others are untouched");
    }

    #[test]
    fn of_what_requests_declare_the_newest_is_read_first_and_what_nobody_uses_no_more() {
        let (views, now) = (Views::new(8), Instant::now());
        let later = now + Duration::from_secs(60);
        comes(&views, id(1), Some("1"), now);
        comes(&views, id(2), Some("2"), later);
        for expected in [2, 1] {
            let (taken, _) = takes_of_requests(&views, later).unwrap();
            assert_eq!(taken, id(expected));
            views.was_read(taken);
        }
        // The first is 15 minutes old by then, and the second is not.
        let then = now + VIEW_REREAD_WITHIN;
        views.requests_changed(&[], then);
        assert_eq!(takes_of_requests(&views, then).unwrap().0, id(2));
        assert!(takes_of_requests(&views, then).is_none());
        // Whoever shows it notes that it is used.
        let (used, _) = views.was_read(id(1));
        used.note(then);
        views.requests_changed(&[], then);
        assert_eq!(takes_of_requests(&views, then).unwrap().0, id(1));
    }

    #[test]
    fn one_principal_has_a_part_of_the_views_and_the_others_keep_theirs() {
        let (views, now) = (Views::new(2 * VIEWS_SHARE_DIVISOR), Instant::now());
        let key = |name: &str| PrincipalId::Key(name.into());
        let (one, other) = (key("one"), key("other"));
        assert_eq!(views.want(id(0), Some("0"), &other, now), (Want::Read, None));
        for n in 1..=2 {
            assert_eq!(views.want(id(n), Some("1"), &one, now).1, None);
        }
        let later = now + Duration::from_secs(1);
        views.want(id(2), Some("1"), &one, later);
        assert_eq!(views.want(id(3), Some("1"), &one, later), (Want::Read, Some(id(1))));
        assert!(views.due(id(0), later).is_some() && views.due(id(1), later).is_none());
    }

    #[test]
    fn so_many_are_read_at_once_and_each_principal_s_turn_comes() {
        let (views, now) = (Views::new(64), Instant::now());
        let mailbox = Arc::new(Mailbox::new().unwrap());
        let key = |name: &str| PrincipalId::Key(name.into());
        for n in 0..8 {
            views.want(
                id(n),
                Some("1"),
                &key("hog"),
                now + Duration::from_millis(u64::from(n)),
            );
        }
        views.want(id(9), Some("9"), &key("victim"), now);
        let mut readings: Vec<ViewReading> = Vec::new();
        let mut taken: Vec<ViewId> = Vec::new();
        while let Some((id, _, reading)) = views.take_of_requests(now, &mailbox) {
            taken.push(id);
            readings.push(reading);
        }
        // What was used last is first, but a place is left for the others.
        assert_eq!(taken, [id(7), id(6), id(5), id(9)]);
        assert!(views.next_due_of_requests(now).is_some(), "the others wait");
        readings.retain(|reading| reading.by() == Some(&key("hog")));
        readings.pop();
        assert_eq!(takes_of_requests(&views, now).unwrap().0, id(4));
    }
}
