//! `trunkline reload`: asks a running gateway to read its configuration again, and prints the
//! result.

use serde_json::Value;

use super::command::At;
use super::running::{Running, ServedAt};
use super::schema::member;
use super::{complain, exit, fail, print, shown};
use crate::config::NOTHING_DIFFERS;
use crate::limits::OPERATOR_RELOAD_TIMEOUT;

pub(super) fn run(at: &At) -> u8 {
    let gateways = match Running::find(at, ServedAt::MainListener) {
        Ok(gateways) => gateways,
        Err(code) => return code,
    };
    let Some(gateway) = gateways.first() else { return exit::CONFIG };
    let said = match gateway.ask("POST", "/reload", OPERATOR_RELOAD_TIMEOUT) {
        Ok(said) => said,
        Err(what) => return fail(&format!("reload: {what}")),
    };
    let texts = |of: &Value, key: &str| {
        let all = member(of, key).as_array().into_iter().flatten();
        all.filter_map(Value::as_str).map(shown).collect::<Vec<String>>()
    };
    for warning in texts(&said.body, "warnings") {
        complain(&format!("trunkline: reload: {warning}"));
    }
    let later = texts(&said.body, "at_next_start");
    for key in &later {
        complain(&format!(
            "trunkline: reload: {key} differs; it takes effect at the next start"
        ));
    }
    let problems = texts(member(&said.body, "error"), "problems");
    if !problems.is_empty() {
        problems.iter().for_each(|problem| complain(&format!("trunkline: {problem}")));
        complain("trunkline: reload: the configuration stays as it was");
        return exit::CONFIG;
    }
    match member(&said.body, "changes").as_str() {
        Some(NOTHING_DIFFERS) if said.is_fine() && !later.is_empty() => {
            print("nothing else differs\n")
        }
        Some(changes) if said.is_fine() => print(&format!("{}\n", shown(changes))),
        Some(_) | None if said.is_not_there() => fail(&format!(
            "reload: {} does not serve it: the address of \"listen\" does, and that of \
             \"admin_listen\" does not",
            gateway.place()
        )),
        Some(_) | None => fail(&format!("reload: {}", said.refusal())),
    }
}
