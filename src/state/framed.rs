//! Pure: the form of a file in `state_dir`: one line that describes it, then its body.
//!
//! ```text
//! trunkline NAME VERSION SHA256 LENGTH
//! BODY
//! ```

use std::fmt;

use ring::digest::{SHA256, digest};

/// The reason why a file cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unusable {
    /// The file does not begin as a file of this program does.
    Foreign,
    /// The file is another kind of file of this program, or of another version.
    Other(String),
    /// The body is not the one that was written.
    Corrupt,
    /// The file has more bytes than such a file may have.
    TooLarge(u64),
    /// The file is a folder, a link or something else.
    NoFile,
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Foreign => f.write_str("it is no file of this program"),
            Self::Other(what) => write!(f, "it is {what:?}, which this version does not read"),
            Self::Corrupt => f.write_str("it is not whole"),
            Self::TooLarge(bytes) => write!(f, "it has {bytes} bytes, which is too many"),
            Self::NoFile => f.write_str("it is no plain file"),
        }
    }
}

/// The most characters of a foreign file's beginning in a warning.
const TOLD_CHARS_MAX: usize = 60;
const PROGRAM: &str = "trunkline";

/// The kind of a file: its name and the version of its form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Form {
    /// The name of the kind, one word.
    pub name: &'static str,
    /// The version, which grows with each change that an older program could not read.
    pub version: u32,
}

impl Form {
    /// The whole file with this body.
    pub fn frame(self, body: &[u8]) -> Vec<u8> {
        let Form { name, version } = self;
        let head = format!("{PROGRAM} {name} {version} {} {}\n", checksum(body), body.len());
        let mut file = Vec::with_capacity(head.len() + body.len());
        file.extend_from_slice(head.as_bytes());
        file.extend_from_slice(body);
        file
    }

    /// The body of a file.
    ///
    /// # Errors
    /// The file is of another kind or version, or was damaged.
    pub fn body(self, file: &[u8]) -> Result<&[u8], Unusable> {
        let end = file.iter().position(|byte| *byte == b'\n').ok_or(Unusable::Foreign)?;
        let (head, rest) = file.split_at(end);
        let body = rest.get(1..).unwrap_or_default();
        let head = std::str::from_utf8(head).map_err(|_| Unusable::Foreign)?;
        let mut words = head.split(' ');
        if words.next() != Some(PROGRAM) {
            return Err(Unusable::Foreign);
        }
        let (name, version) = (words.next(), words.next());
        let expected = self.version.to_string();
        if name != Some(self.name) || version != Some(expected.as_str()) {
            return Err(Unusable::Other(head.chars().take(TOLD_CHARS_MAX).collect()));
        }
        let length = body.len().to_string();
        let is_whole = words.next() == Some(checksum(body).as_str())
            && words.next() == Some(length.as_str())
            && words.next().is_none();
        if is_whole { Ok(body) } else { Err(Unusable::Corrupt) }
    }
}

/// SHA-256 in hexadecimal.
pub fn checksum(bytes: &[u8]) -> String {
    hex(digest(&SHA256, bytes).as_ref())
}

/// Bytes in hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORM: Form = Form { name: "test", version: 2 };

    #[test]
    fn a_file_reads_back_and_no_damaged_one_does() {
        let body = b"{\"a\":\n1}";
        let file = FORM.frame(body);
        assert_eq!(FORM.body(&file), Ok(body.as_slice()));
        for at in 0..file.len() {
            let mut damaged = file.clone();
            damaged[at] ^= 1;
            assert!(FORM.body(&damaged).is_err(), "byte {at}");
            assert!(FORM.body(&file[..at]).is_err(), "cut at {at}");
        }
        assert!(FORM.body(&[file.as_slice(), b"x"].concat()).is_err());
    }

    #[test]
    fn another_file_is_told_by_what_it_is() {
        let older = Form { version: 1, ..FORM }.frame(b"");
        let other = Form { name: "other", version: 2 }.frame(b"");
        for (file, word) in [(older, "test 1"), (other, "other 2")] {
            let told = FORM.body(&file).unwrap_err().to_string();
            assert!(told.contains(word), "{told}");
        }
        for foreign in [&b"no line"[..], b"GIF89a\n", b"\n", b"", b"\xff\xff\n"] {
            assert_eq!(FORM.body(foreign), Err(Unusable::Foreign));
        }
    }
}
