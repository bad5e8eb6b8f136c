//! Pure: takes out of a text what must not stand in a log.

use std::borrow::Cow;

use crate::config::Secret;

/// What stands in a secret's place.
const MARK: &str = "[secret]";
/// Shorter secrets are not looked for: they would be found in every other word.
const SECRET_BYTES_MIN: usize = 4;

/// A URL without user, password, query and fragment: the parts in which secrets are carried.
pub fn url(text: &str) -> String {
    let end = text.find(['?', '#']).unwrap_or(text.len());
    let text = text.get(..end).unwrap_or("");
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    let authority_end = rest.find('/').unwrap_or(rest.len());
    let (authority, path) = rest.split_at(authority_end);
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    format!("{scheme}://{host}{path}")
}

/// The configured secrets, to be found wherever they come up. A last line of defence: what
/// writes a log line leaves secrets out by itself.
#[derive(Debug, Clone, Default)]
pub struct Secrets(Vec<Secret>);

impl Secrets {
    /// Takes the secrets that are long enough to be told from other text.
    pub fn new(secrets: &[Secret]) -> Secrets {
        let long = |secret: &&Secret| secret.expose().len() >= SECRET_BYTES_MIN;
        let mut secrets: Vec<_> = secrets.iter().filter(long).cloned().collect();
        // One may be part of another; the rest of the longer would be left.
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.expose().len()));
        Secrets(secrets)
    }

    /// The text without any of the secrets.
    pub fn scrub<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let mut text = Cow::Borrowed(text);
        for secret in &self.0 {
            if text.contains(secret.expose()) {
                text = Cow::Owned(text.replace(secret.expose(), MARK));
            }
        }
        text
    }
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
}
