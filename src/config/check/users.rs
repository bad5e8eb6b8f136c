//! Warns of servers whose configuration names users, where nobody is known by what it names, and of
//! keys that have the name of a user.

use std::sync::Arc;

use super::super::file::RawConfig;
use super::super::file::reader::Reader;
use crate::oauth::issuer_name::issuer_name;
use crate::protocol::credentials::{Named, UserText};

/// `n_keys`: the number of keys.
pub(super) fn warn(reader: &Reader<'_>, raw: &RawConfig, n_keys: usize) {
    for server in raw.servers.iter().filter(|server| !server.disabled) {
        for (at, _, value) in server.headers.iter().chain(&server.env) {
            let mut named = Named::default();
            UserText::parse(value).add_to(&mut named);
            if !named.claims.is_empty() && raw.oauth.is_none() {
                let what = "names a claim of users' access tokens, which nobody has: no issuer is \
                            configured, so nobody can call this server";
                reader.warn(at, what);
            } else if named.name && raw.oauth.is_none() && n_keys == 0 {
                let what = "names the user, who has no name: neither keys nor issuers are \
                            configured, so nobody can call this server";
                reader.warn(at, what);
            }
        }
        if !server.forward_headers.is_empty() && raw.allow_anonymous && !raw.wants_credentials()
        {
            let at = format!("{}/forward_headers", server.at);
            let what = "with \"allow_anonymous\", whoever reaches the gateway can try any \
                        credentials at this server";
            reader.warn(at, what);
        }
    }
}

/// Warns of keys whose name could be that of an issuer's user, `SUBJECT@ISSUER`: servers, lines and
/// `/status` would take the one for the other.
pub(super) fn warn_of_namesakes(reader: &Reader<'_>, raw: &RawConfig) {
    let issuers = raw.oauth.iter().flat_map(|oauth| &oauth.issuers);
    let issuers = issuers.filter_map(|it| it.issuer.as_ref());
    let names: Vec<Arc<str>> = issuers.map(|text| issuer_name(&text.value)).collect();
    for key in &raw.api_keys {
        let Some(name) = &key.name else { continue };
        let is_of = |issuer: &&Arc<str>| {
            name.value.strip_suffix(&***issuer).is_some_and(|it| it.ends_with('@'))
        };
        if let Some(issuer) = names.iter().find(is_of) {
            let what = format!(
                "is how a user of the issuer {issuer} is named: servers that are told \
                 \"${{user.name}}\" could take one for the other"
            );
            reader.warn(format!("{}/name", key.at), what);
        }
    }
}
