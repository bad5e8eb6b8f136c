//! Pure: reads YAML to JSON's values, in the way of PyYAML, which LiteLLM uses: with YAML 1.1's
//! words for true and false, and merge keys.

use std::collections::HashMap;

use granit_parser::{Event, Options, Parser, ScalarStyle, Span, StrInput, Tag};
use serde_json::{Map, Number, Value};

use crate::limits::IMPORT_YAML_NODES_MAX;

/// Reads the first document.
///
/// # Errors
/// The fault, and its line.
pub(super) fn read(text: &str) -> Result<Value, String> {
    let options = granit_parser::options! { emit_comments: false };
    let mut reader = Reader::new(text, options);
    loop {
        let (event, span) = reader.event()?;
        if matches!(event, Event::StreamEnd | Event::DocumentEnd) {
            return Ok(Value::Null);
        }
        if !matches!(event, Event::StreamStart | Event::DocumentStart(..)) {
            return reader.node(event, &span);
        }
    }
}

struct Reader<'a> {
    events: Parser<'a, StrInput<'a>>,
    anchors: HashMap<usize, Value>,
    /// The number of values. An alias counts as many as its anchor, so that a short text cannot
    /// become a large value.
    n_nodes: usize,
}

impl<'a> Reader<'a> {
    fn new(text: &'a str, options: Options) -> Reader<'a> {
        let events = Parser::new_from_str_with_options(text, options);
        Reader { events, anchors: HashMap::new(), n_nodes: 0 }
    }

    fn event(&mut self) -> Result<(Event<'a>, Span), String> {
        match self.events.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => {
                let at = error.marker();
                Err(format!("line {}, column {}: {}", at.line(), at.col() + 1, error.info()))
            }
            None => Err("the text ends in the middle".to_owned()),
        }
    }

    fn count(&mut self, n_nodes: usize, span: &Span) -> Result<(), String> {
        self.n_nodes += n_nodes;
        if self.n_nodes > IMPORT_YAML_NODES_MAX {
            return Err(wrong(span, "there are too many values"));
        }
        Ok(())
    }

    fn node(&mut self, event: Event<'a>, span: &Span) -> Result<Value, String> {
        self.count(1, span)?;
        let (anchor, value) = match event {
            Event::Alias(anchor) => {
                let value = self.anchors.get(&anchor).cloned();
                let value =
                    value.ok_or_else(|| wrong(span, "an alias stands in its own value"))?;
                self.count(size(&value), span)?;
                return Ok(value);
            }
            Event::Scalar(text, style, anchor, tag) => {
                (anchor, scalar(&text, style, tag.as_deref()))
            }
            Event::SequenceStart(_, anchor, _) => (anchor, self.sequence()?),
            Event::MappingStart(_, anchor, _) => (anchor, self.mapping()?),
            Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(..)
            | Event::DocumentEnd
            | Event::Anchor(..)
            | Event::UnresolvedAlias(_)
            | Event::SequenceEnd
            | Event::MappingEnd => return Err(wrong(span, "a value is missing")),
            // Further kinds of events would have to be enabled.
            _ => return Err(wrong(span, "it is none that is known")),
        };
        if anchor > 0 {
            self.anchors.insert(anchor, value.clone());
        }
        Ok(value)
    }

    fn sequence(&mut self) -> Result<Value, String> {
        let mut items = Vec::new();
        loop {
            match self.event()? {
                (Event::SequenceEnd, _) => return Ok(Value::Array(items)),
                (event, span) => items.push(self.node(event, &span)?),
            }
        }
    }

    fn mapping(&mut self) -> Result<Value, String> {
        let mut fields = Map::new();
        let mut merged = Vec::new();
        loop {
            let (event, span) = self.event()?;
            if event == Event::MappingEnd {
                break;
            }
            let key = if let Event::Scalar(text, ..) = event {
                text.into_owned()
            } else if let Value::String(text) = self.node(event, &span)? {
                text
            } else {
                return Err(wrong(&span, "a key must be a plain word"));
            };
            let (event, place) = self.event()?;
            let value = self.node(event, &place)?;
            if key == "<<" {
                merged.push(value);
            } else if fields.insert(key.clone(), value).is_some() {
                return Err(wrong(&span, &format!("the key {key:?} stands twice")));
            }
        }
        merged.into_iter().for_each(|value| merge(&mut fields, value));
        Ok(Value::Object(fields))
    }
}

