//! The corpus again, and a bounded number of mutations of it, the same in every run.

use std::path::{Path, PathBuf};

use super::TARGETS;

/// Mutations of each target's corpus in one run.
const MUTATIONS: usize = 3000;
/// Bytes of one mutated input.
const INPUT_BYTES_MAX: usize = 4096;

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join("corpus")
}

/// The inputs of one target, in the order of their names.
fn inputs(target: &str) -> Vec<Vec<u8>> {
    let directory = corpus().join(target);
    let entries = std::fs::read_dir(&directory).unwrap_or_else(|error| {
        panic!("{} cannot be read: {error}", directory.display());
    });
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).unwrap()).collect()
}

/// Marsaglia's xorshift64: the same numbers everywhere.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % bound.max(1)
    }
}

/// Bytes that parsers look for.
const TELLING: &[u8] = b"\0\t\n\r !\"#%&'*+,-./0129:;=?@AZ[\\]_`az{|}~\x7f\x80\xc3\xa9\xff";

/// One input made of two of the corpus: bytes changed, taken out, doubled, put in, and the two
/// joined anywhere.
fn mutated(inputs: &[Vec<u8>], numbers: &mut Numbers) -> Vec<u8> {
    let mut input = inputs[numbers.below(inputs.len())].clone();
    for _ in 0..=numbers.below(4) {
        let at = numbers.below(input.len() + 1);
        match numbers.below(6) {
            0 if at < input.len() => input[at] = TELLING[numbers.below(TELLING.len())],
            1 if at < input.len() => input[at] ^= 1 << numbers.below(8),
            2 if at < input.len() => {
                let end = (at + 1 + numbers.below(8)).min(input.len());
                input.drain(at..end);
            }
            3 => input.insert(at, TELLING[numbers.below(TELLING.len())]),
            4 => {
                let end = (at + numbers.below(64)).min(input.len());
                let again = input[at..end].to_vec();
                input.splice(at..at, again);
            }
            _ => {
                let other = &inputs[numbers.below(inputs.len())];
                input.truncate(at);
                input.extend_from_slice(&other[numbers.below(other.len() + 1)..]);
            }
        }
    }
    input.truncate(INPUT_BYTES_MAX);
    input
}

#[track_caller]
fn replay(name: &str) {
    let (_, target) = TARGETS.iter().find(|(known, _)| *known == name).unwrap();
    let inputs = inputs(name);
    assert!(!inputs.is_empty(), "{name} has no corpus");
    target(&[]);
    for input in &inputs {
        target(input);
    }
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    for _ in 0..MUTATIONS {
        let input = mutated(&inputs, &mut numbers);
        let held = std::panic::catch_unwind(|| target(&input));
        assert!(
            held.is_ok(),
            "{name} does not hold for {:?}",
            input.escape_ascii().to_string()
        );
    }
}

/// A test for each target, so that each fails by itself.
macro_rules! replays {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                replay(stringify!($name));
            }
        )*
        #[test]
        fn every_target_is_replayed() {
            let replayed = [$(stringify!($name)),*];
            assert!(TARGETS.iter().map(|(name, _)| *name).eq(replayed));
        }
    };
}

replays!(challenges chunked config head headers jsonrpc lists names oauth_documents oauth_texts raw
    sealed sse tokens);

#[test]
fn the_corpus_stays_small() {
    let sizes = TARGETS.iter().flat_map(|(name, _)| inputs(name)).map(|input| input.len());
    let bytes: usize = sizes.sum();
    assert!(bytes < 200_000, "{bytes} bytes");
}
