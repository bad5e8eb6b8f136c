//! SIGUSR2: another process follows, and nobody is refused.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::gateway::{Directory, Gateway, binary, is_alive, signal_process};
use crate::support::http::{Connection, Request, exchange};
use crate::support::listener::free_port;
use crate::support::mcp_sse::SseClient;
use crate::support::upstream_http::HttpUpstream;
use crate::support::{in_background, wait_for, wait_until};

fn config(upstream: &HttpUpstream) -> Value {
    json!({ "mcp_servers": { "s": { "url": upstream.url(), "transport": "http" } } })
}

fn call(tool: &str) -> Request {
    Request::post("/mcp/tools/call", &json!({"name": tool, "arguments": {"message": "m"}}))
}

/// The process that follows, ended with the test.
struct Follower(u32);

impl Drop for Follower {
    fn drop(&mut self) {
        if is_alive(self.0) {
            signal_process(self.0, Signal::KILL);
        }
    }
}

/// Sends SIGUSR2, and waits until another process serves.
#[track_caller]
fn upgrade(gateway: &Gateway) -> Follower {
    gateway.signal(Signal::USR2);
    let number = wait_for("another process serves", || {
        let stderr = gateway.stderr();
        let line = stderr.lines().find(|line| line.contains("serves from here on"))?;
        line.split("process ").nth(1)?.split(' ').next()?.parse().ok()
    });
    Follower(number)
}

#[track_caller]
fn wait_for_zombie(gateway: &Gateway) {
    wait_until("the first process ends", || !is_alive(gateway.process_id()));
}

/// Clients that call without a pause until they are told to end.
struct Load {
    over: Arc<AtomicBool>,
    calls: Arc<AtomicUsize>,
    clients: Vec<JoinHandle<Vec<String>>>,
}

impl Load {
    /// Each client gives what went wrong. Every other one keeps its connection until the gateway
    /// says that it closes.
    fn start(address: &str, clients: usize) -> Load {
        let (over, calls) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let clients = (0..clients).map(|number| {
            let (over, calls) = (over.clone(), calls.clone());
            let address = address.to_owned();
            in_background(move || {
                let (mut wrong, mut kept) = (Vec::new(), None);
                while !over.load(Ordering::SeqCst) {
                    let mut connection =
                        kept.take().unwrap_or_else(|| Connection::open(&address));
                    let sent = connection.try_send(&call("echo"));
                    match sent.and_then(|()| connection.try_answer()) {
                        Ok(answer) if answer.status() == 200 => {
                            calls.fetch_add(1, Ordering::SeqCst);
                            let ends = answer.header("connection") == Some("close");
                            kept = (number % 2 == 0 && !ends).then_some(connection);
                        }
                        Ok(answer) => wrong.push(answer.to_string()),
                        Err(error) => wrong.push(error.to_string()),
                    }
                }
                wrong
            })
        });
        let clients = clients.collect();
        Load { over, calls, clients }
    }

    /// Waits for so many calls more.
    #[track_caller]
    fn more(&self, calls: usize) {
        let before = self.calls.load(Ordering::SeqCst);
        wait_until("calls are answered", || {
            self.calls.load(Ordering::SeqCst) >= before + calls
        });
    }

    #[track_caller]
    fn end(self) {
        self.over.store(true, Ordering::SeqCst);
        for client in self.clients {
            assert_eq!(client.join().unwrap(), Vec::<String>::new());
        }
    }
}

#[test]
fn an_upgrade_refuses_nobody_and_loses_no_call() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::started(config(&upstream));
    let session = gateway.mcp();
    let mut slow = gateway.connect();
    slow.send(&call("slow"));
    upstream.wait_for_slow(1);
    // It keeps its connection, and says nothing until later.
    let mut idle = gateway.connect();
    idle.exchange(&call("echo")).expect(200);
    let load = Load::start(gateway.address(), 6);
    load.more(50);
    let follower = upgrade(&gateway);
    load.more(200);
    assert!(is_alive(gateway.process_id()), "it has a call in flight");
    let last = idle.exchange(&call("echo")).expect(200);
    assert_eq!(last.header("connection"), Some("close"));
    // The session goes on with the other process.
    session.call("echo", &json!({"message": "again"}));
    upstream.release_slow();
    assert!(slow.answer().expect(200).json()["content"].is_array());
    wait_for_zombie(&gateway);
    load.more(50);
    load.end();
    // And that one is followed as well.
    signal_process(follower.0, Signal::TERM);
    wait_until("the second process ends", || !is_alive(follower.0));
    assert_eq!(gateway.wait_for_end().code, Some(0));
}

