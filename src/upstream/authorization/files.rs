//! Reads small files that the configuration names: private keys and assertions.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use crate::config::Secret;
use crate::limits::PRIVATE_KEY_BYTES_MAX;

/// The text of a file.
///
/// # Errors
/// It cannot be read, is too large, or is no text; the text names the file.
pub(super) fn read_text(path: &Path) -> Result<Secret, String> {
    let told = |what: &str| format!("{}: {what}", path.display());
    let is_file = path.metadata().map_err(|error| told(&error.to_string()))?.is_file();
    if !is_file {
        return Err(told("it is no file"));
    }
    let max = u64::try_from(PRIVATE_KEY_BYTES_MAX).unwrap_or(u64::MAX);
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(max.saturating_add(1)).read_to_string(&mut text))
        .map_err(|error| told(&error.to_string()))?;
    if text.len() > PRIVATE_KEY_BYTES_MAX {
        return Err(told(&format!("it has more than {PRIVATE_KEY_BYTES_MAX} bytes")));
    }
    Ok(Secret::new(text))
}
