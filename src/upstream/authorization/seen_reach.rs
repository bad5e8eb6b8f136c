//! Pure: how far away what a server names may be, by where the server's own name has led.

use std::time::Instant;

use crate::limits::REACH_MEMORY;
use crate::oauth::fetch::Reach;

/// The narrowest reach that a server's name has led to of late. Else whoever owns the name could let
/// it lead to this machine a moment later, and have the gateway ask what only this machine reaches
/// (DNS rebinding). It is forgotten after a while: the same name leads elsewhere in another network.
#[derive(Debug, Default)]
pub(super) struct SeenReach(Option<(Reach, Instant)>);

impl SeenReach {
    /// The reach at present, where the name leads to `found` now.
    pub(super) fn narrowed(&mut self, found: Reach, now: Instant) -> Reach {
        match self.0 {
            Some((before, at))
                if before < found && now.saturating_duration_since(at) < REACH_MEMORY =>
            {
                before
            }
            Some(_) | None => {
                self.0 = Some((found, now));
                found
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_narrowest_of_late_counts_and_is_forgotten() {
        use Reach::{Loopback, PrivateNetworks, PublicOnly};
        let (began, mut seen) = (Instant::now(), SeenReach::default());
        let end = REACH_MEMORY.as_secs();
        for (at, found, expected) in [
            (0, Loopback, Loopback),
            (1, PublicOnly, PublicOnly),
            (2, Loopback, PublicOnly),
            (3, PublicOnly, PublicOnly),
            (end + 2, PrivateNetworks, PublicOnly),
            (end + 3, PrivateNetworks, PrivateNetworks),
            (end + 4, Loopback, PrivateNetworks),
            (2 * end + 3, Loopback, Loopback),
        ] {
            let now = began + Duration::from_secs(at);
            assert_eq!(seen.narrowed(found, now), expected, "{at}");
        }
    }
}
