//! Pure: matches URIs with templates (RFC 6570), to find a URI's server.

use std::borrow::Cow;

use super::steps::Steps;

/// In a pattern, `{name}`: some text without a `/`.
const SEGMENT: char = '{';
/// In a pattern, `{+path}`, `{/path}`, `{?query}` and the like: any text, or none.
const ANYTHING: char = '}';

/// Bytes that are compared in the time of one step, where they stand beside each other.
const COMPARED_AT_ONCE: usize = 8;

/// The URIs that a template can become: literals in the spelling of URIs (characters that may not
/// stand in one are percent-encoded: RFC 6570, 3.1), and between them the signs of expressions,
/// which stand in no literal in that spelling.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pattern {
    text: String,
    /// The position of the literal with which the pattern ends.
    end: usize,
}

impl Pattern {
    /// The pattern of a template.
    pub fn of(template: &str) -> Pattern {
        let mut text = String::with_capacity(template.len());
        let mut rest = template;
        while let Some((literal, after)) = rest.split_once('{') {
            let Some((expression, after)) = after.split_once('}') else { break };
            text.push_str(&spelled(literal));
            let simple =
                expression.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
            let sign = if simple && !expression.ends_with('*') { SEGMENT } else { ANYTHING };
            if sign == SEGMENT || !text.ends_with(ANYTHING) {
                text.push(sign);
            }
            rest = after;
        }
        text.push_str(&spelled(rest));
        Pattern::new(text)
    }

    fn new(text: String) -> Pattern {
        let end = text.rfind([SEGMENT, ANYTHING]).map_or(0, |at| at + 1);
        Pattern { text, end }
    }

    /// The literal with which the pattern begins, and the rest.
    pub fn split(mut self) -> (String, Pattern) {
        let at = self.text.find([SEGMENT, ANYTHING]).unwrap_or(self.text.len());
        let rest = Pattern::new(self.text.split_off(at));
        (self.text, rest)
    }

    /// True if the template can become this URI, or part of one, which is [`spelled`]. More URIs
    /// match than by the RFC: the match only decides which server is asked, and that server
    /// knows.
    ///
    /// A client chooses the URI and a server the template, so the search for each part takes time
    /// that grows with the length of the rest of the URI, and its cost is taken from the steps
    /// before it is done; false, and the steps are cut, where there are fewer.
    pub fn becomes(&self, uri: &str, steps: &mut Steps) -> bool {
        let end = self.text.get(self.end..).unwrap_or_default();
        // Many bytes are compared at once.
        if !steps.take(1 + end.len() / COMPARED_AT_ONCE) || !uri.ends_with(end) {
            return false;
        }
        // The ends of the URI that the parts so far can reach, in order.
        let mut reached = vec![0_usize];
        let mut rest = self.text.as_str();
        while let Some(sign) = rest.chars().next() {
            let n = match sign {
                SEGMENT | ANYTHING => 1,
                _ => rest.find([SEGMENT, ANYTHING]).unwrap_or(rest.len()),
            };
            let (part, after) = rest.split_at(n);
            let first = reached.first().copied().unwrap_or(0);
            let left = uri.len().saturating_sub(first);
            let next = match sign {
                SEGMENT | ANYTHING => {
                    steps.take(left + 1).then(|| after_text(&reached, uri, sign))
                }
                _ => after_literal(&reached, uri, part, steps),
            };
            let Some(next) = next.filter(|next| !next.is_empty()) else { return false };
            (reached, rest) = (next, after);
        }
        reached.last() == Some(&uri.len())
    }
}

/// A URI, or a part of one, in one spelling: each character that may not stand in a URI is
/// percent-encoded, and no other one is (RFC 3986, 6.2.2). Some clients and servers write `é` and
/// others `%C3%A9`.
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
            other => {
                let digit =
                    |n: u8| char::from_digit(n.into(), 16).map(|c| c.to_ascii_uppercase());
                out.push('%');
                out.extend([digit(other >> 4), digit(other & 15)].into_iter().flatten());
            }
        }
    }
    Cow::Owned(out)
}

/// True for an unreserved character (RFC 3986, 2.3).
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

/// True for an unreserved or reserved character, and for the percent sign.
fn may_stand(byte: u8) -> bool {
    is_unreserved(byte) || b":/?#[]@!$&'()*+,;=%".contains(&byte)
}

/// The ends of a literal where it stands at one of `reached`; none, and the steps are cut, where
/// there are too few.
fn after_literal(
    reached: &[usize],
    uri: &str,
    literal: &str,
    steps: &mut Steps,
) -> Option<Vec<usize>> {
    let first = reached.first().copied().unwrap_or(0);
    let left = uri.len().saturating_sub(first);
    let at_each = reached.len().saturating_mul(literal.len());
    let at_once = literal.len() + left;
    if !steps.take(at_each.min(at_once)) {
        return None;
    }
    if at_each <= at_once {
        let stands_at =
            |start: &usize| uri.get(*start..).is_some_and(|rest| rest.starts_with(literal));
        let starts = reached.iter().copied().filter(stands_at);
        return Some(starts.map(|start| start + literal.len()).collect());
    }
    let mut starts = reached.iter().copied().peekable();
    let ends = ends_of(literal.as_bytes(), uri.as_bytes().get(first..).unwrap_or_default());
    let ends = ends.into_iter().map(|end| first + end).filter(|end| {
        let start = end - literal.len();
        while starts.next_if(|it| *it < start).is_some() {}
        starts.peek() == Some(&start)
    });
    Some(ends.collect())
}

