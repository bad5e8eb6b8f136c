//! The thread that writes: nobody else waits for the disk. What it has to write is kept by file,
//! the newest only, so that no queue can grow.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use super::StateDir;
use super::ids::{Id, IdFile};
use crate::limits::{ENDED_IDS_MAX, STATE_RETRY_INTERVAL, STATE_WRITE_DELAY};
use crate::thread;

/// What waits to be written.
#[derive(Debug, Default)]
struct Pending {
    /// Whole files by name; nothing for one that is to go.
    files: BTreeMap<String, Option<Vec<u8>>>,
    ids: Vec<Id>,
    /// Who waits for those ids. Told when they are on the disk, or by being let go of.
    waiting: Vec<Sender<()>>,
}

/// The way to have something written. The thread ends, after what it was given, when the last of
/// these is gone.
#[derive(Debug, Clone)]
pub struct Writer {
    pending: Arc<Mutex<Pending>>,
    wake: Sender<()>,
}

/// When something is on the disk.
#[derive(Debug)]
pub struct Written(Receiver<()>);

impl Written {
    /// Waits until it is written, or cannot be, `limit` at most.
    pub fn wait(&self, limit: Duration) {
        self.0.recv_timeout(limit).ok();
    }
}

/// Starts the thread.
///
/// # Errors
/// The system refuses it.
pub fn start(directory: Arc<StateDir>) -> io::Result<(Writer, thread::Joined)> {
    let (wake, woken) = bounded(1);
    let pending = Arc::<Mutex<Pending>>::default();
    let writing = Writing {
        directory,
        pending: pending.clone(),
        ids: IdFile::default(),
        unwritten: Vec::new(),
        is_failing: false,
    };
    let joined = thread::spawn("state", move || writing.run(&woken))?;
    Ok((Writer { pending, wake }, joined))
}

impl Writer {
    /// Has a file written soon, in place of what it was to hold before.
    pub fn replace(&self, name: &str, file: Vec<u8>) {
        locked(&self.pending).files.insert(name.to_owned(), Some(file));
        self.wake.try_send(()).ok();
    }

    /// Has a file removed soon.
    pub fn remove(&self, name: &str) {
        locked(&self.pending).files.insert(name.to_owned(), None);
        self.wake.try_send(()).ok();
    }

    /// Has an id kept at once.
    pub fn keep(&self, id: Id) -> Written {
        let (written, hears) = bounded(1);
        {
            let mut pending = locked(&self.pending);
            if pending.ids.len() < ENDED_IDS_MAX {
                pending.ids.push(id);
                pending.waiting.push(written);
            }
        }
        self.wake.try_send(()).ok();
        Written(hears)
    }
}

fn locked(pending: &Mutex<Pending>) -> MutexGuard<'_, Pending> {
    // Nothing between two changes can panic, so a poisoned value is whole.
    pending.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Writing {
    directory: Arc<StateDir>,
    pending: Arc<Mutex<Pending>>,
    ids: IdFile,
    /// Ids that the disk refused.
    unwritten: Vec<Id>,
    /// The disk refused the last time; said once.
    is_failing: bool,
}

impl Writing {
    fn run(mut self, woken: &Receiver<()>) {
        let mut due: Option<Instant> = None;
        loop {
            let woken = match due {
                Some(due) => woken.recv_deadline(due),
                None => woken.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            let is_over = woken == Err(RecvTimeoutError::Disconnected);
            let ids_written = self.write_ids();
            let now = Instant::now();
            let is_due = due.is_some_and(|due| due <= now);
            if !is_over && !is_due {
                // Several changes in a row become one file.
                let waits = !ids_written || !locked(&self.pending).files.is_empty();
                if waits && due.is_none() {
                    due = Some(
                        now + if ids_written {
                            STATE_WRITE_DELAY
                        } else {
                            STATE_RETRY_INTERVAL
                        },
                    );
                }
                continue;
            }
            let written = self.write_files() && ids_written;
            if is_over {
                return;
            }
            due = (!written).then(|| Instant::now() + STATE_RETRY_INTERVAL);
        }
    }

    fn write_ids(&mut self) -> bool {
        let (new, waiting) = {
            let mut pending = locked(&self.pending);
            (std::mem::take(&mut pending.ids), std::mem::take(&mut pending.waiting))
        };
        // A disk that refused is tried again with the next one, and when it is due.
        self.unwritten.extend(new);
        let n_over = self.unwritten.len().saturating_sub(ENDED_IDS_MAX);
        self.unwritten.drain(..n_over);
        if self.unwritten.is_empty() {
            return true;
        }
        let result = self.ids.append(&self.directory, &self.unwritten);
        let written = self.tell("ended-sessions", result);
        if written {
            self.unwritten.clear();
        }
        drop(waiting);
        written
    }

    /// False where one could not be written; it is kept unless there is a newer one.
    fn write_files(&mut self) -> bool {
        let files = std::mem::take(&mut locked(&self.pending).files);
        let mut all = true;
        for (name, file) in files {
            let result = match &file {
                Some(file) => self.directory.replace(&name, file),
                None => self.directory.remove(&name),
            };
            if !self.tell(&name, result) {
                all = false;
                locked(&self.pending).files.entry(name).or_insert(file);
            }
        }
        all
    }

    fn tell(&mut self, name: &str, result: io::Result<()>) -> bool {
        let is_failing = result.is_err();
        match result {
            Err(error) if !self.is_failing => log::warn!(
                target: "state",
                "{name} cannot be written, and is tried again every {} s: {error}",
                STATE_RETRY_INTERVAL.as_secs()
            ),
            Ok(()) if self.is_failing => {
                log::info!(target: "state", "{name} is written again");
            }
            Ok(()) | Err(_) => (),
        }
        self.is_failing = is_failing;
        !is_failing
    }
}
