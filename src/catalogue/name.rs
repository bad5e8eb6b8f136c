//! Offered names: the names of servers' items for clients.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use crate::config::{Naming, Prefix};
use crate::limits::OFFERED_NAME_CHARS_MAX;
use crate::protocol::owners::{ENDING_CHARS, Owners};
use crate::protocol::server_name::ServerName;

/// A tool that has no offered name yet.
#[derive(Debug, Clone, Copy)]
pub struct Unnamed<'a> {
    /// The server's NAME.
    pub server: &'a ServerName,
    /// The server's alias, or its NAME.
    pub shown: &'a str,
    /// The tool's name at its server.
    pub own: &'a str,
}

/// True if names carry their server's name.
pub fn is_prefixed(naming: &Naming, n_servers: usize) -> bool {
    match naming.prefix {
        Prefix::Always => true,
        Prefix::Never => false,
        Prefix::Auto => n_servers > 1,
    }
}

/// The name that policies match: always whole, with the server's NAME.
pub fn qualified(naming: &Naming, server: &ServerName, own: &str) -> String {
    format!("{server}{}{own}", naming.separator)
}

/// The offered name of an item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offered {
    /// The name.
    pub name: String,
    /// The name that was refused, and the server that has it.
    pub clash: Option<(String, ServerName)>,
    /// The name for clients that see no earlier server with the same name, where it is another
    /// one.
    pub alone: Option<String>,
}

/// The offered names, in the order of `tools`, which must be that of the configuration. All
/// differ. An item whose name, whole or bare, belongs to another server, or was taken by an
/// earlier server, gets the hash form.
pub fn offered(naming: &Naming, prefixed: bool, tools: &[Unnamed<'_>]) -> Vec<Offered> {
    let mut names = Vec::with_capacity(tools.len());
    let mut taken: HashMap<String, &ServerName> = HashMap::with_capacity(tools.len());
    for tool in tools {
        let whole = if prefixed {
            format!("{}{}{}", tool.shown, naming.separator, tool.own)
        } else {
            tool.own.to_owned()
        };
        let is_too_long = whole.chars().nth(OFFERED_NAME_CHARS_MAX).is_some();
        let clash = clash(naming, tool, &whole, &taken);
        let is_owned = naming.owners.other(tool.server, tool.own).is_some();
        let is_another_s = taken.get(&whole).is_some_and(|it| *it != tool.server);
        let mut alone = None;
        let name = if clash.is_some() || is_too_long || taken.contains_key(&whole) {
            let mut forms = (0_u64..).map(|salt| hash_form(naming, tool, &whole, salt));
            let form = forms.find(|name| !taken.contains_key(name));
            // Only an earlier server keeps that name from it.
            let is_alone = !prefixed && !is_too_long && !is_owned && is_another_s;
            alone = is_alone.then(|| whole.clone());
            form.unwrap_or(whole)
        } else {
            whole
        };
        taken.insert(name.clone(), tool.server);
        names.push(Offered { name, clash, alone });
    }
    names
}

/// The refused name of a tool, `whole` or bare, and the server that has it.
fn clash(
    naming: &Naming,
    tool: &Unnamed<'_>,
    whole: &str,
    taken: &HashMap<String, &ServerName>,
) -> Option<(String, ServerName)> {
    let mut names = [whole, tool.own].into_iter();
    let owned = names.find_map(|name| Some((name, naming.owners.other(tool.server, name)?)));
    let before = || taken.get(whole).filter(|it| **it != tool.server).map(|it| (whole, *it));
    owned.or_else(before).map(|(name, owner)| (name.to_owned(), owner.clone()))
}

/// The name of a tool of the gateway's own that is about one server: no other server can have it.
pub fn of_gateway(owners: &Owners, separator: &str, tool: Unnamed<'_>) -> String {
    let whole = format!("{}{separator}{}", tool.shown, tool.own);
    if whole.chars().nth(OFFERED_NAME_CHARS_MAX).is_none() {
        return whole;
    }
    let mut name: String = whole.chars().take(OFFERED_NAME_CHARS_MAX - ENDING_CHARS).collect();
    name.push_str(&owners.ending(tool.server, tool.own, 0));
    name
}

/// The beginning of `whole`, and an ending that no other server's names have.
fn hash_form(naming: &Naming, tool: &Unnamed<'_>, whole: &str, salt: u64) -> String {
    let mut name: String = whole.chars().take(OFFERED_NAME_CHARS_MAX - ENDING_CHARS).collect();
    name.push_str(&naming.owners.ending(tool.server, tool.own, salt));
    name
}

/// The offered URIs, in the order of `items`, which must be that of the configuration: unchanged
/// for the first server that has the URI, with the server's NAME for later ones, and for a URI
/// that would be read as another server's.
pub fn offered_uris(naming: &Naming, items: &[Unnamed<'_>]) -> Vec<Offered> {
    let mut first: HashMap<&str, &ServerName> = HashMap::with_capacity(items.len());
    let mut listed: HashSet<(&str, &str)> = HashSet::with_capacity(items.len());
    for item in items {
        first.entry(item.own).or_insert(item.server);
        listed.insert((item.server.as_str(), item.own));
    }
    let offered = |item: &Unnamed<'_>| {
        let marked = split_server(item.own);
        let marked = marked.and_then(|(name, rest)| Some((naming.owners.server(name)?, rest)));
        // Another server's mark counts only for clients that may see that server.
        let owner = match &marked {
            Some((owner, _)) => Some(*owner),
            None => first.get(item.own).copied(),
        };
        // With its own server's NAME in front a URI leads to the server's item with the rest, if
        // there is one.
        let is_of_rest = marked.is_some_and(|(owner, rest)| {
            owner == item.server && listed.contains(&(owner.as_str(), &*rest))
        });
        if owner == Some(item.server) && !is_of_rest {
            return Offered { name: item.own.to_owned(), clash: None, alone: None };
        }
        let alone = (!is_of_rest).then(|| item.own.to_owned());
        let clash = owner.filter(|owner| *owner != item.server);
        let clash = clash.map(|owner| (item.own.to_owned(), owner.clone()));
        Offered { name: of_server(item.server, item.own), clash, alone }
    };
    items.iter().map(offered).collect()
}

/// The scheme of the user interfaces of MCP Apps, which hosts expect at the beginning.
const UI_SCHEME: &str = "ui://";

/// A URI, or a task's id, with the name of its server: `{server}+{own}`, and for the scheme `ui`
/// `ui://{server}+rest`. [`split_server`] is its inverse.
pub fn of_server(server: &ServerName, own: &str) -> String {
    match split_ui(own) {
        Some((scheme, rest)) => format!("{scheme}{server}+{rest}"),
        None => format!("{server}+{own}"),
    }
}

/// Splits the text of [`of_server`]: into a NAME, and the server's own URI or id. It is not
/// checked if there is such a server. A NAME holds no `+`.
pub fn split_server(text: &str) -> Option<(&str, Cow<'_, str>)> {
    let (scheme, marked) = split_ui(text).unwrap_or(("", text));
    let (server, rest) = marked.split_once('+')?;
    let own = if scheme.is_empty() { rest.into() } else { format!("{scheme}{rest}").into() };
    Some((server, own))
}

/// The case of a scheme does not matter (RFC 3986, 3.1).
fn split_ui(uri: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = uri.split_at_checked(UI_SCHEME.len())?;
    scheme.eq_ignore_ascii_case(UI_SCHEME).then_some((scheme, rest))
}

/// At most `limit` of `names` that look like `asked`.
pub fn near<'a>(
    asked: &str,
    names: impl Iterator<Item = &'a str>,
    limit: usize,
) -> Vec<String> {
    near_by_either(asked, names.map(|name| (name, name)), limit)
}

