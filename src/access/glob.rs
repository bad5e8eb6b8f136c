//! Patterns over names: `*` is any text, `?` one character, a leading `!` excludes.

use std::collections::BTreeSet;

use crate::protocol::owners::Owners;
use crate::protocol::server_name::ServerName;

/// A list of patterns. An empty list of inclusions includes everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Globs {
    include: Vec<Box<str>>,
    exclude: Vec<Box<str>>,
}

impl Globs {
    /// Splits the patterns into those that include and those that exclude.
    pub fn new<S: AsRef<str>>(patterns: &[S]) -> Globs {
        let mut globs = Globs::default();
        for pattern in patterns {
            match pattern.as_ref().strip_prefix('!') {
                Some(excluded) => globs.exclude.push(excluded.into()),
                None => globs.include.push(pattern.as_ref().into()),
            }
        }
        globs
    }

    /// True if a name is included and not excluded.
    pub fn admits(&self, name: &str) -> bool {
        let any = |patterns: &[Box<str>]| patterns.iter().any(|pattern| matches(pattern, name));
        (self.include.is_empty() || any(&self.include)) && !any(&self.exclude)
    }
}

/// Patterns over the tools of all servers. A pattern that begins with a server's NAME and the
/// separator (the longest such NAME) matches that server's own names; any other one matches the
/// whole of `{server}{separator}{name}`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ToolGlobs {
    include: Vec<ToolGlob>,
    exclude: Vec<ToolGlob>,
    /// The servers whose tools could be included; none where any server's could.
    servers: Option<BTreeSet<ServerName>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct ToolGlob {
    /// The server whose own names the pattern matches, if it is about one server.
    server: Option<ServerName>,
    pattern: Box<str>,
}

impl ToolGlobs {
    /// Splits the patterns into those that include and those that exclude.
    pub fn new<S: AsRef<str>>(patterns: &[S], owners: &Owners) -> ToolGlobs {
        let mut globs = ToolGlobs::default();
        for pattern in patterns {
            let (pattern, globs) = match pattern.as_ref().strip_prefix('!') {
                Some(excluded) => (excluded, &mut globs.exclude),
                None => (pattern.as_ref(), &mut globs.include),
            };
            let owned = owners.begun_by_name(pattern);
            globs.push(ToolGlob {
                server: owned.map(|(server, _)| server.clone()),
                pattern: owned.map_or(pattern, |(_, rest)| rest).into(),
            });
        }
        if !globs.include.is_empty() {
            let could_be_its = |server: &&ServerName| {
                globs.include.iter().any(|glob| match &glob.server {
                    Some(about) => about == *server,
                    None => owners
                        .beginning(server)
                        .is_some_and(|text| matches_beyond(&glob.pattern, text)),
                })
            };
            globs.servers = Some(owners.servers().filter(could_be_its).cloned().collect());
        }
        globs
    }

    /// True if an inclusion can match some tool name of the server. The tools that the server lists
    /// do not matter.
    pub fn includes_any_of(&self, server: &ServerName) -> bool {
        self.servers.as_ref().is_none_or(|servers| servers.contains(server))
    }

    /// As `includes_any_of`, and not all of the server's tools are excluded.
    pub fn admits_any_of(&self, server: &ServerName) -> bool {
        let is_all = |glob: &ToolGlob| {
            glob.server.as_ref().is_none_or(|about| about == server) && &*glob.pattern == "*"
        };
        self.includes_any_of(server) && !self.exclude.iter().any(is_all)
    }

    /// True if the tool that `server` calls `own`, `qualified` with its NAME, is included and not
    /// excluded.
    pub fn admits(&self, server: &ServerName, own: &str, qualified: &str) -> bool {
        let hits = |glob: &ToolGlob| match &glob.server {
            Some(about) => about == server && matches(&glob.pattern, own),
            None => matches(&glob.pattern, qualified),
        };
        (self.include.is_empty() || self.include.iter().any(hits))
            && !self.exclude.iter().any(hits)
    }
}

/// True if the pattern matches some text that begins with `beginning` and is longer.
fn matches_beyond(pattern: &str, beginning: &str) -> bool {
    let mut pattern = pattern.chars();
    for expected in beginning.chars() {
        match pattern.next() {
            Some('*') => return true,
            Some(any) if any == '?' || any == expected => (),
            Some(_) | None => return false,
        }
    }
    pattern.next().is_some()
}

