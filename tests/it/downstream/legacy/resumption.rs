//! Streams that broke and are resumed with `Last-Event-ID` (2025-11-25, basic/transports,
//! Resumability and Redelivery): every event comes once and in order.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::events::{Event, EventStream};
use crate::support::gateway::Gateway;
use crate::support::http::exchange;
use crate::support::mcp::{LATEST, McpClient, request_message};
use crate::support::upstream_http::HttpUpstream;
use crate::support::{wait_for, wait_until};

/// Progress notifications of the call that is cut.
const STEPS: u32 = 3;
/// How long the absence of an event is watched.
const SILENCE: Duration = Duration::from_millis(200);

fn gateway_with(upstream: &HttpUpstream, limits: &Value) -> Gateway {
    Gateway::started(json!({
        "mcp_servers": { "s": { "url": upstream.url(), "transport": "http" } },
        "limits": limits,
    }))
}

/// A call of `slow` with progress, whose answer nobody has read yet.
fn start(client: &McpClient, upstream: &HttpUpstream, label: &str) -> Call {
    let arguments = json!({ "label": label });
    let connection =
        client.start_call_with_token(&json!("id-1"), "slow", &arguments, &json!("t"));
    upstream.wait_for_slow(1);
    Call { connection, stepped: 0 }
}

struct Call {
    connection: crate::support::http::Connection,
    stepped: u32,
}

impl Call {
    fn step_to(&mut self, upstream: &HttpUpstream, step: u32) {
        while self.stepped < step {
            self.stepped += 1;
            upstream.step_slow(self.stepped, STEPS);
        }
    }
}

/// Everything that still comes until the stream ends.
#[track_caller]
fn rest(mut stream: EventStream) -> Vec<Event> {
    let mut events = Vec::new();
    while let Some(event) = stream.try_next(crate::support::DEADLINE).unwrap() {
        events.push(event);
    }
    events
}

/// The messages as a client counts them: progress by its step, the answer by its text.
#[track_caller]
fn told(events: &[Event]) -> Vec<Value> {
    let messages = events.iter().filter(|event| !event.data.is_empty()).map(Event::json);
    messages
        .map(|message| match message.get("method") {
            Some(_) => message["params"]["progress"].clone(),
            None => {
                assert_eq!(message["id"], "id-1", "{message}");
                message["result"]["content"][0]["text"].clone()
            }
        })
        .collect()
}

fn whole() -> Vec<Value> {
    vec![json!(1), json!(2), json!(3), json!("slow cut")]
}

#[track_caller]
fn id(event: &Event) -> &str {
    event.id.as_deref().unwrap_or_else(|| panic!("no id: {event:?}"))
}

/// When the client comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Back {
    WhileItRuns,
    AfterTheAnswer,
}

/// Reads so many events, loses the connection, comes back.
#[track_caller]
fn check_cut(client: &McpClient, upstream: &HttpUpstream, cut: usize, first: u32, back: Back) {
    let mut call = start(client, upstream, "cut");
    // The stream begins with the first message.
    call.step_to(upstream, first.max(1));
    let Call { connection, stepped } = call;
    let mut stream = connection.into_events().expect_open();
    let mut got: Vec<Event> = (0..cut).map(|_| stream.next()).collect();
    stream.hang_up();
    let last = id(got.last().unwrap()).to_owned();
    let finish = || {
        ((stepped + 1)..=STEPS).for_each(|step| upstream.step_slow(step, STEPS));
        upstream.release_slow();
    };
    let n = upstream.seen().n_finished("slow");
    let resumed = match back {
        Back::WhileItRuns => {
            let resumed = client.resume(&last);
            finish();
            resumed
        }
        Back::AfterTheAnswer => {
            finish();
            upstream.wait_until("the call has ended", |seen| seen.n_finished("slow") > n);
            client.resume(&last)
        }
    };
    got.extend(rest(resumed));
    assert_eq!(told(&got), whole(), "cut after {cut} events, back {back:?}: {got:#?}");
    let mut ids: Vec<&str> = got.iter().map(id).collect();
    let in_order = ids.clone();
    ids.dedup();
    assert_eq!(ids, in_order);
    let streams: Vec<_> = ids.iter().map(|id| id.split_once('-').unwrap().0).collect();
    assert!(streams.iter().all(|stream| *stream == streams[0]), "{ids:?}");
}

#[test]
fn a_call_that_is_cut_after_any_event_is_resumed_without_loss() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::before(&upstream.url());
    for revision in ["2025-03-26", "2025-06-18", "2025-11-25"] {
        let client = McpClient::new(gateway.address()).speaking(revision).opened();
        let priming = usize::from(revision == LATEST);
        for back in [Back::WhileItRuns, Back::AfterTheAnswer] {
            for step in 0..=STEPS {
                let cut = priming + usize::try_from(step).unwrap();
                if cut > 0 {
                    check_cut(&client, &upstream, cut, step, back);
                }
            }
        }
    }
}

