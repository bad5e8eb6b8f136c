//! Configurations that must be refused, as data: `fixtures/config/*.json` hold each a
//! configuration, the environment, and every problem as pointer and part of the text.

use std::collections::HashMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::value::RawValue;
use trunkline::config::{Config, Overrides};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    #[serde(default)]
    env: HashMap<String, String>,
    /// The configuration as it stands: keys that stand twice must survive.
    config: Option<Box<RawValue>>,
    /// Instead of `config`, for what is no JSON.
    text: Option<String>,
    problems: Vec<(String, String)>,
}

#[test]
fn every_problem_is_found_and_no_other() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/fixtures/config");
    let mut n_cases = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let case: Case =
            serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        check(&path, case);
        n_cases += 1;
    }
    assert!(n_cases > 20, "{n_cases}");
}

fn check(path: &Path, case: Case) {
    let path = path.display();
    let config = case.config.as_deref().map(RawValue::get);
    let text = case.text.as_deref().or(config).expect("a case has a configuration or a text");
    let environment = |name: &str| case.env.get(name).cloned();
    let found = Config::parse(text, &environment, &Overrides::default())
        .expect_err(&format!("{path} is accepted"));
    let mut got: Vec<_> = found.iter().map(|problem| problem.at.as_str()).collect();
    let mut expected: Vec<_> = case.problems.iter().map(|(at, _)| at.as_str()).collect();
    got.sort_unstable();
    expected.sort_unstable();
    assert_eq!(got, expected, "{path}: {found:#?}");
    for (at, part) in &case.problems {
        let named =
            found.iter().any(|problem| problem.at == *at && problem.what.contains(part));
        assert!(named, "{path}: no problem at {at:?} says {part:?}: {found:#?}");
    }
    for problem in &found {
        // The marker of every secret in these files.
        assert!(!problem.to_string().contains("hunter2"), "{path}: {problem}");
    }
}
