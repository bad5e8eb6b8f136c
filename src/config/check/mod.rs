//! Checks the file's values together, and makes a [`Config`] of them.

mod access_tokens;
pub(super) mod bounds;
pub(super) mod key_globs;
pub(super) mod oauth;
pub(super) mod proxies;
pub(super) mod public_url;
pub(super) mod rights;
pub(super) mod server;
mod users;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::file::reader::{Reader, Text};
use super::file::{Placed, RawConfig, RawSecret, RawServer};
use super::{
    ApiKey, Config, Listen, Naming, Overrides, PublicUrl, TrustedProxy, base64, syntax,
};
use crate::protocol::quirks::Tolerance;
use crate::protocol::server_name::ServerName;
use key_globs::Holder;
use rights::Rights;

/// A key of fewer characters can be found by trying.
const KEY_BYTES_MIN: usize = 16;
/// Bytes of the longest separator.
const SEPARATOR_BYTES_MAX: usize = 8;
/// Permissions of a Unix socket: for its owner and the owner's group.
const SOCKET_MODE_DEFAULT: u32 = 0o660;

/// Checks everything, and notes every problem. The result is usable only if none was noted.
pub(super) fn check(
    reader: &Reader<'_>,
    raw: RawConfig,
    overrides: &Overrides,
) -> Option<Config> {
    let listen = check_listen(reader, &raw, overrides);
    let socket_mode = check_socket_mode(reader, raw.socket_mode.as_ref());
    let socket_group = check_socket_group(reader, raw.socket_group.as_ref());
    let public_url = check_public_url(reader, raw.public_url.as_ref());
    let trusted_proxies = check_proxies(reader, &raw.trusted_proxies);
    let admin_listen = check_admin_listen(reader, &raw);
    let allowed_origins = lowercase(reader, &raw.allowed_origins, |text| {
        (!syntax::is_origin(text)).then_some("must be a scheme and a host without a path")
    });
    let allowed_hosts = raw.allowed_hosts.as_ref().map(|hosts| {
        lowercase(reader, hosts, |text| {
            (!syntax::is_host_and_port(text)).then_some("must be a host, or a host and a port")
        })
    });
    let separator = check_separator(reader, &raw);
    bounds::check(reader, &raw.limits);
    let session_key = raw.session_key.as_ref().and_then(|text| check_session_key(reader, text));
    let state_dir = raw.state_dir.as_ref().map(|path| check_state_dir(reader, path));
    check_names(reader, &raw.servers);
    let naming = naming(&raw, separator);
    let api_keys = check_keys(reader, &raw, &naming);
    let oauth = raw.oauth.as_ref();
    let oauth = oauth.map(|oauth| {
        access_tokens::check(reader, oauth, public_url.as_ref(), &raw.servers, &naming)
    });
    // Users are many, like keys.
    let n_principals = api_keys.len() + if oauth.is_some() { 2 } else { 0 };
    bounds::warn(reader, &raw.limits, n_principals);
    warn_of_anonymous(reader, &raw);
    warn_of_unknown_address(reader, &raw, listen.as_ref());
    users::warn(reader, &raw, api_keys.len());
    users::warn_of_namesakes(reader, &raw);
    let around = oauth::Around {
        has_state_dir: raw.state_dir.is_some(),
        browsers_come_back: browsers_come_back(&raw, public_url.as_ref(), listen.as_ref()),
    };
    let checked = |server| server::check(reader, server, around).map(Arc::new);
    let upstreams: Vec<_> = raw.servers.into_iter().filter_map(checked).collect();
    if upstreams.is_empty() {
        reader.warn(
            raw.servers_at,
            "no server is configured that is not disabled: there is nothing to serve",
        );
    }
    Some(Config {
        listen: listen?,
        socket_mode,
        socket_group,
        public_url,
        admin_listen,
        otlp: raw.otlp,
        trusted_proxies,
        api_keys,
        oauth,
        allowed_origins,
        allowed_hosts,
        allow_anonymous: raw.allow_anonymous,
        tolerance: if raw.strict_clients { Tolerance::Nothing } else { Tolerance::Known },
        transports: raw.transports,
        naming,
        upstreams,
        limits: raw.limits,
        session_key,
        first_list: Duration::from_millis(raw.first_list_ms),
        watch: raw.watch,
        state_dir,
        log: raw.log,
        // The reader keeps the warnings until the end.
        warnings: Vec::new(),
    })
}

