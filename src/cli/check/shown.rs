//! Pure: the texts of a finding, for people and for programs.

use std::time::{Duration, UNIX_EPOCH};

use serde_json::{Value, json};

use super::contact::Finding;
use crate::protocol::call::Kind;
use crate::telemetry::timestamp::rfc3339;
use crate::upstream::FailureReport;
use crate::upstream::advice::{self, Advice};
use crate::upstream::authorization::SignInStatus;

/// The most lines of a child's standard error that are shown.
const STDERR_LINES_MAX: usize = 10;
/// The column at which the second column begins, if names are not longer.
const NAME_CHARS: usize = 12;

/// The style of marks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    Coloured,
    Plain,
}

impl Style {
    fn mark(self, word: &str, colour: u8) -> String {
        match self {
            Self::Coloured => format!("\x1b[{colour}m{word}\x1b[0m"),
            Self::Plain => word.to_owned(),
        }
    }
}

/// A line for the finding, and lines below it with advice.
pub(super) fn line(finding: &Finding, style: Style) -> String {
    let name = finding.config.name.as_str();
    let below = " ".repeat(NAME_CHARS + 1);
    let mut text = format!("{name:NAME_CHARS$} ");
    if finding.is_for_users {
        let what =
            "only users reach it, with credentials of their own: it is not contacted here";
        text.push_str(&format!("{}  {what}\n", style.mark("-", 33)));
        return text;
    }
    let Some(failure) = &finding.failure else {
        text.push_str(&format!("{}  {}\n", style.mark("ok", 32), facts(finding).join(", ")));
        for note in notes(finding) {
            text.push_str(&format!("{below}note: {note}\n"));
        }
        return text;
    };
    let Advice { stage, reached, to_do } = advice(finding, failure);
    let passed: String = reached.iter().map(|it| format!("{} ✓ ", it.as_str())).collect();
    let failed = style.mark("FAILED", 31);
    text.push_str(&format!("{failed}  {passed}{} ✗\n", stage.as_str()));
    text.push_str(&format!("{below}{}\n", shown(&failure.message)));
    if let Some(what) = to_do {
        text.push_str(&format!("{below}→ {what}\n"));
    }
    let stderr: Vec<_> = finding.stderr.iter().filter(|line| !line.trim().is_empty()).collect();
    for said in stderr.iter().skip(stderr.len().saturating_sub(STDERR_LINES_MAX)) {
        text.push_str(&format!("{below}stderr: {}\n", shown(said)));
    }
    text
}

fn advice(finding: &Finding, failure: &FailureReport) -> Advice {
    advice::of(&finding.config.target, failure, &finding.stderr)
}

fn facts(finding: &Finding) -> Vec<String> {
    let mut facts = vec![finding.transport.to_owned()];
    if let Some(revision) = finding.revision {
        facts.push(format!("{} ({})", revision.as_str(), revision.era().as_str()));
    }
    for (kind, count) in &finding.counts {
        let noun = kind.noun();
        match (kind, count) {
            (Kind::Tool, 1) => facts.push(format!("1 {noun}")),
            (Kind::Tool, n) => facts.push(format!("{n} {noun}s")),
            (_, 0) => (),
            (_, 1) => facts.push(format!("1 {noun}")),
            (_, n) => facts.push(format!("{n} {noun}s")),
        }
    }
    if let Some(until) = finding.sign_in.as_ref().and_then(SignInStatus::signed_in_until) {
        facts.push(format!("signed in until {}", rfc3339(until)));
    }
    facts.extend(finding.n_admitted.map(|n| format!("{n} of the tools admitted by tools")));
    facts.extend(finding.contact.map(|time| format!("contact in {}", told(time))));
    facts.extend(finding.latency.map(|time| format!("answers in {}", told(time))));
    facts
}

fn notes(finding: &Finding) -> Vec<String> {
    let mut notes = Vec::new();
    for glob in &finding.idle_globs {
        notes.push(format!("{glob:?} in tools matches none of its tools"));
    }
    if finding.n_malformed > 0 {
        let n = finding.n_malformed;
        notes.push(format!("{n} of its items are not as the specification says: left out"));
    }
    if finding.n_left_out > 0 {
        let n = finding.n_left_out;
        notes.push(format!("{n} of its items are over limits.upstream_tools: left out"));
    }
    notes
}

/// The finding for programs.
pub(super) fn in_json(finding: &Finding) -> Value {
    let mut value = json!({
        "server": finding.config.name.as_str(),
        "ok": finding.is_well(),
        "transport": finding.transport,
        "era": finding.revision.map(|revision| revision.era().as_str()),
        "revision": finding.revision.map(|revision| revision.as_str()),
        "server_info": finding.server_info.as_deref().and_then(|text| serde_json::from_str::<Value>(text).ok()),
        "contact_ms": finding.contact.map(ms),
        "latency_ms": finding.latency.map(ms),
        "sign_in": finding.sign_in.as_ref().map(SignInStatus::as_str),
        "signed_in_until": finding
            .sign_in
            .as_ref()
            .and_then(SignInStatus::signed_in_until)
            .and_then(|until| until.duration_since(UNIX_EPOCH).ok())
            .map(|since| since.as_secs()),
        "admitted_tools": finding.n_admitted,
        "idle_globs": finding.idle_globs,
        "malformed": finding.n_malformed,
        "left_out": finding.n_left_out,
        "for_users": finding.is_for_users,
    });
    let Some(fields) = value.as_object_mut() else { return value };
    for (kind, count) in &finding.counts {
        fields.insert(kind.list_key().to_owned(), (*count).into());
    }
    if let Some(failure) = &finding.failure {
        let Advice { stage, reached, to_do } = advice(finding, failure);
        let reached: Vec<&str> = reached.iter().map(|it| it.as_str()).collect();
        fields.insert("stage".to_owned(), stage.as_str().into());
        fields.insert("reached".to_owned(), reached.into());
        fields.insert("message".to_owned(), failure.message.clone().into());
        fields.insert("advice".to_owned(), to_do.into_iter().collect());
        fields.insert("stderr".to_owned(), finding.stderr.clone().into());
        if let Some(refusal) = &failure.refusal {
            fields.insert("status".to_owned(), refusal.status.into());
        }
    }
    value
}

fn ms(time: Duration) -> f64 {
    (time.as_secs_f64() * 10_000.0).round() / 10.0
}

fn told(time: Duration) -> String {
    match time.as_millis() {
        0..10 => format!("{:.1} ms", time.as_secs_f64() * 1000.0),
        10..10_000 => format!("{} ms", time.as_millis()),
        _ => format!("{} s", time.as_secs()),
    }
}

/// A server's text with control characters escaped: a server must not choose how a terminal
/// looks.
fn shown(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() { out.extend(c.escape_debug()) } else { out.push(c) }
    }
    out
}
