//! Connecting ends at `connect_timeout_ms`, and with the call, whatever is at the other end.

use std::io::Read as _;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use trunkline::config::{HttpKind, Secret, Target, UpstreamConfig};
use trunkline::error::{CallError, Stage};
use trunkline::limits::Limits;

use crate::support::in_background;
use crate::support::relay::Unanswered;
use crate::support::threads::has_waited_for_cores;
use crate::upstream::rig::*;

const PATIENT: Duration = Duration::from_secs(8);
const SHORT: Duration = Duration::from_millis(400);
const SLACK: Duration = Duration::from_secs(1);

/// A server that takes every connection, reads, and says nothing.
fn silent() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(in_background(move || {
        for mut stream in listener.incoming().flatten() {
            drop(in_background(
                move || while matches!(stream.read(&mut [0; 1024]), Ok(1..)) {},
            ));
        }
    }));
    port
}

fn upstream(url: &str, proxy: Option<String>) -> UpstreamConfig {
    let mut config = http("127.0.0.1:1".parse().unwrap(), HttpKind::StreamableHttp);
    if let Target::Http(target) = &mut config.target {
        url.clone_into(&mut target.url);
        target.proxy = proxy.map(Secret::new);
    }
    config
}

/// What cannot be connected to, and the stage at which that shows.
fn dead_ends() -> (Unanswered, Vec<(UpstreamConfig, Stage)>) {
    let (unanswered, silent) = (Unanswered::start(), silent());
    let full = unanswered.port;
    let proxy = |port: u16| Some(format!("http://127.0.0.1:{port}"));
    let ends = vec![
        (upstream(&format!("http://127.0.0.1:{full}/mcp"), None), Stage::Connect),
        (upstream(&format!("https://127.0.0.1:{silent}/mcp"), None), Stage::Tls),
        (upstream("http://example.invalid/mcp", proxy(full)), Stage::Connect),
        (upstream("https://example.invalid/mcp", proxy(silent)), Stage::Connect),
    ];
    (unanswered, ends)
}

#[test]
fn an_attempt_to_connect_ends_at_its_own_time() {
    let (_unanswered, ends) = dead_ends();
    for (mut config, stage) in ends {
        (config.timeout, config.connect_timeout) = (PATIENT, SHORT);
        let rig = Rig::start(config, Limits::default());
        let began = Instant::now();
        let error = rig.call_with(&wait(8000), &Sink::default()).unwrap_err();
        let took = began.elapsed();
        assert!(took < SHORT * 2 + SLACK, "{error}: {took:?}");
        match error {
            CallError::UpstreamFailed { stage: seen, message, .. } => {
                assert_eq!(seen, stage, "{message}");
                assert!(message.contains("in time"), "{message}");
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_call_ends_at_its_deadline_while_it_connects() {
    let (_unanswered, mut ends) = dead_ends();
    // The question which era it speaks has a time of its own, which is longer.
    let url = format!("http://127.0.0.1:{}/mcp", silent());
    ends.push((upstream(&url, None), Stage::Handshake));
    for (mut config, stage) in ends {
        (config.timeout, config.connect_timeout) = (PATIENT, PATIENT);
        let rig = Rig::start(config, Limits::default());
        let (began, before) = (Instant::now(), has_waited_for_cores());
        let error = rig.call_with(&wait(400), &Sink::default()).unwrap_err();
        let took = began.elapsed().saturating_sub(has_waited_for_cores() - before);
        assert!(took < Duration::from_millis(1400), "{}: {took:?}", stage.as_str());
        assert!(matches!(error, CallError::UpstreamTimeout { .. }), "{error:?}");
        assert_eq!(rig.upstream.status().in_flight, 0);
    }
}
