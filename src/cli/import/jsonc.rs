//! Pure: JSON as hosts write it: comments and trailing commas become spaces.

/// The same text as plain JSON. Places stay where they are, so that an error names the right one.
pub(super) fn plain(text: &str) -> String {
    let mut out: Vec<u8> = text.trim_start_matches('\u{feff}').bytes().collect();
    blank_comments(&mut out);
    blank_trailing_commas(&mut out);
    // Whole characters were replaced by as many spaces as they have bytes.
    String::from_utf8_lossy(&out).into_owned()
}

/// The position of a reader of JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum In {
    Value,
    String,
    Line,
    Block,
}

fn blank_comments(text: &mut [u8]) {
    let mut within = In::Value;
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        let next = text.get(at + 1).copied();
        let (now, n_bytes, is_comment) = match (within, byte, next) {
            (In::Value, b'"', _) => (In::String, 1, false),
            (In::Value, b'/', Some(b'/')) => (In::Line, 2, true),
            (In::Value, b'/', Some(b'*')) => (In::Block, 2, true),
            (In::String, b'\\', _) => (In::String, 2, false),
            (In::String, b'"', _) | (In::Line, b'\n', _) => (In::Value, 1, false),
            (In::Block, b'*', Some(b'/')) => (In::Value, 2, true),
            (In::Value | In::String, _, _) => (within, 1, false),
            (In::Line | In::Block, _, _) => (within, 1, byte != b'\n'),
        };
        if is_comment {
            text.iter_mut().skip(at).take(n_bytes).for_each(|byte| *byte = b' ');
        }
        within = now;
        at += n_bytes;
    }
}

/// Blanks commas before closing brackets.
fn blank_trailing_commas(text: &mut [u8]) {
    let mut comma = None;
    let mut in_string = false;
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        match (in_string, byte) {
            (true, b'\\') => at += 1,
            (true, b'"') => in_string = false,
            (true, _) | (false, b' ' | b'\t' | b'\r' | b'\n') => (),
            (false, b',') => comma = Some(at),
            (false, b'}' | b']') => {
                if let Some(comma) = comma.take().and_then(|at| text.get_mut(at)) {
                    *comma = b' ';
                }
            }
            (false, _) => {
                comma = None;
                in_string = byte == b'"';
            }
        }
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::plain;
    use serde_json::{Value, json};

    #[track_caller]
    fn check(text: &str, expected: &Value) {
        let plain = plain(text);
        assert_eq!(
            serde_json::from_str::<Value>(&plain).ok().as_ref(),
            Some(expected),
            "{plain}"
        );
    }

    #[test]
    fn comments_and_trailing_commas_are_left_out() {
        check(
            "{\"a\": 1, // one\n \"b\": [1, 2,], /* two\n lines */ }",
            &json!({"a":1,"b":[1,2]}),
        );
        check("// é\n{}\n/* end", &json!({}));
        check("\u{feff}{}", &json!({}));
    }

    #[test]
    fn strings_stay_as_they_are() {
        let text = r#"{"url": "http://h/*x*/", "b": ",]", "c": "\",}", "d": "// é"}"#;
        check(text, &json!({"url": "http://h/*x*/", "b": ",]", "c": "\",}", "d": "// é"}));
    }

    #[test]
    fn what_is_no_json_stays_none() {
        for text in ["{,}x", "{\"a\" 1}", "\"open // ", "[1,,2]"] {
            assert!(serde_json::from_str::<Value>(&plain(text)).is_err(), "{text}");
        }
    }
}
