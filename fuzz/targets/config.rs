//! `config.json`: whatever stands in it, it is read or every problem is listed, and no secret is
//! in what is told.

use crate::access::glob::Globs;
use crate::config::{Config, Overrides};

/// What every variable of the environment holds.
const SECRET: &str = "sekrit-of-the-environment";

pub(super) fn config(data: &[u8]) {
    // An input that holds the secret itself tells nothing.
    let text = std::str::from_utf8(data).ok().filter(|text| !text.contains(SECRET));
    let Some(text) = text else { return };
    let environment = |name: &str| (!name.contains("MISSING")).then(|| SECRET.to_owned());
    let overrides = Overrides { listen: None };
    let told: Vec<String> = match Config::parse(text, &environment, &overrides) {
        Ok(config) => {
            let names = config.upstreams.iter().map(|it| it.name.as_str());
            assert!(names.is_sorted(), "{text}");
            config.warnings.iter().map(|it| it.with_line("f")).collect()
        }
        Err(problems) => {
            assert!(!problems.is_empty(), "refused without a problem: {text}");
            problems.iter().map(|it| it.with_line("f")).collect()
        }
    };
    for line in told {
        assert!(!line.is_empty());
        assert!(!line.contains(SECRET), "{line}");
    }
    let lines: Vec<&str> = text.lines().take(8).collect();
    if let [name, patterns @ ..] = lines.as_slice() {
        globs(name, patterns);
    }
}

/// The same without any care for the cost.
fn matches(pattern: &[char], name: &[char]) -> bool {
    match (pattern, name) {
        ([], []) => true,
        (['*', rest @ ..], _) => {
            matches(rest, name) || (!name.is_empty() && matches(pattern, &name[1..]))
        }
        ([p, pattern @ ..], [n, name @ ..]) => (*p == '?' || p == n) && matches(pattern, name),
        _ => false,
    }
}

fn globs(name: &str, patterns: &[&str]) {
    let is_small = |text: &str| text.chars().count() <= 12;
    if !is_small(name) || !patterns.iter().all(|pattern| is_small(pattern)) {
        Globs::new(patterns).admits(name);
        return;
    }
    let chars = |text: &str| text.chars().collect::<Vec<char>>();
    let any = |excluding: bool| {
        patterns.iter().any(|pattern| {
            let own = pattern.strip_prefix('!');
            own.is_some() == excluding && matches(&chars(own.unwrap_or(pattern)), &chars(name))
        })
    };
    let includes = patterns.iter().any(|pattern| !pattern.starts_with('!'));
    let expected = (!includes || any(false)) && !any(true);
    assert_eq!(Globs::new(patterns).admits(name), expected, "{patterns:?} on {name:?}");
}
