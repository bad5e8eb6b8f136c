//! Whose a name is: calls of a name that belongs to a server reach that server or nobody, whether
//! it is up, lists the name, or may be seen, at every door and however names are prefixed.

use serde_json::{Value, json};

use crate::support::duplex::{DOORS, Door, Duplex};
use crate::support::gateway::{Gateway, names_in};
use crate::support::http::Request;
use crate::support::mcp::McpClient;
use crate::support::modern::ModernClient;
use crate::support::upstream_http::HttpUpstream;
use crate::support::wait_until;

fn http(upstream: &HttpUpstream) -> Value {
    json!({ "url": upstream.url(), "transport": "http" })
}

/// Two servers that are up and list what is others', and two that are not.
struct World {
    github: HttpUpstream,
    shop: HttpUpstream,
    enterprise: HttpUpstream,
    bank: HttpUpstream,
}

const TAKEN: [&str; 4] =
    ["github-enterprise-create_issue", "bank-transfer", "github-enterprise-x", "bank-x"];

impl World {
    fn new() -> World {
        let github = HttpUpstream::start();
        github.set_tools(&["enterprise-create_issue", "enterprise-x", "ok"]);
        github.set_prompts(&["enterprise-create_issue"]);
        let shop = HttpUpstream::start();
        shop.set_tools(&["bank-transfer", "bank-x", "github-enterprise-create_issue", "fine"]);
        shop.set_prompts(&["bank-transfer", "github-enterprise-create_issue"]);
        let [enterprise, bank] = [HttpUpstream::absent(), HttpUpstream::absent()];
        World { github, shop, enterprise, bank }
    }

    fn config(&self, prefix: &str) -> Value {
        json!({ "prefix": prefix, "mcp_servers": {
            "github": http(&self.github),
            "shop": http(&self.shop),
            "github-enterprise": http(&self.enterprise),
            "bank": http(&self.bank),
        }})
    }

    fn start(&self, config: Value) -> Gateway {
        let gateway = Gateway::with(config).start();
        gateway.wait_until_well(&["github", "shop"]);
        gateway
    }

    #[track_caller]
    fn expect_no_call(&self, what: &str) {
        for (server, upstream) in [("github", &self.github), ("shop", &self.shop)] {
            let calls = upstream.seen().calls;
            assert!(calls.is_empty(), "{what}: {server} was called: {calls:?}");
            let received = upstream.received();
            let is_get =
                |it: &&crate::support::script::Received| it.text.contains("prompts/get");
            assert_eq!(received.iter().filter(is_get).count(), 0, "{what}: {server}");
        }
    }
}

/// Calls a tool at every door, and whatever comes of it.
fn call_everywhere(gateway: &Gateway, name: &str) {
    let body = json!({ "name": name, "arguments": {} });
    for path in ["/mcp/tools/call", "/mcp-rest/tools/call"] {
        let request = Request::post(path, &body);
        gateway.send(&request);
        gateway.send(&Request::post(path, &body).header("x-mcp-servers", "shop,github"));
        gateway.send(&Request::post(path, &body).header("x-mcp-servers", "shop"));
    }
    for (key, path) in [("server", "/mcp/tools/call"), ("server_id", "/mcp-rest/tools/call")] {
        // Not `shop`, which has some of them under that very name.
        gateway.post(path, &json!({ "name": name, key: "github" }));
    }
    for door in DOORS {
        let client = Duplex::to(gateway, door).open();
        client.request("tools/call", &body);
        client.request("prompts/get", &json!({ "name": name }));
        let reference = json!({ "type": "ref/prompt", "name": name });
        let argument = json!({ "name": "a", "value": "" });
        client
            .request("completion/complete", &json!({ "ref": reference, "argument": argument }));
    }
    let modern = ModernClient::to(gateway);
    modern.request("tools/call", &body);
    modern.request("prompts/get", &json!({ "name": name }));
    let narrow = ModernClient::to(gateway).header("x-mcp-servers", "github");
    narrow.request("tools/call", &body);
    let own = Duplex::to(gateway, Door::Streamable).at("/mcp/github").open();
    own.request("tools/call", &body);
}

