//! Whether a URI may come from a template (RFC 6570), to find whose it is. Pure.

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
pub fn covers(template: &str, uri: &str) -> bool {
    // The ends of the URI that the parts so far can reach.
    let mut reached = vec![0_usize];
    for part in parts(template) {
        let mut next = Vec::new();
        for start in reached {
            let Some(rest) = uri.get(start..) else { continue };
            match part {
                Part::Literal(literal) => {
                    if rest.starts_with(literal) {
                        next.push(start + literal.len());
                    }
                }
                Part::Segment => {
                    let end = rest.find('/').unwrap_or(rest.len());
                    let ends = rest.char_indices().map(|(at, c)| at + c.len_utf8());
                    next.extend(ends.take_while(|at| *at <= end).map(|at| start + at));
                }
                Part::Anything => {
                    next.push(start);
                    next.extend(rest.char_indices().map(|(at, c)| start + at + c.len_utf8()));
                }
            }
        }
        next.sort_unstable();
        next.dedup();
        reached = next;
    }
    reached.contains(&uri.len())
}

/// How much of a template is literal: of two that cover a URI, the more literal one is meant.
pub fn literal_bytes(template: &str) -> usize {
    parts(template)
        .iter()
        .map(|part| match part {
            Part::Literal(literal) => literal.len(),
            Part::Segment | Part::Anything => 0,
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

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
