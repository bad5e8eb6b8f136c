//! Modern servers that want input: from modern clients, to whom it passes, and from legacy ones,
//! who are asked.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{answers_in, asked, behind, text_of, two_keys};
use crate::support::behind::{Behind, Era, Transport, of_method};
use crate::support::duplex::{DOORS, Door, Duplex, Say, all_capabilities, answer_of};
use crate::support::gateway::Gateway;
use crate::support::modern::{ModernClient, retry_params};
use crate::support::upstream_modern::ModernUpstream;

const TRANSPORTS: [Transport; 2] = [Transport::Http, Transport::Stdio];

fn everywhere(check: impl Fn(Transport, &Behind, &Gateway)) {
    for transport in TRANSPORTS {
        let (behind, gateway) = behind(Era::Modern, transport, &json!({}));
        check(transport, &behind, &gateway);
    }
}

/// What the server's own states begin with.
const OWN_STATE: &str = "state ";

#[test]
fn a_server_s_state_is_wrapped_and_comes_back_as_it_was() {
    everywhere(|transport, behind, gateway| {
        let client = ModernClient::to(gateway).named("alice");
        let run = client.run_call("ask_twice", &json!({ "rounds": 3 }));
        assert_eq!(run.rounds.len(), 3);
        // The server itself refuses a state that is not its own, to the letter.
        assert_eq!(answers_in(&run.message).len(), 6, "{transport:?}: {}", run.message);
        for round in &run.rounds {
            assert!(!round.state().contains(OWN_STATE), "{}", round.state());
            // Its keys are its own affair.
            let keys: Vec<String> = round.requests().into_iter().map(|(key, _)| key).collect();
            assert!(keys.iter().all(|key| key.ends_with("/\u{fc}")), "{keys:?}");
        }
        let calls = of_method(&behind.received(), "tools/call");
        assert_eq!(calls.len(), 4, "{transport:?}");
        for call in &calls[1..] {
            let state = call.message["params"]["requestState"].as_str().unwrap();
            assert!(state.starts_with(OWN_STATE), "{state}");
        }
    });
}

#[test]
fn questions_and_answers_pass_as_they_were_written() {
    everywhere(|transport, behind, gateway| {
        let said = r#"{"action":"accept","content":{"zulu":"caf\u00e9","n":1.50},"x":[1E2]}"#;
        let client = ModernClient::to(gateway)
            .declaring(all_capabilities())
            .answering(move |_| Say::Text(said));
        let run = client.run_call("ask_elicitation", &json!({}));
        assert!(run.rounds[0].text.contains(crate::support::script::FORM), "{transport:?}");
        let retry = of_method(&behind.received(), "tools/call").pop().unwrap();
        let wanted: Value = serde_json::from_str(said).unwrap();
        assert_eq!(retry.message["params"]["inputResponses"]["q0.0/\u{fc}"], wanted);
    });
}

#[test]
fn a_server_may_want_a_retry_alone_or_give_no_state() {
    everywhere(|transport, behind, gateway| {
        let client = ModernClient::to(gateway).named("alice");
        let run = client.run_call("ask_roots", &json!({ "state_only": true }));
        assert_eq!(run.asked(), [Vec::<String>::new()], "{transport:?}");
        let run = client.run_call("ask_roots", &json!({ "stateless": true }));
        assert!(run.message.to_string().contains("file:///alice"), "{}", run.message);
        let retry = of_method(&behind.received(), "tools/call").pop().unwrap();
        assert!(retry.message["params"].get("requestState").is_none(), "{}", retry.text);
        let run = client.run("prompts/get", &json!({ "name": "rich" }));
        assert!(run.rounds.is_empty());
    });
}

#[test]
fn prompts_that_want_input_pass_too() {
    let upstream = ModernUpstream::start();
    upstream.set_prompts(&["asking"]);
    let gateway = Gateway::before(&upstream.url());
    let params = json!({ "name": "asking" });
    let run = ModernClient::to(&gateway).named("alice").run("prompts/get", &params);
    assert_eq!(run.asked(), [["elicitation/create"]]);
    assert!(run.message["result"].to_string().contains("alice"), "{}", run.message);
    for door in DOORS {
        let client = Duplex::to(&gateway, door).named("bob").open();
        let message = client.begin("prompts/get", &params).join().unwrap();
        assert!(message["result"].to_string().contains("bob"), "{door:?}: {message}");
        client.wait_asked("elicitation/create");
    }
}

