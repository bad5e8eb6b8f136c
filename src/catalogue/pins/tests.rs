//! Tests of pins over restarts, losses and hostile servers.

use std::path::PathBuf;

use super::command::{PinState, Texts, accept, diff, list};
use super::kept::PINS_FORM;
use super::*;
use crate::limits::{
    ALL_PINS_TEXTS_BYTES_MAX, OWN_NAME_CHARS_MAX, PINNED_TEXT_BYTES_MAX, PINNED_TOOLS_MAX,
    PINS_BYTES_MAX, PINS_TEXTS_BYTES_MAX, STATE_FILE_BYTES_MAX,
};
use crate::protocol::raw::Raw;
use crate::state;

/// A directory that is removed with the test.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Place {
        let id = std::process::id();
        let path = std::env::temp_dir().join(format!("trunkline-pins-{name}-{id}"));
        std::fs::remove_dir_all(&path).ok();
        Place(path)
    }

    /// Runs `with` on the pins that are loaded from the directory; all is written when this
    /// returns.
    fn run<T>(&self, with: impl FnOnce(&mut Pins) -> T) -> T {
        let directory = Arc::new(StateDir::open(&self.0).unwrap());
        let (writer, joined) = state::start(directory.clone()).unwrap();
        let mut pins = Pins::load(directory, writer);
        let result = with(&mut pins);
        drop(pins);
        drop(joined);
        result
    }

    fn accept(&self, name: &str) -> Vec<String> {
        let accepted = accept(&StateDir::of_another(&self.0), &server(name), None).unwrap();
        accepted.into_iter().map(|(_, own)| own).collect()
    }

    fn names(&self) -> Vec<String> {
        StateDir::of_another(&self.0).names()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

impl Pins {
    fn refuse_reads(&self, refuses: bool) {
        self.directory.refuses_reads.store(refuses, std::sync::atomic::Ordering::Relaxed);
    }
}

fn server(name: &str) -> ServerName {
    ServerName::parse(name).unwrap()
}

fn tool(own: &str, description: &str) -> (String, Raw) {
    let text = format!(r#"{{"name":"{own}","description":"{description}"}}"#);
    (own.to_owned(), Raw::from_valid(text))
}

fn judge(pins: &mut Pins, name: &str, tools: &[(String, Raw)]) -> Pinned {
    judge_as(pins, name, Pin::Enforce, tools)
}

fn judge_as(pins: &mut Pins, name: &str, pin: Pin, tools: &[(String, Raw)]) -> Pinned {
    let item = |(own, it): &'_ (String, Raw)| {
        (Subject::Tool, own.as_str().to_owned(), it.get().to_owned())
    };
    let items: Vec<_> = tools.iter().map(item).collect();
    let said = Said {
        items: items.iter().map(|(of, own, it)| (*of, own.as_str(), it.into())).collect(),
        whole: vec![Subject::Tool],
    };
    pins.judge(&server(name), pin, &said).unwrap()
}

impl Pinned {
    fn withholds_tool(&self, own: &str) -> bool {
        self.withholds(Subject::Tool, own)
    }
}

#[test]
fn texts_are_kept_as_far_as_those_of_other_servers_leave_room() {
    let tool = |name: &str| {
        let description = "x".repeat(100);
        format!(r#"{{"name":"{name}","description":"{description}","inputSchema":{{}}}}"#)
    };
    let mut pins = ServerPins::default();
    pins.note_texts_of_others(ALL_PINS_TEXTS_BYTES_MAX - 150);
    for name in ["a", "b"] {
        assert_eq!(pins.look(Subject::Tool, name, &tool(name), Pin::Enforce), Seen::New);
        assert_eq!(pins.n_text_bytes(), tool("a").len());
        assert_eq!(pins.look(Subject::Tool, name, &tool(name), Pin::Enforce), Seen::Same);
    }
    let other = tool("a").replace("xxx", "yyy");
    assert_eq!(pins.look(Subject::Tool, "b", &other, Pin::Enforce), Seen::Anew);
    assert_eq!(pins.n_text_bytes(), tool("a").len());
    pins.forget_texts();
    assert_eq!(pins.n_text_bytes(), 0);
    assert_eq!(pins.look(Subject::Tool, "a", &tool("a"), Pin::Enforce), Seen::Same);
}

#[test]
fn a_server_with_many_long_names_costs_no_other_its_pins() {
    let place = Place::new("hostile");
    let good = [tool("t", "adds")];
    let long: Vec<_> = (0..PINNED_TOOLS_MAX)
        .map(|n| {
            let rest = "\u{1d54f}".repeat(OWN_NAME_CHARS_MAX - 6);
            (format!("{n:06}{rest}"), Raw::from_valid("{}".to_owned()))
        })
        .collect();
    place.run(|pins| {
        judge(pins, "good", &good);
        let pinned = judge(pins, "hostile", &long);
        let last = &long[long.len() - 1].0;
        assert!(pinned.withholds_tool(last), "one beyond the bound is not trusted");
        assert!(!pinned.withholds_tool(&long[0].0));
        assert_eq!(pinned.n_pinned + pinned.changed.len(), long.len());
    });
    for name in ["pins.good", "pins.hostile", PINNED_SERVERS] {
        let n = std::fs::metadata(place.0.join(name)).unwrap().len();
        assert!(n < STATE_FILE_BYTES_MAX, "{name}: {n}");
    }
    place.run(|pins| {
        assert!(judge(pins, "good", &good).changed.is_empty());
        assert!(judge(pins, "good", &[tool("t", "steals")]).withholds_tool("t"));
        assert!(!judge(pins, "hostile", &long[..1]).withholds_tool(&long[0].0));
    });
    let names = place.names();
    assert!(!names.iter().any(|name| name.contains("corrupt")), "{names:?}");
}

#[test]
fn the_bytes_of_a_file_are_not_more_than_was_counted() {
    // The sum includes the text around the entries.
    let n_texts = u64::try_from(PINS_TEXTS_BYTES_MAX).unwrap();
    assert!(u64::try_from(PINS_BYTES_MAX).unwrap() + n_texts + 4096 < STATE_FILE_BYTES_MAX);
    let mut pins = ServerPins::default();
    let mut counted = 0;
    for n in 0..100 {
        let own = format!("{n}\"\\\u{1d54f}é");
        let like = format!("{own}\"");
        let texts = ["{\"a\":\"\\\"\"}", "[\n1,2 ]"];
        for text in texts {
            pins.look(Subject::Prompt, &own, text, Pin::Enforce);
        }
        pins.note_gone(Subject::Prompt, &BTreeSet::new());
        pins.note_like(Subject::Prompt, &own, &like);
        let entry = pins.of_mut(Subject::Prompt).get_mut(&own).unwrap();
        entry.changed.as_mut().unwrap().since = u64::MAX;
        entry.gone = Some(u64::MAX);
        counted += 2 * own.len() + 2 * like.len() + 384 + texts.concat().len();
    }
    assert!(pins.file().len() < counted, "{} {counted}", pins.file().len());
}

#[test]
fn texts_are_kept_within_their_bounds_only() {
    let mut pins = ServerPins::default();
    let text = |n: usize| format!("\"{}\"", "x".repeat(n - 2));
    let mut look = |own: &str, text: &str| {
        pins.look(Subject::Tool, own, text, Pin::Enforce);
        pins.of(Subject::Tool)[own].text.is_some()
    };
    assert!(look("a", &text(PINNED_TEXT_BYTES_MAX)));
    assert!(!look("b", &text(PINNED_TEXT_BYTES_MAX + 1)));
    let n_more = PINS_TEXTS_BYTES_MAX / PINNED_TEXT_BYTES_MAX - 1;
    for n in 0..n_more {
        assert!(look(&format!("t{n}"), &text(PINNED_TEXT_BYTES_MAX)));
    }
    assert!(!look("c", "\"x\""), "there is no room left");
    assert_eq!(pins.look(Subject::Tool, "c", "\"x\"", Pin::Enforce), Seen::Same);
    assert_eq!(pins.look(Subject::Tool, "c", "\"y\"", Pin::Enforce), Seen::Anew);
}

/// A file as the version before wrote it.
fn old_file(tool: &(String, Raw)) -> Vec<u8> {
    let (own, item) = tool;
    let sha256 = definition::sha256_of_members(item.get());
    let body = format!(r#"{{"is_lost":false,"tools":{{"{own}":{{"sha256":"{sha256}"}}}}}}"#);
    Form { name: "pins", version: 2 }.frame(body.as_bytes())
}

#[test]
fn files_with_digests_only_are_read_and_written_anew_with_texts() {
    let place = Place::new("upgrade");
    let adds = tool("a", "adds");
    place.run(|_| ());
    for (now, is_changed) in [(&adds, false), (&tool("a", "steals"), true)] {
        std::fs::write(place.0.join("pins.s"), old_file(&adds)).unwrap();
        std::fs::remove_file(place.0.join(PINNED_SERVERS)).ok();
        place.run(|pins| {
            let pinned = judge(pins, "s", std::slice::from_ref(now));
            assert_eq!(pinned.withholds_tool("a"), is_changed);
        });
        let directory = StateDir::of_another(&place.0);
        assert!(directory.look_at("pins.s", PINS_FORM).unwrap().is_some());
        let found = diff(&directory, &server("s"), None).unwrap();
        if is_changed {
            assert_eq!(found[0].texts, Texts::PinnedNotKept);
            assert!(found[0].differences.iter().any(|it| it.at == "description"));
            assert_eq!(place.accept("s"), ["a"]);
            place.run(|pins| {
                assert!(!judge(pins, "s", std::slice::from_ref(now)).withholds_tool("a"))
            });
            place.run(|pins| {
                assert!(judge(pins, "s", std::slice::from_ref(&adds)).withholds_tool("a"))
            });
            let found = diff(&directory, &server("s"), Some("a")).unwrap();
            assert_eq!(found[0].texts, Texts::Both);
        } else {
            assert!(found.is_empty());
            // From here on, every member counts.
            let other = Raw::from_valid(adds.1.get().replace("}", ",\"icons\":[]}"));
            place.run(|pins| {
                assert!(judge(pins, "s", &[("a".to_owned(), other)]).withholds_tool("a"));
            });
        }
    }
}

#[test]
fn a_change_in_a_file_with_digests_only_is_still_known() {
    let place = Place::new("upgrade-changed");
    let (adds, steals) = (tool("a", "adds"), tool("a", "steals"));
    let [old, new] = [&adds, &steals].map(|it| definition::sha256_of_members(it.1.get()));
    let body = format!(
        r#"{{"tools":{{"a":{{"sha256":"{old}","changed":{{"sha256":"{new}","since":7}}}}}}}}"#
    );
    place.run(|_| ());
    let file = Form { name: "pins", version: 2 }.frame(body.as_bytes());
    std::fs::write(place.0.join("pins.s"), file).unwrap();
    place.run(|pins| {
        assert_eq!(judge(pins, "s", std::slice::from_ref(&steals)).changed["a"], 7);
        assert!(!judge(pins, "s", std::slice::from_ref(&adds)).withholds_tool("a"));
    });
}

#[test]
fn locked_withholds_what_nobody_has_accepted() {
    let place = Place::new("locked");
    let (a, b) = (tool("a", "adds"), tool("b", "subtracts"));
    let look =
        |tools: &[(String, Raw)]| place.run(|pins| judge_as(pins, "s", Pin::Locked, tools));
    let pinned = look(std::slice::from_ref(&a));
    assert!(pinned.withholds_tool("a"));
    assert_eq!(pinned.n_pinned, 0);
    assert_eq!(place.accept("s"), ["a"]);
    let pinned = look(&[a.clone(), b.clone()]);
    assert!(!pinned.withholds_tool("a") && pinned.withholds_tool("b"));
    // Nor is the item trusted when the pin's mode becomes less strict.
    assert!(place.run(|pins| judge(pins, "s", &[a, b])).withholds_tool("b"));
    let directory = StateDir::of_another(&place.0);
    let lines = list(&directory, &server("s")).unwrap();
    assert_eq!(lines[0].state, PinState::Pinned);
    assert!(matches!(lines[1].state, PinState::Unpinned(_)));
    let found = diff(&directory, &server("s"), None).unwrap();
    assert_eq!((found.len(), found[0].texts), (1, Texts::New));
}

#[test]
fn what_goes_and_comes_back_under_a_similar_name_is_told() {
    let place = Place::new("similar");
    let similar = [tool("send_mail", "sends"), tool("other", "adds")];
    place.run(|pins| judge(pins, "s", &similar));
    place.run(|pins| judge(pins, "s", &similar[1..]));
    let directory = StateDir::of_another(&place.0);
    let lines = || list(&directory, &server("s")).unwrap();
    let of = |own: &str| lines().into_iter().find(|line| line.own == own).unwrap();
    assert!(of("send_mail").gone.is_some() && of("other").gone.is_none());
    place.run(|pins| judge(pins, "s", &[tool("send_mai1", "steals"), tool("else", "x")]));
    assert_eq!(of("send_mai1").like.as_deref(), Some("send_mail"));
    assert_eq!(of("else").like, None);
    place.run(|pins| judge(pins, "s", &similar));
    assert!(of("send_mail").gone.is_none() && of("send_mai1").gone.is_some());
}

#[test]
fn lost_pins_withhold_until_they_are_accepted() {
    for what in ["removed", "damaged", "index", "index damaged"] {
        let place = Place::new(&format!("lost-{}", what.replace(' ', "-")));
        let tools = [tool("a", "adds"), tool("b", "subtracts")];
        place.run(|pins| {
            assert!(judge(pins, "s", &tools).changed.is_empty(), "the first start is no loss");
            judge(pins, "other", &tools);
        });
        match what {
            "removed" => std::fs::remove_file(place.0.join("pins.s")).unwrap(),
            "damaged" => std::fs::write(place.0.join("pins.s"), "garbage").unwrap(),
            index => {
                std::fs::remove_file(place.0.join("pins.s")).unwrap();
                match index {
                    "index" => std::fs::remove_file(place.0.join(PINNED_SERVERS)).unwrap(),
                    _ => std::fs::write(place.0.join(PINNED_SERVERS), "garbage").unwrap(),
                }
            }
        }
        // Each start gives the same, because no item was accepted.
        place.run(|_| ());
        for _ in 0..2 {
            place.run(|pins| {
                let pinned = judge(pins, "s", &tools);
                assert!(pinned.withholds_tool("a") && pinned.withholds_tool("b"), "{what}");
                assert_eq!(pinned.n_pinned, 0, "{what}");
                assert!(judge(pins, "other", &tools).changed.is_empty(), "{what}");
            });
        }
        place.run(|pins| {
            assert!(judge(pins, "s", &[tool("c", "new")]).withholds_tool("c"), "{what}");
        });
        assert_eq!(place.accept("s"), ["a", "b", "c"], "{what}");
        place.run(|pins| {
            assert!(judge(pins, "s", &tools).changed.is_empty(), "{what}");
            assert!(judge(pins, "s", &[tool("d", "new")]).changed.is_empty(), "{what}");
            assert!(judge(pins, "s", &[tool("a", "steals")]).withholds_tool("a"), "{what}");
        });
        let left = place.names().into_iter().filter(|name| name.starts_with(ACCEPTED)).count();
        assert_eq!(left, 0, "{what}");
    }
}

#[test]
fn a_server_that_comes_later_has_lost_nothing() {
    let place = Place::new("later");
    place.run(|pins| judge(pins, "s", &[tool("a", "adds")]));
    place.run(|pins| {
        assert!(judge(pins, "z", &[tool("a", "adds")]).changed.is_empty());
    });
}

#[test]
fn what_is_accepted_stays_while_it_cannot_be_read() {
    let place = Place::new("unread");
    place.run(|pins| {
        judge(pins, "s", &[tool("a", "adds")]);
        judge(pins, "s", &[tool("a", "multiplies")]);
    });
    assert_eq!(place.accept("s"), ["a"]);
    let names = place.names();
    let name = names.iter().find(|name| name.starts_with(ACCEPTED)).unwrap();
    place.run(|pins| {
        assert!(judge(pins, "s", &[tool("a", "multiplies")]).changed.is_empty());
        pins.refuse_reads(true);
        let path = place.0.join(format!("{ACCEPTED}9"));
        std::fs::write(&path, ACCEPTED_FORM.frame(b"{\"server\":\"s\",\"tools\":{}}")).unwrap();
        for _ in 0..2 {
            assert!(pins.take_accepted().is_empty());
            assert!(!pins.taken.contains("pins-accepted.9") && path.exists());
        }
        pins.refuse_reads(false);
        pins.take_accepted();
        assert!(pins.taken.contains("pins-accepted.9"));
    });
    assert_eq!(place.names().iter().filter(|it| it.starts_with(ACCEPTED)).count(), 0);
    place.run(|pins| {
        assert!(judge(pins, "s", &[tool("a", "multiplies")]).changed.is_empty());
    });
    assert!(!place.0.join(name).exists());
    // A file that can never be used is removed.
    std::fs::write(place.0.join(name), ACCEPTED_FORM.frame(b"nonsense")).unwrap();
    place.run(|_| ());
    assert!(!place.0.join(name).exists());
    let is_aside = |it: &String| it.starts_with(name.as_str()) && it.contains("corrupt");
    assert!(place.names().iter().any(is_aside));
}

#[test]
fn a_crash_before_it_is_kept_who_is_pinned_is_mended() {
    for index in [None, Some(&b"[\"other\"]"[..])] {
        let place = Place::new("crash");
        let tools = [tool("a", "adds")];
        place.run(|pins| judge(pins, "s", &tools));
        let path = place.0.join(PINNED_SERVERS);
        std::fs::remove_file(&path).unwrap();
        if let Some(body) = index {
            let form = Form { name: "servers-pinned", version: 1 };
            std::fs::write(&path, form.frame(body)).unwrap();
        }
        place.run(|pins| assert!(judge(pins, "s", &tools).changed.is_empty()));
        std::fs::remove_file(place.0.join("pins.s")).unwrap();
        place.run(|pins| assert!(judge(pins, "s", &tools).withholds_tool("a"), "{index:?}"));
    }
}
