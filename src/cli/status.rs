//! `trunkline status`: prints the state of a running gateway.

use std::time::{Duration, UNIX_EPOCH};

use serde_json::Value;

use super::command::{At, Output};
use super::running::{Running, Said, ServedAt, Unanswered, own_key};
use super::schema::member;
use super::{KEY_VARIABLE, complain, fail, print, shown};
use crate::limits::OPERATOR_ANSWER_TIMEOUT;
use crate::telemetry::timestamp::rfc3339;

pub(super) fn run(at: &At, output: Output) -> u8 {
    let gateways = match Running::find(at, ServedAt::BothListeners) {
        Ok(gateways) => gateways,
        Err(code) => return code,
    };
    let mut why = String::new();
    for gateway in &gateways {
        match gateway.ask("GET", "/status", OPERATOR_ANSWER_TIMEOUT) {
            Ok(said) => return answered(gateway, &said, output),
            Err(what @ Unanswered::Other(_)) => return fail(&format!("status: {what}")),
            Err(Unanswered::Unreached(what)) if why.is_empty() => why = what,
            // The first address is where everything else is served.
            Err(Unanswered::Unreached(_)) => (),
        }
    }
    fail(&format!("status: {why}"))
}

fn answered(gateway: &Running, said: &Said, output: Output) -> u8 {
    if !said.is_fine() {
        return without_key(gateway, &said.refusal());
    }
    print(&match output {
        Output::Json => format!("{}\n", said.body),
        Output::Text => told(&gateway.place(), &said.body),
    })
}

/// Without a key, prints only if the gateway lives, which every client is told: that is enough
/// for a supervisor of the process.
fn without_key(gateway: &Running, refusal: &str) -> u8 {
    match gateway.ask("GET", "/healthz", OPERATOR_ANSWER_TIMEOUT) {
        Ok(said) if said.is_fine() && own_key().is_none() => {
            complain(&format!(
                "trunkline: status: with a key in ${KEY_VARIABLE} more is told ({refusal})"
            ));
            print(&format!("trunkline at {} lives\n", gateway.place()))
        }
        Ok(_) => fail(&format!("status: {refusal}")),
        Err(what) => fail(&format!("status: {what}")),
    }
}

fn told(place: &str, status: &Value) -> String {
    let text = |value: &Value, key: &str| member(value, key).as_str().map(shown);
    let version = text(status, "version").unwrap_or_default();
    let up = Duration::from_millis(member(status, "uptime_ms").as_u64().unwrap_or_default());
    let mut out = format!("trunkline {version} at {place}, up {}", lasting(up));
    if member(status, "stopping") == &Value::Bool(true) {
        out.push_str(", stopping");
    }
    out.push('\n');
    let servers: Vec<&Value> =
        member(status, "upstreams").as_array().into_iter().flatten().collect();
    let rows: Vec<[String; 4]> = servers
        .iter()
        .map(|server| {
            let spoken = [text(server, "transport"), text(server, "revision")];
            let spoken: Vec<String> = spoken.into_iter().flatten().collect();
            let tools = member(server, "tools");
            let counted = tools.as_u64().map_or_else(|| "-".to_owned(), |n| n.to_string());
            [
                text(server, "server").unwrap_or_default(),
                text(server, "state").unwrap_or_default(),
                spoken.join(" "),
                match counted.as_str() {
                    "1" => "1 tool".to_owned(),
                    _ => format!("{counted} tools"),
                },
            ]
        })
        .collect();
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|it| it.chars().count()).max()
    };
    let widths = [0, 1, 2].map(|column| width(column).unwrap_or_default());
    for (row, server) in rows.iter().zip(&servers) {
        let [name, state, spoken, tools] = row;
        let [a, b, c] = widths;
        out.push_str(&format!("  {name:a$}  {state:b$}  {spoken:c$}  {tools}\n"));
        for line in further(server) {
            out.push_str(&format!("      {line}\n"));
        }
    }
    out
}

