//! Tests of places in texts that are JSON, nearly JSON, and anything.

use super::*;

#[track_caller]
fn check(text: &str, at: &str, aim: Aim, expected: (usize, usize), marked: &str) {
    let place = Source::new(text).find(at, aim).unwrap();
    assert_eq!((place.line, place.column), expected, "{place:?}");
    let shown: String = place.shown.chars().skip(place.before).take(place.width).collect();
    assert_eq!(shown, marked, "{place:?}");
}

#[test]
fn a_pointer_is_found_and_marked() {
    let text = "{\n  \"a/b\": { \"url\": 5, \"x\": [true,\n    \"é\", {\"y\":1}] },\n  \"t\": 1, \"t\": 2}";
    check(text, "/a~1b/url", Aim::Value, (2, 19), "5");
    check(text, "/a~1b/url", Aim::Key, (2, 12), "\"url\"");
    check(text, "/a~1b", Aim::Value, (2, 3), "\"a/b\"");
    check(text, "/a~1b/x/0", Aim::Value, (2, 28), "true");
    check(text, "/a~1b/x/2/y", Aim::Value, (3, 15), "1");
    // A missing value is searched further up.
    check(text, "/a~1b/none/1", Aim::Value, (2, 3), "\"a/b\"");
    check(text, "/t", Aim::Key, (4, 11), "\"t\"");
    assert_eq!(Source::new(text).find("/none", Aim::Value), None);
}

#[test]
fn what_may_be_a_secret_is_not_shown() {
    for text in [
        r#"{"a":{"headers":{"name":"hunter2"}, "x":1}}"#,
        r#"{"a":{"env":{"command":"hunter2"}, "x":1}}"#,
        r#"{"a":{"args":["--token","hunter2"], "x":1}}"#,
        r#"{"a":{"url":"https://h/hunter2?x", "x":1}}"#,
        r#"{"a":{"url":"https://u:hunter2@h/", "x":1}}"#,
        r#"{"a":{"key":"hunter2", "x":1}}"#,
        r#"{"a":{"key":hunter2, "x":1}}"#,
        r#"{"a":{"key":'hunter2', "x":1}}"#,
        r#"{"a":{"key":"${X:-hunter2}", "x":1}}"#,
        r#"{"a":{"x":1, "key":"hunter2}}"#,
        r#"{"a":{"x":1, // "command":"hunter2"}}"#,
        r#"{"a":{"x":1 /* "command":"hunter2" */}}"#,
        r#"{"a":{"x":1, "token":{"value":{"deep":["hunter2"]}}}}"#,
    ] {
        let place = Source::new(text).find("/a/x", Aim::Value).unwrap();
        assert!(!place.shown.contains("hunter2") && place.shown.contains('…'), "{place:?}");
        let marked: String = place.shown.chars().skip(place.before).take(place.width).collect();
        assert_eq!(marked, "1", "{place:?}");
    }
    let text = r#"{"a":{"command":"npx","h":"Bearer ${T}","url":"https://h/x"}}"#;
    let place = Source::new(text).find("/a/h", Aim::Value).unwrap();
    assert_eq!(place.shown, r#"{"a":{"command":"…","h":"Bearer ${T}","url":"https://h…"}}"#);
}

#[test]
fn a_long_line_is_cut_around_the_place() {
    let text = format!("{{\"tools\":[{}\"x\"],\"a\":1}}", "\"tool\",".repeat(100));
    let place = Source::new(&text).find("/a", Aim::Key).unwrap();
    assert!(place.shown.chars().count() <= SHOWN_CHARS_MAX + 2, "{place:?}");
    let shown: String = place.shown.chars().skip(place.before).take(place.width).collect();
    assert_eq!(shown, "\"a\"");
}

#[test]
fn what_json_does_not_have_is_found_and_left_out() {
    let text = "{ // é\n \"a\": [1, /* x\n */ 2,],\n \"b\": \"// no\", # c\n}";
    let source = Source::new(text);
    let odd: Vec<Odd> = source.odd.iter().map(|(_, odd)| *odd).collect();
    use Odd::{BareKey, Comment, LineBreakInText, MissingComma, SingleQuotes, TrailingComma};
    assert_eq!(odd, [Comment, Comment, TrailingComma, Comment, TrailingComma]);
    let plain = source.without_odd();
    assert_eq!(plain.len(), text.len());
    let value: serde_json::Value = serde_json::from_str(&plain).unwrap();
    assert_eq!(value, serde_json::json!({"a":[1,2],"b":"// no"}));
    for (text, expected) in [
        ("{'a': 1}", vec![SingleQuotes]),
        ("{a: 1}", vec![BareKey]),
        ("{\"a\": \"x\n}", vec![LineBreakInText]),
        ("{\"a\": 1 \"b\": 2}", vec![MissingComma]),
        ("[1 2]", vec![MissingComma]),
        ("{\"a\": [1", vec![Odd::Unclosed]),
        ("{\"a\": 1}", vec![]),
    ] {
        let found: Vec<Odd> = Source::new(text).odd.iter().map(|(_, odd)| *odd).collect();
        assert_eq!(found, expected, "{text}");
    }
}

#[test]
fn any_text_is_read_and_whatever_is_cut() {
    let text = "\u{feff}{\"a\":[{\"b\":'x\\'y'},// é\n\"c\" # ü\n],\"é\\n\":{\"x\" : t/*}*/}}";
    for end in (0..=text.len()).filter(|end| text.is_char_boundary(*end)) {
        for start in (0..end).filter(|start| text.is_char_boundary(*start)) {
            let source = Source::new(&text[start..end]);
            for (range, _) in &source.odd {
                source.place(range.clone());
            }
            source.find("/a/0/b", Aim::Value);
            source.without_odd();
        }
    }
}
