//! What the pages in `docs/` say in their tables and blocks.

use std::collections::BTreeSet;

use super::markdown::Document;
use super::program::root;

/// A file of the repository.
#[track_caller]
pub fn source(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The names of the pages.
pub fn pages() -> BTreeSet<String> {
    let entries = std::fs::read_dir(root().join("docs")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.ends_with(".md")).collect()
}

/// The text of a page.
#[track_caller]
pub fn page(name: &str) -> String {
    source(&format!("docs/{name}"))
}

/// The rows below the heading of a page's table whose first column is called so, cell by cell.
#[track_caller]
pub fn table(page_name: &str, first_column: &str) -> Vec<Vec<String>> {
    let cells = |line: &str| {
        let inner = line.trim();
        let inner =
            inner.strip_prefix('|').and_then(|it| it.strip_suffix('|')).unwrap_or(inner);
        inner.split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>()
    };
    let text = page(page_name);
    let mut lines = text.lines();
    let found = lines.any(|line| line.starts_with('|') && cells(line)[0] == first_column);
    assert!(found, "{page_name} has no table {first_column:?}");
    let rows: Vec<_> =
        lines.skip(1).take_while(|line| line.starts_with('|')).map(cells).collect();
    assert!(!rows.is_empty(), "{page_name}: {first_column:?} has no rows");
    rows
}

/// The texts between backticks.
pub fn quoted(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

/// What the first column of a table names, each once.
#[track_caller]
pub fn named(page_name: &str, first_column: &str) -> BTreeSet<String> {
    let rows = table(page_name, first_column);
    let mut names = BTreeSet::new();
    for name in rows.iter().flat_map(|row| quoted(&row[0])) {
        assert!(names.insert(name.to_owned()), "{page_name}: {name} stands there twice");
    }
    names
}

/// The fenced blocks of one kind in a page.
#[track_caller]
pub fn blocks(page_name: &str, kind: &str) -> Vec<String> {
    let document = Document { name: page_name.to_owned(), text: page(page_name) };
    let blocks = document.blocks().into_iter();
    blocks.filter(|block| block.kind == kind).map(|block| block.text).collect()
}
