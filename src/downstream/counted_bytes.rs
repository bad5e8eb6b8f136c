//! What is held for a client after its request: it counts against the bytes that may be held.

use crate::error::CallError;
use crate::http::{BUFFERED_BYTES_FULL, Budget, Share};
use crate::limits::RESULT_BYTES_COUNTED_FROM;
use crate::protocol::raw::Raw;

/// Room for another form of a value that is counted, while that is made.
///
/// # Errors
/// The budget has not so much left.
pub(super) fn room_for_copy(value: &Raw) -> Result<Share, CallError> {
    crate::http::room_for_copy(value).map_err(|_| full())
}

fn full() -> CallError {
    CallError::Overloaded { what: BUFFERED_BYTES_FULL.to_owned() }
}

/// What these texts take of the budget until they are dropped; nothing where they are small.
///
/// # Errors
/// The budget has not so much left.
pub(super) fn share_of<'a>(
    buffered: &Budget,
    texts: impl IntoIterator<Item = &'a String>,
) -> Result<Share, CallError> {
    let mut share = buffered.share();
    let bytes = texts.into_iter().map(String::len).sum();
    if bytes > RESULT_BYTES_COUNTED_FROM {
        share.grow_to(bytes).map_err(|_| full())?;
    }
    Ok(share)
}