/// The text between a server's name and an item's.
fn check_separator<'a>(reader: &Reader<'_>, raw: &'a RawConfig) -> &'a str {
    let separator = raw.separator.as_ref().map_or("-", |text| text.value.as_str());
    if !syntax::is_name_part(separator) || separator.len() > SEPARATOR_BYTES_MAX {
        let what = format!(
            "must be 1 to {SEPARATOR_BYTES_MAX} letters, digits, \"_\", \"-\" or \".\""
        );
        reader.problem("/prefix_separator", what);
    }
    separator
}

fn warn_of_anonymous(reader: &Reader<'_>, raw: &RawConfig) {
    if raw.allow_anonymous && raw.wants_credentials() {
        let what = "has no effect where keys or issuers are configured: who has neither a key \
                    nor a token is not admitted";
        reader.warn("/allow_anonymous", what);
    }
}

/// Where `Host` is not checked, clients' own word for the gateway's address counts for nothing.
fn warn_of_unknown_address(reader: &Reader<'_>, raw: &RawConfig, listen: Option<&Listen>) {
    let is_known = raw.public_url.is_some()
        || raw.allowed_hosts.is_some()
        || listen.is_none_or(Listen::is_local);
    if raw.oauth.is_some() && !is_known {
        let what = "is used beyond this machine without \"public_url\" and \"allowed_hosts\": \
                    the gateway does not know by which URL clients have it, so that they may not \
                    find out where to sign in, and DPoP proofs for other URLs than that of \
                    \"listen\" are refused";
        reader.warn("/oauth", what);
    }
}

fn check_listen(reader: &Reader<'_>, raw: &RawConfig, overrides: &Overrides) -> Option<Listen> {
    let listen = match (&overrides.listen, &raw.listen) {
        (Some(listen), _) => Some(listen.clone()),
        (None, None) => Some(Listen::DEFAULT),
        (None, Some(text)) => {
            let listen = Listen::parse(&text.value);
            if listen.is_none() {
                let like = Listen::of_words(&text.value)
                    .map(|like| format!("; did you mean \"{like}\"?"))
                    .unwrap_or_default();
                let what = format!("not an address and port: {:?}{like}", text.written);
                reader.problem("/listen", what);
            }
            listen
        }
    }?;
    if !listen.is_local() && !raw.wants_credentials() && !raw.allow_anonymous {
        reader.problem(
            "/listen",
            "others than this machine can reach this address, and there are no api_keys and \
             no oauth; \"allow_anonymous\": true admits everybody",
        );
    }
    Some(listen)
}

/// True if a browser of this machine can reach the address: a Unix socket it cannot.
fn is_loopback(listen: &Listen) -> bool {
    match listen {
        Listen::Tcp(address) => address.ip().is_loopback(),
        Listen::Unix(_) => false,
    }
}

fn check_session_key(reader: &Reader<'_>, text: &Text) -> Option<[u8; 32]> {
    let key = base64::decode(&text.value).and_then(|bytes| bytes.try_into().ok());
    if key.is_none() {
        reader.problem("/session_key", "must be 32 bytes in base64");
    }
    key
}

fn check_state_dir(reader: &Reader<'_>, path: &Text) -> PathBuf {
    if path.value.is_empty() || path.value.contains('\0') {
        reader.problem("/state_dir", "must not be empty or hold a null character");
    }
    reader.path("/state_dir", path)
}

fn check_admin_listen(reader: &Reader<'_>, raw: &RawConfig) -> Option<Listen> {
    let text = raw.admin_listen.as_ref()?;
    let Some(listen) = Listen::parse(&text.value) else {
        let what = format!("not an address and port: {:?}", text.written);
        reader.problem("/admin_listen", what);
        return None;
    };
    if !listen.is_local() && !raw.wants_credentials() {
        reader.problem(
            "/admin_listen",
            "others than this machine can reach this address, and there are neither api_keys nor oauth: \
             a key or a rule with \"admin\": true would be asked for",
        );
    }
    Some(listen)
}

