//! Retrying is waiting. Every kind of failure stands behind every way on which something of an
//! upstream is tried again, and what reaches the server is counted:
//!
//! | way | Streamable HTTP | HTTP+SSE | stateless | child |
//! |---|---|---|---|---|
//! | handshake, question of the era | x | x | x | x |
//! | each of the four lists, from the start and later | x | x | x | x |
//! | stream of what is said unasked | x | that is the handshake | `subscriptions/listen` | x |
//! | subscribing again, log level | x | x | – | – |
//! | control lane | x | x | – | – |
//! | a client's own session | x | – | – | – |
//!
//! Each cell is tried again, and not more often than the shortest waits of the backoff allow.

mod asked_time;
mod cells;
mod children;
mod faults;
mod undeclared;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use crate::support::figures::{starts_max, tries_max};
use crate::support::gateway::Gateway;
use crate::support::mcp::McpClient;
use crate::support::{Turn, crowd, wait_until, wait_within};
use cells::{Cell, Cells, Path, Speech};
use faults::{Asked, FAULTS, Fault};

/// For so long is counted.
const WINDOW: Duration = Duration::from_secs(12);
/// Of each server, and of the start of each child. What is answered comes earlier, though dozens of
/// them begin at once; what is not answered is tried again within the window.
const TIMEOUT_MS: u64 = 2000;
/// A machine that is busy makes no try come sooner than its time, but a cell turn later.
const PATIENCE: Duration = Duration::from_secs(60);
const SPEECHES: [Speech; 3] = [Speech::Sessions, Speech::HttpSse, Speech::Modern];
const LISTS: [Path; 4] = [Path::Tools, Path::Prompts, Path::Resources, Path::Templates];

#[test]
fn a_dozen_tries_reach_a_server_in_the_first_minute() {
    let minute = Duration::from_secs(60);
    assert!(tries_max(minute) <= 12 && starts_max(minute) < 8);
}

struct Table {
    cells: Cells,
    gateway: Gateway,
    began: Instant,
    _turn: Turn,
}

impl Table {
    fn start(cells: Vec<Cell>) -> Table {
        let turn = crowd();
        let cells = Cells::start(cells);
        let of = |cell: &Arc<Cell>| (cell.name.clone(), cell.config(cells.port));
        let servers: Map<String, Value> = cells.cells.iter().map(of).collect();
        let gateway = Gateway::with(json!({ "mcp_servers": servers })).start();
        Table { cells, gateway, began: Instant::now(), _turn: turn }
    }

    fn each(&self) -> impl Iterator<Item = &Arc<Cell>> {
        self.cells.cells.iter()
    }

    /// Waits until all are listed and can be heard, and turns them.
    fn turn(&mut self, are_heard: impl Fn(&Cell) -> bool) {
        wait_within(PATIENCE, "all are listed", || {
            let all = self.status();
            let is_listed = |cell: &&Arc<Cell>| all[&cell.name]["tools"] == 1;
            let is_heard = |cell: &&Arc<Cell>| cell.is_heard() || !are_heard(cell);
            self.each().all(|cell| is_listed(&cell) && is_heard(&cell)).then_some(())
        });
        self.each().for_each(|cell| cell.turn());
        self.began = Instant::now();
    }

    fn status(&self) -> HashMap<String, Value> {
        let status = self.gateway.get("/status").expect(200).json();
        let all = status["upstreams"].as_array().unwrap().iter();
        all.map(|it| (it["server"].as_str().unwrap().to_owned(), it.clone())).collect()
    }

    /// Lets the window pass; `look` is called now and then.
    fn pass(&self, mut look: impl FnMut()) {
        while self.began.elapsed() < WINDOW {
            look();
            std::thread::park_timeout(Duration::from_millis(500));
        }
    }

