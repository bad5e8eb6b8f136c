//! Sessions that clients have of their own, over every transport.

use std::sync::Arc;
use std::thread::Scope;

use crossbeam_channel::bounded;
use trunkline::config::{Secret, SessionSharing, Target};
use trunkline::error::CallError;
use trunkline::limits::Limits;
use trunkline::protocol::call::{Client, PrincipalId};
use trunkline::protocol::question::Question;

use crate::upstream::rig::*;
use crate::upstream::worlds::*;

/// What a session was opened with.
fn opened_with(result: &str) -> &str {
    let capabilities = result.split("\"capabilities\":").nth(1).unwrap();
    capabilities.split(",\"clientInfo\"").next().unwrap()
}

#[test]
fn each_client_has_its_session_with_its_capabilities() {
    for world in worlds() {
        let rig = world.start();
        let (anna, bert) = (client("anna"), client("bert"));
        for client in [&anna, &bert, &anna] {
            let result = text(rig.call_through(client, "plain"));
            assert_eq!(opened_with(&result), client.capabilities.get(), "{}", world.name);
        }
        assert_eq!(opened_with(&text(rig.call())), "{}", "{}", world.name);
        assert_eq!(rig.upstream.status().sessions, 3, "{}", world.name);
    }
}

#[test]
fn where_all_share_a_session_no_client_has_its_own() {
    let [mut world, ..] = worlds();
    world.config.session = SessionSharing::Shared;
    let rig = world.start();
    assert_eq!(opened_with(&text(rig.call_through(&client("anna"), "plain"))), "{}");
    assert_eq!(rig.upstream.status().sessions, 1);
}

#[test]
fn a_session_ends_with_its_client() {
    for world in worlds() {
        let rig = world.start();
        text(rig.call_through(&client("anna"), "plain"));
        text(rig.call_through(&client("bert"), "plain"));
        rig.upstream.close_client("anna");
        eventually("one session is ended", || world.ended(&rig) == 1);
        eventually("two are left", || rig.upstream.status().sessions == 2);
        text(rig.call_through(&client("bert"), "plain"));
        rig.upstream.close_client("nobody");
        text(rig.call_through(&client("anna"), "plain"));
        assert_eq!(rig.upstream.status().sessions, 3, "{}", world.name);
    }
}

#[test]
fn all_sessions_end_with_the_upstream() {
    for world in worlds() {
        let rig = world.start();
        text(rig.call_through(&client("anna"), "plain"));
        text(rig.call_through(&client("bert"), "plain"));
        let Rig { upstreams, upstream, reports, buffered, unasked } = rig;
        drop(upstreams);
        let rest = Rig::start(world.config.clone(), Limits::default());
        let ended = Rig { upstream, reports, buffered, unasked, upstreams: rest.upstreams };
        eventually("all are ended", || world.ended(&ended) == 3);
    }
}

#[test]
fn at_the_bound_the_longest_idle_session_makes_room() {
    for mut world in worlds() {
        world.config.max_sessions = 3;
        let rig = world.start();
        for name in ["anna", "bert", "cleo"] {
            text(rig.call_through(&client(name), "plain"));
        }
        eventually("the first is ended", || world.ended(&rig) == 1);
        eventually("three are left", || rig.upstream.status().sessions == 3);
    }
}

