//! `trunkline serve`.

use std::path::Path;
use std::process::ExitCode;

use super::{fail, refused, serve_with_log};
use crate::config::{Listen, Overrides};
use crate::handover::Inheritance;
use crate::reload::Source;
use crate::run;

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
    serve_with_log(
        config,
        |warning| warning.in_file(path.display()),
        |config, log| run::run(config, source, log, inherited),
    )
}
