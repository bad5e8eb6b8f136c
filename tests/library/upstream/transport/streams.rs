//! Streamable HTTP: answers that come as streams, progress, silence, and what servers say unasked.

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use trunkline::config::HttpKind;
use trunkline::error::CallError;
use trunkline::limits::Limits;
use trunkline::protocol::call::Notice;

use crate::upstream::rig::*;

fn progress(seen: &Seen, step: u32) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":{},"progress":{step}}}}}"#,
        seen.id()
    )
}

#[test]
fn a_streamed_answer_leaves_its_connection_usable() {
    let server = calls(|seen| Reply::events(&[progress(seen, 1), seen.result("{}")]));
    let rig = Rig::ready(&server);
    let sink = Sink::default();
    assert_eq!(text(rig.call_with(&wait(5000), &sink)), "{}");
    let [Notice::Progress(params)] = &sink.notices()[..] else {
        panic!("{:?}", sink.notices())
    };
    assert!(params.get().contains("\"progress\":1"));
    let before = server.accepted();
    text(rig.call());
    text(rig.call());
    assert_eq!(server.accepted(), before);
}

#[test]
fn progress_moves_the_deadline() {
    let server = calls(|seen| {
        let seen = seen.clone();
        Reply::stream(move |stream| {
            for step in 0..6 {
                std::thread::sleep(Duration::from_millis(100));
                event(stream, &progress(&seen, step));
            }
            event(stream, &seen.result("{}"));
        })
    });
    let rig = Rig::ready(&server);
    let sink = Sink::default();
    let began = Instant::now();
    assert_eq!(text(rig.call_with(&wait(300), &sink)), "{}");
    assert!(began.elapsed() > Duration::from_millis(500));
    assert_eq!(sink.notices().len(), 6);
}

