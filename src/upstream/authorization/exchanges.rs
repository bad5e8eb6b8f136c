//! Exchanges that use something up at an authorization server, a refresh token or a code: whoever has
//! sent one must keep what the answer brings, or the sign-in is lost.

use std::time::{Duration, Instant};

use crate::limits::EXCHANGES_LOOK_INTERVAL;
use crate::sync::Mutex;

/// The exchanges under way.
#[derive(Default)]
pub(super) struct Exchanges(Mutex<UnderWay>);

#[derive(Default)]
struct UnderWay {
    count: usize,
    is_ending: bool,
}

/// One exchange, until it is dropped: the tokens are kept by then.
pub(super) struct Exchange<'a>(&'a Exchanges);

impl Exchanges {
    /// Begins one. None once all is ending.
    pub(super) fn begin(&self) -> Option<Exchange<'_>> {
        let mut under_way = self.0.lock();
        if under_way.is_ending {
            return None;
        }
        under_way.count += 1;
        Some(Exchange(self))
    }

    /// Waits for those under way, but not for longer than `patience`. None is begun any more.
    pub(super) fn finish(&self, patience: Duration) {
        let until = Instant::now() + patience;
        loop {
            {
                let mut under_way = self.0.lock();
                under_way.is_ending = true;
                if under_way.count == 0 || Instant::now() >= until {
                    return;
                }
            }
            std::thread::sleep(EXCHANGES_LOOK_INTERVAL);
        }
    }
}

impl Drop for Exchange<'_> {
    fn drop(&mut self) {
        self.0.0.lock().count -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_waits_for_what_is_under_way_and_for_a_bounded_time() {
        let exchanges = Exchanges::default();
        let first = exchanges.begin().unwrap();
        let began = Instant::now();
        exchanges.finish(Duration::from_millis(60));
        assert!(began.elapsed() >= Duration::from_millis(60));
        assert!(exchanges.begin().is_none(), "none is begun any more");
        drop(first);
        let began = Instant::now();
        exchanges.finish(Duration::from_secs(30));
        assert!(began.elapsed() < Duration::from_secs(20));
    }
}
