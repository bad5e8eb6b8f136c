//! The call that an Agent serves at present.
//!
//! A slot's [`InFlight`] holds the [`Wait`] of its call, and is set before ureq is entered. What
//! ended a wait is remembered there, because ureq can only carry an I/O error.

use std::io::{self, ErrorKind};
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use ureq::Error;
use ureq::unversioned::transport::Transport;

use crate::error::Stage;
use crate::wait::{Interrupted, Wait, Woken};

/// The call that an Agent serves at present, and how far it has come.
#[derive(Default)]
pub(crate) struct InFlight(Mutex<Watched>);

#[derive(Default)]
struct Watched {
    wait: Option<Arc<Wait>>,
    tick: Option<Duration>,
    stage: Option<Stage>,
    sent: bool,
    impatient: bool,
    /// The bell is treated as a tick, for what another thread has read for this call.
    heeds_bell: bool,
    ticked: bool,
    interrupted: Option<Interrupted>,
    /// When the connection that is being made must be there.
    connect_by: Option<Instant>,
    /// A connection whose request is sent and whose answer was not there at a tick.
    parked: Option<Box<dyn Transport>>,
}

/// A connection is being made. See [`InFlight::connecting`].
pub(crate) struct Connecting<'a>(&'a InFlight);

impl Drop for Connecting<'_> {
    fn drop(&mut self) {
        self.0.lock().connect_by = None;
    }
}

/// What stands for "look at the watch why" in ureq's errors. Its kind is one that nobody on
/// the way retries or takes for the end of a body.
pub(crate) fn paused() -> Error {
    Error::Io(io::Error::other("paused"))
}

impl InFlight {
    fn lock(&self) -> MutexGuard<'_, Watched> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From here on the Agent serves the call of `wait`; `tick` is how often a silent answer
    /// lets the caller do something else.
    pub(crate) fn begin(&self, wait: &Arc<Wait>, tick: Option<Duration>) {
        let parked = {
            let mut watched = self.lock();
            let parked = watched.parked.take();
            *watched = Watched { wait: Some(wait.clone()), tick, ..Watched::default() };
            parked
        };
        drop(parked);
    }

    /// From here on a connection is made, which must be there in `patience`; until what is given
    /// back is dropped. One that is made on the way to another has no time of its own.
    pub(crate) fn connecting(&self, patience: Duration) -> Option<Connecting<'_>> {
        let mut watched = self.lock();
        if watched.connect_by.is_some() {
            return None;
        }
        watched.connect_by = Some(Instant::now() + patience);
        Some(Connecting(self))
    }

    /// The time that is left for the connection.
    pub(crate) fn left_to_connect(&self) -> Duration {
        let by = self.lock().connect_by;
        by.map_or(Duration::ZERO, |by| by.saturating_duration_since(Instant::now()))
    }

    /// From here on the bell, too, lets the caller do something else.
    pub(crate) fn heed_bell(&self) {
        self.lock().heeds_bell = true;
    }

    /// From here on nothing is waited for: only what has already arrived is read.
    pub(crate) fn begin_impatient(&self) {
        let mut watched = self.lock();
        watched.impatient = true;
        watched.stage = Some(Stage::Read);
    }

    pub(crate) fn wait(&self) -> Option<Arc<Wait>> {
        self.lock().wait.clone()
    }

    pub(crate) fn set_stage(&self, stage: Stage) {
        self.lock().stage = Some(stage);
    }

    pub(crate) fn stage(&self) -> Stage {
        self.lock().stage.unwrap_or(Stage::Connect)
    }

    /// Whether a byte of the request has left.
    pub(crate) fn was_sent(&self) -> bool {
        self.lock().sent
    }

    /// Why the wait ended, if that is why the exchange failed.
    pub(crate) fn interrupted(&self) -> Option<Interrupted> {
        self.lock().interrupted
    }

    /// Whether the exchange stopped for a tick only and can go on.
    pub(crate) fn take_tick(&self) -> bool {
        std::mem::take(&mut self.lock().ticked)
    }

    pub(crate) fn is_impatient(&self) -> bool {
        self.lock().impatient
    }

    pub(crate) fn note_sent(&self) {
        let mut watched = self.lock();
        watched.sent |= watched.stage == Some(Stage::Send);
    }

    pub(crate) fn note_flushed(&self) {
        let mut watched = self.lock();
        if watched.stage == Some(Stage::Send) {
            watched.stage = Some(Stage::Answer);
        }
    }

    /// Waits for the bell, or until `tick` has passed.
    pub(crate) fn sleep(&self, tick: Option<Duration>) -> Result<Woken, Error> {
        let Some(wait) = self.wait() else { return Err(paused()) };
        wait.until(None, tick).map_err(|reason| self.interrupt(reason))
    }

    pub(crate) fn interrupt(&self, reason: Interrupted) -> Error {
        self.lock().interrupted = Some(reason);
        paused()
    }

    pub(crate) fn ready(&self, fd: BorrowedFd<'_>, flags: PollFlags) -> Result<(), Error> {
        let (wait, tick, heeds_bell, connect_by) = {
            let watched = self.lock();
            // Before the request is sent, nothing could take the exchange up again.
            let may_tick = matches!(watched.stage, Some(Stage::Answer | Stage::Read));
            let heeds_bell = watched.heeds_bell && may_tick;
            let tick = watched.tick.filter(|_| may_tick);
            (watched.wait.clone(), tick, heeds_bell, watched.connect_by)
        };
        let Some(wait) = wait else { return Err(paused()) };
        loop {
            let left = connect_by.map(|by| by.saturating_duration_since(Instant::now()));
            match wait.until(Some((fd, flags)), left.or(tick)) {
                Ok(Woken::Ready) => return Ok(()),
                Ok(Woken::Tick) if left.is_some() => {
                    return Err(Error::Io(ErrorKind::TimedOut.into()));
                }
                Ok(Woken::Bell) if !heeds_bell => (),
                Ok(Woken::Bell | Woken::Tick) => {
                    self.lock().ticked = true;
                    return Err(paused());
                }
                Err(reason) => return Err(self.interrupt(reason)),
            }
        }
    }

    pub(crate) fn is_ticked(&self) -> bool {
        self.lock().ticked
    }

    /// Keeps a connection whose exchange stopped for a tick; only one that waits for the head of
    /// its answer has to be kept, because ureq keeps one whose body is read.
    pub(crate) fn park(&self, connection: Box<dyn Transport>) {
        let mut watched = self.lock();
        if watched.ticked && watched.stage == Some(Stage::Answer) {
            watched.parked = Some(connection);
        }
    }

    pub(crate) fn take_parked(&self) -> Option<Box<dyn Transport>> {
        self.lock().parked.take()
    }
}
