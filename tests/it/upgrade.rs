//! SIGUSR2: another process follows, and nobody is refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::gateway::{Gateway, is_alive, signal_process};
use crate::support::http::{Connection, Request, exchange};
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
