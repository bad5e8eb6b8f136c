//! Pure: the calls that users have left, whatever tokens they come with.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use crate::access::quota::Bucket;
use crate::limits::METERED_USERS_MAX;
use crate::sync::Mutex;

/// The buckets of users, by their ids and the calls per minute that a rule gives them: rules may
/// differ between two tokens of one user, and to change between them must not fill a bucket.
#[derive(Debug, Default)]
pub(super) struct MeteredUsers(HashMap<(Arc<str>, u32), Arc<Mutex<Bucket>>>);

impl MeteredUsers {
    /// The bucket of a user.
    pub(super) fn bucket(
        &mut self,
        user: &Arc<str>,
        calls_per_minute: u32,
        now: Instant,
    ) -> Arc<Mutex<Bucket>> {
        let key = (user.clone(), calls_per_minute);
        if let Some(bucket) = self.0.get(&key) {
            return bucket.clone();
        }
        if self.0.len() >= METERED_USERS_MAX {
            self.make_room(now);
        }
        let bucket = Arc::new(Mutex::new(Bucket::new(now, calls_per_minute)));
        self.0.insert(key, bucket.clone());
        bucket
    }

    /// Forgets the buckets that are full and that no remembered token and no session has, else the
    /// eighth of those that were used longest ago: seldom, and many at once, because all are looked
    /// through.
    fn make_room(&mut self, now: Instant) {
        self.0.retain(|_, it| Arc::strong_count(it) > 1 || !it.lock().is_full(now));
        if self.0.len() < METERED_USERS_MAX {
            return;
        }
        let mut all: Vec<_> =
            self.0.iter().map(|(key, it)| (it.lock().free_at(), key.clone())).collect();
        all.sort_unstable_by_key(|(free_at, _)| *free_at);
        for (_, key) in all.into_iter().take(METERED_USERS_MAX / 8) {
            self.0.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn all_tokens_of_a_user_share_a_bucket() {
        let (mut users, now) =
            (MeteredUsers::default(), Instant::now() + Duration::from_secs(600));
        let mut take =
            |user: &str, calls| users.bucket(&user.into(), calls, now).lock().take(now).is_ok();
        assert!(take("a", 1) && !take("a", 1) && take("b", 1));
        // Another rule for the same user fills nothing.
        assert!(take("a", 2) && take("a", 2) && !take("a", 2) && !take("a", 1));
    }

    #[test]
    fn the_users_are_bounded() {
        let start = Instant::now() + Duration::from_secs(600);
        let mut users = MeteredUsers::default();
        // Each calls a moment later than the one before.
        let at = |n: usize| start + Duration::from_millis(u64::try_from(n).unwrap());
        let mut called = |n: usize| {
            let bucket = users.bucket(&n.to_string().into(), 1, at(n));
            let is_served = bucket.lock().take(at(n)).is_ok();
            (users.0.len(), is_served, bucket)
        };
        let held: Vec<_> = (0..METERED_USERS_MAX).map(&mut called).collect();
        assert!(held.iter().all(|(_, is_served, _)| *is_served));
        // Of users who all have called, those who called longest ago make room, and a user of two
        // tokens has one bucket all the same.
        let new = METERED_USERS_MAX;
        assert!(called(new).1 && !called(new).1);
        assert_eq!(called(new).0, METERED_USERS_MAX / 8 * 7 + 1);
        assert!(!called(new - 1).1 && called(0).1);
        // Those who may make all calls of a minute are forgotten without loss.
        drop(held);
        let later = start + Duration::from_secs(200);
        (new..2 * METERED_USERS_MAX)
            .for_each(|n| drop(users.bucket(&n.to_string().into(), 2, later)));
        assert!(users.0.len() < METERED_USERS_MAX, "{}", users.0.len());
    }
}
