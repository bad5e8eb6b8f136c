//! Pure: takes out of a text what must not stand in a log or in an answer.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::{PoisonError, RwLock};

use crate::config::Secret;
use crate::config::secrets::is_token;
use crate::limits::{LEARNED_SECRETS_BYTES_MAX, LEARNED_SECRETS_MAX};
use crate::protocol::raw;

/// What stands in a secret's place.
const MARK: &str = "[secret]";
/// Shorter secrets are not looked for: they would be found in every other word.
const SECRET_BYTES_MIN: usize = 4;

/// A URL without user, password, query and fragment, and without tokens in its path: the parts in
/// which secrets are carried.
pub fn url(text: &str) -> String {
    let end = text.find(['?', '#']).unwrap_or(text.len());
    let text = text.get(..end).unwrap_or("");
    let Some((scheme, rest)) = text.split_once("://") else { return without_tokens(text) };
    let authority_end = rest.find('/').unwrap_or(rest.len());
    let (authority, path) = rest.split_at(authority_end);
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    format!("{scheme}://{host}{}", without_tokens(path))
}

fn without_tokens(path: &str) -> String {
    let parts: Vec<&str> =
        path.split('/').map(|part| if is_token(part) { MARK } else { part }).collect();
    parts.join("/")
}

/// What stands where a text was cut.
const CUT: char = '…';

/// The configured secrets and those that were learned since, to be found wherever they come up. A
/// last line of defence: what writes a log line leaves secrets out by itself.
#[derive(Debug, Default)]
pub struct Secrets {
    configured: Vec<Secret>,
    /// The newest last.
    learned: RwLock<VecDeque<Secret>>,
}

impl Secrets {
    /// Takes the secrets that are long enough to be told from other text.
    pub fn new(secrets: &[Secret]) -> Secrets {
        let long = |secret: &&Secret| secret.expose().len() >= SECRET_BYTES_MIN;
        let mut secrets: Vec<_> = secrets.iter().filter(long).cloned().collect();
        // One may be part of another; the rest of the longer would be left.
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.expose().len()));
        Secrets { configured: secrets, learned: RwLock::default() }
    }

    /// Takes a secret that was not configured, as a session's id. It is looked for also when its
    /// session has ended, because that is when it is spoken of; the oldest make room.
    pub fn learn(&self, secret: Secret) {
        if secret.expose().len() < SECRET_BYTES_MIN || self.configured.contains(&secret) {
            return;
        }
        let mut learned = self.learned.write().unwrap_or_else(PoisonError::into_inner);
        if learned.contains(&secret) {
            return;
        }
        let n_bytes = secret.expose().len();
        if n_bytes > LEARNED_SECRETS_BYTES_MAX {
            return;
        }
        let room = LEARNED_SECRETS_BYTES_MAX - n_bytes;
        let sum = |of: &VecDeque<Secret>| of.iter().map(|it| it.expose().len()).sum::<usize>();
        while learned.len() >= LEARNED_SECRETS_MAX || sum(&learned) > room {
            learned.pop_front();
        }
        learned.push_back(secret);
    }

    /// Whether there is nothing to look for.
    fn is_empty(&self) -> bool {
        let learned = self.learned.read().unwrap_or_else(PoisonError::into_inner);
        self.configured.is_empty() && learned.is_empty()
    }

    /// The text without any of the secrets.
    pub fn scrub<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let mut text = Cow::Borrowed(text);
        let learned = self.learned.read().unwrap_or_else(PoisonError::into_inner);
        for secret in learned.iter().chain(&self.configured) {
            if text.contains(secret.expose()) {
                text = Cow::Owned(text.replace(secret.expose(), MARK));
            }
        }
        text
    }

    /// [`Secrets::scrub`] for a text that may have been cut: also without the beginning of a
    /// secret whose end was cut off.
    pub fn scrub_cut<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let text = self.scrub(text);
        if self.is_empty() || !text.contains(CUT) {
            return text;
        }
        let mut out = String::with_capacity(text.len());
        for piece in text.split_inclusive(CUT) {
            match piece.strip_suffix(CUT) {
                Some(before) => {
                    let n_begun = self.begun_at_end(before);
                    out.push_str(before.get(..before.len() - n_begun).unwrap_or(before));
                    out.push_str(if n_begun == 0 { "" } else { MARK });
                    out.push(CUT);
                }
                None => out.push_str(piece),
            }
        }
        Cow::Owned(out)
    }

    /// A JSON text without any of the secrets, however its strings are spelled. None where it has
    /// none: then it stands as it is.
    pub fn scrub_json(&self, text: &str) -> Option<String> {
        if self.is_empty() {
            return None;
        }
        let (mut out, mut rest, mut found) = (String::new(), text, false);
        while let Some(first) = rest.chars().next() {
            let (token, after) = rest.split_at(token_bytes(rest, first));
            rest = after;
            let plain = match first {
                '"' => serde_json::from_str(token).unwrap_or_else(|_| token.to_owned()),
                _ => token.to_owned(),
            };
            match self.scrub(&plain) {
                // A number may be one, too; a string may stand wherever a number does.
                Cow::Owned(scrubbed) => {
                    found = true;
                    raw::push_string(&mut out, &scrubbed);
                }
                Cow::Borrowed(_) => out.push_str(token),
            }
        }
        found.then_some(out)
    }

    /// Bytes of the longest beginning of a secret that `text` ends with.
    fn begun_at_end(&self, text: &str) -> usize {
        let learned = self.learned.read().unwrap_or_else(PoisonError::into_inner);
        let secrets = learned.iter().chain(&self.configured).map(Secret::expose);
        let begun = secrets.filter_map(|secret| {
            let ends = (SECRET_BYTES_MIN..secret.len()).rev();
            ends.filter(|end| secret.get(..*end).is_some_and(|it| text.ends_with(it))).max()
        });
        begun.max().unwrap_or_default()
    }
}

