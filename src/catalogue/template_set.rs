//! Pure: the templates of one server, prepared once for many look-ups, and the bound on a look-
//! up's cost.
//!
//! A server chooses its templates, and another server the links that are looked up in them: the
//! cost of one look-up must not be the product of the two.

use std::collections::{BTreeMap, BTreeSet};

use super::steps::Steps;
use super::template::Pattern;
use crate::limits::TEMPLATE_BYTES_MAX;

/// Templates, by the literal with which they begin.
#[derive(Debug, Default, PartialEq)]
pub struct TemplateSet {
    /// The beginnings, sorted by literal.
    beginnings: Vec<Beginning>,
}

#[derive(Debug, PartialEq)]
struct Beginning {
    literal: String,
    /// The index of the longest other literal with which this one begins.
    shorter: Option<usize>,
    /// The rests of the templates behind the literal.
    rests: BTreeSet<Pattern>,
}

impl TemplateSet {
    /// Templates that are too long are left out.
    pub fn new<'a>(templates: impl IntoIterator<Item = &'a str>) -> TemplateSet {
        let mut by_literal: BTreeMap<String, BTreeSet<Pattern>> = BTreeMap::new();
        for template in templates {
            if template.len() <= TEMPLATE_BYTES_MAX {
                let (literal, rest) = Pattern::of(template).split();
                by_literal.entry(literal).or_default().insert(rest);
            }
        }
        let mut beginnings: Vec<Beginning> = Vec::with_capacity(by_literal.len());
        // The last literal, the one with which it begins, and so on.
        let mut shorter: Vec<usize> = Vec::new();
        for (literal, rests) in by_literal {
            let begins_with = |at: &usize| {
                beginnings.get(*at).is_some_and(|it| literal.starts_with(&it.literal))
            };
            while shorter.last().is_some_and(|at| !begins_with(at)) {
                shorter.pop();
            }
            let longest = shorter.last().copied();
            shorter.push(beginnings.len());
            beginnings.push(Beginning { literal, shorter: longest, rests });
        }
        TemplateSet { beginnings }
    }

    /// True if there is no template.
    pub fn is_empty(&self) -> bool {
        self.beginnings.is_empty()
    }

    /// True if one of the templates can become this URI, which has the spelling of
    /// [`spelled`](super::template::spelled). Only templates that begin as the URI does are
    /// matched. False, and the steps are cut, where that takes more of them.
    pub fn covers(&self, uri: &str, steps: &mut Steps) -> bool {
        if !steps.take(uri.len()) {
            return false;
        }
        // A literal with which the URI begins is the last one that is not after the URI in the
        // order, or one with which that one begins, because all literals between the two begin
        // with it as well.
        let n_before = self.beginnings.partition_point(|it| it.literal.as_str() <= uri);
        let mut at = n_before.checked_sub(1);
        let last = at.and_then(|at| self.beginnings.get(at));
        let pairs = last.into_iter().flat_map(|it| it.literal.bytes().zip(uri.bytes()));
        let n_same = pairs.take_while(|(a, b)| a == b).count();
        while let Some(beginning) = at.and_then(|at| self.beginnings.get(at)) {
            let left = uri.get(beginning.literal.len()..);
            let left = left.filter(|_| beginning.literal.len() <= n_same);
            for rest in beginning.rests.iter().filter(|_| left.is_some()) {
                if rest.becomes(left.unwrap_or_default(), steps) {
                    return true;
                }
                if steps.is_cut() {
                    return false;
                }
            }
            if !steps.take(1) {
                return false;
            }
            at = beginning.shorter;
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::template::spelled;

    #[test]
    fn only_templates_that_begin_as_the_uri_does_are_looked_at() {
        let templates: Vec<String> = (0..20_000).map(|n| format!("x://{n}/{{id}}")).collect();
        let set = TemplateSet::new(templates.iter().map(String::as_str));
        let mut steps = Steps::new(usize::MAX);
        for n in 0..2000 {
            assert!(set.covers(&format!("x://{}/y", n * 10), &mut steps));
            assert!(!set.covers(&format!("x://{}-/y", n * 10), &mut steps));
            assert!(!set.covers(&format!("y://{n}/y"), &mut steps));
        }
        // Matching each with each would take more than a hundred million steps.
        let n_steps = usize::MAX - steps.n_left;
        assert!(n_steps < 400_000, "{n_steps}");
    }

    #[test]
    fn templates_that_are_alike_are_one() {
        let name =
            |n: usize| format!("{{{}}}{{b}}{{c}}{{d}}{{e}}{{f{n}}}!", "a".repeat(n % 9 + 1));
        let templates: Vec<String> = (0..20_000).map(name).collect();
        let set = TemplateSet::new(templates.iter().map(String::as_str));
        let mut steps = Steps::new(10_000);
        assert!(!set.covers(&"x".repeat(1500), &mut steps) && !steps.is_cut());
        steps = Steps::new(40_000);
        assert!(set.covers(&format!("{}!", "x".repeat(1500)), &mut steps));
    }

    #[test]
    fn nothing_goes_on_once_the_steps_are_taken() {
        let templates: Vec<String> =
            (0..5000).map(|n| format!("{{a}}{{b}}{{+c}}-{n}{{+d}}!")).collect();
        let set = TemplateSet::new(templates.iter().map(String::as_str));
        let uri = format!("{}!", "-".repeat(1500));
        let mut steps = Steps::new(1_000_000);
        let covers = steps.part(100_000, |part| set.covers(&uri, part));
        assert!(!covers && steps.is_cut());
        assert_eq!(steps.n_left, 900_000);
        assert!(!steps.take(900_001) && !steps.take(1));
    }

    #[test]
    fn every_literal_with_which_a_uri_begins_is_found() {
        let all = ["", "a", "ab", "abc", "abd", "ab/", "b", "a~"];
        for n in 0..1_usize << all.len() {
            let some: Vec<&str> = all
                .iter()
                .enumerate()
                .filter(|(at, _)| n >> at & 1 == 1)
                .map(|(_, it)| *it)
                .collect();
            let templates: Vec<String> = some.iter().map(|it| format!("{it}{{+x}}!")).collect();
            let set = TemplateSet::new(templates.iter().map(String::as_str));
            for uri in ["abcd!", "ab!", "abd!", "ab/d!", "a~!", "c!", "b!", "aa!", "a!", "!"] {
                let expected = some.iter().any(|it| uri.starts_with(it));
                let mut steps = Steps::new(1000);
                assert_eq!(set.covers(&spelled(uri), &mut steps), expected, "{some:?} {uri}");
            }
        }
        assert!(TemplateSet::new([]).is_empty());
    }
}