#[test]
fn a_call_that_is_cut_before_the_first_event_goes_on_and_harms_nobody() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::before(&upstream.url());
    let client = gateway.mcp();
    let mut call = start(&client, &upstream, "cut");
    let Call { connection, .. } = &mut call;
    std::mem::replace(connection, gateway.connect()).hang_up();
    call.step_to(&upstream, STEPS);
    upstream.release_slow();
    upstream.wait_until("the call has ended", |seen| seen.n_finished("slow") == 1);
    assert!(upstream.seen().cancellations.is_empty());
    client.call("echo", &json!({"message": "m"}));
}

#[test]
fn a_client_that_gets_one_event_a_connection_gets_them_all() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::before(&upstream.url());
    let client = gateway.mcp();
    let mut call = start(&client, &upstream, "cut");
    call.step_to(&upstream, 1);
    let mut stream = call.connection.into_events().expect_open();
    let mut got = vec![stream.next()];
    (2..=STEPS).for_each(|step| upstream.step_slow(step, STEPS));
    upstream.release_slow();
    while told(&got).len() < whole().len() {
        stream.hang_up();
        stream = client.resume(id(got.last().unwrap()));
        got.push(stream.next());
    }
    stream.expect_end();
    assert_eq!(told(&got), whole());
    // Who has everything is given nothing more.
    assert_eq!(rest(client.resume(id(got.last().unwrap()))), []);
    // And who comes again from the beginning, the same as before.
    assert_eq!(rest(client.resume(id(&got[0]))), got[1..]);
}

#[test]
fn streams_are_primed_where_the_revision_has_it() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::before(&upstream.url());
    for revision in ["2025-03-26", "2025-06-18", "2025-11-25"] {
        let client = McpClient::new(gateway.address()).speaking(revision).opened();
        let mut listening = client.listen();
        let mut call = start(&client, &upstream, "cut");
        call.step_to(&upstream, 1);
        let mut answer = call.connection.into_events().expect_open();
        let first = answer.next();
        if revision == LATEST {
            let events = [first, listening.next()];
            for event in &events {
                assert_eq!((event.data.as_str(), event.name.as_str()), ("", ""), "{event:?}");
                assert_eq!(event.retry.as_deref(), Some("1000"));
            }
            assert_ne!(id(&events[0]), id(&events[1]));
        } else {
            assert_eq!(first.json()["method"], "notifications/progress", "{revision}");
            assert!(first.id.is_some() && first.retry.is_none(), "{first:?}");
            assert!(listening.is_silent_for(SILENCE), "{revision}");
        }
        upstream.release_slow();
        rest(answer);
    }
}

fn add_tool(gateway: &Gateway, upstream: &HttpUpstream, name: &str) {
    upstream.add_tool(name);
    upstream.announce_change();
    gateway.wait_for_tool(name);
}

fn await_listening(upstream: &HttpUpstream) {
    wait_for("the gateway listens upstream", || (upstream.n_streams() > 0).then_some(()));
}

#[track_caller]
fn expect_change(event: &Event) {
    assert_eq!(event.json()["method"], "notifications/tools/list_changed", "{event:?}");
}

#[test]
fn a_change_that_was_missed_comes_when_the_stream_is_resumed() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::before(&upstream.url());
    let client = gateway.mcp();
    await_listening(&upstream);
    let mut stream = client.listen();
    let priming = stream.next();
    add_tool(&gateway, &upstream, "one");
    let heard = stream.next();
    expect_change(&heard);
    stream.hang_up();
    add_tool(&gateway, &upstream, "two");
    let mut stream = client.resume(id(&heard));
    let missed = stream.next();
    expect_change(&missed);
    assert!(stream.is_silent_for(SILENCE), "told twice");
    add_tool(&gateway, &upstream, "three");
    let live = stream.next();
    expect_change(&live);
    stream.hang_up();
    let mut stream = client.resume(id(&priming));
    assert_eq!([stream.next(), stream.next(), stream.next()], [heard, missed, live]);
    assert!(stream.is_silent_for(SILENCE));
}

#[test]
fn the_newer_connection_takes_a_listening_stream_over() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::before(&upstream.url());
    let client = gateway.mcp();
    await_listening(&upstream);
    let mut old = client.listen();
    let priming = old.next();
    let mut new = client.resume(id(&priming));
    old.expect_end();
    add_tool(&gateway, &upstream, "later");
    expect_change(&new.next());
}

