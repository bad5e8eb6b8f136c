//! The threads `oauth-N`, which ask authorization servers: started on demand, few for one server, so
//! that one authorization server which does not answer holds up nobody else's sign-in or renewal.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::limits::{
    OAUTH_JOB_TIME, OAUTH_JOBS_OF_SERVER_MAX, OAUTH_JOBS_WAITING_MAX,
    OAUTH_JOBS_WAITING_OF_SERVER_MAX, OAUTH_RENEWALS_MAX, OAUTH_SIGN_INS_OF_SERVER_MAX,
    OAUTH_THREAD_IDLE, OAUTH_THREADS_MAX,
};
use crate::protocol::server_name::ServerName;
use crate::sync::{Condvar, Mutex};
use crate::thread::{Joined, spawn};
use crate::upstream::http_client::fetcher::within_time;

/// A question to an authorization server, with all that comes of its answer.
pub(super) type Job = Box<dyn FnOnce() + Send>;

/// The reason why a job is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A browser has come back with a code, which is good for a short time only: these jobs are done
    /// first, and not behind those of others who sign in at the same server.
    Code,
    /// A person waits for it: the page of a sign-in, a sign-out.
    Person,
    /// A token is to be had, for calls or for later.
    Token,
}

/// The threads and the jobs that wait for them.
pub(super) struct Workers {
    queue: Arc<Queue>,
    threads: Mutex<Vec<(usize, Joined)>>,
}

#[derive(Default)]
struct Queue {
    jobs: Mutex<Jobs>,
    news: Condvar,
}

/// A job's server and purpose: what its turn depends on.
type Lane = (ServerName, Purpose);

#[derive(Default)]
struct Jobs {
    /// The oldest first.
    waiting: VecDeque<(Lane, Job)>,
    running: Vec<Lane>,
    n_threads: usize,
    n_idle: usize,
    is_ended: bool,
}

impl Purpose {
    /// The jobs of one server that may run at once.
    fn most_at_once(self) -> usize {
        match self {
            Self::Code | Self::Token => OAUTH_JOBS_OF_SERVER_MAX,
            Self::Person => OAUTH_SIGN_INS_OF_SERVER_MAX,
        }
    }
}

/// True if a job of this lane may run beside those that do.
fn may_run(lane: &Lane, running: &[Lane]) -> bool {
    let is_token = |it: &Lane| it.1 == Purpose::Token;
    let n_of_lane = running.iter().filter(|it| *it == lane).count();
    let has_room = !is_token(lane)
        || running.iter().filter(|it| is_token(it)).count() < OAUTH_RENEWALS_MAX;
    let has_turn = n_of_lane == 0
        || (n_of_lane < lane.1.most_at_once() && running.len() < OAUTH_THREADS_MAX / 2);
    has_room && has_turn && running.len() < OAUTH_THREADS_MAX
}

impl Jobs {
    /// True if one more may wait.
    fn has_room(&self, lane: &Lane) -> bool {
        let n_of_lane = self.waiting.iter().filter(|(it, _)| it == lane).count();
        !self.is_ended
            && self.waiting.len() < OAUTH_JOBS_WAITING_MAX
            && n_of_lane < OAUTH_JOBS_WAITING_OF_SERVER_MAX
    }

    /// The jobs for which there should be a thread now.
    fn n_ready(&self) -> usize {
        let mut running = self.running.clone();
        for (lane, _) in &self.waiting {
            if may_run(lane, &running) {
                running.push(lane.clone());
            }
        }
        running.len() - self.running.len()
    }

    /// Takes out the next job: codes first, then those of people, and then the oldest whose server has no more
    /// than its part.
    fn next(&mut self) -> Option<(Lane, Job)> {
        let of = |purpose: Purpose| {
            let mut waiting = self.waiting.iter();
            waiting.position(|(lane, _)| lane.1 == purpose && may_run(lane, &self.running))
        };
        let at =
            of(Purpose::Code).or_else(|| of(Purpose::Person)).or_else(|| of(Purpose::Token))?;
        let (lane, job) = self.waiting.remove(at)?;
        self.running.push(lane.clone());
        Some((lane, job))
    }

