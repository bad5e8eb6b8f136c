//! Pure: how long is waited before a child is started again, or a session opened.

use std::time::Duration;

use crate::limits::{
    BACKOFF_ASKED_MAX, BACKOFF_RESET_AFTER, CHILD_BACKOFF_RESET_AFTER, CHILD_RESTARTS_FREE,
    SESSION_REOPENINGS_FREE,
};

use crate::upstream::backoff::{Backoff, Range};

/// What came of a child, or of a session, that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lived {
    /// It has never answered as it should.
    Never,
    /// It was well for so long, and answered no call.
    Idle(Duration),
    /// It was well for so long, and has answered a call.
    Served(Duration),
}

/// The pace of one child's restarts.
#[derive(Debug)]
pub(crate) struct Restarts {
    backoff: Backoff,
    /// Restarts that are made at once after an end which the child's callers may have caused:
    /// whoever can make it end must not close the others out by that.
    free: u32,
    /// The same after a start that failed, where a call asks for each.
    free_starts: u32,
}

impl Default for Restarts {
    fn default() -> Restarts {
        let backoff = Backoff::new(Range::CHILD);
        Restarts { backoff, free: CHILD_RESTARTS_FREE, free_starts: 0 }
    }
}

impl Restarts {
    /// Of a child that is started when a call wants it.
    pub(crate) fn on_demand() -> Restarts {
        Restarts { free_starts: 1, ..Restarts::default() }
    }

    /// The wait after an end.
    pub(crate) fn next(&mut self, lived: Lived) -> Duration {
        if let Lived::Idle(time) | Lived::Served(time) = lived {
            self.backoff.lasted(time);
            if time >= CHILD_BACKOFF_RESET_AFTER {
                self.free = CHILD_RESTARTS_FREE;
            }
        }
        let free = match lived {
            Lived::Served(_) => &mut self.free,
            Lived::Never | Lived::Idle(_) => &mut self.free_starts,
        };
        if *free > 0 {
            *free -= 1;
            return Duration::ZERO;
        }
        self.backoff.next()
    }
}

/// The pace at which the supervisor opens a session that calls can open, too.
#[derive(Debug)]
pub(crate) struct Reopenings {
    backoff: Backoff,
    /// As in [`Restarts`], of sessions that have answered calls.
    free: u32,
}

impl Default for Reopenings {
    fn default() -> Reopenings {
        Reopenings { backoff: Backoff::new(Range::UPSTREAM), free: SESSION_REOPENINGS_FREE }
    }
}

impl Reopenings {
    /// The wait after an end, or after an attempt that failed; `asked`: how long the server wants
    /// to be left alone.
    pub(crate) fn next(&mut self, lived: Lived, asked: Option<Duration>) -> Duration {
        if let Lived::Idle(time) | Lived::Served(time) = lived {
            self.backoff.lasted(time);
            if time >= BACKOFF_RESET_AFTER {
                self.free = SESSION_REOPENINGS_FREE;
            }
        }
        if matches!(lived, Lived::Served(_)) && self.free > 0 {
            self.free -= 1;
            return asked.unwrap_or_default().min(BACKOFF_ASKED_MAX);
        }
        self.backoff.next_asked(asked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{BACKOFF_MAX, BACKOFF_MIN, CHILD_BACKOFF_MAX, CHILD_BACKOFF_MIN};

    const SECOND: Duration = Duration::from_secs(1);

    fn about(wait: Duration, base: Duration) -> bool {
        wait >= base * 3 / 4 && wait <= base * 5 / 4
    }

    #[test]
    fn a_crash_loop_slows_down_from_a_second_to_five_minutes() {
        let mut restarts = Restarts::default();
        for n in 0..12 {
            let base = (CHILD_BACKOFF_MIN * 2_u32.pow(n)).min(CHILD_BACKOFF_MAX);
            assert!(about(restarts.next(Lived::Never), base), "{n}");
        }
        assert!(about(restarts.next(Lived::Idle(59 * SECOND)), CHILD_BACKOFF_MAX));
        assert!(about(restarts.next(Lived::Idle(60 * SECOND)), CHILD_BACKOFF_MIN));
        assert!(about(restarts.next(Lived::Idle(3 * SECOND)), CHILD_BACKOFF_MIN * 2));
    }

    #[test]
    fn an_end_after_a_call_is_free_but_not_for_ever() {
        let mut restarts = Restarts::default();
        for _ in 0..CHILD_RESTARTS_FREE {
            assert_eq!(restarts.next(Lived::Served(SECOND)), Duration::ZERO);
        }
        assert!(about(restarts.next(Lived::Served(SECOND)), SECOND));
        assert!(about(restarts.next(Lived::Served(SECOND)), 2 * SECOND));
        assert_eq!(restarts.next(Lived::Served(60 * SECOND)), Duration::ZERO);
    }

    #[test]
    fn a_start_that_a_call_asks_for_is_tried_once_more_at_once() {
        let mut restarts = Restarts::on_demand();
        assert_eq!(restarts.next(Lived::Never), Duration::ZERO);
        assert!(about(restarts.next(Lived::Never), SECOND));
        assert!(about(restarts.next(Lived::Never), 2 * SECOND));
    }

    #[test]
    fn a_session_that_served_is_opened_at_once_but_not_for_ever_nor_against_its_server() {
        let mut sessions = Reopenings::default();
        for _ in 1..SESSION_REOPENINGS_FREE {
            assert_eq!(sessions.next(Lived::Served(SECOND), None), Duration::ZERO);
        }
        let asked = Some(20 * SECOND);
        assert_eq!(sessions.next(Lived::Served(SECOND), asked), 20 * SECOND);
        for n in 0..12 {
            let base = (BACKOFF_MIN * 2_u32.pow(n)).min(BACKOFF_MAX);
            assert!(about(sessions.next(Lived::Served(SECOND), None), base), "{n}");
        }
        assert!(sessions.next(Lived::Never, Some(40 * SECOND)) >= 40 * SECOND);
        assert!(about(sessions.next(Lived::Never, None), BACKOFF_MAX));
        assert!(about(sessions.next(Lived::Idle(BACKOFF_RESET_AFTER), None), BACKOFF_MIN));
        assert_eq!(sessions.next(Lived::Served(SECOND), None), Duration::ZERO);
    }
}
