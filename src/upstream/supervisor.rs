//! One thread per upstream: makes contact, reads its lists, and goes on trying when it is gone.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::Sender;
use ring::rand::{SecureRandom, SystemRandom};

use crate::error::Stage;
use crate::limits::{
    BACKOFF_MAX, BACKOFF_MIN, BACKOFF_RESET_AFTER, REFRESH_INTERVAL, RELIST_INTERVAL,
    UPSTREAM_LIST_PAGES_MAX,
};
use crate::protocol::call::{Outcome, Outgoing};
use crate::protocol::legacy::Initialized;
use crate::protocol::method::Method;
use crate::protocol::raw::{Raw, RawObject, elements, string};
use crate::wait::Wait;

use super::connection::{Kind, Refusal, Trouble, cut, has_tools};
use super::exchange::Lane;
use super::link::{Core, Deaf, Link, Opened};
use super::{Event, Failure, State};

/// How an upstream is, as its supervisor last saw it.
#[derive(Debug)]
pub(super) struct Health {
    pub(super) state: Seen,
    pub(super) initialized: Option<Arc<Initialized>>,
    pub(super) last_failure: Option<Failure>,
    pub(super) latency: Option<Duration>,
    pub(super) opened: u64,
}

/// [`State`] with a point in time instead of a duration.
#[derive(Debug, Clone, Copy)]
pub(super) enum Seen {
    Probing,
    Ready,
    BackingOff { next_try: Instant },
}

impl Seen {
    pub(super) fn state(self) -> State {
        match self {
            Self::Probing => State::Probing,
            Self::Ready => State::Ready,
            Self::BackingOff { next_try } => State::BackingOff {
                next_try: next_try.saturating_duration_since(Instant::now()),
            },
        }
    }
}

/// [`Health`] where the calls and the supervisor both reach it.
pub(super) struct Vitals(Mutex<Health>);

impl Default for Vitals {
    fn default() -> Vitals {
        Vitals(Mutex::new(Health {
            state: Seen::Probing,
            initialized: None,
            last_failure: None,
            latency: None,
            opened: 0,
        }))
    }
}

impl Vitals {
    pub(super) fn lock(&self) -> MutexGuard<'_, Health> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the supervisor's thread owns.
pub(super) struct Supervisor {
    pub(super) core: Arc<Core>,
    pub(super) link: Arc<dyn Link>,
    pub(super) vitals: Arc<Vitals>,
    pub(super) events: Sender<Event>,
    pub(super) lane: Lane,
    /// Of the session seen last.
    pub(super) generation: Option<u64>,
    /// The session whose failure was logged last: one that fails again and again in the same
    /// way is logged once.
    pub(super) logged: u64,
    pub(super) lists: Lists,
}

/// When the lists are to be read again, apart from the refresh.
#[derive(Default)]
pub(super) struct Lists {
    /// The upstream has said so since they were read.
    changed: bool,
    /// Before that, another change is not followed.
    quiet_until: Option<Instant>,
    /// They were refused the last time.
    retry_at: Option<Instant>,
    backoff: Backoff,
    /// What is told next is what the upstream has told to be new.
    announced: bool,
    /// They have been told once.
    known: bool,
}

impl Lists {
    fn due(&self) -> Option<Instant> {
        let change = self.changed.then(|| self.quiet_until.unwrap_or_else(Instant::now));
        [change, self.retry_at].into_iter().flatten().min()
    }

    /// What the upstream says from here on is not in the lists any more.
    fn begin(&mut self) {
        self.retry_at = None;
        if std::mem::take(&mut self.changed) {
            self.quiet_until = Some(Instant::now() + RELIST_INTERVAL);
            self.announced = true;
        }
    }

    fn refused(&mut self) {
        self.retry_at = Some(Instant::now() + self.backoff.next());
    }

    /// Gives whether the upstream has announced what was read.
    fn done(&mut self) -> bool {
        self.backoff = Backoff::default();
        let first = !std::mem::replace(&mut self.known, true);
        std::mem::take(&mut self.announced) || first
    }
}

/// Why the supervisor no longer looks after a session.
enum Left {
    Lost(Trouble),
    Stopped,
}

impl Supervisor {
    /// Runs until the upstream is stopped; ends its session then.
    pub(super) fn run(mut self) {
        let mut backoff = Backoff::default();
        while !self.core.nudge.is_stopped() {
            let began = Instant::now();
            let left = match self.contact() {
                Ok(opened) => self.attend(opened),
                Err(trouble) => Left::Lost(trouble),
            };
            let trouble = match left {
                Left::Stopped => break,
                Left::Lost(trouble) => trouble,
            };
            if began.elapsed() >= BACKOFF_RESET_AFTER {
                backoff = Backoff::default();
            }
            let delay = backoff.next();
            self.failed(&trouble, delay);
            if !self.back_off(delay) {
                break;
            }
        }
        self.link.close();
    }

