//! The program: arguments → configuration → gateway → wait for a reason to stop → exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    trunkline::cli::run(std::env::args_os().skip(1))
}
