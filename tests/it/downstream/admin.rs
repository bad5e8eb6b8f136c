//! What `/status`, `/readyz` and the lists tell: an admin everything, everybody else what they may
//! use, and how that is.

use serde_json::{Value, json};

use crate::support::gateway::{Gateway, entry_of, stdio};
use crate::support::http::{Request, Response};
use crate::support::upstream_http::HttpUpstream;
use crate::support::wait_until;

const ADMIN: &str = "key-of-admin-1";
const USER: &str = "key-of-user-12";
const BY_TOOL: &str = "key-of-by-tool";
const OF_GONE: &str = "key-of-gone-12";
const NO_TOOL: &str = "key-of-no-tool";

/// Members that say what others have done, or that are about what is not offered.
const TOLD_TO_ADMINS: [&str; 9] = [
    "in_flight",
    "waiting",
    "latency_ms",
    "failures_in_a_row",
    "restarts",
    "dropped_messages",
    "stderr",
    "left_out",
    "views",
];

struct World {
    upstream: HttpUpstream,
    _gone: HttpUpstream,
    gateway: Gateway,
}

impl World {
    /// Servers `a`, which is well and has a tool that clashes, `child`, which writes to its
    /// standard error, and `gone`, which is required and is not there.
    fn new() -> World {
        let upstream = HttpUpstream::with_tools(&["echo", "add", "child-x"]);
        let gone = HttpUpstream::absent();
        let http = |it: &HttpUpstream| json!({ "url": it.url(), "transport": "http" });
        let mut required = http(&gone);
        required["required"] = json!(true);
        let gateway = Gateway::with(json!({
            "api_keys": [
                { "name": "admin", "key": ADMIN, "admin": true, "servers": ["a"] },
                { "name": "user", "key": USER, "servers": ["a"] },
                { "name": "by-tool", "key": BY_TOOL, "tools": ["a-echo"] },
                { "name": "of-gone", "key": OF_GONE, "servers": ["a", "gone"] },
                { "name": "no-tool", "key": NO_TOOL, "servers": ["a", "child"], "tools": ["a-echo"] },
            ],
            "mcp_servers": { "a": http(&upstream), "child": stdio(&[]), "gone": required },
        }))
        .start();
        gateway.wait_until_well(&["a"]);
        World { upstream, _gone: gone, gateway }
    }

    fn get(&self, path: &str, key: &str) -> Response {
        self.gateway.send(&Request::get(path).header("x-api-key", key))
    }

    fn status(&self, key: &str) -> Value {
        self.get("/status", key).expect(200).json()
    }
}

fn servers_in(entries: &Value) -> Vec<&str> {
    entries.as_array().unwrap().iter().map(|it| it["server"].as_str().unwrap()).collect()
}

#[test]
fn an_admin_is_told_everything_and_nobody_else_what_others_do() {
    let world = World::new();
    let child = || entry_of(&world.status(ADMIN)["upstreams"], "child").unwrap();
    wait_until("the child is well", || child()["state"] == "ready");
    let whole = world.status(ADMIN);
    assert_eq!(servers_in(&whole["upstreams"]), ["a", "child", "gone"]);
    assert_eq!(entry_of(&whole["upstreams"], "a").unwrap()["tools"], 3);
    for key in ["sessions", "streams", "rejected", "quirks", "limits", "clashes_further"] {
        assert!(whole.get(key).is_some(), "{key}: {whole}");
    }
    for key in TOLD_TO_ADMINS {
        assert!(whole["upstreams"][0].get(key).is_some(), "{key}: {whole}");
    }
    assert_eq!(whole["clashes"][0]["own"], "child-x", "{whole}");

    let told = world.status(USER);
    assert_eq!(servers_in(&told["upstreams"]), ["a"]);
    let members: Vec<&String> = told.as_object().unwrap().keys().collect();
    assert_eq!(members.len(), 4, "{members:?}");
    let a = &told["upstreams"][0];
    for key in TOLD_TO_ADMINS {
        assert!(a.get(key).is_none(), "{key}: {told}");
    }
    assert_eq!((&a["state"], &a["tools"]), (&json!("ready"), &json!(3)), "{told}");
    let told = world.status(BY_TOOL);
    assert_eq!(servers_in(&told["upstreams"]), ["a"]);
    assert_eq!(told["upstreams"][0]["tools"], 1, "{told}");
}

