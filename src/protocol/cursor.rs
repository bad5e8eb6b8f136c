//! Where the next page of a list begins: opaque to clients, authenticated, and good for the
//! list and the view that it was made for only (2025-11-25, server/utilities/pagination).

use super::sealed::Sealer;

/// Between the view and the name.
const SEPARATOR: char = '\n';

/// The cursor of a page that begins behind the item named `after`. Named and not counted, so
/// that items which come or go meanwhile shift nothing.
pub fn seal(sealer: &Sealer, view: &str, after: &str) -> String {
    sealer.seal(&format!("{view}{SEPARATOR}{after}"))
}

/// The name behind which the page begins; none if the cursor was made for another view, or by
/// somebody else.
pub fn open(sealer: &Sealer, view: &str, cursor: &str) -> Option<String> {
    let text = sealer.open(cursor)?;
    let after = text.strip_prefix(view)?.strip_prefix(SEPARATOR)?;
    Some(after.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_opens_in_its_own_view_alone() {
        let sealer = Sealer::new(&[1; 32], "cursor");
        let cursor = seal(&sealer, "tools|laptop", "echo");
        assert_eq!(open(&sealer, "tools|laptop", &cursor).as_deref(), Some("echo"));
        assert_eq!(open(&sealer, "tools|lap", &cursor), None);
        assert_eq!(open(&sealer, "prompts|laptop", &cursor), None);
        assert_eq!(open(&sealer, "tools|laptop", "ZXZpbA.x"), None);
    }
}
