//! Lines for systemd's journal: the journal keeps the time itself, and a line may begin with its
//! priority (sd-daemon(3)).

use std::ffi::OsString;
use std::io;

use log::Level;
use rustix::fs::fstat;

/// True if standard error is the stream of the journal that the environment names
/// (systemd.exec(5), `$JOURNAL_STREAM`): where it is redirected elsewhere, lines have their time.
pub(super) fn is_standard_error() -> bool {
    let Ok(stat) = fstat(io::stderr()) else { return false };
    names(std::env::var_os("JOURNAL_STREAM"), stat.st_dev, stat.st_ino)
}

/// True if the variable names this device and inode.
fn names(variable: Option<OsString>, device: u64, inode: u64) -> bool {
    let text = variable.and_then(|text| text.into_string().ok());
    let named = text.as_deref().and_then(|text| {
        let (device, inode) = text.split_once(':')?;
        Some((device.parse::<u64>().ok()?, inode.parse::<u64>().ok()?))
    });
    named == Some((device, inode))
}

/// The text before a line of that level.
pub(super) fn priority(level: Level) -> &'static str {
    match level {
        Level::Error => "<3>",
        Level::Warn => "<4>",
        Level::Info => "<6>",
        Level::Debug | Level::Trace => "<7>",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_journal_is_known_by_device_and_inode() {
        let named = |text: &str| names(Some(text.into()), 8, 42);
        assert!(named("8:42"));
        for text in ["8:43", "9:42", "8", "", ":", "8:42:1", "x:y"] {
            assert!(!named(text), "{text}");
        }
        assert!(!names(None, 8, 42));
    }
}
