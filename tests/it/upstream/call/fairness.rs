//! What one principal takes of a server leaves the others theirs. Each test has a hog that takes
//! all it can get of one resource, and a victim that is served as if it were alone.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::behind::{Behind, Transport, of_method};
use crate::support::duplex::{Door, Duplex};
use crate::support::gateway::Gateway;
use crate::support::http::{Connection, Request};
use crate::support::mcp::{McpClient, request_message};
use crate::support::upstream_http::HttpUpstream;
use crate::support::{wait_for, wait_until};

const HOG: &str = "the-key-of-the-hog";
const VICTIM: &str = "the-key-of-the-victim";
/// Of one who looks how things are, and calls nothing.
const ADMIN: &str = "the-key-of-the-admin";
/// What may come on top of twice the time, because machines have other things to do.
const SLACK: Duration = Duration::from_secs(3);

/// A gateway with both keys before one server, `s`.
fn gateway(server: Value) -> Gateway {
    Gateway::started(json!({
        "api_keys": [
            { "name": "hog", "key": HOG },
            { "name": "victim", "key": VICTIM },
            { "name": "admin", "key": ADMIN, "admin": true },
        ],
        "mcp_servers": { "s": server },
    }))
}

fn http(upstream: &HttpUpstream, max_in_flight: usize, max_waiting: usize) -> Value {
    json!({
        "url": upstream.url(), "transport": "http",
        "max_in_flight": max_in_flight, "max_waiting": max_waiting,
    })
}

fn call(key: &str, tool: &str, arguments: &Value) -> Request {
    let body = json!({ "name": tool, "arguments": arguments });
    Request::post("/mcp/tools/call", &body).header("Authorization", &format!("Bearer {key}"))
}

fn slow(gateway: &Gateway, key: &str, label: &str) -> Connection {
    let mut connection = gateway.connect();
    connection.send(&call(key, "slow", &json!({ "label": label })));
    connection
}

fn timed(work: impl FnOnce()) -> Duration {
    let began = Instant::now();
    work();
    began.elapsed()
}

/// Runs the victim's work alone and again beside the hog.
#[track_caller]
fn check_ratio(what: &str, alone: Duration, beside: Duration) {
    assert!(beside <= 2 * alone + SLACK, "{what}: {beside:?} beside the hog, {alone:?} alone");
}

fn n_waiting(gateway: &Gateway) -> usize {
    let look = Request::get("/status").header("Authorization", &format!("Bearer {ADMIN}"));
    let status = gateway.send(&look).expect(200).json();
    status["upstreams"][0]["waiting"].as_u64().unwrap().try_into().unwrap()
}

#[test]
fn one_key_takes_neither_all_places_of_a_server_nor_all_that_wait_for_one() {
    let upstream = HttpUpstream::start();
    let gateway = gateway(http(&upstream, 8, 8));
    let work = || {
        for n in 0..20 {
            gateway.send(&call(VICTIM, "add", &json!({ "a": n, "b": 1 }))).expect(200);
        }
    };
    let alone = timed(work);
    // All but a share of the places, and of those who may wait.
    let mut taken: Vec<Connection> =
        (0..12).map(|n| slow(&gateway, HOG, &n.to_string())).collect();
    upstream.wait_for_slow(6);
    wait_until("six of the hog's calls wait", || n_waiting(&gateway) == 6);
    for _ in 0..20 {
        let answer = gateway.send(&call(HOG, "slow", &json!({}))).expect(503);
        let is_told =
            answer.text().contains("there: 2 now (its share of max_waiting, which is 8)");
        assert!(is_told, "{answer}");
    }
    check_ratio("places", alone, timed(work));
    wait_until("the hog's calls are over", || {
        upstream.release_slow();
        upstream.seen().n_finished("slow") == 12
    });
    for connection in &mut taken {
        connection.answer().expect(200);
    }
}

#[test]
fn whoever_waits_for_a_place_has_its_turn_by_key() {
    let upstream = HttpUpstream::start();
    let gateway = gateway(http(&upstream, 1, 16));
    let mut hog = Vec::new();
    for n in 0..8 {
        hog.push(slow(&gateway, HOG, &format!("hog {n}")));
        wait_until("the hog's calls came in their order", || {
            upstream.seen().slow.len() + n_waiting(&gateway) == n + 1
        });
    }
    let mut victim = slow(&gateway, VICTIM, "victim");
    wait_until("all wait", || n_waiting(&gateway) == 8);
    for (n, hog) in hog.iter_mut().enumerate().take(2) {
        let label = format!("hog {n}");
        upstream.wait_until(&label, |seen| seen.slow.iter().any(|call| call.contains(&label)));
        upstream.release_labelled(&label);
        hog.answer().expect(200);
    }
    upstream.wait_until("the victim's call", |seen| {
        seen.slow.iter().any(|call| call.contains("victim"))
    });
    upstream.release_slow();
    victim.answer().expect(200);
}

