//! Links in results and lists: what a server gives a client to read comes back to that server.

use serde_json::{Value, json};

use crate::support::behind::{Behind, Era, Transport, params_of};
use crate::support::duplex::{DOORS, Door, Duplex};
use crate::support::gateway::Gateway;
use crate::support::modern::ModernClient;
use crate::support::script::{RICH_PROMPT_RESULT, RICH_RESULT};
use crate::support::upstream_http::HttpUpstream;

/// What each server lists: the first of both keeps a URI that both have.
const LISTED: [&[&str]; 2] =
    [&["same://x", "only://a"], &["same://x", "only://b", "ui://app/v"]];

/// Links of the second server, and as they reach a client who sees both.
const LINKS: [(&str, &str); 8] = [
    ("only://b", "only://b"),
    ("same://x", "b+same://x"),
    ("only://a", "b+only://a"),
    ("hidden://b?x=1+2", "b+hidden://b?x=1+2"),
    ("ui://app/v", "ui://app/v"),
    ("ui://app/w", "ui://b+app/w"),
    ("a+only://b", "b+a+only://b"),
    ("https://example.org/x", "https://example.org/x"),
];

struct Two {
    b: Behind,
    _a: HttpUpstream,
    gateway: Gateway,
}

impl Two {
    fn start(era: Era) -> Two {
        let a = HttpUpstream::labelled("A");
        a.set_resources(LISTED[0]);
        a.set_templates(&["shop://{+any}"]);
        let b = Behind::of(era, Transport::Http, "B");
        let script = b.script().unwrap();
        script.set_resources(LISTED[1]);
        script.set_templates(&["shop://items/{id}"]);
        for name in ["odd_result", "rich"] {
            script.add_tool(name);
        }
        let of_ui =
            |uri: &str| json!({ "ui": { "resourceUri": uri, "visibility": ["model"] } });
        for uri in ["ui://app/v", "ui://app/w"] {
            let (schema, meta) = (json!({ "type": "object" }), of_ui(uri));
            let tool = json!({ "name": uri, "inputSchema": schema, "_meta": meta });
            script.add_text("tools", uri, &tool.to_string());
        }
        let gateway = Gateway::started(json!({ "mcp_servers": {
            "a": { "url": a.url(), "transport": "http" },
            "b": b.config(),
        }}));
        Two { b, _a: a, gateway }
    }
}

/// A result with all of the links, in each form that has one.
fn result(pick: fn(&(&str, &str)) -> String) -> Value {
    let uris: Vec<String> = LINKS.iter().map(pick).collect();
    let link = |uri: &String| json!({ "type": "resource_link", "uri": uri, "name": uri.len() });
    let embedded = |uri: &String| json!({ "type": "resource", "resource": { "uri": uri, "text": "\"resource\"" } });
    let mut content: Vec<Value> = uris.iter().map(link).collect();
    content.extend(uris.iter().map(embedded));
    let meta = json!({ "ui": { "resourceUri": uris[5], "x": 1.5 }, "ui/resourceUri": uris[5] });
    json!({ "content": content, "_meta": meta })
}

/// Names of links have nothing to do with their URIs.
fn without_names(mut result: Value) -> Value {
    for block in result["content"].as_array_mut().unwrap() {
        block.as_object_mut().unwrap().remove("name");
    }
    result
}

#[test]
fn a_link_of_a_result_leads_back_to_the_server_that_gave_it() {
    let two = Two::start(Era::Legacy);
    let given = json!({ "result": result(|(own, _)| (*own).to_owned()) });
    let wanted = without_names(result(|(_, offered)| (*offered).to_owned()));
    for door in DOORS {
        let client = Duplex::to(&two.gateway, door).open();
        let answer = client.call("b-odd_result", &given);
        assert_eq!(without_names(answer), wanted, "{door:?}");
    }
    let client = Duplex::to(&two.gateway, Door::Streamable).open();
    for (own, offered) in LINKS {
        if own.starts_with("https:") {
            continue;
        }
        for method in ["resources/read", "resources/subscribe", "resources/unsubscribe"] {
            client.request(method, &json!({ "uri": offered }));
            let asked = params_of(&two.b.received(), method);
            assert!(asked.contains(&json!({ "uri": own })), "{method} {offered}: {asked:?}");
        }
        let reference = json!({ "type": "ref/resource", "uri": offered });
        let argument = json!({ "name": "id", "value": "" });
        let params = json!({ "ref": reference, "argument": argument });
        client.request("completion/complete", &params);
        let asked = params_of(&two.b.received(), "completion/complete");
        assert_eq!(asked.last().unwrap()["ref"]["uri"], own);
    }
}

