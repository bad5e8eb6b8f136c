//! What came of reading the configuration again, for whoever wished it. A value.

use super::Problem;

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reloaded {
    /// It was taken over.
    Taken {
        /// What differs, for people.
        changes: String,
        /// What the operator should know although it is no error.
        warnings: Vec<String>,
        /// Keys of the file that differ and take effect at the next start.
        at_next_start: Vec<&'static str>,
    },
    /// Something is wrong with it, so nothing has changed.
    Refused(Vec<Problem>),
    /// It was taken over in part only, for this reason; it is tried again.
    InPart(String),
}
