//! Whether a URI may come from a template (RFC 6570), to find whose it is. Pure.

use crate::limits::TEMPLATE_BYTES_MAX;

/// One part of a template.
#[derive(Debug, PartialEq)]
enum Part<'a> {
    Literal(&'a str),
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
            parts.push(Part::Literal(literal));
        }
        let simple = expression.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
        let exploded = expression.ends_with('*');
        parts.push(if simple && !exploded { Part::Segment } else { Part::Anything });
        rest = after;
    }
    if !rest.is_empty() {
        parts.push(Part::Literal(rest));
    }
    parts
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
    if let Some(Part::Literal(literal)) = parts.first()
        && !uri.starts_with(literal)
    {
        return false;
    }
    // The ends of the URI that the parts so far can reach, in order.
    let mut reached = vec![0_usize];
    for part in parts {
        reached = match part {
            Part::Literal(literal) => after_literal(&reached, uri, literal),
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
