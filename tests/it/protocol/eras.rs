//! Any client with any server: every cell of client era, client transport, upstream era, upstream
//! transport and feature is a test of its own.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::behind::{Behind, Era, TRANSPORTS, Transport, of_method, params_of};
use crate::support::duplex::{DOORS, Door, Duplex, all_capabilities};
use crate::support::gateway::Gateway;
use crate::support::modern::ModernClient;
use crate::support::script::{FORM, LEVELS, TEXT_URI, meta};
use crate::support::stopwatch::Stopwatch;
use crate::support::{stays_so, unique, wait_until};

/// What a cell is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Feature {
    Elicitation,
    Sampling,
    Roots,
    Progress,
    Logging,
    ListChange,
    ResourceUpdate,
    CancelBeforeTheFirstByte,
    CancelAfterTheFirstByte,
}

/// All of them.
const FEATURES: [Feature; 9] = [
    Feature::Elicitation,
    Feature::Sampling,
    Feature::Roots,
    Feature::Progress,
    Feature::Logging,
    Feature::ListChange,
    Feature::ResourceUpdate,
    Feature::CancelBeforeTheFirstByte,
    Feature::CancelAfterTheFirstByte,
];

const ERAS: [Era; 2] = [Era::Legacy, Era::Modern];

/// A client and the server that it works with.
type Pair = (Era, Door, Era, Transport);

