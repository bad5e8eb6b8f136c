//! Pure: a decoder of chunked bodies, which takes them piece by piece.

use super::bound::Bound;
use super::framing::{BODY_TOO_LONG, Refusal, over, refuse};

/// Hex digits of a chunk's size. A size with more is over any bound.
const SIZE_DIGITS_MAX: u32 = 8;
/// Bytes of all chunk extensions of one body. Extensions are skipped, but reading them costs.
const EXTENSION_BYTES_MAX: usize = 16 * 1024;
/// Bytes of all trailer lines of one body. Trailers are dropped.
const TRAILER_BYTES_MAX: usize = 8 * 1024;

/// The part of the body that is expected next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Size { digits: u32, size: usize },
    Extension { size: usize },
    SizeLf { size: usize },
    Data { left: usize },
    DataCr,
    DataLf,
    TrailerStart,
    Trailer { named: bool },
    TrailerLf,
    LastLf,
    Done,
}

/// A decoder for one body.
#[derive(Debug)]
pub(crate) struct ChunkDecoder {
    state: State,
    body_bytes_max: usize,
    extension_bytes: usize,
    trailer_bytes: usize,
}

const MALFORMED: Refusal = refuse(400, "a malformed chunk");

impl ChunkDecoder {
    /// A decoder for a body of at most `body_bytes_max`.
    pub(crate) fn new(body_bytes_max: usize) -> ChunkDecoder {
        ChunkDecoder {
            state: State::Size { digits: 0, size: 0 },
            body_bytes_max,
            extension_bytes: 0,
            trailer_bytes: 0,
        }
    }

    /// True if the body has ended.
    pub(crate) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Takes `input`, adds its data to `body`, and returns how many bytes it took: all but those
    /// behind the body's end.
    pub(crate) fn feed(&mut self, input: &[u8], body: &mut Vec<u8>) -> Result<usize, Refusal> {
        let mut rest = input;
        while let (&[byte, ref behind @ ..], false) = (rest, self.is_done()) {
            if let State::Data { left } = self.state {
                let (data, behind) = rest.split_at(left.min(rest.len()));
                body.extend_from_slice(data);
                rest = behind;
                self.state = match left - data.len() {
                    0 => State::DataCr,
                    left => State::Data { left },
                };
            } else {
                self.state = self.step(byte, body.len())?;
                rest = behind;
            }
        }
        Ok(input.len() - rest.len())
    }

    /// The state after one byte that is not data.
    fn step(&mut self, byte: u8, body_bytes: usize) -> Result<State, Refusal> {
        Ok(match (self.state, byte) {
            (State::Size { digits, size }, byte) if byte.is_ascii_hexdigit() => {
                if digits == SIZE_DIGITS_MAX {
                    return Err(over(Bound::BodyBytes, 413, "the chunk is too long"));
                }
                State::Size { digits: digits + 1, size: size * 16 + hex_value(byte) }
            }
            (State::Size { digits: 1.., size }, b'\r') => State::SizeLf { size },
            (State::Size { digits: 1.., size }, b';') => State::Extension { size },
            (State::Extension { size }, b'\r') => State::SizeLf { size },
            (State::Extension { size }, b'\t' | b' '..=b'~' | 0x80..) => {
                self.extension_bytes += 1;
                if self.extension_bytes > EXTENSION_BYTES_MAX {
                    return Err(refuse(413, "the chunk extensions are too long"));
                }
                State::Extension { size }
            }
            (State::SizeLf { size: 0 }, b'\n') => State::TrailerStart,
            (State::SizeLf { size }, b'\n') => {
                // The size is refused before any of the chunk is read.
                if size > self.body_bytes_max.saturating_sub(body_bytes) {
                    return Err(BODY_TOO_LONG);
                }
                State::Data { left: size }
            }
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::Size { digits: 0, size: 0 },
            (State::TrailerStart, b'\r') => State::LastLf,
            (State::LastLf, b'\n') => State::Done,
            (State::TrailerStart, b'!'..=b'9' | b';'..=b'~') => {
                self.count_trailer()?;
                State::Trailer { named: false }
            }
            (State::Trailer { named: true }, b'\r') => State::TrailerLf,
            (State::Trailer { named }, b'\t' | b' '..=b'~' | 0x80..) => {
                self.count_trailer()?;
                State::Trailer { named: named || byte == b':' }
            }
            (State::TrailerLf, b'\n') => State::TrailerStart,
            _ => return Err(MALFORMED),
        })
    }

    fn count_trailer(&mut self) -> Result<(), Refusal> {
        self.trailer_bytes += 1;
        if self.trailer_bytes > TRAILER_BYTES_MAX {
            return Err(refuse(431, "the trailers are too long"));
        }
        Ok(())
    }
}

