//! The memory of a message that is being read, and of what is made of it: from some size on it
//! counts against the budget that all bodies and results share.

use std::sync::Arc;

use crate::budget::{Budget, Share};
use crate::error::Stage;
use crate::limits::RESULT_BYTES_COUNTED_FROM;
use crate::protocol::raw::Keeper;

use super::connection::{Kind, Trouble};

/// What one message takes of the budget; nothing while it is small.
pub(super) struct Held<'a> {
    budget: Option<&'a Budget>,
    share: Option<Share>,
}

impl<'a> Held<'a> {
    pub(super) fn new(budget: &'a Budget) -> Held<'a> {
        Held { budget: Some(budget), share: None }
    }

    /// For what is bounded more narrowly than what counts.
    pub(super) fn uncounted() -> Held<'static> {
        Held { budget: None, share: None }
    }

    /// The message is going to have so many bytes.
    pub(super) fn grow_to(&mut self, bytes: usize) -> Result<(), Trouble> {
        let Some(budget) = self.budget.filter(|_| bytes > RESULT_BYTES_COUNTED_FROM) else {
            return Ok(());
        };
        let share = self.share.get_or_insert_with(|| budget.share());
        share.grow_to(bytes).map_err(|_| exhausted())
    }

    /// The message is whole: what was taken for it belongs to whoever holds it. The next one
    /// begins.
    pub(super) fn take(&mut self) -> Option<Keeper> {
        let share = self.share.take()?;
        Some(Arc::new(share))
    }
}

/// The budget is used up.
pub(super) fn exhausted() -> Trouble {
    let what = "bodies and results fill limits.buffered_bytes";
    Trouble { sent: true, ..Trouble::new(Kind::Overloaded, Stage::Read, what) }
}
