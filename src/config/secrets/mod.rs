//! The values of a configuration that must not appear in logs, nor in answers to clients.

pub(super) mod forms;

use super::{Config, Grant, HttpTarget, OAuthClientConfig, Secret, Target, UpstreamConfig};
use forms::with_forms;

/// Words in parts of a URL's path that are no secrets, besides names.
const PATH_WORDS: [&str; 48] = [
    "agent",
    "agents",
    "alpha",
    "api",
    "app",
    "apps",
    "beta",
    "client",
    "cloud",
    "connect",
    "connector",
    "connectors",
    "context",
    "data",
    "dev",
    "endpoint",
    "event",
    "events",
    "gateway",
    "http",
    "integration",
    "integrations",
    "internal",
    "latest",
    "mcp",
    "message",
    "messages",
    "model",
    "organization",
    "organizations",
    "platform",
    "preview",
    "prod",
    "production",
    "project",
    "projects",
    "protocol",
    "proxy",
    "public",
    "remote",
    "server",
    "servers",
    "service",
    "services",
    "sse",
    "staging",
    "streamable",
    "tools",
];
/// Letters of one case are no word from this length on.
const WORD_BYTES_MAX: usize = 12;
/// Mixed letters and digits are a token from this length on, in any place.
const TOKEN_BYTES_MIN: usize = 16;
/// The fewest changes between letters and digits in the pieces of a token, as [`n_changes`]
/// counts.
const TOKEN_CHANGES_MIN: usize = 3;

/// A value is guessed to be a secret from this length on. Shorter ones are switches and numbers,
/// whose removal would only blind the log.
const GUESSED_BYTES_MIN: usize = 8;

impl Config {
    /// Every secret of the configuration that may come near a log line, also the guessed ones.
    pub fn secrets(&self) -> Vec<Secret> {
        let mut secrets = Vec::new();
        let to_collector = self.otlp.iter().flat_map(|otlp| &otlp.headers);
        secrets.extend(to_collector.map(|(_, value)| value.clone()));
        let issuers = self.oauth.iter().flat_map(|oauth| &oauth.issuers);
        let introspection = issuers.filter_map(|issuer| issuer.introspection.as_ref());
        secrets.extend(introspection.map(|it| it.client_secret.clone()));
        for upstream in &self.upstreams {
            let guessed = matches!(upstream.target, Target::Stdio(_));
            let theirs = upstream.secrets().into_iter().chain(upstream.guessed_secrets());
            let is_known = |text: &str| {
                guessed && self.names_folder(text) || !guessed && self.names_server(text)
            };
            secrets.extend(theirs.filter(|it| !is_known(it.expose())));
        }
        secrets
    }

    /// True if a part of a URL is only the name of a server, which every other line has.
    fn names_server(&self, text: &str) -> bool {
        let is_same = |name: &str| name.eq_ignore_ascii_case(text);
        self.upstreams.iter().any(|server| {
            is_same(server.name.as_str()) || server.alias.as_deref().is_some_and(is_same)
        })
    }

    /// True if a child's variable is only `state_dir` or a folder above it, which the gateway's
    /// own messages name.
    fn names_folder(&self, value: &str) -> bool {
        let is_path = value.starts_with('/');
        is_path && self.state_dir.as_ref().is_some_and(|path| path.starts_with(value))
    }
}

impl UpstreamConfig {
    /// Every secret that this server is given, and may therefore repeat: only certain ones, so
    /// that nothing else is removed from its messages to clients.
    pub fn secrets(&self) -> Vec<Secret> {
        let mut secrets = Vec::new();
        match &self.target {
            Target::Http(target) => {
                of_http(target, &mut secrets);
                secrets.extend(self.in_path(target).0);
            }
            Target::Stdio(target) => {
                for (_, value) in target.env.iter().filter(|(_, value)| !value.is_told()) {
                    let value = value.expose();
                    guess(&mut secrets, [value]);
                    if value.contains('\n') {
                        // A key of several lines comes up line by line.
                        guess(&mut secrets, value.lines());
                    }
                }
            }
        }
        with_forms(secrets)
    }

    /// Guessed secrets, which are removed from the log and `/status` only.
    pub fn guessed_secrets(&self) -> Vec<Secret> {
        match &self.target {
            Target::Http(target) => self.in_path(target).1,
            Target::Stdio(_) => Vec::new(),
        }
    }

