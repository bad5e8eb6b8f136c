//! Request heads and chunked bodies, against readers that do nothing but follow RFC 9112: what is
//! let through has one meaning only.

use super::pieces;
use crate::http::Peer;
use crate::http::chunked::ChunkDecoder;
use crate::http::framing::{BodyFraming, HeadScan, Parsed, parse};
use crate::limits::Limits;

const HEAD_BYTES_MAX: usize = 2048;
const BODY_BYTES_MAX: usize = 4096;

fn limits() -> Limits {
    Limits { head_bytes: HEAD_BYTES_MAX, body_bytes: BODY_BYTES_MAX, ..Limits::default() }
}

fn is_token(text: &[u8]) -> bool {
    let is_char = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    !text.is_empty() && text.iter().all(is_char)
}

fn trimmed(text: &[u8]) -> &[u8] {
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let Some(start) = text.iter().position(|byte| !is_blank(byte)) else { return &[] };
    let end = text.iter().rposition(|byte| !is_blank(byte)).unwrap_or(start);
    &text[start..=end]
}

/// The lines of a head without the empty one; every line end is CR LF.
fn lines_of(raw: &[u8]) -> Vec<&[u8]> {
    let mut lines = Vec::new();
    let mut rest = raw;
    loop {
        let end = rest.windows(2).position(|pair| pair == b"\r\n").expect("a line end");
        let line = &rest[..end];
        assert!(!line.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)), "{line:?}");
        rest = &rest[end + 2..];
        if line.is_empty() {
            assert!(rest.is_empty(), "the head ends with its first empty line");
            return lines;
        }
        lines.push(line);
    }
}

/// What any other reader of the same bytes may make of them is what was made of them.
fn check_accepted(raw: &[u8], parsed: &Parsed) {
    let lines = lines_of(raw);
    let words: Vec<&[u8]> = lines[0].split(|byte| *byte == b' ').collect();
    let [method, target, version] = words[..] else { panic!("{:?}", lines[0]) };
    assert!(is_token(method) && method == parsed.head.method.as_bytes());
    assert!(!target.is_empty());
    assert!(parsed.head.path == "*" || parsed.head.path.starts_with('/'));
    assert!(version == b"HTTP/1.1" || version == b"HTTP/1.0");
    assert_eq!(version == b"HTTP/1.0", parsed.manner.http10);
    let fields: Vec<(&[u8], &[u8])> = lines[1..]
        .iter()
        .map(|line| {
            let colon = line.iter().position(|byte| *byte == b':').expect("a colon");
            assert!(is_token(&line[..colon]), "the name {:?}", &line[..colon]);
            (&line[..colon], trimmed(&line[colon + 1..]))
        })
        .collect();
    let read = parsed.head.headers.iter().map(|(k, v)| (k.as_bytes(), v.as_bytes()));
    assert!(read.eq(fields.iter().copied()), "{parsed:?}");
    let values = |name: &str| -> Vec<&[u8]> {
        let same = |field: &&(&[u8], &[u8])| field.0.eq_ignore_ascii_case(name.as_bytes());
        fields.iter().filter(same).map(|(_, value)| *value).collect()
    };
    let (lengths, codings) = (values("content-length"), values("transfer-encoding"));
    assert!(lengths.len() + codings.len() <= 1, "two ways to find the body's end");
    let length = lengths.first().map(|value| {
        assert!(value.iter().all(u8::is_ascii_digit), "{value:?}");
        std::str::from_utf8(value).unwrap().parse::<usize>().unwrap()
    });
    let expected = match (codings.first(), length) {
        (Some(coding), None) => {
            assert!(coding.eq_ignore_ascii_case(b"chunked") && !parsed.manner.http10);
            BodyFraming::Chunked
        }
        (_, None | Some(0)) => BodyFraming::Empty,
        (_, Some(length)) => {
            assert!(length <= BODY_BYTES_MAX);
            BodyFraming::Length(length)
        }
    };
    assert_eq!(parsed.body, expected);
    let hosts = values("host");
    assert!(hosts.len() == 1 || (hosts.is_empty() && parsed.manner.http10), "{hosts:?}");
    assert!(fields.len() <= Limits::default().headers);
}

