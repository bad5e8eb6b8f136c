//! States that a retry must not be served with, and clients that cannot be asked.

use serde_json::{Value, json};

use super::parking::is_cancelled;
use super::{answers_in, asked, behind, two_keys};
use crate::support::behind::{Era, TRANSPORTS, Transport, answers, of_method};
use crate::support::duplex::answer_of;
use crate::support::gateway::Gateway;
use crate::support::modern::{Answered, ModernClient, retry_params};
use crate::support::wait_until;

/// The retry is served, so whatever was refused before did no harm.
#[track_caller]
fn check_still_good(client: &ModernClient, params: &Value, first: &Answered) {
    let responses = client.responses_to(first);
    let last = client.retry("tools/call", params, first, &responses);
    assert_eq!(answers_in(&last.message).len(), 1, "{}", last.text);
}

#[test]
fn a_state_is_good_once() {
    for transport in TRANSPORTS {
        let (behind, gateway) = behind(Era::Legacy, transport, &json!({}));
        let client = ModernClient::to(&gateway).named("alice");
        let (params, first) = asked(&client, "ask_roots", &json!({ "rounds": 2 }));
        let responses = client.responses_to(&first);
        let second = client.retry("tools/call", &params, &first, &responses);
        assert!(second.wants_input(), "{}", second.text);
        let n_before = answers(&behind.received()).len();
        // The call goes on, but not from there.
        client.retry("tools/call", &params, &first, &responses).refused(400, -32602);
        let responses = client.responses_to(&second);
        let last = client.retry("tools/call", &params, &second, &responses);
        assert_eq!(answers_in(&last.message).len(), 2, "{transport:?}");
        for used in [&first, &second] {
            client.retry("tools/call", &params, used, &responses).refused(400, -32602);
        }
        assert_eq!(answers(&behind.received()).len(), n_before + 1, "{transport:?}");
        assert_eq!(of_method(&behind.received(), "tools/call").len(), 1, "{transport:?}");
    }
}

#[test]
fn a_state_that_was_tampered_with_is_refused() {
    let (behind, gateway) = behind(Era::Legacy, Transport::Http, &json!({}));
    let client = ModernClient::to(&gateway).named("alice");
    let (params, first) = asked(&client, "ask_roots", &json!({}));
    let state = first.state().to_owned();
    let responses = client.responses_to(&first);
    let with_state = |state: &Value| {
        let mut params = retry_params(&params, &first, &responses);
        params["requestState"] = state.clone();
        client.request("tools/call", &params)
    };
    let mut forged = vec![
        json!(""),
        json!("forged"),
        json!("\u{fc}"),
        json!(format!("{state}A")),
        json!(format!(" {state}")),
        json!(state[..state.len() - 1]),
        json!(state[1..]),
        json!(state.to_ascii_uppercase()),
        json!(7),
        json!({}),
    ];
    // Each character once.
    for at in 0..state.len() {
        let mut bytes = state.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        forged.push(json!(String::from_utf8(bytes).unwrap()));
    }
    for state in &forged {
        with_state(state).refused(400, -32602);
    }
    assert!(answers(&behind.received()).is_empty(), "nothing reached the server");
    check_still_good(&client, &params, &first);
}

#[test]
fn a_state_of_another_principal_is_refused() {
    for transport in TRANSPORTS {
        let (behind, gateway) =
            behind(Era::Legacy, transport, &json!({ "api_keys": two_keys() }));
        let alice = ModernClient::to(&gateway).named("alice").key("key-of-alice");
        let bob = ModernClient::to(&gateway).named("bob").key("key-of-bob-1");
        let (params, first) = asked(&alice, "ask_roots", &json!({}));
        let responses = bob.responses_to(&first);
        bob.retry("tools/call", &params, &first, &responses).refused(400, -32602);
        assert!(answers(&behind.received()).is_empty(), "{transport:?}");
        check_still_good(&alice, &params, &first);
        // Nor do they share a session upstream.
        bob.run_call("ask_roots", &json!({}));
        let calls = of_method(&behind.received(), "tools/call");
        assert_ne!(calls[0].peer, calls[1].peer, "{transport:?}");
    }
}

#[test]
fn a_state_is_good_for_its_own_request_alone() {
    let (behind, gateway) = behind(Era::Legacy, Transport::Http, &json!({}));
    let client = ModernClient::to(&gateway).named("alice");
    let (params, first) = asked(&client, "ask_roots", &json!({ "prompt": "p" }));
    let responses = client.responses_to(&first);
    for other in [
        json!({ "name": "ask_roots", "arguments": { "prompt": "q" } }),
        json!({ "name": "ask_roots", "arguments": {} }),
        json!({ "name": "ask_roots" }),
        json!({ "name": "ask_roots", "arguments": { "prompt": "p", "x": null } }),
        json!({ "name": "ask_sampling", "arguments": { "prompt": "p" } }),
        json!({ "name": "echo", "arguments": { "prompt": "p" } }),
    ] {
        client.retry("tools/call", &other, &first, &responses).refused(400, -32602);
    }
    let get = json!({ "name": "greet", "arguments": { "name": "n" } });
    client.retry("prompts/get", &get, &first, &responses).refused(400, -32602);
    assert!(answers(&behind.received()).is_empty());
    check_still_good(&client, &params, &first);
}

