//! Names, paths, templates and origins: what is compared, cut and routed by.

use std::collections::BTreeSet;

use super::lines;
use crate::access::origin::{HostCheck, Origins};
use crate::catalogue::Steps;
use crate::catalogue::name::{Unnamed, near, offered, offered_uris, split_server};
use crate::catalogue::template::spelled;
use crate::catalogue::template_set::TemplateSet;
use crate::config::{Naming, Prefix};
use crate::downstream::endpoint::Endpoint;
use crate::downstream::rest::query_value;
use crate::limits::{NEAR_NAMES_MAX, OFFERED_NAME_CHARS_MAX};
use crate::protocol::server_name::ServerName;

/// Whether the template can become the URI, tried in every way. `{…}` is some text without a
/// slash where it begins with a word and does not end in `*`, and any text otherwise.
fn can_become(template: &str, uri: &str) -> bool {
    let expression = template.strip_prefix('{').and_then(|rest| rest.split_once('}'));
    let Some((inside, rest)) = expression else {
        let Some(first) = template.chars().next() else { return uri.is_empty() };
        let rest = &template[first.len_utf8()..];
        return uri.strip_prefix(first).is_some_and(|uri| can_become(rest, uri));
    };
    let is_word = inside.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
    let is_segment = is_word && !inside.ends_with('*');
    let ends = uri.char_indices().map(|(at, _)| at).chain([uri.len()]);
    ends.filter(|end| !is_segment || (*end > 0 && !uri[..*end].contains('/')))
        .any(|end| can_become(rest, &uri[end..]))
}

/// The template with its literals as URIs spell them.
fn respelled(template: &str) -> String {
    let expression = template.split_once('{').and_then(|(literal, rest)| {
        rest.split_once('}').map(|(inside, rest)| (literal, inside, rest))
    });
    match expression {
        Some((literal, inside, rest)) => {
            format!("{}{{{inside}}}{}", spelled(literal), respelled(rest))
        }
        None => spelled(template).into_owned(),
    }
}

fn templates(template: &str, uri: &str) {
    let mut steps = Steps::new(usize::MAX);
    let is_covered = TemplateSet::new([template]).covers(&spelled(uri), &mut steps);
    assert_eq!(spelled(&spelled(uri)), spelled(uri), "spelled in one way");
    if template.matches('{').count() <= 4 && uri.len() <= 16 && template.len() <= 64 {
        let expected = can_become(&respelled(template), &spelled(uri));
        assert_eq!(is_covered, expected, "{template:?} {uri:?}");
    }
}

fn names_of(tools: &[&str]) {
    let servers = ["a", "b"].map(|name| ServerName::parse(name).unwrap());
    let unnamed: Vec<Unnamed<'_>> = servers
        .iter()
        .flat_map(|server| {
            let own: BTreeSet<&str> = tools.iter().copied().collect();
            own.into_iter().map(|own| Unnamed { server, shown: "x", own })
        })
        .collect();
    let naming = Naming::new(Prefix::Auto, "-", servers.iter().map(|it| (it, None)));
    for is_prefixed in [true, false] {
        let names = offered(&naming, is_prefixed, &unnamed);
        for (item, offered) in unnamed.iter().zip(&names) {
            let owned = naming.owners.of(&offered.name);
            assert!(owned.is_none_or(|it| it == item.server), "{offered:?}");
        }
        let names: Vec<String> = names.into_iter().map(|it| it.name).collect();
        assert_eq!(names.len(), unnamed.len());
        let distinct: BTreeSet<&String> = names.iter().collect();
        assert_eq!(distinct.len(), names.len(), "{names:?}");
        assert!(names.iter().all(|name| name.chars().count() <= OFFERED_NAME_CHARS_MAX));
        let asked = tools.first().copied().unwrap_or_default();
        let near = near(asked, names.iter().map(String::as_str), NEAR_NAMES_MAX);
        assert!(near.len() <= NEAR_NAMES_MAX && near.iter().all(|it| names.contains(it)));
    }
    let uris = offered_uris(&naming, &unnamed);
    for (item, uri) in unnamed.iter().zip(uris.iter().map(|it| &it.name)) {
        assert!(
            *uri == item.own
                || split_server(uri) == Some((item.server.as_str(), item.own.into()))
        );
    }
}

/// Whatever is admitted is of this machine or of the one host that is ours.
fn origins(host: &str, origin: &str) {
    let ours = Origins {
        check_host: HostCheck::Names,
        hosts: vec!["ours".into()],
        origins: Vec::new(),
    };
    let is_ours = |authority: &str| {
        let authority = authority.to_ascii_lowercase();
        let (name, port) = match authority.rsplit_once(':') {
            Some((name, port)) if !port.contains(']') => (name, port),
            _ => (authority.as_str(), ""),
        };
        assert!(port.bytes().all(|byte| byte.is_ascii_digit()), "{authority}");
        let loopback = name.parse::<std::net::Ipv4Addr>().is_ok_and(|ip| ip.is_loopback());
        loopback || ["localhost", "[::1]", "ours"].contains(&name)
    };
    if ours.check(Some(host), None).is_ok() {
        assert!(is_ours(host), "{host:?}");
    }
    if ours.admits(origin) {
        let (scheme, authority) = origin.split_once("://").unwrap();
        assert!(["http", "https"].contains(&scheme) && is_ours(authority), "{origin:?}");
    }
}

fn paths(text: &str) {
    if let Some(endpoint) = Endpoint::find(text) {
        assert!(text.starts_with('/') && !endpoint.methods().is_empty());
        if let Some(server) = endpoint.server() {
            assert!(text.contains(server) && !server.contains('/'));
        }
    }
    if let Some(name) = ServerName::parse(text) {
        assert_eq!(name.as_str(), text);
        assert!(text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'));
        let path = format!("/mcp/{text}");
        assert_eq!(Endpoint::find(&path).and_then(Endpoint::server), Some(text));
    }
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric();
    if text.bytes().all(is_plain) {
        assert_eq!(query_value(Some(&format!("a=1&q={text}")), "q").as_deref(), Some(text));
    }
    query_value(Some(text), "q");
}

pub(super) fn names(data: &[u8]) {
    let lines = lines(data);
    let [first, rest @ ..] = lines.as_slice() else { return };
    let second = rest.first().copied().unwrap_or_default();
    templates(first, second);
    origins(first, second);
    paths(first);
    names_of(&lines);
}
