//! Messages that bear a name of the specification and are not what it says: they are dropped and
//! counted, for every transport and in both eras.

use trunkline::config::{Secret, StdioTarget, Target};
use trunkline::limits::Limits;
use trunkline::protocol::call::Notice;

use crate::upstream::rig::*;
use crate::upstream::stateless_rig::modern_calls;

/// None of them is understood, so that none may be handed on.
const FORGED: [&str; 12] = [
    r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":7.0,"progress":1}}"#,
    r#"{"jsonrpc":"2.0","method":"notifications/progress"}"#,
    r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":5.0}}"#,
    r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{}}"#,
    r#"{"jsonrpc":"2.0","method":"notifications/resources/updated"}"#,
    r#"{"jsonrpc":"2.0","method":"notifications/resources/updated","params":{"uri":7}}"#,
    r#"{"jsonrpc":"2.0","method":"notifications/message"}"#,
    r#"{"jsonrpc":"2.0","method":"notifications/tasks/status","params":{"taskId":7}}"#,
    r#"{"jsonrpc":"2.0","method":"notifications/elicitation/complete","params":{}}"#,
    r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#,
    r#"{"jsonrpc":"2.0","method":"notifications/subscriptions/acknowledged","params":{}}"#,
    r#"{"jsonrpc":"2.0","method":"tools/call","params":{"name":"x"}}"#,
];

/// Nobody asks a client this.
const ASKED: &str =
    r#"{"jsonrpc":"2.0","id":"q","method":"tools/call","params":{"name":"echo"}}"#;

/// What nobody here knows goes on as it came.
const UNKNOWN: &str =
    r#"{"jsonrpc":"2.0","method":"notifications/of_its_own","params":{"n":1}}"#;

fn dropped(rig: &Rig) -> usize {
    rig.upstream.status().dropped_messages.try_into().unwrap()
}

#[track_caller]
fn only_unknown(notices: &[Notice]) {
    let [Notice::Other { method, .. }] = notices else { panic!("{notices:?}") };
    assert_eq!(method, "notifications/of_its_own");
}

/// What comes on a call's own stream, and then its answer.
fn spoken(seen: &Seen) -> Reply {
    let mut events = FORGED.map(str::to_owned).to_vec();
    events.extend([ASKED.to_owned(), UNKNOWN.to_owned()]);
    events.push(seen.result(r#"{"resultType":"complete","content":[]}"#));
    Reply::events(&events)
}

#[test]
fn over_streamable_http_during_a_call_they_are_dropped_in_both_eras() {
    for server in [calls(spoken), modern_calls(spoken)] {
        let rig = Rig::ready(&server);
        let sink = Sink::default();
        rig.call_with(&wait(5000), &sink).unwrap();
        only_unknown(&sink.notices());
        assert_eq!(dropped(&rig), FORGED.len() + 1);
    }
}

#[test]
fn a_request_that_no_server_makes_is_refused_and_counted() {
    let server = calls(spoken);
    let rig = Rig::ready(&server);
    rig.call().unwrap();
    eventually("it is refused", || {
        server
            .seen()
            .iter()
            .any(|seen| seen.body.contains(r#""id":"q""#) && seen.body.contains("-32601"))
    });
}

#[test]
fn on_the_stream_of_a_session_they_are_dropped() {
    let server = Server::start(|seen| match seen.method.as_str() {
        "GET" => Reply::stream(|stream| {
            FORGED.into_iter().chain([ASKED, UNKNOWN]).for_each(|text| event(stream, text));
            std::io::Read::read(stream, &mut [0]).ok();
        }),
        _ => well(seen),
    });
    let rig = Rig::ready(&server);
    eventually("all were heard", || !rig.unasked.notices.lock().unwrap().is_empty());
    let notices = rig.unasked.notices.lock().unwrap();
    only_unknown(&notices.iter().map(|(_, notice)| notice.clone()).collect::<Vec<_>>());
    assert_eq!(dropped(&rig), FORGED.len() + 1);
}

#[test]
fn from_a_child_they_are_dropped() {
    let lines: Vec<String> =
        FORGED.into_iter().chain([UNKNOWN]).map(|text| format!("echo '{text}'")).collect();
    let script = format!(
        r#"answer() {{ echo "{{\"jsonrpc\":\"2.0\",\"id\":$id,\"result\":$1}}"; }}
while read -r line; do
  rest=${{line#*\"id\":}}; id=${{rest%%[,\}}]*}}
  case "$line" in
    *'"server/discover"'*) echo "{{\"jsonrpc\":\"2.0\",\"id\":$id,\"error\":{{\"code\":-32601,\"message\":\"no\"}}}}";;
    *'"initialize"'*) answer "$INIT";;
    *'"tools/list"'*) answer '{{"tools":[{{"name":"sh"}}]}}';;
    *'"tools/call"'*) {lines}; answer '{{"content":[]}}';;
  esac
done"#,
        lines = lines.join("; ")
    );
    let config = config(Target::Stdio(StdioTarget {
        command: "sh".to_owned(),
        args: vec!["-c".to_owned(), script],
        env: vec![("INIT".to_owned(), Secret::new(INITIALIZED.to_owned()))],
        cwd: None,
        folder: None,
    }));
    let rig = Rig::ready_with(config, Limits::default());
    rig.call().unwrap();
    eventually("all were heard", || !rig.unasked.notices.lock().unwrap().is_empty());
    let notices = rig.unasked.notices.lock().unwrap();
    only_unknown(&notices.iter().map(|(_, notice)| notice.clone()).collect::<Vec<_>>());
    assert_eq!(dropped(&rig), FORGED.len());
}