pub(super) fn head(data: &[u8]) {
    let bytes = data.get(1..).unwrap_or_default();
    let whole = HeadScan::default().find(bytes, HEAD_BYTES_MAX);
    let mut scan = HeadScan::default();
    let (mut seen, mut in_pieces) = (0, Ok(None));
    for piece in pieces(data) {
        seen += piece.len();
        in_pieces = scan.find(&bytes[..seen], HEAD_BYTES_MAX);
        if !matches!(in_pieces, Ok(None)) {
            break;
        }
    }
    // Of two faults the one that comes first may be another one.
    assert_eq!(whole.is_err(), in_pieces.is_err(), "{whole:?} {in_pieces:?}");
    assert_eq!(whole.ok(), in_pieces.ok());
    let Ok(Some((start, end))) = whole else { return };
    assert!(end - start <= HEAD_BYTES_MAX);
    assert!(bytes[..start].iter().all(|byte| matches!(byte, b'\r' | b'\n')));
    if let Ok(parsed) = parse(&bytes[start..end], &limits(), Peer::Unix) {
        check_accepted(&bytes[start..end], &parsed);
    }
}

/// A body whose chunks are plainly written; nothing where a strict reader would hesitate. The
/// body and what stands behind it.
fn plain_chunks(mut rest: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut body = Vec::new();
    loop {
        let end = rest.windows(2).position(|pair| pair == b"\r\n")?;
        let line = &rest[..end];
        let digits = line.split(|byte| *byte == b';').next()?;
        let is_plain = !digits.is_empty() && digits.iter().all(u8::is_ascii_hexdigit);
        if !is_plain
            || digits.len() > 8
            || line.iter().any(|byte| *byte < b' ' && *byte != b'\t')
        {
            return None;
        }
        let size = usize::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
        rest = &rest[end + 2..];
        if size == 0 {
            break;
        }
        body.extend_from_slice(rest.get(..size)?);
        rest = rest.get(size..)?.strip_prefix(b"\r\n")?;
    }
    loop {
        let end = rest.windows(2).position(|pair| pair == b"\r\n")?;
        let line = &rest[..end];
        rest = &rest[end + 2..];
        if line.is_empty() {
            return Some((body, rest));
        }
        let colon = line.iter().position(|byte| *byte == b':')?;
        if colon == 0 || line[0] == b' ' || line.contains(&b'\r') {
            return None;
        }
    }
}

/// The body, how many bytes were taken, and whether it ended; or the status of the refusal.
fn decoded(pieces: &[&[u8]]) -> Result<(Vec<u8>, usize, bool), u16> {
    let mut decoder = ChunkDecoder::new(BODY_BYTES_MAX);
    let (mut body, mut taken) = (Vec::new(), 0);
    for piece in pieces {
        let more = decoder.feed(piece, &mut body).map_err(|refusal| refusal.status)?;
        taken += more;
        assert!(body.len() <= BODY_BYTES_MAX);
        assert!(more == piece.len() || decoder.is_done());
    }
    Ok((body, taken, decoder.is_done()))
}

pub(super) fn chunked(data: &[u8]) {
    let wire = data.get(1..).unwrap_or_default();
    let whole = decoded(&[wire]);
    assert_eq!(decoded(&pieces(data)), whole, "cut into pieces");
    if let Ok((body, taken, true)) = &whole {
        let (expected, rest) = plain_chunks(wire).expect("what is taken is plain");
        assert_eq!((body, &wire[*taken..]), (&expected, rest));
    }
    // Any bytes, written as chunks, come back.
    let mut written = Vec::new();
    for piece in pieces(data) {
        written.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
        written.extend_from_slice(piece);
        written.extend_from_slice(b"\r\n");
    }
    written.extend_from_slice(b"0\r\n\r\n");
    if wire.len() <= BODY_BYTES_MAX {
        assert_eq!(decoded(&[&written]), Ok((wire.to_vec(), written.len(), true)));
    }
}
