//! Which era an upstream speaks: found at first contact, and found anew when it turns out
//! wrong, with no call lost that can be saved.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use trunkline::config::HttpKind;
use trunkline::limits::Limits;

use super::modern_rig::*;
use super::rig::*;

/// A script's answer to `server/discover`, by its name.
type Probe = (&'static str, fn(&Seen) -> Reply);

fn refusal(status: u16, body: &'static str) -> Reply {
    Reply::Body(status, String::new(), "application/json", body.to_owned())
}

#[test]
fn the_answer_to_the_first_request_tells_the_era_over_http() {
    let modern_signs: [Probe; 4] = [
        ("a result", |seen| Reply::json(seen.result(DISCOVERED))),
        ("a header mismatch", |seen| error(seen, 400, -32020, "null")),
        ("a missing capability", |seen| error(seen, 400, -32021, "null")),
        ("our revision", unsupported),
    ];
    let legacy_signs: [Probe; 12] = [
        ("no session", |_| {
            refusal(
                400,
                r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32600,"message":"Bad Request: Missing session ID"}}"#,
            )
        }),
        ("no session, plainly", |_| Reply::status(400, "Bad Request: no session")),
        ("no method", |seen| error(seen, 200, -32601, "null")),
        ("no parameters", |seen| error(seen, 400, -32602, "null")),
        ("no such page", |_| Reply::status(404, "")),
        ("no POST", |_| Reply::status(405, "")),
        ("a mistake", |_| Reply::status(500, "oops")),
        ("no answer wanted", |_| Reply::status(202, "")),
        ("a page", |_| Reply::Body(200, String::new(), "text/html", "<html>".to_owned())),
        ("another revision", |seen| {
            error(seen, 400, -32022, r#"{"supported":["2025-11-25"]}"#)
        }),
        ("a result without ours", |seen| {
            Reply::json(
                seen.result(r#"{"supportedVersions":["2025-11-25"],"capabilities":{}}"#),
            )
        }),
        ("the end of the connection", |_| Reply::Close),
    ];
    let modern_signs = modern_signs.map(|probe| (probe, MODERN));
    let legacy_signs = legacy_signs.map(|probe| (probe, LEGACY));
    for ((name, probe), revision) in modern_signs.into_iter().chain(legacy_signs) {
        for kind in [HttpKind::StreamableHttp, HttpKind::Auto] {
            let server = Server::start(move |seen| match seen.rpc().as_str() {
                "server/discover" => probe(seen),
                _ if revision == MODERN => modern(seen),
                _ => legacy(seen),
            });
            let rig = Rig::ready_with(http(server.address, kind), Limits::default());
            assert_eq!(rig.revision(), revision, "{name}");
            text(rig.call());
            assert_eq!(server.count("server/discover"), 1, "{name}");
        }
    }
}

#[test]
fn silence_is_taken_for_the_older_era() {
    let server = Server::start(|seen| match seen.rpc().as_str() {
        "server/discover" => Reply::Hang,
        _ => legacy(seen),
    });
    let mut config = http(server.address, HttpKind::StreamableHttp);
    config.timeout = Duration::from_secs(1);
    let rig = Rig::ready_with(config, Limits::default());
    assert_eq!(rig.revision(), LEGACY);
    text(rig.call());
}

#[test]
fn no_connection_is_no_era() {
    let server = Server::start(modern);
    let address = server.address;
    drop(server);
    let rig = Rig::start(http(address, HttpKind::StreamableHttp), Limits::default());
    assert!(rig.failure().message.contains("connection refused"));
    let server = Server::start_at(address, modern);
    rig.tools();
    assert_eq!((rig.revision().as_str(), server.count("initialize")), (MODERN, 0));
}

#[test]
fn what_speaks_neither_says_so() {
    let server =
        Server::start(|seen| error(seen, 400, -32022, r#"{"supported":["2099-01-01"]}"#));
    let rig = Rig::start(http(server.address, HttpKind::StreamableHttp), Limits::default());
    let failure = rig.failure();
    assert!(failure.message.contains("server/discover"), "{}", failure.message);
    assert_eq!(server.count("initialize"), 0);
}

#[test]
fn an_upgrade_while_running_loses_no_call() {
    let (server, is_modern) = exchangeable(false);
    let rig = Rig::ready(&server);
    assert_eq!(rig.revision(), LEGACY);
    let anna = client("anna");
    text(rig.call_through(&anna, "echo"));
    let before = server.count("tools/call");
    is_modern.store(true, Ordering::SeqCst);
    assert_eq!(text(rig.call()), r#"{"content":[]}"#);
    // Refused once, then served.
    assert_eq!(server.count("tools/call"), before + 2);
    assert_eq!(rig.tools(), ["fresh"]);
    eventually("the revision is shown", || rig.revision() == MODERN);
    // A client's own session is refused once, and goes over the shared link from there on.
    for n in [4, 5] {
        text(rig.call_through(&anna, "echo"));
        assert_eq!(server.count("tools/call"), before + n);
    }
}

#[test]
fn a_clients_own_session_finds_an_upgrade_too() {
    let (server, is_modern) = exchangeable(false);
    let rig = Rig::ready(&server);
    let anna = client("anna");
    text(rig.call_through(&anna, "echo"));
    let before = server.count("tools/call");
    is_modern.store(true, Ordering::SeqCst);
    text(rig.call_through(&anna, "echo"));
    assert_eq!(server.count("tools/call"), before + 2);
    text(rig.call_through(&client("bert"), "echo"));
    assert_eq!(rig.tools(), ["fresh"]);
    eventually("the revision is shown", || rig.revision() == MODERN);
}

#[test]
fn a_rollback_while_running_loses_no_call() {
    let (server, is_modern) = exchangeable(true);
    let rig = Rig::ready(&server);
    assert_eq!(rig.revision(), MODERN);
    is_modern.store(false, Ordering::SeqCst);
    assert_eq!(text(rig.call()), r#"{"content":[]}"#);
    assert_eq!(server.count("tools/call"), 2);
    assert_eq!(rig.tools(), ["echo"]);
    eventually("the revision is shown", || rig.revision() == LEGACY);
    let sessions = rig.upstream.status().sessions;
    text(rig.call_through(&client("anna"), "echo"));
    assert_eq!(rig.upstream.status().sessions, sessions + 1);
}

#[test]
fn a_refusal_that_only_looks_like_the_other_era_stays_a_refusal() {
    let server = modern_calls(|_| Reply::status(404, "not today"));
    let rig = Rig::ready(&server);
    let discovered = server.count("server/discover");
    let failed = rig.call().unwrap_err().to_string();
    assert!(failed.contains("not today"), "{failed}");
    assert_eq!(server.count("server/discover"), discovered + 1);
    assert_eq!((server.count("tools/call"), server.count("tools/list")), (1, 1));
    assert_eq!(rig.revision(), MODERN);
}

#[test]
fn where_the_upstream_is_modern_alone_no_client_has_a_session() {
    let server = Server::start(modern);
    let rig = Rig::ready(&server);
    for name in ["anna", "bert"] {
        text(rig.call_through(&client(name), "echo"));
        // It was asked for a session once.
        assert_eq!(server.count("initialize"), 1);
    }
    assert!(rig.upstream.refuses_sessions());
}

#[test]
fn a_child_is_asked_first() {
    let rig =
        Rig::ready_with(modern_child("", "answer '{}'", "refuse -32601"), Limits::default());
    assert_eq!(rig.revision(), MODERN);
    assert_eq!(text(rig.call()), "{}");
    said(&rig, 0, &["discover"]);
    for name in ["anna", "bert"] {
        text(rig.call_through(&client(name), "sh"));
        // A child was asked for a session once, on behalf of a client that has one.
        said(&rig, 0, &["discover", "initialize"]);
    }
}

#[test]
fn a_child_of_the_older_era_is_initialized_in_the_same_process() {
    for discover in ["refuse -32601", "refuse -32602", "refuse 7", "answer '{}'"] {
        let mut config = modern_child("echo $$ >&2", "answer '{}'", "answer \"$INIT\"");
        config.timeout = Duration::from_secs(1);
        replace(&mut config, "answer \"$DISCOVERED\"", discover);
        let rig = Rig::ready_with(config, Limits::default());
        assert_eq!(rig.revision(), LEGACY, "{discover}");
        said(&rig, 1, &["discover", "initialize"]);
        assert_eq!(text(rig.call()), "{}");
        // What one has found, the next one knows.
        text(rig.call_through(&client("anna"), "sh"));
        said(&rig, 4, &["initialize"]);
    }
}

#[test]
fn a_child_that_is_silent_is_not_asked_twice_but_another_one_is() {
    let mut config = modern_child("", "answer '{}'", "answer \"$INIT\"");
    config.start_timeout = Duration::from_secs(2);
    replace(&mut config, "answer \"$DISCOVERED\"", ":");
    replace(&mut config, "echo discover >&2", "echo $$ discover >&2");
    replace(&mut config, "echo initialize >&2", "echo $$ initialize >&2");
    let rig = Rig::ready_with(config, Limits::default());
    assert_eq!(rig.revision(), LEGACY);
    eventually("both have said so", || rig.upstream.status().stderr.len() >= 2);
    let stderr = rig.upstream.status().stderr;
    let [(first, "discover"), (second, "initialize")] =
        [0, 1].map(|n| stderr[n].split_once(' ').unwrap())
    else {
        panic!("{stderr:?}");
    };
    assert_ne!(first, second);
    assert_eq!(text(rig.call()), "{}");
}

#[test]
fn a_child_that_the_question_kills_is_started_again_and_initialized_at_once() {
    let mut config = modern_child("", "answer '{}'", "answer \"$INIT\"");
    replace(&mut config, "answer \"$DISCOVERED\"", "exit 1");
    let rig = Rig::ready_with(config, Limits::default());
    assert_eq!(rig.revision(), LEGACY);
    said(&rig, 0, &["discover", "initialize"]);
    assert_eq!(rig.upstream.status().restarts, 0);
}

#[test]
fn a_child_of_the_other_era_after_a_restart_is_found_out() {
    let flag = std::env::temp_dir().join(crate::support::unique("era"));
    let path = flag.display().to_string();
    let discover = format!("[ -e {path} ] && answer \"$DISCOVERED\" || refuse -32601");
    let initialize = format!("[ -e {path} ] && refuse -32601 || answer \"$INIT\"");
    let mut config = modern_child("", "exit 3", &initialize);
    replace(&mut config, "answer \"$DISCOVERED\"", &discover);
    let rig = Rig::ready_with(config, Limits::default());
    assert_eq!(rig.revision(), LEGACY);
    std::fs::write(&flag, "").unwrap();
    rig.call().unwrap_err();
    rig.tools();
    eventually("it is modern", || rig.revision() == MODERN);
    std::fs::remove_file(&flag).unwrap();
    rig.call().unwrap_err();
    rig.tools();
    eventually("it is not", || rig.revision() == LEGACY);
}

/// What children have said on their standard error, from some line on.
#[track_caller]
fn said(rig: &Rig, from: usize, lines: &[&str]) {
    let stderr = || rig.upstream.status().stderr;
    eventually("it is said", || stderr().len() >= from + lines.len());
    assert_eq!(stderr()[from..], *lines);
}

/// Changes what the child's script does.
fn replace(config: &mut trunkline::config::UpstreamConfig, old: &str, new: &str) {
    let trunkline::config::Target::Stdio(target) = &mut config.target else { panic!() };
    let text = target.args.last_mut().unwrap();
    assert!(text.contains(old));
    *text = text.replace(old, new);
}

#[test]
fn one_asks_for_all() {
    let asked = Arc::new(AtomicUsize::new(0));
    let mine = asked.clone();
    let server = Server::start(move |seen| {
        if seen.rpc() == "server/discover" {
            mine.fetch_add(1, Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(200));
        }
        modern(seen)
    });
    let rig = Rig::start(http(server.address, HttpKind::StreamableHttp), Limits::default());
    let began = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| text(rig.call()));
        }
    });
    assert!(began.elapsed() < Duration::from_secs(2));
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

#[test]
fn a_server_with_sessions_may_name_a_missing_capability() {
    let server = Server::start(|seen| match seen.rpc().as_str() {
        "tools/call" => error(seen, 400, -32021, "null"),
        _ => legacy(seen),
    });
    let rig = Rig::ready(&server);
    let refused = rig.call().unwrap();
    assert!(
        matches!(&refused, trunkline::protocol::call::Outcome::Error { error, .. } if error.code == -32021),
        "{refused:?}"
    );
    assert_eq!(server.count("server/discover"), 1);
}
