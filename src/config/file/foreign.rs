//! Pure: hints for unknown keys: a typing mistake, or a key of another program's file (LiteLLM,
//! Claude, VS Code, Cursor, Windsurf, Cline, Gemini, Codex).

use crate::config::{
    ACCESS_TOKEN_KEYS, API_KEY_KEYS, IDENTITY_PROVIDER_KEYS, INTROSPECTION_KEYS, ISSUER_KEYS,
    KEYS, LOG_KEYS, OAUTH_KEYS, OTLP_KEYS, RULE_KEYS, SERVER_KEYS, TRANSPORT_KEYS, limit_keys,
};

/// Keys of other programs, and the key with the same meaning here.
type Meant = (&'static [&'static str], &'static str);

const OF_SERVERS: &[Meant] = &[
    (
        &["serverUrl", "server_url", "httpUrl", "uri", "endpoint", "baseUrl", "base_url"],
        "\"url\"",
    ),
    (
        &["allowed_tools", "includeTools", "enabled_tools", "allowedTools", "enabledTools"],
        "\"tools\", a list of names or globs",
    ),
    (
        &["disallowed_tools", "excludeTools", "disabled_tools", "disabledTools"],
        "\"tools\" with a \"!\" before each: \"tools\": [\"!name\"]",
    ),
    (
        &["timeout", "tool_timeout_sec", "request_timeout", "requestTimeout", "toolTimeout"],
        "\"timeout_ms\", in milliseconds",
    ),
    (
        &["startup_timeout_sec", "startup_timeout", "initTimeout", "startupTimeout"],
        "\"start_timeout_ms\", in milliseconds",
    ),
    (&["static_headers", "http_headers", "requestHeaders"], "\"headers\""),
    (&["extra_headers"], "\"forward_headers\": it names headers of clients"),
    (
        &["auth_type", "auth_value", "authentication_token", "auth", "authorization", "token"],
        "\"headers\": {\"Authorization\": \"Bearer ${TOKEN}\"}, or \"oauth\": true",
    ),
    (
        &[
            "oauth2",
            "oauth2_flow",
            "oauth_config",
            "authProviderType",
            "token_url",
            "authorization_url",
            "registration_url",
        ],
        "\"oauth\": true, or an object",
    ),
    (
        &["delegate_auth_to_upstream", "per_user", "per_user_auth", "user_auth"],
        "\"credentials\": \"per_user\"",
    ),
    (&["apiKey", "api_key", "bearerToken", "bearer_token", "auth_token"], AUTHORIZATION),
    (&["bearer_token_env_var", "env_http_headers"], AUTHORIZATION),
    (
        &["envFile", "env_file"],
        "\"env\": no file of variables is read; ${NAME} is the environment's",
    ),
    (&["environment", "envs", "env_vars", "variables"], "\"env\""),
    (&["workingDirectory", "working_directory", "workdir", "dir"], "\"cwd\""),
    (&["arguments", "argv", "parameters"], "\"args\""),
    (&["cmd", "exec", "executable", "program"], "\"command\""),
    (&["enabled", "isActive", "is_active", "active"], "\"disabled\", which says the opposite"),
    (&["mcp_info"], "\"description\""),
    (
        &["access_groups", "mcp_access_groups", "allow_all_keys", "allowed_keys"],
        "\"servers\" of an element of \"api_keys\": which key may use which servers",
    ),
    (
        &["name", "server_name", "server_id", "title", "id"],
        "the key under which the server stands",
    ),
    (&["ssl_verify", "verify_ssl", "insecure", "ca_cert", "ca", "cert"], "\"ca_file\""),
    (&["alwaysAllow", "autoApprove", "trust"], NOBODY_ASKED),
    (&["gallery", "version", "dev", "sandbox", "sandboxEnabled", "icon"], NO_MEANING),
    (&["protocol", "transportType", "transport_type", "connection_type"], "\"transport\""),
    (&["max_concurrency", "concurrency", "max_concurrent_requests"], "\"max_in_flight\""),
];