/// Bytes of the JSON token that `text` begins with: a string, a number or word, one character of
/// punctuation or space.
fn token_bytes(text: &str, first: char) -> usize {
    if first == '"' {
        let mut is_escaped = false;
        let end = text.bytes().skip(1).position(|byte| {
            let is_end = byte == b'"' && !is_escaped;
            is_escaped = byte == b'\\' && !is_escaped;
            is_end
        });
        return end.map_or(text.len(), |end| end + 2);
    }
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
    if is_part(first) {
        return text.find(|c| !is_part(c)).unwrap_or(text.len());
    }
    first.len_utf8()
}

/// The beginning of somebody else's text, of so many characters at most, on one line and without
/// control characters: for what the gateway itself says or writes.
pub fn excerpt(text: &str, chars_max: usize) -> String {
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    let mut out: String = text.trim().chars().take(chars_max).map(plain).collect();
    if text.trim().chars().nth(chars_max).is_some() {
        out.push(CUT);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_keeps_only_what_names_the_place() {
        for (full, kept) in [
            ("http://u:p@h:1/a/b?token=x#f", "http://h:1/a/b"),
            ("https://h", "https://h"),
            ("https://h?token=x", "https://h"),
            ("https://u@p@h/@x", "https://h/@x"),
            ("https://h#x?y@z", "https://h"),
            ("/mcp/sse/messages?session_id=x", "/mcp/sse/messages"),
            ("", ""),
            ("https://h/s/0b1c2d3e4f5a6b7c8d/mcp?x", "https://h/s/[secret]/mcp"),
            ("/messages/0b1c2d3e4f5a6b7c8d", "/messages/[secret]"),
        ] {
            assert_eq!(url(full), kept, "{full}");
        }
    }

    #[test]
    fn every_occurrence_of_every_secret_goes() {
        let secret = |text: &str| Secret::new(text.to_owned());
        let secrets = Secrets::new(&[secret("abcd"), secret("abcdefgh"), secret("x")]);
        assert_eq!(secrets.scrub("abcdefgh x abcd abcd"), "[secret] x [secret] [secret]");
        assert!(matches!(secrets.scrub("nothing here"), Cow::Borrowed(_)));
    }

    #[test]
    fn what_was_learned_goes_too_until_newer_ones_take_its_place() {
        let secrets = Secrets::new(&[Secret::new("hush-hush".to_owned())]);
        let learn = |text: &str| secrets.learn(Secret::new(text.to_owned()));
        learn("session-0");
        learn("session-0");
        learn("x");
        assert_eq!(secrets.scrub("x session-0 hush-hush"), "x [secret] [secret]");
        assert_eq!(secrets.scrub_cut("of sessi…"), "of [secret]…");
        assert_eq!(
            secrets.scrub_json(r#"{"a":"session-0"}"#).as_deref(),
            Some(r#"{"a":"[secret]"}"#)
        );
        (1..LEARNED_SECRETS_MAX).for_each(|n| learn(&format!("other-{n}")));
        assert_eq!(secrets.scrub("session-0"), "[secret]");
        learn("one-more");
        assert_eq!(secrets.scrub("session-0 one-more"), "session-0 [secret]");
    }

    #[test]
    fn a_secret_in_json_goes_however_it_is_spelled() {
        let secret = |text: &str| Secret::new(text.to_owned());
        let secrets = Secrets::new(&[secret("hush\"hush"), secret("12345678"), secret("tell")]);
        for (text, scrubbed) in [
            (r#"{"a":"x hush\"hush y"}"#, r#"{"a":"x [secret] y"}"#),
            (r#"{"hush\u0022h\u0075sh":[ null, 1.50]}"#, r#"{"[secret]":[ null, 1.50]}"#),
            (r#"[12345678, -1,"é\\"]"#, r#"["[secret]", -1,"é\\"]"#),
        ] {
            assert_eq!(secrets.scrub_json(text).as_deref(), Some(scrubbed), "{text}");
            serde_json::from_str::<serde_json::Value>(scrubbed).unwrap();
        }
        for text in [r#"{"a":"hush","b":1234567.8}"#, "null", r#""tel\"l""#, "\"", "\"\\"] {
            assert_eq!(secrets.scrub_json(text), None, "{text}");
        }
    }

    #[test]
    fn the_beginning_of_a_secret_goes_where_a_text_was_cut() {
        let secrets = Secrets::new(&[Secret::new("hush-hush".to_owned())]);
        for (cut, told) in [
            ("a hush-hu… (1)", "a [secret]… (1)"),
            ("a hush-hush… (1)", "a [secret]… (1)"),
            ("a hus… hush…", "a hus… [secret]…"),
            ("hush-hu nothing…", "hush-hu nothing…"),
            ("hush-hu", "hush-hu"),
        ] {
            assert_eq!(secrets.scrub_cut(cut), told, "{cut}");
        }
    }
}
