//! Pure: the shares of principals in a bounded resource: how much each holds, and may take, so
//! that none can have what the others need.

use std::collections::HashMap;
use std::hash::Hash;

use crate::limits::SHARES_MIN;

/// A bounded resource and the units that each principal `P` holds.
#[derive(Debug)]
pub struct Shares<P> {
    max: usize,
    taken: usize,
    held: HashMap<P, usize>,
    /// True if a principal that takes up to its share leaves a part of it to later ones.
    is_long_held: bool,
}

/// The reason why a principal gets no more of a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotTaken {
    /// Nothing is left.
    Full,
    /// The rest is kept for others: the principal holds its share.
    ShareHeld,
}

impl<P: Clone + Eq + Hash> Shares<P> {
    /// A resource of `max` units, which are given back soon.
    pub fn new(max: usize) -> Shares<P> {
        Shares { max, taken: 0, held: HashMap::new(), is_long_held: false }
    }

    /// A resource of `max` units that principals may keep for long, and that cannot be taken from
    /// them: a third principal finds something even where two hold all that they get.
    pub fn long_held(max: usize) -> Shares<P> {
        Shares { is_long_held: true, ..Shares::new(max) }
    }

    /// The units that each principal may have, whatever the others hold: an equal part, counting
    /// one more principal than there are, and never more than 1/[`SHARES_MIN`].
    pub fn share(&self, who: &P) -> usize {
        let n_principals = self.held.len() + usize::from(!self.held.contains_key(who));
        // Even a bound of few units is for more than one principal.
        (self.max / (n_principals + 1).max(SHARES_MIN)).max(1)
    }

    /// As [`Shares::share`]; without a principal, all units.
    pub fn share_of(&self, who: Option<&P>) -> usize {
        who.map_or(self.max, |who| self.share(who))
    }

    /// Checks that `who` may take `units` more. Up to its share it may if they are free; beyond,
    /// only while a whole share stays free for the next principal. Of a long-held resource some
    /// units stay free in any case, 1/[`SHARES_MIN`] of what it would hold: each new principal
    /// finds some, and leaves some in its turn.
    ///
    /// # Errors
    /// The principal may not take them.
    pub fn may_take(&self, who: &P, units: usize) -> Result<(), NotTaken> {
        let taken = self.taken.saturating_add(units);
        if taken > self.max {
            return Err(NotTaken::Full);
        }
        let (free, share) = (self.max - taken, self.share(who));
        let held = self.held(who).saturating_add(units);
        let rest = if self.is_long_held { held / SHARES_MIN } else { 0 };
        let is_within = held <= share && free >= rest;
        if is_within || free >= share { Ok(()) } else { Err(NotTaken::ShareHeld) }
    }

    /// Takes `units` for `who`, to be given back by [`Shares::give_back`].
    ///
    /// # Errors
    /// The principal may not have them; none are taken.
    pub fn take(&mut self, who: &P, units: usize) -> Result<(), NotTaken> {
        self.may_take(who, units)?;
        self.take_for_now(who, units)
    }

    /// Takes `units` for no principal.
    ///
    /// # Errors
    /// The units are not free; none are taken.
    pub fn take_for_nobody(&mut self, units: usize) -> Result<(), NotTaken> {
        self.may_take_of(None, units)?;
        self.taken += units;
        Ok(())
    }

    /// Checks that `who` may take `units` as by [`Shares::may_take`], or that they are free for
    /// none.
    ///
    /// # Errors
    /// The units may not be taken.
    pub fn may_take_of(&self, who: Option<&P>, units: usize) -> Result<(), NotTaken> {
        match who {
            Some(who) => self.may_take(who, units),
            None if self.taken.saturating_add(units) > self.max => Err(NotTaken::Full),
            None => Ok(()),
        }
    }

    /// Takes `units` for `who` as [`Shares::take`], or for no principal where `who` is none.
    ///
    /// # Errors
    /// The units may not be taken; none are.
    pub fn take_of(&mut self, who: Option<&P>, units: usize) -> Result<(), NotTaken> {
        match who {
            Some(who) => self.take(who, units),
            None => self.take_for_nobody(units),
        }
    }

    /// Gives back units that were taken for `who`, or for no principal.
    pub fn give_back_of(&mut self, who: Option<&P>, units: usize) {
        match who {
            Some(who) => self.give_back(who, units),
            None => self.give_back_for_nobody(units),
        }
    }

