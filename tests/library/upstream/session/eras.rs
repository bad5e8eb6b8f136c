//! Which era an upstream speaks: found at first contact, and found anew when it turns out
//! wrong, with no call lost that can be saved.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use trunkline::config::HttpKind;
use trunkline::limits::Limits;
use trunkline::pipeline::session_route::may_ask_in_session;
use trunkline::protocol::call::Client;
use trunkline::protocol::session_route::SessionSupport;

use crate::upstream::rig::*;
use crate::upstream::stateless_rig::*;

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
    // The call is to find the other era, and no request beside it.
    eventually("it listens", || server.count("subscriptions/listen") == 1);
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

/// A server of both eras: with sessions for whoever asks for one.
fn of_both(seen: &Seen) -> Reply {
    let is_modern = seen.header("mcp-protocol-version") == Some(MODERN);
    if is_modern { modern(seen) } else { legacy(seen) }
}

#[test]
fn a_question_that_is_not_answered_changes_no_era() {
    for reply in [|| Reply::Close, || Reply::status(503, "busy")] {
        let is_bad = Arc::new(AtomicBool::new(false));
        let bad = is_bad.clone();
        let server = Server::start(move |seen| match seen.rpc().as_str() {
            "tools/call" if bad.load(Ordering::SeqCst) => Reply::status(404, "not today"),
            "server/discover" if bad.swap(false, Ordering::SeqCst) => reply(),
            _ => of_both(seen),
        });
        let rig = Rig::ready(&server);
        is_bad.store(true, Ordering::SeqCst);
        rig.call().unwrap_err();
        assert!(!is_bad.load(Ordering::SeqCst), "it was asked what it speaks");
        text(rig.call());
        assert_eq!((rig.revision().as_str(), server.count("initialize")), (MODERN, 0));
    }
}

#[test]
fn a_session_that_is_refused_for_the_moment_is_no_sign_of_an_era() {
    let refusals: [fn(&Seen) -> Reply; 4] = [
        |_| Reply::status(429, "too many"),
        |_| Reply::status(503, "busy"),
        |_| Reply::status(401, "who are you?"),
        |seen| error(seen, 200, -32603, "null"),
    ];
    for refuse in refusals {
        let asked = AtomicUsize::new(0);
        let server = Server::start(move |seen| {
            let is_first =
                seen.rpc() == "initialize" && asked.fetch_add(1, Ordering::SeqCst) == 0;
            if is_first { refuse(seen) } else { of_both(seen) }
        });
        let rig = Rig::ready(&server);
        rig.call_through(&client("anna"), "echo").unwrap_err();
        assert_ne!(rig.upstream.session_support(), SessionSupport::Refused);
        text(rig.call_through(&client("bert"), "echo"));
        assert_eq!(server.count("initialize"), 2);
    }
    // One that refuses for the moment, as a child.
    let refuse = r#"[ -e "$FLAG" ] && answer "$INIT" || { : > "$FLAG"; refuse -32603; }"#;
    let flag = std::env::temp_dir().join(crate::support::unique("refused"));
    let refuse = refuse.replace("$FLAG", &flag.display().to_string());
    let config = modern_child("", "answer '{}'", &refuse);
    let rig = Rig::ready_with(config, Limits::default());
    rig.call_through(&client("anna"), "sh").unwrap_err();
    assert_ne!(rig.upstream.session_support(), SessionSupport::Refused);
    text(rig.call_through(&client("bert"), "sh"));
    std::fs::remove_file(&flag).unwrap();
}

#[test]
fn a_refusal_with_more_in_its_head_is_no_sign_of_an_era() {
    for (status, head) in [(400, "WWW-Authenticate: Bearer\r\n"), (404, "Retry-After: 7\r\n")] {
        let server = modern_calls(move |seen| {
            let id = seen.id();
            let body = format!(
                r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":-32603,"message":"not now"}}}}"#
            );
            Reply::Body(status, head.to_owned(), "application/json", body)
        });
        let rig = Rig::ready(&server);
        let failed = rig.call().unwrap_err().to_string();
        assert!(failed.contains("not now"), "{failed}");
        assert_eq!(server.count("server/discover"), 1);
    }
}

