//! Arguments → configuration → gateway → wait for a reason to stop → exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::SUCCESS
}
