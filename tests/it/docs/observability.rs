//! The page about metrics, traces, lines and status against the program.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::support::gateway::Gateway;
use crate::support::http::Request;
use crate::support::pages::{named, page, quoted, source, table};
use crate::support::wait_for;

const PAGE: &str = "observability.md";

/// A gateway whose demo server was called once, and one of whose requests was refused.
fn used() -> Gateway {
    let gateway = Gateway::started(json!({
        "mcp_servers": { "demo": { "command": "trunkline", "args": ["demo"] } },
    }));
    gateway.call("echo", &json!({ "message": "x" })).expect(200);
    gateway.get("/nothing").expect(404);
    gateway
}

/// Type and labels of each family of a scrape.
fn families(text: &str) -> BTreeMap<String, (String, BTreeSet<String>)> {
    let mut families: BTreeMap<String, (String, BTreeSet<String>)> = BTreeMap::new();
    for line in text.lines() {
        if let Some(declared) = line.strip_prefix("# TYPE ") {
            let (name, kind) = declared.split_once(' ').unwrap();
            families.insert(name.to_owned(), (kind.to_owned(), BTreeSet::new()));
        } else if let Some((name, labels)) = line.split_once('{') {
            let name = ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|end| name.strip_suffix(end).filter(|it| families.contains_key(*it)))
                .unwrap_or(name);
            let (labels, _) = labels.split_once('}').unwrap();
            let names = labels.split("\",").map(|label| label.split_once('=').unwrap().0);
            let names = names.filter(|name| *name != "le").map(str::to_owned);
            families.get_mut(name).unwrap().1.extend(names);
        }
    }
    families
}

#[test]
fn the_table_has_every_metric_with_its_type_and_labels() {
    let gateway = used();
    let answer = gateway.get("/metrics").expect(200);
    let told: BTreeMap<_, _> = table(PAGE, "metric")
        .iter()
        .map(|row| {
            let labels = quoted(&row[2]).into_iter().map(str::to_owned).collect();
            (quoted(&row[0])[0].to_owned(), (row[1].clone(), labels))
        })
        .collect();
    assert_eq!(told, families(answer.text()));
}

#[test]
fn the_values_of_labels_are_told() {
    let code = source("src/telemetry/outcome.rs");
    let words = |from: &str| {
        let (_, code) = code.split_once(from).unwrap();
        let (_, code) = code.split_once("fn as_str").unwrap();
        let (code, _) = code.split_once("\n    }\n").unwrap();
        let words = code.split('"').skip(1).step_by(2);
        words.map(str::to_owned).collect::<BTreeSet<_>>()
    };
    let rows = table(PAGE, "label");
    let told = |label: &str| {
        let row = rows.iter().find(|row| row[0] == format!("`{label}`")).unwrap();
        quoted(&row[1]).into_iter().map(str::to_owned).collect::<BTreeSet<_>>()
    };
    assert_eq!(told("door"), words("impl Door"));
    let mut outcomes = told("outcome");
    assert!(outcomes.remove("isError"), "it explains one of them");
    assert_eq!(outcomes, words("impl CallOutcome"));
}

fn members(of: &Value) -> BTreeSet<String> {
    of.as_object().unwrap().keys().cloned().collect()
}

#[test]
fn the_tables_have_every_member_of_the_status() {
    let gateway = used();
    // A refusal is told after its answer.
    let status = wait_for("the refusal is told", || {
        let status = gateway.get("/status").expect(200).json();
        status["refusals"].get(0).is_some().then_some(status)
    });
    assert_eq!(named(PAGE, "member"), members(&status));
    assert_eq!(named(PAGE, "`upstreams[].`"), members(&status["upstreams"][0]));
    assert_eq!(named(PAGE, "reason"), members(&status["rejected"]));
    let rows = table(PAGE, "member");
    let row = |name: &str| rows.iter().find(|row| row[0].contains(name)).unwrap()[1].clone();
    let refusals = row("`refusals`");
    let told: BTreeSet<_> = quoted(&refusals).into_iter().map(str::to_owned).collect();
    assert_eq!(told, members(&status["refusals"][0]));
    for bound in members(&status["limits"]) {
        let is_told = row("`limits`").contains(&format!("`{bound}`"));
        assert!(is_told || page("limits.md").contains(&format!("| `{bound}`")), "{bound}");
    }
}

#[test]
fn a_key_sees_the_first_members_alone() {
    let gateway = Gateway::with(json!({
        "api_keys": [{ "name": "k", "key": "a-key-of-some-length" }],
        "mcp_servers": { "demo": { "command": "trunkline", "args": ["demo"] } },
    }))
    .start();
    gateway.wait_until_well(&["demo"]);
    let asked = Request::get("/status").header("x-api-key", "a-key-of-some-length");
    let status = gateway.send(&asked).expect(200).json();
    let first = |column: &str, until: &str| {
        let rows = table(PAGE, column);
        let names = rows.iter().flat_map(|row| quoted(&row[0]));
        let names = names.take_while(|name| *name != until).map(str::to_owned);
        names.collect::<BTreeSet<_>>()
    };
    assert_eq!(members(&status), first("member", "clashes"));
    let mut seen = first("`upstreams[].`", "left_out");
    for hidden in ["signed_in_until", "failures_in_a_row", "redirected_to"] {
        assert!(seen.remove(hidden), "{hidden}");
    }
    // It stands there while the server is not ready.
    seen.insert("stale".to_owned());
    assert_eq!(members(&status["upstreams"][0]), seen);
}

#[test]
fn the_table_has_every_field_of_a_line() {
    let files =
        ["access", "bodies", "record"].map(|name| source(&format!("src/telemetry/{name}.rs")));
    let code = files.iter().filter_map(|code| code.split("#[cfg(test)]").next());
    let calls = code.flat_map(|code| code.split("fields.").skip(1));
    let written = calls.filter_map(|call| {
        let (method, rest) = call.split_once("(\"")?;
        let is_name = method.chars().all(|c| c.is_ascii_lowercase() || c == '_');
        is_name.then(|| rest.split_once('"').unwrap().0.to_owned())
    });
    let mut written: BTreeSet<_> = written.collect();
    // What every line begins with.
    written.extend(["time".to_owned(), "level".to_owned()]);
    assert_eq!(named(PAGE, "field"), written);
}

#[test]
fn the_table_has_every_attribute_of_a_span() {
    let code = source("src/telemetry/names.rs");
    let constants = code.lines().filter(|line| line.contains(": &str = "));
    let values = constants.map(|line| line.split('"').nth(1).unwrap().to_owned());
    let mut written: BTreeSet<_> = values.collect();
    assert!(written.remove("execute_tool"), "it is a value, not a name");
    assert_eq!(named(PAGE, "attribute"), written);
}
