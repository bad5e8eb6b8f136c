//! Which modules of the crate use which, read from their paths: `crate::`, `super::` and `self::`, in `use` items and
//! in the code, through names that a module gives on.

use std::collections::{BTreeMap, BTreeSet};

use crate::source::{Source, is_word_byte};

/// The names from the crate's root to a module.
type Path = Vec<String>;

/// Two neighbours in one folder that use each other, with a file and the path that it names for each direction.
#[derive(Debug)]
pub(crate) struct Circle {
    /// The folder under `src/`; empty for `src/` itself.
    pub(crate) folder: String,
    /// The two, in the order of the alphabet: files without `.rs`, or folders.
    pub(crate) between: (String, String),
    /// For people: which file uses what.
    pub(crate) by: [String; 2],
}

/// The modules that stand in files, and what each names.
pub(crate) struct Modules<'a> {
    named: BTreeMap<Path, Vec<Path>>,
    /// The names that a module gives on, and where they come from.
    given_on: BTreeMap<Path, BTreeMap<String, Path>>,
    files: BTreeMap<Path, &'a str>,
}

impl<'a> Modules<'a> {
    pub(crate) fn read(sources: &'a [Source]) -> Modules<'a> {
        let mut modules = Modules {
            named: BTreeMap::new(),
            given_on: BTreeMap::new(),
            files: BTreeMap::new(),
        };
        // The programs' first files stand above all others.
        let below = sources.iter().filter(|it| !["lib.rs", "main.rs"].contains(&&*it.path));
        for source in below {
            let module = module_of(&source.path);
            modules.given_on.insert(module.clone(), given_on(&module, source.code()));
            modules.named.insert(module.clone(), named(&module, source.code()));
            modules.files.insert(module, &source.path);
        }
        modules
    }

    /// Neighbours that use each other. What a folder's `mod.rs` and the files below it have of each other is no circle.
    pub(crate) fn circles(&self) -> Vec<Circle> {
        let mut uses: BTreeMap<(&[String], &str, &str), String> = BTreeMap::new();
        for (user, paths) in &self.named {
            for path in paths {
                let Some(used) = self.resolve(path, 0) else { continue };
                let shared = user.iter().zip(used).take_while(|(one, two)| one == two).count();
                if let (Some(from), Some(to)) = (user.get(shared), used.get(shared)) {
                    let file = self.files.get(user).copied().unwrap_or_default();
                    let by = format!("{file} uses {}", path.join("::"));
                    uses.entry((&user[..shared], from, to)).or_insert(by);
                }
            }
        }
        let circle = |(&(folder, one, two), by): (&(&[String], &str, &str), &String)| {
            let back = uses.get(&(folder, two, one)).filter(|_| one < two)?;
            Some(Circle {
                folder: folder.join("/"),
                between: (one.to_owned(), two.to_owned()),
                by: [by.clone(), back.clone()],
            })
        };
        uses.iter().filter_map(circle).collect()
    }

    /// The module in which a path ends, through the names that modules give on.
    fn resolve<'b>(&'b self, path: &[String], depth: usize) -> Option<&'b Path> {
        let length = (1..=path.len()).rev().find(|n| self.named.contains_key(&path[..*n]))?;
        let (module, rest) = path.split_at(length);
        let source = rest.first().and_then(|name| self.given_on.get(module)?.get(name));
        match source {
            // A name may be given on by several modules, but by no more than there are folders.
            Some(source) if depth < 8 => {
                self.resolve(&[source, &rest[1..]].concat(), depth + 1)
            }
            Some(_) | None => self.named.get_key_value(module).map(|(module, _)| module),
        }
    }
}

/// `a/b.rs` and `a/b/mod.rs` are both `a::b`.
fn module_of(file: &str) -> Path {
    let path = file.trim_end_matches(".rs");
    let path = path.strip_suffix("/mod").unwrap_or(path);
    path.split('/').map(str::to_owned).collect()
}