#[test]
fn a_stream_that_ends_without_an_answer_is_a_failure() {
    let server = calls(|seen| {
        let notice = progress(seen, 1);
        Reply::stream(move |stream| event(stream, &notice))
    });
    let rig = Rig::ready(&server);
    match rig.call() {
        Err(CallError::UpstreamFailed { message, .. }) => {
            assert!(message.contains("may have run"), "{message}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(server.count("tools/call"), 1);
}

#[test]
fn a_stream_with_ids_is_taken_up_again() {
    let call = Arc::new(std::sync::Mutex::new(None::<Seen>));
    let server = Server::start(move |seen| match seen.rpc().as_str() {
        "tools/call" => {
            *call.lock().unwrap() = Some(seen.clone());
            Reply::stream(|stream| {
                stream.write_all(b"id: e1\nretry: 10\ndata:\n\n").unwrap();
            })
        }
        _ if seen.header("last-event-id") == Some("e1") => {
            let answer = call.lock().unwrap().as_ref().unwrap().result("{\"resumed\":1}");
            Reply::events(&[answer])
        }
        _ => well(seen),
    });
    let rig = Rig::ready(&server);
    assert_eq!(text(rig.call()), "{\"resumed\":1}");
}

/// A server whose call begins a stream and closes it before the answer; `again` is what it says
/// to those who ask for the rest, told how many have.
fn breaks_off(
    again: impl Fn(usize, &Seen) -> Reply + Send + Sync + 'static,
) -> (Server, Arc<AtomicUsize>) {
    let call = Arc::new(std::sync::Mutex::new(None::<Seen>));
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let server = Server::start(move |seen| match seen.rpc().as_str() {
        "tools/call" => {
            *call.lock().unwrap() = Some(seen.clone());
            Reply::stream(|stream| {
                stream.write_all(b"id: e1\nretry: 10\ndata:\n\n").unwrap();
            })
        }
        _ if seen.header("last-event-id") == Some("e1") => {
            let n = count.fetch_add(1, Ordering::SeqCst);
            again(n, call.lock().unwrap().as_ref().unwrap())
        }
        _ => well(seen),
    });
    (server, asked)
}

#[test]
fn a_stream_that_is_not_given_again_is_asked_for_until_it_is() {
    let (server, asked) = breaks_off(|n, call| match n {
        0 => Reply::status(503, "later"),
        1 => Reply::Close,
        2 => Reply::stream(|_| ()),
        _ => Reply::events(&[call.result("{\"resumed\":1}")]),
    });
    let rig = Rig::ready(&server);
    assert_eq!(text(rig.call()), "{\"resumed\":1}");
    assert_eq!(asked.load(Ordering::SeqCst), 4);
    assert_eq!(server.count("tools/call"), 1);
}

#[test]
fn a_stream_that_is_gone_is_not_asked_for_twice() {
    for status in [400, 404, 405] {
        let (server, asked) = breaks_off(move |_, _| Reply::status(status, "gone"));
        let rig = Rig::ready(&server);
        let broken = rig.call().unwrap_err().to_string();
        assert!(broken.contains("may have run"), "{broken}");
        assert_eq!(asked.load(Ordering::SeqCst), 1, "{status}");
    }
}

#[test]
fn a_stream_that_is_closed_at_once_each_time_is_asked_for_ever_later() {
    let replies: [fn() -> Reply; 2] = [|| Reply::stream(|_| ()), || Reply::status(500, "no")];
    for reply in replies {
        let (server, asked) = breaks_off(move |_, _| reply());
        let rig = Rig::ready(&server);
        let late = rig.call_with(&wait(2000), &Sink::default());
        assert!(matches!(late, Err(CallError::UpstreamTimeout { .. })), "{late:?}");
        let asked = asked.load(Ordering::SeqCst);
        assert!((3..=5).contains(&asked), "{asked}");
    }
    // The same for what a server says unasked.
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let server = Server::start(move |seen| match seen.method.as_str() {
        "GET" => {
            count.fetch_add(1, Ordering::SeqCst);
            Reply::stream(|stream| {
                stream.write_all(b"id: e1\nretry: 10\ndata:\n\n").unwrap();
            })
        }
        _ => well(seen),
    });
    let _rig = Rig::ready(&server);
    std::thread::sleep(Duration::from_secs(2));
    let asked = asked.load(Ordering::SeqCst);
    assert!((3..=6).contains(&asked), "{asked}");
}

#[test]
fn the_client_is_kept_alive_while_the_server_has_a_stream_wait() {
    let call = Arc::new(std::sync::Mutex::new(None::<Seen>));
    let server = Server::start(move |seen| match seen.rpc().as_str() {
        "tools/call" => {
            *call.lock().unwrap() = Some(seen.clone());
            Reply::stream(|stream| {
                stream.write_all(b"id: e1\nretry: 400\ndata:\n\n").unwrap();
            })
        }
        _ if seen.header("last-event-id") == Some("e1") => {
            Reply::events(&[call.lock().unwrap().as_ref().unwrap().result("{}")])
        }
        _ => well(seen),
    });
    let config = http(server.address, HttpKind::StreamableHttp);
    let rig = Rig::ready_with(config, Limits::default());
    let (client, began) = (Arc::<Beaten>::default(), Instant::now());
    assert_eq!(text(rig.call_with(&beating(&client, 5000, 50), &Sink::default())), "{}");
    assert!(began.elapsed() >= Duration::from_millis(400), "{:?}", began.elapsed());
    let beats = client.take();
    assert!((3..=8).contains(&beats), "{beats}");
}

#[test]
fn a_stream_that_a_busy_server_does_not_give_is_asked_for_again() {
    for status in [408, 429, 503] {
        let asked = Arc::new(AtomicUsize::new(0));
        let server = Server::start(move |seen| match seen.method.as_str() {
            "GET" if asked.fetch_add(1, Ordering::SeqCst) == 0 => {
                Reply::status(status, "later")
            }
            "GET" => Reply::stream(|stream| {
                event(stream, r#"{"jsonrpc":"2.0","method":"notifications/x"}"#);
                stream.read_to_end(&mut Vec::new()).ok();
            }),
            _ => well(seen),
        });
        let rig = Rig::ready(&server);
        eventually("what is said on the stream", || {
            !rig.unasked.notices.lock().unwrap().is_empty()
        });
    }
}

#[test]
fn the_client_is_kept_alive_while_the_head_and_while_an_event_is_waited_for() {
    for streamed in [false, true] {
        let server = calls(move |seen| {
            let answer = seen.result("{}");
            if streamed {
                return Reply::stream(move |stream| {
                    std::thread::sleep(Duration::from_millis(300));
                    event(stream, &answer);
                });
            }
            std::thread::sleep(Duration::from_millis(300));
            Reply::json(answer)
        });
        let config = http(server.address, HttpKind::StreamableHttp);
        let rig = Rig::ready_with(config, Limits::default());
        let client = Arc::<Beaten>::default();
        assert_eq!(text(rig.call_with(&beating(&client, 5000, 50), &Sink::default())), "{}");
        let beats = client.take();
        assert!((3..=6).contains(&beats), "{beats}");
        assert_eq!(server.count("tools/call"), 1, "the request was sent again");
        if !streamed {
            // The connection is as good as before.
            let before = server.accepted();
            text(rig.call());
            assert_eq!(server.accepted(), before);
        }
    }
}

#[test]
fn a_call_that_hangs_over_many_beats_still_ends_at_its_deadline() {
    let server = calls(|_| Reply::Hang);
    let config = http(server.address, HttpKind::StreamableHttp);
    let rig = Rig::ready_with(config, Limits::default());
    let client = Arc::<Beaten>::default();
    let outcome = rig.call_with(&beating(&client, 300, 20), &Sink::default());
    assert!(matches!(outcome, Err(CallError::UpstreamTimeout { .. })), "{outcome:?}");
    let beats = client.take();
    assert!((5..=15).contains(&beats), "{beats}");
    eventually("it is cancelled", || server.count("notifications/cancelled") == 1);
}

#[test]
fn a_servers_requests_are_answered_on_the_control_lane() {
    let server = calls(|seen| {
        let ping = r#"{"jsonrpc":"2.0","id":"p1","method":"ping"}"#;
        let roots = r#"{"jsonrpc":"2.0","id":"r1","method":"roots/list"}"#;
        Reply::events(&[ping.to_owned(), roots.to_owned(), seen.result("{}")])
    });
    let rig = Rig::ready(&server);
    text(rig.call());
    let answered = |id: &str, what: &str| {
        server.seen().iter().any(|s| s.body.contains(id) && s.body.contains(what))
    };
    eventually("ping is answered", || answered("\"p1\"", "\"result\":{}"));
    eventually("roots are refused", || answered("\"r1\"", "\"error\""));
}

#[test]
fn a_change_told_on_the_open_stream_gives_a_new_list() {
    let changed = Arc::new(AtomicBool::new(false));
    let flag = changed.clone();
    let server = Server::start(move |seen| match (seen.method.as_str(), seen.rpc().as_str()) {
        ("GET", _) => {
            let flag = flag.clone();
            Reply::stream(move |stream| {
                eventually("change", || flag.load(Ordering::SeqCst));
                let text = r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#;
                event(stream, text);
                std::io::Read::read(stream, &mut [0]).ok();
            })
        }
        (_, "tools/list") if flag.load(Ordering::SeqCst) => {
            Reply::json(seen.result(r#"{"tools":[{"name":"new"}]}"#))
        }
        _ => well(seen),
    });
    let rig = Rig::start(http(server.address, HttpKind::StreamableHttp), Limits::default());
    assert_eq!(rig.tools(), ["echo"]);
    changed.store(true, Ordering::SeqCst);
    assert_eq!(rig.tools(), ["new"]);
}

#[test]
fn a_hanging_stream_does_not_hold_up_the_end() {
    let server = Server::start(|seen| match seen.method.as_str() {
        "GET" => Reply::stream(|stream| {
            std::io::Read::read(stream, &mut [0]).ok();
        }),
        "DELETE" => Reply::Hang,
        _ => well(seen),
    });
    let rig = Rig::ready(&server);
    let began = Instant::now();
    drop(rig);
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
}

#[test]
fn calls_survive_a_server_that_comes_and_goes() {
    let first = Server::start(well);
    let address = first.address;
    let mut server = Some(first);
    let config = http(address, HttpKind::StreamableHttp);
    let rig = Rig::ready_with(config, Limits::default());
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                while !over.load(Ordering::SeqCst) {
                    // Which of them fail is a matter of chance; that all end is not.
                    rig.call_with(&wait(1000), &Sink::default()).ok();
                }
            });
        }
        for _ in 0..5 {
            let calls = || server.as_ref().unwrap().count("tools/call");
            eventually("calls arrive", || calls() > 20);
            drop(server.take());
            server = Some(Server::start_at(address, well));
        }
        eventually("calls arrive again", || server.as_ref().unwrap().count("tools/call") > 20);
        over.store(true, Ordering::SeqCst);
    });
    text(rig.call());
    let status = rig.upstream.status();
    assert_eq!((status.in_flight, status.waiting), (0, 0));
}
