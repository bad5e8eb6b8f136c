//! The settings of the C library's allocator, which it reads once, before `main`: the program
//! starts itself anew with them.
//!
//! By default, glibc gives each thread an arena of its own and keeps freed memory in each; and
//! once an answer of some megabytes has been freed, the next ones come from there too. With these
//! settings a large piece of memory is mapped by itself, and goes back to the system when it is
//! freed.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use crate::limits::{
    ALLOCATOR_ARENAS_MAX, ALLOCATOR_KEPT_BYTES, ALLOCATOR_MAPPED_FROM_BYTES, STACKS_KEPT_BYTES,
};

/// The variable from which glibc reads its settings.
const TUNABLES: &str = "GLIBC_TUNABLES";
/// A variable that is set when the program was started anew. The system removes [`TUNABLES`] from
/// the environment of programs with capabilities of their own, so that variable is no sign.
const BEGUN_ANEW: &str = "TRUNKLINE_ALLOCATOR_SET";
/// Variables by which a user sets the allocator; then the settings are left as they are.
const THEIRS: [&str; 4] =
    [TUNABLES, "MALLOC_ARENA_MAX", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"];

/// Starts the program anew with the allocator's settings, if it runs without any. Returns where
/// it has them, and where it cannot restart: it serves without them too, and is only larger.
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
    // Where the program was started by a loader, the loader is the running executable.
    if program.file_name() != Path::new(&name).file_name() {
        return;
    }
    let mut anew = Command::new(program);
    anew.arg0(name).args(arguments).env(TUNABLES, settings).env(BEGUN_ANEW, "1");
    // `exec` returns only if it fails.
    drop(anew.exec());
}
