//! `trunkline demo`.

use std::io;

use super::{exit, fail, usage};
use crate::demo::stdio;

pub(super) fn run(http: Option<&str>) -> u8 {
    if http.is_some() {
        return usage("demo: --http is not in this version");
    }
    match stdio::serve(io::stdin().lock(), io::stdout()) {
        Ok(()) => exit::FINE,
        Err(error) => fail(&format!("demo: {error}")),
    }
}