#[test]
fn what_a_child_writes_is_told_to_admins_alone() {
    let gateway = Gateway::started(json!({
        "api_keys": [
            { "name": "admin", "key": ADMIN, "admin": true },
            { "name": "user", "key": USER },
        ],
        "mcp_servers": { "child": stdio(&[]) },
    }));
    gateway.call("stderr", &json!({ "lines": 3 })).expect(200);
    let status = |key: &str| {
        gateway
            .send(&Request::get("/status").header("x-api-key", key))
            .expect(200)
            .text()
            .to_owned()
    };
    wait_until("it is told", || status(ADMIN).contains("scripted stderr line 2"));
    assert!(!status(USER).contains("scripted stderr"));
}

#[test]
fn a_failure_is_told_while_it_lasts() {
    let world = World::new();
    let a = || world.status(USER)["upstreams"][0].clone();
    assert_eq!(a().get("last_failure"), None);
    world.upstream.die();
    let call = Request::post("/mcp/tools/call", &json!({ "name": "a-echo" }));
    let call = call.header("x-api-key", USER);
    wait_until("it is told", || {
        world.gateway.send(&call);
        a()["last_failure"].is_object()
    });
    assert_ne!(a()["state"], "ready");
    world.upstream.come();
    wait_until("it is well", || a()["state"] == "ready");
    assert_eq!(a().get("last_failure"), None);
    let of_admin = entry_of(&world.status(ADMIN)["upstreams"], "a").unwrap();
    assert!(of_admin["last_failure"].is_object(), "{of_admin}");
}

#[test]
fn readiness_tells_nobody_of_servers_that_he_may_not_see() {
    let world = World::new();
    let named = world.get("/readyz", ADMIN).expect(503).json();
    assert_eq!(named["error"]["missing"], json!(["gone"]), "{named}");
    assert_eq!(named["error"]["n_missing"], 1, "{named}");
    assert_eq!(world.get("/readyz", OF_GONE).expect(503).json(), named);
    // To a key neither which nor how many; without one only how many.
    let error =
        json!({ "code": "not_ready", "message": "a required server has not answered yet" });
    assert_eq!(world.get("/readyz", USER).expect(503).json()["error"], error);
    let error = json!({
        "code": "not_ready", "message": "1 required server has not answered yet", "n_missing": 1,
    });
    for answer in
        [world.gateway.send(&Request::get("/readyz")), world.get("/readyz", "a wrong one")]
    {
        assert_eq!(answer.expect(503).json()["error"], error);
    }
}

#[test]
fn without_keys_whoever_is_on_this_machine_is_told_everything() {
    let (upstream, gone) = (HttpUpstream::start(), HttpUpstream::absent());
    let gateway = Gateway::with(json!({ "mcp_servers": {
        "a": { "url": upstream.url(), "transport": "http" },
        "gone": { "url": gone.url(), "transport": "http", "required": true },
    }}))
    .start();
    gateway.wait_until_well(&["a"]);
    assert!(gateway.status_of("a")["in_flight"].is_number());
    assert!(gateway.get("/status").expect(200).json()["limits"].is_object());
    assert_eq!(gateway.get("/readyz").expect(503).json()["error"]["missing"], json!(["gone"]));
    // Whom a proxy on this machine serves is somewhere else.
    for header in [
        "Forwarded",
        "X-Forwarded-For",
        "X-Forwarded-Proto",
        "X-Forwarded-Host",
        "Via",
        "X-Real-IP",
    ] {
        let passed_on = Request::get("/readyz").header(header, "203.0.113.7");
        let answer = gateway.send(&passed_on).expect(503);
        assert!(!answer.text().contains("gone"), "{answer}");
    }
}

#[test]
fn lists_tell_how_servers_are_of_which_a_tool_may_be_used() {
    let world = World::new();
    for (key, servers) in [
        (ADMIN, &["a"][..]),
        (BY_TOOL, &["a"]),
        // It may use the prompts and resources of the other one, and no tool.
        (NO_TOOL, &["a"]),
    ] {
        let list = world.get("/mcp/tools/list", key).expect(200).json();
        assert_eq!(servers_in(&list["upstreams"]), servers, "{key}: {list}");
    }
    assert_eq!(servers_in(&world.status(NO_TOOL)["upstreams"]), ["a", "child"]);
}

#[test]
fn a_key_becomes_an_admin_by_a_reload() {
    let upstream = HttpUpstream::start();
    let config = |admin: bool| {
        json!({
            "api_keys": [{ "name": "user", "key": USER, "admin": admin }],
            "mcp_servers": { "a": { "url": upstream.url(), "transport": "http" } },
        })
    };
    let gateway = Gateway::started(config(false));
    let is_admin = || gateway.status_of("a").get("stderr").is_some();
    assert!(!is_admin());
    gateway.reload(&config(true));
    assert!(is_admin());
    gateway.reload(&config(false));
    assert!(!is_admin());
}
