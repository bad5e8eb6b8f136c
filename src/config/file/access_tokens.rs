//! `oauth` as the file has it.

use super::json::Json;
use super::reader::{Fields, Text};
use super::{DAY_MS, Placed};
use crate::config::IntrospectedTokens;

/// The keys of `oauth`.
pub const ACCESS_TOKEN_KEYS: &[&str] = &["issuers", "rules", "jwks_max_age_ms"];

/// The keys of one element of `oauth.issuers`.
pub const ISSUER_KEYS: &[&str] =
    &["issuer", "audience", "jwks_uri", "ca_file", "machine_clients", "introspection"];

/// The keys of `introspection`.
pub const INTROSPECTION_KEYS: &[&str] = &["client_id", "client_secret", "endpoint", "tokens"];

/// The keys of one element of `oauth.rules`.
pub const RULE_KEYS: &[&str] =
    &["claim", "any", "servers", "tools", "calls_per_minute", "admin"];

/// The default of `jwks_max_age_ms`: an issuer may be down over a long weekend.
const JWKS_MAX_AGE_MS_DEFAULT: u64 = 3 * DAY_MS;
/// The longest such time.
const JWKS_MAX_AGE_MS_MAX: u64 = 90 * DAY_MS;

pub(crate) struct RawAccessTokens {
    pub(crate) at: String,
    pub(crate) issuers: Vec<RawIssuer>,
    pub(crate) rules: Vec<RawRule>,
    pub(crate) jwks_max_age_ms: u64,
}

pub(crate) struct RawIssuer {
    pub(crate) at: String,
    pub(crate) issuer: Option<Text>,
    pub(crate) audience: Option<Text>,
    pub(crate) jwks_uri: Option<Text>,
    pub(crate) ca_file: Option<Text>,
    pub(crate) machine_clients: Vec<Placed>,
    pub(crate) introspection: Option<RawIntrospection>,
}

pub(crate) struct RawIntrospection {
    pub(crate) at: String,
    pub(crate) client_id: Option<Text>,
    pub(crate) client_secret: Option<Text>,
    pub(crate) endpoint: Option<Text>,
    pub(crate) tokens: IntrospectedTokens,
}

pub(crate) struct RawRule {
    pub(crate) at: String,
    pub(crate) claim: Option<Text>,
    pub(crate) any: Option<Vec<Placed>>,
    pub(crate) servers: Option<Vec<Placed>>,
    pub(crate) tools: Option<Vec<Placed>>,
    pub(crate) calls_per_minute: Option<u64>,
    pub(crate) admin: bool,
}

/// Reads `oauth`. None where the file has none.
pub(crate) fn read(file: &Fields<'_>) -> Option<RawAccessTokens> {
    let oauth = file.object("oauth", ACCESS_TOKEN_KEYS)?;
    match oauth.get("issuers") {
        None => oauth.reader.problem(&oauth.at, "has no \"issuers\""),
        Some(list) if is_empty(list) => {
            let what = "is empty: nobody could sign in";
            oauth.reader.problem(oauth.at("issuers"), what);
        }
        Some(_) => (),
    }
    let issuers = elements(&oauth, "issuers", ISSUER_KEYS).map(|it| read_issuer(&it)).collect();
    let rules = elements(&oauth, "rules", RULE_KEYS).map(|it| read_rule(&it)).collect();
    let range = 1000..=JWKS_MAX_AGE_MS_MAX;
    let jwks_max_age_ms = oauth.number("jwks_max_age_ms", &range);
    Some(RawAccessTokens {
        issuers,
        rules,
        jwks_max_age_ms: jwks_max_age_ms.unwrap_or(JWKS_MAX_AGE_MS_DEFAULT),
        at: oauth.at,
    })
}

fn is_empty(json: &Json) -> bool {
    *json == Json::Array(Vec::new())
}

fn elements<'r>(
    of: &Fields<'r>,
    key: &str,
    keys: &'static [&'static str],
) -> impl Iterator<Item = Fields<'r>> {
    let reader = of.reader;
    let items = of.items(key).unwrap_or_default().into_iter();
    items.filter_map(move |(at, json)| reader.fields(&at, json, keys))
}

fn read_issuer(fields: &Fields<'_>) -> RawIssuer {
    if !fields.has("issuer") {
        fields.reader.problem(&fields.at, "has no \"issuer\"");
    }
    RawIssuer {
        at: fields.at.clone(),
        issuer: fields.text("issuer"),
        audience: fields.text("audience"),
        jwks_uri: fields.text("jwks_uri"),
        ca_file: fields.text("ca_file"),
        machine_clients: fields.texts("machine_clients").unwrap_or_default(),
        introspection: fields
            .object("introspection", INTROSPECTION_KEYS)
            .map(|it| read_introspection(&it)),
    }
}

fn read_introspection(fields: &Fields<'_>) -> RawIntrospection {
    for key in ["client_id", "client_secret"] {
        if !fields.has(key) {
            fields.reader.problem(&fields.at, format!("has no {key:?}"));
        }
    }
    let tokens = [("opaque", IntrospectedTokens::Opaque), ("all", IntrospectedTokens::All)];
    RawIntrospection {
        at: fields.at.clone(),
        client_id: fields.text("client_id"),
        client_secret: fields.text("client_secret"),
        endpoint: fields.text("endpoint"),
        tokens: fields.choice("tokens", &tokens).unwrap_or(IntrospectedTokens::Opaque),
    }
}

fn read_rule(fields: &Fields<'_>) -> RawRule {
    match (fields.has("claim"), fields.has("any")) {
        (true, false) => {
            fields.reader.problem(&fields.at, "has a \"claim\" and no \"any\": its values");
        }
        (false, true) => {
            fields.reader.problem(&fields.at, "has \"any\" and no \"claim\" that it is about");
        }
        (true, true) | (false, false) => (),
    }
    if fields.get("any").is_some_and(is_empty) {
        let what = "is empty, so that the rule is about no token";
        fields.reader.problem(fields.at("any"), what);
    }
    RawRule {
        at: fields.at.clone(),
        claim: fields.text("claim"),
        any: fields.texts("any"),
        servers: fields.texts("servers"),
        tools: fields.texts("tools"),
        calls_per_minute: fields.number("calls_per_minute", &(1..=u64::from(u32::MAX))),
        admin: fields.flag("admin", false),
    }
}