#[test]
fn where_sessions_are_shared_nothing_is_asked_a_second_time_in_one() {
    let server = Server::start(|seen| match seen.rpc().as_str() {
        "resources/list" => error(seen, 200, -32603, "null"),
        _ => of_both(seen),
    });
    let mut config = http(server.address, HttpKind::StreamableHttp);
    config.session = trunkline::config::SessionSharing::Shared;
    let rig = Rig::start(config, Limits::default());
    eventually("contact", || rig.revision() == MODERN);
    let plain = Client { can_be_asked: false, ..client("anna") };
    let again = |rig: &Rig| {
        let list = outgoing("prompts/list", "{}");
        let (support, sharing) =
            (rig.upstream.session_support(), rig.upstream.config().session);
        let route = rig.route(Some(&plain));
        may_ask_in_session(Some(&plain), route, support, sharing)
            .then(|| rig.upstream.ask_in_session(&list, &wait(5000), &Sink::default()))?
    };
    assert!(again(&rig).is_none());
    assert_eq!((server.count("prompts/list"), server.count("initialize")), (0, 0));
    let rig = Rig::start(http(server.address, HttpKind::StreamableHttp), Limits::default());
    eventually("contact", || rig.revision() == MODERN);
    again(&rig);
    assert_eq!(server.count("initialize"), 1);
}

#[test]
fn a_modern_child_that_crashes_is_not_started_for_each_client() {
    let starts = std::env::temp_dir().join(crate::support::unique("starts"));
    let path = starts.display().to_string();
    let before = format!(r#"echo >> {path}; [ "$(wc -l < {path})" -gt 1 ] && exit 1"#);
    let rig =
        Rig::ready_with(modern_child(&before, "exit 1", "answer \"$INIT\""), Limits::default());
    let n_starts = || std::fs::read_to_string(&starts).unwrap().len();
    rig.call().unwrap_err();
    eventually("it is not started any more", || {
        matches!(rig.upstream.status().state, trunkline::upstream::State::Down { .. })
    });
    let before = n_starts();
    for name in ["anna", "bert", "cleo", "dora", "emil", "finn"] {
        let own = Client { is_exclusive: true, ..client(name) };
        rig.call_through(&own, "sh").unwrap_err();
    }
    assert!(n_starts() <= before + 1, "{} starts after {before}", n_starts());
    std::fs::remove_file(&starts).unwrap();
}

#[test]
fn where_no_other_child_can_be_started_the_end_of_the_first_is_the_end() {
    let program = std::env::temp_dir().join(crate::support::unique("once"));
    let text = "#!/bin/sh\nrm -- \"$0\"\nread -r line\nsleep 2\nexit 3\n";
    std::fs::write(&program, text).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    std::fs::set_permissions(&program, mode).unwrap();
    let mut config = modern_child("", "", "");
    let trunkline::config::Target::Stdio(target) = &mut config.target else { panic!() };
    (target.command, target.args) = (program.display().to_string(), Vec::new());
    // It is taken for silent after half of that.
    config.start_timeout = Duration::from_secs(3);
    let rig = Rig::start(config, Limits::default());
    let message = rig.failure().message;
    assert!(message.contains("exited with status 3"), "{message}");
}

#[test]
fn a_line_that_is_too_long_is_no_answer_to_the_first_question() {
    let before = r#"read -r line; head -c 100000 /dev/zero | tr '\0' x; echo; read -r line; echo "$line" >&2; exit 1"#;
    let limits = Limits { upstream_event_bytes: 50_000, ..Limits::default() };
    let rig = Rig::start(modern_child(before, "", ""), limits);
    let message = rig.failure().message;
    assert!(message.contains("upstream_event_bytes"), "{message}");
    let stderr = rig.upstream.status().stderr;
    assert!(!stderr.iter().any(|line| line.contains("initialize")), "{stderr:?}");
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
    assert_eq!(rig.upstream.session_support(), SessionSupport::Refused);
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
