//! What a client is told at `initialize`: the union of what is behind its endpoint for its key;
//! and what passes only where one upstream is behind it.

use serde_json::{Value, json};

use crate::support::behind::{Behind, TRANSPORTS, of_method, params_of};
use crate::support::duplex::{DOORS, Door, Duplex, all_capabilities};
use crate::support::gateway::Gateway;
use crate::support::modern::ModernClient;
use crate::support::upstream_http::HttpUpstream;

fn server(upstream: &HttpUpstream) -> Value {
    json!({ "url": upstream.url(), "transport": "http" })
}

fn with_capabilities(capabilities: Value, instructions: Option<&str>) -> HttpUpstream {
    let upstream = HttpUpstream::absent();
    upstream.set_capabilities(capabilities);
    if let Some(text) = instructions {
        upstream.set_instructions(text);
    }
    upstream.listener.start();
    upstream
}

/// `a` with tools and prompts, `b` with everything else.
fn two() -> (HttpUpstream, HttpUpstream, Gateway) {
    let a = with_capabilities(
        json!({
            "tools": { "listChanged": true },
            "prompts": { "listChanged": true },
            "experimental": { "a.example/x": { "z": 1.5 } },
            "a.example/unknown": {},
        }),
        Some("Ask A about the weather."),
    );
    let b = with_capabilities(
        json!({
            "tools": {},
            "resources": { "subscribe": true, "listChanged": true },
            "completions": {},
            "logging": {},
            "tasks": { "list": {}, "requests": { "tools": { "call": {} } } },
            "experimental": { "b.example/y": {} },
        }),
        Some("Ask B about stocks."),
    );
    let gateway = Gateway::started(json!({
        "mcp_servers": { "a": server(&a), "b": server(&b) },
        "api_keys": [
            { "name": "all", "key": "key-of-all-1" },
            { "name": "only-a", "key": "key-of-a-12", "servers": ["a"] },
            { "name": "only-b", "key": "key-of-b-12", "servers": ["b"] },
        ],
    }));
    (a, b, gateway)
}

fn open(gateway: &Gateway, key: &str, path: &str) -> Duplex {
    Duplex::to(gateway, Door::Streamable).key(key).at(path).open()
}

/// The names of the capabilities, sorted.
fn names(initialized: &Value) -> Vec<String> {
    let capabilities = initialized["capabilities"].as_object().unwrap();
    let mut names: Vec<String> = capabilities.keys().cloned().collect();
    names.sort();
    names
}

#[track_caller]
fn expect_ours(initialized: &Value) {
    assert_eq!(initialized["serverInfo"]["name"], "trunkline", "{initialized}");
    assert_eq!(initialized["serverInfo"]["version"], crate::support::program::version());
}

#[test]
fn one_upstream_s_capabilities_and_instructions_are_its_own() {
    for transport in TRANSPORTS {
        let behind = Behind::start(transport);
        if let Some(script) = behind.script() {
            script.set_instructions("Ask politely.");
        }
        let gateway = behind.gateway(&json!({}));
        for door in DOORS {
            let client = Duplex::to(&gateway, door).open();
            let initialized = client.initialized();
            assert_eq!(
                initialized["capabilities"],
                json!({
                    "tools": { "listChanged": true },
                    "prompts": { "listChanged": true },
                    "resources": { "subscribe": true, "listChanged": true },
                    "completions": {},
                    "logging": {},
                    "tasks": { "list": {}, "cancel": {}, "requests": { "tools": { "call": {} } } },
                    "experimental": { "vendor.example/echo": { "version": 1 } },
                }),
                "{transport:?} {door:?}"
            );
            if behind.script().is_some() {
                let instructions = initialized["instructions"].as_str().unwrap_or_default();
                assert!(instructions.contains("Ask politely."), "{initialized}");
            } else {
                assert_eq!(initialized.get("instructions"), None, "{initialized}");
            }
            expect_ours(initialized);
        }
    }
}