const AUTHORIZATION: &str = "\"headers\": {\"Authorization\": \"Bearer ${TOKEN}\"}";
const NOBODY_ASKED: &str = "nothing here: nobody is asked before a call, so leave it out";
const NO_MEANING: &str = "nothing here: leave it out";

const OF_THE_FILE: &[Meant] = &[
    (&["servers", "context_servers", "mcp", "mcp.servers", "upstreams"], "\"mcp_servers\""),
    (
        &["inputs"],
        "${NAME} in the values, with NAME in the environment: nobody is asked for input",
    ),
    (&["model_list", "litellm_settings", "router_settings"], "nothing here: leave it out"),
    (
        &["general_settings", "master_key", "keys", "api_key", "auth", "tokens"],
        "\"api_keys\": [{\"name\": \"me\", \"key\": \"${TRUNKLINE_KEY}\"}]",
    ),
    (&["port", "host", "address", "bind", "addr"], "\"listen\": \"127.0.0.1:4000\""),
    (&["environment_variables", "env"], "\"env\" of a server, or ${NAME} in any value"),
    (&["cors", "cors_origins", "origins"], "\"allowed_origins\""),
    (&["hosts"], "\"allowed_hosts\""),
    (
        &["tls", "ssl", "cert_file", "key_file"],
        "a proxy before the gateway: it has no TLS itself",
    ),
    (&["log_level", "logging", "loglevel"], "\"log\": {\"level\": \"info\"}"),
    (&["globalShortcut", "preferences", "theme"], "nothing here: leave it out"),
];

const OF_KEYS: &[Meant] = &[
    (&["token", "secret", "value", "api_key"], "\"key\""),
    (&["hash", "key_hash", "digest", "sha"], "\"sha256\""),
    (&["allowed_tools"], "\"tools\""),
    (&["mcp_servers", "allowed_servers", "access_groups", "mcp_access_groups"], "\"servers\""),
    (&["rpm", "rpm_limit", "rate", "rate_limit", "max_calls"], "\"calls_per_minute\""),
    (&["alias", "key_alias", "id", "user", "key_name"], "\"name\""),
    (&["is_admin", "superuser"], "\"admin\""),
];

const OF_OAUTH: &[Meant] = &[
    (&["scope"], "\"scopes\", a list"),
    (&["flow", "type", "grant_type", "grantType", "oauth2_flow"], "\"grant\""),
    (&["id", "client"], "\"client_id\""),
    (&["secret"], "\"client_secret\""),
    (
        &["private_key", "privateKey", "key", "key_file", "keyFile", "private_key_path"],
        "\"private_key_file\": the key stands in a file of its own",
    ),
    (&["assertion", "jwt", "jwt_file", "token_file", "id_token_file"], "\"assertion_file\""),
    (&["auth_method", "client_auth_method"], "\"token_endpoint_auth_method\""),
    (
        &[
            "authorizationUrl",
            "authorization_url",
            "authorization_endpoint",
            "tokenUrl",
            "token_url",
            "registrationUrl",
            "registration_url",
            "authServerMetadataUrl",
            "issuer",
        ],
        "nothing here: the server itself says where its authorization server is",
    ),
    (
        &["redirectUri", "redirect_uri", "redirect_url", "callbackPort", "callback_port"],
        "\"public_url\" of the file: browsers come back to {public_url}/oauth/callback, and \
         with trunkline login to a port of this machine",
    ),
    (
        &["audience", "audiences", "resource", "oauth_resource"],
        "nothing here: tokens are asked for for the server's own URL",
    ),
    (&["enabled"], "nothing here: \"oauth\" is false, or stands there"),
];

const OF_THE_LOG: &[Meant] = &[
    (&["file", "path", "output"], "nothing here: the log goes to standard error"),
    (&["verbose", "debug"], "\"level\": \"debug\""),
    (&["access_log"], "\"access\""),
];

