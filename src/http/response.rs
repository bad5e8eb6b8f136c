//! Pure: the encoding of a response's head.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The way in which the client finds the body's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodyEnd {
    /// The client reads `Content-Length` bytes.
    Length(usize),
    /// `Transfer-Encoding: chunked`.
    Chunks,
    /// The connection's end.
    Close,
}

/// The state of the connection after the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Connection {
    /// The connection stays open, as HTTP/1.1 assumes.
    Keep,
    /// The connection stays open, and the answer says so, as HTTP/1.0 demands.
    KeepSaid,
    /// The connection is closed.
    Close,
}

/// The interim answer that asks for the body.
pub(crate) const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
/// The end of a chunked body.
pub(crate) const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// Fields that the engine sets itself; two of them would make the answer ambiguous.
const OWN_FIELDS: [&str; 4] = ["content-length", "transfer-encoding", "connection", "date"];

/// Adds the head of an answer to `out`, up to and with the empty line. Fields that could break
/// the head are left out. `date` is the text of [`date_text`].
pub(crate) fn push_head<'a>(
    out: &mut Vec<u8>,
    status: u16,
    headers: impl IntoIterator<Item = (&'a str, &'a str)>,
    end: BodyEnd,
    connection: Connection,
    date: &[u8],
) {
    out.extend_from_slice(b"HTTP/1.1 ");
    push_number(out, usize::from(status));
    out.push(b' ');
    out.extend_from_slice(reason(status).as_bytes());
    out.extend_from_slice(b"\r\nDate: ");
    out.extend_from_slice(date);
    for (name, value) in headers {
        if is_sendable(name, value) {
            out.extend_from_slice(b"\r\n");
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(b": ");
            out.extend_from_slice(value.as_bytes());
        }
    }
    match end {
        BodyEnd::Length(bytes) if may_have_body(status) => {
            out.extend_from_slice(b"\r\nContent-Length: ");
            push_number(out, bytes);
        }
        BodyEnd::Chunks if may_have_body(status) => {
            out.extend_from_slice(b"\r\nTransfer-Encoding: chunked");
        }
        BodyEnd::Length(_) | BodyEnd::Chunks | BodyEnd::Close => (),
    }
    out.extend_from_slice(match connection {
        Connection::Keep => b"\r\n\r\n",
        Connection::KeepSaid => b"\r\nConnection: keep-alive\r\n\r\n",
        Connection::Close => b"\r\nConnection: close\r\n\r\n",
    });
}

/// True if answers of this status may have a body.
pub(crate) fn may_have_body(status: u16) -> bool {
    status >= 200 && status != 204 && status != 304
}

/// The line in front of a chunk's data.
pub(crate) fn chunk_size_line(bytes: usize) -> String {
    format!("{bytes:x}\r\n")
}

/// True if a field can be sent: a value with CR or LF would end the field and begin another.
pub(crate) fn is_sendable(name: &str, value: &str) -> bool {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    let text = |byte: u8| byte == b'\t' || (byte >= b' ' && byte != 0x7f);
    !name.is_empty()
        && name.bytes().all(token)
        && value.bytes().all(text)
        && !OWN_FIELDS.iter().any(|own| own.eq_ignore_ascii_case(name))
}

fn push_number(out: &mut Vec<u8>, number: usize) {
    let mut digits = [0_u8; 20];
    let mut left = number;
    let mut used = 0;
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + u8::try_from(left % 10).unwrap_or(0);
        left /= 10;
        used += 1;
        if left == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(digits.len() - used..).unwrap_or(b"0"));
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        304 => "Not Modified",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        413 => "Content Too Large",
        415 => "Unsupported Media Type",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        422 => "Unprocessable Content",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "Status",
    }
}

/// The value of `Date` for a point in time, to the second.
pub(crate) fn date_text(now: SystemTime) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let seconds = now.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Civil date from days, counted from 1 March of the year 0 (Howard Hinnant's algorithm).
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = (shifted_month + 2) % 12;
    let year = year_of_era + era * 400 + u64::from(month < 2);
    let name_of = |names: &'static [&'static str], index: u64| {
        usize::try_from(index).ok().and_then(|index| names.get(index)).copied().unwrap_or("")
    };
    let (day_name, month_name) = (name_of(&DAYS, days % 7), name_of(&MONTHS, month));
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{day_name}, {day:02} {month_name} {year} {hour:02}:{minute:02}:{second:02} GMT")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(status: u16, headers: &[(&str, &str)], end: BodyEnd, then: Connection) -> String {
        let mut out = Vec::new();
        push_head(&mut out, status, headers.iter().copied(), end, then, b"now");
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_head_says_how_it_ends_and_what_comes_then() {
        assert_eq!(
            head(200, &[("A", "b")], BodyEnd::Length(1203), Connection::Keep),
            "HTTP/1.1 200 OK\r\nDate: now\r\nA: b\r\nContent-Length: 1203\r\n\r\n"
        );
        assert_eq!(
            head(404, &[], BodyEnd::Length(0), Connection::KeepSaid),
            "HTTP/1.1 404 Not Found\r\nDate: now\r\nContent-Length: 0\r\n\
             Connection: keep-alive\r\n\r\n"
        );
        assert_eq!(
            head(200, &[], BodyEnd::Chunks, Connection::Keep),
            "HTTP/1.1 200 OK\r\nDate: now\r\nTransfer-Encoding: chunked\r\n\r\n"
        );
        assert_eq!(
            head(204, &[], BodyEnd::Length(0), Connection::Close),
            "HTTP/1.1 204 No Content\r\nDate: now\r\nConnection: close\r\n\r\n"
        );
    }

    #[test]
    fn fields_that_would_break_the_head_are_left_out() {
        let headers = [
            ("A", "b\r\nEvil: 1"),
            ("B", "c\nd"),
            ("C", "d\0"),
            ("D\r\nE", "f"),
            ("", "g"),
            ("F: g", "h"),
            ("Content-Length", "7"),
            ("connection", "keep-alive"),
            ("Good", "caf\u{e9}\t1"),
        ];
        assert_eq!(
            head(200, &headers, BodyEnd::Close, Connection::Close),
            "HTTP/1.1 200 OK\r\nDate: now\r\nGood: caf\u{e9}\t1\r\nConnection: close\r\n\r\n"
        );
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, text) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
            (1_735_689_599, "Tue, 31 Dec 2024 23:59:59 GMT"),
            (4_107_542_400, "Mon, 01 Mar 2100 00:00:00 GMT"),
        ] {
            let date = date_text(UNIX_EPOCH + Duration::from_secs(seconds));
            assert_eq!(date, text);
            assert_eq!(date.len(), 29);
        }
    }
}
