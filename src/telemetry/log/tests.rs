//! Tests of the logger and of the thread's loop on values, without the process's own log.

use super::*;

fn logger(
    format: LogFormat,
    level: LevelFilter,
    capacity: usize,
) -> (Logger, Receiver<Item>, Lines) {
    let (queue, items) = bounded(capacity);
    let lines = Lines { queue, n_dropped: Arc::default() };
    let control = LogControl::new(level);
    control.set_secrets(&[Secret::new("hunter2".to_owned())]);
    let direct = Direct { format, is_journal: false, control, lines: lines.clone() };
    (Logger::new(direct), items, lines)
}

fn say(logger: &Logger, level: Level, target: &str, message: &str) {
    let mut record = Record::builder();
    logger.log(&record.level(level).target(target).args(format_args!("{message}")).build());
}

/// The text that the thread writes of the queued lines.
fn written(items: &Receiver<Item>, lines: &Lines, format: LogFormat) -> String {
    lines.queue.try_send(Item::Stop).unwrap();
    let mut out = Vec::new();
    run(items, &lines.n_dropped, format, &mut out);
    String::from_utf8(out).unwrap()
}

#[test]
fn a_text_line_has_time_level_target_and_no_secret() {
    let (logger, items, lines) = logger(LogFormat::Text, LevelFilter::Info, 8);
    say(&logger, Level::Warn, "trunkline::x", "key hunter2\nforged");
    let text = written(&items, &lines, LogFormat::Text);
    assert!(text.ends_with("Z [WARN] trunkline::x: key [secret]\\nforged\n"), "{text}");
    assert_eq!(text.lines().count(), 1);
}

#[test]
fn a_json_line_holds_the_same() {
    let (logger, items, lines) = logger(LogFormat::Json, LevelFilter::Info, 8);
    say(&logger, Level::Error, "trunkline::x", "key \"hunter2\"");
    let text = written(&items, &lines, LogFormat::Json);
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value["msg"], "key \"[secret]\"");
    assert_eq!(value["level"], "ERROR");
}

#[test]
fn a_line_of_any_length_is_cut() {
    let (logger, items, lines) = logger(LogFormat::Text, LevelFilter::Info, 8);
    say(&logger, Level::Error, &"t".repeat(9000), &"é".repeat(9000));
    let text = written(&items, &lines, LogFormat::Text);
    assert!(text.len() <= LOG_LINE_BYTES_MAX && text.ends_with('\n'), "{}", text.len());
}

#[test]
fn a_full_queue_drops_lines_and_says_how_many() {
    let (logger, items, lines) = logger(LogFormat::Text, LevelFilter::Info, 2);
    for _ in 0..5 {
        say(&logger, Level::Info, "trunkline", "x");
    }
    let Ok(Item::Line(_)) = items.try_recv() else { panic!("no line") };
    let text = written(&items, &lines, LogFormat::Text);
    assert!(text.contains("3 log lines were dropped"), "{text}");
    assert_eq!(lines.n_dropped.load(Ordering::Relaxed), 0);
}

#[test]
fn levels_hold_and_libraries_tell_details_only_at_trace() {
    let enabled = |level, record_level, target: &str| {
        let (logger, _items, _lines) = logger(LogFormat::Text, level, 1);
        let metadata = Metadata::builder().level(record_level).target(target).build();
        logger.enabled(&metadata)
    };
    assert!(enabled(LevelFilter::Info, Level::Info, "trunkline::x"));
    assert!(!enabled(LevelFilter::Info, Level::Debug, "trunkline::x"));
    assert!(enabled(LevelFilter::Debug, Level::Debug, "trunkline::x"));
    assert!(!enabled(LevelFilter::Debug, Level::Debug, "rustls::client"));
    assert!(enabled(LevelFilter::Debug, Level::Warn, "rustls::client"));
    assert!(enabled(LevelFilter::Trace, Level::Debug, "rustls::client"));
    assert!(!enabled(LevelFilter::Trace, Level::Trace, "ureq_proto::util"));
    assert!(enabled(LevelFilter::Debug, Level::Debug, "upstream"));
}

#[test]
fn a_guard_does_not_wait_for_ever_for_a_thread_that_is_stuck() {
    let (queue, items) = bounded(1);
    let (done, written) = bounded(1);
    let control = LogControl::new(LevelFilter::Info);
    let (release, released) = bounded::<()>(0);
    let thread = thread::spawn("log", move || {
        released.recv().ok();
        drop((items, done));
    });
    let guard = LogGuard { control, queue, written, thread: Some(thread.unwrap()) };
    let start = Instant::now();
    drop(guard);
    assert!(start.elapsed() < FLUSH_TIMEOUT * 5);
    drop(release);
}

#[test]
fn the_journal_is_given_a_priority_and_no_time() {
    for format in [LogFormat::Text, LogFormat::Json] {
        let (logger, items, lines) = logger(format, LevelFilter::Info, 8);
        let direct = Direct { is_journal: true, ..logger.direct };
        say(&Logger::new(direct), Level::Warn, "trunkline::x", "key hunter2\nforged");
        let text = written(&items, &lines, format);
        assert!(text.starts_with("<4>") && text.lines().count() == 1, "{text}");
        if format == LogFormat::Text {
            assert_eq!(text, "<4>trunkline::x: key [secret]\\nforged\n");
        }
    }
}

#[test]
fn secrets_that_were_learned_are_hidden_and_stay_so_when_the_configured_ones_change() {
    let (logger, items, lines) = logger(LogFormat::Text, LevelFilter::Info, 8);
    let control = &logger.direct.control;
    control.learn(&Secret::new("token-0815".to_owned()));
    control.set_secrets(&[Secret::new("other-secret".to_owned())]);
    say(&logger, Level::Info, "t", "token-0815 and other-secret and hunter2");
    let told = written(&items, &lines, LogFormat::Text);
    assert!(told.contains("[secret] and [secret] and hunter2"), "{told}");
}