    /// Gives back units that were taken for `who`.
    pub fn give_back(&mut self, who: &P, units: usize) {
        let Some(held) = self.held.get_mut(who) else { return };
        let units = units.min(*held);
        *held -= units;
        if *held == 0 {
            self.held.remove(who);
        }
        self.taken -= units;
    }

    /// Gives back units that were taken for no principal.
    pub fn give_back_for_nobody(&mut self, units: usize) {
        self.taken = self.taken.saturating_sub(units);
    }

    /// The units that `who` holds.
    pub fn held(&self, who: &P) -> usize {
        self.held.get(who).copied().unwrap_or_default()
    }

    /// True if `who` holds its share, or more.
    pub fn has_share(&self, who: &P) -> bool {
        self.held(who) >= self.share(who)
    }

    /// The principal that holds most, if any holds units: room is made at its cost.
    fn heaviest(&self) -> Option<(&P, usize)> {
        let heaviest = self.held.iter().max_by_key(|(_, held)| **held);
        heaviest.map(|(who, held)| (who, *held))
    }

    /// The principal that must give up units so that `who` gets `units` of a resource that can be
    /// taken back: the one that holds most, but `who` itself where it would hold more than that.
    /// None where the units are free.
    pub fn in_the_way_of(&self, who: &P, units: usize) -> Option<P> {
        if self.taken.saturating_add(units) <= self.max {
            return None;
        }
        let wanted = self.held(who).saturating_add(units);
        let heavier = self.heaviest().filter(|(_, held)| *held >= wanted);
        Some(heavier.map_or_else(|| who.clone(), |(heaviest, _)| heaviest.clone()))
    }

    /// Takes `units` for `who` of a resource that can be taken back, so that none are kept for
    /// others.
    ///
    /// # Errors
    /// The units are not free; none are taken.
    pub fn take_for_now(&mut self, who: &P, units: usize) -> Result<(), NotTaken> {
        self.take_for_nobody(units)?;
        if units > 0 {
            *self.held.entry(who.clone()).or_default() += units;
        }
        Ok(())
    }

    /// The units that all principals together hold.
    pub fn taken(&self) -> usize {
        self.taken
    }

    /// The units of the resource.
    pub fn max(&self) -> usize {
        self.max
    }

    /// The units that were taken for no principal.
    pub fn held_by_nobody(&self) -> usize {
        self.taken.saturating_sub(self.held.values().sum())
    }

    /// Passes units that were taken by [`Shares::take_of`] on: the total stays the same.
    pub fn hand_over(&mut self, from: Option<&P>, to: Option<&P>, units: usize) {
        self.give_back_of(from, units);
        self.taken = self.taken.saturating_add(units);
        if let Some(to) = to
            && units > 0
        {
            *self.held.entry(to.clone()).or_default() += units;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes units one by one until no more are given.
    fn take_all(shares: &mut Shares<&'static str>, who: &'static str) -> (usize, NotTaken) {
        let mut n_taken = 0;
        loop {
            match shares.take(&who, 1) {
                Ok(()) => n_taken += 1,
                Err(why) => return (n_taken, why),
            }
        }
    }

    #[test]
    fn one_alone_has_all_but_one_share_and_each_newcomer_gets_one() {
        let mut shares = Shares::new(120);
        assert_eq!(take_all(&mut shares, "hog"), (90, NotTaken::ShareHeld));
        assert_eq!(take_all(&mut shares, "victim"), (30, NotTaken::Full));
        assert_eq!(shares.heaviest(), Some((&"hog", 90)));
        // A unit that a principal above its share gives back is not given to it again.
        shares.give_back(&"hog", 1);
        assert_eq!(shares.take(&"hog", 1), Err(NotTaken::ShareHeld));
        assert_eq!(shares.take(&"third", 1), Ok(()));
        assert_eq!(shares.taken(), 120);
    }

    #[test]
    fn of_what_is_held_for_long_each_leaves_something() {
        let mut shares = Shares::long_held(120);
        let all = ["hog", "victim", "third", "fourth", "fifth"];
        let all = all.map(|who| take_all(&mut shares, who));
        let (held, full) = (NotTaken::ShareHeld, NotTaken::Full);
        assert_eq!(all, [(90, held), (24, held), (5, held), (1, full), (0, full)]);
        // Units that come back are for principals that have less.
        shares.give_back(&"hog", 2);
        assert_eq!(shares.take(&"hog", 1), Err(held));
        assert_eq!(take_all(&mut shares, "fifth"), (2, full));
    }

    /// In any world: a principal that finds units free gets some of them, none above its share
    /// gets units that come back while others have less, and all units that are given back are
    /// there.
    #[test]
    fn in_any_world_a_newcomer_finds_something_and_what_comes_back_is_for_the_lighter() {
        let mut seed = 7_u64;
        let mut random = |below: usize| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888);
            usize::try_from(seed >> 33).unwrap() % below
        };
        for _ in 0..300 {
            let max = 1 + random(5000);
            let mut shares = Shares::long_held(max);
            // Each takes all units that it gets, some in small pieces and some in large ones.
            let n_greedy = 1 + random(6);
            for who in 0..n_greedy {
                let free = max - shares.taken();
                let mut piece = 1 + random(max);
                while piece > 0 {
                    while shares.take(&who, piece).is_ok() {}
                    piece /= 2;
                }
                let held = shares.held(&who);
                assert_eq!(held > 0, free > 0, "{who} of {max}: {shares:?}");
                let left = max - shares.taken();
                assert!(free < SHARES_MIN || left > 0, "{who} of {max}: {shares:?}");
            }
            // Units that one gives back are not for those above their share before a new one has
            // some.
            let giver = random(n_greedy);
            let back = shares.held(&giver).min(1 + random(3));
            shares.give_back(&giver, back);
            for who in 0..n_greedy {
                let (held, share) = (shares.held(&who), shares.share(&who));
                let is_free = max - shares.taken() > share;
                assert!(held < share || is_free || shares.take(&who, 1).is_err());
            }
            let (newcomer, is_free) = (n_greedy, shares.taken() < max);
            assert_eq!(shares.take(&newcomer, 1).is_ok(), is_free, "{shares:?}");
            (0..=newcomer).for_each(|who| shares.give_back(&who, max));
            assert_eq!((shares.taken(), shares.held.len()), (0, 0));
        }
    }

