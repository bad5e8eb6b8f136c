//! `trunkline new-key`: a key and its hash.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::{SecureRandom as _, SystemRandom};
use serde_json::json;

use super::command::Output;
use super::{fail, print};
use crate::config::hash_key;

/// 256 bits, which cannot be guessed.
const KEY_BYTES: usize = 32;
/// Marks a text as a key of this program, for people and for scanners for secrets.
const PREFIX: &str = "trunkline_";

pub(super) fn run(output: Output) -> u8 {
    let mut random = [0; KEY_BYTES];
    if SystemRandom::new().fill(&mut random).is_err() {
        return fail("new-key: the system gives no randomness");
    }
    let key = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(random));
    let Some(hash) = hash_key(&key).map(|hash| hex(&hash)) else {
        return fail("new-key: the key cannot be hashed");
    };
    print(&match output {
        Output::Text => format!("key     {key}\nsha256  {hash}\n"),
        Output::Json => format!("{}\n", json!({ "key": key, "sha256": hash })),
    })
}

/// Bytes in hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        // Writing to a string cannot fail.
        write!(out, "{byte:02x}").ok();
    }
    out
}
