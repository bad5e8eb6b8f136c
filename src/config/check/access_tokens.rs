//! Checks `oauth`: the issuers whose access tokens clients may use, and the rules.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::key_globs::Holder;
use super::rights;
use crate::config::file::RawServer;
use crate::config::file::access_tokens::{
    RawAccessTokens, RawIntrospection, RawIssuer, RawRule,
};
use crate::config::file::reader::{Reader, Text, Wanted};
use crate::config::{
    ClaimConfig, IntrospectionConfig, IssuerConfig, Naming, OAuthConfig, PublicUrl, RuleConfig,
    Secret, syntax,
};
use crate::oauth::issuer_name::issuer_name;
use crate::oauth::web_url::WebUrl;

/// The endpoint of which the audience is made where none is configured.
const AUDIENCE_PATH: &str = "/mcp";

/// Checks everything of `oauth`, and notes every problem.
pub(super) fn check(
    reader: &Reader<'_>,
    raw: &RawAccessTokens,
    public_url: Option<&PublicUrl>,
    servers: &[RawServer],
    naming: &Naming,
) -> OAuthConfig {
    check_names(reader, &raw.issuers);
    if raw.rules.is_empty() {
        reader.warn(&raw.at, "has no rule, so that nobody who signs in may do anything");
    }
    if public_url.is_none() && raw.issuers.iter().any(|issuer| issuer.audience.is_some()) {
        let what = "stands without a \"public_url\": clients that ask for a token for the address \
                    that they use (RFC 8707) get one whose audience does not count, unless the \
                    issuer makes it for \"audience\" all the same";
        reader.warn(&raw.at, what);
    }
    for (number, rule) in raw.rules.iter().enumerate() {
        if rule.claim.is_none() && rule.any.is_none() && number + 1 < raw.rules.len() {
            let what = "is about every token, so that no rule behind it ever counts";
            reader.warn(&rule.at, what);
        }
    }
    warn_of_several_introspections(reader, &raw.issuers);
    let issuers = raw.issuers.iter();
    let rules = raw.rules.iter();
    OAuthConfig {
        issuers: issuers.filter_map(|it| check_issuer(reader, it, public_url)).collect(),
        rules: rules.map(|it| check_rule(reader, it, servers, naming)).collect(),
        jwks_max_age: Duration::from_millis(raw.jwks_max_age_ms),
    }
}

/// Warns where opaque tokens of one issuer are shown to another one, which could use them.
fn warn_of_several_introspections(reader: &Reader<'_>, issuers: &[RawIssuer]) {
    let introspect = issuers.iter().filter_map(|it| it.introspection.as_ref());
    let mut before: Option<&str> = None;
    for introspection in introspect {
        if let Some(before) = before {
            let what = format!(
                "a token that is no JWT does not say whose it is, so that {before} is shown those \
                 of this issuer first, and could use them"
            );
            reader.warn(&introspection.at, what);
        }
        before = Some(&introspection.at);
    }
}

/// Checks that issuers differ, and the names of their users with them: servers know users by these.
fn check_names(reader: &Reader<'_>, issuers: &[RawIssuer]) {
    let mut first: HashMap<Arc<str>, (&str, &str)> = HashMap::new();
    for issuer in issuers {
        let is_url = |text: &&Text| WebUrl::parse(&text.value).is_ok();
        let Some(text) = issuer.issuer.as_ref().filter(is_url) else { continue };
        let name = issuer_name(&text.value);
        let this = (text.value.as_str(), issuer.at.as_str());
        let Some((other, other_at)) = first.insert(name.clone(), this) else { continue };
        let what = if other == text.value {
            format!("is that of {other_at} too")
        } else {
            format!(
                "has the name {name}, which that of {other_at} has too: nobody could tell \
                     their users apart"
            )
        };
        reader.problem(format!("{}/issuer", issuer.at), what);
    }
}

