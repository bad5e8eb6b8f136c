//! Pure: removes secrets from texts for logs and answers.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Weak};

use crate::config::Secret;
use crate::config::secrets::is_token;
use crate::limits::{
    LEARNED_SECRETS_BYTES_MAX, LEARNED_SECRETS_MAX, LOG_SECRETS_BYTES_MAX, LOG_SECRETS_MAX,
};
use crate::protocol::raw;
use crate::sync::RwLock;

/// The text in a secret's place.
const MARK: &str = "[secret]";
/// Bytes below which a secret is not searched for: it would be found in every other word.
const SECRET_BYTES_MIN: usize = 4;

/// A URL without user, password, query and fragment, and without tokens in its path: these parts
/// carry secrets.
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

/// The sign at the end of a text that was cut.
const CUT: char = '…';

/// The configured secrets and those that were learned since, which are searched for in all texts.
/// They are the last line of defence: the code that writes a log line leaves secrets out by
/// itself.
#[derive(Debug, Default)]
pub struct Secrets {
    configured: Vec<Secret>,
    /// Values that are only guessed to be secrets.
    guessed: Vec<Secret>,
    /// The learned secrets, the newest last.
    learned: RwLock<VecDeque<Secret>>,
    in_use: RwLock<Vec<Weak<SecretsInUse>>>,
    room: Room,
}

/// The secrets that their owner sends at present, such as an access token. They make room for no
/// others as long as the owner holds them.
#[derive(Debug, Default)]
pub struct SecretsInUse(RwLock<Vec<Secret>>);

impl SecretsInUse {
    /// Takes these in place of the present ones, which it returns.
    pub fn replace(&self, secrets: &[Secret]) -> Vec<Secret> {
        std::mem::replace(&mut self.0.write(), long_ones(secrets))
    }
}

/// How much of learned secrets is kept.
#[derive(Debug, Clone, Copy)]
struct Room {
    secrets_max: usize,
    bytes_max: usize,
}

impl Default for Room {
    fn default() -> Room {
        Room { secrets_max: LEARNED_SECRETS_MAX, bytes_max: LEARNED_SECRETS_BYTES_MAX }
    }
}

/// The reader of a text, who decides which secrets are removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reader {
    /// A client: only certain secrets are removed from its texts.
    Client,
    /// A reader of the log or of `/status`, who misses nothing when a guess is wrong.
    Operator,
}

/// The secrets that are long enough to be told from other text.
fn long_ones(secrets: &[Secret]) -> Vec<Secret> {
    let long = |secret: &&Secret| secret.expose().len() >= SECRET_BYTES_MIN;
    secrets.iter().filter(long).cloned().collect()
}

impl Secrets {
    /// Takes the secrets that are long enough to be told from other text.
    pub fn new(secrets: &[Secret]) -> Secrets {
        Secrets { configured: long_ones(secrets), ..Secrets::default() }
    }

    /// Makes room for the learned secrets of all servers.
    pub fn for_all_servers(self) -> Secrets {
        let room = Room { secrets_max: LOG_SECRETS_MAX, bytes_max: LOG_SECRETS_BYTES_MAX };
        Secrets { room, ..self }
    }

    /// Replaces the configured secrets; those that were learned stay.
    pub fn configure(&mut self, secrets: &[Secret]) {
        self.configured = long_ones(secrets);
    }

    /// Takes guesses besides, which only [`Secrets::scrub_for_operator`] removes: a word that was
    /// wrongly guessed to be a secret must not be cut out of clients' texts.
    pub fn with_guesses(self, guessed: &[Secret]) -> Secrets {
        Secrets { guessed: long_ones(guessed), ..self }
    }

