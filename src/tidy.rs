//! Removes what sessions have left at upstreams at their end, or where they may see a server no
//! more: a client's own sessions, and subscriptions.

use std::collections::{HashSet, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::{Receiver, RecvTimeoutError};

use crate::error::CallError;
use crate::limits::{ENDED_SESSION_GRACE, ENDED_SESSIONS_QUEUE_MAX, SESSION_SWEEP_INTERVAL};
use crate::pipeline::Pipeline;
use crate::protocol::server_name::ServerName;
use crate::protocol::subscriber::Subscriber;
use crate::session::Ended;
use crate::thread::{self, Joined};

/// Where the traces are.
trait Traces {
    /// Ends a client's own sessions, some time soon. Does not wait.
    fn close_client(&self, session: &Arc<str>);
    /// Like that, at one server only.
    fn close_client_at(&self, session: &Arc<str>, server: &ServerName);
    /// Takes a subscription back, within `CONTROL_TIMEOUT`, unless it is wanted again when
    /// its turn comes; forgets it in any case.
    fn take_back(
        &self,
        server: &ServerName,
        uri: &str,
        subscriber: Subscriber,
        is_wanted: &dyn Fn() -> bool,
    ) -> Result<(), CallError>;
    /// Forgets a subscription. Does not wait.
    fn forget(&self, server: &ServerName, uri: &str, subscriber: Subscriber);
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
}

/// Starts the thread. It ends with whoever tells of ended sessions.
///
/// # Errors
/// The system refuses a thread.
pub fn start(left: Receiver<Ended>, pipeline: Arc<Pipeline>) -> io::Result<Joined> {
    thread::spawn("tidy", move || run(&left, &*pipeline))
}

/// A little later each: what their end has made to be said goes out first.
fn run(left: &Receiver<Ended>, traces: &dyn Traces) {
    let mut waiting: VecDeque<(Instant, Ended)> = VecDeque::new();
    loop {
        let now = Instant::now();
        let due = waiting.front().map(|(at, _)| at.saturating_duration_since(now));
        let first = match left.recv_timeout(due.unwrap_or(SESSION_SWEEP_INTERVAL)) {
            Ok(ended) => Some(ended),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        // All that have come, so that those which wait together are one batch.
        let room = ENDED_SESSIONS_QUEUE_MAX.saturating_sub(waiting.len());
        let at = Instant::now() + ENDED_SESSION_GRACE;
        waiting.extend(first.into_iter().chain(left.try_iter().take(room)).map(|it| (at, it)));
        let mut batch = Vec::new();
        while let Some((at, _)) = waiting.front()
            && (*at <= Instant::now() || waiting.len() > ENDED_SESSIONS_QUEUE_MAX)
            && let Some((_, ended)) = waiting.pop_front()
        {
            batch.push(ended);
        }
        remove_traces(&batch, traces);
    }
}

/// What waits for nobody comes first. A server that does not answer is not asked again in this
/// batch, so that it holds up the others once and not once a subscription.
fn remove_traces(batch: &[Ended], traces: &dyn Traces) {
    for ended in batch {
        match &ended.narrowed {
            None => traces.close_client(&ended.session),
            Some(narrowed) => narrowed
                .servers()
                .for_each(|server| traces.close_client_at(&ended.session, server)),
        }
    }
    let mut given_up = HashSet::new();
    for ended in batch {
        for (server, uri) in &ended.subscriptions {
            let is_wanted = || ended.is_wanted(server, uri);
            if given_up.contains(server) {
                if !is_wanted() {
                    traces.forget(server, uri, ended.subscriber);
                }
            } else if let Err(error) =
                traces.take_back(server, uri, ended.subscriber, &is_wanted)
            {
                log::debug!(target: "sessions", "subscriptions could not be taken back: {error}");
                given_up.insert(server.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;
    use std::time::Duration;

    use crossbeam_channel::bounded;

    /// Writes down what it is told to do. The server `hung` never answers.
    #[derive(Default)]
    struct Noted(Mutex<Vec<String>>);

    impl Noted {
        fn note(&self, what: String) {
            self.0.lock().unwrap().push(what);
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
        }
    }

    #[test]
    fn a_server_that_hangs_is_asked_once_and_holds_up_no_session() {
        let noted = Noted::default();
        let batch = [
            ended("1", &[("hung", "a:"), ("hung", "b:"), ("well", "a:")]),
            ended("2", &[("well", "b:"), ("hung", "a:")]),
        ];
        remove_traces(&batch, &noted);
        let expected = [
            "close 1",
            "close 2",
            "hung a:",
            "forget hung b:",
            "well a:",
            "well b:",
            "forget hung a:",
        ];
        assert_eq!(*noted.0.lock().unwrap(), expected);
    }

    #[test]
    fn those_that_end_while_a_server_hangs_are_one_batch() {
        let noted = Noted::default();
        let (tell, left) = bounded(100);
        let end = move |n: usize| tell.send(ended(&n.to_string(), &[("hung", "a:")])).unwrap();
        let count = |beginning: &str| {
            let noted = noted.0.lock().unwrap();
            noted.iter().filter(|what| what.starts_with(beginning)).count()
        };
        let wait_for = |n: usize, beginning: &str| {
            let until = Instant::now() + Duration::from_secs(20);
            while count(beginning) < n && Instant::now() < until {
                std::thread::sleep(Duration::from_millis(5));
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(|| run(&left, &noted));
            end(0);
            // Not due yet when the first one is.
            std::thread::sleep(ENDED_SESSION_GRACE / 2);
            end(1);
            wait_for(1, "hung a:");
            (2..22).for_each(&end);
            wait_for(22, "close");
            drop(end);
        });
        let asked = count("hung a:");
        assert!(asked <= 3, "asked {asked} times");
        assert_eq!(asked + count("forget"), 22);
    }
}
