//! Offered names: how a server's tool is called by clients.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

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

/// The offered URIs, in the order of `items`, which must be that of the configuration: unchanged
/// for the first server that has one, with its server's NAME for the others, and for a URI that
/// would be read as another server's.
pub fn offered_uris(items: &[Unnamed<'_>], is_server: impl Fn(&str) -> bool) -> Vec<String> {
    let mut taken: HashMap<&str, &ServerName> = HashMap::with_capacity(items.len());
    let mut listed: HashSet<(&str, &str)> = HashSet::new();
    for item in items {
        taken.entry(item.own).or_insert(item.server);
        listed.insert((item.server.as_str(), item.own));
    }
    let is_plain = |item: &Unnamed<'_>| match split_server(item.own) {
        // It would lead to that server, or to what this one has under the rest.
        Some((name, rest)) if is_server(name) => {
            name == item.server.as_str() && !listed.contains(&(name, &*rest))
        }
        Some(_) | None => taken.get(item.own) == Some(&item.server),
    };
    let offered = |item: &Unnamed<'_>| {
        if is_plain(item) { item.own.to_owned() } else { of_server(item.server, item.own) }
    };
    items.iter().map(offered).collect()
}

/// The scheme of the user interfaces of MCP Apps, which hosts look for in front.
const UI_SCHEME: &str = "ui://";

/// A URI, or the id of a task, that says whose it is: `{server}+{own}`, and for the scheme `ui`
/// `ui://{server}+rest`. [`split_server`] is its inverse.
pub fn of_server(server: &ServerName, own: &str) -> String {
    match split_ui(own) {
        Some((scheme, rest)) => format!("{scheme}{server}+{rest}"),
        None => format!("{server}+{own}"),
    }
}

/// Takes apart what [`of_server`] has put together: a NAME, and what that server calls it. Whether
/// there is such a server is not looked at. A NAME holds no `+`.
pub fn split_server(text: &str) -> Option<(&str, Cow<'_, str>)> {
    let (scheme, marked) = split_ui(text).unwrap_or(("", text));
    let (server, rest) = marked.split_once('+')?;
    let own = if scheme.is_empty() { rest.into() } else { format!("{scheme}{rest}").into() };
    Some((server, own))
}

/// A scheme's case is of no account (RFC 3986, 3.1).
fn split_ui(uri: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = uri.split_at_checked(UI_SCHEME.len())?;
    scheme.eq_ignore_ascii_case(UI_SCHEME).then_some((scheme, rest))
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
    fn a_uri_says_whose_it_is_and_is_read_again() {
        let server = ServerName::parse("a-b").unwrap();
        for (own, marked) in [
            ("file:///x", "a-b+file:///x"),
            ("git+ssh://h", "a-b+git+ssh://h"),
            ("ui://app/x.html", "ui://a-b+app/x.html"),
            ("UI://app+x", "UI://a-b+app+x"),
            ("ui:x", "a-b+ui:x"),
            ("", "a-b+"),
        ] {
            assert_eq!(of_server(&server, own), marked);
            assert_eq!(split_server(marked), Some(("a-b", own.into())), "{marked}");
        }
        assert_eq!(split_server("ui://app/x"), None);
        assert_eq!(split_server("file:///x"), None);
    }

    fn uris_of(items: &[(&str, &str)]) -> Vec<String> {
        let servers: Vec<ServerName> =
            items.iter().map(|(server, _)| ServerName::parse(server).unwrap()).collect();
        let unnamed: Vec<Unnamed<'_>> = items
            .iter()
            .zip(&servers)
            .map(|((_, own), server)| Unnamed { server, shown: server.as_str(), own })
            .collect();
        offered_uris(&unnamed, |name| ["a", "b"].contains(&name))
    }

    #[test]
    fn the_first_server_that_has_a_uri_keeps_it() {
        assert_eq!(uris_of(&[("b", "x:1"), ("a", "x:1")]), ["x:1", "a+x:1"]);
        assert_eq!(uris_of(&[("b", "ui://x"), ("a", "ui://x")]), ["ui://x", "ui://a+x"]);
    }

    #[test]
    fn a_uri_that_would_be_read_as_anothers_says_whose_it_is() {
        assert_eq!(uris_of(&[("b", "a+x:1"), ("a", "b")]), ["b+a+x:1", "b"]);
        assert_eq!(uris_of(&[("b", "ui://a+x")]), ["ui://b+a+x"]);
        // Its own NAME in front leads to it; but not to this one where it has the rest too.
        assert_eq!(uris_of(&[("a", "a+x:1")]), ["a+x:1"]);
        assert_eq!(uris_of(&[("a", "a+x:1"), ("a", "x:1")]), ["a+a+x:1", "x:1"]);
        assert_eq!(uris_of(&[("b", "git+ssh://h")]), ["git+ssh://h"]);
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
