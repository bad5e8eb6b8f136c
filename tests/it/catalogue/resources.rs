//! Resources and templates: lists, reads, clashing URIs, and who may see them.

use serde_json::{Value, json};

use crate::support::behind::{Behind, TRANSPORTS, Transport, params_of};
use crate::support::duplex::{DOORS, Door, Duplex};
use crate::support::gateway::Gateway;
use crate::support::script::{
    BLOB, BLOB_URI, ITEMS_TEMPLATE, ODD_CONTENTS, ODD_RESOURCE, ODD_URI, RICH_TEMPLATE,
    TEXT_URI,
};
use crate::support::upstream_http::HttpUpstream;

fn http(upstream: &HttpUpstream) -> Value {
    json!({ "url": upstream.url(), "transport": "http" })
}

/// Two servers, `a` and `b`, of which each names itself in what it gives.
struct Two {
    a: HttpUpstream,
    b: HttpUpstream,
    gateway: Gateway,
}

impl Two {
    fn start(prepare: impl Fn(&HttpUpstream, &HttpUpstream)) -> Two {
        Two::configured(prepare, &json!({}))
    }

    #[track_caller]
    fn configured(prepare: impl Fn(&HttpUpstream, &HttpUpstream), extra: &Value) -> Two {
        let (a, b) = (HttpUpstream::labelled("A"), HttpUpstream::labelled("B"));
        prepare(&a, &b);
        let mut config = json!({ "mcp_servers": { "a": http(&a), "b": http(&b) } });
        for (key, value) in extra.as_object().unwrap() {
            config[key] = value.clone();
        }
        let gateway = Gateway::started(config);
        Two { a, b, gateway }
    }

    fn client(&self) -> Duplex {
        Duplex::to(&self.gateway, Door::Streamable).open()
    }
}

fn uris(client: &Duplex) -> Vec<String> {
    client.names("resources/list", "resources", "uri")
}

fn templates(client: &Duplex) -> Vec<String> {
    client.names("resources/templates/list", "resourceTemplates", "uriTemplate")
}

#[track_caller]
fn read_text(client: &Duplex, uri: &str) -> String {
    let result = client.result("resources/read", &json!({ "uri": uri }));
    result["contents"][0]["text"].as_str().unwrap_or_else(|| panic!("{result}")).to_owned()
}

/// A URI that nobody has: -32002 with the URI as the client wrote it.
#[track_caller]
fn expect_unknown(client: &Duplex, uri: &str) {
    let error = client.refused("resources/read", &json!({ "uri": uri }));
    assert_eq!(error["code"], -32002, "{error}");
    assert_eq!(error["data"]["uri"], uri, "{error}");
}

/// The raw text of the last answer.
fn last_text(client: &Duplex) -> String {
    client.heard().pop().unwrap().text
}

#[test]
fn every_transport_and_door_carries_text_bytes_and_templates() {
    for transport in TRANSPORTS {
        let behind = Behind::start(transport);
        let gateway = behind.gateway(&json!({}));
        for door in DOORS {
            let client = Duplex::to(&gateway, door).open();
            let expected = [TEXT_URI, BLOB_URI, ODD_URI];
            assert_eq!(uris(&client), expected, "{transport:?} {door:?}");
            assert_eq!(read_text(&client, TEXT_URI), format!("scripted has {TEXT_URI}"));
            let blob = client.result("resources/read", &json!({ "uri": BLOB_URI }));
            assert_eq!(
                blob["contents"],
                json!([{ "uri": BLOB_URI, "mimeType": "image/png", "blob": BLOB }])
            );
            assert_eq!(templates(&client), [ITEMS_TEMPLATE, "file:///logs/{+path}{?from,to}"]);
            let uri = "vendor://items/7";
            assert_eq!(read_text(&client, uri), "scripted has vendor://items/7");
            expect_unknown(&client, "nobody://has/this");
        }
    }
}

