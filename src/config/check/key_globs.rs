//! Pure: warnings about keys' globs that may not mean what they seem to.

use crate::config::Naming;
use crate::config::file::foreign::nearest;
use crate::protocol::server_name::ServerName;

/// Servers that one warning names.
const NAMED_MAX: usize = 3;

/// The holder of rights, in texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Holder {
    /// An element of `api_keys`.
    Key,
    /// An element of `oauth.rules`, in which `*` stands for all servers.
    Rule,
}

impl Holder {
    /// The holder's noun.
    pub(crate) fn noun(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Rule => "rule",
        }
    }
}

/// The warning about a tool glob that could be about two servers, or is about none. A glob that
/// begins with a wildcard is meant for all servers.
pub(crate) fn unclear(
    naming: &Naming,
    holder: Holder,
    glob: &str,
    own: Option<&[ServerName]>,
) -> Option<String> {
    let (mark, glob) = match glob.strip_prefix('!') {
        Some(glob) => ("!", glob),
        None => ("", glob),
    };
    let could_be_of = |server: &&ServerName| {
        let beginning = format!("{server}{}", naming.separator);
        may_begin_with(glob, &beginning)
    };
    let all: Vec<&ServerName> = naming.owners.servers().filter(could_be_of).collect();
    let owner = naming.owners.begun_by_name(glob).map(|(owner, _)| owner);
    let about: Vec<&ServerName> = owner.map_or_else(|| all.clone(), |owner| vec![owner]);
    if let Some(own) = own
        && !about.is_empty()
        && about.iter().all(|server| !own.contains(server))
    {
        return Some(format!(
            "matches nothing: it is about tools of {}, which \"servers\" of this {} does not name",
            named(&about),
            holder.noun()
        ));
    }
    match naming.owners.begun_by_name(glob) {
        Some((owner, _)) => {
            // A glob with the longer NAME means that server.
            let is_within = |it: &ServerName| {
                owner.as_str().starts_with(&format!("{it}{}", naming.separator))
            };
            let others: Vec<_> =
                all.into_iter().filter(|it| *it != owner && !is_within(it)).collect();
            (!others.is_empty()).then(|| {
                format!(
                    "is about tools of {owner} alone, not about those of {}",
                    named(&others)
                )
            })
        }
        None if all.is_empty() => Some(format!(
            "is about no server: globs of {}s match NAME{}name{}",
            holder.noun(),
            naming.separator,
            proposal(naming, mark, glob, own)
        )),
        None if all.len() > 1 && !glob.starts_with(['*', '?']) => {
            Some(format!("is about several servers: {}", named(&all)))
        }
        None => None,
    }
}

/// A proposal for a glob that is about no server: the NAME may be nearly right, or be missing.
fn proposal(naming: &Naming, mark: &str, glob: &str, own: Option<&[ServerName]>) -> String {
    let separator = &naming.separator;
    let may_be = |server: &&ServerName| own.is_none_or(|own| own.contains(server));
    let servers: Vec<&ServerName> = naming.owners.servers().filter(may_be).collect();
    // Other gateways have other separators.
    let other = servers.iter().find_map(|server| {
        let rest = glob.strip_prefix(server.as_str())?;
        Some((server, rest.strip_prefix(['_', '-', '.', '/', ':'])?.trim_start_matches('_')))
    });
    if let Some((server, rest)) = other.filter(|(_, rest)| !rest.is_empty()) {
        return format!("; did you mean \"{mark}{server}{separator}{rest}\"?");
    }
    if let Some((name, rest)) = glob.split_once(separator.as_str())
        && let Some(near) = nearest(name, servers.iter().map(|it| it.as_str()))
    {
        return format!("; did you mean \"{mark}{near}{separator}{rest}\"?");
    }
    match servers.as_slice() {
        [] => String::new(),
        [only] => format!("; did you mean \"{mark}{only}{separator}{glob}\"?"),
        [first, ..] => format!(", as \"{mark}{first}{separator}{glob}\""),
    }
}