    fn in_path(&self, target: &HttpTarget) -> (Vec<Secret>, Vec<Secret>) {
        of_path(&target.url, &[self.name.as_str(), self.alias.as_deref().unwrap_or_default()])
    }
}

fn of_http(target: &HttpTarget, secrets: &mut Vec<Secret>) {
    for (name, value) in target.headers.iter().filter(|(_, value)| !value.is_told()) {
        secrets.extend(forms::of_header(name, value.expose()));
        secrets.push(value.clone());
    }
    if let Some(oauth) = &target.oauth {
        of_oauth(oauth, secrets);
    }
    // Some servers take their token in the URL.
    let query = target.url.split_once('?').map_or("", |(_, query)| query);
    guess(secrets, [query]);
    guess(secrets, query.split('&').filter_map(|pair| pair.split_once('=')).map(|(_, it)| it));
    if let Some(proxy) = &target.proxy {
        let userinfo = proxy.expose().rsplit_once('@').map_or("", |(before, _)| before);
        let userinfo = userinfo.split_once("://").map_or("", |(_, userinfo)| userinfo);
        let password = userinfo.split_once(':').map(|(_, password)| password);
        secrets.extend(password.map(|password| Secret::new(password.to_owned())));
    }
}

/// The secrets of an OAuth client. Its private key and its assertion stand in files of their own.
fn of_oauth(oauth: &OAuthClientConfig, secrets: &mut Vec<Secret>) {
    let mut add = |id: &Option<String>, secret: &Option<Secret>| {
        if let (Some(id), Some(secret)) = (id, secret) {
            secrets.push(secret.clone());
            secrets.push(forms::basic(id, secret.expose()));
        }
    };
    add(&oauth.client_id, &oauth.client_secret);
    match &oauth.grant {
        Grant::JwtBearer(bearer) => {
            if let Some(provider) = &bearer.identity_provider {
                add(&provider.client_id, &provider.client_secret);
            }
        }
        Grant::AuthorizationCode | Grant::ClientCredentials => (),
    }
}

/// Secrets in a URL's path, in which many a hosted server has its token. Returns the parts that
/// are tokens, and those that are guessed because they are neither listed words nor names: other
/// words are among these, and so they are hidden from the log only. Listed words and names stay,
/// because the log would be blinded without them.
fn of_path(url: &str, names: &[&str]) -> (Vec<Secret>, Vec<Secret>) {
    let (mut tokens, mut guesses) = (Vec::new(), Vec::new());
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let end = rest.find(['?', '#']).unwrap_or(rest.len());
    let (host, path) =
        rest.get(..end).and_then(|rest| rest.split_once('/')).unwrap_or_default();
    let names: Vec<String> =
        names.iter().chain([&host]).map(|name| name.to_ascii_lowercase()).collect();
    let is_name = |piece: &str| {
        let piece = piece.to_ascii_lowercase();
        let mut pieces = names.iter().flat_map(|name| name.split(is_joint));
        names.contains(&piece) || pieces.any(|known| known == piece)
    };
    for part in path.split('/').filter(|part| !is_name(part)) {
        let mut pieces = part.split(is_joint);
        let is_one = pieces.clone().count() == 1;
        let is_plain = |piece: &str| {
            let is_letters = piece.bytes().skip(1).all(|byte| byte.is_ascii_lowercase())
                && piece.bytes().take(1).all(|byte| byte.is_ascii_alphabetic());
            let is_listed = PATH_WORDS.contains(&&*piece.to_ascii_lowercase());
            let digits = piece.trim_start_matches('v');
            let is_number = digits.len() <= 4 && digits.bytes().all(|it| it.is_ascii_digit());
            is_listed
                || is_number
                || is_name(piece)
                || is_one && is_letters && piece.len() < WORD_BYTES_MAX
        };
        if is_token(part) {
            guess(&mut tokens, [part]);
        } else if !pieces.all(is_plain) {
            guess(&mut guesses, [part]);
        }
    }
    (tokens, guesses)
}

/// True for a character that joins words in a part of a path.
fn is_joint(c: char) -> bool {
    matches!(c, '-' | '_' | '.' | '~' | ':')
}

