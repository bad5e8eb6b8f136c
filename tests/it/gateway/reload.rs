//! Reading the configuration again: only what differs is touched, and nobody else notices.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::behind::{Behind, TRANSPORTS, Transport};
use crate::support::duplex::{Door, Duplex};
use crate::support::gateway::{Directory, Gateway, is_alive, stdio};
use crate::support::http::Request;
use crate::support::script::TEXT_URI;
use crate::support::upstream_http::HttpUpstream;
use crate::support::{stays_so, wait_until};

const TOOLS_CHANGED: &str = "notifications/tools/list_changed";

fn http(upstream: &HttpUpstream) -> Value {
    json!({ "url": upstream.url(), "transport": "http" })
}

fn servers(servers: &[(&str, Value)]) -> Value {
    let servers: serde_json::Map<String, Value> =
        servers.iter().map(|(name, server)| ((*name).to_owned(), server.clone())).collect();
    json!({ "prefix": "always", "mcp_servers": servers })
}

/// A configuration with one more member.
fn with(mut config: Value, key: &str, value: Value) -> Value {
    config[key] = value;
    config
}

fn has(gateway: &Gateway, tool: &str) -> bool {
    gateway.tool_names().iter().any(|name| name == tool)
}

#[test]
fn servers_come_and_go_and_open_sessions_hear_of_it() {
    let [a, b] = ["a", "b"].map(HttpUpstream::labelled);
    let gateway = Gateway::started(servers(&[("a", http(&a))]));
    let clients = [Door::Streamable, Door::Sse].map(|door| Duplex::to(&gateway, door).open());
    gateway.reload(&servers(&[("a", http(&a)), ("b", http(&b))]));
    gateway.wait_for_tool("b-echo");
    for client in &clients {
        client.wait_told(TOOLS_CHANGED);
        assert!(!client.call("b-whoami", &json!({})).is_null());
    }
    let told = clients[0].told(TOOLS_CHANGED).len();
    gateway.reload(&servers(&[("a", http(&a))]));
    assert!(!has(&gateway, "b-echo") && has(&gateway, "a-echo"));
    clients[0].wait_told_times(TOOLS_CHANGED, told + 1);
    let error = gateway.call("b-echo", &json!({})).expect_error(404);
    assert_eq!(error["code"], "unknown_tool", "{error}");
    wait_until("the session with what is no more ends", || b.n_deleted() > 0);
    // The one that did not change was asked for a session once.
    assert_eq!(a.n_deleted(), 0);
    assert_eq!(a.seen().n_initialize, 1);
    for client in &clients {
        assert!(!client.call("a-whoami", &json!({})).is_null());
    }
}

#[test]
fn a_bad_file_changes_nothing_and_all_that_is_wrong_is_said() {
    let upstream = HttpUpstream::start();
    let config = servers(&[("a", http(&upstream))]);
    let gateway = Gateway::started(config.clone());
    let bad = json!({ "nonsense": 1, "mcp_servers": { "a": { "url": "ftp://x" }, "b": {} } });
    gateway.reload(&bad);
    let said = gateway.stderr();
    for what in ["/nonsense", "/mcp_servers/a/url", "/mcp_servers/b", "stays as it was"] {
        assert!(said.contains(what), "{what}: {said}");
    }
    gateway.write_config_text("{ \"mcp_servers\": ");
    gateway.wait_for_reload(|| gateway.signal(Signal::HUP));
    assert_eq!(gateway.call_text("a-echo", &json!({"message": "m"})), "m");
    gateway.reload(&config);
    assert!(gateway.stderr().contains("nothing differs"));
    assert_eq!(upstream.seen().n_initialize, 1);
}

