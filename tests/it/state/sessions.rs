//! Sessions over a kill and a start: those that were open go on, those that were ended stay so.

use serde_json::{Value, json};

use super::{State, server};
use crate::support::gateway::Gateway;
use crate::support::mcp::McpClient;
use crate::support::upstream_http::HttpUpstream;

fn ping(client: &McpClient) -> u16 {
    client.post(&json!({"jsonrpc": "2.0", "id": 1, "method": "ping"}).to_string()).status()
}

#[test]
fn after_a_kill_the_client_simply_goes_on() {
    use crate::support::listener::free_port;

    let (state, upstream) = (State::new(), HttpUpstream::start());
    let mut config = state.before(&upstream.url());
    config["listen"] = json!(format!("127.0.0.1:{}", free_port()));
    let gateway = Gateway::started(config.clone());
    // The same client all the time: it knows nothing of the restart.
    let client = gateway.mcp();
    let mut stream = client.listen();
    client.call("echo", &json!({}));
    gateway.kill();
    stream.expect_end();
    let gateway = super::listening(&upstream, config);
    client.call("echo", &json!({}));
    assert!(client.tool_names().contains(&"echo".to_owned()));
    let mut stream = client.listen();
    upstream.change("tools", "fresh");
    stream.next_message_where(|it| it["method"] == "notifications/tools/list_changed");
    assert!(client.tool_names().contains(&"fresh".to_owned()));
    client.end().expect(204);
    assert_eq!(ping(&client), 404);
    drop(gateway);
}

#[test]
fn what_was_ended_stays_ended() {
    let (state, upstream) = (State::new(), HttpUpstream::start());
    let config = state.before(&upstream.url());
    let first = Gateway::started(config.clone());
    let open = |gateway: &Gateway| gateway.mcp().session().to_owned();
    let (now, later, kept) = (open(&first), open(&first), open(&first));
    let go_on = |gateway: &Gateway, id: &str| McpClient::new(gateway.address()).in_session(id);
    go_on(&first, &now).end().expect(204);
    // Nothing comes between the answer and the end of the process.
    first.kill();
    let second = Gateway::started(config.clone());
    assert_eq!(ping(&go_on(&second, &now)), 404);
    // Ended before this process has ever seen it.
    go_on(&second, &later).end().expect(204);
    go_on(&second, &later).end().expect(404);
    assert_eq!(ping(&go_on(&second, &later)), 404);
    assert_eq!(ping(&go_on(&second, &kept)), 200);
    second.kill();
    let third = Gateway::started(config);
    assert_eq!(ping(&go_on(&third, &now)), 404);
    assert_eq!(ping(&go_on(&third, &later)), 404);
    assert_eq!(ping(&go_on(&third, &kept)), 200);
}

#[test]
fn a_session_that_there_is_no_room_to_revive_can_be_ended() {
    let (state, upstream) = (State::new(), HttpUpstream::start());
    let extra = json!({ "limits": { "sessions": 1, "sessions_per_key": 1 } });
    let config = state.config(&server(&upstream.url()), &extra);
    let first = Gateway::started(config.clone());
    let old = first.mcp().session().to_owned();
    first.kill();
    let second = Gateway::started(config);
    let new = second.mcp();
    let old = McpClient::new(second.address()).in_session(&old);
    old.end().expect(204);
    old.end().expect(404);
    new.end().expect(204);
    assert_eq!(ping(&old), 404, "there is room now, but it has ended");
}

#[test]
fn nobody_gets_another_s_session_by_a_restart() {
    let (state, upstream) = (State::new(), HttpUpstream::start());
    let extra = json!({ "api_keys": [
        { "name": "a", "key": "key-a-1234" }, { "name": "b", "key": "key-b-1234" },
    ]});
    let config = state.config(&server(&upstream.url()), &extra);
    let first = Gateway::started(config.clone());
    let id = first.mcp().session().to_owned();
    first.kill();
    let second = Gateway::started(config);
    let with =
        |key: &str, id: &str| McpClient::new(second.address()).with_key(key).in_session(id);
    assert_eq!(ping(&with("key-b-1234", &id)), 404);
    with("key-b-1234", &id).end().expect(404);
    for at in [0, id.len() / 2, id.len() - 2] {
        let mut forged = id.clone().into_bytes();
        forged[at] = if forged[at] == b'A' { b'B' } else { b'A' };
        let forged = String::from_utf8(forged).unwrap();
        assert_eq!(ping(&with("key-a-1234", &forged)), 404, "byte {at}");
        with("key-a-1234", &forged).end().expect(404);
    }
    assert_eq!(ping(&with("key-a-1234", &id)), 200);
    let elsewhere = State::new();
    let config = elsewhere.config(&server(&upstream.url()), &extra);
    let other = Gateway::started(config);
    let foreign = McpClient::new(other.address()).with_key("key-a-1234").in_session(&id);
    assert_eq!(ping(&foreign), 404, "a session of another state");
}

#[test]
fn the_key_of_the_configuration_wins() {
    let (state, upstream) = (State::new(), HttpUpstream::start());
    let key = json!({ "session_key": "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=" });
    let config = |extra: &Value| state.config(&server(&upstream.url()), extra);
    let first = Gateway::started(config(&key));
    let id = first.mcp().session().to_owned();
    first.kill();
    assert!(!state.names().contains(&"session-key".to_owned()), "{:?}", state.names());
    let go_on = |gateway: &Gateway| McpClient::new(gateway.address()).in_session(&id);
    let second = Gateway::started(config(&json!({})));
    assert_eq!(ping(&go_on(&second)), 404);
    second.kill();
    assert!(state.names().contains(&"session-key".to_owned()), "{:?}", state.names());
    let third = Gateway::started(config(&key));
    assert_eq!(ping(&go_on(&third)), 200);
}

#[test]
fn a_restart_of_the_server_behind_is_not_seen() {
    let upstream = HttpUpstream::start();
    let state = State::new();
    let gateway = Gateway::started(state.before(&upstream.url()));
    let client = gateway.mcp();
    client.call("echo", &json!({}));
    upstream.die();
    upstream.come();
    client.call("echo", &json!({}));
    upstream.forget_sessions();
    client.call("echo", &json!({}));
}
