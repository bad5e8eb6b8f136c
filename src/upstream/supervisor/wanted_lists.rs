//! Which lists are about to be read, and which are read because somebody asks for a name that is
//! not in them. Calls ask, the supervisor reads.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::limits::UNKNOWN_NAME_RELIST_INTERVAL;
use crate::protocol::call::Kind;

use crate::upstream::Upstream;

/// The readings of an upstream's lists, as far as calls must know of them.
#[derive(Default)]
pub(crate) struct Readings(Mutex<HashMap<Kind, Reading>>);

#[derive(Default)]
struct Reading {
    /// The upstream has said that it changed, or somebody wants it, since the last one began.
    is_due: bool,
    /// When the last one began.
    began: Option<Instant>,
    /// It could not be had, and is not asked for before that.
    put_off: Option<Instant>,
    /// When one was last wanted for a name that it did not bring.
    wanted_in_vain: Option<Instant>,
}

/// What somebody who asks for an unknown name has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Want {
    /// Nothing: the list was read for such a name just now, or cannot be had.
    Nothing,
    /// A reading that began then or later is coming.
    Coming(Instant),
    /// The same, and the supervisor must be told.
    Begin(Instant),
}

impl Readings {
    fn lock(&self) -> MutexGuard<'_, HashMap<Kind, Reading>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The upstream has said that this list has changed.
    pub(crate) fn announced(&self, kind: Kind) {
        let mut readings = self.lock();
        readings.entry(kind).or_default().is_due = true;
        // Templates change without a notification of their own.
        if kind == Kind::Resource {
            readings.entry(Kind::Template).or_default().is_due = true;
        }
    }

    /// These lists are read from now on. Gives that moment.
    pub(crate) fn begin(&self, kinds: &[Kind]) -> Instant {
        let mut readings = self.lock();
        let now = Instant::now();
        for kind in kinds {
            let reading = readings.entry(*kind).or_default();
            (reading.is_due, reading.began) = (false, Some(now));
            reading.put_off = None;
        }
        now
    }

    /// This list could not be had, and is not asked for before `until`.
    pub(crate) fn put_off(&self, kind: Kind, until: Option<Instant>) {
        self.lock().entry(kind).or_default().put_off = until;
    }

    /// Somebody wants what is not in the list of which the last published reading began at
    /// `published`.
    fn want(&self, kind: Kind, published: Option<Instant>, now: Instant) -> Want {
        let mut readings = self.lock();
        let reading = readings.entry(kind).or_default();
        if reading.put_off.is_some_and(|until| now < until) {
            return Want::Nothing;
        }
        if reading.is_due {
            return Want::Coming(now);
        }
        if let Some(began) = reading.began.filter(|began| published < Some(*began)) {
            return Want::Coming(began);
        }
        let is_soon = |last: Instant| now < last + UNKNOWN_NAME_RELIST_INTERVAL;
        if reading.wanted_in_vain.is_some_and(is_soon) {
            return Want::Nothing;
        }
        (reading.is_due, reading.wanted_in_vain) = (true, Some(now));
        Want::Begin(now)
    }

    fn brought(&self, kind: Kind) {
        if let Some(reading) = self.lock().get_mut(&kind) {
            reading.wanted_in_vain = None;
        }
    }
}

impl Upstream {
    /// Has a list read because somebody asks for a name that is not in it, unless that was done
    /// just now: once for all who ask. `published`: when the reading began that is known.
    /// Gives when the reading begins at the earliest that can bring the name.
    pub fn want_list(&self, kind: Kind, published: Option<Instant>) -> Option<Instant> {
        let mailbox = &self.context.mailbox;
        match mailbox.readings.want(kind, published, Instant::now()) {
            Want::Nothing => None,
            Want::Coming(since) => Some(since),
            Want::Begin(since) => {
                mailbox.list_wanted(kind);
                Some(since)
            }
        }
    }

    /// Such a reading has brought the name: the next one is not in vain either.
    pub fn list_brought(&self, kind: Kind) {
        self.context.mailbox.readings.brought(kind);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const TOOLS: Kind = Kind::Tool;

    #[test]
    fn all_who_ask_for_unknown_names_share_one_reading() {
        let readings = Readings::default();
        let published = Some(readings.begin(&[TOOLS]));
        let now = Instant::now();
        assert_eq!(readings.want(TOOLS, published, now), Want::Begin(now));
        let later = now + Duration::from_millis(1);
        assert_eq!(readings.want(TOOLS, published, later), Want::Coming(later));
        let began = readings.begin(&[TOOLS]);
        assert_eq!(readings.want(TOOLS, published, later), Want::Coming(began));
        assert_eq!(readings.want(TOOLS, Some(began), later), Want::Nothing);
        let later = now + UNKNOWN_NAME_RELIST_INTERVAL;
        assert_eq!(readings.want(TOOLS, Some(began), later), Want::Begin(later));
    }

    #[test]
    fn a_reading_that_brought_the_name_may_be_followed_at_once() {
        let readings = Readings::default();
        let now = Instant::now();
        assert_eq!(readings.want(TOOLS, None, now), Want::Begin(now));
        let began = readings.begin(&[TOOLS]);
        readings.brought(TOOLS);
        assert_eq!(readings.want(TOOLS, Some(began), now), Want::Begin(now));
    }

    #[test]
    fn an_announced_change_is_coming_whatever_was_read_just_now() {
        let readings = Readings::default();
        let now = Instant::now();
        assert_eq!(readings.want(Kind::Template, None, now), Want::Begin(now));
        let published = Some(readings.begin(&Kind::ALL));
        assert_eq!(readings.want(Kind::Template, published, now), Want::Nothing);
        readings.announced(Kind::Resource);
        assert_eq!(readings.want(Kind::Template, published, now), Want::Coming(now));
        readings.put_off(Kind::Template, Some(now + Duration::from_secs(1)));
        assert_eq!(readings.want(Kind::Template, published, now), Want::Nothing);
    }
}