    /// Opens the session if nobody has, and reads the lists.
    fn contact(&mut self) -> Result<Opened, Trouble> {
        let wait = self.busy()?;
        let opened = self.link.open(&mut self.lane, &wait)?;
        {
            let mut vitals = self.vitals.lock();
            vitals.initialized = Some(opened.initialized.clone());
            vitals.opened += u64::from(self.generation != Some(opened.generation));
        }
        self.generation = Some(opened.generation);
        let initialized = (*opened.initialized).clone();
        self.tell(Event::Ready { server: self.core.name().clone(), initialized });
        self.list(&opened)?;
        let was = std::mem::replace(&mut self.vitals.lock().state, Seen::Ready);
        if !matches!(was, Seen::Ready) {
            let revision = opened.initialized.revision;
            let transport = self.link.transport();
            log::info!(target: "upstream", "{} is ready: {transport}, {revision}", self.core.name());
        }
        Ok(opened)
    }

    /// Waits for whatever happens to an open session.
    fn attend(&mut self, mut opened: Opened) -> Left {
        let mut refresh_at = Instant::now() + REFRESH_INTERVAL;
        loop {
            let news = self.core.nudge.take();
            self.lists.changed |= news.list_changed;
            if self.core.nudge.is_stopped() {
                return Left::Stopped;
            }
            if let Some(trouble) = self.link.died() {
                self.link.forget(opened.generation);
                return Left::Lost(trouble);
            }
            if let Some((generation, trouble)) = news.lost
                && generation >= opened.generation
            {
                self.link.forget(generation);
                return Left::Lost(trouble);
            }
            let reopened = news.opened.is_some_and(|generation| generation > opened.generation);
            let list_at = self.lists.due().map_or(refresh_at, |due| due.min(refresh_at));
            let step = if reopened {
                self.contact().map(|newer| opened = newer)
            } else if Instant::now() >= list_at {
                self.list(&opened)
            } else {
                self.rest(list_at);
                continue;
            };
            refresh_at = Instant::now() + REFRESH_INTERVAL;
            if let Err(trouble) = step {
                return Left::Lost(trouble);
            }
        }
    }

    /// Waits until there is news or `until` has come.
    fn rest(&self, until: Instant) {
        let left = until.saturating_duration_since(Instant::now());
        // An interruption is a stop, which the caller looks for.
        self.core.nudge.idle.until(None, Some(left)).ok();
    }

    fn busy(&self) -> Result<Arc<Wait>, Trouble> {
        self.core
            .nudge
            .busy(self.core.config.timeout)
            .map_err(|error| Trouble::new(Kind::Nonsense, Stage::Connect, error.to_string()))
    }

    /// Reads the list of tools, page by page, and tells of it.
    fn list(&mut self, opened: &Opened) -> Result<(), Trouble> {
        self.lists.begin();
        let (tools, left_out) = if has_tools(&opened.initialized) {
            match self.tools().map_err(in_list) {
                // Its session is well: only the list is known no better than before.
                Err(trouble) if matches!(trouble.kind, Kind::Refused(_) | Kind::Overloaded) => {
                    self.lists.refused();
                    self.note(&trouble);
                    return Ok(());
                }
                read => read?,
            }
        } else {
            (Vec::new(), 0)
        };
        if left_out > 0 {
            log::warn!(target: "upstream", "{}: {left_out} tools are left out \
                (limits.upstream_tools, limits.upstream_result_bytes)", self.core.name());
        }
        let announced = self.lists.done();
        let server = self.core.name().clone();
        self.tell(Event::Tools { server, tools, left_out, announced });
        Ok(())
    }

    fn tools(&mut self) -> Result<(Vec<Raw>, usize), Trouble> {
        let max = self.core.limits.upstream_tools;
        let mut bytes_left = self.core.limits.upstream_result_bytes;
        let (mut tools, mut left_out) = (Vec::new(), 0);
        let mut cursor: Option<String> = None;
        for _ in 0..UPSTREAM_LIST_PAGES_MAX {
            let page = self.page(cursor.as_deref())?;
            let (items, next) = read_page(&page)?;
            for item in items {
                let rest = bytes_left.checked_sub(item.get().len());
                if let Some(rest) = rest.filter(|_| left_out == 0 && tools.len() < max) {
                    bytes_left = rest;
                    tools.push(item);
                } else {
                    left_out += 1;
                }
            }
            // A cursor that stays the same would never end.
            if next.is_none() || next == cursor {
                return Ok((tools, left_out));
            }
            cursor = next;
        }
        log::warn!(target: "upstream", "{}: its list has more than {UPSTREAM_LIST_PAGES_MAX} pages",
            self.core.name());
        Ok((tools, left_out))
    }

