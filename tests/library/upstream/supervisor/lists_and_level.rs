//! What the supervisor reads and keeps up: lists of every kind, and the level of log messages.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use crossbeam_channel::{Sender, bounded};
use trunkline::config::HttpKind;
use trunkline::limits::Limits;
use trunkline::protocol::call::{Kind, Notice};
use trunkline::protocol::raw::RawObject;

use crate::upstream::rig::*;

const EVERYTHING: &str = r#"{"protocolVersion":"2025-11-25","capabilities":{"tools":{},"prompts":{},"resources":{"subscribe":true},"logging":{}},"serverInfo":{"name":"t","version":"1"}}"#;

/// A server with everything. What is sent into the channel is said on the session's stream.
pub(crate) struct Full {
    pub(crate) server: Server,
    say: Sender<String>,
    /// The sessions up to this one are gone.
    gone: Arc<AtomicUsize>,
    /// Subscriptions, and their ends, are refused.
    pub(crate) refuse: Arc<AtomicBool>,
}

pub(crate) fn full(odd: impl Fn(&Seen) -> Option<Reply> + Send + Sync + 'static) -> Full {
    let (say, said) = bounded::<String>(10);
    let said = Arc::new(Mutex::new(said));
    let (gone, refuse): (Arc<AtomicUsize>, Arc<AtomicBool>) = (Arc::default(), Arc::default());
    let (last, none, refuses) = (AtomicUsize::new(0), gone.clone(), refuse.clone());
    let server = Server::start(move |seen| {
        let session = seen.session().parse::<usize>().ok();
        if session.is_some_and(|session| session <= none.load(Ordering::SeqCst)) {
            return Reply::status(404, "Session not found");
        }
        if let Some(odd) = odd(seen) {
            return odd;
        }
        let result = |text: &str| Reply::json(seen.result(text));
        match (seen.method.as_str(), seen.rpc().as_str()) {
            ("GET", _) => {
                let said = said.clone();
                Reply::stream(move |stream| {
                    while let Ok(text) = said.lock().unwrap().recv_timeout(PATIENCE) {
                        event(stream, &text);
                    }
                })
            }
            (_, "initialize") => {
                let id = last.fetch_add(1, Ordering::SeqCst) + 1;
                let head = format!("mcp-session-id: {id}\r\n");
                Reply::Body(200, head, "application/json", seen.result(EVERYTHING))
            }
            (_, "prompts/list") if seen.body.contains("cursor") => {
                result(r#"{"prompts":[{"name":"q"}]}"#)
            }
            (_, "prompts/list") => result(r#"{"prompts":[{"name":"p"}],"nextCursor":"2"}"#),
            (_, "resources/list") => result(r#"{"resources":[{"uri":"a:b","name":"r"}]}"#),
            (_, "resources/templates/list") => {
                result(r#"{"resourceTemplates":[{"uriTemplate":"a:{x}","name":"t"}]}"#)
            }
            (_, "resources/subscribe" | "resources/unsubscribe")
                if refuses.load(Ordering::SeqCst) =>
            {
                Reply::json(error(seen, -32602))
            }
            (_, "resources/subscribe" | "resources/unsubscribe" | "logging/setLevel") => {
                result("{}")
            }
            _ => well(seen),
        }
    });
    Full { server, say, gone, refuse }
}

fn error(seen: &Seen, code: i32) -> String {
    let id = seen.id();
    format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":{code},"message":"no"}}}}"#)
}

impl Full {
    pub(crate) fn rig(&self) -> Rig {
        self.rig_with(Limits::default())
    }

    fn rig_with(&self, limits: Limits) -> Rig {
        Rig::start(http(self.server.address, HttpKind::StreamableHttp), limits)
    }

    /// The session that is open is gone, as a call will find.
    pub(crate) fn forget(&self, rig: &Rig) {
        self.gone.fetch_add(1, Ordering::SeqCst);
        text(rig.call());
        rig.lists();
    }

    /// What a method was called with, by a parameter.
    pub(crate) fn told(&self, method: &str, key: &str) -> Vec<String> {
        let value = |seen: &Seen| {
            let body = RawObject::parse(&seen.body).unwrap();
            let params = RawObject::parse(body.get("params").unwrap()).unwrap();
            params.string(key).unwrap().unwrap()
        };
        let seen = self.server.seen();
        let is_alive = |seen: &&Seen| seen.session() != "0" && seen.rpc() == method;
        seen.iter().filter(is_alive).map(value).collect()
    }
}

fn names(list: &[&str]) -> Vec<String> {
    list.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn lists_of_all_kinds_are_read_to_their_last_page() {
    let full = full(|_| None);
    let (lists, left_out) = full.rig().lists();
    let expected = [
        (Kind::Tool, names(&["echo"])),
        (Kind::Prompt, names(&["p", "q"])),
        (Kind::Resource, names(&["a:b"])),
        (Kind::Template, names(&["a:{x}"])),
    ];
    assert_eq!((lists.as_slice(), left_out), (expected.as_slice(), 0));
}

#[test]
fn what_is_not_declared_is_not_asked_for() {
    let server = Server::start(well);
    let rig = Rig::start(http(server.address, HttpKind::StreamableHttp), Limits::default());
    let (lists, _) = rig.lists();
    assert_eq!(lists.len(), 4);
    assert!(lists.iter().all(|(kind, items)| items.is_empty() == (*kind != Kind::Tool)));
    assert_eq!(server.count("prompts/list") + server.count("resources/list"), 0);
}

#[test]
fn what_is_said_while_a_list_is_read_is_not_lost() {
    const LOG: &str = r#"{"jsonrpc":"2.0","method":"notifications/message","params":{}}"#;
    let full = full(|seen| {
        let events = || [LOG.to_owned(), seen.result(r#"{"resources":[]}"#)];
        (seen.rpc() == "resources/list").then(|| Reply::events(&events()))
    });
    let rig = full.rig();
    rig.lists();
    let heard = rig.unasked.notices.lock().unwrap();
    assert!(matches!(heard[..], [(None, Notice::Log(_))]), "{heard:?}");
}

#[test]
fn one_refused_list_does_not_lose_the_others() {
    let full = full(|seen| match seen.rpc().as_str() {
        "prompts/list" => Some(Reply::json(error(seen, -32603))),
        "resources/templates/list" => Some(Reply::json(error(seen, -32601))),
        _ => None,
    });
    let rig = full.rig();
    let (lists, _) = rig.lists();
    let kinds: Vec<Kind> = lists.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(kinds, [Kind::Tool, Kind::Resource, Kind::Template]);
    assert!(lists[2].1.is_empty());
    let failure = rig.upstream.status().last_failure.unwrap();
    assert!(failure.message.contains("prompts/list"), "{}", failure.message);
    text(rig.call());
}

#[test]
fn a_list_that_hangs_does_not_lose_the_others() {
    let full = full(|seen| (seen.rpc() == "resources/list").then_some(Reply::Hang));
    let mut config = http(full.server.address, HttpKind::StreamableHttp);
    config.timeout = std::time::Duration::from_millis(300);
    let rig = Rig::start(config, Limits::default());
    let (lists, _) = rig.lists();
    assert!(lists.iter().all(|(kind, _)| *kind != Kind::Resource) && lists.len() == 3);
    assert_eq!(full.server.count("initialize"), 1);
}

#[test]
fn each_list_is_bounded_and_what_is_left_out_is_counted() {
    let full = full(|_| None);
    let rig = full.rig_with(Limits { upstream_tools: 1, ..Limits::default() });
    let (lists, left_out) = rig.lists();
    assert!(lists.iter().all(|(_, items)| items.len() == 1));
    assert_eq!(left_out, 1);
    full.say.send(changed("tools")).unwrap();
    assert_eq!(rig.lists().1, 1);
}

fn changed(what: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","method":"notifications/{what}/list_changed"}}"#)
}

#[test]
fn a_change_of_one_kind_reads_that_kind_anew() {
    let full = full(|_| None);
    let rig = full.rig();
    rig.lists();
    let expected: [(&str, &[Kind]); 3] = [
        ("prompts", &[Kind::Prompt]),
        ("resources", &[Kind::Resource, Kind::Template]),
        ("tools", &[Kind::Tool]),
    ];
    for (what, kinds) in expected {
        full.say.send(changed(what)).unwrap();
        let (lists, _) = rig.lists();
        assert_eq!(lists.iter().map(|(kind, _)| *kind).collect::<Vec<_>>(), kinds);
    }
    assert_eq!(full.server.count("tools/list"), 2);
    assert_eq!(full.server.count("resources/list"), 2);
}

#[test]
fn a_change_heard_on_a_clients_session_reads_the_shared_list() {
    let full = full(|seen| {
        let events = [changed("prompts"), seen.result("{}")];
        (seen.rpc() == "tools/call").then(|| Reply::events(&events))
    });
    let rig = full.rig();
    rig.lists();
    text(rig.call_through(&client("anna"), "echo"));
    let (lists, _) = rig.lists();
    assert_eq!(lists, [(Kind::Prompt, names(&["p", "q"]))]);
    let seen = full.server.seen();
    // The client's own session may be asked too, for what only such clients see.
    let shared = |seen: &&Seen| seen.rpc() == "prompts/list" && seen.session() == "1";
    let n = seen.iter().filter(shared).count();
    assert_eq!(n, 4, "two pages at first contact, and two after the change");
}

#[test]
fn the_level_is_told_and_told_again() {
    let full = full(|_| None);
    let rig = full.rig();
    rig.lists();
    rig.upstream.set_log_level("debug");
    eventually("it is told", || full.told("logging/setLevel", "level") == ["debug"]);
    rig.upstream.set_log_level("error");
    eventually("the next one is told", || {
        full.told("logging/setLevel", "level") == ["debug", "error"]
    });
    full.forget(&rig);
    eventually("it is told again", || {
        full.told("logging/setLevel", "level") == ["debug", "error", "error"]
    });
    let last = full.server.seen().into_iter().rev().find(|it| it.rpc() == "logging/setLevel");
    assert_eq!(last.unwrap().session(), "2");
}

#[test]
fn a_server_without_logging_is_told_no_level() {
    let server = Server::start(well);
    let rig = Rig::ready(&server);
    rig.upstream.set_log_level("debug");
    // Whatever the supervisor does, it does in turn.
    let full = full(|_| None);
    let other = full.rig();
    other.upstream.set_log_level("debug");
    eventually("the other is told", || full.server.count("logging/setLevel") == 1);
    text(rig.call());
    assert_eq!(server.count("logging/setLevel"), 0);
}

#[test]
fn status_tells_what_was_declared() {
    let full = full(|_| None);
    let rig = full.rig();
    rig.lists();
    let status = rig.upstream.status();
    assert!(status.capabilities.unwrap().get().contains("logging"));
    assert_eq!(status.sessions, 1);
}
