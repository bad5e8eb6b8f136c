//! What the kernel tells of a process's threads (proc(5)): whether they have anything to do, and
//! how long they were kept from it.

use std::path::{Path, PathBuf};
use std::time::Duration;

fn threads_of(process: u32) -> Vec<PathBuf> {
    let threads = std::fs::read_dir(format!("/proc/{process}/task"));
    threads.into_iter().flatten().flatten().map(|thread| thread.path()).collect()
}

/// The text of a thread's file. Empty if the thread has ended.
fn read(thread: &Path, file: &str) -> String {
    std::fs::read_to_string(thread.join(file)).unwrap_or_default()
}

/// True if a thread of the process runs, or waits for a core.
fn has_work(process: u32) -> bool {
    let works = |thread: PathBuf| {
        let status = read(&thread, "status");
        let state = status.lines().find(|line| line.starts_with("State:"));
        state.is_some_and(|it| it.contains("(running)") || it.contains("(disk sleep)"))
    };
    threads_of(process).into_iter().any(works)
}

/// True if all threads of a process wait for something to happen, so that what happened so far has
/// had its effects.
pub fn are_asleep(process: u32) -> bool {
    // A thread that was looked at may have been woken by one that was looked at later.
    (0..3).all(|_| !has_work(process))
}

/// The folder about the thread that asks.
pub fn own() -> PathBuf {
    Path::new("/proc").join(std::fs::read_link("/proc/thread-self").unwrap_or_default())
}

/// True if the thread that this folder is about waits for something to happen.
pub fn is_asleep(thread: &Path) -> bool {
    !read(thread, "status").contains("(running)")
}

/// How long the threads of a process and those of its children have been ready to run without a
/// core: the second number of each `schedstat`. Nothing where the kernel does not count that.
pub fn waited_for_cores(process: u32) -> Duration {
    let of_thread = |thread: PathBuf| {
        let children: Duration = read(&thread, "children")
            .split_whitespace()
            .filter_map(|child| child.parse().ok())
            .map(waited_for_cores)
            .sum();
        second_of(&read(&thread, "schedstat")) + children
    };
    threads_of(process).into_iter().map(of_thread).sum()
}

/// [`waited_for_cores`] of the thread that asks.
pub fn has_waited_for_cores() -> Duration {
    second_of(&read(&own(), "schedstat"))
}

fn second_of(schedstat: &str) -> Duration {
    let number = schedstat.split_whitespace().nth(1).and_then(|word| word.parse().ok());
    Duration::from_nanos(number.unwrap_or_default())
}