#[test]
fn over_a_hundred_reloads_no_call_on_what_does_not_change_fails() {
    let _heavy = crate::support::heavy();
    let [a, b] = ["a", "b"].map(HttpUpstream::labelled);
    let of = |n: usize| {
        let mut all = vec![("a", http(&a))];
        if n.is_multiple_of(2) {
            all.push(("b", http(&b)));
        }
        let mut changing = http(&b);
        changing["timeout_ms"] = json!(10_000 + n);
        all.push(("c", changing));
        servers(&all)
    };
    let gateway = Gateway::started(of(0));
    let session = gateway.mcp();
    let mut stream = session.listen();
    let (over, made) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut connection = gateway.connect();
                let call = Request::post(
                    "/mcp/tools/call",
                    &json!({"name": "a-echo", "arguments": {"message": "m"}}),
                );
                while !over.load(Ordering::Relaxed) {
                    let answer = connection.exchange(&call).expect(200).json();
                    assert_eq!(answer["content"][0]["text"], "m");
                    assert!(!session.call("a-whoami", &json!({})).is_null());
                    made.fetch_add(2, Ordering::Relaxed);
                }
            });
        }
        let reloads = scope.spawn(|| {
            for n in 1..=100 {
                gateway.reload(&of(n));
            }
        });
        // Whatever fails, the callers must end.
        let result = reloads.join();
        over.store(true, Ordering::Relaxed);
        result.unwrap();
    });
    assert!(made.load(Ordering::Relaxed) >= 100, "{made:?} calls");
    assert_eq!(a.seen().n_initialize, 1, "what does not change keeps its session");
    // The stream that was open all the time is open still, and heard of it.
    stream.next_message_where(|message| message["method"] == TOOLS_CHANGED);
    gateway.wait_for_tool("b-echo");
}

#[test]
fn keys_change_and_the_sessions_of_those_that_end_end() {
    let upstream = HttpUpstream::start();
    let config = |keys: Value| with(servers(&[("a", http(&upstream))]), "api_keys", keys);
    let [one, two] = ["one", "two"].map(|name| json!({ "name": name, "key": name }));
    let gateway = Gateway::started(config(json!([one, two])));
    let open = |key: &str| Duplex::to(&gateway, Door::Streamable).key(key).open();
    let clients = [open("one"), open("two")];
    let narrowed = json!({ "name": "one", "key": "one", "tools": ["a-echo"] });
    let three = json!({ "name": "three", "key": "three", "admin": true });
    gateway.reload(&config(json!([narrowed, three])));
    let list = |key: &str| {
        let request = Request::get("/mcp/tools/list");
        gateway.send(&request.header("authorization", &format!("Bearer {key}")))
    };
    list("two").expect(401);
    list("three").expect(200);
    assert_eq!(list("one").expect(200).json()["tools"].as_array().unwrap().len(), 1);
    // Whose rights alone differ keeps the session, and is told.
    clients[0].wait_told(TOOLS_CHANGED);
    assert_eq!(clients[0].names("tools/list", "tools", "name"), ["a-echo"]);
    let status = || {
        let request = Request::get("/status").header("authorization", "Bearer three");
        gateway.send(&request).expect(200).json()
    };
    wait_until("the session of the key that is gone ends", || {
        let status = status();
        status["sessions"]["streamable"] == 1 && status["streams"] == 1
    });
}

#[test]
fn what_a_key_has_spent_stays_spent() {
    let upstream = HttpUpstream::start();
    let config = |per_minute: u32, timeout: u32| {
        let key = json!({ "name": "k", "key": "k", "calls_per_minute": per_minute });
        let mut server = http(&upstream);
        server["timeout_ms"] = json!(timeout);
        with(servers(&[("a", server)]), "api_keys", json!([key]))
    };
    let gateway = Gateway::started(config(2, 5000));
    let call = || gateway.call("a-echo", &json!({"message": "m"}));
    call().expect(200);
    call().expect(200);
    call().expect(429);
    gateway.reload(&config(2, 6000));
    call().expect(429);
    gateway.reload(&config(600, 6000));
    gateway.wait_ready();
    call().expect(200);
}