    fn ended(&mut self, lane: &Lane) {
        if let Some(at) = self.running.iter().position(|it| it == lane) {
            self.running.swap_remove(at);
        }
    }
}

impl Workers {
    pub(super) fn new() -> Workers {
        Workers { queue: Arc::default(), threads: Mutex::default() }
    }

    /// Has a job done some time soon. False if too many wait, there is no thread, or all is ending;
    /// then the job is dropped.
    pub(super) fn submit(&self, server: &ServerName, purpose: Purpose, job: Job) -> bool {
        let lane = (server.clone(), purpose);
        let refused = {
            // Always locked before the jobs: whoever starts a thread has counted it by then.
            let mut threads = self.threads.lock();
            let mut jobs = self.queue.jobs.lock();
            if !jobs.has_room(&lane) {
                return false;
            }
            jobs.waiting.push_back((lane, job));
            if jobs.n_ready() > jobs.n_idle && jobs.n_threads < OAUTH_THREADS_MAX {
                threads.retain(|(_, thread)| !thread.is_finished());
                if let Some((name, thread)) = self.start(&threads) {
                    threads.push((name, thread));
                    jobs.n_threads += 1;
                    // It counts as idle until it takes a job.
                    jobs.n_idle += 1;
                }
            }
            // Without another thread the job waits for those there are.
            if jobs.n_threads == 0 { jobs.waiting.pop_back() } else { None }
        };
        self.queue.news.notify_one();
        refused.is_none()
    }

    /// Starts a thread under a number that no other one has.
    fn start(&self, threads: &[(usize, Joined)]) -> Option<(usize, Joined)> {
        let mut numbers = 0..=OAUTH_THREADS_MAX;
        let number = numbers.find(|n| threads.iter().all(|(taken, _)| taken != n))?;
        let queue = self.queue.clone();
        Some((number, spawn(&format!("oauth-{number}"), move || run(&queue)).ok()?))
    }

    /// Ends the threads, once nothing that they wait for goes on; a job that waits is dropped.
    pub(super) fn stop(&self) {
        let waiting = {
            let mut jobs = self.queue.jobs.lock();
            jobs.is_ended = true;
            std::mem::take(&mut jobs.waiting)
        };
        self.queue.news.notify_all();
        drop(waiting);
        let threads = std::mem::take(&mut *self.threads.lock());
        drop(threads);
    }
}

/// The life of one thread: it ends when there was nothing to do for a while.
fn run(queue: &Queue) {
    let mut jobs = queue.jobs.lock();
    let mut is_idle_for_long = false;
    loop {
        if let Some((lane, job)) = jobs.next() {
            jobs.n_idle -= 1;
            drop(jobs);
            // The hook has told of a panic, and the job's own guards have told those who wait.
            drop(catch_unwind(AssertUnwindSafe(|| within_time(OAUTH_JOB_TIME, job))));
            jobs = queue.jobs.lock();
            jobs.ended(&lane);
            jobs.n_idle += 1;
            is_idle_for_long = false;
            continue;
        }
        if jobs.is_ended || is_idle_for_long {
            jobs.n_idle -= 1;
            jobs.n_threads -= 1;
            return;
        }
        (jobs, is_idle_for_long) = queue.news.wait_timeout(jobs, OAUTH_THREAD_IDLE);
    }
}

#[cfg(test)]
mod tests {
    use crossbeam_channel::{Receiver, Sender, bounded};
    use std::time::Duration;

    use super::*;

    const SOON: Duration = Duration::from_secs(5);

    fn server(name: &str) -> ServerName {
        ServerName::parse(name).unwrap()
    }

    /// A job that tells that it has begun, and lasts until it is told to end.
    fn lasting(workers: &Workers, name: &str, purpose: Purpose) -> (Receiver<()>, Sender<()>) {
        let ((tell, began), (end, ended)) = (bounded(1), bounded(1));
        assert!(workers.submit(
            &server(name),
            purpose,
            Box::new(move || {
                tell.send(()).ok();
                ended.recv().ok();
            })
        ));
        (began, end)
    }

