//! The memory of a message that is being read, and of what is made of it: from some size on it
//! counts against the budget that all bodies and results share.

use std::sync::Arc;

use crate::budget::{BUFFERED_BYTES_FULL, Budget, Kept, Share};
use crate::error::Stage;
use crate::limits::RESULT_BYTES_COUNTED_FROM;
use crate::protocol::call::PrincipalId;
use crate::protocol::raw::{Keeper, Raw};

use crate::upstream::failure::{Failure, FailureKind};

/// What one message takes of the budget; nothing while it is small.
pub(crate) struct Held<'a> {
    budget: Option<&'a Budget>,
    /// Whose it is; nobody's where that is not known before it is whole.
    charged: Option<&'a PrincipalId>,
    share: Option<Share>,
}

impl<'a> Held<'a> {
    pub(crate) fn new(budget: &'a Budget, charged: Option<&'a PrincipalId>) -> Held<'a> {
        Held { budget: Some(budget), charged, share: None }
    }

    /// For what is bounded more narrowly than what counts.
    pub(crate) fn uncounted() -> Held<'static> {
        Held { budget: None, charged: None, share: None }
    }

    /// The message is going to have so many bytes.
    pub(crate) fn grow_to(&mut self, bytes: usize) -> Result<(), Failure> {
        let Some(budget) = self.budget.filter(|_| bytes > RESULT_BYTES_COUNTED_FROM) else {
            return Ok(());
        };
        let share = self.share.get_or_insert_with(|| budget.share_of(self.charged.cloned()));
        share.grow_to(bytes).map_err(|_| exhausted())
    }

    /// The message is whole: what was taken for it belongs to whoever holds it. The next one
    /// begins.
    pub(crate) fn take(&mut self) -> Option<Keeper> {
        let share = self.share.take()?;
        Some(Arc::new(Kept::new(share)))
    }
}

/// Whoever asked for a result is charged for its memory, if nobody is yet: what comes on a stream
/// that calls share is known to be somebody's only when it is whole.
pub(crate) fn charge(result: &Raw, principal: Option<&PrincipalId>) -> Result<(), Failure> {
    let share = result.keeper().and_then(|keeper| keeper.downcast_ref::<Kept>());
    let Some(share) = share else { return Ok(()) };
    let mut share = share.lock();
    share.charge(principal).map_err(|_| exhausted())
}

/// The budget is used up.
pub(crate) fn exhausted() -> Failure {
    Failure {
        sent: true,
        ..Failure::new(FailureKind::Overloaded, Stage::Read, BUFFERED_BYTES_FULL)
    }
}