#[test]
fn a_configuration_that_is_bad_by_now_changes_nothing() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::started(config(&upstream));
    gateway.write_config_text("{");
    gateway.signal(Signal::USR2);
    wait_until("it is told", || gateway.stderr().contains("no other process follows"));
    assert_eq!(gateway.call_text("echo", &json!({"message": "m"})), "m");
    assert!(gateway.stderr().contains("exit status: 78"), "{}", gateway.stderr());
}

/// A program that the gateway takes for a newer version of itself: it stands in the place from
/// which the gateway was started.
struct Installed {
    directory: Directory,
    child: Child,
    stderr: PathBuf,
}

impl Installed {
    fn start(config: &Value) -> Installed {
        let directory = Directory::new();
        let [program, file, stderr] =
            ["trunkline", "config.json", "stderr"].map(|name| directory.path().join(name));
        copied(binary().as_ref(), &program);
        std::fs::write(&file, config.to_string()).unwrap();
        let mut command = Command::new(&program);
        command.args(["serve", "--config"]).arg(&file).stdin(Stdio::null());
        let child = command.stderr(std::fs::File::create(&stderr).unwrap()).spawn().unwrap();
        let installed = Installed { directory, child, stderr };
        installed.wait_for("listening on ");
        installed
    }

    fn told(&self) -> String {
        std::fs::read_to_string(&self.stderr).unwrap()
    }

    #[track_caller]
    fn wait_for(&self, text: &str) -> String {
        wait_for(text, || {
            let told = self.told();
            told.lines().find(|line| line.contains(text)).map(str::to_owned)
        })
    }

    fn address(&self) -> String {
        let line = self.wait_for("listening on ");
        line.rsplit("http://").next().unwrap().to_owned()
    }

    /// Another version takes the place of the program, as packages do it.
    fn replace(&self, script: &str) {
        let [written, beside] = ["script", "new"].map(|name| self.directory.path().join(name));
        std::fs::write(&written, script).unwrap();
        copied(&written, &beside);
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&beside, mode).unwrap();
        std::fs::rename(&beside, self.directory.path().join("trunkline")).unwrap();
    }
}

/// Copies a program that is run then. This process never has it open for writing: a child that
/// another test starts at that moment would hold it so, and nobody could run it.
fn copied(from: &Path, to: &Path) {
    assert!(Command::new("cp").args([from, to]).status().unwrap().success());
}