#[test]
fn a_wrapped_state_is_its_principal_s_and_its_request_s() {
    let (behind, gateway) =
        behind(Era::Modern, Transport::Http, &json!({ "api_keys": two_keys() }));
    let alice = ModernClient::to(&gateway).named("alice").key("key-of-alice");
    let bob = ModernClient::to(&gateway).named("bob").key("key-of-bob-1");
    let (params, first) = asked(&alice, "ask_roots", &json!({ "prompt": "p" }));
    let responses = alice.responses_to(&first);
    let n_before = of_method(&behind.received(), "tools/call").len();
    bob.retry("tools/call", &params, &first, &responses).refused(400, -32602);
    let other = json!({ "name": "ask_roots", "arguments": { "prompt": "q" } });
    alice.retry("tools/call", &other, &first, &responses).refused(400, -32602);
    let mut forged = retry_params(&params, &first, &responses);
    for state in ["", "forged", "state 1 \"\\/\u{e9}+=%20", &first.state()[1..]] {
        forged["requestState"] = json!(state);
        alice.request("tools/call", &forged).refused(400, -32602);
    }
    let n_after = of_method(&behind.received(), "tools/call").len();
    assert_eq!(n_before, n_after, "nothing of it reached the server");
    let last = alice.retry("tools/call", &params, &first, &responses);
    assert_eq!(answers_in(&last.message).len(), 1, "{}", last.text);
}

#[test]
fn nothing_is_held_for_what_a_modern_server_wants() {
    let extra = json!({ "limits": { "parked_calls": 1, "parked_calls_per_key": 1 } });
    let (_behind, gateway) = behind(Era::Modern, Transport::Http, &extra);
    let client = ModernClient::to(&gateway).named("alice");
    let waiting: Vec<_> = (0..5).map(|_| asked(&client, "ask_roots", &json!({}))).collect();
    for (params, first) in &waiting {
        let responses = client.responses_to(first);
        let last = client.retry("tools/call", params, first, &responses);
        assert_eq!(answers_in(&last.message).len(), 1, "{}", last.text);
    }
}

#[test]
fn a_retry_comes_to_the_server_that_wanted_it() {
    let (a, b) = (ModernUpstream::start(), ModernUpstream::start());
    let gateway = Gateway::started(json!({ "mcp_servers": {
        "a": { "url": a.url(), "transport": "http" },
        "b": { "url": b.url(), "transport": "http" },
    }}));
    let client = ModernClient::to(&gateway).named("alice");
    for (tool, own, other) in [("a-ask_roots", &a, &b), ("b-ask_roots", &b, &a)] {
        let n_before = other.requests_of("tools/call").len();
        let run = client.run_call(tool, &json!({}));
        assert_eq!(answers_in(&run.message).len(), 1, "{}", run.message);
        assert_eq!(other.requests_of("tools/call").len(), n_before);
        let last = own.requests_of("tools/call").pop().unwrap();
        assert_eq!(last.message["params"]["name"], "ask_roots");
        assert_eq!(last.head.header("Mcp-Name"), Some("ask_roots"));
    }
}

#[test]
fn a_client_that_lacks_the_capability_is_told_so() {
    everywhere(|transport, _, gateway| {
        let client = ModernClient::to(gateway).declaring(json!({ "sampling": {} }));
        // The server looks at what is declared, or it does not.
        for arguments in [json!({}), json!({ "brazen": true })] {
            let answered = client.ask("ask_roots", &arguments);
            assert!(!answered.wants_input(), "{transport:?} {arguments}: {}", answered.text);
            let error = answered.refused(400, -32021);
            assert_eq!(error["data"]["requiredCapabilities"], json!({ "roots": {} }));
        }
    });
}

#[test]
fn a_legacy_client_is_asked_through_all_rounds() {
    everywhere(|transport, behind, gateway| {
        for door in DOORS {
            let client = Duplex::to(gateway, door).named("alice").open();
            let at = format!("{transport:?} {door:?}");
            let n_before = of_method(&behind.received(), "tools/call").len();
            let message = client.begin_call("ask_twice", &json!({ "rounds": 3 }));
            let message = message.join().unwrap();
            assert_eq!(answers_in(&message).len(), 6, "{at}: {message}");
            assert_eq!(client.questions().len(), 6, "{at}");
            let calls = of_method(&behind.received(), "tools/call").split_off(n_before);
            assert_eq!(calls.len(), 4, "{at}");
            let ids: std::collections::BTreeSet<String> =
                calls.iter().map(|call| call.message["id"].to_string()).collect();
            assert_eq!(ids.len(), 4, "{at}: each request has an id of its own");
            for (tool, n) in [("state_only", 0), ("stateless", 1)] {
                let call = client.begin_call("ask_roots", &json!({ tool: true }));
                let message = call.join().unwrap();
                assert_eq!(answers_in(&message).len(), n, "{at} {tool}: {message}");
            }
        }
    });
}