const OF_ACCESS_TOKENS: &[Meant] = &[
    (
        &["providers", "authorization_servers", "identity_providers", "issuer", "authority"],
        "\"issuers\": [{\"issuer\": \"https://…\"}]",
    ),
    (&["policies", "roles", "permissions", "claims", "access"], "\"rules\""),
];

const OF_ISSUERS: &[Meant] = &[
    (&["url", "iss", "authority", "domain", "issuer_url", "name"], "\"issuer\""),
    (&["aud", "audiences", "resource", "api"], "\"audience\""),
    (&["jwks", "jwks_url", "keys", "certs"], "\"jwks_uri\""),
    (&["ssl_verify", "verify_ssl", "insecure", "ca_cert", "ca", "cert"], "\"ca_file\""),
    (
        &["client_id", "client_secret", "introspection_endpoint"],
        "a key of \"introspection\": tokens are asked about with it, and clients register \
         themselves at the issuer",
    ),
    (
        &["algorithms", "alg", "signing_algorithms"],
        "nothing here: the algorithms are those of the issuer's keys, never one that is none",
    ),
];

const OF_RULES: &[Meant] = &[
    (&["values", "value", "equals", "in", "is"], "\"any\", a list of values"),
    (&["scope", "scopes"], "\"claim\": \"scope\", with the scopes in \"any\""),
    (
        &["groups", "roles", "group", "role", "users"],
        "\"claim\", the claim's name, with its values in \"any\"",
    ),
    (&["allowed_tools"], "\"tools\""),
    (&["mcp_servers", "allowed_servers"], "\"servers\""),
    (&["rpm", "rpm_limit", "rate", "rate_limit", "max_calls"], "\"calls_per_minute\""),
    (&["is_admin", "superuser"], "\"admin\""),
];

/// The kind of a file that does not begin as JSON, and advice.
pub(crate) fn other_format(text: &str) -> Option<&'static str> {
    let is_said = |line: &&str| !line.is_empty() && !line.starts_with('#') && *line != "---";
    let first = text.trim_start_matches('\u{feff}').lines().map(str::trim).find(is_said)?;
    let is_key = |key: &str| {
        let ok = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
        !key.is_empty() && key.chars().all(ok)
    };
    let in_brackets = first.strip_prefix('[').and_then(|rest| rest.split_once(']'));
    let is_table =
        |key: &str| is_key(key) && key.starts_with(|c: char| c.is_ascii_alphabetic());
    if in_brackets.is_some_and(|(key, rest)| is_table(key) && !rest.contains(',')) {
        return Some("this is TOML, and the configuration is JSON");
    }
    let is_yaml = first
        .split_once(':')
        .is_some_and(|(key, rest)| is_key(key) && (rest.is_empty() || rest.starts_with(' ')));
    is_yaml.then_some(
        "this is YAML, and the configuration is JSON: trunkline import FILE > config.json makes \
         one of LiteLLM's",
    )
}

/// The fault of a key that is not among `known`.
pub(crate) fn unknown_key(name: &str, known: &[&str]) -> String {
    // `timeoutMs`, `max-sessions` and the like are the usual slips.
    let plain = |text: &str| text.replace(['_', '-'], "").to_lowercase();
    let same = known.iter().find(|key| plain(key) == plain(name)).copied();
    if let Some(same) = same {
        return format!("unknown key; did you mean {same:?}?");
    }
    if let Some(meant) = foreign(name, known) {
        return match meant.strip_prefix("nothing here") {
            Some(why) => format!("unknown key; it means nothing here{why}"),
            None => format!("unknown key; here it is {meant}"),
        };
    }
    if let Some(homes) = elsewhere(name, known) {
        return format!("unknown key here; it is a key of {homes}");
    }
    match nearest(name, known.iter().copied()) {
        Some(near) => format!("unknown key; did you mean {near:?}?"),
        None => "unknown key".to_owned(),
    }
}

