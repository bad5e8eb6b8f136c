//! When lists are read, and how much of them is kept.

use std::time::Instant;

use trunkline::config::HttpKind;
use trunkline::limits::Limits;
use trunkline::upstream::Event;

use super::rig::*;

#[test]
fn the_bytes_of_a_list_are_bounded_and_the_rest_is_counted() {
    let server = Server::start(|seen| {
        if seen.rpc() != "tools/list" {
            return well(seen);
        }
        let page = seen.body.split("\"cursor\":\"").nth(1).and_then(|c| c.chars().next());
        let page = page.and_then(|digit| digit.to_digit(10)).unwrap_or(0);
        let filling = "x".repeat(1500);
        let next =
            if page < 4 { format!(",\"nextCursor\":\"{}\"", page + 1) } else { String::new() };
        Reply::json(seen.result(&format!(
            r#"{{"tools":[{{"name":"t{page}","description":"{filling}"}}]{next}}}"#
        )))
    });
    let limits = Limits { upstream_result_bytes: 4000, ..Limits::default() };
    let rig = Rig::start(http(server.address, HttpKind::StreamableHttp), limits);
    let until = Instant::now() + PATIENCE;
    loop {
        if let Event::Tools { tools, left_out, .. } = rig.events.recv_deadline(until).unwrap() {
            return assert_eq!((tools.len(), left_out), (2, 3));
        }
    }
}