/// Four sessions beside the shared one, of which one principal has two and one is kept for whoever
/// comes next: it makes room itself, and for others.
#[test]
fn room_is_made_by_whoever_has_most_and_not_by_one_that_was_served_just_now() {
    for mut world in worlds() {
        world.config.max_sessions = 5;
        let rig = world.start();
        let of = |key: &str, name: &str| {
            let charged = Some(PrincipalId::Key(key.into()));
            Client { charged, ..client(name) }
        };
        let calls = |key: &str, name: &str| text(rig.call_through(&of(key, name), "plain"));
        calls("victim", "anna");
        for n in 0..4 {
            calls("hog", &format!("hog {n}"));
        }
        eventually("two of the hog's are ended", || world.ended(&rig) == 2);
        calls("victim", "anna");
        assert_eq!(rig.upstream.status().sessions, 4, "{}: hers was there", world.name);
        calls("third", "cleo");
        assert_eq!(rig.upstream.status().sessions, 5, "{}: one was kept", world.name);
        // One that has none gets one of the two.
        calls("fourth", "dora");
        eventually("another one of the hog's is ended", || world.ended(&rig) == 3);
        for (key, name) in
            [("victim", "anna"), ("third", "cleo"), ("fourth", "dora"), ("hog", "hog 3")]
        {
            calls(key, name);
        }
        assert_eq!(world.ended(&rig), 3, "{}", world.name);
    }
}

/// Two clients in a call each, and what their servers ask; the calls last until it is answered.
fn two_who_are_asked<'scope>(
    scope: &'scope Scope<'scope, '_>,
    rig: &'scope Rig,
) -> [Question; 2] {
    let (asked, questions) = bounded::<Question>(2);
    for name in ["anna", "bert"] {
        let asked = asked.clone();
        scope.spawn(move || {
            let sink = Sink::asked(move |question| asked.send(question).unwrap());
            text(rig.call_tool("ask", Some(&client(name)), &wait(9000), &sink))
        });
    }
    [(); 2].map(|()| questions.recv_timeout(PATIENCE).unwrap())
}

#[test]
fn at_the_bound_with_all_sessions_in_use_and_nobody_to_wait_a_client_is_refused() {
    for mut world in worlds() {
        world.config.max_sessions = 3;
        world.config.max_waiting = 0;
        let rig = world.start();
        std::thread::scope(|scope| {
            let open = two_who_are_asked(scope, &rig);
            match rig.call_through(&client("cleo"), "plain") {
                Err(CallError::Overloaded { what }) => {
                    assert!(what.contains("max_sessions") && what.contains("up"), "{what}");
                }
                other => panic!("{}: {other:?}", world.name),
            }
            for question in open {
                question.reply.send(Ok(answer("done")));
            }
        });
        text(rig.call_through(&client("cleo"), "plain"));
    }
}

#[test]
fn at_the_bound_with_all_sessions_in_use_calls_wait_in_turn_until_one_idles() {
    for mut world in worlds() {
        world.config.max_sessions = 3;
        world.config.max_waiting = 2;
        let rig = world.start();
        std::thread::scope(|scope| {
            let open = two_who_are_asked(scope, &rig);
            let late =
                rig.call_tool("plain", Some(&client("dora")), &wait(50), &Sink::default());
            assert!(matches!(late, Err(CallError::UpstreamTimeout { .. })), "{late:?}");
            let waiting = ["cleo", "emma"].map(|name| {
                let rig = &rig;
                scope.spawn(move || {
                    text(rig.call_tool(
                        "plain",
                        Some(&client(name)),
                        &wait(9000),
                        &Sink::default(),
                    ))
                })
            });
            // Those whose clients are asked hold no slot.
            eventually("both wait", || rig.upstream.status().in_flight == 2);
            assert!(waiting.iter().all(|call| !call.is_finished()), "{}", world.name);
            for question in open {
                question.reply.send(Ok(answer("done")));
            }
            // A session that came idle after them makes room for both.
            for call in waiting {
                call.join().unwrap();
            }
        });
        eventually("the bound holds", || rig.upstream.status().sessions <= 3);
    }
}

#[test]
fn a_session_that_is_long_idle_is_ended() {
    for world in worlds() {
        let session_idle = std::time::Duration::from_millis(100);
        let limits = Limits { session_idle, ..Limits::default() };
        let rig = Rig::ready_with(world.config.clone(), limits);
        text(rig.call_through(&client("anna"), "plain"));
        eventually("it is ended", || world.ended(&rig) == 1);
        assert_eq!(rig.upstream.status().sessions, 1, "{}", world.name);
    }
}

