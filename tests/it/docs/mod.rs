//! The pages in `docs/` against the program: what their tables say. Their commands, configurations
//! and links are held by `commands.rs`, the recipes of identity by `identity.rs`, keys and bounds
//! by `tests/library/docs.rs`.

mod commands;
mod identity;
mod interfaces;
mod observability;
mod security;

use std::collections::BTreeSet;

use crate::support::pages::{pages, table};

#[test]
fn the_index_has_every_page() {
    let rows = table("README.md", "page");
    let link = |row: &Vec<String>| {
        let (_, rest) = row[0].split_once("](").unwrap();
        rest.trim_end_matches(')').to_owned()
    };
    let told: BTreeSet<_> = rows.iter().map(link).collect();
    let mut there = pages();
    there.remove("README.md");
    assert_eq!(told, there);
}
