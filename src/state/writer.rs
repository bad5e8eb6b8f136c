//! The thread that writes to the disk, so that no other thread waits for it. It keeps only the
//! newest content of each file, so that no queue can grow; each file has its own pace
//! (`pace.rs`).

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use super::StateDir;
use super::ids::{Id, IdFile};
use super::pace::Pace;
use crate::limits::{ENDED_IDS_MAX, STATE_LAST_WRITES_TIMEOUT, STATE_RETRY_INTERVAL};
use crate::sync::Mutex;
use crate::telemetry::counters::state_writes;
use crate::thread;

/// The beginning of the names of files with lists.
pub const LISTS: &str = "catalogue.";

/// The writes that wait.
#[derive(Debug, Default)]
struct Pending {
    files: BTreeMap<String, Waiting>,
    ids: Vec<Id>,
    /// Waits for those ids. Each is told, by a message or by being dropped, when they are on the
    /// disk.
    waiting: Vec<Sender<()>>,
}

/// A file that waits to be written.
#[derive(Debug)]
struct Waiting {
    /// The whole file; none for a file that is to be removed.
    file: Option<Vec<u8>>,
    /// Files that are superfluous once this one is on the disk.
    then_remove: Vec<String>,
    /// The time since when the file on the disk is outdated.
    since: Instant,
}

impl Pending {
    fn put(&mut self, name: &str, file: Option<Vec<u8>>, then_remove: Vec<String>) {
        match self.files.get_mut(name) {
            Some(waiting) => {
                waiting.file = file;
                waiting.then_remove.extend(then_remove);
            }
            None => {
                let waiting = Waiting { file, then_remove, since: Instant::now() };
                self.files.insert(name.to_owned(), waiting);
            }
        }
    }

    /// Takes back a file that was not written, unless there is a newer one.
    fn put_back(&mut self, name: String, old: Waiting) {
        match self.files.get_mut(&name) {
            Some(newer) => newer.then_remove.extend(old.then_remove),
            None => {
                self.files.insert(name, old);
            }
        }
    }
}

/// A handle of the writing thread. The thread ends, after the writes that it was given, when the
/// last handle is gone.
#[derive(Debug, Clone)]
pub struct Writer {
    pending: Arc<Mutex<Pending>>,
    wake: Sender<()>,
}

/// A signal that an id is on the disk.
#[derive(Debug)]
pub struct Written(Receiver<()>);

impl Written {
    /// Waits until the id is written, or cannot be, `limit` at most.
    pub fn wait(&self, limit: Duration) {
        self.0.recv_timeout(limit).ok();
    }
}

/// Starts the thread.
///
/// # Errors
/// The system refuses the thread.
pub fn start(directory: Arc<StateDir>) -> io::Result<(Writer, thread::Joined)> {
    let (wake, woken) = bounded(1);
    let pending = Arc::<Mutex<Pending>>::default();
    let writing = Writing {
        directory,
        pending: pending.clone(),
        ids: IdFile::default(),
        unwritten: Vec::new(),
        ids_refused: None,
        paces: HashMap::new(),
    };
    let joined = thread::spawn("state", move || writing.run(&woken))?;
    Ok((Writer { pending, wake }, joined))
}

impl Writer {
    /// Queues a file's new content, in place of content that still waits.
    pub fn replace(&self, name: &str, file: Vec<u8>) {
        self.replace_then_remove(name, file, Vec::new());
    }

    /// As [`Writer::replace`]; the files `then_remove` are removed after it.
    pub fn replace_then_remove(&self, name: &str, file: Vec<u8>, then_remove: Vec<String>) {
        self.pending.lock().put(name, Some(file), then_remove);
        self.wake.try_send(()).ok();
    }

    /// Queues the removal of a file.
    pub fn remove(&self, name: &str) {
        self.pending.lock().put(name, None, Vec::new());
        self.wake.try_send(()).ok();
    }

    /// Queues an id, which is written at once.
    pub fn keep(&self, id: Id) -> Written {
        let (written, hears) = bounded(1);
        {
            let mut pending = self.pending.lock();
            if pending.ids.len() < ENDED_IDS_MAX {
                pending.ids.push(id);
                pending.waiting.push(written);
            }
        }
        self.wake.try_send(()).ok();
        Written(hears)
    }
}

struct Writing {
    directory: Arc<StateDir>,
    pending: Arc<Mutex<Pending>>,
    ids: IdFile,
    /// Ids that the disk refused.
    unwritten: Vec<Id>,
    /// The time of that refusal.
    ids_refused: Option<Instant>,
    /// The paces of files that were written, or refused, not long ago.
    paces: HashMap<String, Pace>,
}

