//! Checks `oauth` and `credentials` of one server, with the keys beside which they stand.

use crate::config::file::RawServer;
use crate::config::file::oauth::{RawGrant, RawIdentityProvider, RawOAuth};
use crate::config::file::reader::{Reader, Text, Wanted};
use crate::config::{
    Credentials, Dpop, Grant, IdentityProvider, JwtBearer, OAuthClientConfig, Secret,
    TokenEndpointAuthMethod, syntax,
};

/// What the rest of the file says that signing in depends on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Around {
    /// True if there is a `state_dir`.
    pub(crate) has_state_dir: bool,
    /// True if a browser could come back to the gateway: there is a `public_url` with https, or all
    /// is on this machine.
    pub(crate) browsers_come_back: bool,
}

/// The mark of a value that says something of the user who calls.
const OF_USER: &str = "${user.";

/// Checks whose credentials a server's requests carry.
pub(super) fn check_credentials(reader: &Reader<'_>, raw: &RawServer, around: Around) {
    if raw.credentials == Credentials::Gateway {
        return;
    }
    let problem = |what: &str| reader.problem(format!("{}/credentials", raw.at), what);
    let of_user = |(_, _, value): &(String, String, String)| value.contains(OF_USER);
    let is_own = raw.given.contains(&"oauth")
        || raw.given.contains(&"forward_headers")
        || raw.headers.iter().chain(&raw.env).any(of_user);
    if !is_own {
        problem(
            "nothing here is each user's own: \"per_user\" needs \"oauth\", \"forward_headers\", \
             or ${user.…} in \"headers\" or \"env\"",
        );
    }
    let Some(oauth) = &raw.oauth else { return };
    let grant = match oauth.grant {
        RawGrant::AuthorizationCode => {
            if !around.browsers_come_back {
                problem(
                    "\"per_user\" needs \"public_url\" with https: users' browsers come back to \
                     {public_url}/oauth/callback",
                );
            }
            return;
        }
        RawGrant::ClientCredentials => "client_credentials",
        RawGrant::JwtBearer => "jwt_bearer",
    };
    let what = format!(
        "\"per_user\" needs \"authorization_code\" as its grant: with {grant:?} no user signs in"
    );
    problem(&what);
}

/// Checks `oauth` of a server over HTTP.
pub(super) fn check(
    reader: &Reader<'_>,
    server: &RawServer,
    around: Around,
) -> Option<OAuthClientConfig> {
    let raw = server.oauth.as_ref()?;
    if !around.has_state_dir {
        reader.problem(&raw.at, "needs \"state_dir\", where sign-ins are kept");
    }
    let is_authorization = |name: &str| name.eq_ignore_ascii_case("authorization");
    for (at, _, _) in server.headers.iter().filter(|(_, name, _)| is_authorization(name)) {
        reader.problem(at, "cannot stand beside \"oauth\", which sets this header");
    }
    let forwarded = server.forward_headers.iter();
    for (at, _) in forwarded.filter(|(_, text)| is_authorization(&text.value)) {
        reader.problem(at, "cannot stand beside \"oauth\", which sets this header");
    }
    check_keys_of_grants(reader, raw);
    check_method(reader, raw);
    check_texts(reader, raw);
    let file = |key: &str, path: &Text| {
        reader.path_of(&format!("{}/{key}", raw.at), path, Wanted::File)
    };
    let provider = raw.identity_provider.as_ref().and_then(|raw| check_provider(reader, raw));
    let grant = match raw.grant {
        RawGrant::AuthorizationCode => Grant::AuthorizationCode,
        RawGrant::ClientCredentials => Grant::ClientCredentials,
        RawGrant::JwtBearer => Grant::JwtBearer(JwtBearer {
            assertion_file: file("assertion_file", raw.assertion_file.as_ref()?),
            identity_provider: provider,
        }),
    };
    let scopes = raw.scopes.as_ref();
    Some(OAuthClientConfig {
        grant,
        client_id: value(&raw.client_id),
        client_secret: value(&raw.client_secret).map(Secret::new),
        private_key_file: raw
            .private_key_file
            .as_ref()
            .map(|path| file("private_key_file", path)),
        client_metadata_url: value(&raw.client_metadata_url),
        scopes: scopes.map(|all| all.iter().map(|(_, text)| text.value.clone()).collect()),
        token_endpoint_auth_method: raw.method,
        dpop: if raw.dpop { Dpop::On } else { Dpop::Off },
    })
}

fn value(text: &Option<Text>) -> Option<String> {
    text.as_ref().map(|text| text.value.clone())
}

fn check_provider(reader: &Reader<'_>, raw: &RawIdentityProvider) -> Option<IdentityProvider> {
    let problem = |key: &str, what: &str| reader.problem(format!("{}/{key}", raw.at), what);
    for (key, text) in [("client_id", &raw.client_id), ("client_secret", &raw.client_secret)] {
        if text.as_ref().is_some_and(|text| !is_visible(&text.value)) {
            problem(key, NOT_VISIBLE);
        }
    }
    if raw.client_secret.is_some() && raw.client_id.is_none() {
        problem("client_secret", "needs \"client_id\": it proves who that is");
    }
    let endpoint = raw.token_endpoint.as_ref()?;
    let schemes = ["https://", "http://"];
    if let Err(what) = syntax::url(&endpoint.value, &schemes, syntax::Userinfo::Refused) {
        problem("token_endpoint", &what);
    }
    Some(IdentityProvider {
        token_endpoint: endpoint.value.clone(),
        client_id: value(&raw.client_id),
        client_secret: value(&raw.client_secret).map(Secret::new),
    })
}

