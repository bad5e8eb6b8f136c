//! A server that somebody answers for, but that never becomes usable: it refuses whoever opens
//! a session. However often a client wants it, it is tried with a backoff.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::gateway::{Directory, Gateway};
use crate::support::listener::Listener;
use crate::support::upstream_http::respond;

/// Much longer than the pause between two attempts that calls may ask for.
const FOR: Duration = Duration::from_secs(4);
/// What the backoff begins with, an attempt each second after that, and some more.
const ATTEMPTS_MAX: usize = 14;
/// It is asked which era it speaks, and then for a session.
const REQUESTS_PER_ATTEMPT: usize = 3;

/// Calls in a tight loop; gives how many calls there were.
fn want(gateway: &Gateway) -> usize {
    let (began, mut n_calls) = (Instant::now(), 0);
    while began.elapsed() < FOR {
        let error = gateway.call("echo", &json!({})).expect_error(502);
        assert_eq!(error["server"], "s", "{error}");
        n_calls += 1;
    }
    n_calls
}

fn never_ready(server: &Value) -> Gateway {
    Gateway::with(json!({ "mcp_servers": { "s": server } })).start()
}

#[test]
fn a_server_that_refuses_its_token_is_not_tried_at_the_pace_of_calls() {
    let seen = Arc::new(AtomicUsize::new(0));
    let counting = seen.clone();
    let server = Listener::absent(move |_, out| {
        counting.fetch_add(1, Ordering::SeqCst);
        let answered = respond(out, "401 Unauthorized", &[], "who are you?");
        out.flush()?;
        answered
    });
    server.start();
    let url = format!("http://127.0.0.1:{}/mcp", server.port());
    let gateway = never_ready(&json!({ "url": url, "transport": "http" }));
    let n_calls = want(&gateway);
    let n_seen = seen.load(Ordering::SeqCst);
    assert!(
        (2..=ATTEMPTS_MAX * REQUESTS_PER_ATTEMPT).contains(&n_seen),
        "{n_seen} requests for {n_calls} calls"
    );
}

#[test]
fn a_child_that_refuses_to_begin_is_not_started_at_the_pace_of_calls() {
    let directory = Directory::new();
    let starts = directory.path().join("starts");
    let script = format!(
        r#"echo x >> '{}'
        while read -r line; do
            case "$line" in *'"id":'*)
                id=${{line#*'"id":'}}
                printf '{{"jsonrpc":"2.0","id":%s,"error":{{"code":-32000,"message":"no license"}}}}\n' "${{id%%,*}}"
            esac
        done"#,
        starts.display()
    );
    let file = directory.path().join("child.sh");
    std::fs::write(&file, script).unwrap();
    let gateway = never_ready(&json!({ "command": "sh", "args": [file.to_str().unwrap()] }));
    let n_calls = want(&gateway);
    let n_starts = std::fs::read_to_string(&starts).unwrap().lines().count();
    assert!((2..=ATTEMPTS_MAX).contains(&n_starts), "{n_starts} starts for {n_calls} calls");
    let failure = gateway.status_of("s").to_string();
    assert!(failure.contains("no license"), "{failure}");
}
