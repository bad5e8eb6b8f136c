//! The command line: a file a command. Results go to standard output, everything else to
//! standard error.

mod allocator;
mod arguments;
mod demo;
mod hash_key;
mod help;
mod init;
mod pins;
mod serve;

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

use arguments::Command;

/// What the program ends with.
mod exit {
    /// All is well.
    pub(super) const FINE: u8 = 0;
    /// Failed at run time.
    pub(super) const FAILED: u8 = 1;
    /// Wrong arguments.
    pub(super) const USAGE: u8 = 2;
    /// No tool of that name: EX_UNAVAILABLE of sysexits.h.
    pub(super) const UNAVAILABLE: u8 = 69;
    /// Bad configuration: EX_CONFIG of sysexits.h.
    pub(super) const CONFIG: u8 = 78;
}

/// Runs the command that the arguments (without the program's name) ask for.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let code = match Command::parse(arguments) {
        Ok(Command::Help(topic)) => print(help::text(topic)),
        Ok(Command::Version) => print(concat!("trunkline ", env!("CARGO_PKG_VERSION"), "\n")),
        Ok(Command::Serve { config, listen }) => {
            if let Some(code) = init::run() {
                return ExitCode::from(code);
            }
            allocator::set();
            return serve::run(&config, listen);
        }
        Ok(Command::Demo { http }) => demo::run(http),
        Ok(Command::HashKey) => hash_key::run(),
        Ok(Command::Pins { config, what }) => pins::run(&config, &what),
        Err(what) => usage(&what),
    };
    ExitCode::from(code)
}

/// Writes a result. A reader that has seen enough is no failure.
fn print(text: &str) -> u8 {
    let mut out = io::stdout();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => exit::FINE,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => exit::FINE,
        Err(error) => fail(&format!("cannot write to standard output: {error}")),
    }
}

/// Says what went wrong at run time.
fn fail(what: &str) -> u8 {
    complain(&format!("trunkline: {what}"));
    exit::FAILED
}

/// Says what is wrong with the arguments.
fn usage(what: &str) -> u8 {
    complain(&format!("trunkline: {what}\nTry \"trunkline --help\"."));
    exit::USAGE
}

fn complain(text: &str) {
    // Without standard error there is nowhere to say anything.
    writeln!(io::stderr(), "{text}").ok();
}
