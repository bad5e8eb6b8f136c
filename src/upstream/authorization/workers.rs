//! The threads `oauth-N`, which ask authorization servers: few, started on demand, with a bounded
//! queue.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::limits::{OAUTH_QUEUE_MAX, OAUTH_THREADS_MAX};
use crate::sync::Mutex;
use crate::thread::{Joined, spawn};

/// A question to an authorization server, with all that comes of its answer.
pub(super) type Job = Box<dyn FnOnce() + Send>;

/// The threads and their queue.
pub(super) struct Workers {
    queue: Mutex<Option<Sender<Job>>>,
    jobs: Receiver<Job>,
    threads: Mutex<Vec<Joined>>,
    busy: Arc<AtomicUsize>,
}

impl Workers {
    pub(super) fn new() -> Workers {
        let (queue, jobs) = bounded(OAUTH_QUEUE_MAX);
        Workers {
            queue: Mutex::new(Some(queue)),
            jobs,
            threads: Mutex::default(),
            busy: Arc::default(),
        }
    }

    /// Has a job done some time soon. False if there are too many, or all is ending; then the job
    /// is dropped.
    pub(super) fn submit(&self, job: Job) -> bool {
        let Some(queue) = self.queue.lock().clone() else { return false };
        if queue.try_send(job).is_err() {
            return false;
        }
        drop(queue);
        let mut threads = self.threads.lock();
        let idle = threads.len().saturating_sub(self.busy.load(Ordering::Acquire));
        if threads.is_empty() || self.jobs.len() > idle && threads.len() < OAUTH_THREADS_MAX {
            let (jobs, busy) = (self.jobs.clone(), self.busy.clone());
            let thread = spawn(&format!("oauth-{}", threads.len()), move || run(&jobs, &busy));
            // Without another thread the job waits for those there are.
            threads.extend(thread.ok());
        }
        !threads.is_empty()
    }

    /// Ends the threads, once nothing that they wait for goes on; what is queued is done by none.
    pub(super) fn stop(&self) {
        drop(self.queue.lock().take());
        while self.jobs.try_recv().is_ok() {}
        let threads = std::mem::take(&mut *self.threads.lock());
        drop(threads);
    }
}

fn run(jobs: &Receiver<Job>, busy: &AtomicUsize) {
    while let Ok(job) = jobs.recv() {
        busy.fetch_add(1, Ordering::AcqRel);
        // The hook has told of a panic, and the job's own guards have told those who wait.
        drop(catch_unwind(AssertUnwindSafe(job)));
        busy.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn jobs_are_done_by_few_threads_also_after_one_that_panicked() {
        let workers = Workers::new();
        let (tell, told) = bounded(64);
        assert!(workers.submit(Box::new(|| panic!("on purpose"))));
        for n in 0..20 {
            let tell = tell.clone();
            assert!(workers.submit(Box::new(move || {
                let name = std::thread::current().name().unwrap_or_default().to_owned();
                tell.send((n, name)).unwrap();
            })));
        }
        let mut done: Vec<_> =
            (0..20).map(|_| told.recv_timeout(Duration::from_secs(5)).unwrap()).collect();
        assert!(done.iter().all(|(_, name)| name.starts_with("oauth-")));
        done.sort();
        assert_eq!(
            done.iter().map(|(n, _)| *n).collect::<Vec<_>>(),
            (0..20).collect::<Vec<_>>()
        );
        workers.stop();
        assert!(!workers.submit(Box::new(|| ())));
    }
}