#[test]
fn a_state_that_has_expired_is_refused_and_its_call_cancelled() {
    for transport in TRANSPORTS {
        let (behind, gateway) =
            behind(Era::Legacy, transport, &json!({ "limits": { "parked_ms": 1500 } }));
        let client = ModernClient::to(&gateway).named("alice");
        let (params, first) = asked(&client, "ask_roots", &json!({}));
        let call = of_method(&behind.received(), "tools/call").pop().unwrap();
        wait_until("the call is cancelled upstream", || is_cancelled(&behind, &call));
        let responses = client.responses_to(&first);
        client.retry("tools/call", &params, &first, &responses).refused(400, -32602);
        // In time, all is well.
        let run = client.run_call("ask_roots", &json!({}));
        assert_eq!(answers_in(&run.message).len(), 1, "{transport:?}");
    }
}

/// A client that declares this calls that tool; the server wants more, which the client is told,
/// and never asked.
#[track_caller]
fn check_lacking(gateway: &Gateway, declared: &Value, tool: &str, lacks: &str) {
    let client = ModernClient::to(gateway)
        .declaring(declared.clone())
        .answering(|question| answer_of("alice", question));
    let params = json!({ "name": tool, "arguments": {} });
    let mut answered = client.request("tools/call", &params);
    // It may be asked first for what it has declared.
    while answered.wants_input() {
        for (_, request) in answered.requests() {
            let method = request["method"].as_str().unwrap().to_owned();
            assert!(!method.starts_with(lacks), "{declared} {tool}: {method}");
        }
        let responses = client.responses_to(&answered);
        answered = client.retry("tools/call", &params, &answered, &responses);
    }
    let code = &answered.message["error"]["code"];
    assert_eq!(*code, -32021, "{declared} {tool}: {}", answered.text);
    let error = answered.refused(400, -32021);
    assert_eq!(
        error["data"]["requiredCapabilities"],
        json!({ lacks: {} }),
        "{declared} {tool}"
    );
}

/// Behind a server of that transport, both clients that declare nothing, whose upstream session
/// is shared, and those that declare something else.
fn check_lacking_behind(transport: Transport) {
    let (_behind, gateway) = behind(Era::Legacy, transport, &json!({}));
    for (declared, tool, lacks) in [
        (json!({ "sampling": {} }), "ask_roots", "roots"),
        (json!({ "sampling": {}, "roots": {} }), "ask_elicitation", "elicitation"),
        (json!({ "sampling": {} }), "ask_twice", "roots"),
        (json!({}), "ask_roots", "roots"),
        (json!({}), "ask_sampling", "sampling"),
        (json!({}), "ask_elicitation", "elicitation"),
    ] {
        if declared == json!({}) && transport != Transport::Http {
            check_refused(&gateway, tool);
        } else {
            check_lacking(&gateway, &declared, tool, lacks);
        }
    }
}

/// On a shared session over one channel nobody can say whose call a request is about: the server
/// is refused it, and answers its call as it likes.
fn check_refused(gateway: &Gateway, tool: &str) {
    let client = ModernClient::to(gateway);
    let answered = client.request("tools/call", &json!({ "name": tool, "arguments": {} }));
    let answers = &answered.message["result"]["structuredContent"]["answers"];
    assert_eq!(answers[0]["error"]["code"], -32601, "{tool}: {}", answered.text);
}

#[test]
fn a_client_that_lacks_the_capability_is_never_asked_over_http() {
    check_lacking_behind(Transport::Http);
}

#[test]
fn a_client_that_lacks_the_capability_is_never_asked_over_sse() {
    check_lacking_behind(Transport::Sse);
}

#[test]
fn a_client_that_lacks_the_capability_is_never_asked_over_stdio() {
    check_lacking_behind(Transport::Stdio);
}

#[test]
fn a_retry_that_cannot_be_read_costs_nothing() {
    let (_behind, gateway) = behind(Era::Legacy, Transport::Http, &json!({}));
    let client = ModernClient::to(&gateway).named("alice");
    let (params, first) = asked(&client, "ask_roots", &json!({}));
    for responses in [json!("x"), json!([]), json!(7)] {
        client.retry("tools/call", &params, &first, &responses).refused(400, -32602);
    }
    check_still_good(&client, &params, &first);
}