#[test]
fn what_nobody_knows_passes_as_it_was_written() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::before(&upstream.url());
    for door in DOORS {
        let client = Duplex::to(&gateway, door).open();
        client.result("resources/list", &json!({}));
        assert!(last_text(&client).contains(ODD_RESOURCE), "{}", last_text(&client));
        client.result("resources/templates/list", &json!({}));
        assert!(last_text(&client).contains(RICH_TEMPLATE), "{}", last_text(&client));
        client.result("resources/read", &json!({ "uri": ODD_URI }));
        assert!(last_text(&client).contains(ODD_CONTENTS), "{}", last_text(&client));
    }
}

#[test]
fn uris_of_several_servers_pass_unchanged() {
    let two = Two::start(|a, b| {
        a.set_resources(&["file:///of/a", "x:1"]);
        a.set_templates(&["a://{id}"]);
        b.set_resources(&["file:///of/b"]);
        b.set_templates(&["b://{id}"]);
    });
    let client = two.client();
    assert_eq!(uris(&client), ["file:///of/a", "file:///of/b", "x:1"]);
    assert_eq!(templates(&client), ["a://{id}", "b://{id}"]);
    assert_eq!(read_text(&client, "file:///of/a"), "A has file:///of/a");
    assert_eq!(read_text(&client, "file:///of/b"), "B has file:///of/b");
    assert_eq!(read_text(&client, "x:1"), "A has x:1");
    expect_unknown(&client, "file:///of/c");
}

#[test]
fn a_uri_that_two_servers_list_is_the_first_ones() {
    let two = Two::start(|a, b| {
        a.set_resources(&["same://x", "only://a"]);
        b.set_resources(&["same://x", "only://b"]);
    });
    let client = two.client();
    assert_eq!(uris(&client), ["b+same://x", "only://a", "only://b", "same://x"]);
    assert_eq!(read_text(&client, "same://x"), "A has same://x");
    for (server, label) in [("a", "A"), ("b", "B")] {
        let offered = format!("{server}+same://x");
        let result = client.result("resources/read", &json!({ "uri": offered }));
        assert_eq!(result["contents"][0]["text"], format!("{label} has same://x"));
    }
    // The upstream is asked for its own URI.
    let asked = params_of(&two.b.received(), "resources/read");
    assert_eq!(asked, [json!({ "uri": "same://x" })]);
    // The server's name is accepted always, not only where URIs clash.
    assert_eq!(read_text(&client, "a+only://a"), "A has only://a");
    expect_unknown(&client, "b+only://a");
    expect_unknown(&client, "c+only://a");
}

#[test]
fn a_uri_with_the_servers_name_is_accepted_with_one_server_too() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::before(&upstream.url());
    let client = Duplex::to(&gateway, Door::Streamable).open();
    let uri = format!("s+{TEXT_URI}");
    assert_eq!(read_text(&client, &uri), format!("scripted has {TEXT_URI}"));
    assert_eq!(read_text(&client, "s+vendor://items/7"), "scripted has vendor://items/7");
}

#[test]
fn a_user_interface_is_asked_for_under_its_scheme() {
    let two = Two::start(|a, b| {
        a.set_resources(&["ui://app/view.html"]);
        b.set_resources(&["ui://app/view.html"]);
    });
    let client = two.client();
    assert_eq!(uris(&client), ["ui://app/view.html", "ui://b+app/view.html"]);
    assert_eq!(read_text(&client, "ui://app/view.html"), "A has ui://app/view.html");
    assert_eq!(read_text(&client, "ui://a+app/view.html"), "A has ui://app/view.html");
    assert_eq!(read_text(&client, "ui://b+app/view.html"), "B has ui://app/view.html");
    let subscribed = client.result("resources/subscribe", &json!({ "uri": "ui://b+app/x" }));
    assert_eq!(subscribed, json!({}));
    let asked = params_of(&two.b.received(), "resources/subscribe");
    assert_eq!(asked, [json!({ "uri": "ui://app/x" })]);
}