/// Matches without recursion: a mismatch goes back to the last `*` only, so the cost is at most
/// the product of the two lengths.
fn matches(pattern: &str, name: &str) -> bool {
    let (mut pattern, mut name) = (pattern.chars(), name.chars());
    let mut back: Option<(std::str::Chars<'_>, std::str::Chars<'_>)> = None;
    loop {
        let mut ahead = pattern.clone();
        match (ahead.next(), name.clone().next()) {
            (Some('*'), _) => {
                pattern = ahead;
                back = Some((pattern.clone(), name.clone()));
            }
            (Some(p), Some(n)) if p == '?' || p == n => {
                pattern = ahead;
                name.next();
            }
            (None, None) => return true,
            _ => {
                let Some((after_star, mut from)) = back.take() else { return false };
                if from.next().is_none() {
                    return false;
                }
                pattern = after_star.clone();
                name = from.clone();
                back = Some((after_star, from));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_and_question_marks_match_as_in_a_shell() {
        for (pattern, name, expected) in [
            ("*", "", true),
            ("a*", "abc", true),
            ("*c", "abc", true),
            ("a*c*e", "abcde", true),
            ("a*c*f", "abcde", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("github-get_*", "github-get_issue", true),
            ("github-get_*", "xgithub-get_issue", false),
            ("é?", "éa", true),
            ("*a*a*a*b", "aaaaaaaaaaaaaaaaaaaaaaaa", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} on {name}");
        }
    }

    #[test]
    fn exclusions_win_and_alone_include_the_rest() {
        let globs = Globs::new(&["a*", "!ab"]);
        assert!(globs.admits("ac") && !globs.admits("ab") && !globs.admits("b"));
        let globs = Globs::new(&["!ab"]);
        assert!(globs.admits("x") && !globs.admits("ab"));
        assert!(Globs::default().admits("anything"));
    }

    #[test]
    fn globs_tell_whose_tools_they_could_be_about() {
        let servers = ["demo", "demo-admin", "d"].map(|it| ServerName::parse(it).unwrap());
        let owners = Owners::new("-", servers.iter().map(|it| (it, None)));
        for (patterns, included, admitted) in [
            (&["!nobody"][..], [true, true, true], [true, true, true]),
            (&["demo-x"], [true, false, false], [true, false, false]),
            (&["demo-*"], [true, false, false], [true, false, false]),
            (&["*-x"], [true, true, true], [true, true, true]),
            (&["de*"], [true, true, false], [true, true, false]),
            (&["?-x"], [false, false, true], [false, false, true]),
            (&["dem"], [false, false, false], [false, false, false]),
            (&["nobody-x"], [false, false, false], [false, false, false]),
            (&["!d-*"], [true, true, true], [true, true, false]),
            (&["!d-x", "!nobody-*"], [true, true, true], [true, true, true]),
            (&["!*"], [true, true, true], [false, false, false]),
            (&["demo-x", "!demo-*"], [true, false, false], [false, false, false]),
        ] {
            let globs = ToolGlobs::new(patterns, &owners);
            let each = |is: fn(&ToolGlobs, &ServerName) -> bool| {
                [0, 1, 2].map(|at| is(&globs, &servers[at]))
            };
            assert_eq!(each(ToolGlobs::includes_any_of), included, "{patterns:?}");
            assert_eq!(each(ToolGlobs::admits_any_of), admitted, "{patterns:?}");
        }
    }

    #[test]
    fn a_pattern_that_names_a_server_is_about_that_one_alone() {
        let servers = ["demo", "demo-admin", "d"].map(|it| ServerName::parse(it).unwrap());
        let [demo, admin, d] = &servers;
        let owners = Owners::new("-", servers.iter().map(|it| (it, None)));
        let admits = |patterns: &[&str], server: &ServerName, own: &str| {
            let qualified = format!("{server}-{own}");
            ToolGlobs::new(patterns, &owners).admits(server, own, &qualified)
        };
        assert!(admits(&["demo-*"], demo, "admin-drop"));
        assert!(!admits(&["demo-*"], admin, "drop"));
        assert!(!admits(&["demo-admin-*"], demo, "admin-drop"), "the same name as a whole");
        assert!(admits(&["demo-admin-*"], admin, "drop"));
        assert!(admits(&["demo-*", "!demo-admin-*"], demo, "admin-drop"));
        assert!(admits(&["*-get_*"], admin, "get_x") && admits(&["*-get_*"], d, "get_x"));
        assert!(admits(&["*", "!d-x"], d, "y") && !admits(&["*", "!d-x"], d, "x"));
        assert!(admits(&["*", "!d-x"], demo, "x") && admits(&[], demo, "x"));
        assert!(!admits(&["x"], demo, "x"));
    }
}
