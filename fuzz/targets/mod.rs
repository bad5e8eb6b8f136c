//! What every parser must hold for any bytes at all. Each target takes bytes and panics where a
//! property is broken.
//!
//! Part of the library in its tests, which replay `fuzz/corpus` and mutations of it
//! (`replay.rs`), and in the builds of cargo-fuzz, which looks for new inputs (`fuzz/guided.rs`).
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::wildcard_enum_match_arm,
    reason = "a target fails where it is surprised"
)]

mod config;
mod head;
mod headers;
mod json;
mod lists;
mod names;
mod oauth;
#[cfg(test)]
mod replay;
mod sealed;
mod sse;
mod tokens;

/// A target.
pub type Target = fn(&[u8]);

/// Every target by the name of its corpus.
pub const TARGETS: [(&str, Target); 14] = [
    ("challenges", oauth::challenges),
    ("chunked", head::chunked),
    ("config", config::config),
    ("head", head::head),
    ("headers", headers::headers),
    ("jsonrpc", json::jsonrpc),
    ("lists", lists::lists),
    ("names", names::names),
    ("oauth_documents", oauth::oauth_documents),
    ("oauth_texts", oauth::oauth_texts),
    ("raw", json::raw),
    ("sealed", sealed::sealed),
    ("sse", sse::sse),
    ("tokens", tokens::tokens),
];

/// Cuts `data` behind its first byte into pieces whose sizes that byte decides.
fn pieces(data: &[u8]) -> Vec<&[u8]> {
    let Some((&seed, mut rest)) = data.split_first() else { return Vec::new() };
    let mut state = u32::from(seed) + 1;
    let mut pieces = Vec::new();
    while !rest.is_empty() {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let most = usize::from(seed % 32) + 1;
        let size = (state >> 16) as usize % most + 1;
        let (piece, behind) = rest.split_at(size.min(rest.len()));
        pieces.push(piece);
        rest = behind;
    }
    pieces
}

/// `data` as lines of text; nothing if it is no text.
fn lines(data: &[u8]) -> Vec<&str> {
    std::str::from_utf8(data).map(|text| text.split('\n').collect()).unwrap_or_default()
}
