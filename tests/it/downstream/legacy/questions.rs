//! What servers ask clients: sampling, elicitation and roots, over every transport and door, to
//! the client whose call caused them; and what a server is told when there is no answer.

use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::behind::{Behind, TRANSPORTS, Transport, answers, of_method};
use crate::support::duplex::{DOORS, Door, Duplex, Say, Via, all_capabilities, answer_of};
use crate::support::http::{Connection, Request};
use crate::support::mcp::{LATEST, initialize, request_message};
use crate::support::mcp_sse::SseClient;
use crate::support::script::FORM;
use crate::support::{stays_so, wait_within};

/// The tool that asks, the method, what stands in the question's parameters, what the answer of
/// a client called alice holds.
const KINDS: [(&str, &str, &str, &str); 3] = [
    (
        "ask_sampling",
        "sampling/createMessage",
        r#""maxTokens":1E2,"x-unknown":{"z":1.50,"a":null}"#,
        "model of alice",
    ),
    ("ask_elicitation", "elicitation/create", FORM, r#""zulu":"alice""#),
    ("ask_roots", "roots/list", "", "file:///alice"),
];

/// The answers that the tool's server got, as the tool's result tells them.
#[track_caller]
fn answers_in(message: &Value) -> Vec<Value> {
    let answers = &message["result"]["structuredContent"]["answers"];
    answers.as_array().unwrap_or_else(|| panic!("{message}")).clone()
}

/// Everything behind `transport` under every `door`.
fn everywhere(check: impl Fn(Transport, Door, &Behind, &crate::support::gateway::Gateway)) {
    for transport in TRANSPORTS {
        let behind = Behind::start(transport);
        let gateway = behind.gateway(&json!({}));
        for door in DOORS {
            check(transport, door, &behind, &gateway);
        }
    }
}

#[test]
fn every_kind_is_asked_over_every_transport_and_door() {
    everywhere(|transport, door, _, gateway| {
        let client = Duplex::to(gateway, door).named("alice").open();
        for (tool, method, in_question, in_answer) in KINDS {
            let at = format!("{tool} {transport:?} {door:?}");
            let message = client.begin_call(tool, &json!({})).join().unwrap();
            let answers = answers_in(&message);
            assert_eq!(answers.len(), 1, "{at}");
            assert!(answers[0]["result"].to_string().contains(in_answer), "{at}: {message}");
            let asked = client.wait_asked(method);
            assert!(asked.text.contains(in_question), "{at}: {}", asked.text);
        }
        assert_eq!(client.questions().len(), KINDS.len(), "each is asked once");
        // The upstream's session declares exactly what its client does.
        let me = client.call("whoami", &json!({}))["structuredContent"]["initialize"].clone();
        assert_eq!(me["capabilities"], all_capabilities(), "{transport:?} {door:?}");
    });
}

#[test]
fn every_revision_that_knows_a_question_carries_it() {
    let behind = Behind::start(Transport::Http);
    let gateway = behind.gateway(&json!({}));
    for revision in ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"] {
        for door in DOORS {
            let client = Duplex::to(&gateway, door).speaking(revision).named("alice").open();
            assert_eq!(client.initialized()["protocolVersion"], revision);
            // Elicitation came with 2025-06-18.
            let is_old = matches!(revision, "2024-11-05" | "2025-03-26");
            let kinds =
                KINDS.into_iter().filter(|kind| !(is_old && kind.0 == "ask_elicitation"));
            for (tool, _, _, in_answer) in kinds {
                let message = client.begin_call(tool, &json!({})).join().unwrap();
                assert!(message.to_string().contains(in_answer), "{revision} {door:?} {tool}");
            }
        }
    }
}

#[test]
fn without_a_stream_of_its_own_a_client_is_asked_on_its_calls() {
    for transport in TRANSPORTS {
        let behind = Behind::start(transport);
        let gateway = behind.gateway(&json!({}));
        let client =
            Duplex::to(&gateway, Door::Streamable).named("alice").without_stream().open();
        for (tool, method, _, in_answer) in KINDS {
            let message = client.begin_call(tool, &json!({})).join().unwrap();
            assert!(message.to_string().contains(in_answer), "{transport:?}: {message}");
            assert_eq!(client.wait_asked(method).via, Via::Call, "{transport:?} {tool}");
        }
    }
}