#[test]
fn a_legacy_client_that_cannot_be_asked_is_not() {
    everywhere(|transport, _, gateway| {
        for door in DOORS {
            for declared in [json!({}), json!({ "sampling": {} })] {
                let client = Duplex::to(gateway, door)
                    .declaring(declared)
                    .answering(|question| answer_of("alice", question))
                    .open();
                for arguments in [json!({}), json!({ "brazen": true })] {
                    let params = json!({ "name": "ask_roots", "arguments": arguments });
                    let error = client.refused("tools/call", &params);
                    let words = error["message"].as_str().unwrap();
                    assert!(words.contains("roots"), "{transport:?} {door:?}: {error}");
                }
                assert!(client.questions().is_empty(), "{transport:?} {door:?}");
            }
        }
    });
}

#[test]
fn a_legacy_client_s_refusal_ends_the_call() {
    everywhere(|transport, _, gateway| {
        for door in DOORS {
            let client = Duplex::to(gateway, door)
                .declaring(all_capabilities())
                .answering(|_| Say::Error(-1, "User rejected sampling request"))
                .open();
            let begun = Instant::now();
            let message = client.begin_call("ask_sampling", &json!({})).join().unwrap();
            assert!(message["error"].is_object(), "{transport:?} {door:?}: {message}");
            assert!(begun.elapsed() < Duration::from_secs(5), "{transport:?} {door:?}");
            let decline = Duplex::to(gateway, door)
                .declaring(all_capabilities())
                .answering(|_| Say::Text(r#"{"action":"decline"}"#))
                .open();
            let message = decline.begin_call("ask_elicitation", &json!({})).join().unwrap();
            assert_eq!(answers_in(&message)[0]["result"], json!({ "action": "decline" }));
            let echo = json!({ "message": "m" });
            assert_eq!(text_of(&client.call("echo", &echo)), "m");
        }
    });
}

#[test]
fn a_legacy_client_s_time_to_answer_does_not_count_against_the_call() {
    let behind = Behind::of(Era::Modern, Transport::Http, "scripted");
    let mut server = behind.config();
    server["timeout_ms"] = json!(1500);
    let gateway = Gateway::started(json!({ "mcp_servers": { "s": server } }));
    for door in DOORS {
        let client = Duplex::to(&gateway, door)
            .declaring(all_capabilities())
            .answering(|question| {
                // The user thinks it over.
                crate::support::stays_so("it waits", Duration::from_millis(2500), || true);
                answer_of("alice", question)
            })
            .open();
        let message = client.begin_call("ask_sampling", &json!({})).join().unwrap();
        assert!(message.to_string().contains("model of alice"), "{door:?}: {message}");
    }
}

#[test]
fn unknown_resources_have_the_code_of_the_client_s_era() {
    everywhere(|transport, _, gateway| {
        let params = json!({ "uri": "nobody://has/this" });
        for door in DOORS {
            let error = Duplex::to(gateway, door).open().refused("resources/read", &params);
            assert_eq!(error["code"], -32002, "{transport:?} {door:?}: {error}");
            assert_eq!(error["data"]["uri"], params["uri"]);
        }
        ModernClient::to(gateway).request("resources/read", &params).refused(400, -32602);
    });
}

#[test]
fn further_rounds_of_a_call_do_not_count_as_calls() {
    let behind = Behind::of(Era::Modern, Transport::Http, "scripted");
    let gateway = behind.gateway(&json!({ "api_keys": [
        { "name": "one", "key": "key-of-one", "calls_per_minute": 1 },
        { "name": "two", "key": "key-of-two", "calls_per_minute": 1 },
    ]}));
    let modern = ModernClient::to(&gateway).named("alice").key("key-of-one");
    let run = modern.run_call("ask_elicitation", &json!({ "rounds": 3 }));
    assert_eq!(super::answers_in(&run.message).len(), 3, "{}", run.message);
    let legacy = Duplex::to(&gateway, Door::Streamable).named("alice").key("key-of-two").open();
    let result = legacy.call("ask_elicitation", &json!({ "rounds": 3 }));
    assert_eq!(result["structuredContent"]["answers"].as_array().unwrap().len(), 3, "{result}");
    // A call is one all the same.
    let again = modern.request("tools/call", &json!({ "name": "echo", "arguments": {} }));
    assert!(again.message["error"].is_object(), "{}", again.text);
}

#[test]
fn a_call_that_wants_input_without_end_is_told_the_bound() {
    let behind = Behind::of(Era::Modern, Transport::Http, "scripted");
    let gateway = behind.gateway(&json!({}));
    let legacy = Duplex::to(&gateway, Door::Streamable).named("alice").open();
    let params = json!({ "name": "ask_roots", "arguments": { "rounds": 40 } });
    let error = legacy.refused("tools/call", &params);
    assert_eq!(error["code"], -32603, "{error}");
    assert!(error["message"].as_str().unwrap().contains("32 times"), "{error}");
}
