//! The usual metrics of a process, read from `/proc/self`.

use std::fs;

use super::prometheus_text::{Exposition, float};

/// Ticks a second in which the kernel counts the time of a process for others: the same on every
/// machine that Linux runs on with glibc or musl (`USER_HZ`).
const TICKS_A_SECOND: f64 = 100.0;

/// The fields of `/proc/self/stat` (proc_pid_stat(5)).
#[derive(Debug, PartialEq)]
struct Stat {
    cpu_seconds: f64,
    threads: f64,
    started_ticks: f64,
    virtual_bytes: f64,
    resident_pages: f64,
}

impl Stat {
    /// The name of the program may hold anything, so the fields are counted behind it.
    fn parse(text: &str) -> Option<Stat> {
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        // The numbers are those of the manual page.
        let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
        Some(Stat {
            cpu_seconds: (field(14)? + field(15)?) / TICKS_A_SECOND,
            threads: field(20)?,
            started_ticks: field(22)?,
            virtual_bytes: field(23)?,
            resident_pages: field(24)?,
        })
    }
}

/// The time at which the machine started, in seconds since 1970.
fn boot_seconds() -> Option<f64> {
    let text = fs::read_to_string("/proc/stat").ok()?;
    text.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

fn soft_limit_of_files() -> Option<f64> {
    let text = fs::read_to_string("/proc/self/limits").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Adds the metrics; values that the system does not give are left out.
pub fn add(all: &mut Exposition) {
    let stat = fs::read_to_string("/proc/self/stat").ok();
    if let Some(stat) = stat.as_deref().and_then(Stat::parse) {
        let cpu = "Processor time of the process in seconds.";
        all.add_counter("process_cpu_seconds_total", cpu, stat.cpu_seconds);
        all.add_gauge("process_threads", "Threads of the process.", stat.threads);
        let size = "Virtual memory of the process.";
        all.add_gauge("process_virtual_memory_bytes", size, stat.virtual_bytes);
        let pages = stat.resident_pages * float(rustix::param::page_size());
        all.add_gauge("process_resident_memory_bytes", "Memory that the process holds.", pages);
        if let Some(boot) = boot_seconds() {
            let started = boot + stat.started_ticks / TICKS_A_SECOND;
            let what = "When the process started, in seconds since 1970.";
            all.add_gauge("process_start_time_seconds", what, started);
        }
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        all.add_gauge("process_open_fds", "Open file descriptors.", float(open.count()));
    }
    if let Some(max) = soft_limit_of_files() {
        all.add_gauge("process_max_fds", "Most file descriptors that may be open.", max);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_the_program_may_hold_anything() {
        let text = "1 (a) b) c) S 1 2 3 4 5 6 7 8 9 10 150 50 13 14 15 16 7 18 1000 4096 25 19";
        let stat = Stat::parse(text).unwrap();
        assert_eq!((stat.cpu_seconds, stat.threads), (2.0, 7.0));
        assert_eq!(
            (stat.started_ticks, stat.virtual_bytes, stat.resident_pages),
            (1000.0, 4096.0, 25.0)
        );
        assert_eq!(Stat::parse("1 (a) S 1"), None);
    }
}
