//! A server that says with `Retry-After` how long it wants to be left alone is left alone for so
//! long, although the backoff would try sooner.

use super::cells::{Cell, Path};
use super::faults::{ASKED, ASKING_FOR_TIME};
use super::{LISTS, PATIENCE, SPEECHES, Table};
use crate::support::wait_within;

#[test]
fn a_server_that_asks_for_time_is_given_it() {
    let paths = LISTS.into_iter().chain([Path::Handshake]);
    let cells = paths.flat_map(|path| {
        let of = move |speech| ASKING_FOR_TIME.map(|fault| Cell::new(speech, path, fault));
        SPEECHES.into_iter().flat_map(of)
    });
    let table = Table::start(cells.collect());
    for cell in table.each() {
        let pauses = wait_within(PATIENCE, &cell.name, || {
            Some(cell.pauses()).filter(|pauses| !pauses.is_empty())
        });
        // Of its own, the backoff would ask again after a quarter of a second.
        let is_given = pauses.values().all(|pause| *pause >= ASKED);
        assert!(is_given, "{}: {pauses:?}", cell.name);
    }
}