/// Checks which keys stand beside each other, and what each grant takes.
fn check_keys_of_grants(reader: &Reader<'_>, raw: &RawOAuth) {
    let has = |key: &str| raw.given.contains(&key);
    let problem = |key: &str, what: &str| reader.problem(format!("{}/{key}", raw.at), what);
    let key_problem =
        |key: &str, what: &str| reader.key_problem(format!("{}/{key}", raw.at), what);
    if has("client_secret") && has("private_key_file") {
        let what =
            "cannot stand beside \"client_secret\": one of them proves who the client is";
        key_problem("private_key_file", what);
    }
    for key in ["client_secret", "private_key_file"] {
        if has(key) && !has("client_id") {
            key_problem(key, "needs \"client_id\": it proves who that is");
        }
    }
    if has("client_metadata_url") && has("client_id") {
        let what =
            "cannot stand beside \"client_id\": the URL of the document is the client's id";
        key_problem("client_metadata_url", what);
    }
    match raw.grant {
        RawGrant::AuthorizationCode => (),
        RawGrant::ClientCredentials => {
            let has_proof = has("client_secret") || has("private_key_file");
            if !has("client_id") || !has_proof {
                let what = "\"client_credentials\" needs \"client_id\", and \"client_secret\" or \
                            \"private_key_file\": the gateway itself is authorized";
                problem("grant", what);
            }
        }
        RawGrant::JwtBearer => {
            if !has("assertion_file") {
                let what = "\"jwt_bearer\" needs \"assertion_file\", the file with the JWT";
                problem("grant", what);
            }
        }
    }
    if has("assertion_file") && raw.grant != RawGrant::JwtBearer {
        key_problem("assertion_file", "needs \"grant\": \"jwt_bearer\"");
    }
    if has("identity_provider") && raw.grant != RawGrant::JwtBearer {
        let what =
            "needs \"grant\": \"jwt_bearer\": it exchanges the JWT of \"assertion_file\"";
        key_problem("identity_provider", what);
    }
    if has("client_metadata_url") && raw.grant == RawGrant::ClientCredentials {
        let what = "cannot stand beside \"client_credentials\": such a client is registered";
        key_problem("client_metadata_url", what);
    }
}

/// Checks that the method's proof is there, and no other one.
fn check_method(reader: &Reader<'_>, raw: &RawOAuth) {
    let Some(method) = raw.method else { return };
    let has = |key: &str| raw.given.contains(&key);
    let at = format!("{}/token_endpoint_auth_method", raw.at);
    let word = method.as_str();
    let (wanted, other) = match method {
        TokenEndpointAuthMethod::ClientSecretBasic
        | TokenEndpointAuthMethod::ClientSecretPost => {
            ("client_secret", ["private_key_file"].as_slice())
        }
        TokenEndpointAuthMethod::PrivateKeyJwt => {
            ("private_key_file", ["client_secret"].as_slice())
        }
        TokenEndpointAuthMethod::None => {
            ("client_id", ["client_secret", "private_key_file"].as_slice())
        }
    };
    if let Some(other) = other.iter().find(|key| has(key)) {
        let what = format!("{word:?} cannot stand beside {other:?}, which it does not use");
        reader.problem(at, what);
        return;
    }
    // Dynamic registration gives a secret, too.
    let may_register = raw.grant == RawGrant::AuthorizationCode && !has("client_id");
    let is_made_here = method != TokenEndpointAuthMethod::PrivateKeyJwt;
    if !(has(wanted) || may_register && is_made_here) {
        reader.problem(at, format!("{word:?} needs \"{wanted}\""));
    }
}

const NOT_VISIBLE: &str = "must be printable ASCII characters, and not empty";

fn is_visible(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| (b' '..=b'~').contains(&byte))
}

/// Checks values for the characters that RFC 6749 (appendix A) gives them.
fn check_texts(reader: &Reader<'_>, raw: &RawOAuth) {
    for (key, text) in [("client_id", &raw.client_id), ("client_secret", &raw.client_secret)] {
        if text.as_ref().is_some_and(|text| !is_visible(&text.value)) {
            reader.problem(format!("{}/{key}", raw.at), NOT_VISIBLE);
        }
    }
    for (at, scope) in raw.scopes.iter().flatten() {
        if scope.value.contains(' ') {
            reader.problem(at, "holds a space: each scope is an element of its own");
        } else if !syntax::is_scope(&scope.value) {
            reader.problem(at, format!("not a scope: {:?}", scope.written));
        }
    }
    let files =
        [("private_key_file", &raw.private_key_file), ("assertion_file", &raw.assertion_file)];
    for (key, text) in files {
        if text.as_ref().is_some_and(|it| it.value.is_empty() || it.value.contains('\0')) {
            let what = "must not be empty or hold a null character";
            reader.problem(format!("{}/{key}", raw.at), what);
        }
    }
    if let Some(url) = &raw.client_metadata_url {
        let checked = syntax::url(&url.value, &["https://"], syntax::Userinfo::Refused);
        // A client identifier that is a URL has a path (client ID metadata documents, section 3).
        let rest = url.value.split_once("://").map_or("", |(_, rest)| rest);
        let has_path = rest.split_once('/').is_some_and(|(_, path)| !path.is_empty());
        let checked = checked.and_then(|()| {
            has_path.then_some(()).ok_or_else(|| "must have a path, the document's".to_owned())
        });
        if let Err(what) = checked {
            reader.problem(format!("{}/client_metadata_url", raw.at), what);
        }
    }
}
