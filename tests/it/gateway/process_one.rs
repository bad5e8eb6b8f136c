//! The gateway as process 1 of a container: it reaps what is left to it, and hears signals.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use rustix::process::Signal;
use serde_json::json;

use crate::support::gateway::{Directory, binary, scripted_child, signal_process};
use crate::support::{in_background, wait_for, wait_until};

/// A process namespace of its own, and all in it.
struct Container(Child);

impl Drop for Container {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// The processes of this machine whose command line holds a text, oldest first.
fn processes(text: &str) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let mut found: Vec<u32> = entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|id: &u32| {
            let line = std::fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).replace('\0', " ").contains(text)
        })
        .collect();
    found.sort_unstable();
    found
}

#[test]
fn orphans_are_reaped_and_signals_are_heard() {
    let unshare = ["--fork", "--pid", "--kill-child"];
    let can = Command::new("unshare").args(unshare).arg("true").stderr(Stdio::null()).status();
    if !can.is_ok_and(|status| status.success()) {
        crate::support::left_out(module_path!(), "no process namespace can be made here");
        return;
    }
    let directory = Directory::new();
    let path = directory.path().join("config.json");
    // Its parent ends at once, so that it is left to process 1.
    let orphan = format!("sleep 3{}.25", std::process::id());
    let script = format!("({orphan} &); exec \"$0\"");
    let config = json!({
        "listen": "127.0.0.1:0",
        "mcp_servers": {
            "s": { "command": "sh", "args": ["-c", script, scripted_child()] },
        },
    });
    std::fs::write(&path, config.to_string()).unwrap();
    let mut command = Command::new("unshare");
    command.args(unshare).arg(binary()).args(["serve", "--config"]).arg(&path);
    let mut container = Container(command.stderr(Stdio::piped()).spawn().unwrap());
    let stderr = container.0.stderr.take().unwrap();
    let told = Arc::<Mutex<String>>::default();
    let lines = told.clone();
    let reading = in_background(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            lines.lock().unwrap().extend([&line, "\n"]);
        }
    });
    let left = wait_for("the orphan is there", || {
        processes(&orphan).into_iter().find(|id| {
            let name = std::fs::read_to_string(format!("/proc/{id}/comm")).unwrap_or_default();
            name.trim() == "sleep"
        })
    });
    signal_process(left, Signal::KILL);
    wait_until("it is reaped", || !std::path::Path::new(&format!("/proc/{left}")).exists());
    // Process 1 of the namespace is the only child of `unshare`.
    let config = path.to_str().unwrap();
    let ours = processes(&format!("{} serve --config {config}", binary()));
    let first = ours.into_iter().find(|id| *id != container.0.id()).expect("process 1");
    // All else would end with it, its successor too.
    signal_process(first, Signal::USR2);
    wait_until("it is told", || told.lock().unwrap().contains("upgraded by replacing it"));
    signal_process(first, Signal::TERM);
    let status = wait_for("it ends", || container.0.try_wait().unwrap());
    reading.join().unwrap();
    let told = told.lock().unwrap();
    assert!(told.contains("stopping"), "{told}");
    assert_eq!(status.code(), Some(0), "{told}");
}