fn check_issuer(
    reader: &Reader<'_>,
    raw: &RawIssuer,
    public_url: Option<&PublicUrl>,
) -> Option<IssuerConfig> {
    let issuer = raw.issuer.as_ref()?;
    secure_url(reader, &format!("{}/issuer", raw.at), issuer, Query::Refused);
    if let Some(uri) = &raw.jwks_uri {
        secure_url(reader, &format!("{}/jwks_uri", raw.at), uri, Query::Admitted);
    }
    for (at, client) in &raw.machine_clients {
        if client.value.is_empty() {
            reader.problem(at, "must not be empty");
        }
    }
    let audience = match (&raw.audience, public_url) {
        (Some(text), _) => {
            if text.value.is_empty() || text.value.chars().any(char::is_control) {
                let at = format!("{}/audience", raw.at);
                reader.problem(at, "must not be empty or hold control characters");
            }
            text.value.clone()
        }
        (None, Some(url)) => format!("{}{AUDIENCE_PATH}", url.as_str()),
        (None, None) => {
            let what = "has no \"audience\", the name of the gateway in tokens, and there is no \
                        \"public_url\" of which to make one";
            reader.problem(&raw.at, what);
            return None;
        }
    };
    Some(IssuerConfig {
        issuer: issuer.value.clone(),
        audience,
        // Tokens for a bare origin may be for anything that is served there. They count only where
        // nobody has said what the gateway is called in tokens, because its metadata say so then.
        base: public_url.map(|url| match &raw.audience {
            Some(_) if url.path().is_empty() => format!("{}/", url.as_str()),
            Some(_) | None => url.as_str().to_owned(),
        }),
        jwks_uri: raw.jwks_uri.as_ref().map(|uri| uri.value.clone()),
        ca_file: raw
            .ca_file
            .as_ref()
            .map(|path| reader.path_of(&format!("{}/ca_file", raw.at), path, Wanted::File)),
        machine_clients: raw.machine_clients.iter().map(|(_, it)| it.value.clone()).collect(),
        introspection: raw.introspection.as_ref().and_then(|it| introspection(reader, it)),
    })
}

fn introspection(reader: &Reader<'_>, raw: &RawIntrospection) -> Option<IntrospectionConfig> {
    for (key, text) in [("client_id", &raw.client_id), ("client_secret", &raw.client_secret)] {
        if text.as_ref().is_some_and(|text| text.value.is_empty()) {
            reader.problem(format!("{}/{key}", raw.at), "must not be empty");
        }
    }
    if let Some(endpoint) = &raw.endpoint {
        secure_url(reader, &format!("{}/endpoint", raw.at), endpoint, Query::Admitted);
    }
    Some(IntrospectionConfig {
        client_id: raw.client_id.as_ref()?.value.clone(),
        client_secret: Secret::new(raw.client_secret.as_ref()?.value.clone()),
        endpoint: raw.endpoint.as_ref().map(|it| it.value.clone()),
        tokens: raw.tokens,
    })
}

fn check_rule(
    reader: &Reader<'_>,
    raw: &RawRule,
    servers: &[RawServer],
    naming: &Naming,
) -> RuleConfig {
    if raw.claim.as_ref().is_some_and(|claim| claim.value.is_empty()) {
        reader.problem(format!("{}/claim", raw.at), "must not be empty");
    }
    let wanted = (raw.servers.as_deref(), raw.tools.as_deref());
    let rights = rights::check(reader, Holder::Rule, &raw.at, wanted, servers, naming);
    let claim = raw.claim.as_ref().zip(raw.any.as_ref()).map(|(name, any)| ClaimConfig {
        name: name.value.clone(),
        any: any.iter().map(|(_, text)| text.value.clone()).collect(),
    });
    RuleConfig {
        claim,
        servers: rights.servers,
        tools: rights.tools,
        calls_per_minute: raw.calls_per_minute.and_then(|n| u32::try_from(n).ok()),
        admin: raw.admin,
    }
}

/// The rule for a query in a URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Query {
    Admitted,
    Refused,
}

/// Checks that keys and secrets travel encrypted, or on this machine alone.
fn secure_url(reader: &Reader<'_>, at: &str, text: &Text, query: Query) {
    let schemes = &["https://", "http://"];
    if let Err(what) = syntax::url(&text.value, schemes, syntax::Userinfo::Refused) {
        reader.problem(at, what);
        return;
    }
    if query == Query::Refused && text.value.contains('?') {
        // RFC 8414, section 2.
        reader.problem(at, "must not have a query");
    }
    match WebUrl::parse(&text.value) {
        Ok(url) if url.is_secure() => (),
        Ok(_) => {
            let what = "must begin with https://: without TLS anybody on the way could make \
                        keys; only a loopback address may do without";
            reader.problem(at, what);
        }
        Err(what) => reader.problem(at, what.to_string()),
    }
}
