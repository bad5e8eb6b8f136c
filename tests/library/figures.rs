//! The figures that tests of the program stand on are those of the code.

use trunkline::limits;

use crate::support::figures;

#[test]
fn the_figures_of_the_tests_are_those_of_the_code() {
    let waits = [figures::BACKOFF_MIN, figures::BACKOFF_MAX];
    assert_eq!(waits, [limits::BACKOFF_MIN, limits::BACKOFF_MAX]);
    let waits = [figures::CHILD_BACKOFF_MIN, figures::CHILD_BACKOFF_MAX];
    assert_eq!(waits, [limits::CHILD_BACKOFF_MIN, limits::CHILD_BACKOFF_MAX]);
    assert_eq!(figures::EVENT_LOGS_BYTES_MAX, limits::EVENT_LOGS_BYTES_MAX);
    assert_eq!(figures::INPUT_ROUNDS_MAX, limits::INPUT_ROUNDS_MAX);
    assert_eq!(figures::PAGE_BYTES_MAX, limits::PAGE_BYTES_MAX);
    assert_eq!(figures::RESUMABLE_STREAMS_MAX, limits::RESUMABLE_STREAMS_MAX);
}