#[test]
fn calls_in_flight_on_a_server_that_changes_finish() {
    let [old, new] = ["old", "new"].map(HttpUpstream::labelled);
    let gateway = Gateway::started(servers(&[("s", http(&old))]));
    let mut rest = gateway.connect();
    rest.send(&Request::post("/mcp/tools/call", &json!({"name": "s-slow"})));
    old.wait_for_slow(1);
    gateway.reload(&servers(&[("s", http(&new))]));
    gateway.wait_for_tool("s-echo");
    gateway.call("s-whoami", &json!({})).expect(200);
    assert_eq!(
        (old.seen().calls.get("whoami"), new.seen().calls.get("whoami")),
        (None, Some(&1))
    );
    old.release_slow();
    rest.answer().expect(200);
    wait_until("the old one's session ends", || old.n_deleted() > 0);
}

#[test]
fn a_server_that_is_told_another_secret_keeps_its_tools_meanwhile() {
    let upstream = HttpUpstream::start();
    let config = |key: &str| {
        let mut server = http(&upstream);
        server["headers"] = json!({ "X-Api-Key": key });
        servers(&[("s", server)])
    };
    let gateway = Gateway::started(config("one"));
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let looks = scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                assert!(has(&gateway, "s-echo"), "its tools are gone for a while");
                gateway.call("s-echo", &json!({ "message": "m" })).expect(200);
            }
        });
        for n in 0..10 {
            gateway.reload(&config(&format!("key-{n}-of-many")));
        }
        over.store(true, Ordering::Relaxed);
        looks.join().unwrap();
    });
    assert!(!gateway.stderr().contains("of-many"), "{}", gateway.stderr());
}

#[test]
fn pins_without_the_place_that_a_start_gives_them_are_refused() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::started(servers(&[("s", http(&upstream))]));
    let mut server = http(&upstream);
    server["pin"] = json!("enforce");
    let config = with(servers(&[("s", server)]), "state_dir", json!("state"));
    gateway.reload(&config);
    let said = gateway.stderr();
    assert!(said.contains("/mcp_servers/s/pin: there is no state_dir until"), "{said}");
}

#[test]
fn what_does_not_finish_in_time_is_cut_off() {
    let [old, new] = ["old", "new"].map(HttpUpstream::labelled);
    let config = |server: &HttpUpstream| {
        with(servers(&[("s", http(server))]), "limits", json!({ "drain_ms": 300 }))
    };
    let gateway = Gateway::started(config(&old));
    let mut rest = gateway.connect();
    rest.send(&Request::post("/mcp/tools/call", &json!({"name": "s-slow"})));
    old.wait_for_slow(1);
    gateway.reload(&config(&new));
    let error = rest.answer().expect_error(502);
    assert_eq!((&error["code"], &error["server"]), (&json!("upstream_failed"), &json!("s")));
    let told = error["message"].as_str().unwrap();
    for part in ["configuration", "limits.drain_ms (300 ms) was over", "the tool may have run"]
    {
        assert!(told.contains(part), "{part}: {error}");
    }
}

#[test]
fn children_that_do_not_change_live_on_and_those_that_are_no_more_end() {
    let config = |names: &[&str]| {
        let all: Vec<_> = names.iter().map(|name| (*name, stdio(&[]))).collect();
        servers(&all)
    };
    let gateway = Gateway::started(config(&["a", "b"]));
    let id = |name: &str| -> u32 {
        gateway.call_text(&format!("{name}-pid"), &json!({})).parse().unwrap()
    };
    let (a, b) = (id("a"), id("b"));
    gateway.reload(&config(&["a", "c"]));
    wait_until("the child ends", || !is_alive(b));
    gateway.wait_for_tool("c-echo");
    assert_eq!(id("a"), a);
}

