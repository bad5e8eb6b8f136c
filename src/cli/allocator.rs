//! How the C library's allocator is set: it reads its settings once, before `main`, so that the
//! program that has to have them is begun anew with them.
//!
//! Left alone, glibc gives each thread an arena of its own and keeps in each what was freed; and
//! once an answer of some megabytes has been freed, the next ones come from there too. With these
//! settings whatever is large is mapped by itself, and goes back to the system when it is freed.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use crate::limits::{
    ALLOCATOR_ARENAS_MAX, ALLOCATOR_KEPT_BYTES, ALLOCATOR_MAPPED_FROM_BYTES, STACKS_KEPT_BYTES,
};

/// Where glibc reads its settings.
const TUNABLES: &str = "GLIBC_TUNABLES";
/// Set in the environment of a program that was begun anew. The system takes [`TUNABLES`] out of
/// the environment of programs with capabilities of their own, so that it is no sign.
const BEGUN_ANEW: &str = "TRUNKLINE_ALLOCATOR_SET";
/// Whoever sets one of these has settings of their own, which are left as they are.
const THEIRS: [&str; 4] =
    [TUNABLES, "MALLOC_ARENA_MAX", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"];

/// Begins the program anew with the allocator's settings, if it runs without any. Returns where
/// it has them, and where it cannot: it serves without them too, and is only larger.
pub(super) fn set() {
    let is_set = |name: &str| std::env::var_os(name).is_some();
    if !cfg!(target_env = "gnu") || is_set(BEGUN_ANEW) || THEIRS.into_iter().any(is_set) {
        return;
    }
    let Ok(program) = std::env::current_exe() else { return };
    let settings = format!(
        "glibc.malloc.arena_max={ALLOCATOR_ARENAS_MAX}\
         :glibc.malloc.mmap_threshold={ALLOCATOR_MAPPED_FROM_BYTES}\
         :glibc.malloc.trim_threshold={ALLOCATOR_KEPT_BYTES}\
         :glibc.pthread.stack_cache_size={STACKS_KEPT_BYTES}"
    );
    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_else(|| program.clone().into_os_string());
    // Where a loader was given the program, the loader is what runs.
    if program.file_name() != Path::new(&name).file_name() {
        return;
    }
    let mut anew = Command::new(program);
    anew.arg0(name).args(arguments).env(TUNABLES, settings).env(BEGUN_ANEW, "1");
    // It returns only where it has failed.
    drop(anew.exec());
}
