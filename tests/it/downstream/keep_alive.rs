//! The connection of a client whose call is silent is kept alive, whatever the call waits for and
//! whatever server it waits for.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::behind::{Behind, Era, Transport};
use crate::support::events::EventStream;
use crate::support::gateway::Gateway;
use crate::support::http::{Connection, Request};
use crate::support::mcp::McpClient;
use crate::support::modern::ModernClient;
use crate::support::wait_until;

const HEARTBEAT: Duration = Duration::from_millis(100);

fn slow() -> Value {
    json!({ "name": "slow", "arguments": {} })
}

/// A gateway before that server. One that can be released has a single slot, so that all calls but
/// one wait for it; one that cannot answers none of them in time.
fn gateway(behind: &Behind) -> Gateway {
    let mut config = behind.config();
    match behind.script() {
        Some(_) => config["max_in_flight"] = json!(1),
        None => config["timeout_ms"] = json!(50 * HEARTBEAT.as_millis()),
    }
    let limits = json!({ "heartbeat_ms": HEARTBEAT.as_millis() });
    Gateway::started(json!({ "limits": limits, "mcp_servers": { "s": config } }))
}

fn release(behind: &Behind) {
    if let Some(script) = behind.script() {
        script.release_slow();
    }
}

/// Calls of clients of both eras; one of them is made apart, because its client can be asked.
fn calls(gateway: &Gateway) -> [Connection; 3] {
    let session = McpClient::new(gateway.address()).speaking("2025-06-18").opened();
    let modern = ModernClient::to(gateway);
    let asked = ModernClient::to(gateway).declaring(json!({ "elicitation": {} }));
    [
        session.start_call(&json!(1), "slow", &json!({})),
        modern.start("tools/call", &slow()),
        asked.start("tools/call", &slow()),
    ]
}

#[test]
fn a_silent_call_s_client_is_kept_alive_before_every_server() {
    for (era, transport) in [
        (Era::Legacy, Transport::Http),
        (Era::Legacy, Transport::Sse),
        (Era::Legacy, Transport::Stdio),
        (Era::Modern, Transport::Http),
        (Era::Modern, Transport::Stdio),
    ] {
        let behind = Behind::of(era, transport, "scripted");
        let gateway = gateway(&behind);
        let began = Instant::now();
        let mut streams: Vec<EventStream> =
            calls(&gateway).map(|call| call.into_events().expect_open()).into();
        for stream in &mut streams {
            wait_until("three beats", || {
                assert!(stream.is_silent_for(HEARTBEAT), "{era:?} {transport:?}");
                stream.n_comments() >= 3
            });
            let most = began.elapsed().as_millis() / HEARTBEAT.as_millis();
            let n = u128::try_from(stream.n_comments()).unwrap();
            assert!(n <= most, "{era:?} {transport:?}: {n} of {most}");
        }
        for mut stream in streams {
            let answer = loop {
                release(&behind);
                if let Ok(Some(event)) = stream.try_next(HEARTBEAT / 2) {
                    break event.json();
                }
            };
            let is_given = answer["result"]["content"].is_array();
            assert_eq!(is_given, behind.script().is_some(), "{transport:?}: {answer}");
            assert!(is_given || answer["error"].is_object(), "{transport:?}: {answer}");
        }
    }
}

#[test]
fn by_rest_a_silent_call_is_answered_as_any_other() {
    let behind = Behind::start(Transport::Http);
    let gateway = gateway(&behind);
    let mut rest = gateway.connect();
    rest.send(&Request::post("/mcp/tools/call", &slow()));
    behind.script().unwrap().wait_for_slow(1);
    std::thread::sleep(HEARTBEAT * 3);
    release(&behind);
    assert!(rest.answer().expect(200).json()["content"].is_array());
}
