//! What an upstream asks and says: during a call, and unasked; over every transport.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, bounded};
use trunkline::config::HttpKind;
use trunkline::limits::Limits;
use trunkline::protocol::call::{CallSink, Notice};
use trunkline::protocol::jsonrpc::RpcError;
use trunkline::protocol::question::Question;

use crate::upstream::rig::*;
use crate::upstream::session::subscriptions::one;
use crate::upstream::worlds::*;

#[test]
fn a_question_reaches_the_caller_and_its_answer_the_upstream() {
    for world in worlds() {
        let rig = world.start();
        std::thread::scope(|scope| {
            for name in ["anna", "bert", "cleo"] {
                let rig = &rig;
                scope.spawn(move || {
                    let sink = Sink::asked(move |question: Question| {
                        assert_eq!(question.method, "elicitation/create");
                        assert_eq!(question.id.as_json(), "\"q1\"");
                        assert_eq!(question.params.unwrap().get(), r#"{"message":"?"}"#);
                        question.reply.send(Ok(answer(name)));
                    });
                    let outcome = rig.call_tool("ask", Some(&client(name)), &wait(5000), &sink);
                    let result = text(outcome);
                    let expected = format!(r#""result":{{"said":"{name}"}}"#);
                    assert!(result.contains(&expected), "{result}");
                });
            }
        });
        assert!(rig.unasked.questions.lock().unwrap().is_empty(), "{}", world.name);
    }
}

#[test]
fn questions_of_one_call_are_open_at_once() {
    for world in worlds() {
        let rig = world.start();
        let mut open = Vec::new();
        let sink = Sink::asked(move |question| {
            open.push(question);
            if open.len() == 2 {
                let second = open.pop().unwrap();
                second.reply.send(Err(RpcError::new(-1, "Rejected")));
                open.pop().unwrap().reply.send(Ok(answer("first")));
            }
        });
        let outcome = rig.call_tool("ask_twice", Some(&client("anna")), &wait(5000), &sink);
        let result = text(outcome);
        assert!(result.contains("Rejected") && result.contains("first"), "{result}");
    }
}

#[test]
fn a_question_is_not_for_what_the_gateway_asks_beside_the_call() {
    let [_, older, child] = worlds();
    for world in [older, child] {
        let (rig, anna) = (world.start(), client("anna"));
        std::thread::scope(|scope| {
            let call = scope.spawn(|| {
                let sink =
                    Sink::asked(|question| question.reply.send(Ok(answer("by the client"))));
                text(rig.call_tool("ask_beside", Some(&anna), &wait(5000), &sink))
            });
            eventually("it is called", || world.was_told(&rig, "ask_beside"));
            let one = one();
            rig.upstream.subscribe("a:b", &one, rig.route(Some(&anna)), &wait(1000)).ok();
            let result = call.join().unwrap();
            assert!(result.contains("by the client"), "{}: {result}", world.name);
        });
    }
}

#[test]
fn a_question_that_nobody_takes_is_answered_with_an_error() {
    for world in worlds() {
        let rig = world.start();
        let result = text(rig.call_through(&client("anna"), "ask"));
        assert!(result.contains("\"error\":{\"code\":-32603"), "{result}");
    }
}

#[test]
fn the_shared_session_serves_no_questions() {
    for world in worlds() {
        let rig = world.start();
        // One that comes on the call's own stream is given to its caller, who cannot be asked.
        let sink = Sink::asked(Question::refuse);
        let result = text(rig.call_tool("ask", None, &wait(5000), &sink));
        assert!(result.contains("\"error\":{\"code\":-32601"), "{result}");
        assert!(rig.unasked.questions.lock().unwrap().is_empty(), "{}", world.name);
    }
}

#[test]
fn an_answer_may_come_from_another_thread_while_the_call_reads_on() {
    for world in worlds() {
        let rig = world.start();
        let (asked, questions) = bounded::<Question>(1);
        let answering = trunkline::thread::spawn("test-answer", move || {
            let question = questions.recv_timeout(PATIENCE).unwrap();
            question.reply.send(Ok(answer("later")));
        });
        let sink = Sink::asked(move |question| asked.send(question).unwrap());
        let outcome = rig.call_tool("ask", Some(&client("anna")), &wait(5000), &sink);
        assert!(text(outcome).contains("later"));
        drop(answering);
    }
}

#[test]
fn a_call_whose_question_stays_open_ends_at_its_deadline() {
    for world in worlds() {
        let rig = world.start();
        text(rig.call_through(&client("anna"), "plain"));
        let (asked, questions) = bounded::<Question>(1);
        let began = Instant::now();
        let sink = Sink::asked(move |question| asked.send(question).unwrap());
        let outcome = rig.call_tool("ask", Some(&client("anna")), &wait(200), &sink);
        assert!(outcome.is_err() && began.elapsed() < Duration::from_secs(1), "{outcome:?}");
        // It is of no use any more, but answering it does no harm.
        questions.try_recv().unwrap().reply.send(Ok(answer("too late")));
    }
}

#[test]
fn a_question_between_calls_is_unasked_for() {
    let [_, older, child] = worlds();
    for world in [older, child] {
        let rig = world.start();
        text(rig.call_through(&client("anna"), "late"));
        eventually("it is heard", || !rig.unasked.questions.lock().unwrap().is_empty());
        let (session, question) = rig.unasked.questions.lock().unwrap().pop().unwrap();
        assert_eq!(&*session, "anna");
        question.reply.send(Ok(answer("unasked")));
        eventually("it is answered", || world.was_told(&rig, "unasked"));
    }
}

/// What was said, in a word each.
fn words<'a>(notices: impl IntoIterator<Item = &'a Notice>) -> Vec<&'a str> {
    let word = |notice: &'a Notice| match notice {
        Notice::Progress(_) => "progress",
        Notice::Log(_) => "log",
        Notice::ResourceUpdated(_) => "updated",
        Notice::Withdrawn { .. } => "withdrawn",
        Notice::Other { method, .. } => method.as_str(),
    };
    notices.into_iter().map(word).collect()
}