    #[test]
    fn jobs_are_done_in_their_order_also_after_one_that_panicked() {
        let workers = Workers::new();
        let (tell, told) = bounded(32);
        let own = server("s");
        assert!(workers.submit(&own, Purpose::Person, Box::new(|| panic!("on purpose"))));
        for n in 0..20 {
            let tell = tell.clone();
            let job = Box::new(move || {
                let name = std::thread::current().name().unwrap_or_default().to_owned();
                tell.send((n, name)).unwrap();
            });
            assert!(workers.submit(&own, Purpose::Person, job));
        }
        for n in 0..20 {
            let (done, name) = told.recv_timeout(SOON).unwrap();
            assert_eq!(done, n);
            assert!(name.starts_with("oauth-"), "{name}");
        }
        workers.stop();
        assert!(!workers.submit(&own, Purpose::Token, Box::new(|| ())));
    }

    #[test]
    fn servers_that_hang_hold_up_nobody_else_and_people_are_served_beside_their_renewals() {
        let workers = Workers::new();
        let mut hanging = Vec::new();
        for n in 0..OAUTH_RENEWALS_MAX - 1 {
            let name = format!("hangs-{n}");
            let (began, end) = lasting(&workers, &name, Purpose::Token);
            began.recv_timeout(SOON).unwrap();
            hanging.push((name, end));
        }
        let behind: Vec<_> =
            hanging.iter().map(|(name, _)| lasting(&workers, name, Purpose::Token)).collect();
        let (good, _end) = lasting(&workers, "good", Purpose::Token);
        good.recv_timeout(SOON).expect("another server's renewal is done");
        for (began, _) in &behind {
            assert!(began.try_recv().is_err(), "one renewal of a server where many hang");
        }
        let (late, _end_late) = lasting(&workers, "late", Purpose::Token);
        let (person, _end_person) = lasting(&workers, "hangs-0", Purpose::Person);
        person.recv_timeout(SOON).expect("a person is served beside all renewals");
        assert!(late.try_recv().is_err(), "the threads of people are theirs alone");
        let (code, _end_code) = lasting(&workers, "hangs-0", Purpose::Code);
        code.recv_timeout(SOON).expect("a code is served beside people of the same server");
        drop((hanging, behind));
        late.recv_timeout(SOON).expect("one that waited is done when there is room");
        drop((_end, _end_late, _end_person, _end_code));
        workers.stop();
    }

    #[test]
    fn a_person_comes_before_tokens_and_too_many_that_wait_are_refused() {
        let lane = |name: &str, purpose| (server(name), purpose);
        let mut jobs = Jobs::default();
        let job = || -> Job { Box::new(|| ()) };
        for _ in 0..OAUTH_JOBS_WAITING_OF_SERVER_MAX {
            let lane = lane("s", Purpose::Token);
            assert!(jobs.has_room(&lane));
            jobs.waiting.push_back((lane, job()));
        }
        assert!(!jobs.has_room(&lane("s", Purpose::Token)));
        assert!(jobs.has_room(&lane("s", Purpose::Person)));
        assert!(jobs.has_room(&lane("t", Purpose::Token)));
        for purpose in [Purpose::Person, Purpose::Person, Purpose::Code] {
            jobs.waiting.push_back((lane("s", purpose), job()));
        }
        assert_eq!(jobs.n_ready(), 2 + OAUTH_JOBS_OF_SERVER_MAX);
        assert_eq!(jobs.next().unwrap().0, lane("s", Purpose::Code));
        assert_eq!(jobs.next().unwrap().0, lane("s", Purpose::Person));
        for _ in 0..OAUTH_JOBS_OF_SERVER_MAX {
            assert_eq!(jobs.next().unwrap().0, lane("s", Purpose::Token));
        }
        assert!(jobs.next().is_none(), "the server has its part");
        jobs.ended(&lane("s", Purpose::Token));
        assert!(jobs.next().is_some());
    }
}
