//! Children: their answers, their deaths, and that none is left behind.

use std::time::{Duration, Instant};

use trunkline::config::{Secret, StdioTarget, Target, UpstreamConfig};
use trunkline::error::{CallError, Stage};
use trunkline::limits::Limits;
use trunkline::protocol::call::Notice;
use trunkline::upstream::State;

use crate::upstream::rig::*;

/// A server in the shell: `$call` says what happens at `tools/call`; `$id` is the request's id.
pub(crate) fn script(before: &str, call: &str) -> UpstreamConfig {
    let text = format!(
        r#"{before}
while read -r line; do
  rest=${{line#*\"id\":}}; id=${{rest%%[,\}}]*}}
  case "$line" in
    *'"server/discover"'*) echo "{{\"jsonrpc\":\"2.0\",\"id\":$id,\"error\":{{\"code\":-32601,\"message\":\"no\"}}}}";;
    *'"initialize"'*) echo "{{\"jsonrpc\":\"2.0\",\"id\":$id,\"result\":$INIT}}";;
    *'"tools/list"'*) echo "{{\"jsonrpc\":\"2.0\",\"id\":$id,\"result\":{{\"tools\":[{{\"name\":\"sh\"}}]}}}}";;
    *'"tools/call"'*) {call};;
    *cancelled*) echo cancelled >&2;;
  esac
done"#
    );
    config(Target::Stdio(StdioTarget {
        command: "sh".to_owned(),
        args: vec!["-c".to_owned(), text],
        env: vec![("INIT".to_owned(), Secret::new(INITIALIZED.to_owned()))],
        cwd: None,
        folder: None,
    }))
}

pub(crate) const OK: &str = r#"echo "{\"jsonrpc\":\"2.0\",\"id\":$id,\"result\":{\"ok\":1}}""#;

#[test]
fn a_result_that_is_no_object_is_nonsense() {
    let null = r#"echo "{\"jsonrpc\":\"2.0\",\"id\":$id,\"result\":null}""#;
    let rig = Rig::ready_with(script("", null), Limits::default());
    let odd = rig.call();
    assert!(
        matches!(odd, Err(CallError::UpstreamFailed { stage: Stage::Parse, .. })),
        "{odd:?}"
    );
    assert_eq!(rig.upstream.status().state, State::Ready);
}

#[test]
fn a_child_answers_and_its_noise_is_passed_over() {
    let noise = "echo 'starting up...'; echo '{\"half\":'; echo; echo one >&2; echo two >&2";
    let progress = r#"echo "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\",\"params\":{\"progressToken\":$id,\"progress\":1}}""#;
    let rig = Rig::start(script(noise, &format!("{progress}; {OK}")), Limits::default());
    assert_eq!(rig.tools(), ["sh"]);
    let sink = Sink::default();
    assert_eq!(text(rig.call_with(&wait(5000), &sink)), "{\"ok\":1}");
    assert!(matches!(sink.notices()[..], [Notice::Progress(_)]));
    let status = rig.upstream.status();
    assert_eq!((status.transport, status.state), ("stdio", State::Ready));
    eventually("its errors are kept", || rig.upstream.status().stderr == ["one", "two"]);
    assert!(status.server_info.is_some());
}

#[test]
fn the_environment_is_not_inherited() {
    let rig = Rig::start(script("env | sort >&2", OK), Limits::default());
    rig.tools();
    eventually("it is told", || {
        rig.upstream.status().stderr.iter().any(|line| line.starts_with("PATH="))
    });
    let lines = rig.upstream.status().stderr;
    let known = ["PATH=", "HOME=", "LANG=", "TZ=", "INIT=", "PWD=", "OLDPWD=", "SHLVL=", "_="];
    for line in &lines {
        assert!(known.iter().any(|name| line.starts_with(name)), "{line}");
    }
    assert!(!lines.is_empty());
}

#[test]
fn a_child_that_dies_fails_its_call_and_is_started_again() {
    let before = "echo started >&2";
    let rig = Rig::start(script(before, "exit 3"), Limits::default());
    rig.tools();
    let began = Instant::now();
    match rig.call() {
        Err(CallError::UpstreamFailed { message, .. }) => {
            assert!(message.contains("exited with status 3"), "{message}");
            assert!(message.contains("the tool may have run"), "{message}");
        }
        other => panic!("{other:?}"),
    }
    assert!(began.elapsed() < Duration::from_secs(1));
    assert!(rig.failure().message.contains("exited with status 3"));
    assert_eq!(rig.tools(), ["sh"]);
    assert_eq!(rig.upstream.status().restarts, 1);
}

#[test]
fn an_answer_just_before_the_end_is_not_lost() {
    let rig = Rig::start(script("", &format!("{OK}; exit 0")), Limits::default());
    rig.tools();
    assert_eq!(text(rig.call()), "{\"ok\":1}");
}

