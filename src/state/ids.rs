//! A file of ids that are kept until they expire: lines are appended to it, and when it has grown
//! long it is written anew without the expired ones.
//!
//! ```text
//! trunkline ended-sessions 1
//! EXPIRES ID CHECK
//! ```
//!
//! Each line has its own check, so that a damaged line costs no other.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::time::{SystemTime, UNIX_EPOCH};

use super::framed::checksum;
use super::{FILE_MODE, Failure, StateDir};
use crate::limits::{ENDED_IDS_MAX, STATE_ID_LINES_MAX};

pub(super) const NAME: &str = "ended-sessions";
const HEAD: &str = "trunkline ended-sessions 1";
/// Characters of a line's check.
const CHECK_CHARS: usize = 8;

/// An id, and the time at which it expires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Id {
    /// A random number.
    pub number: u128,
    /// The time in seconds since the epoch.
    pub expires: u64,
}

impl Id {
    fn line(self) -> String {
        let text = format!("{} {:032x}", self.expires, self.number);
        let check = checksum(text.as_bytes());
        let check = check.get(..CHECK_CHARS).unwrap_or_default();
        format!("{text} {check}\n")
    }

    fn parse(line: &str) -> Option<Id> {
        let (expires, rest) = line.split_once(' ')?;
        let (number, _) = rest.split_once(' ')?;
        let number = u128::from_str_radix(number, 16).ok()?;
        let id = Id { number, expires: expires.parse().ok()? };
        // Only the spelling that `line` writes is accepted, with its check.
        (id.line().trim_end() == line).then_some(id)
    }
}

/// The content of the file.
struct Read {
    ids: Vec<Id>,
    n_lines: usize,
    /// The number of lines that are damaged.
    n_damaged: usize,
}

/// Reads the lines. None if the file is of another kind.
fn parse(text: &str, now: u64) -> Option<Read> {
    let rest = text.strip_prefix(HEAD)?.strip_prefix('\n')?;
    let lines: Vec<&str> =
        rest.split_terminator('\n').filter(|line| !line.is_empty()).collect();
    let all: Vec<Id> = lines.iter().copied().filter_map(Id::parse).collect();
    let n_damaged = lines.len() - all.len();
    let mut ids: Vec<Id> = all.into_iter().filter(|id| id.expires > now).collect();
    // The oldest ids stand first.
    ids.drain(..ids.len().saturating_sub(ENDED_IDS_MAX));
    Some(Read { ids, n_lines: lines.len(), n_damaged })
}

fn whole(ids: &[Id]) -> String {
    let mut text = format!("{HEAD}\n");
    text.extend(ids.iter().map(|id| id.line()));
    text
}

impl StateDir {
    /// The ids that have not expired, the oldest first, [`ENDED_IDS_MAX`] at most.
    pub fn ids(&self) -> Vec<Id> {
        self.read_ids().unwrap_or_else(|error| {
            log::warn!(target: "state", "{NAME} cannot be read: {error}");
            Vec::new()
        })
    }

    /// As [`StateDir::ids`]; fails where the disk refuses, since those ids may be read later.
    fn read_ids(&self) -> io::Result<Vec<Id>> {
        let bytes = match self.bytes_of(NAME) {
            Ok(None) => return Ok(Vec::new()),
            // A full disk has left an empty file: nothing was ever written to it.
            Ok(Some(bytes)) if bytes.is_empty() => return Ok(Vec::new()),
            Ok(Some(bytes)) => bytes,
            Err(Failure::Unusable(why)) => {
                self.set_aside(NAME, &why.to_string());
                return Ok(Vec::new());
            }
            Err(Failure::Disk(error)) => return Err(error),
        };
        let Some(read) = parse(&String::from_utf8_lossy(&bytes), now_seconds()) else {
            self.set_aside(NAME, "it is no file of this version");
            return Ok(Vec::new());
        };
        if read.n_damaged > 0 {
            let why = format!("damaged lines: {}; the others hold", read.n_damaged);
            self.set_aside(NAME, &why);
        }
        // The rewrite drops unwanted lines, also half a line that the next append would continue.
        if (read.ids.len() < read.n_lines || !bytes.ends_with(b"\n"))
            && let Err(error) = self.replace(NAME, whole(&read.ids).as_bytes())
        {
            log::warn!(target: "state", "{NAME} cannot be written: {error}");
        }
        Ok(read.ids)
    }
}

/// The file of ids, to which one thread appends.
#[derive(Debug)]
pub(super) struct IdFile {
    /// The number of lines, at least.
    n_lines: usize,
    /// True if the last line may have no end.
    is_torn: bool,
}

impl Default for IdFile {
    fn default() -> IdFile {
        // The last line of an earlier process may be half a line, and the rewrite at the start
        // may have failed.
        IdFile { n_lines: 0, is_torn: true }
    }
}