#[test]
fn the_newer_connection_takes_a_calls_stream_over() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::before(&upstream.url());
    let client = gateway.mcp();
    let mut call = start(&client, &upstream, "cut");
    call.step_to(&upstream, 1);
    let mut old = call.connection.into_events().expect_open();
    let mut got = vec![old.next(), old.next()];
    let mut new = client.resume(id(&got[1]));
    upstream.step_slow(2, STEPS);
    got.push(new.next());
    old.expect_end();
    // The resumed connection may break, and be taken over, as the first one.
    let mut newest = client.resume(id(&got[2]));
    new.expect_end();
    upstream.step_slow(3, STEPS);
    got.push(newest.next());
    upstream.release_slow();
    got.extend(rest(newest));
    assert_eq!(told(&got), whole());
}

#[test]
fn a_result_larger_than_the_log_is_delivered_live_only() {
    let upstream = HttpUpstream::start();
    let gateway = gateway_with(&upstream, &json!({ "event_log_bytes": 1000 }));
    let client = gateway.mcp();
    let label = "x".repeat(1001);
    let begin = || {
        let mut call = start(&client, &upstream, &label);
        call.step_to(&upstream, 1);
        let mut stream = call.connection.into_events().expect_open();
        let got = [stream.next(), stream.next()];
        (stream, id(&got[1]).to_owned())
    };
    let result = format!("slow {label}");
    let (stream, last) = begin();
    upstream.release_slow();
    assert_eq!(told(&rest(stream)), [json!(result)]);
    // It is gone for who comes late: an error with the request's id, rather than silence.
    let late = rest(client.resume(&last));
    assert_eq!(late.len(), 1, "{late:?}");
    assert_eq!(late[0].json()["id"], "id-1");
    let message = late[0].json()["error"]["message"].as_str().unwrap().to_owned();
    assert!(message.contains("limits.event_log_bytes"), "{message}");

    let (stream, last) = begin();
    stream.hang_up();
    let mut resumed = client.resume(&last);
    // Once an event has come on it, it is live.
    upstream.step_slow(2, STEPS);
    assert_eq!(resumed.next().json()["params"]["progress"], 2);
    upstream.release_slow();
    assert_eq!(told(&rest(resumed)), [json!(result)]);
}

#[test]
fn a_burst_that_is_too_much_for_the_queue_is_had_by_coming_again() {
    let upstream = HttpUpstream::start();
    let gateway = gateway_with(&upstream, &json!({ "stream_queue_bytes": 4096 }));
    let client = gateway.mcp();
    let mut call = start(&client, &upstream, "cut");
    call.step_to(&upstream, 1);
    let mut stream = call.connection.into_events().expect_open();
    let mut got = vec![stream.next()];
    stream.hang_up();
    (2..=200).for_each(|step| upstream.step_slow(step, 200));
    upstream.release_slow();
    let mut expected: Vec<Value> = (1..=200).map(|step| json!(step)).collect();
    expected.push(json!("slow cut"));
    wait_until("the answer has come", || {
        let last = id(got.last().unwrap()).to_owned();
        got.extend(rest(client.resume(&last)));
        told(&got).last() == expected.last()
    });
    assert_eq!(told(&got), expected);
    // What is replayed goes at once, however short the queue.
    assert_eq!(rest(client.resume(id(&got[0]))), got[1..]);
}

#[test]
fn the_oldest_events_go_first() {
    let upstream = HttpUpstream::start();
    let gateway = gateway_with(&upstream, &json!({ "event_log_events": 2 }));
    let client = gateway.mcp();
    let mut call = start(&client, &upstream, "cut");
    call.step_to(&upstream, STEPS);
    let mut stream = call.connection.into_events().expect_open();
    upstream.release_slow();
    let priming = stream.next();
    assert_eq!(told(&rest(stream)), whole());
    assert_eq!(told(&rest(client.resume(id(&priming)))), whole()[2..]);
}

#[test]
fn ids_of_another_session_are_worth_nothing() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::before(&upstream.url());
    let (owner, stranger) = (gateway.mcp(), gateway.mcp());
    await_listening(&upstream);
    let mut listening = owner.listen();
    let primed = listening.next();
    add_tool(&gateway, &upstream, "later");
    let change = listening.next();
    let mut call = start(&owner, &upstream, "cut");
    call.step_to(&upstream, 1);
    let mut answer = call.connection.into_events().expect_open();
    let mut got = vec![answer.next()];
    let request = stranger.listen_request().header("Last-Event-ID", id(&got[0]));
    exchange(gateway.address(), &request).expect(400);
    // A listener gets a stream of its own, and nothing of the other's.
    let mut fresh = stranger.resume(id(&primed));
    let first = fresh.next();
    assert_eq!(first.data, "");
    assert_ne!(id(&first).split_once('-'), id(&primed).split_once('-'));
    assert!(fresh.is_silent_for(SILENCE));
    // Nor is anything taken from the owner.
    upstream.release_slow();
    got.extend(rest(answer));
    assert_eq!(told(&got), [json!(1), json!("slow cut")]);
    expect_change(&change);
    add_tool(&gateway, &upstream, "latest");
    expect_change(&listening.next());
    expect_change(&fresh.next());
}