    /// Takes a secret that was not configured, such as a session's id. It stays when the session
    /// has ended, because then messages name it; the oldest make room.
    pub fn learn(&self, secret: Secret) {
        if secret.expose().len() < SECRET_BYTES_MIN || self.configured.contains(&secret) {
            return;
        }
        let mut learned = self.learned.write();
        if learned.contains(&secret) {
            return;
        }
        let n_bytes = secret.expose().len();
        if n_bytes > self.room.bytes_max {
            return;
        }
        let room = self.room.bytes_max - n_bytes;
        let sum = |of: &VecDeque<Secret>| of.iter().map(|it| it.expose().len()).sum::<usize>();
        while learned.len() >= self.room.secrets_max || sum(&learned) > room {
            learned.pop_front();
        }
        learned.push_back(secret);
    }

    /// Looks for the secrets, too, that an owner has in use.
    pub fn heed(&self, in_use: &Arc<SecretsInUse>) {
        let mut all = self.in_use.write();
        all.retain(|it| it.strong_count() > 0);
        all.push(Arc::downgrade(in_use));
    }

    /// Calls `look` with each secret that such a reader must not see.
    fn each(&self, reader: Reader, mut look: impl FnMut(&str)) {
        for in_use in self.in_use.read().iter().filter_map(Weak::upgrade) {
            in_use.0.read().iter().for_each(|secret| look(secret.expose()));
        }
        let learned = self.learned.read();
        let guessed = match reader {
            Reader::Client => &[],
            Reader::Operator => self.guessed.as_slice(),
        };
        let all = learned.iter().chain(&self.configured).chain(guessed);
        all.for_each(|secret| look(secret.expose()));
    }

    /// The ranges of secrets, in order and without overlaps: one secret may be a part of another,
    /// and no part of either is left.
    fn places(&self, text: &str, reader: Reader, end: End) -> Vec<Range<usize>> {
        let mut found: Vec<Range<usize>> = Vec::new();
        let in_text = BytesThere::of(text);
        self.each(reader, |secret| {
            // Most secrets begin with a byte that the text has not: these cost no search.
            if !in_text.may_have_beginning_of(secret) {
                return;
            }
            found.extend(text.match_indices(secret).map(|(at, it)| at..at + it.len()));
            if end == End::MayBeCut {
                let cuts = text.match_indices(CUT).map(|(at, _)| at);
                found.extend(cuts.filter_map(|cut| {
                    let n_bytes = begun_at_end(secret, text.get(..cut)?)?;
                    Some(cut - n_bytes..cut)
                }));
            }
        });
        found.sort_by_key(|place| place.start);
        let mut places: Vec<Range<usize>> = Vec::new();
        for place in found {
            match places.last_mut().filter(|last| place.start < last.end) {
                Some(last) => last.end = last.end.max(place.end),
                None => places.push(place),
            }
        }
        places
    }

    fn without<'a>(&self, text: &'a str, reader: Reader, end: End) -> Cow<'a, str> {
        let places = self.places(text, reader, end);
        if places.is_empty() {
            return Cow::Borrowed(text);
        }
        let (mut out, mut from) = (String::with_capacity(text.len()), 0);
        for place in places {
            out.push_str(text.get(from..place.start).unwrap_or_default());
            out.push_str(MARK);
            from = place.end;
        }
        out.push_str(text.get(from..).unwrap_or_default());
        Cow::Owned(out)
    }

    /// The text without any of the secrets.
    pub fn scrub<'a>(&self, text: &'a str) -> Cow<'a, str> {
        self.without(text, Reader::Client, End::IsWhole)
    }

    /// [`Secrets::scrub`] for a text that may have been cut: also without the beginning of a
    /// secret whose end was cut off.
    pub fn scrub_cut<'a>(&self, text: &'a str) -> Cow<'a, str> {
        self.without(text, Reader::Client, End::MayBeCut)
    }

    /// [`Secrets::scrub_cut`] for the log and `/status`: without guesses too.
    pub fn scrub_for_operator<'a>(&self, text: &'a str) -> Cow<'a, str> {
        self.without(text, Reader::Operator, End::MayBeCut)
    }

    /// A JSON text without any of the secrets, in any spelling of its strings. None where it has
    /// none.
    pub fn scrub_json(&self, text: &str) -> Option<String> {
        let mut n_secrets = 0;
        self.each(Reader::Client, |_| n_secrets += 1);
        if n_secrets == 0 {
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
                // A number may be a secret too; a string may stand wherever a number does.
                Cow::Owned(scrubbed) => {
                    found = true;
                    raw::push_string(&mut out, &scrubbed);
                }
                Cow::Borrowed(_) => out.push_str(token),
            }
        }
        found.then_some(out)
    }
}

