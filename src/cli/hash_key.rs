//! `trunkline hash-key`.

use std::fmt::Write as _;
use std::io::{self, Read};

use super::{fail, print, usage};
use crate::config::hash_key;

/// More than any header may hold.
const KEY_BYTES_MAX: u64 = 64 * 1024;

pub(super) fn run() -> u8 {
    let mut input = String::new();
    if let Err(error) = io::stdin().lock().take(KEY_BYTES_MAX).read_to_string(&mut input) {
        return fail(&format!("hash-key: cannot read the key: {error}"));
    }
    let key =
        input.strip_suffix('\n').map_or(&*input, |key| key.strip_suffix('\r').unwrap_or(key));
    let Some(hash) = hash_key(key) else {
        return usage(
            "hash-key: standard input must hold a key: printable ASCII characters on one line, \
             without spaces at the ends",
        );
    };
    let mut line = String::with_capacity(65);
    for byte in hash {
        // Writing to a string cannot fail.
        write!(line, "{byte:02x}").ok();
    }
    line.push('\n');
    print(&line)
}