#[test]
fn calls_while_it_is_down_fail_at_once_and_say_why() {
    let rig = Rig::start(script("exit 7", OK), Limits::default());
    rig.failure();
    rig.failure();
    eventually("it waits for the next start", || {
        matches!(rig.upstream.status().state, State::Down { .. })
    });
    let mut said = String::new();
    eventually("a call fails at once", || {
        let began = Instant::now();
        said = rig.call().unwrap_err().to_string();
        began.elapsed() < Duration::from_millis(50) && said.contains("next try in")
    });
    assert!(said.contains("exited with status 7"), "{said}");
}

#[test]
fn what_cannot_be_started_says_so() {
    let mut config = script("", OK);
    if let Target::Stdio(target) = &mut config.target {
        target.command = "/no/such/program".to_owned();
    }
    let rig = Rig::start(config, Limits::default());
    let failure = rig.failure();
    assert_eq!(failure.stage, trunkline::error::Stage::Spawn);
    assert!(failure.message.contains("/no/such/program"));
}

#[test]
fn a_call_that_hangs_ends_at_its_deadline_and_is_cancelled() {
    let rig = Rig::start(script("", ":"), Limits::default());
    rig.tools();
    let began = Instant::now();
    let outcome = rig.call_with(&wait(200), &Sink::default());
    assert!(matches!(outcome, Err(CallError::UpstreamTimeout { .. })), "{outcome:?}");
    assert!(began.elapsed() < Duration::from_secs(2));
    eventually("it is cancelled", || {
        rig.upstream.status().stderr.contains(&"cancelled".into())
    });
}

#[test]
fn a_line_over_the_bound_fails_its_call_and_the_child_lives_on() {
    let call = r#"case $done in 1) echo "{\"jsonrpc\":\"2.0\",\"id\":$id,\"result\":{}}";; *) done=1; printf '{"jsonrpc":"2.0","id":%s,"result":"' $id; head -c 100000 /dev/zero | tr '\0' x; echo '"}';; esac"#;
    let limits = Limits { upstream_event_bytes: 50_000, ..Limits::default() };
    let rig = Rig::start(script("", call), limits);
    rig.tools();
    let error = rig.call().unwrap_err().to_string();
    assert!(error.contains("upstream_event_bytes"), "{error}");
    assert_eq!(text(rig.call()), "{}");
}

#[test]
fn a_change_gives_a_new_list() {
    let changed = r#"echo '{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}'"#;
    let rig = Rig::start(script("", &format!("{changed}; {OK}")), Limits::default());
    rig.tools();
    text(rig.call());
    assert_eq!(rig.tools(), ["sh"]);
}

/// Whether a process runs; one that waits to be reaped does not.
fn runs(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with(" Z"))
}

#[test]
fn no_process_is_left_behind() {
    // One that ignores both the end of its input and SIGTERM, and one that it started.
    let before = "sleep 1000 & echo $! >&2; echo $$ >&2; trap '' TERM";
    let rig = Rig::start(script(before, OK), Limits::default());
    rig.tools();
    eventually("both are known", || rig.upstream.status().stderr.len() == 2);
    let pids = rig.upstream.status().stderr;
    assert!(pids.iter().all(|pid| runs(pid)));
    let began = Instant::now();
    drop(rig);
    assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
    // The child is reaped; what it started was told to end and is reaped by the system.
    eventually("none is left", || !pids.iter().any(|pid| runs(pid)));
}

#[test]
fn what_a_dead_child_started_is_ended_with_it() {
    let before = "sleep 1000 & echo $! >&2";
    let rig = Rig::start(script(before, "exit 0"), Limits::default());
    rig.tools();
    eventually("it is known", || !rig.upstream.status().stderr.is_empty());
    let first = rig.upstream.status().stderr[0].clone();
    rig.call().unwrap_err();
    eventually("what it started is gone", || !runs(&first));
    rig.tools();
}

#[test]
fn a_child_holds_no_pipe_of_another() {
    let start = || {
        let rig = Rig::start(script("echo $$ >&2", OK), Limits::default());
        rig.tools();
        eventually("it is told", || !rig.upstream.status().stderr.is_empty());
        let pid = rig.upstream.status().stderr[0].clone();
        (rig, pid)
    };
    let ((_first, first), (_second, second)) = (start(), start());
    let pipes = |pid: &str| -> Vec<_> {
        let open = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
        open.flatten().filter_map(|fd| std::fs::read_link(fd.path()).ok()).collect()
    };
    // Else the first would not see the end of its input while the second lives.
    let input = std::fs::read_link(format!("/proc/{first}/fd/0")).unwrap();
    assert!(pipes(&first).contains(&input) && !pipes(&second).contains(&input));
}