    fn page(&mut self, cursor: Option<&str>) -> Result<Raw, Trouble> {
        let mut params = RawObject::default();
        if let Some(cursor) = cursor {
            params.set("cursor", string(cursor));
        }
        let outgoing =
            Outgoing { method: Method::ToolsList, params, meta: None, wants_progress: false };
        let wait = self.busy()?;
        let began = Instant::now();
        match self.link.request(&mut self.lane, &outgoing, &wait, &mut Deaf)? {
            Outcome::Complete(page) => {
                self.vitals.lock().latency = Some(began.elapsed());
                Ok(page)
            }
            Outcome::Error { error, .. } => Err(Trouble::new(
                Kind::Refused(Refusal::Plain),
                Stage::List,
                format!("it refused tools/list: {} ({})", cut(&error.message), error.code),
            )),
        }
    }

    /// Remembers and tells a failure.
    fn note(&self, trouble: &Trouble) {
        let failure = Failure {
            stage: trouble.stage,
            message: self.core.scrubbed(trouble.clone()).message,
            at: SystemTime::now(),
        };
        let server = self.core.name();
        let last = self.vitals.lock().last_failure.replace(failure.clone());
        let same =
            |last: Failure| last.stage == failure.stage && last.message == failure.message;
        if !last.is_some_and(same) || self.generation.is_some_and(|it| self.logged < it) {
            log::warn!(target: "upstream", "{server} failed ({}): {}", failure.stage, failure.message);
        }
        self.tell(Event::Failed { server: server.clone(), failure });
    }

    fn failed(&mut self, trouble: &Trouble, delay: Duration) {
        self.lane.reset();
        let next_try = Instant::now() + delay;
        self.link.backing_off(trouble, next_try);
        self.vitals.lock().state = Seen::BackingOff { next_try };
        self.note(trouble);
        self.logged = self.generation.unwrap_or_default();
    }

    /// Waits for the next attempt; a call that opened a session in the meantime is a reason to
    /// look at once. False at a stop.
    fn back_off(&self, delay: Duration) -> bool {
        let until = Instant::now() + delay;
        loop {
            if self.core.nudge.is_stopped() {
                return false;
            }
            let opened = self.core.nudge.take().opened.is_some();
            if opened || Instant::now() >= until {
                return true;
            }
            self.rest(until);
        }
    }

    /// Whoever listens may be busy for a while, or gone; a stop ends the wait.
    fn tell(&self, event: Event) {
        let mut event = event;
        loop {
            let patience = Duration::from_millis(100);
            match self.events.send_timeout(event, patience) {
                Ok(()) => return,
                Err(crossbeam_channel::SendTimeoutError::Timeout(again)) => event = again,
                Err(crossbeam_channel::SendTimeoutError::Disconnected(_)) => return,
            }
            if self.core.nudge.is_stopped() {
                return;
            }
        }
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

/// The tools of one page, each of its own so that the page can go, and the next page's cursor.
fn read_page(page: &Raw) -> Result<(Vec<Raw>, Option<String>), Trouble> {
    let wrong = |what: &str| Trouble::nonsense(format!("its answer to tools/list {what}"));
    let fields = RawObject::parse(page.get()).map_err(|_| wrong("is no object"))?;
    let tools = fields.get("tools").ok_or_else(|| wrong("has no \"tools\""))?;
    let tools = elements(tools).map_err(|_| wrong("has no array in \"tools\""))?;
    let tools = tools.into_iter().map(|tool| Raw::from_valid(tool.to_owned())).collect();
    let next = match fields.get("nextCursor") {
        None | Some("null") => None,
        Some(_) => fields.string("nextCursor").map_err(|_| wrong("has a wrong cursor"))?,
    };
    Ok((tools, next))
}

/// Grows from attempt to attempt; jitter keeps many gateways from coming back at once.
struct Backoff(Duration);

impl Default for Backoff {
    fn default() -> Backoff {
        Backoff(BACKOFF_MIN)
    }
}

impl Backoff {
    fn next(&mut self) -> Duration {
        let base = self.0;
        self.0 = (base * 2).min(BACKOFF_MAX);
        let mut byte = [128_u8];
        // Without randomness the middle does.
        SystemRandom::new().fill(&mut byte).ok();
        let [byte] = byte;
        // Between three quarters and five quarters.
        base * 3 / 4 + base / 2 * u32::from(byte) / 255
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_grows_to_its_bound() {
        let mut backoff = Backoff::default();
        let first = backoff.next();
        assert!(first >= BACKOFF_MIN * 3 / 4 && first <= BACKOFF_MIN * 5 / 4);
        for _ in 0..20 {
            backoff.next();
        }
        assert!(backoff.next() <= BACKOFF_MAX * 5 / 4);
    }

    #[test]
    fn a_page_gives_its_tools_and_its_cursor() {
        let page = |text: &str| Raw::from_valid(text.to_owned());
        let (tools, next) =
            read_page(&page(r#"{"tools":[{"name":"a"},{"name":"b"}],"nextCursor":"2"}"#))
                .unwrap();
        assert_eq!((tools.len(), next.as_deref()), (2, Some("2")));
        assert_eq!(read_page(&page(r#"{"tools":[]}"#)).unwrap(), (vec![], None));
        assert!(read_page(&page(r#"{"tools":{}}"#)).is_err());
        assert!(read_page(&page(r#"{}"#)).is_err());
    }
}
