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
            // Those that no remembered token and no session has.
            self.0.retain(|_, bucket| Arc::strong_count(bucket) > 1);
        }
        let bucket = Arc::new(Mutex::new(Bucket::new(now, calls_per_minute)));
        if self.0.len() < METERED_USERS_MAX {
            self.0.insert(key, bucket.clone());
        }
        bucket
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
        let (mut users, now) = (MeteredUsers::default(), Instant::now());
        let held: Vec<_> = (0..METERED_USERS_MAX + 10)
            .map(|n| users.bucket(&n.to_string().into(), 1, now))
            .collect();
        assert_eq!(users.0.len(), METERED_USERS_MAX);
        drop(held);
        users.bucket(&"new".into(), 1, now);
        assert_eq!(users.0.len(), 1);
    }
}