#[test]
fn nobody_is_called_for_a_server_that_is_away() {
    for prefix in ["auto", "always", "never"] {
        let world = World::new();
        let gateway = world.start(world.config(prefix));
        for name in TAKEN {
            call_everywhere(&gateway, name);
            world.expect_no_call(&format!("{prefix} {name}"));
        }
        // The names of the servers that are away are theirs as soon as they come.
        world.bank.serve_only_tools(&["transfer"]);
        world.bank.come();
        gateway.wait_until_well(&["bank"]);
        assert_eq!(gateway.call_text("bank-transfer", &json!({})), "transfer", "{prefix}");
        world.expect_no_call(prefix);
    }
}

#[test]
fn what_is_refused_is_offered_under_its_hash_form_alone() {
    let world = World::new();
    let gateway = world.start(world.config("auto"));
    let names = gateway.tool_names();
    let forms: Vec<&String> = names.iter().filter(|name| !name.ends_with(['k', 'e'])).collect();
    for plain in ["github-enterprise-create_issue", "github-enterprise-x", "shop-bank-transfer"]
    {
        assert!(!names.iter().any(|name| name == plain), "{names:?}");
        let is_form = |name: &&&String| {
            let ending = name.strip_prefix(plain).and_then(|rest| rest.strip_prefix('_'));
            ending.is_some_and(|hash| hash.len() == 8)
        };
        let form = forms.iter().find(is_form).unwrap_or_else(|| panic!("{plain}: {names:?}"));
        gateway.call(form, &json!({})).expect(200);
    }
    assert_eq!(world.github.seen().n_calls("enterprise-create_issue"), 1);
    assert_eq!(world.github.seen().n_calls("enterprise-x"), 1);
    assert_eq!(world.shop.seen().n_calls("bank-transfer"), 1);
    // The full name of what is bare another's belongs to its server.
    gateway.call("shop-bank-transfer", &json!({})).expect(200);
    assert_eq!(world.shop.seen().n_calls("bank-transfer"), 2);
    let listed = gateway.mcp().tool_names();
    assert_eq!(listed, names, "the same at every door");
    drop(gateway);
    assert_eq!(world.start(world.config("auto")).tool_names(), names, "and after a restart");
}

#[test]
fn a_server_that_is_filtered_disabled_or_not_seen_keeps_its_names() {
    let world = World::new();
    let filtered = HttpUpstream::with_tools(&["transfer", "balance"]);
    let mut config = world.config("auto");
    config["mcp_servers"]["bank"] = http(&filtered);
    config["mcp_servers"]["bank"]["tools"] = json!(["balance"]);
    config["mcp_servers"]["github-enterprise"]["disabled"] = json!(true);
    config["api_keys"] = json!([
        { "name": "all", "key": "key-of-all-12" },
        { "name": "narrow", "key": "key-of-narrow", "servers": ["shop", "github"] },
    ]);
    let gateway = world.start(config);
    for key in ["key-of-all-12", "key-of-narrow"] {
        let client = Duplex::to(&gateway, Door::Streamable).key(key).open();
        for name in TAKEN {
            let refused = client.refused("tools/call", &json!({ "name": name }));
            assert_eq!(refused["code"], -32602, "{name}: {refused}");
        }
    }
    world.expect_no_call("with keys");
    assert_eq!(filtered.seen().n_calls("transfer"), 0);
}

#[test]
fn disabled_servers_do_not_count_for_auto() {
    let upstream = HttpUpstream::with_tools(&["x", "off-y"]);
    let gateway = Gateway::started(json!({ "mcp_servers": {
        "a": http(&upstream), "off": { "command": "nothing", "disabled": true },
    }}));
    let names = gateway.tool_names();
    assert_eq!(names[0], "x");
    assert!(names[1].starts_with("off-y_"), "it keeps its names: {names:?}");
}

