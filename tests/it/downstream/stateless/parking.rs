//! Modern clients before legacy servers that ask: the call stays open between two requests.

use std::time::Duration;

use serde_json::{Value, json};

use super::{answers_in, asked, behind, text_of};
use crate::support::behind::{Behind, Era, TRANSPORTS, Transport, answers, of_method};
use crate::support::duplex::{Say, all_capabilities, answer_of};
use crate::support::gateway::Gateway;
use crate::support::modern::{Answered, ModernClient, retry_params};
use crate::support::stopwatch::Stopwatch;

/// Behind every transport that legacy servers have.
fn everywhere(extra: &Value, check: impl Fn(Transport, &Behind, &Gateway)) {
    for transport in TRANSPORTS {
        let (behind, gateway) = behind(Era::Legacy, transport, extra);
        check(transport, &behind, &gateway);
    }
}

#[test]
fn a_call_goes_through_as_many_rounds_as_its_server_wants() {
    everywhere(&json!({}), |transport, behind, gateway| {
        let client = ModernClient::to(gateway).named("alice");
        let run = client.run_call("ask_elicitation", &json!({ "rounds": 4 }));
        let asked = vec![vec!["elicitation/create".to_owned()]; 4];
        assert_eq!(run.asked(), asked, "{transport:?}");
        let answers = answers_in(&run.message);
        assert_eq!(answers.len(), 4, "{transport:?}: {}", run.message);
        assert!(answers.iter().all(|it| it["result"]["content"]["zulu"] == "alice"));
        // Each round has a state of its own.
        let states: Vec<&str> = run.rounds.iter().map(|round| round.state()).collect();
        assert!((1..4).all(|n| !states[..n].contains(&states[n])), "{states:?}");
        let calls = of_method(&behind.received(), "tools/call");
        assert_eq!(calls.len(), 1, "one call upstream: {transport:?}");
    });
}

#[test]
fn several_inputs_are_wanted_at_once() {
    everywhere(&json!({}), |transport, _, gateway| {
        let client = ModernClient::to(gateway).named("alice");
        let run = client.run_call("ask_twice", &json!({ "rounds": 2 }));
        let both = ["sampling/createMessage", "roots/list"].map(str::to_owned).to_vec();
        assert_eq!(run.asked(), [both.clone(), both], "{transport:?}");
        let answers = answers_in(&run.message);
        for (n, answer) in answers.iter().enumerate() {
            let wanted = if n % 2 == 0 { "model of alice" } else { "file:///alice" };
            assert!(answer["result"].to_string().contains(wanted), "{n}: {answer}");
        }
    });
}

#[test]
fn what_is_not_answered_is_asked_again() {
    everywhere(&json!({}), |transport, _, gateway| {
        let client = ModernClient::to(gateway).named("alice");
        let (params, first) = asked(&client, "ask_twice", &json!({}));
        let all = client.responses_to(&first);
        let (answered, missing) = (first.requests()[0].0.clone(), first.requests()[1].clone());
        let half = json!({ answered.clone(): all[&answered] });
        let second = client.retry("tools/call", &params, &first, &half);
        assert!(second.wants_input(), "{transport:?}: {}", second.text);
        let again = second.requests();
        assert_eq!(again.len(), 1, "{transport:?}: {}", second.text);
        assert_eq!(again[0].1, missing.1, "{transport:?}");
        // None at all is as good as a part.
        let third = client.retry("tools/call", &params, &second, &json!({}));
        assert_eq!(third.requests()[0].1, missing.1, "{transport:?}: {}", third.text);
        let rest = client.responses_to(&third);
        let last = client.retry("tools/call", &params, &third, &rest);
        let answers = answers_in(&last.message);
        assert_eq!(answers[0]["result"]["content"]["text"], "model of alice");
        assert_eq!(answers[1]["result"]["roots"][0]["uri"], "file:///alice");
    });
}

