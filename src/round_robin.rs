//! Pure: items that wait, by principal: each principal has its turn, and its items are in the
//! order in which they came.

use std::collections::VecDeque;

/// Items that wait. `P` stands for a principal; items of no principal have turns as if one had
/// them.
#[derive(Debug)]
pub struct Turns<P, T> {
    /// The principals in the order of their turns. None is here without an item.
    turns: VecDeque<(Option<P>, VecDeque<T>)>,
    len: usize,
}

impl<P, T> Default for Turns<P, T> {
    fn default() -> Turns<P, T> {
        Turns { turns: VecDeque::new(), len: 0 }
    }
}

impl<P: Clone + Eq, T> Turns<P, T> {
    fn of(&mut self, who: Option<&P>) -> Option<&mut VecDeque<T>> {
        self.turns.iter_mut().find(|(other, _)| other.as_ref() == who).map(|(_, mine)| mine)
    }

    /// Puts an item behind the others of `who`.
    pub fn push(&mut self, who: Option<&P>, one: T) {
        self.len += 1;
        match self.of(who) {
            Some(mine) => mine.push_back(one),
            None => self.turns.push_back((who.cloned(), VecDeque::from([one]))),
        }
    }

    /// Puts an item back before the others of `who`; the other principals' turns come first.
    pub fn put_back(&mut self, who: Option<&P>, one: T) {
        self.len += 1;
        match self.of(who) {
            Some(mine) => mine.push_front(one),
            None => self.turns.push_back((who.cloned(), VecDeque::from([one]))),
        }
    }

    /// Takes the next item of the principal whose turn it is, among those for which `may` is
    /// true.
    pub fn pop_of(&mut self, may: impl Fn(Option<&P>) -> bool) -> Option<(Option<P>, T)> {
        let at = self.turns.iter().position(|(who, _)| may(who.as_ref()))?;
        let (who, mut mine) = self.turns.remove(at)?;
        let one = mine.pop_front()?;
        self.len -= 1;
        if !mine.is_empty() {
            self.turns.push_back((who.clone(), mine));
        }
        Some((who, one))
    }

    /// Takes the next item of the principal whose turn it is.
    pub fn pop(&mut self) -> Option<(Option<P>, T)> {
        self.pop_of(|_| true)
    }

    /// Takes an item out, if it waits. Its principal's turn stays, since nothing was served.
    pub fn remove(&mut self, who: Option<&P>, is_it: impl Fn(&T) -> bool) -> Option<T> {
        let turn = self.turns.iter().position(|(other, _)| other.as_ref() == who)?;
        let (_, mine) = self.turns.get_mut(turn)?;
        let one = mine.remove(mine.iter().position(is_it)?)?;
        if mine.is_empty() {
            self.turns.remove(turn);
        }
        self.len -= 1;
        Some(one)
    }

    /// The first item of each principal, in the order of their turns.
    pub fn firsts(&self) -> impl Iterator<Item = (Option<&P>, &T)> {
        self.turns.iter().filter_map(|(who, mine)| Some((who.as_ref(), mine.front()?)))
    }

    /// True if an item of `who` waits.
    pub fn has(&self, who: Option<&P>) -> bool {
        self.turns.iter().any(|(other, _)| other.as_ref() == who)
    }

    /// All items.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.turns.iter().flat_map(|(_, mine)| mine)
    }

    /// The number of items.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True if no item waits.
    pub fn is_empty(&self) -> bool {
        self.turns.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_back_is_its_principal_s_next_and_comes_after_the_others_turns() {
        let mut turns = Turns::default();
        for (who, n) in [("hog", 1), ("hog", 2), ("victim", 10), ("victim", 11)] {
            turns.push(Some(&who), n);
        }
        let mut served = Vec::new();
        // The very first item takes three turns.
        let mut left = 2;
        while let Some((who, n)) = turns.pop() {
            served.push(n);
            if n == 1 && left > 0 {
                left -= 1;
                turns.put_back(who.as_ref(), n);
            }
        }
        assert_eq!(served, [1, 10, 1, 11, 1, 2]);
        assert_eq!((turns.len(), turns.is_empty()), (0, true));
    }

    #[test]
    fn one_that_leaves_leaves_its_principal_the_turn() {
        let mut turns = Turns::default();
        for (who, n) in [("a", 1), ("a", 2), ("b", 3)] {
            turns.push(Some(&who), n);
        }
        assert_eq!(turns.remove(Some(&"a"), |n| *n == 1), Some(1));
        assert_eq!(turns.remove(Some(&"a"), |n| *n == 1), None);
        assert_eq!(turns.len(), 2);
        assert_eq!(turns.pop(), Some((Some("a"), 2)));
        assert_eq!(turns.remove(Some(&"b"), |_| true), Some(3));
        assert!(turns.is_empty());
    }
}
