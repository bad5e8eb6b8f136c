//! The result of a reload, for its requester. A value.

/// The result of reading the configuration again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reloaded {
    /// The new configuration runs.
    Taken {
        /// The differences, for people.
        changes: String,
        /// Warnings for the operator, each with its place.
        warnings: Vec<String>,
        /// Changed keys of the file that take effect at the next start.
        at_next_start: Vec<&'static str>,
    },
    /// The configuration has faults, so nothing has changed: every problem, with its place in the
    /// file.
    Refused(Vec<String>),
    /// Only a part of the configuration runs, for this reason; the rest is tried again.
    InPart(String),
}
