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

/// A text that a server wrote for people, as it may be shown: cut, and without control characters.
pub(crate) fn plain(text: &str) -> String {
    let chars = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    chars.take(PLAIN_CHARS_MAX).collect()
}

/// Characters of a foreign text in a message.
const SHOWN_CHARS_MAX: usize = 120;
/// Characters of a server's explanation.
const PLAIN_CHARS_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_texts_are_shown_cut_and_escaped() {
        assert_eq!(shown("a\"b\n\u{1b}"), r#""a\"b\n\u{1b}""#);
        assert!(shown(&"é".repeat(10_000)).chars().count() < SHOWN_CHARS_MAX + 4);
        assert_eq!(plain("a\r\nb\u{1b}[1m"), "a  b [1m");
        assert_eq!(plain(&"é".repeat(10_000)).chars().count(), PLAIN_CHARS_MAX);
        assert_eq!(Unusable::new("is odd").at("issuer").to_string(), "issuer: is odd");
    }
}