/// As `near`, for items with two names: the offered one, which is returned, and the server's own.
pub fn near_by_either<'a>(
    asked: &str,
    names: impl Iterator<Item = (&'a str, &'a str)>,
    limit: usize,
) -> Vec<String> {
    // Longer names are no typing mistakes, and comparing them costs.
    let asked: String = asked.chars().take(2 * OFFERED_NAME_CHARS_MAX).collect();
    let asked = asked.to_lowercase();
    let distance = |name: &str| {
        let lower = name.to_lowercase();
        // One or two letters stand in many names.
        let is_part = |part: &str, whole: &str| part.len() >= 3 && whole.contains(part);
        let inside = is_part(&asked, &lower) || is_part(&lower, &asked);
        if inside { Some(1) } else { distance_up_to_two(&asked, &lower) }
    };
    let mut scored: Vec<(usize, &str)> = names
        .filter_map(|(offered, own)| {
            let by_own = (own != offered).then(|| distance(own)).flatten();
            Some((distance(offered).into_iter().chain(by_own).min()?, offered))
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

    const SERVERS: [&str; 4] = ["a", "b", "c", "a-b"];

    fn naming(prefix: Prefix) -> Naming {
        let names = SERVERS.map(|it| ServerName::parse(it).unwrap());
        Naming::new(prefix, "-", names.iter().map(|it| (it, None)))
    }

    fn with_unnamed<T>(items: &[(&str, &str)], then: impl Fn(&[Unnamed<'_>]) -> T) -> T {
        let servers: Vec<ServerName> =
            items.iter().map(|(server, _)| ServerName::parse(server).unwrap()).collect();
        let unnamed: Vec<Unnamed<'_>> = items
            .iter()
            .zip(&servers)
            .map(|((_, own), server)| Unnamed { server, shown: server.as_str(), own })
            .collect();
        then(&unnamed)
    }

    fn offered_of(prefixed: bool, tools: &[(&str, &str)]) -> Vec<String> {
        let naming = naming(Prefix::Auto);
        let offered = with_unnamed(tools, |unnamed| offered(&naming, prefixed, unnamed));
        offered.into_iter().map(|it| it.name).collect()
    }

    /// The owner of each refused name.
    fn clashes_of(prefixed: bool, tools: &[(&str, &str)]) -> Vec<Option<String>> {
        let naming = naming(Prefix::Auto);
        let offered = with_unnamed(tools, |unnamed| offered(&naming, prefixed, unnamed));
        let told = |it: Offered| it.clash.map(|(name, owner)| format!("{name} of {owner}"));
        offered.into_iter().map(told).collect()
    }

    #[track_caller]
    fn expect_hash_form(name: &str, whole: &str, server: &str) {
        let owners = naming(Prefix::Auto).owners;
        let ending =
            name.strip_prefix(whole).unwrap_or_else(|| panic!("{name} is no {whole}_"));
        assert_eq!(ending.len(), ENDING_CHARS, "{name}");
        assert_eq!(owners.of(name).unwrap().as_str(), server, "{name}");
    }

    #[test]
    fn a_name_that_begins_as_anothers_is_offered_under_its_hash_form() {
        let names = offered_of(true, &[("a", "b-c"), ("a-b", "c"), ("b", "a-x"), ("b", "x")]);
        expect_hash_form(&names[0], "a-b-c", "a");
        assert_eq!(names[1], "a-b-c");
        expect_hash_form(&names[2], "b-a-x", "b");
        assert_eq!(names[3], "b-x");
        let names = offered_of(false, &[("b", "a-x"), ("a", "b"), ("a", "a-x")]);
        expect_hash_form(&names[0], "a-x", "b");
        assert_eq!(names[1..], ["b", "a-x"]);
        let told = clashes_of(true, &[("a", "b-c"), ("a-b", "c"), ("b", "a-x"), ("b", "x")]);
        let told: Vec<Option<&str>> = told.iter().map(Option::as_deref).collect();
        assert_eq!(told, [Some("a-b-c of a-b"), None, Some("a-x of a"), None]);
        assert_eq!(
            clashes_of(false, &[("b", "x"), ("a", "x")]),
            [None, Some("x of b".to_owned())]
        );
    }

    #[test]
    fn no_server_has_a_name_that_ends_as_anothers_hash_form() {
        let form = offered_of(true, &[("a", "b-c")]).remove(0);
        let own = form.strip_prefix("a-b-").unwrap();
        let names = offered_of(true, &[("a-b", own), ("a", "b-c")]);
        assert_eq!(names[1], form, "although the other one comes first");
        expect_hash_form(&names[0], &form, "a-b");
        let names = offered_of(false, &[("b", form.as_str()), ("a", form.as_str())]);
        expect_hash_form(&names[0], &form, "b");
        expect_hash_form(&names[1], &form, "a");
    }

    #[test]
    fn a_long_name_that_is_cut_is_still_its_servers() {
        let long = "x".repeat(90);
        let names = offered_of(true, &[("a", &format!("b-{long}")), ("a-b", &long)]);
        assert_eq!(names[0][..55], names[1][..55]);
        expect_hash_form(&names[0], &names[1][..55], "a");
        expect_hash_form(&names[1], &names[0][..55], "a-b");
        // A NAME alone can be longer than the characters before the ending.
        let server = ServerName::parse(&format!("a-{}", "y".repeat(100))).unwrap();
        let short = ServerName::parse("a").unwrap();
        let names = [&server, &short].map(|it| (it, None));
        let naming = Naming::new(Prefix::Always, "-", names);
        let tool = Unnamed { server: &server, shown: server.as_str(), own: "z" };
        let name = offered(&naming, true, &[tool]).remove(0).name;
        assert_eq!(naming.owners.of(&name).unwrap(), &server);
    }

    #[test]
    fn a_server_cannot_take_the_name_that_another_s_tool_falls_back_to() {
        let honest = offered_of(false, &[("a", "echo"), ("b", "echo")]);
        let (first, second) = (&honest[0], &honest[1]);
        assert_ne!(first, second);
        let names = offered_of(false, &[("a", "echo"), ("a", second), ("b", "echo")]);
        assert_eq!((&names[0], &names[2]), (first, second));
        expect_hash_form(&names[1], second, "a");
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
        let names = offered_of(false, &[("b", "x"), ("a", "x"), ("c", "x")]);
        assert_eq!(names[0], "x");
        expect_hash_form(&names[1], "x", "a");
        expect_hash_form(&names[2], "x", "c");
        assert_eq!(names, offered_of(false, &[("b", "x"), ("a", "x"), ("c", "x")]));
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
        let naming = naming(Prefix::Auto);
        let offered = with_unnamed(items, |unnamed| offered_uris(&naming, unnamed));
        offered.into_iter().map(|it| it.name).collect()
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
        // Its own NAME in front leads to the item; but not where the server also has an item with
        // the rest.
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
        let items = [("everything-get-sum", "get-sum"), ("other-b", "b"), ("x-add", "add")];
        for (asked, expected) in [
            ("get-summ", "everything-get-sum"),
            ("get-s", "everything-get-sum"),
            ("everything-gte-sum", "everything-get-sum"),
            ("adx", "x-add"),
        ] {
            assert_eq!(near_by_either(asked, items.into_iter(), 3), [expected], "{asked}");
        }
        assert_eq!(near_by_either("subscribe", items.into_iter(), 3), Vec::<String>::new());
    }
}
