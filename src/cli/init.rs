//! The duties of process 1 besides its own work. In a container that has no other init, the
//! program is that process: a process that loses its parent becomes its child, and stays a zombie
//! until it is waited for. Waiting for any child at all would take the ends of the gateway's own
//! children from it, so process 1 only starts the gateway, passes signals on to it, and waits.

use std::io;
use std::process::Command;

use rustix::process::{Pid, Signal, WaitOptions, kill_process, wait};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::Signals;

use super::{complain, fail};

/// Added to the number of a signal, as shells do, where one has ended the gateway.
const SIGNAL_CODES: i32 = 128;

/// If this is process 1: starts the gateway, and returns its exit code once it has ended.
pub(super) fn run() -> Option<u8> {
    if std::process::id() != 1 {
        return None;
    }
    Some(look_after().unwrap_or_else(|error| fail(&format!("cannot start: {error}"))))
}

fn look_after() -> io::Result<u8> {
    let passed_on = [SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1];
    // Signals are registered before there is a child, so that its end cannot be missed.
    let mut signals = Signals::new(passed_on.into_iter().chain([SIGCHLD, SIGUSR2]))?;
    let child = Command::new(std::env::current_exe()?)
        .args(std::env::args_os().skip(1))
        // The variable names this process.
        .env_remove("LISTEN_PID")
        .spawn()?;
    let gateway = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let gateway = gateway.ok_or_else(|| io::Error::other("the child has no number"))?;
    for signal in signals.forever() {
        match signal {
            SIGCHLD => {
                if let Some(code) = reap(gateway) {
                    return Ok(code);
                }
            }
            SIGUSR2 => complain("trunkline: SIGUSR2: a container is upgraded by replacing it"),
            _ => {
                if let Some(signal) = Signal::from_named_raw(signal) {
                    // The gateway may have ended in this moment; the next signal tells.
                    kill_process(gateway, signal).ok();
                }
            }
        }
    }
    Err(io::Error::other("no more signals can be heard"))
}

/// Waits for all children that have ended. Returns the exit code if the gateway is among them.
fn reap(gateway: Pid) -> Option<u8> {
    while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
        if pid == gateway {
            let by_signal = status.terminating_signal().map(|signal| SIGNAL_CODES + signal);
            let code = status.exit_status().or(by_signal).unwrap_or(1);
            return Some(u8::try_from(code).unwrap_or(1));
        }
    }
    None
}