/// The ends of a literal at each place in a text, by the algorithm of Knuth, Morris and Pratt: no
/// byte of the text is read twice, however alike the two are.
fn ends_of(literal: &[u8], text: &[u8]) -> Vec<usize> {
    // For each beginning of the literal, the longest shorter beginning with which it ends.
    let mut shorter = vec![0_usize; literal.len() + 1];
    let grown = |mut n: usize, shorter: &[usize], byte: u8| -> usize {
        loop {
            if literal.get(n) == Some(&byte) {
                return n + 1;
            }
            if n == 0 {
                return 0;
            }
            n = shorter.get(n).copied().unwrap_or(0);
        }
    };
    let mut n = 0;
    for (at, byte) in literal.iter().enumerate().skip(1) {
        n = grown(n, &shorter, *byte);
        if let Some(place) = shorter.get_mut(at + 1) {
            *place = n;
        }
    }
    let (mut ends, mut n) = (Vec::new(), 0);
    for (at, byte) in text.iter().enumerate() {
        n = grown(n, &shorter, *byte);
        if n == literal.len() {
            ends.push(at + 1);
        }
    }
    ends
}

/// The ends of texts that an expression can become and that begin at one of `reached`.
fn after_text(reached: &[usize], uri: &str, sign: char) -> Vec<usize> {
    let (first, uri) = (reached.first().copied().unwrap_or(0), uri.as_bytes());
    let mut next = Vec::new();
    let mut starts = reached.iter().copied().peekable();
    // True while a text that began at some start goes on.
    let mut is_open = false;
    let mut at = first;
    while is_open || starts.peek().is_some() {
        let begins = starts.next_if_eq(&at).is_some();
        if is_open || (begins && sign == ANYTHING) {
            next.push(at);
        }
        let may_go_on = |byte: &u8| sign == ANYTHING || *byte != b'/';
        is_open = (is_open || begins) && uri.get(at).is_some_and(may_go_on);
        at += 1;
    }
    next
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::template_set::TemplateSet;
    use crate::limits::TEMPLATE_BYTES_MAX;

    fn covers(template: &str, uri: &str) -> bool {
        TemplateSet::new([template]).covers(&spelled(uri), &mut Steps::new(usize::MAX))
    }

    #[test]
    fn a_long_uri_costs_no_more_than_its_length_a_part() {
        let template = "{a}{+b}{?c}{+d}{e}{+f}!";
        let uri = "x".repeat(TEMPLATE_BYTES_MAX);
        assert!(!covers(template, &uri));
        let uri = uri + "!";
        let mut steps = Steps::new(8 * uri.len());
        assert!(TemplateSet::new([template]).covers(&uri, &mut steps));
        // The search does not begin where the URI's end is another one.
        let mut steps = Steps::new(2 * uri.len());
        assert!(!TemplateSet::new([template]).covers(&uri.replace('!', "?"), &mut steps));
        assert!(!steps.is_cut());
        let long = "a".repeat(TEMPLATE_BYTES_MAX);
        assert!(covers(&long, &long) && !covers(&format!("{long}a"), &format!("{long}a")));
    }

    #[test]
    fn what_is_almost_everywhere_costs_no_more_than_its_length() {
        let n = TEMPLATE_BYTES_MAX / 2;
        // The literal fits everywhere but for its last byte.
        let template = format!("{{+a}}{}b{{+c}}", "a".repeat(n - 20));
        let uri = "a".repeat(TEMPLATE_BYTES_MAX);
        let mut steps = Steps::new(4 * TEMPLATE_BYTES_MAX);
        let set = TemplateSet::new([template.as_str()]);
        assert!(!set.covers(&uri, &mut steps) && !steps.is_cut());
        // Both ways of searching find the same.
        for literal in ["a", "ab", "aba", "abab", "abaababaab", "b", "aab"] {
            for uri in ["abaababaabaab", "aaaabaaab", "bbbb", "abababababab", ""] {
                let all: Vec<usize> = (0..=uri.len()).collect();
                let found = ends_of(literal.as_bytes(), uri.as_bytes());
                let ends = all.iter().filter(|end| uri[..**end].ends_with(literal));
                assert_eq!(found, ends.copied().collect::<Vec<_>>(), "{literal} {uri}");
                for reached in [&all[..], &all[all.len() / 2..]] {
                    let many = &mut Steps::new(1000);
                    let after = after_literal(reached, uri, literal, many).unwrap();
                    let at = reached.iter().filter(|at| uri[**at..].starts_with(literal));
                    let expected: Vec<usize> = at.map(|at| at + literal.len()).collect();
                    assert_eq!(after, expected, "{literal} {uri}");
                }
            }
        }
    }

    #[test]
    fn nothing_is_done_for_which_the_steps_are_too_few() {
        let templates: Vec<String> =
            (0..200).map(|n| format!("{{+a}}{}{n}{{+c}}", "a".repeat(8000))).collect();
        let set = TemplateSet::new(templates.iter().map(String::as_str));
        let mut steps = Steps::new(100_000);
        assert!(!set.covers(&"a".repeat(8000), &mut steps) && steps.is_cut());
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