/// The warning that a key with these globs, and without a list of servers, does not see prompts
/// and resources: those of every server of which it may use no tool.
pub(crate) fn hides(naming: &Naming, holder: Holder, tools: &[String]) -> Option<String> {
    let included = tools.iter().filter(|glob| !glob.starts_with('!'));
    let owner = |glob: &String| naming.owners.begun_by_name(glob).map(|(server, _)| server);
    // A glob that names no server may be about all of them.
    let owners = included.map(owner).collect::<Option<Vec<&ServerName>>>()?;
    if owners.is_empty() {
        return None;
    }
    let hidden: Vec<&ServerName> =
        naming.owners.servers().filter(|server| !owners.contains(server)).collect();
    (!hidden.is_empty()).then(|| {
        format!(
            "without \"servers\", the {} sees no prompts and resources either of servers of \
             which it may use no tool: {}; \"servers\" says which it sees",
            holder.noun(),
            named(&hidden)
        )
    })
}

fn named(servers: &[&ServerName]) -> String {
    let names = servers.iter().take(NAMED_MAX).map(|it| it.as_str()).collect::<Vec<_>>();
    let more = if servers.len() > NAMED_MAX { " and others" } else { "" };
    format!("{}{more}", names.join(", "))
}

/// True if a glob matches some text that begins with `beginning`.
fn may_begin_with(glob: &str, beginning: &str) -> bool {
    let glob: Vec<char> = glob.chars().collect();
    // The positions in the glob that the text so far can reach.
    let mut reached = vec![0_usize];
    for c in beginning.chars() {
        let mut next = Vec::with_capacity(reached.len() + 1);
        for at in past_stars(&glob, &reached) {
            match glob.get(at) {
                Some('*') => next.push(at),
                Some(p) if *p == '?' || *p == c => next.push(at + 1),
                Some(_) | None => (),
            }
        }
        next.sort_unstable();
        next.dedup();
        reached = next;
    }
    !reached.is_empty()
}

/// The positions, and those behind stars, which may match the empty text.
fn past_stars(glob: &[char], reached: &[usize]) -> Vec<usize> {
    let mut all = Vec::with_capacity(reached.len());
    for from in reached {
        let n_stars = glob.iter().skip(*from).take_while(|c| **c == '*').count();
        all.extend(*from..=from + n_stars);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Prefix;

    #[test]
    fn a_glob_is_held_against_the_beginnings_of_names() {
        for (glob, beginning, expected) in [
            ("*", "a-", true),
            ("a-*", "a-", true),
            ("a-*", "a-b-", true),
            ("a-get_*", "a-b-", false),
            ("a", "a-", false),
            ("a-", "a-", true),
            ("*-get", "a-", true),
            ("a**-x", "a-b-", true),
            ("?-x", "a-", true),
            ("b*", "a-", false),
        ] {
            assert_eq!(may_begin_with(glob, beginning), expected, "{glob} {beginning}");
        }
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_told() {
        let names = ["demo", "demo-admin", "other"].map(|it| ServerName::parse(it).unwrap());
        let naming = Naming::new(Prefix::Auto, "-", names.iter().map(|it| (it, Some("alias"))));
        for (glob, told) in [
            ("*", None),
            ("*-get_*", None),
            ("demo-get_*", None),
            ("demo-admin-*", None),
            ("!demo-admin-x", None),
            ("other-*", None),
            ("oth*", None),
            ("demo-*", Some("is about tools of demo alone, not about those of demo-admin")),
            ("!demo-a*", Some("is about tools of demo alone, not about those of demo-admin")),
            ("demo*", Some("is about several servers: demo, demo-admin")),
            (
                "get_*",
                Some("is about no server: globs of keys match NAME-name, as \"demo-get_*\""),
            ),
            (
                "alias-*",
                Some("is about no server: globs of keys match NAME-name, as \"demo-alias-*\""),
            ),
            (
                "!otehr-x",
                Some(
                    "is about no server: globs of keys match NAME-name; did you mean \"!other-x\"?",
                ),
            ),
        ] {
            assert_eq!(unclear(&naming, Holder::Key, glob, None).as_deref(), told, "{glob}");
        }
        let other = [names[2].clone()];
        for (glob, told) in [
            ("other-*", None),
            ("*", None),
            ("oth*", None),
            ("demo-x", Some("matches nothing: it is about tools of demo, which")),
            ("!demo-admin-x", Some("matches nothing: it is about tools of demo-admin, which")),
            ("de*", Some("matches nothing: it is about tools of demo, demo-admin, which")),
            ("get_*", Some("did you mean \"other-get_*\"?")),
        ] {
            let found = unclear(&naming, Holder::Key, glob, Some(&other));
            assert_eq!(found.is_some(), told.is_some(), "{glob}");
            let found = found.unwrap_or_default();
            assert!(found.contains(told.unwrap_or_default()), "{glob}: {found}");
        }
    }
}
