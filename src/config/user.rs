//! Pure: a server's configuration for one user, where its credentials are each user's own.

use std::sync::Arc;

use super::{Credentials, Secret, Target, UpstreamConfig, syntax};
use crate::protocol::credentials::{
    Named, PerUser, UserCredentials, UserText, names_user, without_user,
};

/// The servers of a configuration that may be reached with users' own credentials.
pub fn per_user<'a>(configs: impl IntoIterator<Item = &'a UpstreamConfig>) -> PerUser {
    let mut per_user = PerUser::default();
    for config in configs {
        per_user.forwarding.push((config.name.clone(), config.forward_headers().to_vec()));
        let mut named = Named::default();
        for (_, value) in config.values_of_user() {
            UserText::parse(value.expose()).add_to(&mut named);
        }
        if config.is_per_user() {
            per_user.naming.push((config.name.clone(), Arc::new(named)));
        }
    }
    per_user
}

impl UpstreamConfig {
    /// True if the server can be reached only for a user: nobody connects to it before one calls.
    pub fn is_per_user(&self) -> bool {
        self.credentials == Credentials::PerUser || self.values_of_user().next().is_some()
    }

    /// The headers and variables whose values name the user.
    fn values_of_user(&self) -> impl Iterator<Item = &(String, Secret)> {
        let values = match &self.target {
            Target::Http(target) => &target.headers,
            Target::Stdio(target) => &target.env,
        };
        values.iter().filter(|(_, value)| names_user(value.expose()))
    }

    /// The names of the headers that clients may give for the server.
    pub fn forward_headers(&self) -> &[String] {
        match &self.target {
            Target::Http(target) => &target.forward_headers,
            Target::Stdio(_) => &[],
        }
    }

    /// True if the server may be reached with credentials of a user's own.
    pub fn may_be_per_user(&self) -> bool {
        self.is_per_user() || !self.forward_headers().is_empty()
    }

    /// True if this user reaches the server with credentials of its own.
    pub fn is_own_of(&self, user: &UserCredentials) -> bool {
        self.is_per_user() || user.headers_for(&self.name).next().is_some()
    }

    /// The configuration with which the server is reached for one user: with the headers that the
    /// user's client gives in place of configured ones, and with the user's name and claims.
    ///
    /// # Errors
    /// What is not known of the user, or cannot be sent; the text holds no secret.
    pub fn for_user(&self, user: &UserCredentials) -> Result<UpstreamConfig, String> {
        let mut config = self.clone();
        // Nothing but such a header makes the credentials the user's own.
        let is_only_forwarded = self.credentials == Credentials::PerUser
            && self.oauth().is_none()
            && self.values_of_user().next().is_none();
        let fits: fn(&str) -> bool = match &self.target {
            Target::Http(_) => |text| syntax::is_header_value(text.trim()),
            Target::Stdio(_) => |text| !text.contains('\0'),
        };
        let text_of = |name: &str, value: &Secret| -> Result<Secret, String> {
            if !names_user(value.expose()) {
                return Ok(value.clone());
            }
            let text = UserText::parse(value.expose()).of(user, fits);
            // A value that is nothing but the user's name or a claim is no secret.
            let is_told = without_user(value.expose()).trim().is_empty();
            let secret = if is_told { Secret::told } else { Secret::new };
            text.map(secret).map_err(|what| format!("{name}: {what}"))
        };
        match &mut config.target {
            Target::Http(target) => {
                let given: Vec<_> = user.headers_for(&self.name).collect();
                if given.is_empty() && is_only_forwarded {
                    let header = target.forward_headers.first().map(|it| it.to_lowercase());
                    let header = header.unwrap_or_default();
                    return Err(format!(
                        "each user brings its own credentials, and the caller gives no header \
                         x-mcp-{}-{header}",
                        self.name.as_str().to_lowercase()
                    ));
                }
                let is_given =
                    |name: &str| given.iter().any(|it| it.name.eq_ignore_ascii_case(name));
                target.headers.retain(|(name, _)| !is_given(name));
                for (name, value) in &mut target.headers {
                    *value = text_of(name, value)?;
                }
                let given = given.into_iter();
                let given = given.map(|it| (it.name.clone(), Secret::new(it.value.clone())));
                target.headers.extend(given);
                for (name, value) in &target.headers {
                    if !syntax::is_header_value(value.expose().trim()) {
                        return Err(format!(
                            "the header {name} would have characters that a header must not have"
                        ));
                    }
                }
            }
            Target::Stdio(target) => {
                for (name, value) in &mut target.env {
                    *value = text_of(name, value)?;
                }
            }
        }
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Overrides};

    #[test]
    fn what_a_user_brings_is_secret_and_what_a_user_is_called_is_not() {
        let text = r#"{"api_keys":[{"name":"k","key":"0123456789abcdef01234"}],"mcp_servers":{"a":{
            "url":"http://a/","forward_headers":["x-token"],"headers":{
                "X-User":"${user.name}","X-Signed":"top-secret-part/${user.name}","x-token":"all"
            }}}}"#;
        let config = Config::parse(text, &|_: &str| None, &Overrides::default()).unwrap();
        let server = &config.upstreams[0];
        let per_user = per_user(config.upstreams.iter().map(AsRef::as_ref));
        let user =
            UserCredentials { name: Some("alice-of-wonderland".into()), ..Default::default() };
        let fields = [("x-mcp-a-x-token", "token-of-alice-1")];
        let user = per_user.credentials(user, |_| None, fields).unwrap();
        let own = server.for_user(&user).unwrap();
        let secrets = own.secrets();
        let is_secret = |text: &str| secrets.iter().any(|secret| secret.expose() == text);
        assert!(is_secret("token-of-alice-1"));
        assert!(is_secret("top-secret-part/alice-of-wonderland"));
        assert!(!is_secret("alice-of-wonderland"));
        let Target::Http(target) = &own.target else { panic!("{own:?}") };
        let mut headers: Vec<_> = target
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.expose()))
            .collect();
        headers.sort_unstable();
        assert_eq!(
            headers,
            [
                ("X-Signed", "top-secret-part/alice-of-wonderland"),
                ("X-User", "alice-of-wonderland"),
                ("x-token", "token-of-alice-1"),
            ]
        );
        let foreign = [("x-mcp-a-x-token", "a\nb")];
        let foreign =
            per_user.credentials(UserCredentials::default(), |_| None, foreign).unwrap();
        assert!(server.for_user(&foreign).is_err());
    }
}
