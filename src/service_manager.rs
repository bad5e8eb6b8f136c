//! Messages to the service manager (sd_notify(3)): that the gateway serves, reads its
//! configuration again, stops, and is alive. Without a manager, none are sent.

use std::io;
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, Sender, bounded};
use sd_notify::NotifyState;

use crate::thread::{self, Joined};

/// The number of messages in a watchdog's time.
const WATCHDOG_DIVISOR: u32 = 3;

/// Tells that the gateway serves, or serves again after [`reloading`].
pub fn ready() {
    tell(&[NotifyState::Ready]);
}

/// Tells that the configuration is being read again. [`ready`] ends this, with any result.
pub fn reloading() {
    // `Type=notify-reload` demands the time, to tell this reload from the one before.
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(_) => tell(&[NotifyState::Reloading]),
    }
}

/// Tells that the gateway drains.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Tells that another process is the service from here on.
pub fn followed_by(pid: u32) {
    tell(&[NotifyState::MainPid(pid)]);
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        log::warn!("the service manager cannot be told of the state: {error}");
    }
}

/// Tells the manager again and again that the gateway is alive. Dropping it ends that.
#[derive(Debug)]
pub struct Watchdog {
    /// This field is dropped first, which ends the thread.
    _alive: Sender<()>,
    _joined: Joined,
}

/// Starts the watchdog, where the manager wants one (`WATCHDOG_USEC`). No message is sent while
/// `is_well` is false.
///
/// # Errors
/// The system refuses a thread.
pub fn watchdog(is_well: impl Fn() -> bool + Send + 'static) -> io::Result<Option<Watchdog>> {
    let Some(within) = sd_notify::watchdog_enabled() else { return Ok(None) };
    let interval = (within / WATCHDOG_DIVISOR).max(Duration::from_millis(1));
    let (alive, ended) = bounded::<()>(0);
    let joined = thread::spawn("watchdog", move || {
        while ended.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
            if is_well() {
                tell(&[NotifyState::Watchdog]);
            }
        }
    })?;
    Ok(Some(Watchdog { _alive: alive, _joined: joined }))
}