/// The bytes that a text has, each at any place.
struct BytesThere([bool; 256]);

impl BytesThere {
    fn of(text: &str) -> BytesThere {
        let mut there = [false; 256];
        for byte in text.bytes() {
            if let Some(place) = there.get_mut(usize::from(byte)) {
                *place = true;
            }
        }
        BytesThere(there)
    }

    /// False if the text has not even the shortest beginning of a secret that is searched for.
    fn may_have_beginning_of(&self, secret: &str) -> bool {
        let mut beginning = secret.bytes().take(SECRET_BYTES_MIN);
        beginning.all(|byte| self.0.get(usize::from(byte)).is_some_and(|it| *it))
    }
}

/// The end of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The writer's own end.
    IsWhole,
    /// Maybe a cut, marked with [`CUT`].
    MayBeCut,
}

/// Bytes of the longest beginning of the secret that `text` ends with.
fn begun_at_end(secret: &str, text: &str) -> Option<usize> {
    let ends = (SECRET_BYTES_MIN..secret.len()).rev();
    ends.into_iter().find(|end| secret.get(..*end).is_some_and(|it| text.ends_with(it)))
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

/// The beginning of a foreign text, at most `chars_max` characters, on one line and without
/// control characters: for texts that the gateway itself writes.
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
            ("https://h/my-team-name-2025/mcp", "https://h/my-team-name-2025/mcp"),
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
    fn of_secrets_that_overlap_nothing_is_left_whichever_was_known_first() {
        let secret = |text: &str| Secret::new(text.to_owned());
        let secrets = Secrets::new(&[secret("abcd-1234-wxyz"), secret("wxyz9876")]);
        secrets.learn(secret("1234"));
        assert_eq!(secrets.scrub("x abcd-1234-wxyz, 1234"), "x [secret], [secret]");
        assert_eq!(secrets.scrub("abcd-1234-wxyz9876"), "[secret]");
        assert_eq!(secrets.scrub_cut("at abcd-1234-wx… (1)"), "at [secret]… (1)");
    }

    #[test]
    fn a_guess_is_hidden_from_the_log_and_left_in_what_clients_are_told() {
        let secret = |text: &str| Secret::new(text.to_owned());
        let secrets =
            Secrets::new(&[secret("hush-hush")]).with_guesses(&[secret("my-team-name")]);
        let text = "my-team-name says hush-hush";
        assert_eq!(secrets.scrub(text), "my-team-name says [secret]");
        assert_eq!(secrets.scrub_cut("of my-team…"), "of my-team…");
        assert_eq!(secrets.scrub_json(r#"["my-team-name"]"#), None);
        assert_eq!(secrets.scrub_for_operator(text), "[secret] says [secret]");
        assert_eq!(secrets.scrub_for_operator("of my-team…"), "of [secret]…");
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
    fn what_is_in_use_goes_however_much_is_learned_until_it_is_replaced() {
        let (secrets, in_use) = (Secrets::default(), Arc::new(SecretsInUse::default()));
        let secret = |text: &str| Secret::new(text.to_owned());
        secrets.heed(&in_use);
        assert!(in_use.replace(&[secret("token-1"), secret("x")]).is_empty());
        (0..=LEARNED_SECRETS_MAX).for_each(|n| secrets.learn(secret(&format!("other-{n}"))));
        assert_eq!(secrets.scrub("x token-1 other-0"), "x [secret] other-0");
        assert_eq!(in_use.replace(&[secret("token-2")]), [secret("token-1")]);
        assert_eq!(secrets.scrub("token-1 token-2"), "token-1 [secret]");
        drop(in_use);
        assert_eq!(secrets.scrub("token-2"), "token-2");
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