/// True if a part of a URL's path is a token. Letters and digits are mixed in it as in no words:
/// `team-2-prod1` is none, however long such a part is.
pub fn is_token(part: &str) -> bool {
    let is_mixed = |piece: &str| {
        let has = |kind: fn(&u8) -> bool| piece.as_bytes().iter().any(kind);
        has(u8::is_ascii_digit) && has(u8::is_ascii_alphabetic)
    };
    let is_long = |text: &str| text.len() >= TOKEN_BYTES_MIN;
    // An escape is mostly a space or a letter of another language.
    let pieces = || part.split(|c| is_joint(c) || c == '%').filter(|piece| is_mixed(piece));
    let n_changes: usize = pieces().map(n_changes).sum();
    is_long(part) && n_changes >= TOKEN_CHANGES_MIN || pieces().any(is_long)
}

/// The number of changes between letters, digits and capitals in a piece, beyond the one change
/// of a word with a number.
fn n_changes(piece: &str) -> usize {
    let is_change = |pair: &&[u8]| match pair {
        [a, b] => {
            a.is_ascii_digit() != b.is_ascii_digit()
                || a.is_ascii_lowercase() && b.is_ascii_uppercase()
        }
        _ => false,
    };
    piece.as_bytes().windows(2).filter(is_change).count().saturating_sub(1)
}

/// Possible tokens in a reference to the endpoint for a session's messages.
pub fn in_reference(reference: &str) -> Vec<Secret> {
    let (path, query) = reference.split_once('?').unwrap_or((reference, ""));
    let mut secrets = Vec::new();
    guess(&mut secrets, query.split('&').filter_map(|pair| Some(pair.split_once('=')?.1)));
    guess(&mut secrets, path.split('/').filter(|part| is_token(part)));
    secrets
}

/// A session's id, unless it is so short that it would be found in other words.
pub fn session_id(id: &str) -> Option<Secret> {
    let mut secrets = Vec::new();
    guess(&mut secrets, [id]);
    secrets.pop()
}

fn guess<'a>(secrets: &mut Vec<Secret>, values: impl IntoIterator<Item = &'a str>) {
    let long = values.into_iter().filter(|value| value.len() >= GUESSED_BYTES_MIN);
    secrets.extend(long.map(|value| Secret::new(value.to_owned())));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(url: &str, names: &[&str]) -> [Vec<String>; 2] {
        let (tokens, guesses) = of_path(url, names);
        [tokens, guesses]
            .map(|them| them.iter().map(|secret| secret.expose().to_owned()).collect())
    }

    #[test]
    fn a_token_in_a_path_is_told_from_words_and_names() {
        for (url, token) in [
            (
                "https://h/0b1c2d3e-aaaa-bbbb-cccc-0123456789ab/sse",
                "0b1c2d3e-aaaa-bbbb-cccc-0123456789ab",
            ),
            ("https://h/s/9f86d081884c7d65/my-team-name", "9f86d081884c7d65"),
            ("https://h/abcdefgh01234567", "abcdefgh01234567"),
        ] {
            assert_eq!(found(url, &["s"])[0], [token], "{url}");
        }
        for (url, guess) in [
            ("https://h/api/mcp/s/NTY4YzQ5ZTYtZjI/mcp", "NTY4YzQ5ZTYtZjI"),
            ("https://h/sekrit-in-path/mcp?x=1", "sekrit-in-path"),
            ("https://h/my-team-name/mcp", "my-team-name"),
            ("https://h/team-2-europe-prod1-2025/mcp", "team-2-europe-prod1-2025"),
            ("https://h/allinlowercase/mcp", "allinlowercase"),
            ("https://h/key%20with%20space", "key%20with%20space"),
        ] {
            assert_eq!(found(url, &["s"]), [vec![], vec![guess.to_owned()]], "{url}");
        }
        for url in [
            "https://h",
            "https://h/mcp",
            "https://h/streamable-http/v1.2/mcp-server/messages/",
            "https://h/customers/Tools/2025-11",
            "https://mcp.weatherly.example/weatherly-mcp/my-files",
        ] {
            assert!(found(url, &["my-files"]).concat().is_empty(), "{url}");
        }
    }

    #[test]
    fn a_session_s_reference_is_taken_apart() {
        let found = |reference: &str| {
            let secrets = in_reference(reference);
            secrets.iter().map(|secret| secret.expose().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(found("/mcp/sse/messages?session_id=0123456789&v=1"), ["0123456789"]);
        assert_eq!(found("/messages/0123456789abcdef0"), ["0123456789abcdef0"]);
        assert!(session_id("s-1").is_none() && session_id("0123456789").is_some());
    }
}