#[test]
fn what_is_asked_on_a_calls_stream_comes_on_the_clients_calls_stream() {
    let behind = Behind::start(Transport::Http);
    let gateway = behind.gateway(&json!({}));
    let client = Duplex::to(&gateway, Door::Streamable).named("alice").open();
    client.call("ask_sampling", &json!({}));
    assert_eq!(client.wait_asked("sampling/createMessage").via, Via::Call);
    client.call("ask_roots", &json!({ "via": "stream" }));
    client.wait_asked("roots/list");
}

#[test]
fn what_is_asked_outside_of_calls_comes_on_the_sessions_stream() {
    everywhere(|transport, door, behind, gateway| {
        let client = Duplex::to(gateway, door).named("alice").open();
        let peer = client.call("whoami", &json!({}))["content"][0]["text"].clone();
        let peer = peer.as_str().unwrap();
        let answer = match behind.script() {
            Some(script) => script.ask_outside(peer, "roots/list", &Value::Null),
            None => {
                client.call("ask_after", &json!({ "method": "roots/list" }));
                behind.wait_received("the answer", |received| {
                    let answers = answers(received);
                    answers.iter().find(|it| it.peer == peer).map(|it| it.message.clone())
                })
            }
        };
        let roots = json!({ "roots": [{ "uri": "file:///alice" }] });
        assert_eq!(answer["result"], roots, "{transport:?} {door:?}");
        assert_eq!(client.wait_asked("roots/list").via, Via::Stream, "{transport:?} {door:?}");
    });
}

#[test]
fn answers_pass_as_they_were_written() {
    const ODD: &str = r#"{"x-later":{"z":1.50,"a":[1E2]},"role":"assistant","model":"m\u00e9","content":{"type":"text","text":"\/"},"_meta":{"n":0.10}}"#;
    everywhere(|transport, door, behind, gateway| {
        let client = Duplex::to(gateway, door)
            .declaring(all_capabilities())
            .answering(|_| Say::Text(ODD))
            .open();
        client.call("ask_sampling", &json!({}));
        let answer = answers(&behind.received()).pop().unwrap();
        assert!(answer.text.contains(ODD), "{transport:?} {door:?}: {}", answer.text);
    });
}

#[test]
fn error_answers_reach_the_server() {
    everywhere(|transport, door, _, gateway| {
        let client = Duplex::to(gateway, door)
            .declaring(all_capabilities())
            .answering(|_| Say::Error(-1, "User rejected sampling request"))
            .open();
        for (tool, ..) in KINDS {
            let message = client.begin_call(tool, &json!({})).join().unwrap();
            let error = &answers_in(&message)[0]["error"];
            let wanted = json!({ "code": -1, "message": "User rejected sampling request" });
            assert_eq!(*error, wanted, "{tool} {transport:?} {door:?}");
        }
    });
}

#[test]
fn a_client_that_lacks_the_capability_is_not_asked() {
    everywhere(|transport, door, _, gateway| {
        for declared in [json!({}), json!({ "roots": {} }), json!({ "sampling": {} })] {
            let client = Duplex::to(gateway, door)
                .declaring(declared.clone())
                .answering(|question| answer_of("alice", question))
                .open();
            for (tool, method, _, in_answer) in KINDS {
                let at = format!("{tool} {declared} {transport:?} {door:?}");
                let capability = method.split('/').next().unwrap();
                let message = client.begin_call(tool, &json!({})).join().unwrap();
                let answer = &answers_in(&message)[0];
                if declared.get(capability).is_some() {
                    assert!(answer["result"].to_string().contains(in_answer), "{at}: {answer}");
                } else {
                    assert_eq!(answer["error"]["code"], -32601, "{at}: {answer}");
                }
            }
            let asked = client.questions();
            assert_eq!(
                asked.len(),
                declared.as_object().unwrap().len(),
                "{declared}: {asked:?}"
            );
        }
    });
}

#[test]
fn url_mode_and_its_completion_come_to_the_client_that_was_asked() {
    everywhere(|transport, door, _, gateway| {
        let client = Duplex::to(gateway, door).named("alice").open();
        let other = Duplex::to(gateway, door).named("bob").open();
        other.call("whoami", &json!({}));
        client.call("ask_elicitation", &json!({ "mode": "url" }));
        let asked = client.wait_asked("elicitation/create").message["params"].clone();
        assert_eq!(
            (&asked["mode"], &asked["elicitationId"], &asked["url"]),
            (&json!("url"), &json!("e-1"), &json!("https://example.org/connect?e=1")),
            "{transport:?} {door:?}"
        );
        let told = client.wait_told("notifications/elicitation/complete");
        assert_eq!(told, json!({ "elicitationId": "e-1" }), "{transport:?} {door:?}");
        assert!(other.told("notifications/elicitation/complete").is_empty());
        assert!(other.questions().is_empty());
    });
}

