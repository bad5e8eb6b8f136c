//! Items of lists that no client may be given: each costs itself alone, and is named.

use serde_json::{Value, json};

use crate::support::duplex::{Door, Duplex};
use crate::support::gateway::Gateway;
use crate::support::upstream_http::HttpUpstream;
use crate::support::wait_until;

/// What becomes of an item.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Made {
    /// It is listed without what was wrong with it.
    Listed,
    LeftOut,
}

use Made::{LeftOut, Listed};

/// Malformed items: the list's key, what becomes of it, and its text, in which `@` is a name or
/// a URI that nobody else has.
pub(crate) const ITEMS: [(&str, Made, &str); 66] = [
    ("tools", LeftOut, r#"{"name":"@"}"#),
    ("tools", LeftOut, r#"{"name":"@","inputSchema":null}"#),
    ("tools", LeftOut, r#"{"name":"@","inputSchema":"object"}"#),
    ("tools", LeftOut, r#"{"name":"@","inputSchema":[]}"#),
    ("tools", LeftOut, r#"{"name":"@","inputSchema":{"type":"string"}}"#),
    ("tools", LeftOut, r#"{"name":"@","inputSchema":{"type":"object","properties":["a"]}}"#),
    (
        "tools",
        LeftOut,
        r#"{"name":"@","inputSchema":{"type":"object"},"title":"a","title":"b"}"#,
    ),
    ("tools", LeftOut, r#"{"title":"@","inputSchema":{"type":"object"}}"#),
    ("tools", LeftOut, r#"{"name":7,"title":"@","inputSchema":{"type":"object"}}"#),
    ("tools", LeftOut, r#""@""#),
    ("tools", Listed, r#"{"name":"@","inputSchema":{}}"#),
    ("tools", Listed, r#"{"name":"@","inputSchema":{"type":null}}"#),
    ("tools", Listed, r#"{"name":"@","inputSchema":{"type":["object","null"]}}"#),
    ("tools", Listed, r#"{"name":"@","inputSchema":{"type":"object","properties":null}}"#),
    ("tools", Listed, r#"{"name":"@","inputSchema":{"type":"object","properties":[]}}"#),
    (
        "tools",
        Listed,
        r#"{"name":"@","inputSchema":{"type":"object","properties":{"a":null}}}"#,
    ),
    (
        "tools",
        Listed,
        r#"{"name":"@","inputSchema":{"type":"object","properties":{"a":true}}}"#,
    ),
    ("tools", Listed, r#"{"name":"@","inputSchema":{"type":"object","required":null}}"#),
    ("tools", Listed, r#"{"name":"@","inputSchema":{"type":"object","required":true}}"#),
    ("tools", Listed, r#"{"name":"@","inputSchema":{"type":"object","required":["a",null]}}"#),
    ("tools", Listed, r#"{"name":"@","inputSchema":{"type":"object","$schema":null}}"#),
    ("tools", Listed, r#"{"name":"@","inputSchema":{"type":"object"},"title":null}"#),
    ("tools", Listed, r#"{"name":"@","inputSchema":{"type":"object"},"description":null}"#),
    ("tools", Listed, r#"{"name":"@","inputSchema":{"type":"object"},"description":["d"]}"#),
    ("tools", Listed, r#"{"name":"@","inputSchema":{"type":"object"},"description":"\ud800"}"#),
    ("tools", Listed, r#"{"name":"@","inputSchema":{"type":"object"},"outputSchema":null}"#),
    ("tools", Listed, r#"{"name":"@","inputSchema":{"type":"object"},"outputSchema":false}"#),
    (
        "tools",
        Listed,
        r#"{"name":"@","inputSchema":{"type":"object"},"outputSchema":{"type":"object","properties":null}}"#,
    ),
    ("tools", Listed, r#"{"name":"@","inputSchema":{"type":"object"},"annotations":null}"#),
    (
        "tools",
        Listed,
        r#"{"name":"@","inputSchema":{"type":"object"},"annotations":{"readOnlyHint":"yes","title":null}}"#,
    ),
    ("tools", Listed, r#"{"name":"@","inputSchema":{"type":"object"},"icons":null}"#),
    ("tools", Listed, r#"{"name":"@","inputSchema":{"type":"object"},"icons":{"src":"x:"}}"#),
    (
        "tools",
        Listed,
        r#"{"name":"@","inputSchema":{"type":"object"},"icons":[{"src":null},{"src":"data:,","sizes":"48x48"}]}"#,
    ),
    ("tools", Listed, r#"{"name":"@","inputSchema":{"type":"object"},"execution":null}"#),
    (
        "tools",
        Listed,
        r#"{"name":"@","inputSchema":{"type":"object"},"execution":{"taskSupport":"no"}}"#,
    ),
    ("tools", Listed, r#"{"name":"@","inputSchema":{"type":"object"},"_meta":null}"#),
    ("tools", Listed, r#"{"name":"@","inputSchema":{"type":"object"},"_meta":"m"}"#),
    ("prompts", LeftOut, r#"{"description":"@"}"#),
    ("prompts", LeftOut, r#"{"name":null,"title":"@"}"#),
    ("prompts", LeftOut, r#"{"name":"@","arguments":{"a":"string"}}"#),
    ("prompts", LeftOut, r#"{"name":"@","arguments":"a"}"#),
    ("prompts", Listed, r#"{"name":"@","title":null}"#),
    ("prompts", Listed, r#"{"name":"@","description":null}"#),
    ("prompts", Listed, r#"{"name":"@","arguments":null}"#),
    ("prompts", Listed, r#"{"name":"@","arguments":{}}"#),
    ("prompts", Listed, r#"{"name":"@","arguments":[{"name":"a","required":null}]}"#),
    ("prompts", Listed, r#"{"name":"@","arguments":[{"name":"a","description":7},null,{}]}"#),
    ("prompts", Listed, r#"{"name":"@","icons":[null]}"#),
    ("prompts", Listed, r#"{"name":"@","_meta":null}"#),
    ("resources", LeftOut, r#"{"uri":"@","name":null}"#),
    ("resources", LeftOut, r#"{"uri":"@"}"#),
    ("resources", LeftOut, r#"{"uri":"notes.txt","name":"@"}"#),
    ("resources", LeftOut, r#"{"uri":null,"name":"@"}"#),
    ("resources", Listed, r#"{"uri":"@","name":"n","title":null}"#),
    ("resources", Listed, r#"{"uri":"@","name":"n","description":null}"#),
    ("resources", Listed, r#"{"uri":"@","name":"n","mimeType":null}"#),
    ("resources", Listed, r#"{"uri":"@","name":"n","size":null}"#),
    ("resources", Listed, r#"{"uri":"@","name":"n","size":1.5}"#),
    ("resources", Listed, r#"{"uri":"@","name":"n","annotations":null}"#),
    (
        "resources",
        Listed,
        r#"{"uri":"@","name":"n","annotations":{"audience":["all"],"priority":7,"lastModified":null}}"#,
    ),
    ("resourceTemplates", LeftOut, r#"{"uriTemplate":"@","name":null}"#),
    ("resourceTemplates", LeftOut, r#"{"uriTemplate":"@/{","name":"n"}"#),
    ("resourceTemplates", LeftOut, r#"{"uriTemplate":7,"name":"@"}"#),
    ("resourceTemplates", Listed, r#"{"uriTemplate":"@","name":"n","description":null}"#),
    ("resourceTemplates", Listed, r#"{"uriTemplate":"@","name":"n","mimeType":null}"#),
    ("resourceTemplates", Listed, r#"{"uriTemplate":"@","name":"n","annotations":[]}"#),
];

/// The lists: the method, the key, the member by which an item is asked for.
pub(crate) const LISTS: [(&str, &str, &str); 4] = [
    ("tools/list", "tools", "name"),
    ("prompts/list", "prompts", "name"),
    ("resources/list", "resources", "uri"),
    ("resources/templates/list", "resourceTemplates", "uriTemplate"),
];

/// What stands for `@` in the n-th item.
fn name(n: usize) -> String {
    format!("x:odd-{n}")
}

/// A server with all of these items beside the usual ones.
pub(crate) fn upstream() -> HttpUpstream {
    let upstream = HttpUpstream::start();
    for (n, (key, _, text)) in ITEMS.iter().enumerate() {
        upstream.add_text(key, &name(n), &text.replace('@', &name(n)));
    }
    upstream
}

/// What of these items, and of the usual ones, such a list must have.
pub(crate) fn expected(key: &str) -> Vec<String> {
    let mut names: Vec<String> = ITEMS
        .iter()
        .enumerate()
        .filter(|(_, (of, made, _))| *of == key && *made == Listed)
        .map(|(n, _)| name(n))
        .collect();
    let usual = HttpUpstream::start();
    let gateway = Gateway::before(&usual.url());
    gateway.wait_until_well(&["s"]);
    let client = Duplex::to(&gateway, Door::Streamable).open();
    let (method, _, member) = LISTS.into_iter().find(|(_, of, _)| *of == key).unwrap();
    names.extend(client.names(method, key, member));
    names.sort();
    names
}

#[test]
fn a_malformed_item_costs_itself_alone_and_is_named_in_the_status_and_the_log() {
    let upstream = upstream();
    let gateway = Gateway::before(&upstream.url());
    gateway.wait_until_well(&["s"]);
    let client = Duplex::to(&gateway, Door::Streamable).open();
    for (method, key, member) in LISTS {
        let mut names = client.names(method, key, member);
        names.sort();
        assert_eq!(names, expected(key), "{key}");
    }
    client.call("echo", &json!({ "message": "m" }));
    // What was mended is called as any other.
    let n = ITEMS.iter().position(|(_, made, _)| *made == Listed).unwrap();
    assert_eq!(client.request("tools/call", &json!({ "name": name(n) }))["error"], Value::Null);

    let left_out: Vec<usize> = (0..ITEMS.len()).filter(|n| ITEMS[*n].1 == LeftOut).collect();
    let status = gateway.status_of("s");
    assert_eq!(status["left_out"], left_out.len());
    let items = status["left_out_items"].as_array().unwrap();
    assert_eq!(items.len(), left_out.len(), "{items:?}");
    let (stderr, mut n_nameless) = (gateway.stderr(), 0);
    for n in left_out {
        let (key, _, text) = ITEMS[n];
        let (_, _, member) = LISTS.into_iter().find(|(_, of, _)| *of == key).unwrap();
        let item: Value = serde_json::from_str(&text.replace('@', &name(n))).unwrap();
        // Of two members of a name nobody can say which one is meant.
        let Some(own) = item[member].as_str().filter(|_| item["title"] != "b") else {
            n_nameless += 1;
            continue;
        };
        let of: Vec<&Value> = items.iter().filter(|item| item["name"] == own).collect();
        assert_eq!(of.len(), 1, "{text}: {items:?}");
        let kind = of[0]["kind"].as_str().unwrap();
        assert!(key.to_lowercase().starts_with(&kind.replace('_', "")), "{text}: {kind}");
        let reason = of[0]["reason"].as_str().unwrap();
        let lines = stderr.lines().filter(|line| line.contains(&format!("the {kind} {own:?}")));
        let lines: Vec<&str> = lines.collect();
        assert!(lines.len() == 1 && lines[0].contains(reason), "{reason}: {lines:?}");
    }
    assert_eq!(items.iter().filter(|item| item["name"].is_null()).count(), n_nameless);
}

#[test]
fn what_is_left_out_is_logged_again_only_when_it_changes() {
    let upstream = HttpUpstream::start();
    upstream.add_text("tools", "bad", r#"{"name":"bad"}"#);
    let gateway = Gateway::before(&upstream.url());
    gateway.wait_until_well(&["s"]);
    let lines = |name: &str| {
        let said = format!("the tool {name:?} is left out");
        gateway.stderr().lines().filter(|line| line.contains(&said)).count()
    };
    // The log has a thread of its own.
    wait_until("it is told", || lines("bad") > 0);
    assert_eq!(lines("bad"), 1);
    for n in 0..2 {
        upstream.add_text(
            "tools",
            "worse",
            &format!(r#"{{"name":"worse{n}","inputSchema":7}}"#),
        );
        upstream.change("tools", &format!("new{n}"));
        gateway.wait_for_tool(&format!("new{n}"));
    }
    wait_until("both are told", || lines("worse0") == 1 && lines("worse1") == 1);
    assert_eq!(lines("bad"), 1);
    assert_eq!(gateway.status_of("s")["left_out"], 3);
    // Reading another list does not forget them.
    upstream.change("prompts", "later");
    let client = Duplex::to(&gateway, Door::Streamable).open();
    wait_until("the prompt is listed", || {
        client.names("prompts/list", "prompts", "name").contains(&"later".to_owned())
    });
    assert_eq!(gateway.status_of("s")["left_out"], 3);
}
