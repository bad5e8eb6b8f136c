//! Streamable HTTP: which refusals mean that a session is lost, and which are a call's error.

use trunkline::protocol::call::Outcome;

use crate::upstream::rig::*;

/// A server that answers every call with this error under the call's own id.
fn refusing(status: u16, code: i64, message: &'static str) -> Server {
    calls(move |seen| {
        let body = format!(
            r#"{{"jsonrpc":"2.0","id":{},"error":{{"code":{code},"message":"{message}"}}}}"#,
            seen.id()
        );
        Reply::Body(status, String::new(), "application/json", body)
    })
}

#[track_caller]
fn error_code(rig: &Rig) -> i64 {
    match rig.call().unwrap() {
        Outcome::Error { error, .. } => error.code,
        other @ (Outcome::Complete(_) | Outcome::InputRequired { .. }) => panic!("{other:?}"),
    }
}

#[test]
fn an_error_that_only_speaks_of_a_session_is_the_calls_own() {
    for status in [400, 404] {
        let server = refusing(status, -32602, "argument session_name is missing");
        let rig = Rig::ready(&server);
        assert_eq!(error_code(&rig), -32602);
        assert_eq!((server.count("tools/call"), server.count("initialize")), (1, 1));
    }
}

#[test]
fn an_error_that_a_new_session_does_not_cure_is_given_back() {
    for (status, code) in [(400, -32000), (404, -32001), (404, -32600)] {
        let server = refusing(status, code, "Bad Request: the session is not to my liking");
        let rig = Rig::ready(&server);
        assert_eq!(error_code(&rig), code);
        assert_eq!(server.count("tools/call"), 2);
    }
}
