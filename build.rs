//! Tells the program which commit it is built from, for `trunkline --version`: of release builds,
//! so that others are not built anew with every commit. Where there is no git, as in a tarball,
//! nothing is told, or what `TRUNKLINE_COMMIT` says.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-env-changed=TRUNKLINE_COMMIT");
    println!("cargo::rerun-if-changed=build.rs");
    let is_release = std::env::var("PROFILE").is_ok_and(|profile| profile == "release");
    if !is_release || std::env::var_os("TRUNKLINE_COMMIT").is_some() {
        return;
    }
    // The program's own repository, and not one around a tarball.
    let Some(top) = git(&["rev-parse", "--show-toplevel"]) else { return };
    let is_here = std::env::current_dir().is_ok_and(|here| here == std::path::Path::new(&top));
    let Some(commit) = git(&["rev-parse", "--short=12", "HEAD"]).filter(|_| is_here) else {
        return;
    };
    println!("cargo::rustc-env=TRUNKLINE_COMMIT={commit}");
    // What is written whenever another commit is checked out or made.
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"]) {
        println!("cargo::rerun-if-changed={log}");
    }
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}
