//! Spans as a collector gets them: OTLP over HTTP, in JSON.

use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::gateway::Gateway;
use crate::support::http::{Request, Wire};
use crate::support::modern::ModernClient;
use crate::support::upstream_http::{HttpUpstream, respond};
use crate::support::upstream_modern::ModernUpstream;
use crate::support::{in_background, wait_for, wait_until};

const TRACE_ID: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

/// What a collector has been sent: paths, keys and documents.
#[derive(Clone)]
struct Collector {
    address: String,
    documents: Arc<Mutex<Vec<(String, Value)>>>,
    status: Arc<Mutex<&'static str>>,
}

impl Collector {
    fn start() -> Collector {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let collector = Collector {
            address,
            documents: Arc::default(),
            status: Arc::new(Mutex::new("200 OK")),
        };
        let mine = collector.clone();
        in_background(move || {
            for stream in listener.incoming() {
                let mut wire = Wire::new(stream.unwrap());
                let deadline = || Instant::now() + Duration::from_secs(60);
                while let Ok(Some(head)) = wire.head(deadline()) {
                    let body = head.request_body();
                    let Ok(bytes) = wire.whole(body, deadline()) else { break };
                    let status = *mine.status.lock().unwrap();
                    let document = serde_json::from_slice(&bytes).unwrap();
                    let what = head.start_line
                        + " "
                        + head
                            .headers
                            .iter()
                            .find(|(name, _)| name == "x-team")
                            .map_or("", |(_, value)| value);
                    mine.documents.lock().unwrap().push((what, document));
                    let kind = [("Content-Type", "application/json")];
                    respond(&mut wire.stream, status, &kind, "{}").unwrap();
                }
            }
        });
        collector
    }

    fn spans(&self) -> Vec<Value> {
        let documents = self.documents.lock().unwrap();
        let spans = documents.iter().flat_map(|(_, it)| {
            it["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().unwrap().clone()
        });
        spans.collect()
    }

    /// The one span of that kind and name.
    fn span(&self, kind: u64, name: &str) -> Value {
        wait_for(&format!("a span {name} of kind {kind} comes"), || {
            self.spans().into_iter().find(|it| it["kind"] == kind && it["name"] == name)
        })
    }
}

fn attribute(span: &Value, key: &str) -> Value {
    let attributes = span["attributes"].as_array().unwrap();
    let found = attributes.iter().find(|it| it["key"] == key);
    found.map(|it| it["value"]["stringValue"].clone()).unwrap_or_default()
}

fn config(collector: &Collector, sampling: &Value, servers: &Value) -> Value {
    json!({
        "otlp": {
            "endpoint": format!("http://{}", collector.address),
            "headers": { "x-team": "blue" },
            "sampling": sampling,
        },
        "prefix": "always",
        "mcp_servers": servers,
    })
}

#[test]
fn a_call_is_two_spans_in_the_trace_of_its_client() {
    let (collector, modern) = (Collector::start(), ModernUpstream::start());
    let servers = json!({ "s": { "url": modern.url(), "transport": "http" } });
    let gateway = Gateway::started(config(&collector, &json!(0), &servers));
    // Who begins a trace decides whether it is recorded: but not where none is wanted.
    let client = ModernClient::to(&gateway);
    client.call("s-echo", &json!({}));
    drop(gateway);
    assert!(collector.spans().is_empty(), "{:?}", collector.spans());
    let gateway = Gateway::started(config(&collector, &json!(0.000001), &servers));
    let traceparent = format!("00-{TRACE_ID}-{PARENT}-01");
    let other = "00-11111111111111111111111111111111-2222222222222222-00";
    let client = ModernClient::to(&gateway).header("traceparent", other);
    let params = json!({ "name": "s-echo", "arguments": {},
        "_meta": { "traceparent": traceparent } });
    client.result("tools/call", &params);
    let server = collector.span(2, "tools/call s-echo");
    let to_upstream = collector.span(3, "tools/call s-echo");
    assert_eq!(
        (&server["traceId"], &server["parentSpanId"]),
        (&json!(TRACE_ID), &json!(PARENT))
    );
    assert_eq!(to_upstream["traceId"], TRACE_ID);
    assert_eq!(to_upstream["parentSpanId"], server["spanId"]);
    for (key, value) in [
        ("mcp.method.name", "tools/call"),
        ("gen_ai.tool.name", "s-echo"),
        ("gen_ai.operation.name", "execute_tool"),
        ("client.address", "127.0.0.1"),
        ("trunkline.server", "s"),
        ("trunkline.door", "modern"),
    ] {
        assert_eq!(attribute(&server, key), value, "{key}: {server}");
    }
    assert!(attribute(&server, "jsonrpc.request.id").is_string(), "{server}");
    assert_eq!(attribute(&server, "error.type"), Value::Null);
    let passed_on = format!("00-{TRACE_ID}-{}-01", to_upstream["spanId"].as_str().unwrap());
    let requests = modern.requests_of("tools/call");
    let request = requests.last().unwrap();
    assert_eq!(request.head.header("traceparent"), Some(passed_on.as_str()));
    assert_eq!(request.message["params"]["_meta"]["traceparent"], passed_on);
    let documents = collector.documents.lock().unwrap();
    assert!(documents.iter().all(|(what, _)| what == "POST /v1/traces HTTP/1.1 blue"));
    let resource = &documents[0].1["resourceSpans"][0]["resource"];
    assert_eq!(attribute(resource, "service.name"), "trunkline");
}

#[test]
fn failures_are_told_apart_and_sessions_are_named_by_a_hash() {
    let (collector, upstream) = (Collector::start(), HttpUpstream::start());
    let servers = json!({ "s": { "url": upstream.url(), "transport": "http" } });
    let gateway = Gateway::started(config(&collector, &json!(1), &servers));
    let client = gateway.mcp();
    client.call("s-fail", &json!({}));
    let failed = collector.span(2, "tools/call s-fail");
    assert_eq!(attribute(&failed, "error.type"), "tool_error");
    assert_eq!(failed["status"]["code"], 2);
    let session = attribute(&failed, "mcp.session.id");
    assert_eq!(session.as_str().map(str::len), Some(16), "{session}");
    collector.span(2, "initialize");
    let call = Request::post("/mcp/tools/call", &json!({ "name": "nothing" }));
    gateway.send(&call).expect(404);
    // What nobody has names no span: it is the client's text.
    let unknown = collector.span(2, "tools/call");
    assert_eq!(attribute(&unknown, "error.type"), "client_error");
    gateway.stop();
}

#[test]
fn a_collector_that_is_away_costs_spans_and_nothing_else() {
    let (collector, upstream) = (Collector::start(), HttpUpstream::start());
    *collector.status.lock().unwrap() = "400 Bad Request";
    let servers = json!({ "s": { "url": upstream.url(), "transport": "http" } });
    let gateway = Gateway::started(config(&collector, &json!(1), &servers));
    gateway.call_text("s-add", &json!({ "a": 1, "b": 2 }));
    wait_until("the loss is told and counted", || {
        let status = gateway.get("/status").expect(200).json();
        status["spans"]["failed"].as_u64() >= Some(1)
            && gateway.stderr().contains("spans are lost")
    });
    *collector.status.lock().unwrap() = "200 OK";
    gateway.call_text("s-echo", &json!({}));
    wait_until("later ones are taken", || {
        gateway.get("/status").expect(200).json()["spans"]["sent"].as_u64() >= Some(1)
    });
}
