//! What the head of a refusal says goes on: how to be asked, and when again.

use trunkline::config::HttpKind;
use trunkline::error::{CallError, HttpRefusal, RetryAfter};
use trunkline::limits::Limits;

use crate::upstream::rig::*;
use crate::upstream::stateless_rig::modern;

const BOTH_ERAS: [fn(&Seen) -> Reply; 2] = [well, modern];

const CHALLENGE: &str = r#"Bearer realm="hush", resource_metadata="https://x.example/meta""#;

fn refusal(outcome: Result<trunkline::protocol::call::Outcome, CallError>) -> HttpRefusal {
    match outcome {
        Err(CallError::UpstreamFailed { refusal: Some(refusal), .. }) => *refusal,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_challenge_and_a_time_to_ask_again_are_told_in_both_eras() {
    for base in BOTH_ERAS {
        // Also where the body is an error response to this very request.
        for is_rpc in [false, true] {
            let server = Server::start(move |seen| {
                if seen.rpc() != "tools/call" {
                    return base(seen);
                }
                let head = format!(
                    "www-authenticate: {CHALLENGE}\r\nWWW-Authenticate: Basic\r\nretry-after: 30\r\n"
                );
                let error = r#"{"code":-32000,"message":"slow down"}"#;
                let body = format!(r#"{{"jsonrpc":"2.0","id":{},"error":{error}}}"#, seen.id());
                let body = if is_rpc { body } else { "slow down".to_owned() };
                Reply::Body(429, head, "application/json", body)
            });
            let rig = Rig::ready(&server);
            let outcome = rig.call();
            let text = outcome.as_ref().unwrap_err().to_string();
            assert!(text.contains("status 429: slow down"), "{text}");
            let refusal = refusal(outcome);
            assert_eq!(refusal.status, 429);
            assert_eq!(refusal.retry_after, Some(RetryAfter::Seconds(30)));
            let told =
                r#"Bearer realm="[secret]", resource_metadata="https://x.example/meta", Basic"#;
            assert_eq!(refusal.www_authenticate.as_deref(), Some(told));
        }
    }
}

#[test]
fn what_is_told_is_bounded_and_nonsense_is_left_out() {
    let server = calls(|_| {
        let head = format!(
            "www-authenticate: Bearer x=\"{}\"\r\nretry-after: soon\r\n",
            "y".repeat(5000)
        );
        Reply::Body(401, head, "text/plain", String::new())
    });
    let rig = Rig::ready(&server);
    let refusal = refusal(rig.call());
    assert_eq!((refusal.status, refusal.retry_after), (401, None));
    assert_eq!(refusal.www_authenticate.unwrap().chars().count(), 1001);
}

#[test]
fn a_session_that_is_refused_says_so_too() {
    let head = "retry-after: Sun, 06 Nov 2094 08:49:37 GMT\r\n";
    for kind in [HttpKind::StreamableHttp, HttpKind::HttpSse] {
        let server =
            Server::start(move |_| Reply::Body(401, head.into(), "text/plain", "who?".into()));
        let rig = Rig::start(http(server.address, kind), Limits::default());
        let failure = rig.failure().message;
        assert!(failure.contains("status 401: who?"), "{failure}");
        let date = "Sun, 06 Nov 2094 08:49:37 GMT".to_owned();
        assert_eq!(refusal(rig.call()).retry_after, Some(RetryAfter::Date(date)));
    }
}

#[test]
fn no_coding_is_asked_for_and_one_that_comes_all_the_same_is_named() {
    for base in BOTH_ERAS {
        let server = Server::start(move |seen| {
            assert_eq!(seen.header("accept-encoding"), Some("identity"), "{seen:?}");
            let kind = match (seen.rpc().as_str(), seen.tool().as_str()) {
                ("tools/call", "json") => "application/json",
                ("tools/call", "events") => "text/event-stream",
                ("tools/call", _) => {
                    let head = "content-encoding: br\r\n".to_owned();
                    return Reply::Body(500, head, "text/plain", "\u{1}\u{2}".to_owned());
                }
                _ => return base(seen),
            };
            let head = "content-encoding: gzip\r\n".to_owned();
            Reply::Body(200, head, kind, "\u{1f}\u{8}".to_owned())
        });
        let rig = Rig::ready(&server);
        let call = |tool: &str| {
            let outcome = rig.call_tool(tool, None, &wait(5000), &Sink::default());
            outcome.unwrap_err().to_string()
        };
        for tool in ["json", "events"] {
            assert!(call(tool).contains("coded (gzip)"), "{}", call(tool));
        }
        assert!(call("error").ends_with("it answered with status 500."), "{}", call("error"));
    }
}