#[test]
fn nobody_lists_or_covers_what_is_marked_as_another_servers() {
    let two = Two::start(|a, b| {
        a.set_resources(&[]);
        a.set_templates(&[]);
        b.set_resources(&["a+file:///x", "b+file:///own", "ui://a+x"]);
        b.set_templates(&["{+any}", "a+file:///t/{id}"]);
    });
    let client = two.client();
    assert_eq!(uris(&client), ["b+a+file:///x", "b+file:///own", "ui://b+a+x"]);
    assert_eq!(templates(&client), ["b+a+file:///t/{id}", "{+any}"]);
    for uri in ["a+file:///x", "a+file:///t/1", "a+anything", "ui://a+x"] {
        for method in ["resources/read", "resources/subscribe"] {
            client.request(method, &json!({ "uri": uri }));
        }
        let reference = json!({ "type": "ref/resource", "uri": uri });
        let argument = json!({ "name": "id", "value": "" });
        let params = json!({ "ref": reference, "argument": argument });
        client.request("completion/complete", &params);
    }
    for method in ["resources/read", "resources/subscribe", "completion/complete"] {
        assert_eq!(params_of(&two.b.received(), method), Vec::<Value>::new(), "{method}");
    }
    assert_eq!(read_text(&client, "b+a+file:///x"), "B has a+file:///x");
    assert_eq!(read_text(&client, "b+file:///own"), "B has b+file:///own");
    assert_eq!(read_text(&client, "file:///of/any"), "B has file:///of/any");
}

#[test]
fn who_lists_a_uri_comes_before_who_covers_it_and_the_first_covers_before_the_next() {
    let two = Two::start(|a, b| {
        a.set_resources(&[]);
        a.set_templates(&["shop://{+any}", "same://{id}"]);
        b.set_resources(&["shop://listed"]);
        b.set_templates(&["shop://items/{id}", "same://{id}"]);
    });
    let client = two.client();
    assert_eq!(
        templates(&client),
        ["b+same://{id}", "same://{id}", "shop://items/{id}", "shop://{+any}"]
    );
    assert_eq!(read_text(&client, "shop://items/7"), "A has shop://items/7");
    assert_eq!(read_text(&client, "b+shop://items/7"), "B has shop://items/7");
    assert_eq!(read_text(&client, "shop://listed"), "B has shop://listed");
    assert_eq!(read_text(&client, "a+shop://listed"), "A has shop://listed");
    assert_eq!(read_text(&client, "same://7"), "A has same://7");
    assert_eq!(read_text(&client, "b+same://7"), "B has same://7");
}

#[test]
fn a_uri_is_the_same_however_it_is_spelled() {
    let two = Two::start(|a, b| {
        a.set_resources(&["file:///list/café", "file:///list/plain%41"]);
        a.set_templates(&["file:///docs/café/{x}"]);
        b.set_resources(&["file:///list/caf%C3%A9s"]);
        b.set_templates(&["file:///docs/th%C3%A9/{x}"]);
    });
    let client = two.client();
    // What a template covers goes on as the client spells it, and its server knows.
    for (server, uri, asked) in [
        (&two.a, "file:///docs/café/1", "file:///docs/café/1"),
        (&two.a, "file:///docs/caf%C3%A9/1", "file:///docs/caf%C3%A9/1"),
        (&two.b, "file:///docs/thé/1", "file:///docs/thé/1"),
        // Where it is listed, its server is asked in its own spelling.
        (&two.a, "file:///list/caf%c3%a9", "file:///list/café"),
        (&two.a, "a+file:///list/caf%C3%A9", "file:///list/café"),
        (&two.a, "file:///list/plainA", "file:///list/plain%41"),
        (&two.b, "file:///list/cafés", "file:///list/caf%C3%A9s"),
    ] {
        client.request("resources/read", &json!({ "uri": uri }));
        let last = params_of(&server.received(), "resources/read").pop();
        assert_eq!(last, Some(json!({ "uri": asked })), "{uri}");
    }
    expect_unknown(&client, "file:///list/cafe");
}

