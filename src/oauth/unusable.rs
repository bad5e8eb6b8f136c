//! Pure: why a document, an answer, a URL or a key is not used.

use std::fmt;

/// Why something is not used: one clause in plain text, with the place, without secrets and
/// without control characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unusable(String);

impl Unusable {
    /// Takes the clause.
    pub fn new(text: impl Into<String>) -> Unusable {
        Unusable(text.into())
    }

    /// The same with the place before it, as in `place: clause`.
    #[must_use]
    pub fn at(self, place: &str) -> Unusable {
        Unusable(format!("{place}: {}", self.0))
    }

    /// The clause.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unusable {}

/// A foreign text as it may stand in a message: quoted, escaped, and cut after a few characters.
pub(crate) fn shown(text: &str) -> String {
    let mut chars = text.chars();
    let start: String = chars.by_ref().take(SHOWN_CHARS_MAX).collect();
    let cut = if chars.next().is_some() { "…" } else { "" };
    format!("{start:?}{cut}")
}

/// Characters of a foreign text in a message.
const SHOWN_CHARS_MAX: usize = 120;
