//! Redirects of HTTP upstreams: within their origin they are followed and remembered, every
//! other one is an error that names its target.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use trunkline::config::{HttpKind, Target, UpstreamConfig};
use trunkline::error::CallError;
use trunkline::limits::Limits;
use trunkline::protocol::call::Outcome;

use crate::upstream::rig::*;
use crate::upstream::stateless_rig::{error, legacy, modern};

/// Sends to this place whatever comes elsewhere.
fn to(status: u16, location: &str) -> Reply {
    Reply::Body(
        status,
        format!("location: {location}\r\n"),
        "text/plain",
        "over there".to_owned(),
    )
}

/// A server at `/mcp/`, to which a framework redirects what comes to `/mcp`.
fn behind_slash(status: u16, serve: fn(&Seen) -> Reply) -> Server {
    Server::start(move |seen| match seen.path.as_str() {
        "/mcp/" => serve(seen),
        "/mcp" => to(status, "/mcp/"),
        _ => Reply::status(404, "no such page"),
    })
}

/// How many requests came to this path.
fn count_at(server: &Server, path: &str) -> usize {
    server.seen().iter().filter(|seen| seen.path == path).count()
}

/// What a call fails with.
fn failed(rig: &Rig) -> String {
    match rig.call() {
        Err(CallError::UpstreamFailed { message, .. }) => message,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_redirect_within_the_origin_is_followed_in_both_eras_and_remembered() {
    let eras: [fn(&Seen) -> Reply; 2] = [legacy, modern];
    let rows = [
        (307, eras[0], "2025-11-25"),
        (308, eras[0], "2025-11-25"),
        (307, eras[1], "2026-07-28"),
        (308, eras[1], "2026-07-28"),
    ];
    for (status, serve, era) in rows {
        let server = behind_slash(status, serve);
        for kind in [HttpKind::StreamableHttp, HttpKind::Auto] {
            let rig = Rig::ready_with(http(server.address, kind), Limits::default());
            assert_eq!(rig.revision(), era);
            assert_eq!(
                rig.upstream.status().redirected_to,
                Some(format!("http://{}/mcp/", server.address))
            );
            let before = count_at(&server, "/mcp");
            for _ in 0..3 {
                rig.call().unwrap();
            }
            assert_eq!(count_at(&server, "/mcp"), before, "it goes there at once");
            rig.upstreams.stop();
        }
        // What was configured for the server, the method and the body go along.
        for seen in server.seen() {
            assert_eq!(seen.header("x-secret"), Some("hush"), "{seen:?}");
        }
        let arrived = server.seen().into_iter().filter(|seen| seen.path == "/mcp/");
        let calls = arrived.filter(|seen| seen.rpc() == "tools/call" && seen.method == "POST");
        assert_eq!(calls.count(), 6);
        assert_eq!(server.count("tools/call"), 6);
    }
}

#[test]
fn the_stream_the_end_of_a_session_and_side_messages_follow_too() {
    let redirect_once = Arc::new(AtomicUsize::new(0));
    let turns = redirect_once.clone();
    let server = Server::start(move |seen| {
        // Every request is sent on, whatever was learned.
        let n = turns.fetch_add(1, Ordering::SeqCst);
        match (seen.path.as_str(), seen.method.as_str()) {
            ("/mcp", _) => to(307, &format!("/to/{n}")),
            (_, "GET") => Reply::stream(|stream| {
                event(stream, r#"{"jsonrpc":"2.0","id":"p","method":"ping"}"#);
                std::io::Read::read(stream, &mut [0]).ok();
            }),
            _ => legacy(seen),
        }
    });
    let rig = Rig::ready(&server);
    eventually("the ping on the stream is answered", || {
        server.seen().iter().any(|seen| seen.body.contains(r#""id":"p","result""#))
    });
    rig.upstreams.stop();
    let deleted = |path: &str| {
        server.seen().iter().any(|it| it.method == "DELETE" && it.path.starts_with(path))
    };
    assert!(deleted("/to/"), "the end of the session arrives");
}

#[test]
fn a_redirect_to_elsewhere_is_an_error_that_names_the_target_and_nothing_goes_there() {
    let elsewhere = Server::start(well);
    let away = format!("http://{}/mcp?token=query-of-theirs", elsewhere.address);
    let scheme = |server: &str| server.replace("http://", "https://");
    for (status, location, told) in [
        (307, away.clone(), format!("http://{}/mcp,", elsewhere.address)),
        (308, away.clone(), format!("http://{}/mcp,", elsewhere.address)),
        (302, away.clone(), format!("http://{}/mcp,", elsewhere.address)),
        (301, "/mcp/".to_owned(), "/mcp/, only 307 and 308".to_owned()),
        (303, "/login/hush".to_owned(), "/login/[secret], only 307 and 308".to_owned()),
        (307, scheme(&away), scheme(&format!("http://{}/mcp,", elsewhere.address))),
    ] {
        let server = Server::start(move |seen| match seen.path.as_str() {
            "/mcp" => to(status, &location),
            _ => well(seen),
        });
        for kind in [HttpKind::StreamableHttp, HttpKind::Auto, HttpKind::HttpSse] {
            let rig = Rig::start(http(server.address, kind), Limits::default());
            let message = rig.failure().message;
            assert!(message.contains(&told), "{kind:?} {message:?} has no {told:?}");
            assert!(!message.contains("query-of-theirs"), "{message}");
            assert!(failed(&rig).contains(&told));
            assert_eq!(rig.upstream.status().redirected_to, None);
        }
    }
    assert_eq!(elsewhere.accepted(), 0);
}

#[test]
fn a_loop_and_a_way_without_end_are_errors() {
    let n = AtomicUsize::new(0);
    for (server, told) in [
        (
            Server::start(|seen| to(307, if seen.path == "/mcp" { "/b" } else { "/mcp" })),
            "a loop",
        ),
        (Server::start(|_| to(308, "/mcp")), "a loop"),
        (
            Server::start(move |_| to(307, &format!("/{}", n.fetch_add(1, Ordering::SeqCst)))),
            "after 5 others",
        ),
        (Server::start(|_| Reply::status(307, "nowhere")), "status 307: nowhere"),
        (Server::start(|_| to(307, "http://[nonsense/")), "no URL"),
    ] {
        let rig = Rig::start(http(server.address, HttpKind::StreamableHttp), Limits::default());
        let message = rig.failure().message;
        assert!(message.contains(told), "{message:?} has no {told:?}");
        // The question about the era and `initialize`, each with its detours, and no more.
        assert!(server.seen().len() <= 12, "{}", server.seen().len());
    }
}

#[test]
fn what_was_learned_is_learned_anew_when_it_fails() {
    // As when a server is exchanged for a newer one, which has its endpoint the other way round.
    let version = Arc::new(AtomicUsize::new(0));
    let mine = version.clone();
    let server =
        Server::start(move |seen| match (mine.load(Ordering::SeqCst), seen.path.as_str()) {
            (0, "/mcp/") | (1, "/mcp") | (2, "/third") => legacy(seen),
            (0, "/mcp") => to(307, "/mcp/"),
            (1, "/mcp/") => to(307, "/mcp"),
            (2, "/mcp") => to(308, "third"),
            _ => Reply::status(404, "no such page"),
        });
    let rig = Rig::ready(&server);
    let redirected_to = || rig.upstream.status().redirected_to;
    let at = |path: &str| Some(format!("http://{}{path}", server.address));
    rig.call().unwrap();
    assert_eq!(redirected_to(), at("/mcp/"));
    version.store(1, Ordering::SeqCst);
    rig.call().unwrap();
    assert_eq!(redirected_to(), None);
    version.store(0, Ordering::SeqCst);
    rig.call().unwrap();
    assert_eq!(redirected_to(), at("/mcp/"));
    version.store(2, Ordering::SeqCst);
    rig.call().unwrap();
    assert_eq!(redirected_to(), at("/third"));
    // The first one was redirected too. What is answered with 404 is not sent on: its session is
    // taken for lost, and another one is opened by the URL itself.
    assert_eq!(server.count("initialize"), 4);
    let calls = server.seen().into_iter().filter(|seen| seen.rpc() == "tools/call");
    let paths: Vec<String> = calls.map(|seen| seen.path).collect();
    let ways = [&["/mcp/"][..], &["/mcp/", "/mcp"], &["/mcp", "/mcp/"], &["/mcp/", "/third"]];
    assert_eq!(paths, ways.concat());
}

#[test]
fn what_was_answered_where_it_was_redirected_to_is_not_sent_again() {
    // Each has run the tool.
    let answers: [fn(&Seen) -> Reply; 5] = [
        |seen| error(seen, 404, -32603, "null"),
        |_| to(301, "/mcp/"),
        |_| to(302, "http://elsewhere.invalid/"),
        |_| to(303, "/result"),
        |_| to(307, "http://elsewhere.invalid/"),
    ];
    let eras: [fn(&Seen) -> Reply; 2] = [legacy, modern];
    for serve in eras {
        for (n, answer) in answers.into_iter().enumerate() {
            let server = Server::start(move |seen| match (seen.path.as_str(), seen.rpc()) {
                ("/mcp", _) => to(307, "/mcp/"),
                ("/mcp/", method) if method == "tools/call" => answer(seen),
                ("/mcp/", _) => serve(seen),
                _ => Reply::status(410, "gone"),
            });
            let rig = Rig::ready(&server);
            let executed = || {
                let seen = server.seen();
                let calls = seen.iter().filter(|it| it.rpc() == "tools/call");
                calls.filter(|it| it.path == "/mcp/").count()
            };
            let before = count_at(&server, "/mcp");
            match rig.call() {
                Ok(Outcome::Error { error, .. }) => assert_eq!((n, error.code), (0, -32603)),
                Err(CallError::UpstreamFailed { message, .. }) => {
                    assert!(n > 0 && message.contains("it redirects"), "{message}");
                }
                other => panic!("{other:?}"),
            }
            assert_eq!(executed(), 1, "answer {n}");
            rig.call().ok();
            assert_eq!(executed(), 2, "answer {n}");
            // Perhaps by whoever looks after the session, between the two.
            assert!(count_at(&server, "/mcp") > before, "it is learned anew");
        }
    }
}

fn at(server: &Server, path: &str) -> UpstreamConfig {
    let mut config = http(server.address, HttpKind::HttpSse);
    if let Target::Http(target) = &mut config.target {
        target.url = format!("http://{}{path}", server.address);
    }
    config
}

#[test]
fn http_sse_follows_for_its_stream_and_for_its_messages() {
    let server = Server::start(|seen| match (seen.method.as_str(), seen.path.as_str()) {
        ("GET", "/a/sse") => to(307, "/b/sse/"),
        // Relative to where the stream really is.
        ("GET", "/b/sse/") => Reply::stream(|stream| {
            let text = b"event: endpoint\ndata: ../messages?s=1\n\n";
            std::io::Write::write_all(stream, text).unwrap();
            std::io::Read::read(stream, &mut [0]).ok();
        }),
        ("POST", "/b/messages?s=1") => to(308, "/b/messages/?s=1"),
        ("POST", "/b/messages/?s=1") => Reply::status(202, "Accepted"),
        _ => Reply::status(404, ""),
    });
    let rig = Rig::start(at(&server, "/a/sse"), Limits::default());
    let initialize = |path: &str| {
        server.seen().iter().any(|seen| seen.rpc() == "initialize" && seen.path == path)
    };
    eventually("initialize arrives", || initialize("/b/messages/?s=1"));
    assert_eq!(
        rig.upstream.status().redirected_to,
        Some(format!("http://{}/b/sse/", server.address))
    );
}