/// Permissions in octal digits, as `chmod` takes them.
fn check_socket_mode(reader: &Reader<'_>, text: Option<&Text>) -> u32 {
    let Some(text) = text else { return SOCKET_MODE_DEFAULT };
    let digits = text.value.bytes().all(|digit| matches!(digit, b'0'..=b'7'));
    let mode = u32::from_str_radix(&text.value, 8).ok().filter(|_| digits);
    match mode.filter(|mode| *mode <= 0o777 && matches!(text.value.len(), 3 | 4)) {
        Some(mode) if mode & 0o222 == 0 => {
            reader.problem("/socket_mode", "nobody could connect: nobody may write");
            mode
        }
        Some(mode) => mode,
        None => {
            let what = "must be permissions in octal digits, as \"0660\"";
            reader.problem("/socket_mode", format!("{what}: {:?}", text.written));
            SOCKET_MODE_DEFAULT
        }
    }
}

fn check_socket_group(reader: &Reader<'_>, text: Option<&Text>) -> Option<String> {
    let group = &text?.value;
    if group.is_empty() || group.contains([':', '\n', '\0']) {
        reader.problem("/socket_group", "must be the name or the number of a group");
    }
    Some(group.clone())
}

/// True if the answers of authorization servers can reach the gateway by way of browsers.
fn browsers_come_back(
    raw: &RawConfig,
    public_url: Option<&PublicUrl>,
    listen: Option<&Listen>,
) -> bool {
    match (&raw.public_url, public_url) {
        (_, Some(url)) => url.is_secure(),
        // It has a problem of its own.
        (Some(_), None) => true,
        (None, None) => listen.is_none_or(is_loopback),
    }
}

fn check_public_url(reader: &Reader<'_>, text: Option<&Text>) -> Option<PublicUrl> {
    let url = PublicUrl::parse(&text?.value);
    url.map_err(|what| reader.problem("/public_url", what)).ok()
}

fn check_proxies(reader: &Reader<'_>, texts: &[Placed]) -> Vec<TrustedProxy> {
    let check = |(at, text): &Placed| {
        let proxy = TrustedProxy::parse(&text.value);
        if proxy.is_none() {
            let what = "must be an address, a network as \"10.0.0.0/8\", or \"unix\"";
            reader.problem(at, format!("{what}: {:?}", text.written));
        }
        proxy
    };
    texts.iter().filter_map(check).collect()
}

/// Hosts in lower case, since case does not matter.
fn lowercase(
    reader: &Reader<'_>,
    texts: &[Placed],
    wrong: impl Fn(&str) -> Option<&'static str>,
) -> Vec<String> {
    let mut out = Vec::with_capacity(texts.len());
    for (at, text) in texts {
        if let Some(what) = wrong(&text.value) {
            reader.problem(at, format!("{what}: {:?}", text.written));
        }
        out.push(text.value.to_ascii_lowercase());
    }
    out
}

/// Two servers must not look alike: clients and people compare names without regard to case.
fn check_names(reader: &Reader<'_>, servers: &[RawServer]) {
    let mut owners: HashMap<String, &str> = HashMap::new();
    let aliases = servers.iter().filter_map(|server| {
        let alias = server.alias.as_ref()?;
        Some((format!("{}/alias", server.at), alias.value.as_str(), server))
    });
    let names = servers.iter().map(|server| (server.at.clone(), server.name.as_str(), server));
    for (at, name, server) in names.chain(aliases) {
        let owner = owners.entry(name.to_lowercase()).or_insert(&server.at);
        if *owner != server.at {
            reader.problem(at, format!("the name is that of {owner}, apart from case"));
        }
    }
}

/// The naming with all servers: a disabled server keeps its names.
fn naming(raw: &RawConfig, separator: &str) -> Naming {
    let named = |server: &RawServer| ServerName::parse(&server.name);
    let names: Vec<_> = raw.servers.iter().map(named).collect();
    let servers = names.iter().zip(&raw.servers).filter_map(|(name, server)| {
        Some((name.as_ref()?, server.alias.as_ref().map(|alias| alias.value.as_str())))
    });
    Naming::new(raw.prefix, separator, servers)
}

