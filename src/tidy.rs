//! Removes the remains of sessions at servers when they end, or when they may see a server no
//! more: a client's own upstream sessions, and subscriptions.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};

use crate::error::CallError;
use crate::limits::{
    ENDED_SESSION_GRACE, SESSION_SWEEP_INTERVAL, TIDIED_SESSIONS_MAX,
    TIDIED_SUBSCRIPTIONS_A_TURN, TIDY_GIVEN_UP_TIME,
};
use crate::pipeline::Pipeline;
use crate::protocol::call::PrincipalId;
use crate::protocol::server_name::ServerName;
use crate::protocol::subscriber::Subscriber;
use crate::session::Ended;
use crate::thread::{self, Joined};
use crate::turns::Turns;

/// The upstreams, as far as remains are removed there.
trait Traces {
    /// Ends a client's own sessions, some time soon. Does not wait.
    fn close_client(&self, session: &Arc<str>);
    /// As `close_client`, at one server only.
    fn close_client_at(&self, session: &Arc<str>, server: &ServerName);
    /// Cancels a subscription, within `CONTROL_TIMEOUT`, unless it is wanted again when its turn
    /// comes; forgets it in any case.
    fn take_back(
        &self,
        server: &ServerName,
        uri: &str,
        subscriber: Subscriber,
        is_wanted: &dyn Fn() -> bool,
    ) -> Result<(), CallError>;
    /// Forgets a subscription. Does not wait.
    fn forget(&self, server: &ServerName, uri: &str, subscriber: Subscriber);
    /// Does further work once in a while: searches for the log levels that ended sessions may
    /// have changed, and drops pages of lists that are not requested.
    fn sweep(&self);
}

impl Traces for Pipeline {
    fn close_client(&self, session: &Arc<str>) {
        Pipeline::close_client(self, session);
    }

    fn close_client_at(&self, session: &Arc<str>, server: &ServerName) {
        Pipeline::close_client_at(self, session, server);
    }

    fn take_back(
        &self,
        server: &ServerName,
        uri: &str,
        subscriber: Subscriber,
        is_wanted: &dyn Fn() -> bool,
    ) -> Result<(), CallError> {
        // A refusal is an answer, too: the server is well.
        Pipeline::take_back(self, server, uri, subscriber, is_wanted).map(drop)
    }

    fn forget(&self, server: &ServerName, uri: &str, subscriber: Subscriber) {
        self.forget_subscription(server, uri, subscriber);
    }

    fn sweep(&self) {
        self.look_at_log_levels();
        self.forget_unused_pages();
    }
}

/// Starts the thread. It ends when the senders of ended sessions are gone.
///
/// # Errors
/// The system refuses a thread.
pub fn start(left: Receiver<Ended>, pipeline: Arc<Pipeline>) -> io::Result<Joined> {
    thread::spawn("tidy", move || run(&left, &*pipeline))
}

/// Waits a little for each session, so that messages about its end go out first.
fn run(left: &Receiver<Ended>, traces: &dyn Traces) {
    let mut waiting: VecDeque<(Instant, Ended)> = VecDeque::new();
    let mut work = Work::default();
    loop {
        let now = Instant::now();
        let due = waiting.front().map(|(at, _)| at.saturating_duration_since(now));
        let rest = due.unwrap_or(SESSION_SWEEP_INTERVAL);
        let rest = if work.turns.is_empty() { rest } else { Duration::ZERO };
        let room = TIDIED_SESSIONS_MAX.saturating_sub(waiting.len() + work.turns.len());
        let first = match room.checked_sub(1).map(|_| left.recv_timeout(rest)) {
            Some(Ok(ended)) => Some(ended),
            Some(Err(RecvTimeoutError::Timeout)) | None => None,
            Some(Err(RecvTimeoutError::Disconnected)) => return,
        };
        let at = Instant::now() + ENDED_SESSION_GRACE;
        waiting.extend(
            first
                .into_iter()
                .chain(left.try_iter().take(room.saturating_sub(1)))
                .map(|it| (at, it)),
        );
        while let Some((at, _)) = waiting.front()
            && (*at <= Instant::now() || waiting.len() >= TIDIED_SESSIONS_MAX)
            && let Some((_, ended)) = waiting.pop_front()
        {
            work.begin(ended, traces);
        }
        work.turn(traces);
        traces.sweep();
    }
}

/// The subscriptions to cancel, in turns of their principals: one principal that ends many
/// sessions with many subscriptions does not delay another's.
#[derive(Default)]
struct Work {
    turns: Turns<PrincipalId, Ended>,
    /// Servers that did not answer, and the time of that. Each delays the others once, and not
    /// once for each subscription.
    given_up: HashMap<ServerName, Instant>,
}

impl Work {
    /// Begins with the work that needs no wait, and queues the rest.
    fn begin(&mut self, ended: Ended, traces: &dyn Traces) {
        match &ended.narrowed {
            None => traces.close_client(&ended.session),
            Some(narrowed) => narrowed
                .servers()
                .for_each(|server| traces.close_client_at(&ended.session, server)),
        }
        if !ended.subscriptions.is_empty() {
            let charged = ended.charged.clone();
            self.turns.push(charged.as_ref(), ended);
        }
    }

