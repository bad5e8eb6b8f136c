//! The call that an Agent serves at present.
//!
//! A slot's [`InFlight`] holds the [`Wait`] of its call, and is set before ureq is entered. What
//! ended a wait is remembered there, because ureq can only carry an I/O error.

use std::io::{self, ErrorKind};
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use ureq::Error;
use ureq::unversioned::transport::Transport;

use crate::error::Stage;
use crate::wait::{Interrupted, Wait, Woken};

/// The call that an Agent serves at present, and how far it has come.
#[derive(Default)]
pub(crate) struct InFlight {
    /// Nothing is waited for: only what has already arrived is read.
    impatient: AtomicBool,
    state: Mutex<Watched>,
}

#[derive(Default)]
struct Watched {
    wait: Option<Arc<Wait>>,
    stage: Option<Stage>,
    sent: bool,
    /// The exchange stops for a moment when the bell rings, for what another thread has read for
    /// this call.
    heeds_bell: bool,
    /// The bell rang when the exchange could not be stopped.
    missed_bell: bool,
    /// The exchange has stopped because the bell rang.
    stopped: bool,
    interrupted: Option<Interrupted>,
    /// When the connection that is being made must be there.
    connect_by: Option<Instant>,
    /// A connection whose request is sent and whose answer was not there when the bell rang.
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
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From here on the Agent serves the call of `wait`.
    pub(crate) fn begin(&self, wait: &Arc<Wait>) {
        self.enter(Watched { wait: Some(wait.clone()), ..Watched::default() });
    }

    /// [`InFlight::begin`], but the exchange stops when the bell rings, and can go on.
    pub(crate) fn begin_heeding_bell(&self, wait: &Arc<Wait>) {
        let (wait, heeds_bell) = (Some(wait.clone()), true);
        self.enter(Watched { wait, heeds_bell, ..Watched::default() });
    }

    fn enter(&self, watched: Watched) {
        self.impatient.store(false, Ordering::Relaxed);
        let before = std::mem::replace(&mut *self.lock(), watched);
        // Where no lock is held: it may close a connection.
        drop(before);
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

    /// From here on nothing is waited for: only what has already arrived is read.
    pub(crate) fn begin_impatient(&self) {
        self.impatient.store(true, Ordering::Relaxed);
        self.set_stage(Stage::Read);
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

    /// True if a byte of the request has been sent.
    pub(crate) fn was_sent(&self) -> bool {
        self.lock().sent
    }

    /// Why the wait ended, if that is why the exchange failed.
    pub(crate) fn interrupted(&self) -> Option<Interrupted> {
        self.lock().interrupted
    }

    /// Whether the exchange stopped for the bell only and can go on.
    pub(crate) fn take_bell(&self) -> bool {
        std::mem::take(&mut self.lock().stopped)
    }

    /// The bell rang while nothing could be stopped for it: it is heeded later.
    pub(crate) fn miss_bell(&self) {
        self.lock().missed_bell = true;
    }

    pub(crate) fn is_impatient(&self) -> bool {
        self.impatient.load(Ordering::Relaxed)
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

    /// Waits for the bell, or until `time` has passed.
    pub(crate) fn sleep(&self, time: Option<Duration>) -> Result<Woken, Error> {
        let Some(wait) = self.wait() else { return Err(paused()) };
        wait.until(None, time).map_err(|reason| self.interrupt(reason))
    }

    pub(crate) fn interrupt(&self, reason: Interrupted) -> Error {
        self.lock().interrupted = Some(reason);
        paused()
    }

    pub(crate) fn ready(&self, fd: BorrowedFd<'_>, flags: PollFlags) -> Result<(), Error> {
        let (wait, may_stop, connect_by) = {
            let mut watched = self.lock();
            // Before the request is sent, nothing could take the exchange up again.
            let is_sent = matches!(watched.stage, Some(Stage::Answer | Stage::Read));
            let may_stop = watched.heeds_bell && is_sent;
            if may_stop && std::mem::take(&mut watched.missed_bell) {
                watched.stopped = true;
                return Err(paused());
            }
            (watched.wait.clone(), may_stop, watched.connect_by)
        };
        let Some(wait) = wait else { return Err(paused()) };
        loop {
            let left = connect_by.map(|by| by.saturating_duration_since(Instant::now()));
            match wait.until(Some((fd, flags)), left) {
                Ok(Woken::Ready) => return Ok(()),
                Ok(Woken::Tick) => return Err(Error::Io(ErrorKind::TimedOut.into())),
                Ok(Woken::Bell) if may_stop => {
                    self.lock().stopped = true;
                    return Err(paused());
                }
                Ok(Woken::Bell) => self.miss_bell(),
                Err(reason) => return Err(self.interrupt(reason)),
            }
        }
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.lock().stopped
    }

    /// Keeps a connection whose exchange stopped for the bell; only one that waits for the head of
    /// its answer has to be kept, because ureq keeps one whose body is read.
    pub(crate) fn park(&self, connection: Box<dyn Transport>) {
        let mut watched = self.lock();
        if watched.stopped && watched.stage == Some(Stage::Answer) {
            watched.parked = Some(connection);
        }
    }

    pub(crate) fn take_parked(&self) -> Option<Box<dyn Transport>> {
        self.lock().parked.take()
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_bell_that_rings_before_the_request_is_sent_is_heeded_afterwards() {
        let (socket, _peer) = UnixStream::pair().unwrap();
        let (in_flight, wait) =
            (InFlight::default(), Wait::plain(Duration::from_millis(50)).unwrap());
        in_flight.begin_heeding_bell(&wait);
        in_flight.set_stage(Stage::Send);
        wait.bell().ring();
        assert!(
            in_flight.ready(socket.as_fd(), PollFlags::OUT).is_ok() && !in_flight.take_bell()
        );
        in_flight.set_stage(Stage::Answer);
        assert!(
            in_flight.ready(socket.as_fd(), PollFlags::IN).is_err() && in_flight.take_bell()
        );
        assert!(
            in_flight.ready(socket.as_fd(), PollFlags::IN).is_err() && !in_flight.take_bell()
        );
        assert_eq!(in_flight.interrupted(), Some(Interrupted::Deadline));
    }
}
