//! Tests of views: which of them are kept, with which items, and what clients see.

use super::*;
use crate::access::glob::Globs;
use crate::config::{Pin, Prefix};
use crate::protocol::raw::Raw;

fn name(text: &str) -> ServerName {
    ServerName::parse(text).unwrap()
}

fn tools(names: &[&str]) -> Named {
    let text = |own: &&str| {
        let object = format!(r#"{{"name":"{own}","inputSchema":{{"type":"object"}}}}"#);
        ((*own).to_owned(), Raw::from_valid(object))
    };
    names.iter().map(text).collect()
}

fn listed(names: &[&str]) -> Listed {
    let lists = HashMap::from([(Kind::Tool, tools(names))]);
    Listed { lists, ..Listed::default() }
}

fn read(lists: &[(Kind, &[&str])]) -> ReadView {
    let lists = lists.iter().map(|(kind, names)| (*kind, tools(names))).collect();
    let (read_at, left_out) = (Instant::now(), LeftOut::default());
    let (used, untold) = (Arc::new(LastUse::new(read_at)), Untold::default());
    ReadView { lists, freshness: Vec::new(), read_at, left_out, used, untold, by: None }
}

fn key(n: u32) -> Key {
    (name("s"), ViewId::of_session(&n.to_string()))
}

fn has(views: &Views, n: u32) -> bool {
    views.views.contains_key(&key(n))
}

#[test]
fn only_what_differs_is_kept_and_told_of() {
    let (shared, mut views) = (listed(&["a"]), Views::new(8));
    let mut same = read(&[(Kind::Tool, &["a"]), (Kind::Prompt, &[])]);
    assert!(same.against(&shared).0.is_empty());
    assert_eq!(views.insert(key(1), same, &shared, None), []);
    let mut more = read(&[(Kind::Tool, &["a", "b"]), (Kind::Prompt, &["p"])]);
    let (differing, _) = more.against(&shared);
    let names: Vec<_> = differing.iter().map(|(kind, own, _)| (*kind, own.as_str())).collect();
    assert_eq!(names, [(Kind::Tool, "b"), (Kind::Prompt, "p")]);
    let differing = views.insert(key(1), more, &shared, None);
    assert_eq!(differing, [Kind::Tool, Kind::Prompt]);
    // A list that could not be read stays.
    let prompts = views.insert(key(1), read(&[(Kind::Prompt, &[])]), &shared, None);
    assert_eq!(prompts, [Kind::Prompt]);
    let back = views.insert(key(1), read(&[(Kind::Tool, &["a"])]), &shared, None);
    assert_eq!(back, [Kind::Tool]);
}

#[test]
fn of_a_view_that_is_not_known_those_who_may_have_seen_another_are_told() {
    let (shared, mut views) = (listed(&["a"]), Views::new(8));
    let more = || read(&[(Kind::Tool, &["a", "b"])]);
    assert_eq!(views.insert(key(1), more(), &shared, None), [], "whoever asked is given it");
    let mut missed = more();
    missed.untold.is_missed = true;
    assert_eq!(views.insert(key(2), missed, &shared, None), [Kind::Tool]);
    let announced = || {
        let mut same = read(&[(Kind::Tool, &["a"])]);
        same.untold.announced = vec![Kind::Tool];
        same
    };
    assert_eq!(views.insert(key(3), announced(), &shared, None), [Kind::Tool]);
    assert_eq!(views.insert(key(3), announced(), &shared, None), [], "it is known by now");
}

#[test]
fn the_view_that_was_not_used_for_longest_makes_room() {
    let (shared, mut views) = (listed(&["a"]), Views::new(2));
    for n in [1, 2] {
        views.insert(key(n), read(&[(Kind::Tool, &["b"])]), &shared, None);
    }
    views.views[&key(1)].touch();
    views.insert(key(3), read(&[(Kind::Tool, &["b"])]), &shared, None);
    assert!(has(&views, 1) && has(&views, 3) && !has(&views, 2));
    views.retain(|_| Stays::No);
    assert!(views.is_empty());
}

#[test]
fn bytes_are_bounded_over_all_views() {
    let (shared, mut views) = (listed(&[]), Views::new(8));
    let large = |bytes: usize| {
        let mut view = read(&[]);
        let object = Raw::from_valid(format!("\"{}\"", "x".repeat(bytes)));
        view.lists.push((Kind::Tool, vec![("a".to_owned(), object)]));
        view
    };
    for n in 1..=3 {
        views.insert(key(n), large(VIEWS_BYTES_MAX / 2 - 1024), &shared, None);
    }
    assert_eq!(views.views.len(), 2);
    views.insert(key(4), large(VIEWS_BYTES_MAX), &shared, None);
    let known = &views.views[&key(4)];
    assert!(known.is_too_large && !known.differs(), "what all see is served");
    assert_eq!(views.views.len(), 3, "and the others stay");
}

#[test]
fn of_what_differs_so_many_bytes_are_kept_and_the_rest_is_counted() {
    let object = |bytes: usize| Raw::from_valid(format!("\"{}\"", "x".repeat(bytes)));
    let items = |n: usize| (0..n).map(|n| (n.to_string(), object(VIEW_BYTES_MAX / 8)));
    let mut shared = listed(&[]);
    shared.lists.insert(Kind::Tool, items(8).collect());
    let mut view = read(&[(Kind::Prompt, &["p"])]);
    // Shared items do not count against that bound.
    view.lists.insert(0, (Kind::Tool, items(16).collect()));
    let (differing, n_over) = view.against(&shared);
    assert_eq!((differing.len(), n_over), (7, 2));
    assert_eq!((view.lists[0].1.len(), view.lists[1].1.len()), (15, 0));
}

#[test]
fn whoever_holds_most_makes_room() {
    let (shared, mut views) = (listed(&[]), Views::new(64));
    let [hog, victim] = ["hog", "victim"].map(|name| PrincipalId::Key(name.into()));
    let mut insert = |n: u32, by: &PrincipalId| {
        let mut view = ReadView { by: Some(by.clone()), ..read(&[]) };
        let object = Raw::from_valid(format!("\"{}\"", "x".repeat(VIEWS_BYTES_MAX / 8)));
        view.lists.push((Kind::Tool, vec![("a".to_owned(), object)]));
        views.insert(key(n), view, &shared, None);
    };
    insert(0, &victim);
    (1..20).for_each(|n| insert(n, &hog));
    assert!(has(&views, 0) && has(&views, 19) && !has(&views, 1));
    assert_eq!(views.views.len(), 7);
}

#[test]
fn a_catalogue_of_some_shares_what_all_see() {
    let naming = Naming::new(Prefix::Never, "-", [(&name("s"), None)]);
    let profile = Profile {
        name: name("s"),
        label: Arc::default(),
        tools: Globs::default(),
        pin: Pin::Off,
    };
    let servers = vec![(profile, listed(&["a"]))];
    let shared = merge::merge(&naming, &servers);
    let mut views = Views::new(8);
    let id = key(1).1;
    let mut more = read(&[(Kind::Tool, &["a", "b"])]);
    more.against(&servers[0].1);
    views.insert(key(1), more, &servers[0].1, None);
    let shown = Shown::new(naming, Arc::new(servers), views.known());
    let other = ViewId::of_request("{}");
    let served = |_: &ServerName| Some(id);
    assert!(shown.catalogue(&|it| shown.key(it, [other, other], &served), &shared).is_none());
    let seen = shown.catalogue(&|it| shown.key(it, [id, other], &served), &shared).unwrap();
    let own: Vec<&str> = seen.items(Kind::Tool).iter().map(|it| it.own.as_str()).collect();
    assert_eq!(own, ["a", "b"]);
    assert!(Arc::ptr_eq(&seen.items(Kind::Tool)[0], &shared.items(Kind::Tool)[0]));
    let again = shown.catalogue(&|it| shown.key(it, [id, other], &served), &shared).unwrap();
    assert!(Arc::ptr_eq(&seen, &again));
    // Another view leaves the merged catalogue of this one alone.
    views.insert(key(2), read(&[(Kind::Tool, &["c"])]), &shown.servers[0].1, None);
    let next = shown.with_views(views.known());
    assert!(Arc::ptr_eq(
        &seen,
        &next.catalogue(&|it| next.key(it, [id, other], &served), &shared).unwrap()
    ));
    views.insert(key(1), read(&[(Kind::Tool, &["c"])]), &shown.servers[0].1, None);
    let next = shown.with_views(views.known());
    assert!(!Arc::ptr_eq(
        &seen,
        &next.catalogue(&|it| next.key(it, [id, other], &served), &shared).unwrap()
    ));
}

#[test]
fn a_server_that_serves_otherwise_than_before_shows_its_new_view() {
    let naming = Naming::new(Prefix::Never, "-", [(&name("s"), None)]);
    let profile = Profile {
        name: name("s"),
        label: Arc::default(),
        tools: Globs::default(),
        pin: Pin::Off,
    };
    let servers = vec![(profile, listed(&["a"]))];
    let shared = merge::merge(&naming, &servers);
    let (session, request) = (key(1).1, ViewId::of_request("{}"));
    let mut views = Views::new(8);
    views.insert(key(1), read(&[(Kind::Tool, &["old"])]), &servers[0].1, None);
    let shown = Shown::new(naming, Arc::new(servers), views.known());
    let own = |shown: &Shown, served: ViewId| {
        let seen = shown
            .catalogue(&|it| shown.key(it, [session, request], &|_| Some(served)), &shared);
        seen.map(|it| it.items(Kind::Tool)[0].own.clone())
    };
    let used = views.views[&key(1)].used.at();
    assert_eq!(own(&shown, request).as_deref(), Some("old"), "the other is not known yet");
    assert_eq!(views.views[&key(1)].used.at(), used, "but is not used by that");
    let new = (name("s"), request);
    views.insert(new.clone(), read(&[(Kind::Tool, &["new"])]), &shown.servers[0].1, None);
    let shown = shown.with_views(views.known());
    assert_eq!(own(&shown, request).as_deref(), Some("new"));
    assert_eq!(own(&shown, session).as_deref(), Some("old"));
    // A view that equals the shared lists hides the other one all the same.
    views.insert(new, read(&[(Kind::Tool, &["a"])]), &shown.servers[0].1, None);
    assert_eq!(own(&shown.with_views(views.known()), request), None);
    assert!(views.remove(&key(1)) && !views.remove(&key(1)));
}

#[test]
fn views_that_show_what_all_see_crowd_out_none() {
    let (shared, mut views) = (listed(&["a"]), Views::new(2));
    views.insert(key(1), read(&[(Kind::Tool, &["b"])]), &shared, None);
    for n in 2..6 {
        views.insert(key(n), read(&[(Kind::Tool, &["a"])]), &shared, None);
    }
    assert!(has(&views, 1));
    assert_eq!(views.views.len(), 3, "they are bounded, too");
    let shown = |views: &Views| {
        Shown::new(
            Naming::new(Prefix::Never, "-", [(&name("s"), None)]),
            Arc::default(),
            views.known(),
        )
    };
    assert!(shown(&views).is_any_other());
    views.remove(&key(1));
    assert!(!shown(&views).is_any_other(), "nobody looks a view up for these");
}

#[test]
fn a_view_that_is_read_again_is_not_used_by_that() {
    let (shared, mut views) = (listed(&["a"]), Views::new(2));
    let first = read(&[(Kind::Tool, &["b"])]);
    let (used, used_at) = (first.used.clone(), first.used.at());
    views.insert(key(1), first, &shared, None);
    let again = ReadView { used, ..read(&[(Kind::Tool, &["b"])]) };
    views.insert(key(1), again, &shared, None);
    assert_eq!(views.views[&key(1)].used.at(), used_at);
}
