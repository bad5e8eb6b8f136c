//! Warns of servers whose configuration names users, where nobody is known by what it names.

use super::super::file::RawConfig;
use super::super::file::reader::Reader;
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
