//! Which values of a configuration must not come up in a log.

use super::{Config, HttpTarget, Secret, Target};

/// From this length on, a value that is not a secret by its place is taken for one. Shorter
/// ones are switches and numbers, whose removal would only blind the log.
const GUESSED_BYTES_MIN: usize = 8;

impl Config {
    /// Every secret of the configuration that may come near a log line.
    pub fn secrets(&self) -> Vec<Secret> {
        let mut secrets = Vec::new();
        for upstream in &self.upstreams {
            match &upstream.target {
                Target::Http(target) => of_http(target, &mut secrets),
                Target::Stdio(target) => {
                    let values = target.env.iter().map(|(_, value)| value.expose());
                    guess(&mut secrets, values);
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
    guess(secrets, target.url.split_once('?').map(|(_, query)| query));
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
