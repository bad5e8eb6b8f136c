//! Killed again and again while sessions and lists change: every start is clean.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;

use super::State;
use crate::support::gateway::Gateway;
use crate::support::http::try_exchange;
use crate::support::mcp::{BOTH, McpClient, initialize_message};
use crate::support::upstream_http::HttpUpstream;
use crate::support::{in_background, wait_until};

const KILLS: usize = 15;

/// What clients know of their sessions, by what was answered.
#[derive(Default)]
struct Known {
    open: Vec<String>,
    ended: Vec<String>,
}

/// Opens sessions and ends every second one, until the gateway is gone.
fn come_and_go(address: &str, known: &Mutex<Known>) {
    loop {
        let request =
            crate::support::http::Request::post("/mcp", &initialize_message(1, "2025-11-25"))
                .header("Accept", BOTH);
        let Ok(answer) = try_exchange(address, &request) else { return };
        let Some(id) = answer.header("Mcp-Session-Id") else { continue };
        let id = id.to_owned();
        if known.lock().unwrap().open.len().is_multiple_of(2) {
            known.lock().unwrap().open.push(id);
            continue;
        }
        let request =
            crate::support::http::Request::new("DELETE", "/mcp").header("Mcp-Session-Id", &id);
        match try_exchange(address, &request) {
            Ok(answer) if answer.status() == 204 => {
                let mut known = known.lock().unwrap();
                known.ended.push(id.clone());
                known.open.push(id);
            }
            // Whether it has ended nobody knows.
            Ok(_) | Err(_) => return,
        }
    }
}

#[test]
fn every_start_is_clean() {
    let (state, upstream) = (State::new(), Arc::new(HttpUpstream::with_tools(&["one"])));
    let config = state.before(&upstream.url());
    let ping = json!({"jsonrpc": "2.0", "id": 1, "method": "ping"}).to_string();
    let known = Arc::new(Mutex::new(Known::default()));
    for round in 0..KILLS {
        let gateway = Gateway::started(config.clone());
        let go_on =
            |id: &str| McpClient::new(gateway.address()).in_session(id).post(&ping).status();
        {
            let known = known.lock().unwrap();
            for id in known.open.iter().rev().take(20) {
                let expected = if known.ended.contains(id) { 404 } else { 200 };
                assert_eq!(go_on(id), expected, "round {round}");
            }
        }
        let n_ended = known.lock().unwrap().ended.len();
        let stop = Arc::new(AtomicBool::new(false));
        let clients: Vec<_> = (0..3)
            .map(|_| {
                let (address, known) = (gateway.address().to_owned(), known.clone());
                in_background(move || come_and_go(&address, &known))
            })
            .collect();
        let changing = {
            let (upstream, stop) = (upstream.clone(), stop.clone());
            in_background(move || {
                let mut n = 0;
                while !stop.load(Ordering::Relaxed) {
                    upstream.set_tools(&["one", &format!("round{round}-{n}")]);
                    upstream.emit("notifications/tools/list_changed", &json!({}));
                    n += 1;
                    std::thread::park_timeout(Duration::from_millis(20));
                }
            })
        };
        wait_until("one is ended", || known.lock().unwrap().ended.len() > n_ended);
        // At another moment each time.
        let moment = 30 + u64::try_from(round).unwrap() * 83 % 700;
        std::thread::park_timeout(Duration::from_millis(moment));
        let told = gateway.kill();
        stop.store(true, Ordering::Relaxed);
        changing.join().unwrap();
        for client in clients {
            client.join().unwrap();
        }
        for word in ["set aside", "cannot be", "panicked"] {
            assert!(!told.contains(word), "round {round}: {told}");
        }
    }
    let known = known.lock().unwrap();
    assert!(known.ended.len() >= KILLS && known.open.len() > known.ended.len());
    // What a kill leaves half written does not stay.
    drop(Gateway::started(config));
    assert!(!state.names().iter().any(|name| name.ends_with(".tmp")), "{:?}", state.names());
}