#[test]
fn the_full_name_is_always_accepted() {
    let (first, second) = (HttpUpstream::with_tools(&["x"]), HttpUpstream::with_tools(&["x"]));
    let one = Gateway::started(json!({ "mcp_servers": { "a": http(&first) } }));
    assert_eq!(one.tool_names(), ["x"]);
    assert_eq!(one.call_text("a-x", &json!({})), "x");
    let mut aliased = http(&first);
    aliased["alias"] = json!("short.name");
    for prefix in ["auto", "always", "never"] {
        let gateway = Gateway::started(json!({
            "prefix": prefix, "mcp_servers": { "a": aliased, "b": http(&second) },
        }));
        for (name, server) in [("a-x", &first), ("short.name-x", &first), ("b-x", &second)] {
            let before = server.seen().n_calls("x");
            gateway.call(name, &json!({})).expect(200);
            gateway.mcp().call(name, &json!({}));
            assert_eq!(server.seen().n_calls("x"), before + 2, "{prefix} {name}");
        }
        gateway.call("a-b-x", &json!({})).expect_error(404);
        let at = McpClient::new(gateway.address()).at("/mcp/a").opened();
        assert_eq!(at.tool_names(), ["x"]);
        at.call("a-x", &json!({}));
        assert_eq!(at.request("tools/call", &json!({"name": "b-x"}))["error"]["code"], -32602);
    }
}

#[test]
fn a_key_is_about_the_server_that_its_glob_names() {
    let demo = HttpUpstream::with_tools(&["echo", "admin-drop"]);
    let admin = HttpUpstream::with_tools(&["drop"]);
    let gateway = Gateway::started(json!({
        "api_keys": [
            { "name": "all", "key": "key-of-all-12" },
            { "name": "demo", "key": "key-of-demo-1", "tools": ["demo-*"] },
            { "name": "admin", "key": "key-of-admin1", "tools": ["demo-admin-*"] },
            { "name": "lost", "key": "key-of-lost-1", "tools": ["echo"] },
        ],
        "mcp_servers": { "demo": http(&demo), "demo-admin": http(&admin) },
    }));
    let names = |key: &str| {
        let list = Request::get("/mcp/tools/list").header("x-api-key", key);
        names_in(&gateway.send(&list).expect(200).json())
    };
    let all = names("key-of-all-12");
    assert_eq!(all.len(), 3, "{all:?}");
    let form = all.iter().find(|name| name.starts_with("demo-admin-drop_")).unwrap();
    assert_eq!(names("key-of-demo-1"), ["demo-echo", form.as_str()]);
    assert_eq!(names("key-of-admin1"), ["demo-admin-drop"]);
    assert_eq!(names("key-of-lost-1"), Vec::<String>::new());
    let call = |key: &str, name: &str| {
        let call = Request::post("/mcp/tools/call", &json!({ "name": name }));
        gateway.send(&call.header("x-api-key", key))
    };
    for name in ["demo-admin-drop", "drop"] {
        call("key-of-demo-1", name).expect_error(404);
    }
    call("key-of-admin1", form).expect_error(404);
    assert_eq!((demo.seen().n_calls("admin-drop"), admin.seen().n_calls("drop")), (0, 0));
    call("key-of-admin1", "demo-admin-drop").expect(200);
    assert_eq!((demo.seen().n_calls("admin-drop"), admin.seen().n_calls("drop")), (0, 1));
    let said = gateway.stderr();
    for warning in [
        "/api_keys/1/tools/0: \"demo-*\" is about tools of demo alone, not about those of demo-admin",
        "/api_keys/3/tools/0: \"echo\" is about no server",
    ] {
        assert!(said.contains(warning), "{warning}: {said}");
    }
}

#[test]
fn clashes_are_told_in_the_status_and_once_in_the_log() {
    let world = World::new();
    let mut config = world.config("auto");
    config["api_keys"] = json!([
        { "name": "all", "key": "key-of-all-12", "admin": true },
        { "name": "github", "key": "key-of-github", "servers": ["github"] },
    ]);
    let gateway = world.start(config);
    let status = |key: &str| {
        let status = Request::get("/status").header("x-api-key", key);
        gateway.send(&status).expect(200).json()
    };
    let clashes = |key: &str| status(key)["clashes"].as_array().unwrap().clone();
    let all = clashes("key-of-all-12");
    let clash = all.iter().find(|it| it["own"] == "enterprise-x").unwrap();
    let offered = clash["offered"].as_str().unwrap();
    assert!(offered.starts_with("github-enterprise-x_"), "{clash}");
    assert_eq!(
        *clash,
        json!({
            "server": "github", "kind": "tool", "own": "enterprise-x",
            "name": "github-enterprise-x", "owner": "github-enterprise", "offered": offered,
        })
    );
    let is_prompt = |it: &&Value| it["kind"] == "prompt" && it["owner"] == "bank";
    assert_eq!(all.iter().filter(is_prompt).count(), 1, "{all:?}");
    assert_eq!(status("key-of-github").get("clashes"), None, "who may not know of the owner");
    // The lists are read again, and there is nothing new in them but one.
    world.github.change("tools", "enterprise-new");
    wait_until("the new one is told", || clashes("key-of-all-12").len() == all.len() + 1);
    let said = gateway.stderr();
    let lines = |own: &str| said.lines().filter(|it| it.contains(own)).count();
    assert_eq!((lines("\"enterprise-x\""), lines("\"enterprise-new\"")), (1, 1), "{said}");
}

