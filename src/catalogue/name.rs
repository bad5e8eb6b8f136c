//! Offered names: how a server's tool is called by clients.

use std::collections::HashMap;

use crate::config::{Naming, Prefix};
use crate::limits::OFFERED_NAME_CHARS_MAX;
use crate::protocol::server_name::ServerName;

/// Characters of the ending that makes a name unique: `_` and 8 of a hash.
const ENDING_CHARS: usize = 9;

/// A tool before it has a name that clients use.
#[derive(Debug, Clone, Copy)]
pub struct Unnamed<'a> {
    /// The server's NAME.
    pub server: &'a ServerName,
    /// The server's alias, or its NAME.
    pub shown: &'a str,
    /// The tool's name at its server.
    pub own: &'a str,
}

/// Whether names carry their server's name.
pub fn is_prefixed(naming: &Naming, n_servers: usize) -> bool {
    match naming.prefix {
        Prefix::Always => true,
        Prefix::Never => false,
        Prefix::Auto => n_servers > 1,
    }
}

/// The name that policies match: always whole, always with the server's NAME.
pub fn qualified(naming: &Naming, server: &ServerName, own: &str) -> String {
    format!("{server}{}{own}", naming.separator)
}

/// The offered names, in the order of `tools`, which must be sorted by server. No two are
/// equal; where two would be, all but the first get the hash ending.
pub fn offered(naming: &Naming, prefixed: bool, tools: &[Unnamed<'_>]) -> Vec<String> {
    let mut names: Vec<String> = Vec::with_capacity(tools.len());
    let mut taken: HashMap<String, ()> = HashMap::with_capacity(tools.len());
    for tool in tools {
        let whole = if prefixed {
            format!("{}{}{}", tool.shown, naming.separator, tool.own)
        } else {
            tool.own.to_owned()
        };
        let too_long = whole.chars().count() > OFFERED_NAME_CHARS_MAX;
        let name = if too_long || taken.contains_key(&whole) {
            // A server may offer what another one's tool would be called with its ending: it
            // gets no calls that are meant for that.
            let mut endings = (0_u64..).map(|salt| with_hash(&whole, tool, salt));
            endings.find(|name| !taken.contains_key(name)).unwrap_or(whole)
        } else {
            whole
        };
        taken.insert(name.clone(), ());
        names.push(name);
    }
    names
}

/// The offered URIs, in the order of `items`: unchanged, but where several servers have the
/// same one each carries its server's NAME.
pub fn offered_uris(items: &[Unnamed<'_>]) -> Vec<String> {
    let mut n_servers: HashMap<&str, usize> = HashMap::with_capacity(items.len());
    for item in items {
        *n_servers.entry(item.own).or_default() += 1;
    }
    let clashes = |own: &str| n_servers.get(own).is_some_and(|n| *n > 1);
    items
        .iter()
        .map(|item| {
            if clashes(item.own) {
                of_server(item.server, item.own)
            } else {
                item.own.to_owned()
            }
        })
        .collect()
}

/// A URI, or the id of a task, that says whose it is.
pub fn of_server(server: &ServerName, own: &str) -> String {
    format!("{server}+{own}")
}

/// Takes [`of_server`] apart. A NAME holds no `+`.
pub fn split_server(text: &str) -> Option<(&str, &str)> {
    text.split_once('+')
}

/// The beginning of `whole`, `_` and 8 characters of a hash over the server's NAME and the
/// tool's own name, which together are unique; with a `salt` for a further one.
fn with_hash(whole: &str, tool: &Unnamed<'_>, salt: u64) -> String {
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    context.update(tool.server.as_str().as_bytes());
    context.update(&[0]);
    context.update(tool.own.as_bytes());
    if salt > 0 {
        context.update(&[0]);
        context.update(&salt.to_be_bytes());
    }
    let hash = context.finish();
    let mut name: String = whole.chars().take(OFFERED_NAME_CHARS_MAX - ENDING_CHARS).collect();
    name.push('_');
    for byte in hash.as_ref().iter().take(4) {
        name.push_str(&format!("{byte:02x}"));
    }
    name
}

/// At most `limit` of `names` that look like `asked`.
pub fn near<'a>(
    asked: &str,
    names: impl Iterator<Item = &'a str>,
    limit: usize,
) -> Vec<String> {
    // Names beyond this length are no typing mistakes, and comparing them costs.
    let asked: String = asked.chars().take(2 * OFFERED_NAME_CHARS_MAX).collect();
    let asked = asked.to_lowercase();
    let mut scored: Vec<(usize, &str)> = names
        .filter_map(|name| {
            let lower = name.to_lowercase();
            let inside = asked.len() >= 3 && (lower.contains(&asked) || asked.contains(&lower));
            let distance = if inside { 1 } else { distance_up_to_two(&asked, &lower)? };
            Some((distance, name))
        })
        .collect();
    scored.sort_unstable();
    scored.into_iter().take(limit).map(|(_, name)| name.to_owned()).collect()
}

/// The edit distance of two names, if it is at most two.
fn distance_up_to_two(a: &str, b: &str) -> Option<usize> {
    if a.chars().count().abs_diff(b.chars().count()) > 2 {
        return None;
    }
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        let mut next = Vec::with_capacity(row.len());
        next.push(left);
        for (to, above) in b.iter().zip(row.iter().skip(1)) {
            let replaced = diagonal + usize::from(from != *to);
            left = replaced.min(left + 1).min(above + 1);
            diagonal = *above;
            next.push(left);
        }
        row = next;
        if row.iter().min().is_some_and(|least| *least > 2) {
            return None;
        }
    }
    row.last().copied().filter(|distance| *distance <= 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn naming(prefix: Prefix) -> Naming {
        Naming { prefix, separator: "-".to_owned() }
    }

    fn offered_of(prefixed: bool, tools: &[(&str, &str)]) -> Vec<String> {
        let servers: Vec<ServerName> =
            tools.iter().map(|(server, _)| ServerName::parse(server).unwrap()).collect();
        let unnamed: Vec<Unnamed<'_>> = tools
            .iter()
            .zip(&servers)
            .map(|((_, own), server)| Unnamed { server, shown: server.as_str(), own })
            .collect();
        offered(&naming(Prefix::Auto), prefixed, &unnamed)
    }

    #[test]
    fn a_server_cannot_take_the_name_that_another_s_tool_falls_back_to() {
        let honest = offered_of(false, &[("a", "echo"), ("b", "echo")]);
        let (first, second) = (&honest[0], &honest[1]);
        assert_ne!(first, second);
        let names = offered_of(false, &[("a", "echo"), ("a", second), ("b", "echo")]);
        assert_eq!(names[..2], [first.clone(), second.clone()]);
        assert!(names[2].starts_with("echo_") && names[2] != *second, "{names:?}");
    }

    #[test]
    fn auto_prefixes_once_there_are_two_servers() {
        assert!(!is_prefixed(&naming(Prefix::Auto), 1));
        assert!(is_prefixed(&naming(Prefix::Auto), 2));
        assert_eq!(offered_of(true, &[("a", "x")]), ["a-x"]);
        assert_eq!(offered_of(false, &[("a", "x")]), ["x"]);
    }

    #[test]
    fn equal_names_get_the_hash_but_for_the_first() {
        let names = offered_of(true, &[("a", "b-c"), ("a-b", "c")]);
        assert_eq!(names[0], "a-b-c");
        assert!(names[1].starts_with("a-b-c_") && names[1].len() == 14, "{names:?}");
        let names = offered_of(false, &[("a", "x"), ("b", "x"), ("c", "x")]);
        assert_eq!(names[0], "x");
        assert_ne!(names[1], names[2]);
        assert_eq!(names, offered_of(false, &[("a", "x"), ("b", "x"), ("c", "x")]));
    }

    #[test]
    fn a_name_over_the_cap_is_cut_to_it_and_stays_unique() {
        let long = "é".repeat(70);
        let other = format!("{long}x");
        let names = offered_of(true, &[("a", &long), ("a", &other)]);
        for name in &names {
            assert_eq!(name.chars().count(), OFFERED_NAME_CHARS_MAX);
        }
        assert_ne!(names[0], names[1]);
        let fits = "x".repeat(62);
        assert_eq!(offered_of(true, &[("a", &fits)]), [format!("a-{fits}")]);
    }

    #[test]
    fn near_names_are_few_and_close() {
        let names = ["echo", "echo_all", "add", "sum"];
        assert_eq!(near("ehco", names.into_iter(), 3), ["echo"]);
        assert_eq!(near("echo", names.into_iter(), 3), ["echo", "echo_all"]);
        assert_eq!(near("zzz", names.into_iter(), 3), Vec::<String>::new());
        assert_eq!(near("ad", names.into_iter(), 3), ["add"]);
    }
}
