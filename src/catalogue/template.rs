//! Whether a URI may come from a template (RFC 6570), to find whose it is. Pure.

use std::borrow::Cow;

use crate::limits::TEMPLATE_BYTES_MAX;

/// One part of a template.
#[derive(Debug, PartialEq)]
enum Part<'a> {
    /// As URIs spell it: what may not stand in one as it is, is percent-encoded (RFC 6570, 3.1).
    Literal(Cow<'a, str>),
    /// `{name}`: some text without a `/`.
    Segment,
    /// `{+path}`, `{/path}`, `{?query}` and the like: any text, or none.
    Anything,
}

fn parts(template: &str) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    let mut rest = template;
    while let Some((literal, after)) = rest.split_once('{') {
        let Some((expression, after)) = after.split_once('}') else { break };
        if !literal.is_empty() {
            parts.push(Part::Literal(spelled(literal)));
        }
        let simple = expression.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
        let exploded = expression.ends_with('*');
        parts.push(if simple && !exploded { Part::Segment } else { Part::Anything });
        rest = after;
    }
    if !rest.is_empty() {
        parts.push(Part::Literal(spelled(rest)));
    }
    parts
}

/// A URI, or a part of one, as it is spelled where nothing stands as it is that may not, and
/// nothing is percent-encoded that need not be (RFC 3986, 6.2.2). Clients and servers differ in
/// whether they write `é` or `%C3%A9`.
pub fn spelled(text: &str) -> Cow<'_, str> {
    if text.bytes().all(|byte| byte != b'%' && may_stand(byte)) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let mut ahead = bytes.clone();
        let mut digit = || char::from(ahead.next()?).to_digit(16);
        let encoded = if byte == b'%' { digit().zip(digit()) } else { None };
        let encoded = encoded.and_then(|(high, low)| u8::try_from(high * 16 + low).ok());
        if encoded.is_some() {
            bytes = ahead;
        }
        match encoded.unwrap_or(byte) {
            plain if is_unreserved(plain) => out.push(char::from(plain)),
            reserved if encoded.is_none() && reserved != b'%' && may_stand(reserved) => {
                out.push(char::from(reserved));
            }
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    Cow::Owned(out)
}

/// RFC 3986, 2.3.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

/// Unreserved, reserved, or the sign of what is encoded.
fn may_stand(byte: u8) -> bool {
    is_unreserved(byte) || b":/?#[]@!$&'()*+,;=%".contains(&byte)
}

/// Whether the template can become this URI. More generous than the RFC: it only decides which
/// server is asked, and that server knows.
///
/// Costs at most the product of both lengths, since a client chooses the one and a server the
/// other.
pub fn covers(template: &str, uri: &str) -> bool {
    if template.len().max(uri.len()) > TEMPLATE_BYTES_MAX {
        return false;
    }
    let parts = parts(template);
    let uri = &*spelled(uri);
    if let Some(Part::Literal(literal)) = parts.first()
        && !uri.starts_with(&**literal)
    {
        return false;
    }
    // The ends of the URI that the parts so far can reach, in order.
    let mut reached = vec![0_usize];
    for part in parts {
        reached = match part {
            Part::Literal(literal) => after_literal(&reached, uri, &literal),
            Part::Segment => after_text(&reached, uri, |c| c != '/', false),
            Part::Anything => after_text(&reached, uri, |_| true, true),
        };
        if reached.is_empty() {
            return false;
        }
    }
    reached.last() == Some(&uri.len())
}

fn after_literal(reached: &[usize], uri: &str, literal: &str) -> Vec<usize> {
    let stands_at =
        |start: &usize| uri.get(*start..).is_some_and(|rest| rest.starts_with(literal));
    let starts = reached.iter().copied().filter(stands_at);
    starts.map(|start| start + literal.len()).collect()
}

/// The ends of texts of such characters that begin where one of `reached` is; of no character
/// at all too, where texts may be empty.
fn after_text(
    reached: &[usize],
    uri: &str,
    is_part: impl Fn(char) -> bool,
    may_be_empty: bool,
) -> Vec<usize> {
    let mut next = Vec::new();
    let mut starts = reached.iter().copied().peekable();
    // Whether a text is going on here that some start began.
    let mut is_open = false;
    let ends = uri.char_indices().map(|(at, c)| (at, Some(c)));
    for (at, c) in ends.chain([(uri.len(), None)]) {
        let begins = starts.next_if_eq(&at).is_some();
        if is_open || (begins && may_be_empty) {
            next.push(at);
        }
        is_open = (is_open || begins) && c.is_some_and(&is_part);
    }
    next
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_uri_costs_no_more_than_its_length_a_part() {
        let template = "{a}{+b}{?c}{+d}{e}{+f}!";
        let uri = "x".repeat(TEMPLATE_BYTES_MAX);
        let begun = std::time::Instant::now();
        assert!(!covers(template, &uri));
        // Were it the square of the length, it would take far longer.
        assert!(begun.elapsed() < std::time::Duration::from_secs(2));
        assert!(covers("{+a}", &uri));
        assert!(!covers("{+a}", &(uri + "x")));
    }

    #[test]
    fn a_literal_is_the_same_however_it_is_spelled() {
        for (template, uri, expected) in [
            ("file:///docs/café/{x}", "file:///docs/café/1", true),
            ("file:///docs/café/{x}", "file:///docs/caf%C3%A9/1", true),
            ("file:///docs/caf%c3%a9/{x}", "file:///docs/café/1", true),
            ("file:///docs/caf%C3%A9/{x}", "file:///docs/caf%c3%a9/1", true),
            ("file:///my docs/{x}", "file:///my%20docs/1", true),
            ("file:///a%41/{x}", "file:///aA/1", true),
            ("x://a%2Fb/{x}", "x://a/b/1", false),
            ("x://a/b/{x}", "x://a%2Fb/1", false),
            ("x://100%/{x}", "x://100%25/1", true),
            ("x://{id}/data", "x://a%2Fb/data", true),
            ("file:///docs/café/{x}", "file:///docs/cafe/1", false),
        ] {
            assert_eq!(covers(template, uri), expected, "{template} {uri}");
        }
        for (text, expected) in [("a:/?é%", "a:/?%C3%A9%25"), ("%7e%2f%zz", "~%2F%25zz")] {
            assert_eq!(spelled(text), expected);
            assert_eq!(spelled(expected), expected);
        }
    }

    #[test]
    fn a_template_covers_what_it_can_become() {
        for (template, uri, expected) in [
            ("test://template/{id}/data", "test://template/42/data", true),
            ("test://template/{id}/data", "test://template//data", false),
            ("test://template/{id}/data", "test://template/4/2/data", false),
            ("file:///{+path}", "file:///a/b/c", true),
            ("http://h/{a}{?q,r}", "http://h/x?q=1", true),
            ("http://h/{a}{?q,r}", "http://h/x", true),
            ("demo://greeting/{name}", "demo://greeting/Zoë", true),
            ("demo://greeting/{name}", "demo://other/Zoë", false),
            ("x{y", "x{y", true),
        ] {
            assert_eq!(covers(template, uri), expected, "{template} {uri}");
        }
    }
}
