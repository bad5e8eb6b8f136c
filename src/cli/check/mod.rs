//! `trunkline check`: checks the configuration, and contacts every server as the gateway does.

mod contact;
mod keys;
mod shown;

use std::io::IsTerminal;
use std::path::Path;

use serde_json::{Value, json};

use super::command::{Contact, Output};
use super::{complain, exit, fail, print, refused};
use crate::config::{Config, Overrides, Problem};
use contact::Finding;
use shown::Style;

pub(super) fn run(path: &Path, contact: Contact, output: Output) -> u8 {
    let mut config = match (Config::load(path, &Overrides::default()), output) {
        (Ok(config), _) => config,
        (Err(problems), Output::Text) => return refused(path, &problems),
        (Err(problems), Output::Json) => {
            let problems: Vec<Value> = problems.iter().map(told).collect();
            let file = path.to_string_lossy();
            let result = json!({ "ok": false, "config": file, "problems": problems });
            return print_or(&format!("{result}\n"), exit::CONFIG);
        }
    };
    let of_terminal = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let style = if of_terminal { Style::Coloured } else { Style::Plain };
    if output == Output::Text {
        for warning in &config.warnings {
            complain(&format!("warning: {}", warning.with_line(path.display())));
        }
    }
    let findings = match contact {
        Contact::None => Vec::new(),
        Contact::All => {
            let say = |finding: &Finding| {
                if output == Output::Text {
                    print(&shown::line(finding, style))
                } else {
                    exit::FINE
                }
            };
            match contact::all(&config, say) {
                Ok(Some(findings)) => findings,
                Ok(None) => return fail("check: interrupted"),
                Err(error) => return fail(&format!("check: {error}")),
            }
        }
    };
    let idle = keys::idle_globs(&config, &findings);
    if output == Output::Text {
        for warning in &idle {
            complain(&format!("warning: {}", warning.in_file(path.display())));
        }
    }
    config.warnings.extend(idle);
    let is_well = findings.iter().all(Finding::is_well);
    let code = if is_well { exit::FINE } else { exit::UNAVAILABLE };
    match output {
        Output::Json => print_or(&format!("{}\n", in_json(path, &config, &findings)), code),
        Output::Text => print_or(&summary(path, &config, contact, &findings), code),
    }
}

/// Prints, and returns `code` if that was possible.
fn print_or(text: &str, code: u8) -> u8 {
    match print(text) {
        exit::FINE => code,
        failed => failed,
    }
}

fn summary(path: &Path, config: &Config, contact: Contact, findings: &[Finding]) -> String {
    let n_servers = config.upstreams.len();
    let file = path.display();
    match contact {
        Contact::None => {
            let (n_keys, listen) = (config.api_keys.len(), &config.listen);
            format!(
                "{file}: the configuration is right (servers: {n_servers}, keys: {n_keys}, listen: {listen})\n"
            )
        }
        Contact::All => {
            let n_of_users = findings.iter().filter(|finding| finding.is_for_users).count();
            let n_well =
                findings.iter().filter(|finding| finding.is_well()).count() - n_of_users;
            let n_contacted = n_servers - n_of_users;
            let besides = match n_of_users {
                0 => String::new(),
                n => format!(" ({n} more are for users alone)"),
            };
            format!("{file}: {n_well} of {n_contacted} servers well{besides}\n")
        }
    }
}

fn in_json(path: &Path, config: &Config, findings: &[Finding]) -> Value {
    json!({
        "ok": findings.iter().all(Finding::is_well),
        "config": path.to_string_lossy(),
        "listen": config.listen.to_string(),
        "problems": [],
        "warnings": config.warnings.iter().map(told).collect::<Vec<_>>(),
        "servers": findings.iter().map(shown::in_json).collect::<Vec<_>>(),
    })
}

fn told(problem: &Problem) -> Value {
    let mut told = json!({ "at": problem.at, "message": problem.what });
    if let (Some(place), Some(fields)) = (&problem.place, told.as_object_mut()) {
        fields.insert("line".to_owned(), place.line.into());
        fields.insert("column".to_owned(), place.column.into());
    }
    told
}
