//! Bodies that are JSON of the worst kind, or none, at every door that takes JSON.

use serde_json::json;

use super::{Reply, Rig, WANTED};
use crate::support::mcp::{LATEST, McpClient};
use crate::support::script::{MODERN, meta};

/// Levels that a text may have, and the envelope's own.
const DEPTH_MAX: usize = 128;
const ENVELOPE_DEPTH: usize = 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Door {
    Rest,
    Legacy,
    Modern,
}

const DOORS: [Door; 3] = [Door::Rest, Door::Legacy, Door::Modern];

struct Doors<'a> {
    rig: &'a Rig,
    client: McpClient,
}

impl<'a> Doors<'a> {
    fn of(rig: &'a Rig) -> Doors<'a> {
        Doors { rig, client: McpClient::open(rig.gateway.address()) }
    }

    /// Sends any body through a door, with all else as it must be.
    fn send(&self, door: Door, body: &[u8]) -> Reply {
        self.send_as(door, "application/json", body)
    }

    fn send_as(&self, door: Door, content_type: &str, body: &[u8]) -> Reply {
        let (target, lines) = match door {
            Door::Rest => ("/mcp/tools/call", String::new()),
            Door::Legacy => (
                "/mcp",
                format!(
                    "Mcp-Session-Id: {}\r\nMCP-Protocol-Version: {}\r\n",
                    self.client.session(),
                    self.client.revision()
                ),
            ),
            Door::Modern => (
                "/mcp",
                format!(
                    "MCP-Protocol-Version: {MODERN}\r\nMcp-Method: tools/call\r\n\
                     Mcp-Name: {WANTED}\r\n"
                ),
            ),
        };
        let head = format!(
            "POST {target} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {content_type}\r\n\
             Accept: application/json, text/event-stream\r\nConnection: close\r\n\
             Content-Length: {}\r\n{lines}\r\n",
            body.len()
        );
        self.rig.send(&[head.as_bytes(), body].concat())
    }

    /// A call with these arguments, whatever they are.
    fn call(&self, door: Door, arguments: impl AsRef<[u8]>) -> Reply {
        let (before, after) = envelope(door);
        let body = [before.as_bytes(), arguments.as_ref(), after.as_bytes()].concat();
        self.send(door, &body)
    }
}

/// What stands around the arguments of a call.
fn envelope(door: Door) -> (String, String) {
    let call = format!(r#""name":"{WANTED}","arguments":"#);
    let rpc = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"#;
    match door {
        Door::Rest => (format!("{{{call}"), "}".to_owned()),
        Door::Legacy => (format!("{rpc}{call}"), "}}".to_owned()),
        Door::Modern => {
            let own = json!({
                meta("protocolVersion"): MODERN,
                meta("clientInfo"): { "name": "x", "version": "1" },
                meta("clientCapabilities"): {},
            });
            (format!("{rpc}{call}"), format!(",\"_meta\":{own}}}}}"))
        }
    }
}

fn nested(levels: usize) -> String {
    format!("{{\"a\":{}{}}}", "[".repeat(levels), "]".repeat(levels))
}

#[test]
fn what_is_no_json_is_refused_at_every_door() {
    let rig = Rig::with(&json!({}));
    rig.attack(|rig| {
        let doors = Doors::of(rig);
        let before = rig.n_wanted();
        let whole = |door| {
            let (before, after) = envelope(door);
            format!("{before}{{}}{after}")
        };
        for door in DOORS {
            let good = whole(door);
            let bodies: [(&str, Vec<u8>); 14] = [
                ("nothing", Vec::new()),
                ("white space", b" \r\n\t".to_vec()),
                ("null", b"null".to_vec()),
                ("a text", b"\"x\"".to_vec()),
                ("a number", b"1e999999".to_vec()),
                ("an empty array", b"[]".to_vec()),
                ("half", good.as_bytes()[..good.len() / 2].to_vec()),
                ("two", format!("{good}{good}").into_bytes()),
                ("a byte order mark", format!("\u{feff}{good}").into_bytes()),
                ("UTF-16", good.encode_utf16().flat_map(u16::to_le_bytes).collect()),
                ("NULs", vec![0; 1000]),
                (
                    "not UTF-8",
                    good.replace(WANTED, "\u{1}")
                        .into_bytes()
                        .iter()
                        .map(|b| if *b == 1 { 0xff } else { *b })
                        .collect(),
                ),
                ("a form", format!("name={WANTED}&arguments=%7B%7D").into_bytes()),
                (
                    "the name twice",
                    good.replace("{\"a", "")
                        .replace("\"name\"", "\"name\":\"x\",\"name\"")
                        .into_bytes(),
                ),
            ];
            for (what, body) in bodies {
                let reply = doors.send(door, &body);
                // In the parameters of a request it is a wrong parameter, which sessions are
                // told with a 200.
                let is_told = reply.statuses() == [200] && reply.0.contains("\"error\"");
                assert!(
                    reply.statuses() == [400] || (door == Door::Legacy && is_told),
                    "{door:?}, {what}: {reply:?}"
                );
            }
            for kind in ["application/x-www-form-urlencoded", "text/plain", "application/jsonx"]
            {
                let reply = doors.send_as(door, kind, good.as_bytes());
                assert_eq!(reply.statuses(), [415], "{door:?}, {kind}: {reply:?}");
            }
        }
        assert_eq!(rig.n_wanted(), before, "a call was made of what is none");
        doors.client.end().expect(204);
    });
}

#[test]
fn arguments_may_be_strange_but_not_deep() {
    let rig = Rig::with(&json!({}));
    rig.attack(|rig| {
        let doors = Doors::of(rig);
        for door in DOORS {
            let before = rig.n_wanted();
            let as_deep_as_may_be = nested(DEPTH_MAX - ENVELOPE_DEPTH);
            let digits = format!("{{\"a\":{}}}", "7".repeat(100_000));
            for (what, arguments) in [
                ("deep", as_deep_as_may_be.as_str()),
                ("100,000 digits", &digits),
                ("a huge exponent", r#"{"a":1e999999}"#),
                ("half a pair", r#"{"a":"\ud800"}"#),
                ("a key twice", r#"{"a":1,"a":2}"#),
                ("controls", r#"{"a":"\u0000\u001b[2J"}"#),
            ] {
                let reply = doors.call(door, arguments);
                // What the server makes of it is for the server to say.
                let is_servers = reply.0.contains("Unknown tool: \"}")
                    || reply.0.contains("The server s answered");
                assert!(reply.statuses() == [200] || is_servers, "{door:?}, {what}: {reply:?}");
            }
            assert!(rig.n_wanted() > before, "{door:?}");
            let before = rig.n_wanted();
            for levels in [DEPTH_MAX, 5000, 1_000_000] {
                let reply = doors.call(door, nested(levels));
                assert_eq!(reply.statuses(), [400], "{door:?}, {levels}: {reply:?}");
                // Never closed.
                let open = format!("{}{}", envelope(door).0, "{\"a\":".repeat(levels / 2));
                let reply = doors.send(door, open.as_bytes());
                assert_eq!(reply.statuses(), [400], "{door:?}, {levels}: {reply:?}");
            }
            assert_eq!(rig.n_wanted(), before, "{door:?}");
        }
        doors.client.end().expect(204);
    });
}

#[test]
fn an_id_is_a_text_or_an_integer() {
    let rig = Rig::with(&json!({}));
    let doors = Doors::of(&rig);
    for door in [Door::Legacy, Door::Modern] {
        let with_id = |id: &str| {
            let (before, after) = envelope(door);
            format!("{before}{{}}{after}").replacen("\"id\":1", &format!("\"id\":{id}"), 1)
        };
        for id in [
            "1e999999",
            "1.5",
            "null",
            "[]",
            "{}",
            "true",
            "\"\\ud800\"",
            "99999999999999999999",
        ] {
            let reply = doors.send(door, with_id(id).as_bytes());
            assert_eq!(reply.statuses(), [400], "{door:?}, {id}: {reply:?}");
        }
        let long = format!("\"{}\"", "x".repeat(100_000));
        let reply = doors.send(door, with_id(&long).as_bytes());
        assert_eq!(reply.statuses(), [200], "{door:?}");
        assert!(reply.0.contains(&long));
    }
}

#[test]
fn sixteen_mebibytes_are_too_long_unless_the_operator_says_otherwise() {
    let _heavy = crate::support::heavy();
    let text = format!("{{\"message\":\"{}\"}}", "x".repeat(16 * 1024 * 1024));
    let rig = Rig::with(&json!({}));
    rig.attack(|rig| {
        let doors = Doors::of(rig);
        for door in DOORS {
            let reply = doors.call(door, &text);
            assert_eq!(reply.statuses(), [413], "{door:?}");
        }
        doors.client.end().expect(204);
    });
    let rig = Rig::with(&json!({ "body_bytes": 32 * 1024 * 1024 }));
    let doors = Doors::of(&rig);
    for door in DOORS {
        let reply = doors.call(door, &text);
        assert_eq!(reply.statuses(), [200], "{door:?}");
        assert!(reply.0.len() > text.len(), "{door:?}: {} bytes came back", reply.0.len());
    }
}

/// What is made to need far more memory than its own length.
#[test]
fn bombs_cost_no_more_than_their_length() {
    let _heavy = crate::support::heavy();
    const N_AT_ONCE: usize = 4;
    const BODY_BYTES_MAX: usize = 4 * 1024 * 1024;
    let rig = Rig::with(&json!({}));
    let batching = McpClient::new(rig.gateway.address()).speaking("2025-03-26").opened();
    let keys = |n: usize| (0..n).map(|n| format!("\"{n}\":0")).collect::<Vec<_>>().join(",");
    let keys = format!("{{{}}}", keys(BODY_BYTES_MAX / 12));
    let zeros = format!("[{}0]", "0,".repeat(BODY_BYTES_MAX / 2 - 10));
    let empties = format!("[{}{{}}]", "{},".repeat(BODY_BYTES_MAX / 3 - 10));
    let before = rig.gateway.peak_rss_bytes();
    for bomb in [&keys, &zeros, &empties] {
        std::thread::scope(|scope| {
            for _ in 0..N_AT_ONCE {
                let doors = Doors::of(&rig);
                scope.spawn(move || {
                    for door in DOORS {
                        let reply = doors.send(door, bomb.as_bytes());
                        assert_eq!(reply.statuses(), [400], "{door:?}: {reply:?}");
                    }
                });
                let batching = &batching;
                scope.spawn(move || {
                    let answer = batching.post(bomb);
                    assert_eq!(answer.status(), 400, "{answer}");
                });
            }
        });
    }
    // Within a request that is as it must be: as its arguments, and as its id.
    let zeros = &zeros[..zeros.len() / 2];
    let arguments = format!("{{\"a\":{zeros}0]}}");
    std::thread::scope(|scope| {
        for _ in 0..N_AT_ONCE {
            let doors = Doors::of(&rig);
            let arguments = &arguments;
            scope.spawn(move || {
                for door in DOORS {
                    let reply = doors.call(door, arguments);
                    assert_eq!(reply.statuses(), [200], "{door:?}: {reply:?}");
                }
                let id =
                    format!("{{\"jsonrpc\":\"2.0\",\"method\":\"ping\",\"id\":{zeros}0]}}");
                let reply = doors.send(Door::Legacy, id.as_bytes());
                assert_eq!(reply.statuses(), [400], "{reply:?}");
            });
        }
    });
    let grown = rig.gateway.peak_rss_bytes().saturating_sub(before);
    // Each body may be there twice while it grows, and once more in what is made of it.
    let most = 2 * N_AT_ONCE * BODY_BYTES_MAX * 2;
    assert!(grown < u64::try_from(most).unwrap(), "{grown} bytes for {N_AT_ONCE} at once");
}

#[test]
fn a_batch_holds_so_many_messages_and_no_batch_another_one() {
    let rig = Rig::with(&json!({}));
    let batching = McpClient::new(rig.gateway.address()).speaking("2025-03-26").opened();
    let ping = |id: usize| format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"method\":\"ping\"}}");
    let batch = |n: usize| format!("[{}]", (0..n).map(ping).collect::<Vec<_>>().join(","));
    let most = batching.post(&batch(64)).expect(200);
    assert_eq!(most.json().as_array().map(Vec::len), Some(64), "{most}");
    batching.post(&batch(65)).expect(400);
    batching.post("[]").expect(400);
    // A batch in a batch is no message.
    let nested = batching.post(&format!("[{},{}]", ping(1), batch(2))).expect(200).json();
    let codes: Vec<_> =
        nested.as_array().unwrap().iter().map(|m| &m["error"]["code"]).collect();
    assert_eq!(codes.last().unwrap().as_i64(), Some(-32600), "{nested}");
    let latest = McpClient::open(rig.gateway.address());
    assert_eq!(latest.revision(), LATEST);
    latest.post(&batch(2)).expect(400);
}