    #[test]
    fn shares_get_smaller_with_the_number_of_principals() {
        let mut shares = Shares::new(100);
        for who in ["a", "b", "c", "d"] {
            shares.take(&who, 10).unwrap();
        }
        assert_eq!(take_all(&mut shares, "a"), (40, NotTaken::ShareHeld));
        assert_eq!(take_all(&mut shares, "e"), (16, NotTaken::ShareHeld));
    }

    #[test]
    fn room_is_made_by_whoever_holds_most_and_never_by_the_lighter() {
        let mut shares = Shares::new(100);
        shares.take_for_now(&"hog", 75).unwrap();
        assert_eq!(shares.in_the_way_of(&"hog", 30), Some("hog"));
        assert_eq!(shares.in_the_way_of(&"victim", 20), None);
        shares.take_for_now(&"victim", 25).unwrap();
        assert_eq!(shares.in_the_way_of(&"victim", 10), Some("hog"));
        assert_eq!(shares.in_the_way_of(&"victim", 60), Some("victim"));
        assert_eq!(shares.in_the_way_of(&"third", 10), Some("hog"));
    }

    #[test]
    fn a_bound_of_one_unit_is_for_whoever_comes_first() {
        let mut shares = Shares::new(1);
        assert_eq!(take_all(&mut shares, "a"), (1, NotTaken::Full));
        shares.give_back(&"a", 1);
        assert_eq!(take_all(&mut shares, "b"), (1, NotTaken::Full));
    }

    #[test]
    fn what_is_handed_over_is_the_other_s_share() {
        let mut shares = Shares::new(4);
        assert_eq!(take_all(&mut shares, "a").0, 3);
        shares.hand_over(Some(&"a"), Some(&"b"), 2);
        assert_eq!((shares.held(&"a"), shares.held(&"b"), shares.taken()), (1, 2, 3));
        shares.hand_over(Some(&"b"), None, 1);
        shares.give_back(&"a", 1);
        shares.give_back(&"b", 1);
        assert_eq!((shares.held_by_nobody(), shares.held.len()), (1, 0));
        shares.give_back_of(None, 1);
        assert_eq!(shares.taken(), 0);
    }

    #[test]
    fn nothing_is_remembered_of_whoever_holds_nothing() {
        let mut shares = Shares::new(10);
        shares.take(&"a", 0).unwrap();
        shares.take(&"a", 2).unwrap();
        shares.give_back(&"a", 5);
        assert_eq!((shares.taken(), shares.held.len()), (0, 0));
        shares.take_for_nobody(10).unwrap();
        assert_eq!(shares.take(&"a", 1), Err(NotTaken::Full));
        assert_eq!(shares.take_for_nobody(1), Err(NotTaken::Full));
        shares.give_back_for_nobody(10);
        assert_eq!(shares.take(&"a", 1), Ok(()));
    }
}
