//! The protocol's revisions. No other file contains their dates.

use std::fmt;

/// The specification's two eras: revisions with sessions, and revisions without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Era {
    /// Up to 2025-11-25: `initialize` opens a session.
    Legacy,
    /// From 2026-07-28: every request is whole in itself.
    Modern,
}

impl Era {
    /// The word for `/status` and people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Legacy => "legacy",
            Self::Modern => "modern",
        }
    }

    /// The other era.
    pub fn other(self) -> Era {
        match self {
            Self::Legacy => Self::Modern,
            Self::Modern => Self::Legacy,
        }
    }
}

/// A revision of the specification. Revisions have no order in code: each difference has a method
/// of its own name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Revision {
    /// 2024-11-05: HTTP+SSE.
    V2024_11_05,
    /// 2025-03-26: Streamable HTTP, batches.
    V2025_03_26,
    /// 2025-06-18: the `MCP-Protocol-Version` header, structured results.
    V2025_06_18,
    /// 2025-11-25: the last revision with sessions.
    V2025_11_25,
    /// 2026-07-28: every request is whole in itself.
    V2026_07_28,
}

impl Revision {
    /// Every revision, newest first.
    pub const ALL: [Revision; 5] = [
        Self::V2026_07_28,
        Self::V2025_11_25,
        Self::V2025_06_18,
        Self::V2025_03_26,
        Self::V2024_11_05,
    ];
    /// The newest revision without sessions.
    pub const LATEST_MODERN: Revision = Self::V2026_07_28;
    /// The answer to an `initialize` of a client that asks for a revision that is unknown or has
    /// no `initialize` (2025-11-25, basic/lifecycle, Version Negotiation).
    pub const LATEST_LEGACY: Revision = Self::V2025_11_25;
    /// The revision that is assumed for a Streamable HTTP request without `MCP-Protocol-Version`
    /// and without another way to tell (2025-11-25, basic/transports, Protocol Version Header).
    pub const ASSUMED: Revision = Self::V2025_03_26;

