//! Lists of a server whose items are malformed, as clients of every revision are given them.

use serde_json::json;

use super::published::{Checked, REVISIONS, are_here};
use crate::catalogue::malformed_lists::{LISTS, expected, upstream};
use crate::support::duplex::{Door, Duplex};
use crate::support::gateway::Gateway;
use crate::support::modern::ModernClient;
use crate::support::script::MODERN;

#[test]
fn every_revision_s_lists_hold() {
    if !are_here() {
        return;
    }
    let upstream = upstream();
    let gateway = Gateway::before(&upstream.url());
    gateway.wait_until_well(&["s"]);
    for revision in REVISIONS {
        let mut told = Checked::against(revision);
        for (method, key, member) in LISTS {
            let answer = if revision == MODERN {
                ModernClient::to(&gateway).request(method, &json!({})).message
            } else {
                let client = Duplex::to(&gateway, Door::Streamable).speaking(revision).open();
                client.request(method, &json!({}))
            };
            told.answer(method, &answer);
            let items = answer["result"][key].as_array().unwrap();
            let names = items.iter().map(|item| item[member].as_str().unwrap().to_owned());
            let mut names: Vec<String> = names.collect();
            names.sort();
            assert_eq!(names, expected(key), "{revision}");
        }
        told.done(&[
            "tools/list: ListToolsResult",
            "prompts/list: ListPromptsResult",
            "resources/list: ListResourcesResult",
            "resources/templates/list: ListResourceTemplatesResult",
        ]);
    }
}
