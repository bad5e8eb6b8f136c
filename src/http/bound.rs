//! Pure: the bounds that the engine itself enforces, and their names in refusals.

use crate::limits::Limits;

/// The refusal's text where [`Bound::BufferedBytes`] is reached.
pub(crate) const TOO_MUCH_BUFFERED: &str = "too many bytes are buffered";

/// A bound of the engine that an operator may set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bound {
    Connections,
    ConnectionsPerAddress,
    BufferedBytes,
    HeadBytes,
    Headers,
    BodyBytes,
    HeadTime,
    BodyTime,
}

impl Bound {
    /// The refusal's text for the client: the reason, and the bound's key with its value.
    pub(crate) fn told(self, reason: &str, limits: &Limits) -> String {
        let (key, value) = match self {
            Bound::Connections => ("connections", count(limits.connections)),
            Bound::ConnectionsPerAddress => {
                ("connections_per_address", count(limits.connections_per_address))
            }
            Bound::BufferedBytes => ("buffered_bytes", count(limits.buffered_bytes)),
            Bound::HeadBytes => ("head_bytes", count(limits.head_bytes)),
            Bound::Headers => ("headers", count(limits.headers)),
            Bound::BodyBytes => ("body_bytes", count(limits.body_bytes)),
            Bound::HeadTime => ("head_ms", limits.head.as_millis()),
            Bound::BodyTime => ("body_ms", limits.body.as_millis()),
        };
        format!("{reason} (limits.{key} is {value})")
    }
}

fn count(value: usize) -> u128 {
    // 128 bits hold a `usize` on every target.
    u128::try_from(value).unwrap_or(u128::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bound_has_its_own_name() {
        let limits = Limits { connections_per_address: 7, ..Limits::default() };
        for (bound, named) in [
            (Bound::Connections, "limits.connections is 1024"),
            (Bound::ConnectionsPerAddress, "limits.connections_per_address is 7"),
            (Bound::BufferedBytes, "limits.buffered_bytes is 268435456"),
            (Bound::HeadBytes, "limits.head_bytes is 32768"),
            (Bound::Headers, "limits.headers is 100"),
            (Bound::BodyBytes, "limits.body_bytes is 4194304"),
            (Bound::HeadTime, "limits.head_ms is 10000"),
            (Bound::BodyTime, "limits.body_ms is 30000"),
        ] {
            assert_eq!(bound.told("why", &limits), format!("why ({named})"));
        }
    }
}