#[test]
fn what_is_said_during_a_call_goes_where_it_belongs() {
    const ALL: [&str; 4] = ["log", "updated", "notifications/other", "withdrawn"];
    const ABOUT_CALLS: [&str; 3] = ["log", "notifications/other", "withdrawn"];
    for world in worlds() {
        let rig = world.start();
        for through in [None, Some(client("anna"))] {
            let sink = Sink::default();
            text(rig.call_tool("log", through.as_ref(), &wait(5000), &sink));
            let heard = std::mem::take(&mut *rig.unasked.notices.lock().unwrap());
            let session = through.as_ref().map(|client| client.session.clone());
            assert!(heard.iter().all(|(client, _)| *client == session), "{heard:?}");
            let unasked = words(heard.iter().map(|(_, notice)| notice));
            let notices = sink.notices();
            let asked = words(&notices);
            match (world.name, through) {
                (world, None) if world != "http" => {
                    assert_eq!((asked, unasked), (vec![], ALL.to_vec()));
                }
                // The stream of a call is the call's, but who is subscribed is another matter.
                (_, _) => assert_eq!((asked, unasked), (ABOUT_CALLS.to_vec(), vec!["updated"])),
            }
        }
    }
}

/// A server that says things on the stream that belongs to no call, of the client's session,
/// whenever one is called for.
fn speaks(texts: &'static [&'static str], call: fn(&Seen) -> Reply) -> Server {
    let (say, said) = bounded::<Seen>(10);
    let said = Arc::new(Mutex::new(said));
    Server::start(move |seen| match (seen.method.as_str(), seen.rpc().as_str()) {
        ("GET", _) if seen.session() == "s2" => {
            let said = said.clone();
            Reply::stream(move |stream| {
                while let Ok(seen) = said.lock().unwrap().recv_timeout(PATIENCE) {
                    for text in texts {
                        event(stream, &text.replace("TOKEN", &seen.id()));
                    }
                }
            })
        }
        (_, "initialize") if seen.body.contains("elicitation") => Reply::Body(
            200,
            "mcp-session-id: s2\r\n".to_owned(),
            "application/json",
            seen.result(INITIALIZED),
        ),
        (_, "tools/call") => {
            say.send(seen.clone()).unwrap();
            call(seen)
        }
        _ => well(seen),
    })
}

