//! `trunkline serve`.

use std::path::Path;
use std::process::ExitCode;

use super::{exit, fail, refused};
use crate::config::{Listen, Overrides};
use crate::handover::Inheritance;
use crate::reload::Source;
use crate::run;
use crate::telemetry;
use crate::thread::StopReason;

pub(super) fn run(path: &Path, listen: Option<Listen>) -> ExitCode {
    // This runs before there are threads: it removes variables from the environment.
    let inherited = match Inheritance::take() {
        Ok(inherited) => inherited,
        Err(error) => return ExitCode::from(fail(&format!("cannot start: {error}"))),
    };
    // Clients reach the socket that exists, whatever the file says.
    let address = inherited.listener.as_ref().map(|listener| listener.address().clone());
    let mut source = Source::new(path.to_owned(), Overrides { listen: address.or(listen) });
    let config = match source.load() {
        Ok(config) => config,
        Err(problems) => return ExitCode::from(refused(path, &problems)),
    };
    // The log is dropped last, so that the last line before the end is written.
    let log = match telemetry::log::start(config.log) {
        Ok(log) => log,
        Err(error) => return ExitCode::from(fail(&format!("cannot start the log: {error}"))),
    };
    log.control().set_secrets(&config.secrets());
    for warning in &config.warnings {
        log::warn!("{}", warning.in_file(path.display()));
    }
    match run::run(config, source, log.control(), inherited) {
        Ok(StopReason::Signal | StopReason::InputEnded | StopReason::Upgrade) => {
            ExitCode::SUCCESS
        }
        Ok(StopReason::OwnerEnded(name)) => {
            log::error!("ended because the thread {name} had ended");
            ExitCode::from(exit::FAILED)
        }
        Err(error) => {
            log::error!("cannot start: {error}");
            ExitCode::from(exit::FAILED)
        }
    }
}