#[test]
fn url_mode_is_refused_for_a_client_that_has_forms_alone() {
    let behind = Behind::start(Transport::Http);
    let gateway = behind.gateway(&json!({}));
    for elicitation in [json!({}), json!({ "form": {} })] {
        let client = Duplex::to(&gateway, Door::Streamable)
            .declaring(json!({ "elicitation": elicitation }))
            .answering(|question| {
                assert_ne!(question["params"]["mode"], "url", "{question}");
                answer_of("alice", question)
            })
            .open();
        let message = client.begin_call("ask_elicitation", &json!({ "mode": "url" }));
        let message = message.join().unwrap();
        assert_eq!(answers_in(&message)[0]["error"]["code"], -32602, "{message}");
        let message = client.begin_call("ask_elicitation", &json!({})).join().unwrap();
        assert!(message.to_string().contains("alice"), "{message}");
    }
}

#[test]
fn two_questions_at_once_are_answered_in_any_order() {
    everywhere(|transport, door, _, gateway| {
        // Neither is answered before both were asked.
        let both = Arc::new(Barrier::new(2));
        let client = Duplex::to(gateway, door)
            .declaring(all_capabilities())
            .answering(move |question| {
                if question["method"] != "ping" {
                    both.wait();
                }
                answer_of("alice", question)
            })
            .open();
        let message = client.begin_call("ask_twice", &json!({})).join().unwrap();
        let answers = answers_in(&message);
        let at = format!("{transport:?} {door:?}: {message}");
        assert_eq!(answers[0]["result"]["content"]["text"], "model of alice", "{at}");
        assert_eq!(answers[1]["result"]["roots"][0]["uri"], "file:///alice", "{at}");
        let ids: Vec<Value> =
            client.questions().iter().map(|asked| asked.message["id"].clone()).collect();
        assert_ne!(ids[0], ids[1], "{at}");
        assert!(ids.iter().all(|id| id.is_string() || id.is_number()), "{ids:?}");
    });
}

#[test]
fn equal_ids_of_both_sides_are_not_mixed_up() {
    everywhere(|transport, door, _, gateway| {
        let client = Duplex::to(gateway, door).named("alice").open();
        for id in [json!(5), json!("5"), json!("a"), json!(5000)] {
            let params = json!({ "name": "ask_sampling", "arguments": { "id": id } });
            let message = client.request_as(&id, "tools/call", &params);
            assert_eq!(message["id"], id);
            let answer = &answers_in(&message)[0];
            assert_eq!(answer["id"], id, "the server's own id: {transport:?} {door:?}");
            assert_eq!(answer["result"]["content"]["text"], "model of alice");
        }
    });
}

#[test]
fn a_withdrawn_question_is_withdrawn_from_the_client() {
    for door in DOORS {
        let behind = Behind::start(Transport::Http);
        let gateway = behind.gateway(&json!({}));
        let client = Duplex::to(&gateway, door)
            .declaring(all_capabilities())
            .answering(|_| Say::Nothing)
            .open();
        client.call("ask_roots", &json!({ "withdraw": true, "id": "own" }));
        let asked = client.wait_asked("roots/list");
        let withdrawn = client.wait_told("notifications/cancelled");
        assert_eq!(withdrawn["requestId"], asked.message["id"], "{door:?}");
    }
}