/// The place in the file for a key that stands in the wrong object.
fn elsewhere(name: &str, known: &[&str]) -> Option<String> {
    let homes = [
        (KEYS, "the file itself, outside of all others"),
        (SERVER_KEYS, "a server, an element of \"mcp_servers\""),
        (OAUTH_KEYS, "\"oauth\" of a server"),
        (IDENTITY_PROVIDER_KEYS, "\"identity_provider\" of \"oauth\""),
        (limit_keys(), "\"limits\""),
        (API_KEY_KEYS, "an element of \"api_keys\""),
        (LOG_KEYS, "\"log\""),
        (TRANSPORT_KEYS, "\"transports\""),
        (OTLP_KEYS, "\"otlp\""),
        (ACCESS_TOKEN_KEYS, "\"oauth\" of the file itself"),
        (ISSUER_KEYS, "an element of \"issuers\" of \"oauth\""),
        (INTROSPECTION_KEYS, "\"introspection\" of an issuer"),
        (RULE_KEYS, "an element of \"rules\" of \"oauth\""),
    ];
    let homes = homes.iter().filter(|(keys, _)| *keys != known && keys.contains(&name));
    let homes: Vec<&str> = homes.map(|(_, home)| *home).collect();
    (!homes.is_empty()).then(|| homes.join(", or of "))
}

fn foreign(name: &str, known: &[&str]) -> Option<&'static str> {
    let tables = [
        ("command", OF_SERVERS),
        ("mcp_servers", OF_THE_FILE),
        ("sha256", OF_KEYS),
        ("grant", OF_OAUTH),
        ("level", OF_THE_LOG),
        ("issuers", OF_ACCESS_TOKENS),
        ("issuer", OF_ISSUERS),
        ("any", OF_RULES),
    ];
    let (_, table) = tables.iter().find(|(key, _)| known.contains(key))?;
    table.iter().find(|(names, _)| names.contains(&name)).map(|(_, meant)| *meant)
}

/// The one of `known` with the fewest typing mistakes, if they are few for its length.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = name.to_lowercase();
    let close = known.into_iter().filter_map(|key| {
        let known = key.to_lowercase();
        let is_beginning = lower.len() >= 4 && known.starts_with(&lower);
        let slips = if is_beginning { 1 } else { slips(&lower, &known) };
        (slips * 3 <= key.chars().count().min(9)).then_some((slips, key))
    });
    close.min_by_key(|(slips, _)| *slips).map(|(_, key)| key)
}

