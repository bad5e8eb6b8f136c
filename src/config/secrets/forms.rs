//! Pure: other forms in which a server may repeat a secret that it was given: split into parts,
//! decoded, or encoded as in a URL, in base64 or in JSON.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use serde_json::Value;

use crate::config::Secret;

/// Bytes below which another form of a secret is not searched for: it would be found in other
/// words, as would a cookie or a member of JSON.
const FORM_BYTES_MIN: usize = 8;
/// The most parts into which one value is split: cookies, or members of JSON.
const PARTS_MAX: usize = 16;

/// Parts of a header's value that may come up alone, besides the whole of it: the credential
/// behind a scheme, its decoded form, and each cookie.
pub(crate) fn of_header(name: &str, value: &str) -> Vec<Secret> {
    let (mut credentials, mut parts): (Vec<String>, Vec<String>) = (Vec::new(), Vec::new());
    if let Some((scheme, credential)) = value.rsplit_once(' ') {
        credentials.push(credential.to_owned());
        // RFC 7617.
        let decoded = crate::config::base64::decode(credential)
            .filter(|_| is_same(scheme.trim(), "basic"));
        if let Some(pair) = decoded.and_then(|bytes| String::from_utf8(bytes).ok()) {
            credentials.extend(pair.split_once(':').map(|(_, password)| password.to_owned()));
            credentials.push(pair);
        }
    }
    if is_same(name, "cookie") {
        let pairs = value.split(';').take(PARTS_MAX).filter_map(|pair| pair.split_once('='));
        parts.extend(pairs.map(|(_, value)| value.trim().to_owned()));
    }
    if value.starts_with(['{', '[']) {
        strings_of(&serde_json::from_str(value).unwrap_or_default(), &mut parts);
    }
    let long = parts.into_iter().filter(|part| part.len() >= FORM_BYTES_MIN);
    credentials.into_iter().chain(long).map(Secret::new).collect()
}

/// The credential of an OAuth client in `Authorization: Basic` (RFC 6749, section 2.3.1).
pub(crate) fn basic(id: &str, secret: &str) -> Secret {
    let pair = format!("{}:{}", percent_encoded(id), percent_encoded(secret));
    Secret::new(STANDARD_NO_PAD.encode(pair))
}

fn is_same(text: &str, word: &str) -> bool {
    text.eq_ignore_ascii_case(word)
}

fn strings_of(value: &Value, parts: &mut Vec<String>) {
    if parts.len() >= PARTS_MAX {
        return;
    }
    match value {
        Value::String(text) => parts.push(text.clone()),
        Value::Array(items) => items.iter().for_each(|item| strings_of(item, parts)),
        Value::Object(members) => members.values().for_each(|it| strings_of(it, parts)),
        Value::Null | Value::Bool(_) | Value::Number(_) => (),
    }
}

/// The secrets, and for each of them its decoded and encoded forms.
pub(crate) fn with_forms(secrets: Vec<Secret>) -> Vec<Secret> {
    let mut all: Vec<Secret> = Vec::with_capacity(secrets.len());
    for secret in secrets {
        let text = secret.expose();
        let forms = if text.len() >= FORM_BYTES_MIN { forms(text) } else { Vec::new() };
        let forms = forms.into_iter().filter(|form| form.len() >= FORM_BYTES_MIN);
        for form in std::iter::once(text.to_owned()).chain(forms).map(Secret::new) {
            if !all.contains(&form) {
                all.push(form);
            }
        }
    }
    all
}

fn forms(text: &str) -> Vec<String> {
    let mut forms = vec![percent_encoded(text), in_json(text, "/"), in_json(text, "\\/")];
    // Padding adds nothing that is worth hiding.
    forms.push(STANDARD_NO_PAD.encode(text));
    forms.push(URL_SAFE_NO_PAD.encode(text));
    if let Some(decoded) = percent_decoded(text) {
        forms.push(in_json(&decoded, "\\/"));
        forms.push(decoded);
    }
    forms.retain(|form| form != text);
    forms
}

/// The text as in a URL (RFC 3986, section 2.1): all but unreserved characters are encoded.
fn percent_encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            write!(out, "%{byte:02X}").ok();
        }
    }
    out
}

/// The text without its percent-encoding; none where it has none, or is not UTF-8.
pub(crate) fn percent_decoded(text: &str) -> Option<String> {
    let (first, rest) = text.split_once('%')?;
    let mut out = first.as_bytes().to_vec();
    for part in rest.split('%') {
        let byte = u8::from_str_radix(part.get(..2)?, 16).ok()?;
        out.push(byte);
        out.extend_from_slice(part.get(2..)?.as_bytes());
    }
    String::from_utf8(out).ok()
}

/// The inside of a JSON string, all in ASCII, with `slash` for a slash, as some libraries write
/// it.
fn in_json(text: &str, slash: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '/' => out.push_str(slash),
            '"' | '\\' => out.extend(['\\', character]),
            ' '..='~' => out.push(character),
            _ => {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    // Writing to a string cannot fail.
                    write!(out, "\\u{unit:04x}").ok();
                }
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(secrets: &[Secret]) -> Vec<&str> {
        secrets.iter().map(Secret::expose).collect()
    }

    #[test]
    fn a_header_is_taken_apart() {
        // "user:open-sesame"
        let basic = of_header("Authorization", "Basic dXNlcjpvcGVuLXNlc2FtZQ==");
        let parts = ["dXNlcjpvcGVuLXNlc2FtZQ==", "open-sesame", "user:open-sesame"];
        assert_eq!(texts(&basic), parts);
        assert_eq!(texts(&of_header("authorization", "Bearer 0123456789")), ["0123456789"]);
        let cookies = of_header("Cookie", "a=short; session=0123456789abc; csrf=abcdefghij");
        assert!(
            texts(&cookies).ends_with(&["0123456789abc", "abcdefghij"]),
            "{:?}",
            texts(&cookies)
        );
        let json = of_header("X-Auth", r#"{"key":"0123456789","n":[1,"abcdefghij"]}"#);
        assert_eq!(texts(&json), ["0123456789", "abcdefghij"]);
        assert!(of_header("X-Api-Key", "0123456789").is_empty(), "it is the whole");
    }

    #[test]
    fn a_secret_is_known_in_its_usual_codes() {
        let of = |text: &str| with_forms(vec![Secret::new(text.to_owned())]);
        let forms = of("ab/cd+ef\"gh\u{fc}");
        for form in [
            "ab/cd+ef\"gh\u{fc}",
            "ab%2Fcd%2Bef%22gh%C3%BC",
            "ab/cd+ef\\\"gh\\u00fc",
            "ab\\/cd+ef\\\"gh\\u00fc",
            "YWIvY2QrZWYiZ2jDvA",
        ] {
            assert!(texts(&forms).contains(&form), "{form}: {:?}", texts(&forms));
        }
        let decoded = of("q%2Bval%20x/y");
        for form in ["q+val x/y", "q+val x\\/y"] {
            assert!(texts(&decoded).contains(&form), "{form}: {:?}", texts(&decoded));
        }
        assert_eq!(texts(&of("short")), ["short"]);
        let plain = of("0123456789abcdef");
        assert_eq!(plain.len(), 2, "as it is and in base64: {:?}", texts(&plain));
    }
}
