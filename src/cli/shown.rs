//! Pure: foreign texts for a terminal.

/// Invisible characters, and those that turn the direction of a line, become escapes: a server
/// must not choose what is shown.
pub(super) fn shown(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_ascii() && !c.is_ascii_control() {
            out.push(c);
        } else {
            out.extend(c.escape_debug());
        }
    }
    out
}

/// As [`shown`], for a text of several lines.
pub(super) fn shown_lines(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for part in text.split_inclusive(['\n', '\t']) {
        let end = part.ends_with(['\n', '\t']);
        let (line, end) = part.split_at(part.len() - usize::from(end));
        out.push_str(&shown(line));
        out.push_str(end);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::{shown, shown_lines};

    #[test]
    fn what_is_not_seen_is_shown() {
        assert_eq!(shown("a\"\\n é"), "a\"\\n é");
        assert_eq!(shown_lines("a\tb\r\n\u{1b}c\n"), "a\tb\\r\n\\u{1b}c\n");
        assert_eq!(shown("\u{202e}\u{200b}\u{1b}[2J\n"), "\\u{202e}\\u{200b}\\u{1b}[2J\\n");
    }
}
