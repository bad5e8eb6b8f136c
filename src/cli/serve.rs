//! `trunkline serve`.

use std::path::Path;
use std::process::ExitCode;

use super::{complain, exit, fail};
use crate::config::{Config, Listen, Overrides};
use crate::telemetry;

pub(super) fn run(path: &Path, listen: Option<Listen>) -> ExitCode {
    let config = match Config::load(path, &Overrides { listen }) {
        Ok(config) => config,
        Err(problems) => {
            for problem in problems {
                complain(&format!("trunkline: {}: {problem}", path.display()));
            }
            return ExitCode::from(exit::CONFIG);
        }
    };
    // Dropped last, so that the last line before the end is written.
    let log = match telemetry::log::start(config.log) {
        Ok(log) => log,
        Err(error) => return ExitCode::from(fail(&format!("cannot start the log: {error}"))),
    };
    log.set_secrets(&config.secrets());
    for warning in &config.warnings {
        log::warn!("{}: {warning}", path.display());
    }
    gateway(config)
}

/// Stands where the gateway takes over: from a configuration to the exit code of its run.
fn gateway(config: Config) -> ExitCode {
    log::error!("cannot serve at {}: this build has no gateway", config.listen);
    ExitCode::from(exit::FAILED)
}
