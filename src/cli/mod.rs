//! The command line: a file for each command. Results go to standard output, all other texts to
//! standard error.

mod allocator;
mod arguments;
mod call;
mod check;
mod client;
mod command;
mod completions;
mod demo;
mod elicit;
mod hash_key;
mod help;
mod import;
mod init;
mod login;
mod logout;
mod loopback;
mod new_key;
mod pins;
mod reload;
mod running;
mod schema;
mod serve;
mod shown;
mod status;
mod stdio;
mod talk;
mod tools;

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use command::{At, Command, Talk};
use shown::{shown, shown_lines};

use crate::config::{Config, KEY_VARIABLE, Overrides, Problem};
use crate::reload::Source;
use crate::telemetry::log::{self as journal, LogControl};
use crate::thread::StopReason;

/// The exit codes of the program.
mod exit {
    /// All is well.
    pub(super) const FINE: u8 = 0;
    /// Failed at run time.
    pub(super) const FAILED: u8 = 1;
    /// Wrong arguments.
    pub(super) const USAGE: u8 = 2;
    /// No tool of that name, or a server that is not well: EX_UNAVAILABLE of sysexits.h.
    pub(super) const UNAVAILABLE: u8 = 69;
    /// Bad configuration: EX_CONFIG of sysexits.h.
    pub(super) const CONFIG: u8 = 78;
}

/// Runs the command that the arguments (without the program's name) ask for.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let code = match arguments::command(arguments, arguments::config_default) {
        Ok(Command::Help(topic)) => print(help::text(topic)),
        Ok(Command::Version) => print(&version()),
        Ok(Command::Serve { config, listen }) => {
            if let Some(code) = init::run() {
                return ExitCode::from(code);
            }
            allocator::set();
            return serve::run(&config, listen);
        }
        Ok(Command::Demo { http }) => demo::run(http),
        Ok(Command::HashKey) => hash_key::run(),
        Ok(Command::Import { file }) => import::run(&file),
        Ok(Command::Pins { config, what }) => pins::run(&config, &what),
        Ok(Command::Check { config, contact, output }) => check::run(&config, contact, output),
        Ok(Command::Login { config, server, come_back }) => {
            login::login(&config, &server, come_back)
        }
        Ok(Command::Logout { config, server, user }) => {
            logout::logout(&config, &server, user.as_deref())
        }
        Ok(Command::Talk(Talk::Stdio { at })) => {
            allocator::set();
            return stdio::run(&at);
        }
        Ok(Command::Talk(Talk::Tools { at, server, output })) => {
            tools::run(&at, server.as_deref(), output)
        }
        Ok(Command::Talk(Talk::Call(call))) => call::run(&call),
        Ok(Command::Talk(Talk::Status { at, output })) => status::run(&at, output),
        Ok(Command::Talk(Talk::Reload { at })) => reload::run(&at),
        Ok(Command::NewKey { output }) => new_key::run(output),
        Ok(Command::Completions(shell)) => print(&completions::script(shell)),
        Ok(Command::Man) => print(&completions::manual()),
        Err(what) => usage(&what),
    };
    ExitCode::from(code)
}

/// Writes a result. A reader that has closed the pipe is no failure.
fn print(text: &str) -> u8 {
    let mut out = io::stdout();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => exit::FINE,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => exit::FINE,
        Err(error) => fail(&format!("cannot write to standard output: {error}")),
    }
}

/// `trunkline 1.2.3 (0123456789ab)`; the commit where it was known when the program was built.
fn version() -> String {
    let version = env!("CARGO_PKG_VERSION");
    match option_env!("TRUNKLINE_COMMIT").filter(|commit| !commit.is_empty()) {
        Some(commit) => format!("trunkline {version} ({commit})\n"),
        None => format!("trunkline {version}\n"),
    }
}

/// Reports the faults of a configuration.
fn refused(path: &Path, problems: &[Problem]) -> u8 {
    for problem in problems {
        complain(&problem.with_line(path.display()));
    }
    exit::CONFIG
}

/// The configuration for a command that talks to servers, and the file from which it can be read
/// again. Reports its faults.
fn loaded(at: &At) -> Result<(Config, Option<Source>), u8> {
    match at {
        At::Config(path) => {
            let mut source = Source::new(path.clone(), Overrides::default());
            match source.load() {
                Ok(config) => Ok((config, Some(source))),
                Err(problems) => Err(refused(path, &problems)),
            }
        }
        At::Url(url) => Config::in_front_of(url, running::own_key().as_deref())
            .map(|config| (config, None))
            .map_err(|problems| {
                for problem in problems {
                    complain(&format!("trunkline: --url {url}: {}", problem.what));
                }
                exit::USAGE
            }),
    }
}

/// Starts the log, writes the configuration's warnings by `warning`, and runs `serve` until there
/// is a reason to stop.
fn serve_with_log(
    config: Config,
    warning: impl Fn(&Problem) -> String,
    serve: impl FnOnce(Config, LogControl) -> io::Result<StopReason>,
) -> ExitCode {
    // The log is dropped last, so that the last line before the end is written.
    let log = match journal::start(config.log) {
        Ok(log) => log,
        Err(error) => return ExitCode::from(fail(&format!("cannot start the log: {error}"))),
    };
    log.control().set_secrets(&config.secrets());
    for problem in &config.warnings {
        log::warn!("{}", warning(problem));
    }
    match serve(config, log.control()) {
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

/// Reports a failure at run time.
fn fail(what: &str) -> u8 {
    complain(&format!("trunkline: {what}"));
    exit::FAILED
}

/// Reports wrong arguments.
fn usage(what: &str) -> u8 {
    complain(&format!("trunkline: {what}\nTry \"trunkline --help\"."));
    exit::USAGE
}

fn complain(text: &str) {
    // If standard error is broken, there is no place to report it.
    writeln!(io::stderr(), "{text}").ok();
}
