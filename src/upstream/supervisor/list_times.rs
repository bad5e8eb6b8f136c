//! Pure: when the lists of an upstream are read again: what it says of them, what it announces, and
//! how long one that could not be had is left alone.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::error::Stage;
use crate::limits::{LIST_TTL_MIN, PROBE_PAUSE_FACTOR, REFRESH_INTERVAL, RELIST_INTERVAL};
use crate::protocol::call::Kind;
use crate::protocol::modern::Freshness;

use crate::upstream::backoff::Retry;
use crate::upstream::status::{FailureReport, Unread};

/// What is known of the lists, and when they are to be read again, apart from the refresh.
#[derive(Default)]
pub(crate) struct Lists(HashMap<Kind, List>);

#[derive(Default)]
pub(crate) struct List {
    /// The upstream has said so since it was read.
    changed: bool,
    /// Somebody looked for something in it in vain.
    wanted: bool,
    /// Before that, another change is not followed.
    quiet_until: Option<Instant>,
    /// It could not be had the last time.
    pub(crate) retry: Retry,
    /// Why not.
    pub(crate) failure: Option<FailureReport>,
    /// It could be read the last time.
    readable: bool,
    /// What was left out of it then.
    left_out: usize,
    /// Its time is over then.
    stale_at: Option<Instant>,
}

impl List {
    /// When it is to be read, if so; a change that nothing keeps waiting is due `now`.
    pub(crate) fn due(&self, now: Instant) -> Option<Instant> {
        // What could not be had is not asked for sooner because it has changed.
        if let Some(at) = self.retry.at() {
            return Some(at);
        }
        let change = self.changed.then(|| self.quiet_until.unwrap_or(now));
        let want = self.wanted.then_some(now);
        [change, want, self.stale_at].into_iter().flatten().min()
    }
}

impl Lists {
    pub(crate) fn of(&mut self, kind: Kind) -> &mut List {
        self.0.entry(kind).or_default()
    }

    /// The upstream has said so; templates change without a notification of their own.
    pub(crate) fn note_changed(&mut self, kinds: &[Kind]) {
        for kind in kinds {
            self.of(*kind).changed = true;
            if *kind == Kind::Resource {
                self.of(Kind::Template).changed = true;
            }
        }
    }

    /// Somebody looked for something in these lists in vain.
    pub(crate) fn note_wanted(&mut self, kinds: &[Kind]) {
        kinds.iter().for_each(|kind| self.of(*kind).wanted = true);
    }

    /// Those to be read by now.
    pub(crate) fn due(&self, now: Instant) -> Vec<Kind> {
        let due = |kind: &Kind| self.0.get(kind).and_then(|list| list.due(now));
        Kind::ALL.into_iter().filter(|kind| due(kind).is_some_and(|at| at <= now)).collect()
    }

    /// When the next one is to be read.
    pub(crate) fn next_due(&self, now: Instant) -> Option<Instant> {
        self.0.values().filter_map(|list| list.due(now)).min()
    }

    /// Those that do not wait for another try.
    pub(crate) fn not_waiting(&self, now: Instant) -> Vec<Kind> {
        let waits = |kind: &Kind| self.0.get(kind).is_some_and(|it| it.retry.is_waiting(now));
        Kind::ALL.into_iter().filter(|kind| !waits(kind)).collect()
    }

    /// What the upstream says from here on is not in these lists any more.
    pub(crate) fn begin(&mut self, now: Instant, kinds: &[Kind]) {
        for kind in kinds {
            let list = self.of(*kind);
            list.retry.give_up();
            (list.wanted, list.stale_at) = (false, None);
            if std::mem::take(&mut list.changed) {
                list.quiet_until = Some(now + RELIST_INTERVAL);
            }
        }
    }

    pub(crate) fn read(&mut self, kind: Kind, left_out: usize, stale_at: Option<Instant>) {
        let list = self.of(kind);
        list.stale_at = stale_at;
        (list.readable, list.left_out) = (true, left_out);
        list.retry.went_well();
        list.failure = None;
    }

    /// The upstream declares none of these.
    pub(crate) fn absent(&mut self, kind: Kind) {
        let list = self.of(kind);
        (list.readable, list.left_out, list.failure) = (false, 0, None);
        list.retry.went_well();
    }

    /// It could not be had, after so long: what takes long is left alone for longer.
    pub(crate) fn failed(
        &mut self,
        kind: Kind,
        now: Instant,
        took: Duration,
        asked: Option<Duration>,
    ) {
        let list = self.of(kind);
        list.readable = false;
        let pause = took.saturating_mul(PROBE_PAUSE_FACTOR);
        list.retry.failed(now, Some(pause.max(asked.unwrap_or_default())));
    }

