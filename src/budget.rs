//! The bytes that may be buffered at once, shared by everything that holds bodies.

use std::sync::{Arc, MutexGuard};

use crate::fair_shares::{NotTaken, Shares};
use crate::protocol::call::PrincipalId;
use crate::protocol::raw::Raw;
use crate::sync::Mutex;

#[derive(Debug)]
struct Pot(Mutex<Shares<PrincipalId>>);

impl Pot {
    fn lock(&self) -> MutexGuard<'_, Shares<PrincipalId>> {
        self.0.lock()
    }
}

/// The bytes that may be held at once. Cheap to clone; all clones share one bound.
#[derive(Debug, Clone)]
pub struct Budget(Arc<Pot>);

/// Bytes taken of a [`Budget`], given back on drop. They count for a principal or for none.
#[derive(Debug, Default)]
pub struct Share {
    pot: Option<Arc<Pot>>,
    charged: Option<PrincipalId>,
    bytes: usize,
}

/// The budget is used up, or the principal holds its share of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exhausted;

/// The error message for a client whose request finds the budget used up.
pub const BUFFERED_BYTES_FULL: &str = "bodies and results fill limits.buffered_bytes";

/// A share that a value keeps ([`Raw::keep`]).
pub type Kept = Mutex<Share>;

/// Bytes for a copy of a value while the copy is made; none for a value that is too small to
/// count.
///
/// # Errors
/// The budget has not so many bytes left, or not for the value's principal.
pub fn room_for_copy(value: &Raw) -> Result<Share, Exhausted> {
    let kept = value.keeper().and_then(|keeper| keeper.downcast_ref::<Kept>());
    let Some(kept) = kept else { return Ok(Share::default()) };
    let mut room = kept.lock().empty();
    room.grow_to(value.get().len())?;
    Ok(room)
}

impl From<NotTaken> for Exhausted {
    fn from(_: NotTaken) -> Exhausted {
        Exhausted
    }
}

impl Budget {
    /// A budget of `bytes_max`.
    pub fn new(bytes_max: usize) -> Budget {
        Budget(Arc::new(Pot(Mutex::new(Shares::new(bytes_max)))))
    }

    /// An empty share, which grows as bytes arrive. It has no principal until [`Share::charge`].
    pub fn share(&self) -> Share {
        self.share_of(None)
    }

    /// An empty share of a principal; of none where `charged` is none.
    pub fn share_of(&self, charged: Option<PrincipalId>) -> Share {
        Share { pot: Some(Arc::clone(&self.0)), charged, bytes: 0 }
    }

    /// The bytes that are taken now.
    pub fn taken(&self) -> usize {
        self.0.lock().taken()
    }
}

impl Share {
    /// An empty share of the same budget and principal.
    fn empty(&self) -> Share {
        Share { pot: self.pot.clone(), charged: self.charged.clone(), bytes: 0 }
    }

    /// Grows the share to `bytes`; a share that is as large already stays as it is.
    ///
    /// # Errors
    /// The budget has not so many bytes left, or not for the share's principal; the share keeps
    /// its size.
    pub fn grow_to(&mut self, bytes: usize) -> Result<(), Exhausted> {
        let more = bytes.saturating_sub(self.bytes);
        let (Some(pot), 1..) = (&self.pot, more) else { return Ok(()) };
        pot.lock().take_of(self.charged.as_ref(), more)?;
        self.bytes = bytes;
        Ok(())
    }

    /// Charges the share to this principal, if it has none yet.
    ///
    /// # Errors
    /// The principal may not hold so many more bytes; the share stays without a principal.
    pub fn charge(&mut self, principal: Option<&PrincipalId>) -> Result<(), Exhausted> {
        let (None, Some(principal)) = (&self.charged, principal) else { return Ok(()) };
        if let Some(pot) = self.pot.as_ref().filter(|_| self.bytes > 0) {
            let mut shares = pot.lock();
            shares.give_back_of(None, self.bytes);
            if let Err(not_taken) = shares.take(principal, self.bytes) {
                // The bytes were free a moment ago, and the lock has been held since.
                shares.take_for_nobody(self.bytes).ok();
                return Err(not_taken.into());
            }
        }
        self.charged = Some(principal.clone());
        Ok(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if let Some(pot) = self.pot.as_ref().filter(|_| self.bytes > 0) {
            pot.lock().give_back_of(self.charged.as_ref(), self.bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_bounded_together_and_given_back() {
        let budget = Budget::new(100);
        let (mut a, mut b) = (budget.share(), budget.share());
        assert_eq!(a.grow_to(60), Ok(()));
        assert_eq!(a.grow_to(10), Ok(()));
        assert_eq!(b.grow_to(41), Err(Exhausted));
        assert_eq!(b.grow_to(40), Ok(()));
        drop(a);
        assert_eq!(budget.taken(), 40);
        drop(b);
        assert_eq!(budget.taken(), 0);
    }

    #[test]
    fn a_copy_takes_room_of_whoever_the_value_is_charged_to() {
        let budget = Budget::new(100);
        let mut value = Raw::from_valid("\"12345678\"".to_owned());
        assert_eq!(room_for_copy(&value).unwrap().bytes, 0, "it is not counted");
        let mut share = budget.share_of(Some(PrincipalId::Key("hog".into())));
        share.grow_to(60).unwrap();
        value.keep(&Some(Arc::new(Kept::new(share))));
        let room = room_for_copy(&value).unwrap();
        assert_eq!((room.bytes, budget.taken()), (10, 70));
        assert_eq!(
            room_for_copy(&value).unwrap_err(),
            Exhausted,
            "its share is three quarters"
        );
        drop(room);
        assert_eq!(budget.taken(), 60);
    }

    #[test]
    fn one_principal_leaves_a_share_to_others() {
        let budget = Budget::new(100);
        let [hog, victim] = ["hog", "victim"].map(|name| PrincipalId::Key(name.into()));
        let mut bodies: Vec<Share> =
            (0..3).map(|_| budget.share_of(Some(hog.clone()))).collect();
        assert!(bodies.iter_mut().all(|body| body.grow_to(25).is_ok()));
        assert_eq!(bodies[0].grow_to(26), Err(Exhausted));
        let mut body = budget.share_of(Some(victim));
        assert_eq!(body.grow_to(25), Ok(()));
        drop(bodies);
        assert_eq!(budget.taken(), 25);
    }

    #[test]
    fn what_was_nobodys_becomes_a_principals() {
        let budget = Budget::new(100);
        let hog = PrincipalId::Key("hog".into());
        let mut share = budget.share();
        share.grow_to(70).unwrap();
        assert_eq!(share.charge(Some(&hog)), Ok(()));
        assert_eq!(share.grow_to(80), Err(Exhausted));
        let mut other = budget.share();
        other.grow_to(20).unwrap();
        assert_eq!(other.charge(Some(&hog)), Err(Exhausted));
        assert_eq!(budget.taken(), 90);
        drop((share, other));
        assert_eq!(budget.taken(), 0);
    }
}