impl IdFile {
    pub(super) fn append(&mut self, directory: &StateDir, ids: &[Id]) -> io::Result<()> {
        if self.n_lines >= STATE_ID_LINES_MAX {
            self.n_lines = match directory.read_ids() {
                Ok(known) => {
                    directory.replace(NAME, whole(&known).as_bytes())?;
                    known.len()
                }
                // A file that cannot be read is not written over; the next attempt comes after as
                // many lines as there may be ids.
                Err(error) => {
                    log::warn!(target: "state", "{NAME} cannot be read to be shortened: {error}");
                    STATE_ID_LINES_MAX - ENDED_IDS_MAX
                }
            };
        }
        let mut options = OpenOptions::new();
        let path = directory.path.join(NAME);
        let mut file: File = options.append(true).create(true).mode(FILE_MODE).open(&path)?;
        let before = file.metadata()?.len();
        let is_new = before == 0;
        let mut text = if is_new { format!("{HEAD}\n") } else { String::new() };
        if self.is_torn && !is_new {
            text.push('\n');
        }
        text.extend(ids.iter().map(|id| id.line()));
        let was_torn = std::mem::replace(&mut self.is_torn, true);
        if let Err(error) = file.write_all(text.as_bytes()) {
            // No part stays of a line that did not fit.
            self.is_torn = file.set_len(before).is_err() || was_torn;
            return Err(error);
        }
        file.sync_data()?;
        if is_new {
            File::open(&directory.path)?.sync_all()?;
        }
        self.is_torn = false;
        self.n_lines += ids.len();
        Ok(())
    }
}

fn now_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_line_costs_no_other() {
        let ids = [1, 2, 3]
            .map(|number| Id { number, expires: 100 + u64::try_from(number).unwrap() });
        let text = whole(&ids);
        let read = parse(&text, 0).unwrap();
        assert_eq!((read.ids.as_slice(), read.n_damaged), (ids.as_slice(), 0));
        assert_eq!(parse(&text, 102).unwrap().ids, ids[2..]);
        let start = HEAD.len() + 1;
        let line = ids[0].line().len();
        for at in start..start + line - 1 {
            let mut damaged = text.clone().into_bytes();
            damaged[at] ^= 1;
            let read = parse(&String::from_utf8_lossy(&damaged), 0).unwrap();
            assert_eq!(read.ids, ids[1..], "byte {at}");
            assert!(read.n_damaged > 0, "byte {at}");
        }
        for cut in start + 2 * line..text.len() - 1 {
            assert_eq!(parse(&text[..cut], 0).unwrap().ids, ids[..2], "cut at {cut}");
        }
        assert!(parse("trunkline ended-sessions 2\n", 0).is_none());
        assert!(parse("", 0).is_none());
    }

    #[test]
    fn the_oldest_go_first() {
        let n = u128::try_from(ENDED_IDS_MAX + 5).unwrap();
        let ids: Vec<Id> = (0..n).map(|number| Id { number, expires: 9 }).collect();
        let read = parse(&whole(&ids), 0).unwrap();
        assert_eq!(read.ids.len(), ENDED_IDS_MAX);
        assert_eq!(read.ids[0].number, 5);
    }

    fn directory(name: &str) -> StateDir {
        let id = std::process::id();
        let path = std::env::temp_dir().join(format!("trunkline-ids-{name}-{id}"));
        std::fs::remove_dir_all(&path).ok();
        StateDir::open(&path).unwrap()
    }

    const IDS: [Id; 3] = [
        Id { number: 1, expires: u64::MAX },
        Id { number: 2, expires: u64::MAX },
        Id { number: 3, expires: u64::MAX },
    ];

    #[test]
    fn what_cannot_be_read_is_not_written_over() {
        let directory = directory("refuses");
        let mut file = IdFile::default();
        file.append(&directory, &IDS[..2]).unwrap();
        file.n_lines = STATE_ID_LINES_MAX;
        directory.refuses_reads.store(true, std::sync::atomic::Ordering::Relaxed);
        file.append(&directory, &IDS[2..]).unwrap();
        assert!(file.n_lines < STATE_ID_LINES_MAX, "not tried at each line");
        directory.refuses_reads.store(false, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(directory.ids(), IDS);
        std::fs::remove_dir_all(&directory.path).unwrap();
    }

    #[test]
    fn what_an_earlier_process_left_torn_is_not_continued() {
        let directory = directory("torn");
        IdFile::default().append(&directory, &IDS[..2]).unwrap();
        let path = directory.path.join(NAME);
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, &text[..text.len() - 20]).unwrap();
        // The rewrite at the start has failed.
        IdFile::default().append(&directory, &IDS[2..]).unwrap();
        assert_eq!(directory.ids(), [IDS[0], IDS[2]]);
        std::fs::remove_dir_all(&directory.path).unwrap();
    }
}
