//! Tests of pins over restarts, losses and hostile servers.

use std::path::PathBuf;

use super::*;
use crate::limits::{OWN_NAME_CHARS_MAX, STATE_FILE_BYTES_MAX};
use crate::protocol::raw::Raw;
use crate::state;

/// A directory of its own that goes with the test.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Place {
        let id = std::process::id();
        let path = std::env::temp_dir().join(format!("trunkline-pins-{name}-{id}"));
        std::fs::remove_dir_all(&path).ok();
        Place(path)
    }

    /// What is done with pins that are loaded from here; all is written when it returns.
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
        accept(&StateDir::of_another(&self.0), &server(name), None).unwrap()
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
    pins.judge(&server(name), Pin::Enforce, &tools.to_vec()).unwrap()
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
        assert!(pinned.withholds(last), "one beyond the bound is not trusted");
        assert!(!pinned.withholds(&long[0].0));
        assert_eq!(pinned.n_pinned + pinned.changed.len(), long.len());
    });
    for name in ["pins.good", "pins.hostile", PINNED_SERVERS] {
        let n = std::fs::metadata(place.0.join(name)).unwrap().len();
        assert!(n < STATE_FILE_BYTES_MAX, "{name}: {n}");
    }
    place.run(|pins| {
        assert!(judge(pins, "good", &good).changed.is_empty());
        assert!(judge(pins, "good", &[tool("t", "steals")]).withholds("t"));
        assert!(!judge(pins, "hostile", &long[..1]).withholds(&long[0].0));
    });
    let names = place.names();
    assert!(!names.iter().any(|name| name.contains("corrupt")), "{names:?}");
}

#[test]
fn the_bytes_of_a_file_are_not_more_than_was_counted() {
    // With what stands around the entries.
    assert!(u64::try_from(PINS_BYTES_MAX).unwrap() + 4096 < STATE_FILE_BYTES_MAX);
    let mut pins = ServerPins::default();
    for n in 0..100 {
        let own = format!("{n}\"\\\u{1d54f}é");
        pins.look(&own, "0".repeat(64));
        pins.look(&own, "1".repeat(64));
        pins.tools.get_mut(&own).unwrap().changed.as_mut().unwrap().since = u64::MAX;
    }
    let counted: usize = pins.tools.keys().map(|own| 2 * own.len() + 256).sum();
    assert!(pins.file().len() < counted, "{} {counted}", pins.file().len());
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
        // Not at the first start alone: nobody has accepted anything.
        place.run(|_| ());
        for _ in 0..2 {
            place.run(|pins| {
                let pinned = judge(pins, "s", &tools);
                assert!(pinned.withholds("a") && pinned.withholds("b"), "{what}");
                assert_eq!(pinned.n_pinned, 0, "{what}");
                assert!(judge(pins, "other", &tools).changed.is_empty(), "{what}");
            });
        }
        place.run(|pins| {
            assert!(judge(pins, "s", &[tool("c", "new")]).withholds("c"), "{what}");
        });
        assert_eq!(place.accept("s"), ["a", "b", "c"], "{what}");
        place.run(|pins| {
            assert!(judge(pins, "s", &tools).changed.is_empty(), "{what}");
            assert!(judge(pins, "s", &[tool("d", "new")]).changed.is_empty(), "{what}");
            assert!(judge(pins, "s", &[tool("a", "steals")]).withholds("a"), "{what}");
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
    // What can never be used goes out of the way.
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
        place.run(|pins| assert!(judge(pins, "s", &tools).withholds("a"), "{index:?}"));
    }
}