#[test]
fn a_dead_session_is_opened_anew_by_the_next_call() {
    for world in worlds() {
        let rig = world.start();
        let anna = client("anna");
        text(rig.call_through(&anna, "die"));
        if world.name != "http" {
            eventually("its death is seen", || rig.upstream.status().sessions == 1);
        }
        let result = text(rig.call_through(&anna, "plain"));
        assert_eq!(opened_with(&result), anna.capabilities.get(), "{}", world.name);
        eventually("both are open", || rig.upstream.status().sessions == 2);
    }
}

#[test]
fn a_child_that_cannot_be_started_fails_its_call_and_is_tried_again() {
    let [.., mut world] = worlds();
    let Target::Stdio(target) = &mut world.config.target else { panic!() };
    // The first child is the shared one.
    let once = "case $(ls $DIR) in '') : > $DIR/1;; 1) : > $DIR/2; exit 7;; esac\n";
    target.args[1].insert_str(0, once);
    let folder = crate::support::gateway::Directory::new();
    let path = folder.path().display().to_string();
    target.env.push(("DIR".to_owned(), Secret::new(path)));
    let rig = world.start();
    let error = rig.call_through(&client("anna"), "plain").unwrap_err().to_string();
    assert!(error.contains("exited with status 7") && !error.contains("next try"), "{error}");
    text(rig.call_through(&client("anna"), "plain"));
}

#[test]
fn a_notification_goes_over_an_open_session_only() {
    for world in worlds() {
        let rig = world.start();
        let roots = "notifications/roots/list_changed";
        let anna = PrincipalId::Session("anna".into());
        rig.upstream.notify(&anna, "anna", roots, None);
        text(rig.call_through(&client("anna"), "plain"));
        assert!(!world.was_told(&rig, roots), "{}", world.name);
        rig.upstream.notify(&anna, "anna", roots, Some("{}"));
        eventually("it is told", || world.was_told(&rig, roots));
        if let Some(server) = &world.server {
            let seen = server.seen();
            let told = seen.iter().find(|seen| seen.rpc() == roots).unwrap();
            assert!(told.session() == "s2" || told.path.ends_with("=s2"), "{told:?}");
        }
    }
}

#[test]
fn a_call_whose_client_is_asked_lets_others_in() {
    let [mut world, ..] = worlds();
    (world.config.max_in_flight, world.config.max_waiting) = (1, 0);
    let rig = world.start();
    let (asked, questions) = bounded::<Question>(1);
    let (answer_it, heard) = bounded::<()>(0);
    std::thread::scope(|scope| {
        let call = || {
            let sink = Sink::asked(move |question| {
                asked.send(question).unwrap();
                // Before this returns, the call's thread can do nothing else.
                heard.recv().ok();
            });
            text(rig.call_tool("ask", Some(&client("anna")), &wait(9000), &sink))
        };
        scope.spawn(call);
        let question = questions.recv_timeout(PATIENCE).unwrap();
        text(rig.call_through(&client("bert"), "plain"));
        assert_eq!(rig.upstream.status().in_flight, 0);
        drop(answer_it);
        question.reply.send(Ok(answer("done")));
    });
}

#[test]
fn many_clients_come_and_go_and_nothing_is_left() {
    for mut world in worlds() {
        (world.config.max_sessions, world.config.max_in_flight) = (4, 8);
        world.config.max_waiting = 100;
        let rig = world.start();
        std::thread::scope(|scope| {
            for thread in 0..6 {
                let rig = &rig;
                scope.spawn(move || {
                    for turn in 0..6 {
                        let name = format!("c{}", (thread + turn) % 5);
                        // Which of them find no room is a matter of chance; that all end is not.
                        rig.call_through(&client(&name), "plain").ok();
                        if turn % 3 == 0 {
                            rig.upstream.close_client(&name);
                        }
                    }
                });
            }
        });
        let status = rig.upstream.status();
        assert_eq!((status.in_flight, status.waiting), (0, 0), "{}", world.name);
        assert!(status.sessions <= 4, "{}: {}", world.name, status.sessions);
        eventually("there is room again", || {
            rig.call_through(&client("last"), "plain").is_ok()
        });
    }
}

