//! The paths that are written: in the map of the sources and in the first lines of files.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::source::Source;
use crate::{FILES_BEGINNING_THIS_PROGRAM, NO_STATUSES, SOURCES, STATUS_FILES};

/// The pages about the sources, in `src/`.
const PAGES: [&str; 2] = ["README.md", "HOW_TO_ADD.md"];

/// The longest map, in lines.
const MAP_LINES_MAX: usize = 250;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn page(name: &str) -> String {
    std::fs::read_to_string(root().join("src").join(name)).unwrap()
}

/// Texts in back-ticks that are paths: a file of sources, a folder, or whatever begins with a folder of the root.
fn paths_in(line: &str) -> Vec<&str> {
    let is_path = |text: &&str| {
        let plain =
            text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-./".contains(&byte));
        let of_root = ["src/", "tests/", "docs/", "fuzz/", "contrib/", ".ci/"];
        plain
            && !text.starts_with('/')
            && (text.ends_with(".rs")
                || text.ends_with('/')
                || of_root.iter().any(|it| text.starts_with(it)))
    };
    line.split('`').skip(1).step_by(2).filter(is_path).collect()
}

/// Fails if one of these is neither below `src/`, nor below the root, nor below one of `folders` of `src/`.
fn missing<'a>(paths: &[&'a str], folders: &[&str]) -> Vec<&'a str> {
    let src = root().join("src");
    let bases: Vec<PathBuf> = [src.clone(), root()]
        .into_iter()
        .chain(folders.iter().map(|it| src.join(it)))
        .collect();
    let is_there = |path: &str| {
        let found = |base: &PathBuf| {
            let whole = base.join(path);
            if path.ends_with('/') { whole.is_dir() } else { whole.exists() }
        };
        bases.iter().any(found)
    };
    paths.iter().copied().filter(|path| !is_there(path)).collect()
}

#[test]
fn paths_of_the_pages_exist() {
    let mut wrong = Vec::new();
    for name in PAGES {
        for (number, line) in page(name).lines().enumerate() {
            // In the map, what a row tells of may be named from the folders of its first cell on.
            let first = line.strip_prefix('|').and_then(|row| row.split('|').next());
            let folders = first.map(paths_in).unwrap_or_default();
            let lost = missing(&paths_in(line), &folders);
            wrong.extend(lost.iter().map(|path| format!("src/{name}:{}: {path}", number + 1)));
        }
    }
    assert!(wrong.is_empty(), "there is no such file or folder:\n{}", wrong.join("\n"));
}

#[test]
fn paths_of_first_lines_exist() {
    let mut wrong = Vec::new();
    for source in SOURCES.iter() {
        let folder = source.path.rsplit_once('/').map_or("", |(folder, _)| folder);
        for line in source.header() {
            let lost = missing(&paths_in(line), &[folder]);
            wrong.extend(lost.iter().map(|path| format!("src/{}: {path}", source.path)));
        }
    }
    assert!(wrong.is_empty(), "there is no such file or folder:\n{}", wrong.join("\n"));
}

#[test]
fn the_map_has_every_folder_and_every_file_of_the_top() {
    let map = page(PAGES[0]);
    let named: BTreeSet<&str> = map.lines().flat_map(paths_in).collect();
    let is_named = |place: &str| {
        named
            .iter()
            .any(|path| *path == place || (place.ends_with('/') && path.starts_with(place)))
    };
    let top = |source: &&Source| !source.path.contains('/') && source.path != "lib.rs";
    let mut places: BTreeSet<String> =
        SOURCES.iter().filter(top).map(|it| it.path.clone()).collect();
    for source in SOURCES.iter() {
        places.extend(
            source.path.match_indices('/').map(|(at, _)| source.path[..=at].to_owned()),
        );
    }
    let lost: Vec<&String> = places.iter().filter(|place| !is_named(place)).collect();
    assert!(lost.is_empty(), "the map does not tell of {lost:?}");
}

#[test]
fn the_map_stays_short() {
    let n = page(PAGES[0]).lines().count();
    assert!(n <= MAP_LINES_MAX, "src/README.md has {n} lines");
}

#[test]
fn files_of_the_rules_exist() {
    let listed = STATUS_FILES
        .iter()
        .chain(NO_STATUSES.iter().map(|(path, ..)| path))
        .chain(&FILES_BEGINNING_THIS_PROGRAM);
    let lost: Vec<&&str> =
        listed.filter(|path| !SOURCES.iter().any(|source| source.path == **path)).collect();
    assert!(lost.is_empty(), "a rule names files that there are not: {lost:?}");
}