    /// The date on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V2024_11_05 => "2024-11-05",
            Self::V2025_03_26 => "2025-03-26",
            Self::V2025_06_18 => "2025-06-18",
            Self::V2025_11_25 => "2025-11-25",
            Self::V2026_07_28 => "2026-07-28",
        }
    }

    /// The revision of that date.
    pub fn parse(text: &str) -> Option<Revision> {
        Self::ALL.into_iter().find(|revision| revision.as_str() == text)
    }

    /// The revision's era.
    pub fn era(self) -> Era {
        match self {
            Self::V2024_11_05 | Self::V2025_03_26 | Self::V2025_06_18 | Self::V2025_11_25 => {
                Era::Legacy
            }
            Self::V2026_07_28 => Era::Modern,
        }
    }

    /// The revision of that date, if it has sessions.
    pub fn parse_legacy(text: &str) -> Option<Revision> {
        Self::parse(text).filter(|revision| revision.era() == Era::Legacy)
    }

    /// The revision with which a server answers a client's `initialize`.
    pub fn negotiate(requested: &str) -> Revision {
        Self::parse_legacy(requested).unwrap_or(Self::LATEST_LEGACY)
    }

    /// Members of `serverInfo` that show a server to people, beside its name and version
    /// (2025-06-18, changelog, 8; 2025-11-25, changelog, Minor changes).
    pub fn shown_of_servers(self) -> &'static [&'static str] {
        match self {
            Self::V2024_11_05 | Self::V2025_03_26 => &[],
            Self::V2025_06_18 => &["title"],
            Self::V2025_11_25 | Self::V2026_07_28 => {
                &["title", "description", "icons", "websiteUrl"]
            }
        }
    }

    /// True if one POST may hold an array of messages (2025-03-26, basic/transports).
    pub fn allows_batches(self) -> bool {
        match self {
            Self::V2025_03_26 => true,
            Self::V2024_11_05 | Self::V2025_06_18 | Self::V2025_11_25 | Self::V2026_07_28 => {
                false
            }
        }
    }

    /// True if a stream begins with an event that carries an id and no message (2025-11-25,
    /// basic/transports, Sending Messages). Older clients take such an event for a broken
    /// message.
    pub fn primes_streams(self) -> bool {
        match self {
            Self::V2025_11_25 => true,
            Self::V2024_11_05 | Self::V2025_03_26 | Self::V2025_06_18 | Self::V2026_07_28 => {
                false
            }
        }
    }

    /// True if the revision has tasks (2025-11-25, basic/utilities/tasks).
    pub fn has_tasks(self) -> bool {
        match self {
            Self::V2025_11_25 => true,
            Self::V2024_11_05
            | Self::V2025_03_26
            | Self::V2025_06_18
            // In 2026-07-28 tasks are an extension, with other messages.
            | Self::V2026_07_28 => false,
        }
    }

    /// True if content may be audio (2025-03-26, changelog).
    pub fn has_audio(self) -> bool {
        match self {
            Self::V2025_03_26 | Self::V2025_06_18 | Self::V2025_11_25 | Self::V2026_07_28 => {
                true
            }
            Self::V2024_11_05 => false,
        }
    }

    /// True if content may be a link to a resource (2025-06-18, changelog).
    pub fn has_resource_links(self) -> bool {
        match self {
            Self::V2025_06_18 | Self::V2025_11_25 | Self::V2026_07_28 => true,
            Self::V2024_11_05 | Self::V2025_03_26 => false,
        }
    }

    /// True if structured content may be any value, and its schema any schema (2026-07-28,
    /// changelog); else both are an object's.
    pub fn has_any_output(self) -> bool {
        match self {
            Self::V2026_07_28 => true,
            Self::V2024_11_05 | Self::V2025_03_26 | Self::V2025_06_18 | Self::V2025_11_25 => {
                false
            }
        }
    }

    /// True if an elicitation of a URL has an id under which its end is told (2025-11-25,
    /// client/elicitation); the next revision has given that up.
    pub fn has_elicitation_ids(self) -> bool {
        match self {
            Self::V2025_11_25 => true,
            Self::V2024_11_05 | Self::V2025_03_26 | Self::V2025_06_18 | Self::V2026_07_28 => {
                false
            }
        }
    }

    /// True if a form may offer titled choices, and several of them at once, and a message for
    /// sampling may hold several blocks (2025-11-25, changelog).
    pub fn has_choices_and_blocks(self) -> bool {
        match self {
            Self::V2025_11_25 | Self::V2026_07_28 => true,
            Self::V2024_11_05 | Self::V2025_03_26 | Self::V2025_06_18 => false,
        }
    }

    /// True if the number of a completion's values is bounded (2026-07-28, schema).
    pub fn bounds_completions(self) -> bool {
        match self {
            Self::V2026_07_28 => true,
            Self::V2024_11_05 | Self::V2025_03_26 | Self::V2025_06_18 | Self::V2025_11_25 => {
                false
            }
        }
    }

    /// True if servers send requests to clients while a call runs; else they answer the call with
    /// `input_required` (2026-07-28, basic/patterns/mrtr).
    pub fn asks_during_calls(self) -> bool {
        self.era() == Era::Legacy
    }

    /// True if requests after `initialize` carry `MCP-Protocol-Version`.
    pub fn has_version_header(self) -> bool {
        match self {
            Self::V2025_06_18 | Self::V2025_11_25 | Self::V2026_07_28 => true,
            Self::V2024_11_05 | Self::V2025_03_26 => false,
        }
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::Revision;

    #[test]
    fn every_date_reads_back() {
        for revision in Revision::ALL {
            assert_eq!(Revision::parse(revision.as_str()), Some(revision));
        }
    }

    #[test]
    fn an_unknown_revision_is_answered_with_the_latest_legacy_one() {
        assert_eq!(Revision::negotiate("1999-01-01"), Revision::LATEST_LEGACY);
        assert_eq!(Revision::negotiate("2026-07-28"), Revision::LATEST_LEGACY);
        assert_eq!(Revision::negotiate("2025-03-26"), Revision::V2025_03_26);
    }
}