fn hex_value(digit: u8) -> usize {
    let digit = digit.to_ascii_lowercase();
    usize::from(if digit >= b'a' { digit - b'a' + 10 } else { digit - b'0' })
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY_BYTES_MAX: usize = 40;

    /// Feeds `wire` cut at every place, and expects the same result each time.
    #[track_caller]
    fn check(wire: &[u8], expected: Result<(&[u8], &[u8]), u16>) {
        for cut in 0..=wire.len() {
            let mut decoder = ChunkDecoder::new(BODY_BYTES_MAX);
            let mut body = Vec::new();
            let mut taken = 0;
            let mut failed = None;
            for end in [cut, wire.len()] {
                match decoder.feed(&wire[taken..end.max(taken)], &mut body) {
                    Ok(more) => taken += more,
                    Err(refusal) => {
                        failed = Some(refusal.status);
                        break;
                    }
                }
            }
            match (expected, failed) {
                (Ok((expected_body, rest)), None) => {
                    assert!(decoder.is_done(), "cut at {cut}: not done");
                    assert_eq!(body, expected_body, "cut at {cut}");
                    assert_eq!(&wire[taken..], rest, "cut at {cut}");
                }
                (Err(expected), Some(status)) => assert_eq!(status, expected, "cut at {cut}"),
                (expected, failed) => panic!("cut at {cut}: {expected:?} but {failed:?}"),
            }
        }
    }

    #[test]
    fn chunks_are_joined_and_what_follows_is_left() {
        check(
            b"5\r\nhello\r\n6;a=b\r\n world\r\n0\r\n\r\nGET /",
            Ok((b"hello world", b"GET /")),
        );
        check(b"A\r\n0123456789\r\n00\r\n\r\n", Ok((b"0123456789", b"")));
        check(b"0\r\n\r\n", Ok((b"", b"")));
    }

    #[test]
    fn trailers_are_dropped() {
        check(b"1\r\nx\r\n0\r\nA: b\r\nC: d\r\n\r\ny", Ok((b"x", b"y")));
        check(b"0\r\nno colon\r\n\r\n", Err(400));
        check(b"0\r\n: no name\r\n\r\n", Err(400));
        check(b"0\r\n folded: a\r\n\r\n", Err(400));
        check(b"0\r\nA: b\n\r\n", Err(400));
        let long = [b"0\r\nA: ".as_slice(), &[b'b'; TRAILER_BYTES_MAX], b"\r\n\r\n"].concat();
        let refused = ChunkDecoder::new(9).feed(&long, &mut Vec::new());
        assert_eq!(refused.map_err(|r| r.status), Err(431));
    }

    #[test]
    fn sizes_are_plain_hexadecimal() {
        for wire in [
            &b"\r\n"[..],
            b" 5\r\nhello\r\n",
            b"5 \r\nhello\r\n",
            b"+5\r\nhello\r\n",
            b"-1\r\n",
            b"0x5\r\nhello\r\n",
            b"g\r\n",
            b";a\r\n",
            b"5\nhello\r\n",
            b"5\rhello\r\n",
            b"5;a\0\r\nhello\r\n",
        ] {
            check(wire, Err(400));
        }
    }

    #[test]
    fn data_ends_where_its_size_says() {
        check(b"5\r\nhelloX\r\n0\r\n\r\n", Err(400));
        check(b"5\r\nhello\n0\r\n\r\n", Err(400));
        check(b"3\r\nhello\r\n0\r\n\r\n", Err(400));
    }

    #[test]
    fn a_body_may_be_as_long_as_the_bound_and_no_longer() {
        let data = [b'x'; BODY_BYTES_MAX];
        let wire = [b"28\r\n".as_slice(), &data, b"\r\n0\r\n\r\n"].concat();
        check(&wire, Ok((&data, b"")));
        let wire = [b"28\r\n".as_slice(), &data, b"\r\n1\r\nx\r\n0\r\n\r\n"].concat();
        check(&wire, Err(413));
        check(b"29\r\n", Err(413));
        check(b"ffffffff\r\n", Err(413));
        check(b"100000000\r\n", Err(413));
        check(b"ffffffffffffffffffff\r\n", Err(413));
    }

    #[test]
    fn extensions_are_bounded() {
        let wire = [b"1;".as_slice(), &[b'x'; EXTENSION_BYTES_MAX + 1], b"\r\nx\r\n"].concat();
        let refused = ChunkDecoder::new(9).feed(&wire, &mut Vec::new());
        assert_eq!(refused.map_err(|r| r.status), Err(413));
    }
}
