//! Which values of a configuration must not come up in a log, nor in what anybody is told.

use super::{Config, HttpTarget, Secret, Target, UpstreamConfig};

/// From this length on, a value that is not a secret by its place is taken for one. Shorter
/// ones are switches and numbers, whose removal would only blind the log.
const GUESSED_BYTES_MIN: usize = 8;

impl Config {
    /// Every secret of the configuration that may come near a log line.
    pub fn secrets(&self) -> Vec<Secret> {
        let mut secrets = Vec::new();
        for upstream in &self.upstreams {
            let guessed = matches!(upstream.target, Target::Stdio(_));
            let theirs = upstream.secrets().into_iter();
            secrets.extend(theirs.filter(|it| !(guessed && self.names_folder(it.expose()))));
        }
        secrets
    }

    /// Whether a child's variable is only `state_dir` or a folder above it, which the
    /// gateway's own messages name.
    fn names_folder(&self, value: &str) -> bool {
        let is_path = value.starts_with('/');
        is_path && self.state_dir.as_ref().is_some_and(|path| path.starts_with(value))
    }
}

impl UpstreamConfig {
    /// Every secret that this upstream is given, and may therefore repeat.
    pub fn secrets(&self) -> Vec<Secret> {
        let mut secrets = Vec::new();
        match &self.target {
            Target::Http(target) => of_http(target, &mut secrets),
            Target::Stdio(target) => {
                for (_, value) in &target.env {
                    let value = value.expose();
                    guess(&mut secrets, [value]);
                    if value.contains('\n') {
                        // A key of several lines comes up line by line.
                        guess(&mut secrets, value.lines());
                    }
                }
            }
        }
        secrets
    }
}

fn of_http(target: &HttpTarget, secrets: &mut Vec<Secret>) {
    for (_, value) in &target.headers {
        // Of `Bearer TOKEN`, the token alone may come up too.
        if let Some((_, token)) = value.expose().rsplit_once(' ') {
            secrets.push(Secret::new(token.to_owned()));
        }
        secrets.push(value.clone());
    }
    // Some servers want their token in the URL.
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

fn guess<'a>(secrets: &mut Vec<Secret>, values: impl IntoIterator<Item = &'a str>) {
    let long = values.into_iter().filter(|value| value.len() >= GUESSED_BYTES_MIN);
    secrets.extend(long.map(|value| Secret::new(value.to_owned())));
}