impl Writing {
    fn run(mut self, woken: &Receiver<()>) {
        loop {
            let woken = match self.next_due() {
                Some(due) => woken.recv_deadline(due),
                None => woken.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            let is_over = woken == Err(RecvTimeoutError::Disconnected);
            self.write_ids(is_over);
            if is_over {
                return self.write_last(Instant::now() + STATE_LAST_WRITES_TIMEOUT);
            }
            for name in self.due(Instant::now(), is_over) {
                self.write_file(name);
                // A session's end waits for ids, and a large file takes its time.
                self.write_ids(false);
            }
        }
    }

    /// Writes all waiting files at the end, as long as there is time: servers may be thousands,
    /// and each file is synced. Lists come last, since they are read again anyway.
    fn write_last(&mut self, until: Instant) {
        let (lists, others): (Vec<String>, Vec<String>) =
            self.due(Instant::now(), true).into_iter().partition(|it| it.starts_with(LISTS));
        let n = others.len() + lists.len();
        for (n_written, name) in others.into_iter().chain(lists).enumerate() {
            if Instant::now() >= until {
                let n_left = n - n_written;
                log::warn!(target: "state", "{n_left} files are left as they were, because \
                    writing them would hold up the end");
                return;
            }
            self.write_file(name);
        }
    }

    fn next_due(&self) -> Option<Instant> {
        let files = {
            let pending = self.pending.lock();
            let due =
                |(name, file): (&String, &Waiting)| Pace::due(self.paces.get(name), file.since);
            pending.files.iter().map(due).min()
        };
        files.into_iter().chain(self.ids_due()).min()
    }

    fn ids_due(&self) -> Option<Instant> {
        self.ids_refused.map(|at| at + STATE_RETRY_INTERVAL)
    }

    /// The files that are due; at the end all of them.
    fn due(&self, now: Instant, is_over: bool) -> Vec<String> {
        let pending = self.pending.lock();
        let is_due = |name: &str, file: &Waiting| {
            is_over || Pace::due(self.paces.get(name), file.since) <= now
        };
        let due = pending.files.iter().filter(|(name, file)| is_due(name, file));
        due.map(|(name, _)| name.clone()).collect()
    }

    fn write_ids(&mut self, is_over: bool) {
        let (new, waiting) = {
            let mut pending = self.pending.lock();
            (std::mem::take(&mut pending.ids), std::mem::take(&mut pending.waiting))
        };
        // A disk that refused is tried again with the next id, and when it is due.
        let is_due = is_over || self.ids_due().is_some_and(|due| due <= Instant::now());
        if new.is_empty() && !is_due {
            return;
        }
        self.unwritten.extend(new);
        let n_over = self.unwritten.len().saturating_sub(ENDED_IDS_MAX);
        self.unwritten.drain(..n_over);
        if self.unwritten.is_empty() {
            return;
        }
        let result = self.ids.append(&self.directory, &self.unwritten);
        if result.is_ok() {
            self.unwritten.clear();
        }
        tell("ended-sessions", &result, self.ids_refused.is_some());
        self.ids_refused = result.is_err().then(Instant::now);
        drop(waiting);
    }

    fn write_file(&mut self, name: String) {
        let Some(waiting) = self.pending.lock().files.remove(&name) else { return };
        let result = match &waiting.file {
            Some(file) => self.directory.replace(&name, file),
            None => self.directory.remove(&name),
        };
        let known = self.paces.get(&name);
        tell(&name, &result, known.is_some_and(Pace::is_failing));
        let now = Instant::now();
        let pace = match &result {
            Ok(()) => Pace::after_write(known, now),
            Err(_) => Pace::after_refusal(known, now),
        };
        self.paces.retain(|_, pace| !pace.is_over(now));
        self.paces.insert(name.clone(), pace);
        if result.is_err() {
            return self.pending.lock().put_back(name, waiting);
        }
        for name in waiting.then_remove {
            if let Err(error) = self.directory.remove(&name) {
                log::warn!(target: "state", "{name} cannot be removed: {error}");
            }
        }
    }
}

/// Logs once that a file cannot be written, and once that it can again.
fn tell(name: &str, result: &io::Result<()>, was_failing: bool) {
    if result.is_err() {
        state_writes::count_failed();
    }
    match result {
        Err(error) if !was_failing => log::warn!(
            target: "state",
            "{name} cannot be written, and is tried again every {} s: {error}",
            STATE_RETRY_INTERVAL.as_secs()
        ),
        Ok(()) if was_failing => log::info!(target: "state", "{name} is written again"),
        Ok(()) | Err(_) => (),
    }
}