#[test]
fn one_session_with_other_capabilities_is_another_one() {
    let [world, ..] = worlds();
    let rig = world.start();
    let more = Client { session: Arc::from("anna"), ..client("bert") };
    text(rig.call_through(&client("anna"), "plain"));
    let result = text(rig.call_through(&more, "plain"));
    assert_eq!(opened_with(&result), more.capabilities.get());
    rig.upstream.close_client("anna");
    eventually("both are ended", || world.ended(&rig) == 2);
}

#[test]
fn a_child_that_ends_with_its_client_takes_its_calls_with_it() {
    let [.., world] = worlds();
    let rig = world.start();
    let (asked, questions) = bounded::<Question>(1);
    std::thread::scope(|scope| {
        let call = || {
            let sink = Sink::asked(move |question| asked.send(question).unwrap());
            rig.call_tool("ask", Some(&client("anna")), &wait(9000), &sink)
        };
        let call = scope.spawn(call);
        let question = questions.recv_timeout(PATIENCE).unwrap();
        rig.upstream.close_client("anna");
        let outcome = call.join().unwrap();
        assert!(matches!(outcome, Err(CallError::UpstreamFailed { .. })), "{outcome:?}");
        drop(question);
    });
    eventually("it is gone", || world.ended(&rig) == 1);
}

#[test]
fn an_exclusive_clients_sessions_carry_one_call_at_a_time() {
    let (entered, n_entered) = bounded(2);
    let (release, released) = bounded::<()>(2);
    let server = calls(move |seen| {
        entered.send(()).unwrap();
        released.recv().unwrap();
        Reply::json(seen.result("{}"))
    });
    let rig = Rig::ready(&server);
    let anna = Client { is_exclusive: true, ..client("anna") };
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| text(rig.call_through(&anna, "echo")));
        }
        for _ in 0..2 {
            n_entered.recv().unwrap();
        }
        assert_eq!(rig.upstream.status().sessions, 3);
        for _ in 0..2 {
            release.send(()).unwrap();
        }
    });
    // One of them is taken up again.
    release.send(()).unwrap();
    text(rig.call_through(&anna, "echo"));
    assert_eq!(rig.upstream.status().sessions, 3);
}

#[test]
fn what_is_answered_during_initialize_carries_the_session_id_of_the_streams_head() {
    let server = Server::start(|seen| match seen.rpc().as_str() {
        "initialize" => {
            let answer = seen.result(INITIALIZED);
            Reply::Raw(Box::new(move |stream| {
                let head = "HTTP/1.1 200 OK\r\nMcp-Session-Id: s1\r\n\
                            Content-Type: text/event-stream\r\nConnection: close\r\n\r\n";
                std::io::Write::write_all(stream, head.as_bytes()).unwrap();
                event(stream, r#"{"jsonrpc":"2.0","id":"p","method":"ping"}"#);
                event(stream, r#"{"jsonrpc":"2.0","id":"r","method":"roots/list"}"#);
                event(stream, &answer);
            }))
        }
        _ => well(seen),
    });
    let _rig = Rig::ready(&server);
    let answered = |id: &str| {
        let id = format!("\"id\":\"{id}\"");
        server.seen().into_iter().find(|seen| seen.body.contains(&id))
    };
    eventually("both are answered", || answered("p").is_some() && answered("r").is_some());
    assert_eq!(answered("p").unwrap().session(), "s1");
    assert_eq!(answered("r").unwrap().session(), "s1");
}
