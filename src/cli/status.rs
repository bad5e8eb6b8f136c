//! `trunkline status`: how a running gateway is.

use std::time::Duration;

use serde_json::Value;

use super::arguments::Output;
use super::running::Running;
use super::schema::member;
use super::talk::At;
use super::{KEY_VARIABLE, complain, fail, print, shown};
use crate::limits::OPERATOR_ANSWER_TIMEOUT;

pub(super) fn run(at: &At, output: Output) -> u8 {
    let gateway = match Running::find(at) {
        Ok(gateway) => gateway,
        Err(code) => return code,
    };
    let said = match gateway.ask("GET", "/status", OPERATOR_ANSWER_TIMEOUT) {
        Ok(said) => said,
        Err(what) => return fail(&format!("status: {what}")),
    };
    if !said.is_fine() {
        return without_key(&gateway, &said.refusal());
    }
    print(&match output {
        Output::Json => format!("{}\n", said.body),
        Output::Text => told(&gateway.place(), &said.body),
    })
}

/// Whether it lives is told to everybody: enough for who looks after the process.
fn without_key(gateway: &Running, refusal: &str) -> u8 {
    match gateway.ask("GET", "/healthz", OPERATOR_ANSWER_TIMEOUT) {
        Ok(said) if said.is_fine() && std::env::var_os(KEY_VARIABLE).is_none() => {
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
                format!("{counted} tools"),
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
        let failure = member(server, "last_failure");
        if state != "ready"
            && let Some(message) = text(failure, "message")
        {
            let stage = text(failure, "stage").unwrap_or_default();
            out.push_str(&format!("      {stage}: {message}\n"));
        }
    }
    out
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
            { "server": "other", "state": "down",
              "last_failure": { "stage": "connect", "message": "refused" } },
        ] });
        assert_eq!(
            told("h:1", &status),
            "trunkline 1.0 at h:1, up 1 h 1 min\n  one    ready  http r  3 tools\n  \
             other  down           - tools\n      connect: refused\n"
        );
        for (seconds, text) in [(6, "6 s"), (306, "5 min 6 s"), (273_600, "3 d 4 h")] {
            assert_eq!(lasting(Duration::from_secs(seconds)), text);
        }
    }
}
