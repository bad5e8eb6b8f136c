//! One target of `targets/`, which the variable `FUZZ_TARGET` names, guided by coverage.
#![no_main]

use std::sync::OnceLock;

use trunkline::fuzz::{TARGETS, Target};

fn chosen() -> Target {
    static CHOSEN: OnceLock<Target> = OnceLock::new();
    *CHOSEN.get_or_init(|| {
        let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
        let found = TARGETS.iter().find(|(known, _)| *known == name);
        let known: Vec<_> = TARGETS.iter().map(|(name, _)| *name).collect();
        found.unwrap_or_else(|| panic!("FUZZ_TARGET is none of {known:?}")).1
    })
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| chosen()(data));
