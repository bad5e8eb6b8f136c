//! What came of reading the configuration again, for whoever wished it. A value.

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reloaded {
    /// It was taken over.
    Taken {
        /// What differs, for people.
        changes: String,
        /// What the operator should know although it is no error, with its place.
        warnings: Vec<String>,
        /// Keys of the file that differ and take effect at the next start.
        at_next_start: Vec<&'static str>,
    },
    /// Something is wrong with it, so nothing has changed: every problem, with its place in
    /// the file.
    Refused(Vec<String>),
    /// It was taken over in part only, for this reason; it is tried again.
    InPart(String),
}