#[test]
fn what_a_client_fetches_by_itself_stays_however_many_links_there_are() {
    let two = Two::start(Era::Legacy);
    let uri = |n: usize| match n % 3 {
        0 => format!("https://example.org/{n}"),
        1 => format!("data:text/plain,{}", "x".repeat(n * 10)),
        _ => format!("hidden://{n}"),
    };
    let link = |uri: String| json!({ "type": "resource_link", "uri": uri, "name": "n" });
    let content: Vec<Value> = (0..400).map(uri).map(link).collect();
    let given = json!({ "result": { "content": content } });
    let client = Duplex::to(&two.gateway, Door::Streamable).open();
    let answer = client.call("b-odd_result", &given);
    for (n, link) in answer["content"].as_array().unwrap().iter().enumerate() {
        let mark = if n % 3 == 2 { "b+" } else { "" };
        assert_eq!(link["uri"], format!("{mark}{}", uri(n)));
    }
}

#[test]
fn a_link_of_a_modern_servers_result_leads_back_too() {
    let two = Two::start(Era::Modern);
    let given = json!({ "result": result(|(own, _)| (*own).to_owned()) });
    let wanted = without_names(result(|(_, offered)| (*offered).to_owned()));
    let client = ModernClient::to(&two.gateway);
    let answer = without_names(client.call("b-odd_result", &given));
    assert_eq!(answer["content"], wanted["content"]);
    assert_eq!(answer["_meta"]["ui"], wanted["_meta"]["ui"]);
}

#[test]
fn what_is_no_link_passes_as_it_was_written_and_behind_one_server_all_of_it() {
    let two = Two::start(Era::Legacy);
    let link = |to: &str| RICH_RESULT.replace("file:///a b", &format!("{to}file:///a b"));
    let embedded = |to: &str| {
        RICH_PROMPT_RESULT.replace("vendor://odd?x=1", &format!("{to}vendor://odd?x=1"))
    };
    let last = |client: &Duplex| client.heard().pop().unwrap().text;
    for door in DOORS {
        let client = Duplex::to(&two.gateway, door).open();
        client.call("b-rich", &json!({}));
        assert!(last(&client).contains(&link("b+")), "{}", last(&client));
        client.result("prompts/get", &json!({ "name": "b-rich" }));
        assert!(last(&client).contains(&embedded("b+")), "{}", last(&client));
        let alone = Duplex::to(&two.gateway, Door::Streamable).at("/mcp/b").open();
        alone.call("rich", &json!({}));
        assert!(last(&alone).contains(&link("")), "{}", last(&alone));
        alone.result("prompts/get", &json!({ "name": "rich" }));
        assert!(last(&alone).contains(&embedded("")), "{}", last(&alone));
    }
}

#[test]
fn a_tools_user_interface_is_listed_under_a_uri_that_leads_to_its_server() {
    let two = Two::start(Era::Legacy);
    let uis = |path: &str| -> Vec<String> {
        let client = Duplex::to(&two.gateway, Door::Streamable).at(path).open();
        let tools = client.list("tools/list", "tools");
        let uis = tools.iter().map(|tool| tool["_meta"]["ui"]["resourceUri"].as_str());
        uis.flatten().map(str::to_owned).collect()
    };
    assert_eq!(uis("/mcp"), ["ui://app/v", "ui://b+app/w"]);
    assert_eq!(uis("/mcp/b"), ["ui://app/v", "ui://app/w"]);
}

#[test]
fn what_was_read_and_what_is_told_of_it_is_called_as_it_was_asked_for() {
    let two = Two::start(Era::Legacy);
    let client = Duplex::to(&two.gateway, Door::Streamable).open();
    for uri in ["same://x", "b+same://x", "b+only://b", "only://b", "ui://b+app/v"] {
        let read = client.result("resources/read", &json!({ "uri": uri }));
        assert_eq!(read["contents"][0]["uri"], uri);
    }
    client.result("resources/subscribe", &json!({ "uri": "b+same://x" }));
    client.call("b-touch", &json!({ "uri": "same://x" }));
    let told = client.wait_told("notifications/resources/updated");
    assert_eq!(told["uri"], "b+same://x");
}
