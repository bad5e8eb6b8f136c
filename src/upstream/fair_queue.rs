//! Pure: a bounded queue that is shared by principals and served round robin among them, each
//! one's own in the order in which they came.

use std::collections::VecDeque;
use std::hash::Hash;

use crate::shares::{NotTaken, Shares};

/// What waits, by principal. `P` stands for a principal; what is nobody's has turns as if it were
/// one's, and no bound but that of all.
pub(super) struct FairQueue<P, T> {
    shares: Shares<P>,
    /// Whoever is served next is first. Nobody is here with nothing.
    turns: VecDeque<(Option<P>, VecDeque<T>)>,
}

impl<P: Clone + Eq + Hash, T> FairQueue<P, T> {
    /// A queue for `max` of all principals together.
    pub(super) fn new(max: usize) -> FairQueue<P, T> {
        FairQueue { shares: Shares::new(max), turns: VecDeque::new() }
    }

    /// Puts one behind what `who` has there already.
    ///
    /// # Errors
    /// The queue is full, or what is left of it is kept for others; it is dropped.
    pub(super) fn push(&mut self, who: Option<&P>, one: T) -> Result<(), NotTaken> {
        self.shares.take_of(who, 1)?;
        match self.turns.iter_mut().find(|(other, _)| other.as_ref() == who) {
            Some((_, mine)) => mine.push_back(one),
            None => self.turns.push_back((who.cloned(), VecDeque::from([one]))),
        }
        Ok(())
    }

    /// Takes the next one of whoever's turn it is among those who `may` be served.
    pub(super) fn pop_of(
        &mut self,
        may: impl Fn(Option<&P>) -> bool,
    ) -> Option<(Option<P>, T)> {
        let at = self.turns.iter().position(|(who, _)| may(who.as_ref()))?;
        let (who, mut mine) = self.turns.remove(at)?;
        let one = mine.pop_front()?;
        self.shares.give_back_of(who.as_ref(), 1);
        if !mine.is_empty() {
            self.turns.push_back((who.clone(), mine));
        }
        Some((who, one))
    }

    /// Takes the next one of whoever's turn it is.
    pub(super) fn pop(&mut self) -> Option<T> {
        self.pop_of(|_| true).map(|(_, one)| one)
    }

    /// The first one of each principal, in the order of their turns.
    pub(super) fn firsts(&self) -> impl Iterator<Item = (Option<&P>, &T)> {
        self.turns.iter().filter_map(|(who, mine)| Some((who.as_ref(), mine.front()?)))
    }

    /// Takes one out of its turn, if it is there. Its principal's turn comes after the others'.
    pub(super) fn remove(&mut self, who: Option<&P>, is_it: impl Fn(&T) -> bool) -> Option<T> {
        let turn = self.turns.iter().position(|(other, _)| other.as_ref() == who)?;
        let at = self.turns.get(turn)?.1.iter().position(is_it)?;
        let (who, mut mine) = self.turns.remove(turn)?;
        let one = mine.remove(at);
        self.shares.give_back_of(who.as_ref(), 1);
        if !mine.is_empty() {
            self.turns.push_back((who, mine));
        }
        one
    }

    /// Whether something of `who` waits.
    pub(super) fn has(&self, who: Option<&P>) -> bool {
        self.turns.iter().any(|(other, _)| other.as_ref() == who)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.turns.iter().flat_map(|(_, mine)| mine)
    }

    pub(super) fn len(&self) -> usize {
        self.shares.taken()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.turns.is_empty()
    }

    /// Everything there is goes.
    pub(super) fn clear(&mut self) {
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
    fn one_that_leaves_gives_its_place_back() {
        let mut queue = FairQueue::new(8);
        for n in 0..3 {
            queue.push(Some(&"a"), n).unwrap();
        }
        queue.push(Some(&"b"), 9).unwrap();
        assert_eq!(queue.remove(Some(&"a"), |n| *n == 1), Some(1));
        assert_eq!(queue.remove(Some(&"a"), |n| *n == 1), None);
        assert_eq!(queue.remove(Some(&"c"), |n| *n == 1), None);
        assert_eq!(all(&mut queue), [9, 0, 2]);
        assert_eq!(queue.len(), 0);
    }
}
