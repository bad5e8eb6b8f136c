//! Cursors of lists: opaque to clients, authenticated, and good only for the list and the view
//! that they were made for (2025-11-25, server/utilities/pagination).

use super::sealed::Sealer;

/// Stands between the view, the position and the name.
const SEPARATOR: char = '\n';

/// The item behind which a page begins. It is named and not only counted, so that items which
/// come or go meanwhile shift nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The item's name.
    pub name: String,
    /// The number of items before it, for the case that it is gone from a list that is not
    /// sorted.
    pub position: usize,
}

/// The cursor of a page that begins behind an item.
pub fn seal(sealer: &Sealer, view: &str, place: &Place) -> String {
    let Place { name, position } = place;
    sealer.seal(&format!("{view}{SEPARATOR}{position}{SEPARATOR}{name}"))
}

/// The item behind which the page begins; none if the cursor was made for another view, or not by
/// this gateway.
pub fn open(sealer: &Sealer, view: &str, cursor: &str) -> Option<Place> {
    let text = sealer.open(cursor)?;
    let place = text.strip_prefix(view)?.strip_prefix(SEPARATOR)?;
    let (position, name) = place.split_once(SEPARATOR)?;
    Some(Place { name: name.to_owned(), position: position.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_opens_in_its_own_view_alone() {
        let sealer = Sealer::new(&[1; 32], "cursor");
        let place = Place { name: "echo\n1".to_owned(), position: 7 };
        let cursor = seal(&sealer, "tools|laptop", &place);
        assert_eq!(open(&sealer, "tools|laptop", &cursor), Some(place));
        assert_eq!(open(&sealer, "tools|lap", &cursor), None);
        assert_eq!(open(&sealer, "prompts|laptop", &cursor), None);
        assert_eq!(open(&sealer, "tools|laptop", "ZXZpbA.x"), None);
    }
}