#[test]
fn a_reload_that_renames_says_which() {
    let (first, second) =
        (HttpUpstream::with_tools(&["x", "y"]), HttpUpstream::with_tools(&["x"]));
    let gateway = Gateway::started(json!({ "mcp_servers": { "a": http(&first) } }));
    assert_eq!(gateway.tool_names(), ["x", "y"]);
    gateway.reload(&json!({ "mcp_servers": { "a": http(&first), "b": http(&second) } }));
    gateway.wait_for_tool("a-x");
    let said = gateway.stderr();
    let told = "a: tools have other names: \"x\" is now \"a-x\", \"y\" is now \"a-y\"";
    assert!(said.contains(told), "{said}");
    // The order alone decides who keeps a name without prefixes.
    let both = |order: [(&str, &HttpUpstream); 2]| {
        let servers: serde_json::Map<String, Value> =
            order.iter().map(|(name, it)| ((*name).to_owned(), http(it))).collect();
        json!({ "prefix": "never", "mcp_servers": servers })
    };
    gateway.reload(&both([("a", &first), ("b", &second)]));
    let is_form = |name: &String| name.starts_with("x_");
    wait_until("the second has it too", || gateway.tool_names().iter().any(is_form));
    gateway.call("x", &json!({})).expect(200);
    gateway.reload(&both([("b", &second), ("a", &first)]));
    gateway.call("x", &json!({})).expect(200);
    assert_eq!((first.seen().n_calls("x"), second.seen().n_calls("x")), (1, 1));
    assert!(gateway.stderr().contains("is now \"x\""), "{}", gateway.stderr());
}

/// Whose a name is, found by looking at each NAME.
fn owner<'a>(servers: &[&'a str], name: &str) -> Option<&'a str> {
    let begins = servers.iter().filter(|server| name.starts_with(&format!("{server}-")));
    begins.copied().max_by_key(|server| server.len())
}

#[test]
fn whatever_is_listed_and_whoever_is_away_no_call_reaches_another() {
    let servers = ["a", "a-b", "b", "a-b-c"];
    let words = ["x", "b-x", "c-x", "a-x", "a-b-x", "a-b-c-x", "b-c-x", "y"];
    // Marsaglia's xorshift64: the same numbers everywhere.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut below = |n: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % n
    };
    for world in 0..8 {
        let upstreams = servers.map(|_| HttpUpstream::absent());
        let mut order: Vec<usize> = (0..servers.len()).collect();
        order.rotate_left(usize::try_from(below(4)).unwrap());
        let prefix = ["auto", "always", "never"][world % 3];
        let mut config = json!({ "prefix": prefix });
        let mut up = Vec::new();
        for at in order {
            let listed: Vec<&str> = words.into_iter().filter(|_| below(2) == 0).collect();
            upstreams[at].serve_only_tools(&listed);
            if below(3) > 0 {
                upstreams[at].come();
                up.push(servers[at]);
            }
            config["mcp_servers"][servers[at]] = http(&upstreams[at]);
        }
        let gateway = Gateway::with(config).start();
        gateway.wait_until_well(&up);
        let client = gateway.mcp();
        let n_calls = || upstreams.each_ref().map(|it| it.seen().calls.values().sum::<usize>());
        let full = servers.iter().flat_map(|it| words.map(|word| format!("{it}-{word}")));
        for name in full.chain(words.map(str::to_owned)) {
            let before = n_calls();
            gateway.call(&name, &json!({}));
            client.request("tools/call", &json!({ "name": name }));
            let after = n_calls();
            for (at, server) in servers.into_iter().enumerate() {
                let is_owner = owner(&servers, &name).is_none_or(|owner| owner == server);
                assert!(
                    is_owner || before[at] == after[at],
                    "{world}: {name} reached {server}"
                );
            }
        }
    }
}