/// The faults of a server, and advice: a line each.
fn further(server: &Value) -> Vec<String> {
    let text = |of: &Value, key: &str| member(of, key).as_str().map(shown);
    let mut lines = Vec::new();
    let failure = member(server, "last_failure");
    if text(server, "state").as_deref() != Some("ready")
        && let Some(message) = text(failure, "message")
    {
        let stage = text(failure, "stage").unwrap_or_default();
        lines.push(format!("{stage}: {message}"));
        lines.extend(text(failure, "advice").map(|advice| format!("→ {advice}")));
    }
    let since = member(server, "down_since").as_u64();
    let since = since.map(|at| rfc3339(UNIX_EPOCH + Duration::from_secs(at)));
    let next = member(server, "next_try_ms").as_u64().map(Duration::from_millis);
    let next = next.map(|time| match time.as_secs() {
        0 => "next try at once".to_owned(),
        1.. => format!("next try in {}", lasting(time)),
    });
    let times = [since.map(|at| format!("down since {at}")), next];
    let times: Vec<String> = times.into_iter().flatten().collect();
    if !times.is_empty() {
        lines.push(times.join(", "));
    }
    for (list, unread) in member(server, "unread_lists").as_object().into_iter().flatten() {
        let message = text(member(unread, "last_failure"), "message").unwrap_or_default();
        lines.push(format!("{} cannot be read: {message}", shown(list)));
    }
    lines.extend(pins(server));
    lines
}

/// The changes since items were pinned, if there are any.
fn pins(server: &Value) -> Option<String> {
    let pins = member(server, "pins");
    let n_changed = member(pins, "changed").as_array().map_or(0, Vec::len);
    let name = member(server, "server").as_str().map(shown).unwrap_or_default();
    let withheld = match member(pins, "pin").as_str() {
        Some("enforce" | "locked") => " and withheld",
        // A key that is no admin's is not told the effect of a change.
        Some(_) | None => "",
    };
    let items = if n_changed == 1 { "item" } else { "items" };
    (n_changed > 0).then(|| {
        format!(
            "{n_changed} pinned {items} changed or new{withheld}: trunkline pins diff {name}"
        )
    })
}

/// `3 d 4 h`, `4 h 5 min`, `5 min 6 s`, `6 s`.
fn lasting(time: Duration) -> String {
    let seconds = time.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, _, _) => format!("{hours} h {minutes} min"),
        (_, _, _) => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_status_is_told_in_lines() {
        let status = json!({ "version": "1.0", "uptime_ms": 3_700_000, "upstreams": [
            { "server": "one", "state": "ready", "transport": "http", "revision": "r", "tools": 3,
              "last_failure": { "stage": "connect", "message": "long ago" } },
            { "server": "other", "state": "down", "down_since": 60, "next_try_ms": 4200,
              "last_failure": { "stage": "connect", "message": "refused", "advice": "start it" } },
            { "server": "third", "state": "ready", "tools": 1,
              "pins": { "pin": "enforce", "changed": [{ "tool": "x" }] },
              "unread_lists": { "prompts": { "last_failure": { "message": "no" } } } },
        ] });
        assert_eq!(
            told("h:1", &status),
            "trunkline 1.0 at h:1, up 1 h 1 min\n  one    ready  http r  3 tools\n  \
             other  down           - tools\n      connect: refused\n      → start it\n      \
             down since 1970-01-01T00:01:00.000Z, next try in 4 s\n  \
             third  ready          1 tool\n      prompts cannot be read: no\n      \
             1 pinned item changed or new and withheld: trunkline pins diff third\n"
        );
        for (seconds, text) in [(6, "6 s"), (306, "5 min 6 s"), (273_600, "3 d 4 h")] {
            assert_eq!(lasting(Duration::from_secs(seconds)), text);
        }
    }
}