impl Drop for Installed {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[test]
fn a_follower_that_fails_leaves_the_socket_file() {
    let upstream = HttpUpstream::start();
    let mut config = config(&upstream);
    let sockets = Directory::new();
    let socket = sockets.path().join("t.sock");
    config["listen"] = json!(format!("unix:{}", socket.display()));
    let gateway = Installed::start(&config);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    config["admin_listen"] = json!(taken.local_addr().unwrap().to_string());
    std::fs::write(gateway.directory.path().join("config.json"), config.to_string()).unwrap();
    signal_process(gateway.child.id(), Signal::USR2);
    gateway.wait_for("this one goes on");
    std::os::unix::net::UnixStream::connect(&socket).unwrap();
    // One that serves removes the file at its end.
    config.as_object_mut().unwrap().remove("admin_listen");
    std::fs::write(gateway.directory.path().join("config.json"), config.to_string()).unwrap();
    signal_process(gateway.child.id(), Signal::USR2);
    let line = gateway.wait_for("serves from here on");
    let number = line.split("process ").nth(1).unwrap().split(' ').next().unwrap();
    let follower = Follower(number.parse().unwrap());
    wait_until("the first process ends", || !is_alive(gateway.child.id()));
    std::os::unix::net::UnixStream::connect(&socket).unwrap();
    signal_process(follower.0, Signal::TERM);
    wait_until("the file is gone", || !socket.exists());
}

#[test]
fn a_new_version_that_does_not_start_changes_nothing() {
    let upstream = HttpUpstream::start();
    let mut config = config(&upstream);
    config["listen"] = json!("127.0.0.1:0");
    let gateway = Installed::start(&config);
    let refusals = [
        ("#!/bin/sh\nexit 3\n", "exit status: 3"),
        ("\u{7f}ELF no program", "it cannot be started"),
        // It says something that this version does not know.
        ("#!/bin/sh\necho hello >&0\nread word\n", "is not known to this version"),
    ];
    for (script, why) in refusals {
        gateway.replace(script);
        signal_process(gateway.child.id(), Signal::USR2);
        gateway.wait_for(why);
        exchange(&gateway.address(), &call("echo")).expect(200);
    }
    // And then one that does.
    let path = gateway.directory.path().join("trunkline");
    std::fs::remove_file(&path).unwrap();
    copied(binary().as_ref(), &path);
    signal_process(gateway.child.id(), Signal::USR2);
    let line = gateway.wait_for("serves from here on");
    let number = line.split("process ").nth(1).unwrap().split(' ').next().unwrap();
    let _follower = Follower(number.parse().unwrap());
    wait_until("the first process ends", || !is_alive(gateway.child.id()));
    exchange(&gateway.address(), &call("echo")).expect(200);
}

#[test]
fn a_stop_does_not_wait_for_a_process_that_is_to_follow() {
    let upstream = HttpUpstream::start();
    let mut config = config(&upstream);
    config["listen"] = json!("127.0.0.1:0");
    let mut gateway = Installed::start(&config);
    // It never comes to serve, and ends when it is asked to.
    let pid = gateway.directory.path().join("pid");
    gateway.replace(&format!(
        "#!/bin/sh\necho $$ > {0}.new\nmv {0}.new {0}\nexec sleep 600\n",
        pid.display()
    ));
    signal_process(gateway.child.id(), Signal::USR2);
    let other = wait_for("it is started", || std::fs::read_to_string(&pid).ok());
    let other: u32 = other.trim().parse().unwrap();
    signal_process(gateway.child.id(), Signal::USR2);
    gateway.wait_for("is being started already");
    exchange(&gateway.address(), &call("echo")).expect(200);
    signal_process(gateway.child.id(), Signal::TERM);
    let status = wait_for("it ends", || gateway.child.try_wait().unwrap());
    assert_eq!(status.code(), Some(0), "{}", gateway.told());
    assert!(!is_alive(other));
}

/// While the first process has a call in flight, the second is killed: its address and `state_dir`
/// are free for a third one, and nobody connects to a socket that nobody serves.
#[test]
fn a_process_that_is_followed_keeps_nothing_from_a_third_one() {
    let upstream = HttpUpstream::start();
    let mut config = config(&upstream);
    config["state_dir"] = json!("state");
    // No outgoing connection of another test takes this port meanwhile.
    config["listen"] = json!(format!("127.0.0.1:{}", free_port()));
    let gateway = Gateway::started(config.clone());
    let mut slow = gateway.connect();
    slow.send(&call("slow"));
    upstream.wait_for_slow(1);
    let follower = upgrade(&gateway);
    signal_process(follower.0, Signal::KILL);
    wait_until("the second process ends", || !is_alive(follower.0));
    // The first one lets go of the address right after it has told that it is followed.
    wait_until("nobody serves it", || TcpStream::connect(gateway.address()).is_err());
    config["state_dir"] = json!(gateway.directory().join("state"));
    let third = Gateway::started(config);
    exchange(third.address(), &call("echo")).expect(200);
    upstream.release_slow();
    assert!(slow.answer().expect(200).json()["content"].is_array());
    wait_for_zombie(&gateway);
}

#[test]
fn streams_are_opened_again_with_the_process_that_follows() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::started(config(&upstream));
    let session = gateway.mcp();
    let mut listening = session.listen();
    let mut old = SseClient::open(gateway.address(), "/sse");
    let _follower = upgrade(&gateway);
    listening.expect_end();
    old.stream.expect_end();
    drop(session.listen());
    drop(SseClient::open(gateway.address(), "/sse"));
}

#[test]
fn what_is_kept_on_disk_goes_over_with_its_lock() {
    let upstream = HttpUpstream::start();
    let mut config = config(&upstream);
    config["state_dir"] = json!("state");
    config["listen"] = json!("127.0.0.1:0");
    let gateway = Gateway::started(config.clone());
    let session = gateway.mcp();
    let _follower = upgrade(&gateway);
    wait_for_zombie(&gateway);
    session.call("echo", &json!({"message": "again"}));
    // The lock is the other process's.
    let other = gateway.directory().join("other.json");
    std::fs::write(&other, config.to_string()).unwrap();
    let mut second = std::process::Command::new(crate::support::gateway::binary());
    let ended = second.args(["serve", "--config"]).arg(&other).current_dir(gateway.directory());
    let ended = ended.output().unwrap();
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    assert!(String::from_utf8_lossy(&ended.stderr).contains("another gateway is using it"));
    exchange(gateway.address(), &call("echo")).expect(200);
}

#[test]
fn the_listener_of_operators_goes_over_too() {
    let upstream = HttpUpstream::start();
    let mut config = config(&upstream);
    config["admin_listen"] = json!("127.0.0.1:0");
    let gateway = Gateway::started(config);
    let address = wait_for("the listener says where it is", || {
        let text = gateway.stderr();
        let line = text.lines().find(|line| line.contains("metrics and status at "))?;
        line.rsplit(' ').next().map(str::to_owned)
    });
    exchange(&address, &Request::get("/metrics")).expect(200);
    let _follower = upgrade(&gateway);
    exchange(&address, &Request::get("/metrics")).expect(200);
    wait_for_zombie(&gateway);
    exchange(&address, &Request::get("/metrics")).expect(200);
}
