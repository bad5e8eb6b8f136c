//! The page about security: each defence is where it says, and has the tests that it names.

use std::path::Path;

use crate::support::pages::{quoted, table};
use crate::support::program::root;

/// The text of all Rust files below a folder.
fn sources_below(folder: &Path) -> String {
    let mut text = String::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            text.push_str(&sources_below(&path));
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            text.push_str(&std::fs::read_to_string(path).unwrap());
        }
    }
    text
}

#[test]
fn every_defence_is_where_the_table_says_and_has_its_tests() {
    let sources: String = ["src", "tests", "fuzz/targets"]
        .map(|folder| sources_below(&root().join(folder)))
        .concat();
    let rows = table("security.md", "attack");
    assert!(rows.len() > 10);
    for row in &rows {
        let (places, tests) = (quoted(&row[2]), quoted(&row[3]));
        assert!(!places.is_empty() && !tests.is_empty(), "{row:?}");
        for place in places {
            assert!(root().join(place).exists(), "{place} is not there");
        }
        for test in tests {
            assert!(sources.contains(&format!("fn {test}()")), "there is no test {test}");
        }
    }
}
