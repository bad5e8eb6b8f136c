//! The pages in `docs/` against the program: their tables, their links, their commands.

mod configuration;
mod interfaces;
mod observability;
mod security;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A file of the repository.
#[track_caller]
fn source(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The names of the pages.
fn pages() -> BTreeSet<String> {
    let entries = std::fs::read_dir(root().join("docs")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.ends_with(".md")).collect()
}

/// The text of a page.
#[track_caller]
fn page(name: &str) -> String {
    source(&format!("docs/{name}"))
}

/// The rows below the heading of a page's table whose first column is called so, cell by cell.
#[track_caller]
fn table(page_name: &str, first_column: &str) -> Vec<Vec<String>> {
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
fn quoted(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

/// What the first column of a table names, each once.
#[track_caller]
fn named(page_name: &str, first_column: &str) -> BTreeSet<String> {
    let rows = table(page_name, first_column);
    let mut names = BTreeSet::new();
    for name in rows.iter().flat_map(|row| quoted(&row[0])) {
        assert!(names.insert(name.to_owned()), "{page_name}: {name} stands there twice");
    }
    names
}

/// The fenced blocks of one language.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let opening = format!("```{language}");
    let mut found = Vec::new();
    let mut lines = text.lines();
    while lines.any(|line| line == opening) {
        let block: Vec<_> = lines.by_ref().take_while(|line| *line != "```").collect();
        found.push(block.join("\n"));
    }
    found
}

/// The lines that stand in no fenced block.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut is_inside = false;
    text.lines().filter(move |line| {
        let is_fence = line.starts_with("```");
        is_inside ^= is_fence;
        !is_inside && !is_fence
    })
}

/// What a heading is called in links, as GitHub makes it.
fn anchor(heading: &str) -> String {
    let heading = heading.trim_start_matches('#').trim();
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
}

/// Whether a link of the file at `from` leads to a file, and a heading of it, that is there.
fn check_link(from: &Path, target: &str) -> Result<(), String> {
    let (path, heading) = target.split_once('#').unwrap_or((target, ""));
    let file = match path {
        "" => from.to_owned(),
        path => from.parent().unwrap().join(path),
    };
    if !file.exists() {
        return Err(format!("{target}: there is no such file"));
    }
    if heading.is_empty() {
        return Ok(());
    }
    let text = std::fs::read_to_string(&file).map_err(|error| format!("{target}: {error}"))?;
    let mut headings = prose(&text).filter(|line| line.starts_with('#')).map(anchor);
    if headings.any(|it| it == heading) {
        Ok(())
    } else {
        Err(format!("{target}: there is no such heading"))
    }
}

#[test]
fn every_relative_link_leads_somewhere() {
    let mut files = vec![root().join("README.md"), root().join(".github/SECURITY.md")];
    files.extend(pages().iter().map(|name| root().join("docs").join(name)));
    let mut broken = Vec::new();
    for file in &files {
        let text = std::fs::read_to_string(file).unwrap();
        for line in prose(&text) {
            let targets = line.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
            for (target, _) in targets.filter(|(target, _)| !target.contains("://")) {
                if let Err(what) = check_link(file, target) {
                    broken.push(format!("{}: {what}", file.display()));
                }
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn links_are_held_to_files_and_headings() {
    let from: PathBuf = root().join("docs/README.md");
    assert_eq!(check_link(&from, "limits.md#shares"), Ok(()));
    assert_eq!(check_link(&from, "#glossary"), Ok(()));
    for wrong in ["nothing.md", "limits.md#nothing", "#nothing"] {
        assert!(check_link(&from, wrong).is_err(), "{wrong}");
    }
}

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