#[test]
fn answers_that_nobody_wanted_are_passed_over() {
    everywhere(&json!({}), |transport, behind, gateway| {
        let client = ModernClient::to(gateway).named("alice");
        let (params, first) = asked(&client, "ask_roots", &json!({}));
        let n_before = answers(&behind.received()).len();
        let mut responses = client.responses_to(&first);
        responses["nobody-asked"] = json!({ "roots": [] });
        responses["\u{fc}"] = json!({ "action": "accept" });
        let last = client.retry("tools/call", &params, &first, &responses);
        assert_eq!(answers_in(&last.message).len(), 1, "{transport:?}");
        assert_eq!(answers(&behind.received()).len(), n_before + 1, "{transport:?}");
        // Nor does a request mind that wants nothing.
        let mut params = json!({ "name": "echo", "arguments": { "message": "m" } });
        params["inputResponses"] = json!({ "x": { "action": "cancel" } });
        assert_eq!(text_of(&client.result("tools/call", &params)), "m", "{transport:?}");
    });
}

#[test]
fn refusals_of_the_user_pass_as_they_are() {
    everywhere(&json!({}), |transport, _, gateway| {
        for said in [r#"{"action":"decline"}"#, r#"{"action":"cancel","x-more":[1.50]}"#] {
            let client = ModernClient::to(gateway)
                .declaring(all_capabilities())
                .answering(move |_| Say::Text(said));
            let run = client.run_call("ask_elicitation", &json!({}));
            let wanted: Value = serde_json::from_str(said).unwrap();
            assert_eq!(answers_in(&run.message)[0]["result"], wanted, "{transport:?}");
        }
    });
}

#[test]
fn the_url_mode_passes_too() {
    everywhere(&json!({}), |transport, _, gateway| {
        let client = ModernClient::to(gateway).named("alice");
        let run = client.run_call("ask_elicitation", &json!({ "mode": "url" }));
        let question = &run.rounds[0].requests()[0].1["params"];
        assert_eq!(question["mode"], "url", "{transport:?}");
        assert_eq!(question["url"], "https://example.org/connect?e=1");
        assert_eq!(answers_in(&run.message)[0]["result"]["action"], "accept");
    });
}

#[test]
fn each_client_is_asked_its_own_however_many_there_are() {
    everywhere(&json!({}), |transport, _, gateway| {
        // Without keys they are one principal, and yet their calls are not mixed up.
        let threads: Vec<_> = (0..6)
            .map(|n| {
                let name = format!("client-{n}");
                let client = ModernClient::to(gateway).named(&name);
                let arguments = json!({ "prompt": format!("for {name}"), "rounds": 2 });
                (name, client.begin_call("ask_sampling", &arguments))
            })
            .collect();
        for (name, thread) in threads {
            let run = thread.join().unwrap();
            for round in &run.rounds {
                assert!(round.text.contains(&format!("for {name}")), "{transport:?} {name}");
            }
            for answer in answers_in(&run.message) {
                let said = answer["result"]["content"]["text"].as_str().unwrap();
                assert_eq!(said, format!("model of {name}"), "{transport:?}");
            }
        }
    });
}

#[test]
fn what_is_declared_upstream_is_what_the_caller_declared() {
    everywhere(&json!({}), |transport, behind, gateway| {
        for declared in [
            json!({ "roots": {} }),
            json!({ "roots": {}, "sampling": { "tools": {} } }),
            json!({ "roots": { "listChanged": true }, "elicitation": { "form": {} } }),
        ] {
            let client = ModernClient::to(gateway)
                .declaring(declared.clone())
                .answering(|question| answer_of("alice", question));
            let run = client.run_call("ask_roots", &json!({}));
            assert!(run.message.to_string().contains("file:///alice"), "{}", run.message);
            let received = behind.received();
            let call = of_method(&received, "tools/call").pop().unwrap();
            let opened = of_method(&received, "initialize");
            let own = opened.iter().find(|it| it.peer == call.peer).unwrap();
            assert_eq!(own.message["params"]["capabilities"], declared, "{transport:?}");
        }
    });
}

/// Whether the server was told that nobody wants that call any more.
pub(super) fn is_cancelled(behind: &Behind, call: &crate::support::script::Received) -> bool {
    let cancelled = of_method(&behind.received(), "notifications/cancelled");
    cancelled.iter().any(|it| {
        it.peer == call.peer && it.message["params"]["requestId"] == call.message["id"]
    })
}