#[test]
fn what_comes_on_the_stream_of_no_call_is_unasked_for() {
    const LOG: &str = r#"{"jsonrpc":"2.0","method":"notifications/message","params":{}}"#;
    let server = speaks(&[QUESTION, LOG], |seen| Reply::json(seen.result("{}")));
    let rig = Rig::ready(&server);
    let sink = Sink::asked(|question| panic!("{question:?}"));
    text(rig.call_tool("echo", Some(&client("anna")), &wait(5000), &sink));
    let questions = || rig.unasked.questions.lock().unwrap();
    eventually("both are heard", || {
        questions().len() == 1 && rig.unasked.notices.lock().unwrap().len() == 1
    });
    let (session, question) = questions().pop().unwrap();
    assert_eq!(&*session, "anna");
    question.reply.send(Ok(answer("unasked")));
    eventually("it is answered", || {
        server.seen().iter().any(|it| it.body.contains("unasked") && it.session() == "s2")
    });
    let notices = rig.unasked.notices.lock().unwrap();
    assert!(matches!(&notices[..], [(Some(session), Notice::Log(_))] if &**session == "anna"));
}

/// A caller that tells of the first notice.
struct Tells(Sender<Notice>);

impl CallSink for Tells {
    fn notice(&self, notice: Notice) {
        self.0.send(notice).unwrap();
    }

    fn ask(&self, _: Question) {}
}

#[test]
fn progress_on_the_stream_of_no_call_finds_its_call() {
    const PROGRESS: &str = r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":TOKEN,"progress":1}}"#;
    static GO: Mutex<Vec<crossbeam_channel::Receiver<Notice>>> = Mutex::new(Vec::new());
    // Once with the head of the answer outstanding, once in the middle of its stream.
    for streamed in [false, true] {
        let (tell, heard) = bounded(10);
        GO.lock().unwrap().push(heard);
        let server = speaks(&[PROGRESS], if streamed { in_stream } else { in_head });
        let rig = Rig::ready(&server);
        let sink = Tells(tell);
        let outcome = rig.call_tool("echo", Some(&client("anna")), &wait(9000), &sink);
        assert_eq!(text(outcome), "{\"heard\":1}");
        assert_eq!(server.count("tools/call"), 1, "the request was sent again");
    }

    fn heard() {
        let heard = GO.lock().unwrap().pop().unwrap();
        assert!(matches!(heard.recv_timeout(PATIENCE).unwrap(), Notice::Progress(_)));
    }

    fn in_head(seen: &Seen) -> Reply {
        heard();
        Reply::json(seen.result("{\"heard\":1}"))
    }

    fn in_stream(seen: &Seen) -> Reply {
        let result = seen.result("{\"heard\":1}");
        Reply::stream(move |stream| {
            heard();
            event(stream, &result);
        })
    }
}

#[test]
fn a_question_and_its_stream_may_be_taken_up_again() {
    let call = Arc::new(Mutex::new(None::<Seen>));
    let (told, answered) = bounded::<()>(1);
    let server = Server::start(move |seen| match seen.rpc().as_str() {
        "tools/call" => {
            *call.lock().unwrap() = Some(seen.clone());
            Reply::stream(|stream| {
                let text = format!("id: e1\nretry: 10\ndata: {QUESTION}\n\n");
                std::io::Write::write_all(stream, text.as_bytes()).unwrap();
            })
        }
        "" if seen.method == "POST" => {
            told.send(()).unwrap();
            Reply::status(202, "")
        }
        _ if seen.header("last-event-id") == Some("e1") => {
            answered.recv_timeout(PATIENCE).unwrap();
            Reply::events(&[call.lock().unwrap().as_ref().unwrap().result("{}")])
        }
        _ => well(seen),
    });
    let rig =
        Rig::ready_with(http(server.address, HttpKind::StreamableHttp), Limits::default());
    let sink = Sink::asked(|question| question.reply.send(Ok(answer("yes"))));
    let outcome = rig.call_tool("echo", Some(&client("anna")), &wait(5000), &sink);
    assert_eq!(text(outcome), "{}");
}