/// Adds the fields of a merge key behind the present ones.
fn merge(fields: &mut Map<String, Value>, value: Value) {
    match value {
        Value::Object(others) => {
            for (key, value) in others {
                fields.entry(key).or_insert(value);
            }
        }
        Value::Array(all) => all.into_iter().for_each(|value| merge(fields, value)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => (),
    }
}

fn wrong(span: &Span, what: &str) -> String {
    format!("line {}, column {}: {what}", span.start.line(), span.start.col() + 1)
}

fn size(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(size).sum::<usize>(),
        Value::Object(fields) => 1 + fields.values().map(size).sum::<usize>(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 1,
    }
}

fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Value {
    let is_text = tag.is_some_and(|tag| tag.core_suffix() == Some("str"));
    if style != ScalarStyle::Plain || is_text {
        return text.into();
    }
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => true.into(),
        "false" | "False" | "FALSE" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => {
            false.into()
        }
        _ => number(text).map_or_else(|| text.into(), Value::Number),
    }
}

fn number(text: &str) -> Option<Number> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    // The text is neither a version nor a telephone number.
    if !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        || (digits.len() > 1 && digits.starts_with('0') && !digits.starts_with("0."))
    {
        return None;
    }
    let plain = text.strip_prefix('+').unwrap_or(text).replace('_', "");
    plain
        .parse::<i64>()
        .ok()
        .map(Number::from)
        .or_else(|| Number::from_f64(plain.parse::<f64>().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[track_caller]
    fn check(text: &str, expected: &Value) {
        assert_eq!(read(text).as_ref(), Ok(expected), "{text}");
    }

    #[test]
    fn values_are_read_as_pyyaml_reads_them() {
        check(
            "a: yes\nb: 'yes'\nc: !!str 1\nd: 1_000\ne: -2.5\nf: ~\ng:\nh: 1.2.3\ni: 007\n",
            &json!({
                "a": true, "b": "yes", "c": "1", "d": 1000, "e": -2.5, "f": null, "g": null,
                "h": "1.2.3", "i": "007",
            }),
        );
        check("# nothing\n", &Value::Null);
        check(
            "- a\n- {b: [c, \"d\"]}\n- |\n  two\n  lines\n",
            &json!(["a", {"b": ["c", "d"]}, "two\nlines\n"]),
        );
        check("8080: x\n", &json!({"8080": "x"}));
    }

    #[test]
    fn anchors_aliases_and_merge_keys_are_followed() {
        let text = "base: &b {url: u, n: 1}\nx:\n  <<: *b\n  n: 2\ny: *b\n";
        let base = json!({"url": "u", "n": 1});
        check(text, &json!({"base": base, "x": {"n": 2, "url": "u"}, "y": base}));
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        for (text, part) in [
            ("a: 1\nb: [\n", "line 2"),
            ("a: 1\na: 2\n", "\"a\" stands twice"),
            ("a: *nothing\n", "line 1"),
            ("a: &x [*x]\n", "its own value"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(part), "{text:?}: {error}");
        }
    }

    #[test]
    fn a_short_text_cannot_be_a_large_value() {
        let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for n in 1..12 {
            let before = format!("*a{}", n - 1);
            text.push_str(&format!("a{n}: &a{n} [{}]\n", [before.as_str(); 10].join(", ")));
        }
        assert!(read(&text).unwrap_err().contains("too many"));
    }

    #[test]
    fn cut_anywhere_it_ends() {
        let text = "a: &x {b: [1, \"é\"], c: 'd'}\ne: *x\nf: |\n  g\n";
        for end in (0..text.len()).filter(|end| text.is_char_boundary(*end)) {
            // Any result is right, as long as there is no panic.
            drop(read(&text[..end]));
        }
    }
}