#[test]
fn a_client_that_goes_before_its_server_asks_cancels_the_call() {
    everywhere(&json!({}), |transport, behind, gateway| {
        let client = ModernClient::to(gateway).named("alice");
        let params = json!({ "name": "slow", "arguments": { "label": "a" } });
        let connection = client.start("tools/call", &params);
        behind.wait_received("the call", |received| of_method(received, "tools/call").pop());
        connection.hang_up();
        Stopwatch::start(gateway).wait_within(
            Duration::from_secs(1),
            "it is cancelled",
            || behind.has_cancelled("a").then_some(()),
        );
        assert_eq!(
            text_of(&client.call("echo", &json!({ "message": "m" }))),
            "m",
            "{transport:?}"
        );
    });
}

#[test]
fn a_client_that_goes_during_its_retry_cancels_the_call() {
    everywhere(&json!({}), |transport, behind, gateway| {
        let client = ModernClient::to(gateway).named("alice");
        let label = crate::support::unique("linger");
        let arguments = json!({ "label": label, "linger": true });
        let (params, first) = asked(&client, "ask_roots", &arguments);
        let n_before = answers(&behind.received()).len();
        let retry = retry_params(&params, &first, &client.responses_to(&first));
        let connection = client.start("tools/call", &retry);
        behind.wait_received("the answer", |received| {
            (answers(received).len() > n_before).then_some(())
        });
        connection.hang_up();
        Stopwatch::start(gateway).wait_within(
            Duration::from_secs(1),
            "it is cancelled",
            || {
                let calls = of_method(&behind.received(), "tools/call");
                calls.iter().any(|call| is_cancelled(behind, call)).then_some(())
            },
        );
        client.request("tools/call", &retry).refused(400, -32602);
        let echo = client.call("echo", &json!({ "message": "m" }));
        assert_eq!(text_of(&echo), "m", "{transport:?}");
    });
}

#[test]
fn what_a_call_tells_comes_on_the_request_that_is_open() {
    everywhere(&json!({}), |transport, _, gateway| {
        let client = ModernClient::to(gateway).named("alice").logging("info");
        let (params, first) = asked(&client, "ask_roots", &json!({ "tell": true }));
        let told = |answered: &Answered| -> Vec<Value> {
            answered.told.iter().map(|it| it["params"]["data"].clone()).collect()
        };
        assert_eq!(told(&first), ["before"], "{transport:?}");
        let responses = client.responses_to(&first);
        let last = client.retry("tools/call", &params, &first, &responses);
        assert_eq!(told(&last), ["after"], "{transport:?}");
        // Nothing of it where nobody asked: the client itself looks.
        ModernClient::to(gateway).named("bob").run_call("ask_roots", &json!({ "tell": true }));
    });
}

#[test]
fn parked_calls_hold_no_slot() {
    for transport in TRANSPORTS {
        let behind = Behind::start(transport);
        let mut server = behind.config();
        server["max_in_flight"] = json!(1);
        server["max_waiting"] = json!(1);
        let gateway = Gateway::started(json!({ "mcp_servers": { "s": server } }));
        let client = ModernClient::to(&gateway).named("alice");
        let parked: Vec<_> = (0..4).map(|_| asked(&client, "ask_roots", &json!({}))).collect();
        let plain = ModernClient::to(&gateway);
        assert_eq!(text_of(&plain.call("echo", &json!({ "message": "m" }))), "m");
        for (params, first) in parked.iter().rev() {
            let responses = client.responses_to(first);
            let last = client.retry("tools/call", params, first, &responses);
            assert!(last.text.contains("file:///alice"), "{transport:?}: {}", last.text);
        }
    }
}

#[test]
fn a_gateway_with_parked_calls_stops_in_time() {
    for transport in TRANSPORTS {
        let (_behind, gateway) = behind(Era::Legacy, transport, &json!({}));
        let client = ModernClient::to(&gateway).named("alice");
        asked(&client, "ask_roots", &json!({}));
        let begun = std::time::Instant::now();
        assert_eq!(gateway.stop().code, Some(0), "{transport:?}");
        assert!(
            begun.elapsed() < Duration::from_secs(8),
            "{transport:?}: {:?}",
            begun.elapsed()
        );
    }
}
