//! Lists in pages: every list walked whole, and cursors that are not for this list, this view or
//! this gateway.

use serde_json::{Value, json};

use crate::support::behind::{Behind, Transport};
use crate::support::duplex::{DOORS, Door, Duplex};
use crate::support::gateway::Gateway;
use crate::support::upstream_http::HttpUpstream;

/// The method, the key of its items, the member that names one.
const LISTS: [(&str, &str, &str); 4] = [
    ("tools/list", "tools", "name"),
    ("prompts/list", "prompts", "name"),
    ("resources/list", "resources", "uri"),
    ("resources/templates/list", "resourceTemplates", "uriTemplate"),
];

const N_ITEMS: usize = 10;
/// How their server orders them.
const ORDER: [usize; N_ITEMS] = [4, 9, 0, 7, 1, 8, 2, 3, 6, 5];
const PAGE_ITEMS: usize = 3;

/// A server with ten items in each list, which are not sorted.
fn with_ten_of_each(label: &str) -> HttpUpstream {
    let upstream = HttpUpstream::labelled(label);
    let names: Vec<String> = ORDER.iter().map(|n| format!("{label}{n:02}")).collect();
    let uris: Vec<String> = names.iter().map(|name| format!("x://{name}")).collect();
    let templates: Vec<String> = uris.iter().map(|uri| format!("{uri}/{{id}}")).collect();
    let set = |all: Vec<String>, set: &dyn Fn(&[&str])| {
        set(&all.iter().map(String::as_str).collect::<Vec<_>>());
    };
    set([names.clone(), vec!["change".to_owned()]].concat(), &|all| upstream.set_tools(all));
    set(names.clone(), &|all| upstream.set_prompts(all));
    set(uris, &|all| upstream.set_resources(all));
    set(templates, &|all| upstream.set_templates(all));
    upstream
}

fn config(upstreams: &[(&str, &HttpUpstream)], extra: &Value) -> Value {
    let mut config = json!({ "limits": { "page_items": PAGE_ITEMS }, "mcp_servers": {} });
    for (name, upstream) in upstreams {
        config["mcp_servers"][*name] = json!({ "url": upstream.url(), "transport": "http" });
    }
    for (key, value) in extra.as_object().unwrap() {
        config[key] = value.clone();
    }
    config
}

/// The pages of a list, each the names on it, from a cursor on.
#[track_caller]
fn pages_from(
    client: &Duplex,
    (method, key, member): (&str, &str, &str),
    first: Option<&Value>,
) -> Vec<Vec<String>> {
    let mut pages = Vec::new();
    let mut params = first.map_or(json!({}), |cursor| json!({ "cursor": cursor }));
    loop {
        let page = client.result(method, &params);
        let items = page[key].as_array().unwrap_or_else(|| panic!("{page}"));
        pages
            .push(items.iter().map(|item| item[member].as_str().unwrap().to_owned()).collect());
        let Some(cursor) = page.get("nextCursor") else { return pages };
        assert!(cursor.is_string(), "{page}");
        assert!(pages.len() < 100, "{method} does not end");
        params = json!({ "cursor": cursor });
    }
}

/// The cursor behind the first page.
#[track_caller]
fn first_cursor(client: &Duplex, method: &str) -> Value {
    let page = client.result(method, &json!({}));
    page.get("nextCursor").unwrap_or_else(|| panic!("one page of {method}")).clone()
}

#[track_caller]
fn expect_refused(client: &Duplex, method: &str, cursor: &Value) {
    let error = client.refused(method, &json!({ "cursor": cursor }));
    assert_eq!(error["code"], -32602, "{method} {cursor}: {error}");
}

#[test]
fn every_list_of_one_server_is_walked_whole_and_in_its_order() {
    let (upstream, other) = (with_ten_of_each("n"), with_ten_of_each("m"));
    let one = Gateway::started(config(&[("s", &upstream)], &json!({})));
    let two = Gateway::started(config(&[("s", &upstream), ("t", &other)], &json!({})));
    for door in DOORS {
        let clients =
            [Duplex::to(&one, door).open(), Duplex::to(&two, door).at("/mcp/s").open()];
        for (client, list) in clients.iter().flat_map(|it| LISTS.map(|list| (it, list))) {
            let pages = pages_from(client, list, None);
            let (last, full) = pages.split_last().unwrap();
            assert!(full.iter().all(|page| page.len() == PAGE_ITEMS), "{list:?}: {pages:?}");
            assert!((1..=PAGE_ITEMS).contains(&last.len()), "{list:?}: {pages:?}");
            let all = pages.concat();
            let expected: Vec<String> = ORDER.iter().map(|n| format!("n{n:02}")).collect();
            let walked = all.iter().filter(|name| *name != "change");
            let walked: Vec<String> = walked
                .map(|name| {
                    name.trim_start_matches("x://").trim_end_matches("/{id}").to_owned()
                })
                .collect();
            assert_eq!(walked, expected, "{list:?}: {pages:?}");
            assert_eq!(all.len() - walked.len(), usize::from(list.1 == "tools"), "{all:?}");
        }
    }
}

#[test]
fn pages_go_on_over_the_end_of_a_server() {
    let (a, b) = (with_ten_of_each("a"), with_ten_of_each("b"));
    let gateway = Gateway::started(config(&[("a", &a), ("b", &b)], &json!({})));
    let client = Duplex::to(&gateway, Door::Streamable).open();
    for list in LISTS {
        let all = pages_from(&client, list, None).concat();
        let n_items = if list.1 == "tools" { N_ITEMS + 1 } else { N_ITEMS };
        assert_eq!(all.len(), 2 * n_items, "{list:?}: {all:?}");
        assert!(all.is_sorted_by(|one, next| one < next), "{list:?}: {all:?}");
    }
}

