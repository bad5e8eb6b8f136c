//! Where the program and the repository are, and that what is tested is what the sources say.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

/// The root of the repository.
pub fn root() -> &'static Path {
    static ROOT: LazyLock<PathBuf> = LazyLock::new(|| {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
    });
    &ROOT
}

/// The version of the program.
pub fn version() -> &'static str {
    static VERSION: LazyLock<String> = LazyLock::new(|| {
        let manifest = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
        let version = manifest.lines().find_map(|line| line.strip_prefix("version = "));
        version.unwrap().trim_matches('"').to_owned()
    });
    &VERSION
}

/// The program that is tested.
pub fn binary() -> &'static str {
    static BINARY: LazyLock<Result<String, String>> = LazyLock::new(|| built("trunkline"));
    BINARY.as_ref().unwrap_or_else(|told| panic!("{told}"))
}

/// The scripted stdio server.
pub fn scripted_child() -> String {
    static CHILD: LazyLock<Result<String, String>> =
        LazyLock::new(|| built("examples/scripted_child"));
    CHILD.clone().unwrap_or_else(|told| panic!("{told}"))
}

/// What cargo has built beside the tests. An error if it is not there, or older than one of the
/// sources that cargo says it is made of: the tests would be of another program.
fn built(name: &str) -> Result<String, String> {
    let tests = std::env::current_exe().unwrap();
    let path = tests.ancestors().nth(2).unwrap().join(name);
    let hint = "`cargo test` at the root of the repository builds all that its tests run; \
        `cargo build` and `cargo build --examples` build it for a run of some of them";
    let changed = |path: &Path| std::fs::metadata(path).and_then(|it| it.modified());
    let Ok(made) = changed(&path) else {
        return Err(format!("{} is not there: {hint}", path.display()));
    };
    let sources = std::fs::read_to_string(path.with_extension("d")).unwrap_or_default();
    let is_newer = |source: &String| changed(Path::new(source)).is_ok_and(|it| it > made);
    match sources_in(&sources).iter().find(|source| is_newer(source)) {
        Some(source) => Err(format!("{} is older than {source}: {hint}", path.display())),
        None => Ok(path.to_str().unwrap().to_owned()),
    }
}

/// What the second half of a rule of make names.
fn sources_in(rule: &str) -> Vec<String> {
    let (_, sources) = rule.split_once(": ").unwrap_or_default();
    let words = sources.trim_end().replace("\\ ", "\0");
    words.split_whitespace().map(|word| word.replace('\0', " ")).collect()
}