/// The whole paths that a module's code names.
fn named(module: &[String], code: &str) -> Vec<Path> {
    let mut found = Vec::new();
    for root in ["crate", "super", "self"] {
        for (at, _) in code.match_indices(root) {
            let bytes = code.as_bytes();
            let before = at.checked_sub(1).and_then(|at| bytes.get(at));
            let begins = !before.is_some_and(|byte| is_word_byte(*byte) || *byte == b':');
            if begins && code[at + root.len()..].starts_with("::") {
                let mut paths = Vec::new();
                read_tree(&code[at..], &[], &mut paths);
                found.extend(paths.iter().map(|path| from_root(module, path)));
            }
        }
    }
    found
}

/// What `pub use` gives on: each name, and the path from the root to where it comes from.
fn given_on(module: &[String], code: &str) -> BTreeMap<String, Path> {
    let mut found = BTreeMap::new();
    for (at, _) in code.match_indices("pub") {
        let rest = &code[at + 3..];
        let rest = match rest.strip_prefix('(') {
            Some(scope) => scope.split_once(')').map_or("", |(_, rest)| rest),
            None => rest,
        };
        let Some(tree) = rest.strip_prefix(" use ") else { continue };
        let mut paths = Vec::new();
        read_tree(tree, &[], &mut paths);
        for path in paths {
            if let Some(name) = path.last() {
                found.insert(name.clone(), from_root(module, &path));
            }
        }
    }
    found
}

/// A path as a module writes it, from the crate's root.
fn from_root(module: &[String], path: &[String]) -> Path {
    let (mut base, mut rest) = (module, path);
    if rest.first().is_some_and(|first| first == "crate") {
        return rest[1..].to_vec();
    }
    while let Some((first, after)) = rest.split_first() {
        match first.as_str() {
            "self" => rest = after,
            "super" => (base, rest) = (base.split_last().map_or(base, |(_, up)| up), after),
            _ => break,
        }
    }
    [base, rest].concat()
}

/// Reads the path or the tree of paths with which `text` begins, and returns what follows it.
fn read_tree<'a>(text: &'a str, before: &[String], found: &mut Vec<Path>) -> &'a str {
    let text = text.trim_start();
    if let Some(mut rest) = text.strip_prefix('{') {
        loop {
            rest = read_tree(rest, before, found).trim_start();
            match rest.strip_prefix(',') {
                Some(after) => rest = after.trim_start(),
                None => return rest.strip_prefix('}').unwrap_or(rest),
            }
            if let Some(after) = rest.strip_prefix('}') {
                return after;
            }
        }
    }
    let end = text.bytes().position(|byte| !is_word_byte(byte)).unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    if name.is_empty() {
        return text;
    }
    let path = [before, &[name.to_owned()]].concat();
    let rest = match rest.strip_prefix("::") {
        Some(below)
            if below
                .trim_start()
                .starts_with(|c: char| c == '{' || c == '_' || c.is_alphabetic()) =>
        {
            return read_tree(below, &path, found);
        }
        Some(_) | None => rest,
    };
    found.push(path);
    match rest.trim_start().strip_prefix("as ") {
        Some(alias) => {
            alias.trim_start().trim_start_matches(|c: char| c == '_' || c.is_alphanumeric())
        }
        None => rest,
    }
}

#[test]
fn circles_are_found_through_names_that_are_given_on() {
    let sources = [
        (
            "a/mod.rs",
            "pub(crate) mod one; mod two; pub(crate) use two::{Two, deep::Three as T};",
        ),
        ("a/one.rs", "use super::Two; fn f() { crate::b::g() }"),
        ("a/two/mod.rs", "mod deep; use crate::{b, a::{one::{self, F}}};"),
        ("a/two/deep.rs", "use super::super::one; fn f() { super::g() }"),
        ("b.rs", "fn g() {} // crate::a"),
        ("lib.rs", "pub mod a; pub mod b;"),
    ];
    let sources = sources.map(|(path, text)| Source::new(path, text.to_owned()));
    let circles = Modules::read(&sources).circles();
    let between: Vec<_> =
        circles.iter().map(|it| (&*it.folder, &*it.between.0, &*it.between.1)).collect();
    assert_eq!(between, [("a", "one", "two")], "{circles:?}");
    let names: BTreeSet<_> =
        named(&module_of("a/two/mod.rs"), sources[2].code()).into_iter().collect();
    let names: Vec<_> = names.iter().map(|path| path.join("::")).collect();
    assert_eq!(names, ["a::one::F", "a::one::self", "b"]);
}