#[test]
fn notifications_of_one_client_take_no_place_of_another_s_answers() {
    let upstream = HttpUpstream::start();
    let server = json!({ "url": upstream.url(), "transport": "http" });
    for keys in
        [json!([]), json!([{ "name": "hog", "key": HOG }, { "name": "victim", "key": VICTIM }])]
    {
        let gateway =
            Gateway::started(json!({ "api_keys": keys, "mcp_servers": { "s": server } }));
        let victim = Duplex::to(&gateway, Door::Streamable).key(VICTIM).named("victim").open();
        let work = || {
            for _ in 0..2 {
                let answer = victim.call("ask_elicitation", &json!({ "prompt": "x" }));
                let said = answer["structuredContent"]["answers"][0]["result"].to_string();
                assert!(said.contains("victim"), "{answer}");
            }
        };
        work();
        let alone = timed(work);
        upstream.hold(Some("vendor/flood"));
        let hog = McpClient::new(gateway.address()).with_key(HOG).opened();
        for n in 0..600 {
            hog.notify("vendor/flood", &json!({ "n": n })).expect(202);
        }
        check_ratio("answers", alone, timed(work));
        upstream.hold(None);
    }
}

#[test]
fn a_notification_that_nobody_here_knows_costs_a_call() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::started(json!({
        "api_keys": [{ "name": "k", "key": HOG, "calls_per_minute": 3 }],
        "mcp_servers": { "s": { "url": upstream.url(), "transport": "http" } },
    }));
    let client = McpClient::new(gateway.address()).with_key(HOG).opened();
    let n_told = || {
        let received = upstream.received();
        let told = of_method(&received, "vendor/told");
        (told.len(), told.iter().filter(|it| it.message["params"]["is_last"] == true).count())
    };
    for n in 0..8 {
        client.notify("vendor/told", &json!({ "n": n, "is_last": n == 2 })).expect(202);
    }
    wait_until("those that are paid for have come", || n_told() == (3, 1));
    let refused = client.request("tools/call", &json!({ "name": "add", "arguments": {} }));
    assert!(refused["error"].is_object(), "{refused}");
    assert_eq!(n_told(), (3, 1));
}

#[test]
fn one_key_takes_not_all_children_of_a_server() {
    let behind = Behind::start(Transport::Stdio);
    let gateway = gateway(behind.config());
    let open = |key: &str, name: String| {
        Duplex::to(&gateway, Door::Streamable).key(key).named(&name).open()
    };
    let work = |name: &str| {
        let victim = open(VICTIM, name.to_owned());
        let took = timed(|| drop(victim.call("whoami", &json!({}))));
        victim.end();
        took
    };
    let alone = work("alone");
    let hogs: Vec<Duplex> = (0..10).map(|n| open(HOG, format!("hog {n}"))).collect();
    let calls: Vec<_> = hogs.iter().map(|hog| hog.begin_call("slow", &json!({}))).collect();
    // The shared one and all but a share of the seven others.
    let n_begun = || {
        let received = behind.received();
        of_method(&received, "tools/call")
            .iter()
            .filter(|it| it.message["params"]["name"] == "slow")
            .count()
    };
    wait_until("the hog has what it can get", || n_begun() == 6);
    check_ratio("children", alone, work("beside"));
    // Its session is not the hog's now: another one of the victim's has it.
    check_ratio("children again", alone, work("again"));
    assert_eq!(n_begun(), 6);
    drop(hogs);
    drop(calls);
}

#[test]
fn one_key_takes_not_all_subscriptions_of_a_server() {
    const BATCH: usize = 64;
    let upstream = HttpUpstream::start();
    upstream.set_templates(&["hog:{n}", "victim:{n}"]);
    let gateway = gateway(json!({ "url": upstream.url(), "transport": "http" }));
    let hogs: Vec<McpClient> = (0..4)
        .map(|_| {
            let client = McpClient::new(gateway.address()).speaking("2025-03-26");
            client.with_key(HOG).opened()
        })
        .collect();
    let subscribe = |client: &McpClient, from: usize| -> Vec<Value> {
        let batch: Vec<Value> = (from..from + BATCH)
            .map(|n| {
                let params = json!({ "uri": format!("hog:{n}") });
                request_message(&json!(n), "resources/subscribe", &params)
            })
            .collect();
        let answer = client.post(&json!(batch).to_string()).expect(200);
        answer.message().as_array().unwrap().clone()
    };
    let mut n_had = 0;
    for (hog, from) in hogs.iter().zip((0..).step_by(1024)) {
        for from in (from..from + 1024).step_by(BATCH) {
            let answers = subscribe(hog, from);
            n_had += answers.iter().filter(|it| it["result"].is_object()).count();
        }
    }
    assert_eq!(n_had, 3072);
    let victim = Duplex::to(&gateway, Door::Streamable).key(VICTIM).open();
    for n in 0..20 {
        victim.result("resources/subscribe", &json!({ "uri": format!("victim:{n}") }));
    }
    wait_for("the update", || {
        upstream.touch("victim:7");
        victim.told("notifications/resources/updated").first().cloned()
    });
}
