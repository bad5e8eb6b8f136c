//! Tools of servers that do not declare that they have any: each is asked for them once a session,
//! and whatever it makes of that is no failure.

use serde_json::json;

use super::cells::{Cell, Path, Speech};
use super::faults::FAULTS;
use super::{PATIENCE, SPEECHES, Table};
use crate::support::mcp::McpClient;
use crate::support::{wait_until, wait_within};

#[test]
fn tools_that_are_not_declared_are_shown_to_all() {
    let cells = SPEECHES.map(|speech| {
        let cell = Cell::new(speech, Path::Tools, FAULTS[0]).without_tools_declared();
        cell.well("lists")
    });
    let table = Table::start(cells.into());
    let names: Vec<String> = table.each().map(|cell| format!("{}-echo", cell.name)).collect();
    names.iter().for_each(|name| table.gateway.wait_for_tool(name));
    for cell in table.each() {
        assert_eq!(cell.counts()["tools/list"], 1, "{}", cell.name);
    }
    let plain = McpClient::open(table.gateway.address());
    // A client that may be asked something has sessions of its own.
    let asked = McpClient::new(table.gateway.address()).declaring(json!({ "sampling": {} }));
    for client in [plain, asked.opened()] {
        let shown = client.tool_names();
        for name in &names {
            assert!(shown.contains(name), "{name}: {shown:?}");
            let result = client.call(name, &json!({}));
            assert_eq!(result["content"][0]["text"], "well", "{name}: {result}");
        }
    }
    for (server, status) in table.status() {
        assert!(status["last_failure"].is_null(), "{server}: {status}");
    }

    // A new session may have others.
    for cell in table.each().filter(|cell| cell.speech == Speech::Sessions) {
        let before = cell.counts()["tools/list"];
        cell.lose_sessions();
        let name = format!("{}-echo", cell.name);
        assert_eq!(table.gateway.call_text(&name, &json!({})), "well");
        wait_until("it is asked again", || cell.counts()["tools/list"] > before);
        assert!(table.gateway.tool_names().contains(&name));
    }
}

#[test]
fn a_server_that_declares_no_tools_is_asked_for_them_once() {
    let cells = SPEECHES.into_iter().flat_map(|speech| {
        let of = move |fault| Cell::new(speech, Path::Tools, fault).without_tools_declared();
        FAULTS.iter().map(move |fault| of(*fault))
    });
    let table = Table::start(cells.collect());
    let listed = |cell: &Cell, n| cell.counts().get("prompts/list").is_some_and(|it| *it >= n);
    for cell in table.each() {
        wait_within(PATIENCE, &cell.name, || {
            (table.gateway.status_of(&cell.name)["resources"] == 1 && cell.is_heard())
                .then_some(())
        });
    }
    for cell in table.each() {
        // Whatever is read again, its tools are not.
        let name = format!("{}-echo", cell.name);
        assert_eq!(table.gateway.call(&name, &json!({})).status(), 404, "{name}");
        let n = cell.counts()["prompts/list"];
        cell.announce_that("prompts");
        wait_within(PATIENCE, &cell.name, || listed(cell, n + 1).then_some(()));
        let counts = cell.counts();
        assert_eq!(counts["tools/list"], 1, "{}: {counts:?}", cell.name);
    }
    for (server, status) in table.status() {
        assert_eq!(status["state"], "ready", "{server}: {status}");
        assert!(status["last_failure"].is_null(), "{server}: {status}");
        assert_eq!(status["unread_lists"], json!({}), "{server}: {status}");
    }
}
