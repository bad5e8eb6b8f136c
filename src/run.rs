//! One run of the gateway: from its start, over reloads and an upgrade, to its end in order.

use std::io;

use crossbeam_channel::bounded;

use super::service_manager;
use crate::config::Config;
use crate::gateway::Gateway;
use crate::handover::{Inheritance, NotFollowed};
use crate::listening::Clients;
use crate::reload::{self, Source};
use crate::telemetry::log::LogControl;
use crate::thread::{self, StopReason};

/// Reasons to stop that may wait; one is enough.
const STOP_REASONS_MAX: usize = 8;

/// Serves until there is a reason to stop, then stops in order.
///
/// # Errors
/// The gateway cannot be started.
pub fn run(
    config: Config,
    source: Source,
    log: LogControl,
    mut inherited: Inheritance,
) -> io::Result<StopReason> {
    let (stop, stopped) = bounded(STOP_REASONS_MAX);
    // One wish that waits is enough: the next reading takes the file as it is then.
    let (wish, wishes) = bounded(1);
    let _signals = thread::watch_signals(stop.clone(), Some(wish))?;
    let predecessor = inherited.predecessor.take();
    let mut gateway =
        Gateway::start(config.clone(), Clients::OverHttp, inherited, stop.clone(), stopped)?;
    if let Some(predecessor) = predecessor {
        gateway.takes_over();
        predecessor.serving();
    }
    let _watchdog = service_manager::watchdog(gateway.is_well())?;
    let reloading = reload::start(source, config, gateway.parts(), log, wishes, stop)?;
    service_manager::ready();
    let reason = loop {
        match gateway.wait() {
            StopReason::Upgrade => match gateway.be_followed() {
                Ok(()) => break StopReason::Signal,
                Err(NotFollowed::Failed(why)) => {
                    log::error!("no other process follows, this one goes on: {why}");
                }
                Err(NotFollowed::Stopped(reason)) => break reason,
            },
            reason @ (StopReason::Signal
            | StopReason::InputEnded
            | StopReason::OwnerEnded(_)) => break reason,
        }
    };
    match reason {
        StopReason::Signal | StopReason::InputEnded | StopReason::Upgrade => {
            log::info!("stopping")
        }
        StopReason::OwnerEnded(name) => log::error!("the thread {name} has ended; stopping"),
    }
    service_manager::stopping();
    gateway.stop(Some(reloading));
    Ok(reason)
}