    /// Why a list cannot be had, if so.
    pub(crate) fn failure(&self, kind: Kind) -> Option<FailureReport> {
        self.0.get(&kind)?.failure.clone()
    }

    /// Those that cannot be had.
    pub(crate) fn unread(&self) -> Vec<Unread> {
        let of = |kind: Kind| {
            let list = self.0.get(&kind)?;
            let (failure, next_try) = (list.failure.clone()?, list.retry.at()?);
            Some(Unread { kind, failure, next_try })
        };
        Kind::ALL.into_iter().filter_map(of).collect()
    }

    /// The upstream was out of reach and is back: what could not be had before may be there now.
    pub(crate) fn hasten(&mut self) {
        self.0.values_mut().for_each(|list| list.retry.give_up());
    }

    /// Somebody has signed in: lists that could not be had for want of that are due at once.
    pub(crate) fn note_signed_in(&mut self) {
        for list in self.0.values_mut() {
            if list.failure.as_ref().is_some_and(|it| it.stage == Stage::Authorization) {
                list.retry.give_up();
                list.wanted = true;
            }
        }
    }

    pub(crate) fn is_any_failing(&self) -> bool {
        self.0.values().any(|list| list.retry.at().is_some())
    }

    pub(crate) fn is_any_readable(&self) -> bool {
        self.0.values().any(|list| list.readable)
    }

    pub(crate) fn left_out(&self) -> usize {
        self.0.values().map(|list| list.left_out).sum()
    }
}

/// When a list is to be read again because its time is over. One that is never fresh is not
/// asked for again and again where its changes are told.
pub(crate) fn stale_at(said: Freshness, read_at: Instant, is_told_of: bool) -> Option<Instant> {
    let ttl = Duration::from_millis(said.ttl_ms);
    let is_due = ttl < REFRESH_INTERVAL && !(ttl.is_zero() && is_told_of);
    is_due.then(|| read_at + ttl.max(LIST_TTL_MIN))
}

#[cfg(test)]
mod tests {
    use super::*;

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
        lists.begin(Instant::now(), &[Kind::Prompt]);
        assert_eq!(lists.next_due(now), None);
    }

    #[test]
    fn a_change_is_followed_at_once_and_the_next_one_of_its_kind_later() {
        let mut lists = Lists::default();
        lists.note_changed(&[Kind::Resource]);
        let due = lists.due(Instant::now());
        assert_eq!(due, [Kind::Resource, Kind::Template]);
        lists.begin(Instant::now(), &due);
        assert_eq!(lists.next_due(Instant::now()), None);
        lists.note_changed(&[Kind::Resource, Kind::Prompt]);
        assert_eq!(lists.due(Instant::now()), [Kind::Prompt]);
        assert_eq!(lists.due(Instant::now() + RELIST_INTERVAL), Kind::ALL[1..]);
    }

    #[test]
    fn a_list_that_could_not_be_had_waits_for_its_next_try_whatever_is_said() {
        let (mut lists, now) = (Lists::default(), Instant::now());
        let soon = now + crate::limits::BACKOFF_MIN * 5 / 4;
        lists.failed(Kind::Tool, now, Duration::ZERO, None);
        lists.failed(Kind::Prompt, now, 10 * crate::limits::BACKOFF_MIN, None);
        lists.note_changed(&[Kind::Tool, Kind::Resource]);
        assert_eq!(lists.due(now), [Kind::Resource, Kind::Template]);
        assert_eq!(lists.not_waiting(now), [Kind::Resource, Kind::Template]);
        assert_eq!(lists.due(soon), [Kind::Tool, Kind::Resource, Kind::Template]);
        assert_eq!(lists.due(now + 50 * crate::limits::BACKOFF_MIN), Kind::ALL);
        lists.begin(Instant::now(), &[Kind::Tool]);
        assert!(!lists.due(soon).contains(&Kind::Tool) && !lists.is_any_readable());
        lists.hasten();
        assert_eq!(lists.not_waiting(now), Kind::ALL);
    }

    #[test]
    fn a_sign_in_makes_those_due_that_wanted_one() {
        let (mut lists, now) = (Lists::default(), Instant::now());
        for (kind, stage) in [(Kind::Tool, Stage::Authorization), (Kind::Prompt, Stage::Read)] {
            lists.failed(kind, now, Duration::ZERO, None);
            lists.of(kind).failure = Some(FailureReport {
                stage,
                message: "refused".to_owned(),
                at: std::time::SystemTime::now(),
                refusal: None,
            });
        }
        lists.note_signed_in();
        assert_eq!(lists.due(now), [Kind::Tool]);
    }
}