fn check_keys(reader: &Reader<'_>, raw: &RawConfig, naming: &Naming) -> Vec<ApiKey> {
    let mut keys = Vec::with_capacity(raw.api_keys.len());
    let mut names: HashMap<&str, &str> = HashMap::new();
    let mut hashes: HashMap<[u8; 32], &str> = HashMap::new();
    for key in &raw.api_keys {
        let sha256 = key.secret.as_ref().and_then(|secret| hash(reader, &key.at, secret));
        if let Some(name) = &key.name {
            let at = format!("{}/name", key.at);
            if name.value.is_empty() || name.value.chars().any(char::is_control) {
                reader.problem(&at, "must not be empty or hold control characters");
            }
            if let Some(first) = names.insert(&name.value, &key.at) {
                reader.problem(&at, format!("is the name of {first} too"));
            }
        }
        if let Some(sha256) = sha256
            && let Some(first) = hashes.insert(sha256, &key.at)
        {
            reader.problem(&key.at, format!("is the same key as {first}"));
        }
        let wanted = (key.servers.as_deref(), key.tools.as_deref());
        let rights = rights::check(reader, Holder::Key, &key.at, wanted, &raw.servers, naming);
        let Rights { servers, tools } = rights;
        let calls_per_minute = key.calls_per_minute.and_then(|n| u32::try_from(n).ok());
        if let (Some(name), Some(sha256)) = (&key.name, sha256) {
            let name = name.value.clone();
            let admin = key.admin;
            keys.push(ApiKey { name, sha256, servers, tools, calls_per_minute, admin });
        }
    }
    keys
}

/// The hint for a text where the braces of a reference were forgotten: the text would be the key,
/// and everybody could guess it.
fn forgotten_braces(key: &str) -> Option<String> {
    if key.starts_with("file:") {
        return Some(format!("is the key itself as it stands; did you mean \"${{{key}}}\"?"));
    }
    let name = key.strip_prefix('$')?;
    let is_name = !name.is_empty()
        && name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_');
    is_name.then(|| format!("is the key itself as it stands; did you mean \"${{{name}}}\"?"))
}

/// Hashes a key at once, so that the key itself is not kept.
fn hash(reader: &Reader<'_>, at: &str, secret: &RawSecret) -> Option<[u8; 32]> {
    match secret {
        RawSecret::Key(key) => {
            let hash = hash_key(&key.value);
            if let Some(what) = forgotten_braces(&key.value) {
                reader.problem(format!("{at}/key"), what);
            } else if hash.is_none() {
                let what = "must be printable ASCII characters without spaces at the ends";
                reader.problem(format!("{at}/key"), what);
            } else if key.value.len() < KEY_BYTES_MIN {
                let what = format!(
                    "the key has {} characters; fewer than {KEY_BYTES_MIN} can be guessed",
                    key.value.len()
                );
                reader.warn(format!("{at}/key"), what);
            }
            hash
        }
        RawSecret::Sha256(digits) => {
            let bytes = syntax::sha256(&digits.value);
            if bytes.is_none() {
                reader.problem(format!("{at}/sha256"), "must be 64 hexadecimal digits");
            }
            bytes
        }
    }
}

/// SHA-256 of a key, as `sha256` in the configuration has it. None for a key that no header can
/// carry: such a key could never match.
pub fn hash_key(key: &str) -> Option<[u8; 32]> {
    if key.is_empty() || key.contains('\t') || !syntax::is_header_value(key) {
        return None;
    }
    let digest = ring::digest::digest(&ring::digest::SHA256, key.as_bytes());
    digest.as_ref().try_into().ok()
}

/// Checks globs, each of which can match some name.
pub(super) fn check_globs(
    reader: &Reader<'_>,
    globs: Option<&[Placed]>,
) -> Option<Vec<String>> {
    let check = |(at, text): &Placed| {
        if !syntax::is_glob(&text.value) {
            reader.problem(at, format!("not a glob over names: {:?}", text.written));
        }
        text.value.clone()
    };
    globs.map(|globs| globs.iter().map(check).collect())
}
