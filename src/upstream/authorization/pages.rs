//! Pure: the pages that are opened by themselves for the person at this machine: how often, and how
//! long calls wait for one.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::limits::{BROWSER_PAGES_MAX, BROWSER_REST, BROWSER_REST_MAX, BROWSER_WINDOW};

/// The pages that were opened for one server.
#[derive(Debug, Default)]
pub(super) struct Pages {
    opened: VecDeque<Instant>,
    /// Pages in a row that led to no sign-in.
    n_unfinished: u32,
    /// No page is opened before that.
    rests_until: Option<Instant>,
    /// Calls wait for the person until then.
    waited_for_until: Option<Instant>,
}

/// So long no page is opened after so many in a row that led to no sign-in.
fn rest_after(n_unfinished: u32) -> Duration {
    let doubled = 2_u32.saturating_pow(n_unfinished.saturating_sub(1).min(16));
    BROWSER_REST.saturating_mul(doubled).min(BROWSER_REST_MAX)
}

impl Pages {
    /// True if a page may be opened: pages are not opened all the time.
    pub(super) fn may_open(&mut self, now: Instant) -> bool {
        self.opened.retain(|at| now.saturating_duration_since(*at) < BROWSER_WINDOW);
        let rests = self.rests_until.is_some_and(|until| now < until);
        !rests && self.opened.len() < BROWSER_PAGES_MAX
    }

    /// A page is opened, and calls wait for the person for `patience`.
    pub(super) fn opened(&mut self, now: Instant, patience: Duration) {
        self.opened.push_back(now);
        self.n_unfinished = self.n_unfinished.saturating_add(1);
        self.waited_for_until = Some(now + patience);
        self.rests_until = Some(now + patience + rest_after(self.n_unfinished));
    }

    /// The sign-in has come to nothing: calls wait for it no longer.
    pub(super) fn failed(&mut self, now: Instant) {
        self.waited_for_until = None;
        self.rests_until = Some(now + rest_after(self.n_unfinished));
    }

    /// There are credentials.
    pub(super) fn signed_in(&mut self) {
        (self.n_unfinished, self.waited_for_until) = (0, None);
    }

    /// A person has finished a sign-in: the next page need not rest.
    pub(super) fn finished(&mut self) {
        self.rests_until = None;
    }

    /// A further sign-in would not help at present.
    pub(super) fn rest(&mut self, now: Instant) {
        self.rests_until = Some(now + BROWSER_REST);
    }

    /// True while calls wait for the person.
    pub(super) fn is_waited_for(&self, now: Instant) -> bool {
        self.waited_for_until.is_some_and(|until| now < until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    #[test]
    fn pages_rest_longer_after_each_that_led_to_nothing_and_are_few_in_a_while() {
        let (mut pages, start) = (Pages::default(), Instant::now());
        let mut now = start;
        for n in 1..4 {
            assert!(pages.may_open(now));
            pages.opened(now, PATIENCE);
            assert!(pages.is_waited_for(now) && !pages.is_waited_for(now + PATIENCE));
            pages.failed(now);
            assert!(!pages.is_waited_for(now), "calls wait no longer");
            let rest = rest_after(n);
            assert_eq!(rest, BROWSER_REST * 2_u32.pow(n - 1));
            assert!(!pages.may_open(now + rest - Duration::from_millis(1)));
            now += rest;
        }
        pages.signed_in();
        pages.finished();
        assert!(pages.may_open(now), "after a sign-in no page rests");
        let mut many = Pages::default();
        for _ in 0..BROWSER_PAGES_MAX {
            assert!(many.may_open(start));
            many.opened(start, PATIENCE);
            many.finished();
        }
        assert!(!many.may_open(start) && many.may_open(start + BROWSER_WINDOW));
        assert_eq!(rest_after(99), BROWSER_REST_MAX);
    }
}