#[test]
fn several_upstreams_capabilities_are_merged() {
    let (_a, _b, gateway) = two();
    let client = open(&gateway, "key-of-all-1", "/mcp");
    let initialized = client.initialized();
    // Experimental and unknown ones only where one upstream is behind the endpoint.
    let merged = ["completions", "logging", "prompts", "resources", "tasks", "tools"];
    assert_eq!(names(initialized), merged, "{initialized}");
    let capabilities = &initialized["capabilities"];
    assert_eq!(capabilities["tools"]["listChanged"], true, "a union: {capabilities}");
    assert_eq!(capabilities["prompts"]["listChanged"], true, "{capabilities}");
    assert_eq!(capabilities["resources"], json!({ "subscribe": true, "listChanged": true }));
    assert_eq!(
        capabilities["tasks"],
        json!({ "list": {}, "requests": { "tools": { "call": {} } } })
    );
    expect_ours(initialized);
    let instructions = initialized["instructions"].as_str().unwrap();
    let at = |text: &str| {
        instructions.find(text).unwrap_or_else(|| panic!("no {text:?} in {instructions:?}"))
    };
    assert!(
        at("Ask A about the weather.") < at("Ask B about stocks."),
        "in the order of names"
    );
    let before_a = &instructions[..at("Ask A")];
    let between = &instructions[at("weather.")..at("Ask B")];
    let has_word = |text: &str, word: &str| {
        text.split(|c: char| !c.is_alphanumeric()).any(|piece| piece == word)
    };
    assert!(has_word(before_a, "a"), "not named by server: {instructions:?}");
    assert!(has_word(between, "b"), "not named by server: {instructions:?}");
}

#[test]
fn an_endpoint_of_one_server_or_a_key_for_one_has_that_one_s_own() {
    let (_a, _b, gateway) = two();
    let of_a = ["a.example/unknown", "experimental", "prompts", "tools"];
    for (key, path) in
        [("key-of-all-1", "/mcp/a"), ("key-of-all-1", "/a/mcp"), ("key-of-a-12", "/mcp")]
    {
        let client = open(&gateway, key, path);
        let initialized = client.initialized();
        assert_eq!(names(initialized), of_a, "{key} {path}: {initialized}");
        let experimental = &initialized["capabilities"]["experimental"];
        assert_eq!(*experimental, json!({ "a.example/x": { "z": 1.5 } }));
        let instructions = initialized["instructions"].as_str().unwrap();
        assert!(instructions.contains("Ask A about the weather."), "{instructions}");
        assert!(!instructions.contains("Ask B"), "{instructions}");
        expect_ours(initialized);
    }
    let client = open(&gateway, "key-of-b-12", "/mcp");
    let initialized = client.initialized();
    let of_b = ["completions", "experimental", "logging", "resources", "tasks", "tools"];
    assert_eq!(names(initialized), of_b, "{initialized}");
    assert!(!initialized.to_string().contains("Ask A"), "{initialized}");
    let narrowed = Duplex::to(&gateway, Door::Streamable)
        .key("key-of-all-1")
        .header("x-mcp-servers", "a")
        .open();
    assert_eq!(names(narrowed.initialized()), of_a);
}

#[test]
fn what_no_upstream_can_is_not_found() {
    let upstream = HttpUpstream::with_tools(&["x"]);
    let gateway = Gateway::before(&upstream.url());
    for door in DOORS {
        let client = Duplex::to(&gateway, door).open();
        assert_eq!(names(client.initialized()), ["tools"]);
        for (method, params) in [
            ("logging/setLevel", json!({ "level": "info" })),
            ("resources/subscribe", json!({ "uri": "x://y" })),
            ("prompts/get", json!({ "name": "x" })),
            ("tasks/list", json!({})),
        ] {
            // Whether it is the method or its argument that is unknown.
            let code = client.refused(method, &params)["code"].clone();
            let codes = [-32601, -32602, -32002];
            assert!(codes.iter().any(|wanted| code == *wanted), "{method}: {code}");
        }
        for (method, key) in [
            ("prompts/list", "prompts"),
            ("resources/list", "resources"),
            ("resources/templates/list", "resourceTemplates"),
        ] {
            let message = client.request(method, &json!({}));
            let is_empty = message["result"][key] == json!([]);
            assert!(is_empty || message["error"]["code"] == -32601, "{message}");
        }
    }
}

#[test]
fn unknown_requests_and_notifications_pass_to_one_upstream() {
    for transport in TRANSPORTS {
        let behind = Behind::start(transport);
        // Of one principal, so that what names no call is for all its sessions.
        let keys = json!({ "api_keys": [{ "name": "k", "key": "key-of-k" }] });
        let gateway = behind.gateway(&keys);
        for door in DOORS {
            for capabilities in [json!({}), all_capabilities()] {
                let client = Duplex::to(&gateway, door).key("key-of-k");
                let client = client.declaring(capabilities).open();
                let params = json!({ "z": [1, { "a": null }], "a": "x" });
                let echoed = client.result("vendor/echo", &params);
                assert_eq!(
                    echoed,
                    json!({ "x": 1.5, "echo": params }),
                    "{transport:?} {door:?}"
                );
                let error = client.refused("vendor/nobody", &json!({}));
                assert_eq!(error["code"], -32601, "{error}");
                let text = "Method not found: vendor/nobody";
                assert_eq!(error["message"], text, "the upstream's own error");

                let n_before = of_method(&behind.received(), "notifications/vendor/ping").len();
                client.notify("notifications/vendor/ping", &params);
                let told = behind.wait_received("the notification", |received| {
                    params_of(received, "notifications/vendor/ping").get(n_before).cloned()
                });
                assert_eq!(told, params, "{transport:?} {door:?}");

                let arguments =
                    json!({ "method": "notifications/vendor/pong", "params": params });
                client.call("emit", &arguments);
                assert_eq!(client.wait_told("notifications/vendor/pong"), params);
            }
        }
    }
}

