//! The bytes that may be buffered at once, shared by everything that holds bodies.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

#[derive(Debug)]
struct Pot {
    bytes_max: usize,
    taken: AtomicUsize,
}

/// How many bytes may be held at once. Cheap to clone; all clones share one bound.
#[derive(Debug, Clone)]
pub struct Budget(Arc<Pot>);

/// Some of a [`Budget`], given back on drop.
#[derive(Debug, Default)]
pub struct Share {
    pot: Option<Arc<Pot>>,
    bytes: usize,
}

/// The budget is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exhausted;

impl Budget {
    /// A budget of `bytes_max`.
    pub fn new(bytes_max: usize) -> Budget {
        Budget(Arc::new(Pot { bytes_max, taken: AtomicUsize::new(0) }))
    }

    /// An empty share, to be grown as bytes arrive.
    pub fn share(&self) -> Share {
        Share { pot: Some(Arc::clone(&self.0)), bytes: 0 }
    }

    /// Bytes taken now.
    pub fn taken(&self) -> usize {
        self.0.taken.load(Ordering::Relaxed)
    }
}

impl Share {
    /// Grows the share to `bytes`; a share that is as large already stays as it is.
    ///
    /// # Errors
    /// The budget has not so much left; the share keeps what it had.
    pub fn grow_to(&mut self, bytes: usize) -> Result<(), Exhausted> {
        let more = bytes.saturating_sub(self.bytes);
        let (Some(pot), 1..) = (&self.pot, more) else { return Ok(()) };
        let before = pot.taken.fetch_add(more, Ordering::Relaxed);
        if before.saturating_add(more) > pot.bytes_max {
            pot.taken.fetch_sub(more, Ordering::Relaxed);
            return Err(Exhausted);
        }
        self.bytes = bytes;
        Ok(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if let Some(pot) = &self.pot {
            pot.taken.fetch_sub(self.bytes, Ordering::Relaxed);
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
}
