//! Ids of requests and spans: an `X-Request-Id`, and the ids of a trace.

use std::cell::Cell;
use std::fmt;

use ring::rand::{SecureRandom, SystemRandom};

use crate::limits::REQUEST_ID_BYTES_MAX;

/// The id of one HTTP request in logs, in its answer, and towards servers. It is copied and
/// never allocated.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RequestName {
    len: usize,
    bytes: [u8; REQUEST_ID_BYTES_MAX],
}

impl RequestName {
    /// The id that a client or a proxy gave, if it is well-formed: letters, digits, `-`, `_`,
    /// `.`, `:` and nothing else, so that it can stand in any line and header.
    pub fn parse(text: &str) -> Option<RequestName> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
        if text.is_empty() || !text.bytes().all(is_plain) {
            return None;
        }
        let mut bytes = [0; REQUEST_ID_BYTES_MAX];
        bytes.get_mut(..text.len())?.copy_from_slice(text.as_bytes());
        Some(RequestName { len: text.len(), bytes })
    }

    /// An id made by the gateway: 32 hexadecimal digits.
    pub fn random() -> RequestName {
        let mut name = RequestName { len: 32, bytes: [0; REQUEST_ID_BYTES_MAX] };
        let numbers = [random(), random()].map(u64::to_be_bytes).concat();
        for (pair, byte) in name.bytes.chunks_exact_mut(2).zip(numbers) {
            pair.copy_from_slice(&hex(byte));
        }
        name
    }

    /// The id's text.
    pub fn as_str(&self) -> &str {
        self.bytes.get(..self.len).and_then(|it| std::str::from_utf8(it).ok()).unwrap_or("-")
    }
}

impl fmt::Debug for RequestName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The two hexadecimal digits of a byte.
pub(super) fn hex(byte: u8) -> [u8; 2] {
    let digit = |number: u8| if number < 10 { b'0' + number } else { b'a' + number - 10 };
    [digit(byte >> 4), digit(byte & 15)]
}

/// A random number that need not be hard to guess: it names things in logs and traces. Each
/// thread has a generator of its own (SplitMix64, by Sebastiano Vigna), seeded by the system.
pub(super) fn random() -> u64 {
    thread_local! {
        static STATE: Cell<Option<u64>> = const { Cell::new(None) };
    }
    STATE.with(|cell| {
        let state = cell.get().unwrap_or_else(seed).wrapping_add(0x9e37_79b9_7f4a_7c15);
        cell.set(Some(state));
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    })
}

fn seed() -> u64 {
    let mut bytes = [0; 8];
    // If this fails, TLS and sessions fail for want of randomness too.
    SystemRandom::new().fill(&mut bytes).ok();
    u64::from_le_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn a_name_is_taken_only_if_it_is_plain() {
        for text in ["a", "req-1.2:3_4", "0af7651916cd43dd8448eb211c80319c"] {
            assert_eq!(RequestName::parse(text).unwrap().as_str(), text);
        }
        let long = "x".repeat(REQUEST_ID_BYTES_MAX + 1);
        for text in ["", "a b", "a\r\nb", "é", "a\"b", &long] {
            assert_eq!(RequestName::parse(text), None, "{text:?}");
        }
        assert!(RequestName::parse(&long[1..]).is_some());
    }

    #[test]
    fn names_of_our_own_are_well_formed_and_differ() {
        let names: Vec<RequestName> = (0..1000).map(|_| RequestName::random()).collect();
        let texts: HashSet<&str> = names.iter().map(RequestName::as_str).collect();
        assert_eq!(texts.len(), 1000);
        assert!(
            texts.iter().all(|text| text.len() == 32 && RequestName::parse(text).is_some())
        );
    }
}