    /// Nothing has come too often, and what was to be tried again was.
    fn count(&self, is_tried_again: impl Fn(&Cell) -> bool) {
        let least = |cell: &Cell| if is_tried_again(cell) { 2 } else { 1 };
        let n_tries = |cell: &Cell| cell.tries().values().copied().max().unwrap_or_default();
        // On a busy machine the window may be too short for that.
        while self.each().any(|cell| n_tries(cell) < least(cell))
            && self.began.elapsed() < PATIENCE
        {
            std::thread::park_timeout(Duration::from_millis(100));
        }
        let max = tries_max(self.began.elapsed()) + 1;
        let mut wrong = Vec::new();
        for cell in self.each() {
            for (kind, n) in cell.counts() {
                if n > max && !["tools/call", "notifications/initialized"].contains(&&*kind) {
                    wrong.push(format!("{}: {n} times {kind}, not {max}", cell.name));
                }
            }
            let n = n_tries(cell);
            if n < least(cell) {
                wrong.push(format!("{}: tried {n} times, {:?}", cell.name, cell.counts()));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
}

/// Without templates many a server does not know of them.
fn is_failure(path: Path, fault: &Fault) -> bool {
    !(path == Path::Templates && fault.name == "unknown_method")
}

/// What a list is answered with is a failure of that list alone: the server is ready, calls of
/// its tools go through, and `/status` tells which list it is and when it is tried again.
fn lists_fail_alone(speech: Speech) {
    let later = LISTS.into_iter().flat_map(|path| {
        let faults = FAULTS.iter().filter(move |fault| is_failure(path, fault));
        faults.map(move |fault| Cell::new(speech, path, *fault).well("later"))
    });
    let mut table = Table::start(later.collect());
    table.turn(|_| true);
    table.each().for_each(|cell| cell.announce());
    let mut n_looks = 0;
    table.pass(|| {
        n_looks += 1;
        for cell in table.each().skip(n_looks % 8).step_by(8) {
            let text = table.gateway.call_text(&format!("{}-echo", cell.name), &json!({}));
            assert_eq!(text, "well", "{}", cell.name);
        }
        for (server, status) in table.status() {
            assert_eq!(status["state"], "ready", "{server}: {status}");
        }
    });
    table.count(|_| true);
    let all = table.status();
    for cell in table.each() {
        let (_, key) = cell.path.list().unwrap();
        let (status, told) = (&all[&cell.name], &all[&cell.name]["unread_lists"][key]);
        assert!(told["next_try_ms"].is_u64(), "{}: {status}", cell.name);
        assert_eq!(told["last_failure"]["stage"], "list", "{}: {status}", cell.name);
        assert_eq!(status["tools"], 1, "{}: {status}", cell.name);
        assert_eq!(status["restarts"], 0, "{}: {status}", cell.name);
    }
    let initialized = |cell: &&Arc<Cell>| cell.counts().contains_key("initialize");
    let torn: Vec<_> = table.each().filter(initialized).map(|cell| &cell.name).collect();
    assert!(torn.is_empty(), "their sessions were well: {torn:?}");
}

#[test]
fn lists_of_sessions_fail_alone() {
    lists_fail_alone(Speech::Sessions);
}

#[test]
fn lists_over_http_sse_fail_alone() {
    lists_fail_alone(Speech::HttpSse);
}

#[test]
fn lists_without_sessions_fail_alone() {
    lists_fail_alone(Speech::Modern);
}

#[test]
fn a_first_list_that_fails_leaves_the_server_ready_and_is_told() {
    let cells = SPEECHES.into_iter().flat_map(|speech| {
        FAULTS.iter().map(move |fault| Cell::new(speech, Path::Tools, *fault))
    });
    let table = Table::start(cells.collect());
    table.pass(|| ());
    table.count(|_| true);
    for (server, status) in table.status() {
        assert_eq!(status["state"], "ready", "{server}: {status}");
        assert!(status["unread_lists"]["tools"]["next_try_ms"].is_u64(), "{server}: {status}");
        assert_eq!(status["resources"], 1, "{server}: {status}");
    }
    let error = table.gateway.call("Sessions-Tools-html-echo", &json!({}));
    assert_ne!(error.status(), 200);
}

#[test]
fn a_handshake_that_fails_is_tried_again_by_and_by() {
    let cells = SPEECHES.into_iter().flat_map(|speech| {
        FAULTS.iter().map(move |fault| Cell::new(speech, Path::Handshake, *fault))
    });
    let table = Table::start(cells.collect());
    table.pass(|| ());
    table.count(|_| true);
    for (server, status) in table.status() {
        let state = status["state"].as_str().unwrap();
        assert!(["backing_off", "down"].contains(&state), "{server}: {status}");
        assert!(status["next_try_ms"].is_u64(), "{server}: {status}");
    }
}

#[test]
fn a_stream_that_is_not_to_be_had_is_asked_for_by_and_by() {
    let of = |speech, path| FAULTS.iter().map(move |fault| Cell::new(speech, path, *fault));
    let cells = of(Speech::Sessions, Path::Stream).chain(of(Speech::Modern, Path::Listen));
    let table = Table::start(cells.collect());
    table.pass(|| {
        let gone = table.status().into_iter().find(|(_, status)| {
            status["state"] != "ready" && table.began.elapsed() > WINDOW / 2
        });
        assert!(gone.is_none(), "{gone:?}");
    });
    table.count(|cell| match (cell.path, cell.fault.stream) {
        (_, Asked::Waits) => false,
        (Path::Stream, asked) => asked == Asked::Again,
        _ => cell.fault.name != "unknown_method",
    });
}

#[test]
fn what_a_new_session_is_told_is_told_by_and_by() {
    let legacy = [Speech::Sessions, Speech::HttpSse];
    let cells = legacy.into_iter().flat_map(|speech| {
        let paths = [Path::LogLevel, Path::Subscribe, Path::Answer].into_iter();
        paths.flat_map(move |path| {
            let faults = FAULTS.iter().filter(|fault| !fault.is_of_lists());
            faults.map(move |fault| Cell::new(speech, path, *fault).well("later"))
        })
    });
    let mut table = Table::start(cells.collect());
    let client = {
        let listed = |all: &HashMap<String, Value>| all.values().all(|it| it["tools"] == 1);
        wait_within(PATIENCE, "all are listed", || listed(&table.status()).then_some(()));
        McpClient::open(table.gateway.address())
    };
    client.result("logging/setLevel", &json!({ "level": "debug" }));
    for cell in table.each() {
        let uri = format!("cell:{}", cell.name);
        client.result("resources/subscribe", &json!({ "uri": uri }));
        wait_until("its level is set", || cell.counts().contains_key("logging/setLevel"));
    }
    table.turn(|_| true);
    table.each().for_each(|cell| cell.lose_sessions());
    table.pass(|| ());
    table.count(|cell| match cell.path {
        // What is said on the side is not said again.
        Path::Answer => false,
        _ => cell.fault.name != "unknown_method",
    });
    for cell in table.each().filter(|cell| cell.path == Path::Answer) {
        let counts = cell.counts();
        assert!(counts["answer"] <= counts["GET"], "{}: {counts:?}", cell.name);
    }
}

#[test]
fn a_clients_own_session_that_is_lost_is_opened_by_and_by() {
    let cells = FAULTS
        .iter()
        .map(|fault| Cell::new(Speech::Sessions, Path::Handshake, *fault).well("later"));
    let mut table = Table::start(cells.collect());
    let listed = |all: &HashMap<String, Value>| all.values().all(|it| it["tools"] == 1);
    wait_within(PATIENCE, "all are listed", || listed(&table.status()).then_some(()));
    let capabilities = json!({ "sampling": {} });
    let client = McpClient::new(table.gateway.address()).declaring(capabilities).opened();
    for cell in table.each() {
        let uri = format!("cell:{}", cell.name);
        client.result("resources/subscribe", &json!({ "uri": uri }));
    }
    table.turn(|_| true);
    table.each().for_each(|cell| cell.lose_sessions());
    table.pass(|| ());
    let max = 2 * (tries_max(table.began.elapsed()) + 1);
    for cell in table.each() {
        let n = cell.counts().get("initialize").copied().unwrap_or_default();
        // The shared one and its own.
        assert!((3..=max).contains(&n), "{}: {n}, not {max}", cell.name);
    }
}
