//! Pure: compares keys' globs with the servers' tools.

use super::contact::Finding;
use crate::access::glob::ToolGlobs;
use crate::config::{ApiKey, Config, Problem};

/// Keys' globs that match none of the tools found. A glob that may be about a server that is not
/// well, or that only users reach, is not reported.
pub(super) fn idle_globs(config: &Config, findings: &[Finding]) -> Vec<Problem> {
    let keys = config.api_keys.iter().enumerate();
    keys.flat_map(|(index, key)| of_key(config, findings, index, key)).collect()
}

fn of_key(config: &Config, findings: &[Finding], index: usize, key: &ApiKey) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (at, written) in key.tools.iter().flatten().enumerate() {
        let glob = written.strip_prefix('!').unwrap_or(written);
        let globs = ToolGlobs::new(&[glob], &config.naming.owners);
        let separator = &config.naming.separator;
        let may_be_about = |finding: &&Finding| {
            let name = &finding.config.name;
            let is_given = key.servers.as_ref().is_none_or(|servers| servers.contains(name));
            is_given && globs.includes_any_of(name)
        };
        let about: Vec<&Finding> = findings.iter().filter(may_be_about).collect();
        let matches = |finding: &&Finding| {
            let name = &finding.config.name;
            let is_it =
                |own: &String| globs.admits(name, own, &format!("{name}{separator}{own}"));
            !finding.is_well() || finding.is_for_users || finding.tools.iter().any(is_it)
        };
        // A glob that is about no server here is reported without any contact.
        if !about.is_empty() && !about.iter().any(matches) {
            let what = format!("{written:?} matches none of the tools that are there now");
            problems.push(Problem::new(format!("/api_keys/{index}/tools/{at}"), what));
        }
    }
    problems
}