#[test]
fn an_id_that_is_none_is_400_and_one_that_is_forgotten_begins_anew() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::before(&upstream.url());
    let client = gateway.mcp();
    let get = |id: &str| {
        let request = client.listen_request().header("Last-Event-ID", id);
        exchange(gateway.address(), &request)
    };
    for bad in ["7", "nonsense", "g-1", "x0000000000000001-1", "g0000000000000001-", "g1-1-1"] {
        let answer = get(bad).expect(400);
        assert!(answer.json()["error"]["message"].is_string(), "{bad}: {answer}");
    }
    // A call's answer would be waited for in vain on a fresh stream.
    get("p0000000000000001-1").expect(400);
    assert_eq!(client.resume("g0000000000000001-1").next().data, "");
    assert_eq!(client.resume("").next().data, "");
}

#[test]
fn a_batch_of_which_everything_was_cancelled_leaves_nothing_to_resume() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::before(&upstream.url());
    let client = McpClient::new(gateway.address()).speaking("2025-03-26").opened();
    let params = json!({
        "name": "slow", "arguments": { "label": "cut" }, "_meta": { "progressToken": "t" },
    });
    let call = request_message(&json!("id-1"), "tools/call", &params);
    let connection = client.start(&json!([call]));
    upstream.wait_for_slow(1);
    upstream.step_slow(1, STEPS);
    let mut stream = connection.into_events().expect_open();
    let heard = stream.next();
    client.cancel(&json!("id-1"));
    assert!(rest(stream).is_empty());
    let request = client.listen_request().header("Last-Event-ID", id(&heard));
    exchange(gateway.address(), &request).expect(400);
}

#[test]
fn a_cancelled_call_leaves_nothing_to_resume() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::before(&upstream.url());
    let client = gateway.mcp();
    let mut call = start(&client, &upstream, "cut");
    call.step_to(&upstream, 1);
    let mut stream = call.connection.into_events().expect_open();
    let got = [stream.next(), stream.next()];
    client.cancel(&json!("id-1"));
    stream.expect_end();
    let request = client.listen_request().header("Last-Event-ID", id(&got[1]));
    exchange(gateway.address(), &request).expect(400);
    upstream.wait_for_slow(0);
    // A stream that never held anything gives no id that one could come back with.
    let call = start(&client, &upstream, "cut");
    client.cancel(&json!("id-1"));
    assert_eq!(rest(call.connection.into_events().expect_open()), []);
}

#[test]
fn the_end_of_the_session_ends_what_was_resumed() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::before(&upstream.url());
    let client = gateway.mcp();
    let mut call = start(&client, &upstream, "cut");
    call.step_to(&upstream, 1);
    let mut stream = call.connection.into_events().expect_open();
    let first = stream.next();
    stream.hang_up();
    let mut resumed = client.resume(id(&first));
    let mut listening = client.listen();
    client.end();
    resumed.next();
    resumed.expect_end();
    listening.expect_end();
    let request = client.listen_request().header("Last-Event-ID", id(&first));
    exchange(gateway.address(), &request).expect(404);
}

#[test]
fn a_broken_stream_does_not_keep_its_session_and_a_resumed_one_does() {
    let upstream = HttpUpstream::start();
    let gateway = gateway_with(&upstream, &json!({ "session_idle_ms": 4000 }));
    let (gone, back) = (gateway.mcp(), gateway.mcp());
    let _resumed = [&gone, &back].map(|client| {
        let mut stream = client.listen();
        let first = stream.next();
        stream.hang_up();
        let stream = client.resume(id(&first));
        if std::ptr::eq(client, &raw const gone) {
            stream.hang_up();
            return None;
        }
        Some(stream)
    });
    wait_until("the idle session has ended", || {
        let status: Value = gateway.get("/status").expect(200).json();
        status["sessions"]["streamable"] == 1
    });
    back.call("echo", &json!({"message": "m"}));
}

#[test]
fn where_nothing_is_kept_events_have_no_ids() {
    let upstream = HttpUpstream::start();
    let gateway = gateway_with(&upstream, &json!({ "event_log_events": 0 }));
    let client = gateway.mcp();
    await_listening(&upstream);
    let mut listening = client.resume("g0000000000000001-1");
    let mut call = start(&client, &upstream, "cut");
    call.step_to(&upstream, STEPS);
    let stream = call.connection.into_events().expect_open();
    upstream.release_slow();
    let events = rest(stream);
    assert_eq!(told(&events), whole());
    add_tool(&gateway, &upstream, "later");
    let change = listening.next();
    expect_change(&change);
    assert!(events.iter().chain([&change]).all(|event| event.id.is_none()));
}