#[test]
fn a_list_that_fits_has_no_cursor() {
    let behind = Behind::start(Transport::Http);
    let gateway = behind.gateway(&json!({ "limits": { "page_items": 3 } }));
    let client = Duplex::to(&gateway, Door::Streamable).open();
    // Three resources: exactly a page.
    let page = client.result("resources/list", &json!({}));
    assert_eq!(page["resources"].as_array().unwrap().len(), 3);
    assert_eq!(page.get("nextCursor"), None);
    let gateway = behind.gateway(&json!({}));
    let client = Duplex::to(&gateway, Door::Streamable).open();
    assert_eq!(client.result("tools/list", &json!({})).get("nextCursor"), None);
}

#[test]
fn a_cursor_of_another_list_is_refused() {
    let upstream = with_ten_of_each("n");
    let gateway = Gateway::started(config(&[("s", &upstream)], &json!({})));
    for door in DOORS {
        let client = Duplex::to(&gateway, door).open();
        for (from, ..) in LISTS {
            let cursor = first_cursor(&client, from);
            for (method, ..) in LISTS.into_iter().filter(|(method, ..)| *method != from) {
                expect_refused(&client, method, &cursor);
            }
        }
    }
}

#[test]
fn a_cursor_that_is_no_cursor_is_refused() {
    let upstream = with_ten_of_each("n");
    let gateway = Gateway::started(config(&[("s", &upstream)], &json!({})));
    let client = Duplex::to(&gateway, Door::Streamable).open();
    for (method, ..) in LISTS {
        let cursor = first_cursor(&client, method);
        let text = cursor.as_str().unwrap();
        assert!(text.is_ascii(), "{text}");
        for at in 0..text.len() {
            let mut bytes = text.as_bytes().to_owned();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            let tampered = String::from_utf8(bytes).unwrap();
            expect_refused(&client, method, &json!(tampered));
        }
        for wrong in ["", "3", "AAAA", "%%%", "{}", &text[1..], &text[..text.len() - 1]] {
            expect_refused(&client, method, &json!(wrong));
        }
        expect_refused(&client, method, &json!(format!("{text}A")));
        expect_refused(&client, method, &json!(3));
        expect_refused(&client, method, &json!({ "at": 3 }));
        // The true one still works.
        assert!(client.result(method, &json!({ "cursor": cursor })).is_object());
    }
}

#[test]
fn a_cursor_of_another_key_or_endpoint_or_narrowing_is_refused() {
    let (a, b) = (with_ten_of_each("a"), with_ten_of_each("b"));
    let keys = json!({ "api_keys": [
        { "name": "one", "key": "key-of-one-1" },
        { "name": "two", "key": "key-of-two-2" },
        { "name": "only-b", "key": "key-of-b-12", "servers": ["b"] },
    ]});
    let gateway = Gateway::started(config(&[("a", &a), ("b", &b)], &keys));
    let open = |key: &str| Duplex::to(&gateway, Door::Streamable).key(key);
    let one = open("key-of-one-1").open();
    let others = [
        open("key-of-two-2").open(),
        open("key-of-b-12").open(),
        open("key-of-one-1").at("/mcp/a").open(),
        open("key-of-one-1").header("x-mcp-servers", "a").open(),
    ];
    for (method, ..) in LISTS {
        let cursor = first_cursor(&one, method);
        for other in &others {
            expect_refused(other, method, &cursor);
        }
        assert!(one.result(method, &json!({ "cursor": cursor })).is_object());
    }
}

#[test]
fn a_cursor_of_another_gateway_is_refused() {
    let upstream = with_ten_of_each("n");
    let gateways = [(); 2].map(|()| Gateway::started(config(&[("s", &upstream)], &json!({}))));
    let [one, other] = gateways.each_ref().map(|it| Duplex::to(it, Door::Streamable).open());
    let cursor = first_cursor(&one, "tools/list");
    expect_refused(&other, "tools/list", &cursor);
}

#[test]
fn new_items_do_not_break_a_walk() {
    let upstream = with_ten_of_each("n");
    let gateway = Gateway::started(config(&[("s", &upstream)], &json!({})));
    crate::support::wait_until("the gateway listens upstream", || upstream.n_streams() > 0);
    let client = Duplex::to(&gateway, Door::Streamable).open();
    for list in LISTS {
        let (method, key, member) = list;
        let before = pages_from(&client, list, None).concat();
        let page = client.result(method, &json!({}));
        let first = page[key].as_array().unwrap().iter();
        let first: Vec<String> =
            first.map(|item| item[member].as_str().unwrap().to_owned()).collect();
        // One sorts before everything, one after.
        let kind = if key == "resourceTemplates" { "resources" } else { key };
        let changed = format!("notifications/{kind}/list_changed");
        for name in ["aaa://{x}", "zzz://{x}"] {
            let n_told = client.told(&changed).len();
            upstream.change(key, name);
            client.wait_told_times(&changed, n_told + 1);
        }
        let rest = pages_from(&client, list, page.get("nextCursor")).concat();
        let mut walked = [first, rest].concat();
        walked.retain(|name| !name.ends_with("://{x}"));
        assert_eq!(walked, before, "{method}: nothing twice, nothing left out");
        let after = pages_from(&client, list, None).concat();
        assert_eq!(after.len(), before.len() + 2, "{method}");
    }
}
