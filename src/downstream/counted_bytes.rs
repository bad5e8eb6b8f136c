//! Values that are held for a client after its request, and count against the bytes that may be
//! held.

use crate::error::CallError;
use crate::http::{BUFFERED_BYTES_FULL, Budget, Share};
use crate::limits::RESULT_BYTES_COUNTED_FROM;
use crate::protocol::raw::Raw;

/// Bytes for another form of a counted value, while that form is made.
///
/// # Errors
/// The budget has not so many bytes left.
pub(super) fn room_for_copy(value: &Raw) -> Result<Share, CallError> {
    crate::http::room_for_copy(value).map_err(|_| full())
}

fn full() -> CallError {
    CallError::Overloaded { what: BUFFERED_BYTES_FULL.to_owned() }
}

/// The share of the budget that these texts take until it is dropped; an empty one if they are
/// small.
///
/// # Errors
/// The budget has not so many bytes left.
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
