//! `trunkline hash-key`.

use std::io::{self, BufRead as _, IsTerminal as _, Read};

use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, tcgetattr, tcsetattr};

use super::new_key::hex;
use super::{complain, exit, fail, print, usage};
use crate::config::hash_key;

/// Bytes of input, more than any header may hold.
const KEY_BYTES_MAX: u64 = 64 * 1024;
/// The byte that Ctrl-C types, where it sends no signal.
const INTERRUPT: u8 = 3;

pub(super) fn run() -> u8 {
    let input = if io::stdin().is_terminal() { typed() } else { given() };
    let input = match input {
        Ok(input) => input,
        Err(error) => return fail(&format!("hash-key: cannot read the key: {error}")),
    };
    if input.as_bytes().contains(&INTERRUPT) {
        return exit::FAILED;
    }
    let key =
        input.strip_suffix('\n').map_or(&*input, |key| key.strip_suffix('\r').unwrap_or(key));
    let Some(hash) = hash_key(key) else {
        return usage(
            "hash-key: standard input must hold a key: printable ASCII characters on one line, \
             without spaces at the ends",
        );
    };
    print(&format!("{}\n", hex(&hash)))
}

fn given() -> io::Result<String> {
    let mut input = String::new();
    io::stdin().lock().take(KEY_BYTES_MAX).read_to_string(&mut input)?;
    Ok(input)
}

/// Reads a line from the terminal, which does not show it. Ctrl-C ends the line, and not the
/// program, which would leave the terminal without echo.
fn typed() -> io::Result<String> {
    let stdin = io::stdin();
    let usual = tcgetattr(&stdin)?;
    let mut silent = usual.clone();
    silent.local_modes.remove(LocalModes::ECHO | LocalModes::ISIG);
    silent.local_modes.insert(LocalModes::ECHONL);
    silent.special_codes[SpecialCodeIndex::VEOL] = INTERRUPT;
    complain("The key, which is not shown, and Enter:");
    tcsetattr(&stdin, OptionalActions::Flush, &silent)?;
    let mut line = String::new();
    let read = stdin.lock().take(KEY_BYTES_MAX).read_line(&mut line);
    tcsetattr(&stdin, OptionalActions::Now, &usual)?;
    read.map(|_| line)
}