/// Pairs that cannot be, and why.
type Impossible = (fn(Pair) -> bool, &'static str);

/// What the specification leaves no room for, with every feature.
const IMPOSSIBLE: [Impossible; 2] = [
    (
        |(client, door, ..)| client == Era::Modern && door == Door::Sse,
        "HTTP+SSE is the transport of 2024-11-05: its stream is a session, and a modern request \
         is a POST that is answered where it was sent (2026-07-28, basic/transports)",
    ),
    (
        |(_, _, upstream, transport)| upstream == Era::Modern && transport == Transport::Sse,
        "the same: a server of HTTP+SSE is a legacy one",
    ),
];

/// Makes a module of tests for each pair, a test for each feature, and the list of both.
macro_rules! cells {
    ($($name:ident: $pair:expr;)+) => {
        /// Every cell that has a test.
        fn cells() -> Vec<(Pair, Feature)> {
            let mut cells = Vec::new();
            $(cells.extend($name::FEATURES.iter().map(|feature| ($pair, *feature)));)+
            cells
        }

        $(mod $name {
            use super::{Door, Era, Feature, Pair, Transport};

            const PAIR: Pair = $pair;

            cells! {
                @features
                elicitation Elicitation,
                sampling Sampling,
                roots Roots,
                progress Progress,
                logging Logging,
                list_change ListChange,
                resource_update ResourceUpdate,
                cancel_before_the_first_byte CancelBeforeTheFirstByte,
                cancel_after_the_first_byte CancelAfterTheFirstByte,
            }
        })+
    };
    (@features $($test:ident $feature:ident,)+) => {
        pub(super) const FEATURES: &[Feature] = &[$(Feature::$feature),+];

        $(#[test]
        fn $test() {
            super::run(PAIR, Feature::$feature);
        })+
    };
}

cells! {
    legacy_to_legacy_http: (Era::Legacy, Door::Streamable, Era::Legacy, Transport::Http);
    legacy_to_legacy_sse: (Era::Legacy, Door::Streamable, Era::Legacy, Transport::Sse);
    legacy_to_legacy_stdio: (Era::Legacy, Door::Streamable, Era::Legacy, Transport::Stdio);
    legacy_to_modern_http: (Era::Legacy, Door::Streamable, Era::Modern, Transport::Http);
    legacy_to_modern_stdio: (Era::Legacy, Door::Streamable, Era::Modern, Transport::Stdio);
    legacy_over_sse_to_legacy_http: (Era::Legacy, Door::Sse, Era::Legacy, Transport::Http);
    legacy_over_sse_to_legacy_sse: (Era::Legacy, Door::Sse, Era::Legacy, Transport::Sse);
    legacy_over_sse_to_legacy_stdio: (Era::Legacy, Door::Sse, Era::Legacy, Transport::Stdio);
    legacy_over_sse_to_modern_http: (Era::Legacy, Door::Sse, Era::Modern, Transport::Http);
    legacy_over_sse_to_modern_stdio: (Era::Legacy, Door::Sse, Era::Modern, Transport::Stdio);
    modern_to_legacy_http: (Era::Modern, Door::Streamable, Era::Legacy, Transport::Http);
    modern_to_legacy_sse: (Era::Modern, Door::Streamable, Era::Legacy, Transport::Sse);
    modern_to_legacy_stdio: (Era::Modern, Door::Streamable, Era::Legacy, Transport::Stdio);
    modern_to_modern_http: (Era::Modern, Door::Streamable, Era::Modern, Transport::Http);
    modern_to_modern_stdio: (Era::Modern, Door::Streamable, Era::Modern, Transport::Stdio);
}

#[test]
fn every_cell_is_present_or_impossible() {
    let cells = cells();
    let (mut n_present, mut n_impossible) = (0, 0);
    for client in ERAS {
        for door in DOORS {
            for upstream in ERAS {
                for transport in TRANSPORTS {
                    let pair = (client, door, upstream, transport);
                    let reason = IMPOSSIBLE.iter().find(|(is_it, _)| is_it(pair));
                    for feature in FEATURES {
                        let n = cells.iter().filter(|cell| **cell == (pair, feature)).count();
                        match reason {
                            None => assert_eq!(n, 1, "{pair:?} {feature:?}"),
                            Some((_, why)) => assert_eq!((n, why.is_empty()), (0, false)),
                        }
                        n_present += n;
                        n_impossible += usize::from(reason.is_some());
                    }
                }
            }
        }
    }
    assert_eq!((n_present, cells.len()), (135, 135));
    assert_eq!(n_impossible, 24 * FEATURES.len() - 135);
}

/// One cell, with a gateway of its own.
fn run((client, door, upstream, transport): Pair, feature: Feature) {
    let behind = Behind::of(upstream, transport, "scripted");
    let mut server = behind.config();
    // So that a slot which is not freed is noticed by the next call.
    server["max_in_flight"] = json!(1);
    let gateway = Gateway::started(json!({ "mcp_servers": { "s": server } }));
    let cell = Cell { gateway, behind, door, upstream };
    match (client, feature) {
        (Era::Legacy, Feature::Elicitation) => cell.legacy_is_asked(&ELICITATION),
        (Era::Legacy, Feature::Sampling) => cell.legacy_is_asked(&SAMPLING),
        (Era::Legacy, Feature::Roots) => cell.legacy_is_asked(&ROOTS),
        (Era::Legacy, Feature::Progress) => cell.legacy_progress(),
        (Era::Legacy, Feature::Logging) => cell.legacy_logging(),
        (Era::Legacy, Feature::ListChange) => cell.legacy_list_change(),
        (Era::Legacy, Feature::ResourceUpdate) => cell.legacy_resource_update(),
        (Era::Legacy, Feature::CancelBeforeTheFirstByte) => cell.legacy_cancel(false),
        (Era::Legacy, Feature::CancelAfterTheFirstByte) => cell.legacy_cancel(true),
        (Era::Modern, Feature::Elicitation) => cell.modern_is_asked(&ELICITATION),
        (Era::Modern, Feature::Sampling) => cell.modern_is_asked(&SAMPLING),
        (Era::Modern, Feature::Roots) => cell.modern_is_asked(&ROOTS),
        (Era::Modern, Feature::Progress) => cell.modern_progress(),
        (Era::Modern, Feature::Logging) => cell.modern_logging(),
        (Era::Modern, Feature::ListChange) => cell.modern_list_change(),
        (Era::Modern, Feature::ResourceUpdate) => cell.modern_resource_update(),
        (Era::Modern, Feature::CancelBeforeTheFirstByte) => cell.modern_cancel(false),
        (Era::Modern, Feature::CancelAfterTheFirstByte) => cell.modern_cancel(true),
    }
}

/// What a server asks.
struct Kind {
    tool: &'static str,
    method: &'static str,
    /// What stands in the question, as it was written.
    in_question: &'static str,
    /// What alice's answer holds.
    in_answer: &'static str,
}

const SAMPLING: Kind = Kind {
    tool: "ask_sampling",
    method: "sampling/createMessage",
    in_question: r#""maxTokens":1E2,"x-unknown":{"z":1.50,"a":null}"#,
    in_answer: "model of alice",
};

const ELICITATION: Kind = Kind {
    tool: "ask_elicitation",
    method: "elicitation/create",
    in_question: FORM,
    in_answer: r#""zulu":"alice""#,
};

const ROOTS: Kind = Kind {
    tool: "ask_roots",
    method: "roots/list",
    in_question: "",
    in_answer: "file:///alice",
};

const PROGRESS: &str = "notifications/progress";
const MESSAGE: &str = "notifications/message";
const TOOLS_CHANGED: &str = "notifications/tools/list_changed";
const UPDATED: &str = "notifications/resources/updated";

/// How soon a cancelled call must be cancelled upstream.
const CANCELLED_WITHIN: Duration = Duration::from_secs(1);

struct Cell {
    gateway: Gateway,
    behind: Behind,
    door: Door,
    upstream: Era,
}

/// A message of each level.
fn one_of_each() -> Value {
    let messages = LEVELS.map(|level| json!({ "level": level, "logger": "l", "data": level }));
    json!({ "messages": messages })
}

fn levels(told: &[Value]) -> Vec<&str> {
    told.iter().map(|params| params["level"].as_str().unwrap()).collect()
}

/// Fails unless these are the three steps of `count`, under that token.
#[track_caller]
fn check_steps(told: &[Value], token: &Value) {
    let step = |n: u64| json!({ "progressToken": token, "progress": n, "total": 3, "message": format!("step {n}") });
    assert_eq!(told, [step(1), step(2), step(3)]);
}

fn text_of(result: &Value) -> &str {
    result["content"][0]["text"].as_str().unwrap_or_else(|| panic!("{result}"))
}

/// What all cells share: what the upstream sees.
impl Cell {
    fn legacy(&self) -> crate::support::duplex::Builder {
        Duplex::to(&self.gateway, self.door)
    }

    fn modern(&self) -> ModernClient {
        ModernClient::to(&self.gateway)
    }

    /// Waits until what the server says unasked can reach the gateway.
    #[track_caller]
    fn wait_for_ears(&self, filter: impl Fn(&Value) -> bool) {
        if self.upstream == Era::Modern {
            self.behind.wait_received("a subscription", |received| {
                let listens = params_of(received, "subscriptions/listen");
                listens.iter().any(|params| filter(&params["notifications"])).then_some(())
            });
            if let Some(script) = self.behind.script() {
                wait_until("it is open", || script.listens().iter().any(&filter));
            }
        } else if let Some(script) = self.behind.script() {
            wait_until("a stream is open", || script.n_streams() > 0);
        }
    }

    /// Waits until the upstream knows that somebody wants to hear of that resource.
    #[track_caller]
    fn wait_subscribed(&self, uri: &str) {
        if self.upstream == Era::Modern {
            return self.wait_for_ears(|filter| {
                let uris = filter["resourceSubscriptions"].as_array();
                uris.is_some_and(|uris| uris.contains(&json!(uri)))
            });
        }
        self.behind.wait_received("resources/subscribe", |received| {
            let asked = params_of(received, "resources/subscribe");
            asked.iter().any(|params| params["uri"] == uri).then_some(())
        });
    }

    /// The upstream was told that its client can do exactly what the caller can.
    #[track_caller]
    fn check_declared(&self, tool: &str, n_calls: usize) {
        let received = self.behind.received();
        let mut calls = of_method(&received, "tools/call");
        calls.retain(|call| call.message["params"]["name"] == tool);
        assert_eq!(calls.len(), n_calls, "{calls:?}");
        if self.upstream == Era::Modern {
            for call in &calls {
                let own = &call.message["params"]["_meta"];
                assert_eq!(own[meta("clientCapabilities")], all_capabilities(), "{call:?}");
            }
            let ids: Vec<&Value> = calls.iter().map(|call| &call.message["id"]).collect();
            assert!(ids.windows(2).all(|two| two[0] != two[1]), "{ids:?}");
            return;
        }
        let opened = of_method(&received, "initialize");
        let own = opened.iter().filter(|it| it.peer == calls[0].peer);
        let declared: Vec<&Value> =
            own.map(|it| &it.message["params"]["capabilities"]).collect();
        assert_eq!(declared, [&all_capabilities()]);
    }

    /// How often a tool that asks once is called: a modern server is asked again.
    fn n_calls_of_one_question(&self) -> usize {
        if self.upstream == Era::Modern { 2 } else { 1 }
    }

    #[track_caller]
    fn check_answers(&self, message: &Value, kind: &Kind) {
        let answers = &message["result"]["structuredContent"]["answers"];
        let answers = answers.as_array().unwrap_or_else(|| panic!("{message}"));
        assert_eq!(answers.len(), 1, "{message}");
        assert!(answers[0]["result"].to_string().contains(kind.in_answer), "{message}");
        self.check_declared(kind.tool, self.n_calls_of_one_question());
    }

    #[track_caller]
    fn wait_cancelled(&self, label: &str) {
        let watch = Stopwatch::start(&self.gateway);
        watch.wait_within(CANCELLED_WITHIN, "it is cancelled upstream", || {
            self.behind.has_cancelled(label).then_some(())
        });
    }

    /// Waits until the upstream has that `slow` call.
    #[track_caller]
    fn wait_begun(&self, label: &str) {
        self.behind.wait_received("the call", |received| {
            let calls = params_of(received, "tools/call");
            calls.iter().any(|params| params["arguments"]["label"] == label).then_some(())
        });
        if let Some(script) = self.behind.script() {
            script.wait_for_slow(1);
        }
    }
}

/// Clients with a session.
impl Cell {
    fn legacy_is_asked(&self, kind: &Kind) {
        let client = self.legacy().named("alice").open();
        let message = client.begin_call(kind.tool, &json!({})).join().unwrap();
        self.check_answers(&message, kind);
        let asked = client.questions();
        assert_eq!(asked.len(), 1, "{asked:?}");
        assert!(asked[0].asks(kind.method), "{asked:?}");
        assert!(asked[0].text.contains(kind.in_question), "{}", asked[0].text);
        assert!(message["result"].get("resultType").is_none(), "{message}");
    }

    fn legacy_progress(&self) {
        let client = self.legacy().open();
        for token in [json!("p"), json!(7)] {
            let n_before = client.told(PROGRESS).len();
            let params = json!({ "name": "count", "_meta": { "progressToken": token } });
            assert_eq!(text_of(&client.result("tools/call", &params)), "counted");
            client.wait_told_times(PROGRESS, n_before + 3);
            check_steps(&client.told(PROGRESS)[n_before..], &token);
        }
        client.call("count", &json!({}));
        assert_eq!(client.told(PROGRESS).len(), 6, "nobody asked");
    }

    fn legacy_logging(&self) {
        let client = self.legacy().open();
        let set = |level: &str| {
            let params = json!({ "level": level });
            assert_eq!(client.result("logging/setLevel", &params), json!({}));
        };
        set("warning");
        client.call("log", &one_of_each());
        client.wait_told_times(MESSAGE, 5);
        assert_eq!(levels(&client.told(MESSAGE)), LEVELS[3..]);
        set("alert");
        client.call("log", &one_of_each());
        client.wait_told_times(MESSAGE, 7);
        stays_so("the rest is not heard", Duration::from_millis(100), || {
            client.told(MESSAGE).len() == 7
        });
    }

    fn legacy_list_change(&self) {
        let client = self.legacy().open();
        assert_eq!(client.initialized()["capabilities"]["tools"]["listChanged"], true);
        self.wait_for_ears(|filter| filter["toolsListChanged"] == true);
        client.call("change", &json!({ "kind": "tools", "name": "fresh" }));
        client.wait_told(TOOLS_CHANGED);
        let names = client.names("tools/list", "tools", "name");
        assert!(names.contains(&"fresh".to_owned()), "{names:?}");
        assert_eq!(text_of(&client.call("fresh", &json!({}))), "fresh");
    }

    fn legacy_resource_update(&self) {
        let client = self.legacy().open();
        let of = json!({ "uri": TEXT_URI });
        assert_eq!(client.initialized()["capabilities"]["resources"]["subscribe"], true);
        assert_eq!(client.result("resources/subscribe", &of), json!({}));
        self.wait_subscribed(TEXT_URI);
        assert_eq!(text_of(&client.call("touch", &of)), "1");
        assert_eq!(client.wait_told(UPDATED), of);
        assert_eq!(client.result("resources/unsubscribe", &of), json!({}));
        client.call("touch", &of);
        stays_so("no more is heard", Duration::from_millis(200), || {
            client.told(UPDATED).len() == 1
        });
    }

    fn legacy_cancel(&self, has_begun: bool) {
        let client = self.legacy().open();
        let (label, id) = (unique("slow"), json!("to-cancel"));
        let arguments = json!({ "label": label, "begin": has_begun });
        let mut params = json!({ "name": "slow", "arguments": arguments });
        if has_begun {
            params["_meta"] = json!({ "progressToken": "p" });
        }
        client.start_as(&id, "tools/call", &params);
        self.wait_begun(&label);
        if has_begun {
            client.wait_told(PROGRESS);
        }
        client.notify("notifications/cancelled", &json!({ "requestId": id, "reason": "r" }));
        self.wait_cancelled(&label);
        assert_eq!(text_of(&client.call("echo", &json!({ "message": "m" }))), "m");
        let answered = client.heard().iter().any(|heard| heard.message["id"] == id);
        assert!(!answered, "a cancelled call is not answered");
    }
}

/// Clients without one.
impl Cell {
    fn modern_is_asked(&self, kind: &Kind) {
        let client = self.modern().named("alice");
        let run = client.run_call(kind.tool, &json!({}));
        assert_eq!(run.asked(), [[kind.method]]);
        assert!(run.rounds[0].text.contains(kind.in_question), "{}", run.rounds[0].text);
        self.check_answers(&run.message, kind);
    }

    fn modern_progress(&self) {
        let client = self.modern();
        for token in [json!("p"), json!(7)] {
            let params = json!({ "name": "count", "_meta": { "progressToken": token } });
            let run = client.run("tools/call", &params);
            assert_eq!(text_of(&run.message["result"]), "counted");
            check_steps(&run.told(PROGRESS), &token);
        }
        let run = client.run_call("count", &json!({}));
        assert!(run.told.is_empty(), "nobody asked: {:?}", run.told);
    }

    fn modern_logging(&self) {
        for (level, n) in [("warning", 3), ("debug", 0), ("emergency", 7)] {
            let run = self.modern().logging(level).run_call("log", &one_of_each());
            assert_eq!(levels(&run.told(MESSAGE)), LEVELS[n..], "{level}");
        }
        if self.upstream == Era::Legacy {
            // A server that keeps to what its session was set to would say nothing else.
            let set = params_of(&self.behind.received(), "logging/setLevel");
            assert!(set.iter().any(|params| params["level"] == "debug"), "{set:?}");
        }
        let run = self.modern().run_call("log", &one_of_each());
        assert!(run.told.is_empty(), "nobody asked: {:?}", run.told);
    }

    fn modern_list_change(&self) {
        let client = self.modern();
        let capabilities = &client.result("server/discover", &json!({}))["capabilities"];
        assert_eq!(capabilities["tools"]["listChanged"], true);
        let wanted = json!({ "toolsListChanged": true });
        let mut listening = client.listen(&wanted);
        assert_eq!(listening.honoured, wanted);
        self.wait_for_ears(|filter| filter["toolsListChanged"] == true);
        client.call("change", &json!({ "kind": "tools", "name": "fresh" }));
        assert_eq!(listening.next()["method"], TOOLS_CHANGED);
        let names = client.tool_names();
        assert!(names.contains(&"fresh".to_owned()), "{names:?}");
        assert_eq!(text_of(&client.call("fresh", &json!({}))), "fresh");
    }

    fn modern_resource_update(&self) {
        let client = self.modern();
        let wanted = json!({ "resourceSubscriptions": [TEXT_URI] });
        let mut listening = client.listen(&wanted);
        assert_eq!(listening.honoured, wanted);
        self.wait_subscribed(TEXT_URI);
        let of = json!({ "uri": TEXT_URI });
        assert_eq!(text_of(&client.call("touch", &of)), "1");
        let told = listening.next();
        assert_eq!((&told["method"], &told["params"]["uri"]), (&json!(UPDATED), &of["uri"]));
        assert!(listening.stream.is_silent_for(Duration::from_millis(100)), "told once");
        listening.stream.hang_up();
        wait_until("nobody is subscribed any more", || {
            text_of(&client.call("touch", &of)) == "0"
        });
    }

    fn modern_cancel(&self, has_begun: bool) {
        let client = self.modern();
        let label = unique("slow");
        let arguments = json!({ "label": label, "begin": has_begun });
        let mut params = json!({ "name": "slow", "arguments": arguments });
        if has_begun {
            params["_meta"] = json!({ "progressToken": "p" });
        }
        let connection = client.start("tools/call", &params);
        self.wait_begun(&label);
        if has_begun {
            let mut stream = connection.into_events().expect_open();
            assert_eq!(stream.next_message()["method"], PROGRESS);
            stream.hang_up();
        } else {
            connection.hang_up();
        }
        self.wait_cancelled(&label);
        assert_eq!(text_of(&client.call("echo", &json!({ "message": "m" }))), "m");
    }
}
