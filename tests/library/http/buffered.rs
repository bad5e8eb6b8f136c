//! What is written slowly counts against the memory that all bodies and results share.

use trunkline::limits::Limits;

use super::engine::TestServer;
use crate::support::http::{Connection, Request};
use crate::support::wait_until;

#[test]
fn what_is_written_slowly_counts_whatever_it_is() {
    let limits = Limits { buffered_bytes: 5_000_000, body_bytes: 1000, ..Limits::default() };
    let server = TestServer::start(limits);
    let mut slow = Connection::open(&format!("127.0.0.1:{}", server.port));
    slow.send(&Request::get("/big?4000000"));
    wait_until("it is counted", || server.running.counters().buffered_bytes > 4_000_000);
    let get = |bytes: usize| server.connect().get(&format!("/big?{bytes}"));
    let refused = get(2_000_000);
    assert_eq!(refused.status, 503);
    let told = String::from_utf8_lossy(&refused.body).into_owned();
    assert!(told.contains("limits.buffered_bytes is 5000000"), "{told}");
    // Small ones are not looked at.
    assert_eq!(get(1000).status, 200);
    assert_eq!(slow.answer().expect(200).body.len(), 4_000_003);
    wait_until("it is given back", || server.running.counters().buffered_bytes == 0);
    assert_eq!(get(2_000_000).status, 200);
}