#[test]
fn a_client_that_stays_silent_gives_the_server_an_error_in_time() {
    for transport in TRANSPORTS {
        let behind = Behind::start(transport);
        let gateway = behind.gateway(&json!({ "limits": { "parked_ms": 300 } }));
        for door in DOORS {
            let client = Duplex::to(&gateway, door)
                .declaring(all_capabilities())
                .answering(|_| Say::Nothing)
                .open();
            let begun = Instant::now();
            let n_before = answers(&behind.received()).len();
            let call = client.begin_call("ask_sampling", &json!({}));
            let answer = behind
                .wait_received("an error", |received| answers(received).get(n_before).cloned());
            let at = format!("{transport:?} {door:?}: {}", answer.text);
            assert!(begun.elapsed() >= Duration::from_millis(300), "too early: {at}");
            assert!(begun.elapsed() < Duration::from_secs(5), "too late: {at}");
            assert_eq!(answer.message["error"]["code"], -32603, "{at}");
            let message = answer.message["error"]["message"].as_str().unwrap();
            assert!(message.contains("parked_ms"), "the bound is not named: {at}");
            // The call ends too, with what the server made of it or with the bound.
            let ended = call.join().unwrap();
            let is_bound = ended["error"]["code"] == -32603
                && ended["error"]["message"].as_str().unwrap().contains("parked_ms");
            assert!(is_bound || ended["result"].is_object(), "{at}: {ended}");
        }
    }
}

#[test]
fn a_client_that_ends_its_session_gives_the_server_an_error() {
    for transport in TRANSPORTS {
        for door in DOORS {
            let behind = Behind::start(transport);
            let gateway = behind.gateway(&json!({}));
            let client = Duplex::to(&gateway, door)
                .declaring(all_capabilities())
                .answering(|_| Say::Nothing)
                .open();
            let _call = client.begin_call("ask_elicitation", &json!({}));
            client.wait_asked("elicitation/create");
            client.end();
            let answer = wait_within(Duration::from_secs(5), "an error upstream", || {
                answers(&behind.received()).pop()
            });
            assert!(answer.message["error"]["code"].is_i64(), "{transport:?} {door:?}");
        }
    }
}

#[test]
fn the_time_of_a_clients_answer_does_not_count_against_the_call() {
    let behind = Behind::start(Transport::Http);
    let mut server = behind.config();
    server["timeout_ms"] = json!(1500);
    let gateway =
        crate::support::gateway::Gateway::started(json!({ "mcp_servers": { "s": server } }));
    for door in DOORS {
        let client = Duplex::to(&gateway, door)
            .declaring(all_capabilities())
            .answering(|question| {
                // The user thinks it over.
                stays_so("nothing is done meanwhile", Duration::from_millis(2500), || true);
                answer_of("alice", question)
            })
            .open();
        let message = client.begin_call("ask_sampling", &json!({})).join().unwrap();
        assert!(message.to_string().contains("model of alice"), "{door:?}: {message}");
    }
}

#[test]
fn both_sides_answer_pings() {
    everywhere(|transport, door, behind, gateway| {
        for capabilities in [json!({}), all_capabilities()] {
            let client = Duplex::to(gateway, door)
                .declaring(capabilities)
                .answering(|question| answer_of("alice", question))
                .open();
            assert_eq!(client.result("ping", &json!({})), json!({}));
            let message =
                client.begin_call("ask", &json!({ "method": "ping" })).join().unwrap();
            let pong = &answers_in(&message)[0];
            assert_eq!(pong["result"], json!({}), "{transport:?} {door:?}");
            if let Some(script) = behind.script() {
                let peer = client.call("whoami", &json!({}))["content"][0]["text"].clone();
                let pong = script.ask_outside(peer.as_str().unwrap(), "ping", &Value::Null);
                assert_eq!(pong["result"], json!({}), "{transport:?} {door:?}");
            }
        }
    });
}

#[test]
fn nobody_is_asked_on_a_session_that_is_shared() {
    for transport in [Transport::Http, Transport::Sse] {
        let behind = Behind::start(transport);
        let gateway = behind.gateway(&json!({}));
        let named = Duplex::to(&gateway, Door::Streamable).named("alice").open();
        let plain = Duplex::to(&gateway, Door::Streamable).open();
        let peer = plain.call("whoami", &json!({}))["content"][0]["text"].clone();
        let script = behind.script().unwrap();
        for (_, method, ..) in KINDS {
            let answer = script.ask_outside(peer.as_str().unwrap(), method, &json!({}));
            assert_eq!(answer["error"]["code"], -32601, "{method}: {answer}");
        }
        assert!(named.questions().is_empty() && plain.questions().is_empty());
    }
}

