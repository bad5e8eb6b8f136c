//! What a service manager passes to the gateway, and what it is told (sd_listen_fds(3),
//! sd_notify(3)): played by the test.

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;

use crate::support::DEADLINE;
use crate::support::gateway::{Directory, Gateway, binary, signal_process};
use crate::support::http::{Connection, Request, exchange};
use crate::support::upstream_http::HttpUpstream;
use crate::support::{wait_for, wait_until};

/// A gateway that was started with a socket that listens.
struct Activated(Child);

impl Activated {
    /// Starts it as a manager does: descriptor 3 is the socket.
    fn start(socket: &TcpListener, config: &Path) -> Activated {
        let script = "exec 3<&0 </dev/null; export LISTEN_FDS=1 LISTEN_PID=$$; exec \"$@\"";
        let mut shell = Command::new("sh");
        shell.args(["-c", script, "sh", binary(), "serve", "--config"]).arg(config);
        let socket = OwnedFd::from(socket.try_clone().unwrap());
        shell.stdin(Stdio::from(socket)).stderr(Stdio::null());
        Activated(shell.spawn().unwrap())
    }

    fn stop(&self) {
        signal_process(self.0.id(), Signal::TERM);
    }

    fn has_ended(&mut self) -> Option<i32> {
        self.0.try_wait().unwrap().map(|status| status.code().unwrap_or(-1))
    }
}

impl Drop for Activated {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn call(tool: &str) -> Request {
    Request::post("/mcp/tools/call", &json!({"name": tool, "arguments": {"message": "m"}}))
}

#[test]
fn a_socket_that_is_passed_is_served_and_refuses_nobody_over_a_restart() {
    let upstream = HttpUpstream::start();
    let directory = Directory::new();
    let path = directory.path().join("config.json");
    // Where the file says to listen is nobody's business then.
    let config = json!({
        "listen": "192.0.2.1:1",
        "allow_anonymous": true,
        "limits": { "drain_ms": 20_000 },
        "mcp_servers": { "s": { "url": upstream.url(), "transport": "http" } },
    });
    std::fs::write(&path, config.to_string()).unwrap();
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap().to_string();
    // Connected before there is a process.
    let mut early = Connection::open(&address);
    early.send(&call("echo"));
    let mut first = Activated::start(&socket, &path);
    assert_eq!(early.answer().expect(200).json()["content"][0]["text"], "m");

    let mut slow = Connection::open(&address);
    slow.send(&call("slow"));
    upstream.wait_for_slow(1);
    first.stop();
    // Whoever comes while it drains waits for the next process.
    wait_until("it drains", || {
        let mut probe = Connection::open(&address);
        probe.send(&Request::get("/readyz"));
        let deadline = std::time::Instant::now() + Duration::from_secs(1);
        probe.try_head(deadline).map_or(true, |head| head.status() == 503)
    });
    let mut waiting: Vec<_> = (0..20)
        .map(|_| {
            let mut connection = Connection::open(&address);
            connection.send(&call("echo"));
            connection
        })
        .collect();
    upstream.release_slow();
    assert!(slow.answer().expect(200).json()["content"].is_array());
    assert_eq!(wait_for("the first ends", || first.has_ended()), 0);
    let mut second = Activated::start(&socket, &path);
    for connection in &mut waiting {
        assert_eq!(connection.answer().expect(200).json()["content"][0]["text"], "m");
    }
    // It alone is left to answer.
    exchange(&address, &call("echo")).expect(200);
    second.stop();
    assert_eq!(wait_for("the second ends", || second.has_ended()), 0);
}

/// What the manager is told next.
#[track_caller]
fn told(manager: &UnixDatagram) -> String {
    let mut text = [0; 256];
    let read = manager.recv(&mut text).expect("the manager is told something");
    String::from_utf8_lossy(&text[..read]).trim().to_owned()
}

#[test]
fn the_manager_is_told_what_the_gateway_does() {
    let upstream = HttpUpstream::start();
    let directory = Directory::new();
    let path = directory.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(DEADLINE)).unwrap();
    let config =
        json!({ "mcp_servers": { "s": { "url": upstream.url(), "transport": "http" } } });
    let gateway = Gateway::with(config.clone())
        .env("NOTIFY_SOCKET", path.to_str().unwrap())
        .env("WATCHDOG_USEC", "300000")
        .start();
    assert_eq!(told(&manager), "READY=1");
    assert_eq!(told(&manager), "WATCHDOG=1");
    let next = || {
        let words = std::iter::repeat_with(|| told(&manager));
        words.into_iter().find(|word| word != "WATCHDOG=1").unwrap()
    };
    gateway.write_config(&config);
    gateway.signal(Signal::HUP);
    let reloading = next();
    assert!(reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{reloading}");
    assert_eq!(next(), "READY=1");
    // A bad one too: the reload is over.
    gateway.write_config_text("{");
    gateway.signal(Signal::HUP);
    assert!(next().starts_with("RELOADING=1"));
    assert_eq!(next(), "READY=1");
    gateway.signal(Signal::TERM);
    assert_eq!(next(), "STOPPING=1");
    assert_eq!(gateway.wait_for_end().code, Some(0));
}

#[test]
fn signals_of_others_do_no_harm() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::before(&upstream.url());
    gateway.signal(Signal::USR1);
    wait_until("it is told", || gateway.stderr().contains("SIGUSR1"));
    assert_eq!(gateway.call_text("echo", &json!({"message": "m"})), "m");
}
