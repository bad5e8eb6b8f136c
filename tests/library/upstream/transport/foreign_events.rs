//! Streamable HTTP: events on a call's stream that are no messages.

use crate::upstream::rig::*;

#[test]
fn events_of_other_names_and_unreadable_ones_do_not_fail_the_call() {
    let server = calls(|seen| {
        let body = format!(
            "event: ping\ndata: 2026-01-01 12:00\n\nevent: other\ndata: {}\n\n\
             event: message\ndata: not json\n\ndata: {}\n\n",
            seen.result(r#"{"is":"wrong"}"#),
            seen.result(r#"{"is":"right"}"#)
        );
        Reply::Body(200, String::new(), "text/event-stream", body)
    });
    let rig = Rig::ready(&server);
    assert_eq!(text(rig.call()), r#"{"is":"right"}"#);
}
