//! Pure: a bounded queue that is shared by principals and served round robin among them, each
//! one's own in the order in which they came.

use std::hash::Hash;

use crate::fair_shares::{NotTaken, Shares};
use crate::round_robin::Turns;

/// What waits, by principal. `P` stands for a principal; what is nobody's has turns as if it were
/// one's, and no bound but that of all.
pub(crate) struct FairQueue<P, T> {
    shares: Shares<P>,
    turns: Turns<P, T>,
}

impl<P: Clone + Eq + Hash, T> FairQueue<P, T> {
    /// A queue for `max` of all principals together.
    pub(crate) fn new(max: usize) -> FairQueue<P, T> {
        FairQueue { shares: Shares::new(max), turns: Turns::default() }
    }

    /// Puts one behind what `who` has there already.
    ///
    /// # Errors
    /// The queue is full, or what is left of it is kept for others; it is dropped.
    pub(crate) fn push(&mut self, who: Option<&P>, one: T) -> Result<(), NotTaken> {
        self.shares.take_of(who, 1)?;
        self.turns.push(who, one);
        Ok(())
    }

    /// How many `who` may have waiting, whatever others have there.
    pub(crate) fn share(&self, who: Option<&P>) -> usize {
        self.shares.share_of(who)
    }

    /// Takes the next one of whoever's turn it is among those who `may` be served.
    pub(crate) fn pop_of(
        &mut self,
        may: impl Fn(Option<&P>) -> bool,
    ) -> Option<(Option<P>, T)> {
        let (who, one) = self.turns.pop_of(may)?;
        self.shares.give_back_of(who.as_ref(), 1);
        Some((who, one))
    }

    /// Takes the next one of whoever's turn it is.
    pub(crate) fn pop(&mut self) -> Option<T> {
        self.pop_of(|_| true).map(|(_, one)| one)
    }

    /// The first one of each principal, in the order of their turns.
    pub(crate) fn firsts(&self) -> impl Iterator<Item = (Option<&P>, &T)> {
        self.turns.firsts()
    }

    /// Takes one out, if it is there, as [`Turns::remove`].
    pub(crate) fn remove(&mut self, who: Option<&P>, is_it: impl Fn(&T) -> bool) -> Option<T> {
        let one = self.turns.remove(who, is_it)?;
        self.shares.give_back_of(who, 1);
        Some(one)
    }

    /// Whether something of `who` waits.
    pub(crate) fn has(&self, who: Option<&P>) -> bool {
        self.turns.has(who)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.turns.iter()
    }

    pub(crate) fn len(&self) -> usize {
        self.turns.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.turns.is_empty()
    }

    /// Everything there is goes.
    pub(crate) fn clear(&mut self) {
        *self = FairQueue::new(self.shares.max());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(queue: &mut FairQueue<&'static str, u32>) -> Vec<u32> {
        std::iter::from_fn(|| queue.pop()).collect()
    }

    #[test]
    fn each_principal_has_its_turn_and_its_own_are_in_order() {
        let mut queue = FairQueue::new(100);
        for n in 0..5 {
            queue.push(Some(&"hog"), n).unwrap();
        }
        queue.push(Some(&"victim"), 10).unwrap();
        queue.push(Some(&"victim"), 11).unwrap();
        queue.push(Some(&"third"), 20).unwrap();
        assert_eq!(queue.len(), 8);
        assert_eq!(all(&mut queue), [0, 10, 20, 1, 11, 2, 3, 4]);
        assert!(queue.is_empty() && !queue.has(Some(&"hog")));
    }

    #[test]
    fn one_alone_does_not_fill_it() {
        let mut queue = FairQueue::new(8);
        let n_hog = (0..8).take_while(|n| queue.push(Some(&"hog"), *n).is_ok()).count();
        assert_eq!(n_hog, 6);
        assert_eq!(queue.push(Some(&"hog"), 9), Err(NotTaken::ShareHeld));
        assert_eq!(queue.push(Some(&"victim"), 9), Ok(()));
        queue.clear();
        assert_eq!(queue.push(Some(&"hog"), 9), Ok(()));
    }

    #[test]
    fn whoever_may_not_be_served_holds_up_nobody() {
        let mut queue = FairQueue::new(8);
        queue.push(Some(&"a"), 1).unwrap();
        queue.push(Some(&"b"), 2).unwrap();
        assert_eq!(queue.pop_of(|who| who == Some(&"b")), Some((Some("b"), 2)));
        assert_eq!(queue.pop_of(|who| who == Some(&"b")), None);
        assert_eq!(queue.firsts().collect::<Vec<_>>(), [(Some(&"a"), &1)]);
    }

    #[test]
    fn one_that_leaves_gives_its_place_back_and_its_principal_keeps_the_turn() {
        let mut queue = FairQueue::new(8);
        for n in 0..3 {
            queue.push(Some(&"a"), n).unwrap();
        }
        queue.push(Some(&"b"), 9).unwrap();
        assert_eq!(queue.remove(Some(&"a"), |n| *n == 1), Some(1));
        assert_eq!(queue.remove(Some(&"a"), |n| *n == 1), None);
        assert_eq!(queue.remove(Some(&"c"), |n| *n == 1), None);
        assert_eq!(all(&mut queue), [0, 9, 2]);
        assert_eq!(queue.len(), 0);
    }
}