#[test]
fn a_uri_that_only_a_template_covers_goes_to_its_server() {
    let two = Two::start(|a, b| {
        a.set_resources(&["file:///plain"]);
        a.set_templates(&["alpha://{id}/data", "shop://{id}"]);
        b.set_resources(&[]);
        b.set_templates(&["beta://x/{+path}"]);
    });
    let client = two.client();
    assert_eq!(read_text(&client, "alpha://7/data"), "A has alpha://7/data");
    assert_eq!(read_text(&client, "beta://x/y/z"), "B has beta://x/y/z");
    expect_unknown(&client, "gamma://1");
    // Nobody is asked who cannot have it.
    assert!(params_of(&two.a.received(), "resources/read").len() <= 2);
    let asked_b = params_of(&two.b.received(), "resources/read");
    assert!(!asked_b.contains(&json!({ "uri": "alpha://7/data" })), "{asked_b:?}");
}

#[test]
fn a_server_behind_its_own_endpoint_has_its_own_uris() {
    let two = Two::start(|a, b| {
        a.set_resources(&["same://x"]);
        b.set_resources(&["same://x"]);
    });
    for (server, label) in [("a", "A"), ("b", "B")] {
        let path = format!("/mcp/{server}");
        let client = Duplex::to(&two.gateway, Door::Streamable).at(&path).open();
        assert_eq!(uris(&client), ["same://x"]);
        assert_eq!(read_text(&client, "same://x"), format!("{label} has same://x"));
    }
}

#[test]
fn a_key_sees_the_resources_of_its_servers_alone() {
    let keys = json!({ "api_keys": [
        { "name": "all", "key": "key-of-all-1" },
        { "name": "only-b", "key": "key-of-b-12", "servers": ["b"] },
    ]});
    let two = Two::configured(
        |a, b| {
            a.set_resources(&["same://x", "only://a"]);
            a.set_templates(&["ta://{id}"]);
            b.set_resources(&["same://x", "only://b"]);
            b.set_templates(&["tb://{id}"]);
        },
        &keys,
    );
    let client = Duplex::to(&two.gateway, Door::Streamable).key("key-of-b-12").open();
    let listed = uris(&client);
    assert!(listed.contains(&"only://b".to_owned()), "{listed:?}");
    assert!(!listed.iter().any(|uri| uri.contains("only://a") || uri.starts_with("a+")));
    assert_eq!(listed.len(), 2, "{listed:?}");
    assert_eq!(templates(&client), ["tb://{id}"]);
    assert_eq!(read_text(&client, "only://b"), "B has only://b");
    for hidden in ["only://a", "a+only://a", "a+same://x", "ta://1"] {
        expect_unknown(&client, hidden);
    }
    assert!(params_of(&two.a.received(), "resources/read").is_empty());
    let all = Duplex::to(&two.gateway, Door::Streamable).key("key-of-all-1").open();
    assert_eq!(read_text(&all, "only://a"), "A has only://a");
}

#[test]
fn a_changed_list_is_announced_and_listed() {
    for transport in TRANSPORTS {
        let behind = Behind::start(transport);
        let gateway = behind.gateway(&json!({}));
        for door in DOORS {
            let client = Duplex::to(&gateway, door).open();
            let uri = format!("later://{door:?}");
            client.call("change", &json!({ "kind": "resources", "name": uri }));
            client.wait_told("notifications/resources/list_changed");
            assert!(uris(&client).contains(&uri), "{transport:?} {door:?}");
            let uri_template = format!("later{door:?}://{{id}}");
            client
                .call("change", &json!({ "kind": "resourceTemplates", "name": uri_template }));
            client.wait_told_times("notifications/resources/list_changed", 2);
            assert!(templates(&client).contains(&uri_template), "{transport:?} {door:?}");
        }
    }
}

#[test]
fn a_missing_or_wrong_uri_is_refused() {
    let behind = Behind::start(Transport::Http);
    let gateway = behind.gateway(&json!({}));
    let client = Duplex::to(&gateway, Door::Streamable).open();
    for params in [json!({}), json!({ "uri": 7 }), json!({ "uri": null })] {
        assert_eq!(client.refused("resources/read", &params)["code"], -32602, "{params}");
    }
}
