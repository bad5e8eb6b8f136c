//! Named threads, joined on drop, and the reasons to stop: the end of an owner thread, and
//! signals.

use std::io;
use std::thread::JoinHandle;

use crossbeam_channel::Sender;

/// The reason why the program ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopReason {
    /// SIGTERM or SIGINT.
    Signal,
    /// The one client on standard input has sent its last line.
    InputEnded,
    /// SIGUSR2: another process is to replace this one.
    Upgrade,
    /// The thread of this name, which owns state the program cannot do without, has ended.
    OwnerEnded(&'static str),
}

/// A running thread. Dropping it waits for the thread's end, so the caller must drop or send
/// before that what ends the thread.
#[derive(Debug)]
pub struct Joined(Option<JoinHandle<()>>);

impl Joined {
    /// True if the thread has ended.
    pub fn is_finished(&self) -> bool {
        self.0.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Lets the thread go on by itself. Only where waiting for it could block a stop.
    pub fn detach(mut self) {
        self.0.take();
    }
}

impl Drop for Joined {
    fn drop(&mut self) {
        if let Some(handle) = self.0.take()
            && handle.thread().id() != std::thread::current().id()
        {
            // A panic was already reported by the thread's own hook.
            drop(handle.join());
        }
    }
}

/// Starts a thread with a name of at most 15 bytes (what Linux keeps) and the given stack.
///
/// # Errors
/// The system refuses another thread.
pub fn spawn_sized(
    name: &str,
    stack_bytes: usize,
    body: impl FnOnce() + Send + 'static,
) -> io::Result<Joined> {
    debug_assert!(name.len() <= 15, "thread name {name:?} is longer than 15 bytes");
    let builder = std::thread::Builder::new().name(name.to_owned()).stack_size(stack_bytes);
    builder.spawn(body).map(|handle| Joined(Some(handle)))
}

/// [`spawn_sized`] with the usual stack.
///
/// # Errors
/// The system refuses another thread.
pub fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<Joined> {
    spawn_sized(name, crate::limits::THREAD_STACK_BYTES, body)
}

/// Starts a thread that owns state the program cannot do without. If it ends, by return or panic,
/// `stop` is told.
///
/// # Errors
/// The system refuses another thread.
pub fn spawn_owner(
    name: &'static str,
    stop: Sender<StopReason>,
    body: impl FnOnce() + Send + 'static,
) -> io::Result<Joined> {
    spawn(name, move || {
        let _tell = TellOnDrop { name, stop };
        body();
    })
}

struct TellOnDrop {
    name: &'static str,
    stop: Sender<StopReason>,
}

impl Drop for TellOnDrop {
    fn drop(&mut self) {
        // A full queue already holds a reason to stop.
        self.stop.try_send(StopReason::OwnerEnded(self.name)).ok();
    }
}

/// Turns SIGTERM, SIGINT and SIGQUIT into reasons to stop, until the guard is dropped, SIGUSR2
/// into the wish for an upgrade, and SIGHUP into a wish to `reload`. Where there is nothing to
/// reload, these two are only logged, for they would end the process and leave its children
/// behind. So is SIGUSR1, by which other programs reopen their log files.
///
/// # Errors
/// The system refuses the handlers or the thread.
pub fn watch_signals(
    stop: Sender<StopReason>,
    reload: Option<Sender<()>>,
) -> io::Result<SignalWatch> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
    let watched = [SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGUSR1, SIGUSR2];
    let mut signals = signal_hook::iterator::Signals::new(watched)?;
    let handle = signals.handle();
    let joined = spawn("signals", move || {
        for signal in signals.forever() {
            let reason = match (signal, &reload) {
                (SIGHUP, Some(reload)) => {
                    // A full queue holds such a wish already.
                    reload.try_send(()).ok();
                    continue;
                }
                (SIGHUP, None) => {
                    log::warn!("SIGHUP: there is no configuration to read again");
                    continue;
                }
                (SIGUSR1, _) => {
                    log::info!("SIGUSR1: there is no log file to open again");
                    continue;
                }
                (SIGUSR2, None) => {
                    log::warn!("SIGUSR2: this is not followed by another process");
                    continue;
                }
                (SIGUSR2, Some(_)) => StopReason::Upgrade,
                _ => StopReason::Signal,
            };
            // A full queue holds enough reasons.
            stop.try_send(reason).ok();
        }
    })?;
    Ok(SignalWatch { handle, _joined: joined })
}

/// The guard of [`watch_signals`].
#[derive(Debug)]
pub struct SignalWatch {
    handle: signal_hook::iterator::Handle,
    _joined: Joined,
}

impl Drop for SignalWatch {
    fn drop(&mut self) {
        self.handle.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_that_panics_is_heard() {
        let (stop, stopped) = crossbeam_channel::bounded(1);
        let owner = spawn_owner("owner", stop, || panic!("on purpose")).unwrap();
        drop(owner);
        assert_eq!(stopped.recv(), Ok(StopReason::OwnerEnded("owner")));
    }
}
