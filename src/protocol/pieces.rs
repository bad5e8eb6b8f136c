//! Pure: texts side by side in few large pieces of memory.
//!
//! A list is thousands of texts of some hundred bytes. Allocated one by one they lie between
//! other allocations, and where those stay, the memory of dropped texts stays with the process
//! too. A large piece is mapped by itself, and goes back to the system with its last text.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use super::raw::Raw;
use crate::limits::PIECE_BYTES;

/// Texts that are put side by side in large pieces.
#[derive(Debug, Default)]
pub struct Packing {
    full: Vec<Arc<String>>,
    open: String,
    /// Each text's piece and its range in the piece.
    places: Vec<(usize, Range<usize>)>,
}

impl Packing {
    /// Takes one more text, which must be one valid JSON value.
    pub fn push(&mut self, text: &str) {
        if !self.open.is_empty() && self.open.len() + text.len() > PIECE_BYTES {
            // A list that has filled one piece fills the next.
            let full = std::mem::replace(&mut self.open, String::with_capacity(PIECE_BYTES));
            self.full.push(Arc::new(full));
        }
        let start = self.open.len();
        self.open.push_str(text);
        self.places.push((self.full.len(), start..self.open.len()));
    }

    /// The texts in the order in which they came.
    pub fn finish(mut self) -> Vec<Raw> {
        self.open.shrink_to_fit();
        let mut pieces = self.full;
        pieces.push(Arc::new(self.open));
        let text = |(piece, range): (usize, Range<usize>)| {
            let piece: &Arc<String> = pieces.get(piece)?;
            Some(Raw::part_of(piece, piece.get(range)?))
        };
        self.places.into_iter().filter_map(text).collect()
    }
}

/// The bytes of each piece that some texts use.
#[derive(Debug, Default)]
pub struct Usage(HashMap<usize, Used>);

#[derive(Debug)]
struct Used {
    bytes: usize,
    of: usize,
}

impl Usage {
    /// The usage by these texts, which all differ.
    pub fn of<'a>(texts: impl Iterator<Item = &'a Raw>) -> Usage {
        let mut usage = Usage::default();
        for text in texts {
            let (piece, of) = text.piece();
            let used = usage.0.entry(piece).or_insert(Used { bytes: 0, of });
            used.bytes += text.get().len();
        }
        usage
    }

    /// True if less than half of the text's piece is used, so that keeping it costs more than a
    /// copy.
    pub fn is_sparse(&self, text: &Raw) -> bool {
        self.0.get(&text.piece().0).is_some_and(|used| 2 * used.bytes < used.of)
    }

    /// Bytes of all pieces.
    pub fn held_bytes(&self) -> usize {
        self.0.values().map(|used| used.of).sum()
    }
}

/// Moves texts together whose pieces are little used, so that all pieces hold no more than twice
/// the bytes of their texts.
pub fn compact<T>(items: &mut [(T, Raw)]) {
    let usage = Usage::of(items.iter().map(|(_, text)| text));
    let mut sparse: Vec<&mut Raw> =
        items.iter_mut().map(|(_, text)| text).filter(|text| usage.is_sparse(text)).collect();
    let mut packing = Packing::default();
    sparse.iter().for_each(|text| packing.push(text.get()));
    for (text, moved) in sparse.iter_mut().zip(packing.finish()) {
        **text = moved;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(texts: &[String]) -> Vec<Raw> {
        let mut packing = Packing::default();
        texts.iter().for_each(|text| packing.push(text));
        packing.finish()
    }

    #[test]
    fn texts_share_pieces_and_stay_what_they_are() {
        let texts: Vec<String> =
            (0..100).map(|n| format!("\"{n}{}\"", "x".repeat(PIECE_BYTES / 10))).collect();
        let raws = packed(&texts);
        assert!(raws.iter().map(Raw::get).eq(texts.iter().map(String::as_str)));
        let usage = Usage::of(raws.iter());
        assert_eq!(usage.0.len(), 12, "nine are in a piece");
        assert_eq!(usage.held_bytes(), texts.iter().map(String::len).sum::<usize>());
        // A text that is larger than a piece has its own.
        let large = format!("\"{}\"", "x".repeat(2 * PIECE_BYTES));
        let raws = packed(&["1".to_owned(), large, "2".to_owned()]);
        assert_eq!(Usage::of(raws.iter()).0.len(), 3);
        assert!(packed(&[]).is_empty());
    }

    #[test]
    fn what_is_left_of_a_piece_holds_no_more_than_twice_its_bytes() {
        let texts: Vec<String> = (100..200).map(|n| n.to_string()).collect();
        let raws = packed(&texts);
        let mut all: Vec<((), Raw)> = raws.iter().map(|raw| ((), raw.clone())).collect();
        let mut most: Vec<((), Raw)> = all.iter().skip(40).cloned().collect();
        compact(&mut most);
        assert_eq!(most[0].1.piece(), raws[0].piece(), "it stays where it is");
        all.drain(..90);
        compact(&mut all);
        assert_ne!(all[0].1.piece(), raws[0].piece());
        assert_eq!(Usage::of(all.iter().map(|(_, raw)| raw)).held_bytes(), 30);
        assert!(all.iter().map(|(_, raw)| raw.get()).eq((190..200).map(|n| &*texts[n - 100])));
    }
}