#[test]
fn what_is_subscribed_to_stays_so_when_its_server_changes() {
    for transport in TRANSPORTS {
        for capabilities in [json!({}), json!({ "elicitation": {} })] {
            let behind = Behind::start(transport);
            let gateway = behind.gateway(&json!({}));
            let client =
                Duplex::to(&gateway, Door::Streamable).declaring(capabilities.clone()).open();
            client.result("resources/subscribe", &json!({ "uri": TEXT_URI }));
            let mut server = behind.config();
            server["timeout_ms"] = json!(12_345);
            gateway.reload(&json!({ "mcp_servers": { "s": server } }));
            wait_until("it is subscribed to again", || {
                let told = client.told("notifications/resources/updated").len();
                client.call("touch", &json!({ "uri": TEXT_URI }));
                stays_so("time to be told", Duration::from_millis(20), || true);
                client.told("notifications/resources/updated").len() > told
            });
        }
    }
}

#[test]
fn with_watch_a_changed_file_is_read_by_itself() {
    let [a, b] = ["a", "b"].map(HttpUpstream::labelled);
    let config = |all: &[(&str, Value)]| with(servers(all), "watch", json!(true));
    let gateway = Gateway::started(config(&[("a", http(&a))]));
    let both = config(&[("a", http(&a)), ("b", http(&b))]);
    gateway.wait_for_reload(|| gateway.write_config(&both));
    gateway.wait_for_tool("b-echo");
    // As editors write: another file takes its place.
    gateway.wait_for_reload(|| gateway.replace_config(&config(&[("b", http(&b))])));
    assert!(!has(&gateway, "a-echo"));
    assert!(!gateway.stderr().contains("stays as it was"), "{}", gateway.stderr());
}

#[test]
fn what_takes_effect_at_a_start_is_named_and_the_level_of_the_log_changes() {
    let upstream = HttpUpstream::start();
    let config = servers(&[("a", http(&upstream))]);
    let gateway = Gateway::started(config.clone());
    let changed = with(with(config, "limits", json!({ "streams": 7 })), "watch", json!(true));
    gateway.reload(&with(changed.clone(), "log", json!({ "access": true })));
    let said = gateway.stderr();
    assert!(said.contains("/limits differs; it takes effect at the next start"), "{said}");
    assert!(said.contains("/watch differs"), "{said}");
    gateway.call_text("a-echo", &json!({"message": "m"}));
    wait_until("calls are logged", || gateway.stderr().contains("a-echo"));
    assert_eq!(gateway.get("/status").json()["limits"]["streams"]["max"], 4096);
}

#[test]
fn a_reload_is_transport_blind() {
    // Each transport's server is replaced by one of another transport under the same name.
    for (first, second) in
        [(Transport::Http, Transport::Stdio), (Transport::Stdio, Transport::Sse)]
    {
        let [old, new] = [Behind::labelled(first, "old"), Behind::labelled(second, "new")];
        let gateway = old.gateway(&json!({}));
        let client = Duplex::to(&gateway, Door::Streamable).open();
        gateway.reload(&json!({ "mcp_servers": { "s": new.config() } }));
        wait_until("the new one answers", || {
            let answer = client.request("resources/read", &json!({ "uri": TEXT_URI }));
            answer.to_string().contains("new has")
        });
    }
}

#[test]
fn a_secret_of_a_file_is_read_again() {
    let upstream = HttpUpstream::start();
    upstream.require_header("Authorization", "Bearer first-first");
    let mut server = http(&upstream);
    let directory = Directory::new();
    let secret = directory.path().join("secret");
    let value = format!("Bearer ${{file:{}}}", secret.display());
    server["headers"] = json!({ "Authorization": value });
    std::fs::write(&secret, "first-first\n").unwrap();
    let gateway = Gateway::started(servers(&[("a", server)]));
    assert_eq!(gateway.call_text("a-echo", &json!({"message": "m"})), "m");
    upstream.require_header("Authorization", "Bearer second-second");
    std::fs::write(&secret, "second-second\n").unwrap();
    gateway.wait_for_reload(|| gateway.signal(Signal::HUP));
    gateway.wait_for_tool("a-echo");
    assert_eq!(gateway.call_text("a-echo", &json!({"message": "m"})), "m");
    let said = gateway.stderr();
    assert!(said.contains("servers changed: a"), "{said}");
    assert!(!said.contains("first-first") && !said.contains("second-second"), "{said}");
}