    /// Cancels some subscriptions of one session.
    fn turn(&mut self, traces: &dyn Traces) {
        let Some((charged, mut ended)) = self.turns.pop() else { return };
        self.given_up.retain(|_, at| at.elapsed() < TIDY_GIVEN_UP_TIME);
        let n_now = ended.subscriptions.len().min(TIDIED_SUBSCRIPTIONS_A_TURN);
        let now: Vec<_> = ended.subscriptions.drain(..n_now).collect();
        for (server, uri) in &now {
            let is_wanted = || ended.is_wanted(server, uri);
            if self.given_up.contains_key(server) {
                if !is_wanted() {
                    traces.forget(server, uri, ended.subscriber);
                }
            } else if let Err(error) =
                traces.take_back(server, uri, ended.subscriber, &is_wanted)
            {
                log::debug!(target: "sessions", "subscriptions could not be taken back: {error}");
                self.given_up.insert(server.clone(), Instant::now());
            }
        }
        if !ended.subscriptions.is_empty() {
            self.turns.put_back(charged.as_ref(), ended);
        }
        if self.turns.is_empty() {
            self.given_up.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::Mutex;
    use std::time::Duration;

    use crossbeam_channel::bounded;

    /// Writes down the calls. The server `hung` never answers.
    #[derive(Default)]
    struct Noted(Mutex<Vec<String>>);

    impl Noted {
        fn note(&self, what: String) {
            self.0.lock().push(what);
        }
    }

    impl Traces for Noted {
        fn close_client(&self, session: &Arc<str>) {
            self.note(format!("close {session}"));
        }

        fn close_client_at(&self, session: &Arc<str>, server: &ServerName) {
            self.note(format!("close {session} at {server}"));
        }

        fn take_back(
            &self,
            server: &ServerName,
            uri: &str,
            _: Subscriber,
            _: &dyn Fn() -> bool,
        ) -> Result<(), CallError> {
            self.note(format!("{server} {uri}"));
            if server.as_str() == "hung" {
                std::thread::sleep(2 * ENDED_SESSION_GRACE);
                return Err(CallError::Cancelled);
            }
            Ok(())
        }

        fn forget(&self, server: &ServerName, uri: &str, _: Subscriber) {
            self.note(format!("forget {server} {uri}"));
        }

        fn sweep(&self) {}
    }

    fn ended(session: &str, subscriptions: &[(&str, &str)]) -> Ended {
        let named = |(server, uri): &(&str, &str)| {
            (ServerName::parse(server).unwrap(), (*uri).to_owned())
        };
        Ended {
            session: session.into(),
            subscriber: Subscriber::fresh(),
            subscriptions: subscriptions.iter().map(named).collect(),
            narrowed: None,
            charged: None,
            place: None,
        }
    }

    #[test]
    fn one_whose_sessions_end_in_floods_holds_up_nobody_else_s() {
        let (noted, mut work) = (Noted::default(), Work::default());
        let of = |who: &str, uris: usize| {
            let uris: Vec<String> = (0..uris).map(|n| format!("{who}:{n}")).collect();
            let subscriptions: Vec<_> = uris.iter().map(|uri| ("well", uri.as_str())).collect();
            let charged = Some(PrincipalId::Key(who.into()));
            Ended { charged, ..ended(who, &subscriptions) }
        };
        (0..50).for_each(|_| work.begin(of("hog", 1000), &noted));
        work.turn(&noted);
        work.begin(of("victim", TIDIED_SUBSCRIPTIONS_A_TURN), &noted);
        (0..2).for_each(|_| work.turn(&noted));
        let count =
            |what: &str| noted.0.lock().iter().filter(|it| it.starts_with(what)).count();
        assert_eq!(count("well victim:"), TIDIED_SUBSCRIPTIONS_A_TURN);
        assert!(count("well hog:") <= 2 * TIDIED_SUBSCRIPTIONS_A_TURN);
        while !work.turns.is_empty() {
            work.turn(&noted);
        }
        assert_eq!(count("well hog:"), 50 * 1000);
    }

    #[test]
    fn a_server_that_hangs_is_asked_once_and_holds_up_no_session() {
        let noted = Noted::default();
        let batch = [
            ended("1", &[("hung", "a:"), ("hung", "b:"), ("well", "a:")]),
            ended("2", &[("well", "b:"), ("hung", "a:")]),
        ];
        let mut work = Work::default();
        batch.into_iter().for_each(|ended| work.begin(ended, &noted));
        while !work.turns.is_empty() {
            work.turn(&noted);
        }
        let expected = [
            "close 1",
            "close 2",
            "hung a:",
            "forget hung b:",
            "well a:",
            "well b:",
            "forget hung a:",
        ];
        assert_eq!(*noted.0.lock(), expected);
    }

    #[test]
    fn those_that_end_while_a_server_hangs_are_one_batch() {
        let noted = Noted::default();
        let (tell, left) = bounded(100);
        let end = move |n: usize| tell.send(ended(&n.to_string(), &[("hung", "a:")])).unwrap();
        let count = |beginning: &str| {
            let noted = noted.0.lock();
            noted.iter().filter(|what| what.starts_with(beginning)).count()
        };
        let wait_for = |n: usize, of: &[&str]| {
            let until = Instant::now() + Duration::from_secs(20);
            while of.iter().map(|it| count(it)).sum::<usize>() < n && Instant::now() < until {
                std::thread::sleep(Duration::from_millis(5));
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(|| run(&left, &noted));
            end(0);
            // These are not due yet when the first one is.
            std::thread::sleep(ENDED_SESSION_GRACE / 2);
            end(1);
            wait_for(1, &["hung a:"]);
            (2..22).for_each(&end);
            wait_for(22, &["hung a:", "forget"]);
            drop(end);
        });
        let asked = count("hung a:");
        assert!(asked <= 3, "asked {asked} times");
        assert_eq!(asked + count("forget"), 22);
    }
}