#[test]
fn changed_roots_are_told_on_the_clients_own_session_alone() {
    everywhere(|transport, door, behind, gateway| {
        let told = || of_method(&behind.received(), "notifications/roots/list_changed");
        let n_before = told().len();
        let alice = Duplex::to(gateway, door).named("alice").open();
        let bob = Duplex::to(gateway, door).named("bob").open();
        let peer = alice.call("whoami", &json!({}))["content"][0]["text"].clone();
        bob.call("whoami", &json!({}));
        alice.notify("notifications/roots/list_changed", &json!({}));
        behind.wait_received("the notification", |received| {
            let told = of_method(received, "notifications/roots/list_changed");
            (told.len() > n_before).then_some(())
        });
        stays_so("it is told once", Duration::from_millis(100), || {
            told().len() == n_before + 1
        });
        assert_eq!(told().pop().unwrap().peer, peer, "{transport:?} {door:?}");
    });
}

#[test]
fn a_client_with_one_connection_is_not_held_up_by_its_own_call() {
    let behind = Behind::start(Transport::Http);
    let gateway = behind.gateway(&json!({}));
    let mut client = SseClient::connect(gateway.address(), "/mcp/sse");
    let mut connection = Connection::open(gateway.address());
    // Posts over the one connection for as long as the gateway keeps it.
    let mut post = |message: &Value, endpoint: &str| {
        connection.send(&Request::post(endpoint, message));
        let answer = connection.answer().expect(202);
        if answer.header("Connection").is_some_and(|it| it.eq_ignore_ascii_case("close")) {
            connection = Connection::open(gateway.address());
        }
    };
    let endpoint = client.endpoint.clone();
    post(&initialize(1, LATEST, &all_capabilities()), &endpoint);
    client.answer_to(&json!(1));
    post(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }), &endpoint);
    let params = json!({ "name": "ask_elicitation", "arguments": {} });
    post(&request_message(&json!(2), "tools/call", &params), &endpoint);
    let asked =
        client.stream.next_message_where(|message| message["method"] == "elicitation/create");
    let result = json!({ "action": "decline" });
    post(&json!({ "jsonrpc": "2.0", "id": asked["id"], "result": result }), &endpoint);
    let answer = client.answer_to(&json!(2));
    assert_eq!(answers_in(&answer)[0]["result"], result);
}

#[test]
fn answers_that_nobody_asked_for_do_no_harm() {
    let behind = Behind::start(Transport::Http);
    let gateway = behind.gateway(&json!({}));
    for door in DOORS {
        let alice = Duplex::to(&gateway, door)
            .declaring(all_capabilities())
            .answering(|_| Say::Nothing)
            .open();
        let mallory = Duplex::to(&gateway, door).named("mallory").open();
        let call = alice.begin_call("ask_roots", &json!({}));
        let asked = alice.wait_asked("roots/list").message["id"].clone();
        let roots = |name: &str| json!({ "roots": [{ "uri": format!("file:///{name}") }] });
        let answer = |id: &Value, name: &str| json!({ "jsonrpc": "2.0", "id": id, "result": roots(name) });
        // Another session knows the id, and answers; and answers what was never asked.
        mallory.post(&answer(&asked, "mallory"));
        mallory.post(&answer(&json!("no such question"), "mallory"));
        alice.post(&answer(&json!(null), "nobody"));
        alice.post(&answer(&asked, "alice")).expect(202);
        let message = call.join().unwrap();
        assert_eq!(answers_in(&message)[0]["result"], roots("alice"), "{door:?}");
        // A second answer to the same question is too late.
        alice.post(&answer(&asked, "late"));
        assert_eq!(alice.call("echo", &json!({ "message": "m" }))["content"][0]["text"], "m");
    }
}

/// A question is bounded like what clients send: whoever asks more is told so, and its client is
/// not asked.
#[test]
fn a_question_that_is_too_large_is_refused_to_its_server() {
    let prompt = "x".repeat(5 * 1024 * 1024);
    for transport in TRANSPORTS {
        let behind = Behind::start(transport);
        let gateway = behind.gateway(&json!({ "limits": { "body_bytes": 8 * 1024 * 1024 } }));
        let client = Duplex::to(&gateway, Door::Streamable).named("alice").open();
        let message =
            client.begin_call("ask_sampling", &json!({ "prompt": prompt })).join().unwrap();
        assert!(message.to_string().contains("more than 4194304 bytes"), "{transport:?}");
        assert_eq!(client.questions().len(), 0, "{transport:?}");
        assert_eq!(client.call("echo", &json!({ "message": "m" }))["content"][0]["text"], "m");
    }
}