#[test]
fn unknown_requests_and_notifications_stay_here_with_several() {
    let (a, b) = (HttpUpstream::labelled("A"), HttpUpstream::labelled("B"));
    let gateway =
        Gateway::started(json!({ "mcp_servers": { "a": server(&a), "b": server(&b) } }));
    for (n_before, door) in DOORS.into_iter().enumerate() {
        let client = Duplex::to(&gateway, door).open();
        let error = client.refused("vendor/echo", &json!({}));
        assert_eq!(error["code"], -32601, "{door:?}: {error}");
        client.notify("notifications/vendor/ping", &json!({}));
        client.call("a-echo", &json!({ "message": "m" }));
        client.call("b-echo", &json!({ "message": "m" }));
        for (upstream, n_echoes) in [(&a, n_before), (&b, 0)] {
            let received = upstream.received();
            assert_eq!(of_method(&received, "vendor/echo").len(), n_echoes);
            assert!(of_method(&received, "notifications/vendor/ping").is_empty());
        }
        // Behind its own endpoint it is the only one.
        let path = if door == Door::Sse { "/mcp/a/sse" } else { "/mcp/a" };
        let client = Duplex::to(&gateway, door).at(path).open();
        assert_eq!(client.result("vendor/echo", &json!({ "n": 1 }))["echo"]["n"], 1);
    }
    let echoed = of_method(&a.received(), "vendor/echo").len();
    assert_eq!((echoed, of_method(&b.received(), "vendor/echo").len()), (DOORS.len(), 0));
}

/// Fails unless every capability is what the schema of every revision says.
#[track_caller]
fn expect_well_formed(capabilities: &Value) {
    for (name, value) in capabilities.as_object().unwrap() {
        let members = value.as_object();
        let members = members.unwrap_or_else(|| panic!("{name} is no object: {capabilities}"));
        for flag in ["listChanged", "subscribe"] {
            let fits = members.get(flag).is_none_or(Value::is_boolean);
            assert!(fits, "{flag} of {name}: {capabilities}");
        }
        if name == "experimental" {
            assert!(members.values().all(Value::is_object), "{capabilities}");
        }
    }
}

#[test]
fn capabilities_of_wrong_types_shut_no_client_out() {
    let odd = with_capabilities(
        json!({
            "tools": [{ "name": "add" }],
            "prompts": false,
            "resources": { "listChanged": "yes", "subscribe": true },
            "completions": true,
            "logging": [],
            "experimental": { "a.example/x": true },
            "tasks": { "list": true },
        }),
        None,
    );
    let good = with_capabilities(json!({ "tools": { "listChanged": true } }), None);
    let gateway = Gateway::started(json!({
        "mcp_servers": { "a-odd": server(&odd), "good": server(&good) },
    }));
    for path in ["/mcp", "/mcp/a-odd"] {
        for door in DOORS {
            let client = Duplex::to(&gateway, door).at(path).open();
            let capabilities = &client.initialized()["capabilities"];
            expect_well_formed(capabilities);
            assert_eq!(capabilities["resources"], json!({ "subscribe": true }), "{path}");
            assert_eq!(capabilities["completions"], json!({}), "{path}");
            assert!(capabilities.get("tools").is_some(), "{path}: {capabilities}");
            assert!(capabilities.get("prompts").is_none(), "{path}: {capabilities}");
        }
        let discovered = ModernClient::to(&gateway).at(path);
        expect_well_formed(&discovered.result("server/discover", &json!({}))["capabilities"]);
    }
    let listed = gateway.get("/mcp/tools/list").expect(200).json();
    let of_odd =
        |tool: &Value| tool["name"].as_str().is_some_and(|it| it.starts_with("a-odd-"));
    assert!(listed["tools"].as_array().unwrap().iter().any(of_odd), "{listed}");
}
