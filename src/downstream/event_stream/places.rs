//! Who holds how many of the streams. Pure.

use std::collections::HashMap;
use std::sync::Arc;

use super::Full;

/// The places that are taken.
#[derive(Debug, Default)]
pub(super) struct Places {
    taken: usize,
    of_key: HashMap<Arc<str>, usize>,
}

impl Places {
    /// Takes a place, for that key where one is to be held to its share.
    ///
    /// A key may hold as many streams as are still free for everybody else: so one alone gets
    /// half of them, each further one half of what is left, and while any is free, whoever
    /// holds none gets one.
    pub(super) fn take(&mut self, streams: usize, key: Option<&Arc<str>>) -> Result<(), Full> {
        let free = streams.saturating_sub(self.taken);
        if free == 0 {
            return Err(Full::Streams);
        }
        if let Some(key) = key {
            let held = self.of_key.entry(key.clone()).or_default();
            if *held >= free {
                return Err(Full::KeyShare);
            }
            *held += 1;
        }
        self.taken += 1;
        Ok(())
    }

    /// Gives a place back that was taken for `key`.
    pub(super) fn give_back(&mut self, key: Option<&Arc<str>>) {
        self.taken = self.taken.saturating_sub(1);
        let Some(key) = key else { return };
        if let Some(held) = self.of_key.get_mut(key) {
            *held = held.saturating_sub(1);
            if *held == 0 {
                self.of_key.remove(key);
            }
        }
    }

    /// How many are taken.
    pub(super) fn taken(&self) -> usize {
        self.taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_leaves_others_as_many_as_it_holds() {
        let mut places = Places::default();
        let [a, b, c] = ["a", "b", "c"].map(Arc::<str>::from);
        let mut taken_by = |key: &Arc<str>| {
            let mut n_taken = 0;
            loop {
                match places.take(8, Some(key)) {
                    Ok(()) => n_taken += 1,
                    Err(full) => return (n_taken, full),
                }
            }
        };
        assert_eq!(taken_by(&a), (4, Full::KeyShare));
        assert_eq!(taken_by(&b), (2, Full::KeyShare));
        assert_eq!(taken_by(&c), (1, Full::KeyShare));
        assert_eq!(taken_by(&"d".into()), (1, Full::Streams));
        assert_eq!(places.taken(), 8);
        places.give_back(Some(&b));
        assert_eq!(places.take(8, Some(&a)), Err(Full::KeyShare));
        assert_eq!(places.take(8, Some(&"e".into())), Ok(()));
    }

    #[test]
    fn whoever_is_held_to_no_share_may_have_all() {
        let mut places = Places::default();
        for _ in 0..3 {
            assert_eq!(places.take(3, None), Ok(()));
        }
        assert_eq!(places.take(3, None), Err(Full::Streams));
        places.give_back(None);
        assert_eq!(places.take(3, None), Ok(()));
    }

    #[test]
    fn nothing_is_remembered_of_a_key_without_streams() {
        let mut places = Places::default();
        let key: Arc<str> = "k".into();
        places.take(2, Some(&key)).unwrap();
        places.give_back(Some(&key));
        assert!(places.of_key.is_empty());
        // Nor of one that got none.
        places.take(1, None).unwrap();
        places.take(1, Some(&key)).unwrap_err();
        assert!(places.of_key.is_empty());
    }
}