/// The number of characters inserted, left out, replaced, or exchanged with the next one; capped.
fn slips(a: &str, b: &str) -> usize {
    const MANY: usize = 99;
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(64).collect(), b.chars().collect());
    if a.len().abs_diff(b.len()) > 3 {
        return MANY;
    }
    let width = b.len() + 1;
    let mut rows: Vec<Vec<usize>> = vec![(0..width).collect()];
    for (i, from) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, to) in b.iter().enumerate() {
            let cell = |row: Option<&Vec<usize>>, at: usize| {
                row.and_then(|row| row.get(at)).copied().unwrap_or(MANY)
            };
            let above = rows.last();
            let replaced = cell(above, j) + usize::from(from != to);
            let mut least = replaced.min(cell(above, j + 1) + 1).min(cell(Some(&row), j) + 1);
            let is_turned =
                i > 0 && j > 0 && a.get(i - 1) == Some(to) && b.get(j - 1) == Some(from);
            if is_turned {
                least = least.min(cell(rows.get(rows.len().wrapping_sub(2)), j - 1) + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows.last().and_then(|row| row.last()).copied().unwrap_or(MANY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_and_foreign_keys_are_told_what_was_meant() {
        for (name, known, part) in [
            ("timeoutMs", SERVER_KEYS, "\"timeout_ms\""),
            ("comand", SERVER_KEYS, "\"command\""),
            ("tranpsort", SERVER_KEYS, "\"transport\""),
            ("hedaers", SERVER_KEYS, "\"headers\""),
            ("timeout", SERVER_KEYS, "\"timeout_ms\""),
            ("serverUrl", SERVER_KEYS, "\"url\""),
            ("allowed_tools", SERVER_KEYS, "\"tools\""),
            ("disallowed_tools", SERVER_KEYS, "\"!name\""),
            ("extra_headers", SERVER_KEYS, "\"forward_headers\""),
            ("static_headers", SERVER_KEYS, "\"headers\""),
            ("envFile", SERVER_KEYS, "\"env\""),
            ("servers", KEYS, "\"mcp_servers\""),
            ("mcpservers", KEYS, "\"mcp_servers\""),
            ("mcp_server", KEYS, "\"mcp_servers\""),
            ("listne", KEYS, "\"listen\""),
            ("general_settings", KEYS, "\"api_keys\""),
            ("rpm_limit", API_KEY_KEYS, "\"calls_per_minute\""),
            ("levle", LOG_KEYS, "\"level\""),
            ("max_in_flight", limit_keys(), "a key of a server"),
            ("timeout_ms", KEYS, "a key of a server"),
            ("sessions_per_key", SERVER_KEYS, "a key of \"limits\""),
            ("drain_ms", KEYS, "a key of \"limits\""),
            ("watch", SERVER_KEYS, "a key of the file itself"),
            ("client_id", SERVER_KEYS, "a key of \"oauth\""),
            ("token_url", SERVER_KEYS, "\"oauth\": true"),
            ("clientId", OAUTH_KEYS, "\"client_id\""),
            ("grnat", OAUTH_KEYS, "\"grant\""),
            ("scope", OAUTH_KEYS, "\"scopes\", a list"),
            ("redirect_uri", OAUTH_KEYS, "\"public_url\""),
            ("tokenUrl", OAUTH_KEYS, "means nothing here"),
            ("credentials", OAUTH_KEYS, "a key of a server"),
            ("admin", KEYS, "an element of \"api_keys\""),
        ] {
            let what = unknown_key(name, known);
            assert!(what.contains(part), "{name}: {what}");
        }
        for name in ["colour", "x", "role", ""] {
            assert_eq!(unknown_key(name, KEYS), "unknown key", "{name}");
        }
    }

    #[test]
    fn a_foreign_key_is_none_of_ours() {
        for (table, known) in [
            (OF_SERVERS, SERVER_KEYS),
            (OF_THE_FILE, KEYS),
            (OF_KEYS, API_KEY_KEYS),
            (OF_OAUTH, OAUTH_KEYS),
            (OF_THE_LOG, LOG_KEYS),
            (OF_ACCESS_TOKENS, ACCESS_TOKEN_KEYS),
            (OF_ISSUERS, ISSUER_KEYS),
            (OF_RULES, RULE_KEYS),
        ] {
            for name in table.iter().flat_map(|(names, _)| names.iter()) {
                assert!(!known.contains(name), "{name}");
            }
        }
    }

    #[test]
    fn files_of_other_formats_are_told() {
        for (text, format) in [
            ("# LiteLLM\n\nmodel_list: []\nmcp_servers:\n", "YAML"),
            ("---\nmcp_servers:\n  a:\n", "YAML"),
            ("[mcp_servers.a]\ncommand = \"x\"\n", "TOML"),
        ] {
            assert!(other_format(text).is_some_and(|told| told.contains(format)), "{text}");
        }
        for text in
            ["", "{}", "{a: 1}", " [1, 2]", "// x\n{", "\"a\": 1", "http://h/", "[1]x,", "[1]"]
        {
            assert_eq!(other_format(text), None, "{text}");
        }
    }

    #[test]
    fn slips_are_counted() {
        for (a, b, n) in [("ab", "ab", 0), ("ab", "ba", 1), ("abc", "ac", 1), ("", "abc", 3)] {
            assert_eq!(slips(a, b), n, "{a} {b}");
        }
    }
}
