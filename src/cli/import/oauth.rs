//! Pure: imports how another program signs in to a server by OAuth.

use serde_json::{Value, json};

use super::draft::{Draft, Fields};
use super::entry::{Entry, plain_text, warn_of_secret};

/// Where other programs say what the server itself says here.
const FOUND: &str = "left out: the server itself says where its authorization server is";

/// Imports LiteLLM's `auth_type: oauth2`. True if that is the type.
pub(super) fn litellm(
    draft: &mut Draft,
    source: &mut Entry<'_>,
    kind: &str,
    server: &mut Fields,
) -> bool {
    if kind != "oauth2" {
        return false;
    }
    let flow = source.words("oauth2_flow").into_iter().next();
    let is_of_machines = match flow.as_deref() {
        Some(flow) => flow == "client_credentials",
        // LiteLLM takes the token itself where it knows all that this needs.
        None => {
            let has = |key| source.has(key);
            has("client_id")
                && has("client_secret")
                && has("token_url")
                && !has("authorization_url")
        }
    };
    for key in ["token_url", "authorization_url", "registration_url"] {
        if source.take(key).is_some() {
            draft.note(&format!("{}.{key}", source.at), FOUND);
        }
    }
    let mut oauth = Fields::new();
    if is_of_machines {
        oauth.insert("grant".to_owned(), "client_credentials".into());
    }
    for key in ["client_id", "client_secret"] {
        if let Some(text) = source.text(draft, key) {
            warn_of_secret(draft, &format!("{}.{key}", source.at), key, &text);
            oauth.insert(key.to_owned(), text.into());
        }
    }
    let scopes = source.words("scopes");
    add_scopes(&scopes, &mut oauth);
    server.insert("oauth".to_owned(), or_true(oauth));
    if !is_of_machines {
        server.insert("credentials".to_owned(), "per_user".into());
        draft.note(
            &format!("{}.auth_type", source.at),
            "each user signs in, as there; without \"credentials\" one sign-in, trunkline login, \
             serves all",
        );
    }
    true
}

/// Imports a host's `oauth` or `auth`: true, or an object.
pub(super) fn of_host(draft: &mut Draft, source: &mut Entry<'_>, server: &mut Fields) {
    for key in ["oauth", "auth"] {
        let at = format!("{}.{key}", source.at);
        let fields = match source.take(key) {
            None | Some(Value::Bool(false)) => continue,
            Some(Value::Object(fields)) => fields,
            Some(Value::Bool(true)) => Fields::new(),
            Some(_) => {
                draft.note(&at, "left out: \"oauth\" is true or an object here");
                continue;
            }
        };
        if fields.get("enabled") == Some(&Value::Bool(false)) {
            continue;
        }
        let mut oauth = Fields::new();
        for (name, value) in &fields {
            let place = format!("{at}.{name}");
            let text = plain_text(value);
            match (name.to_ascii_lowercase().replace('_', "").as_str(), text) {
                (plain @ ("clientid" | "clientsecret"), Some(text)) => {
                    let name = if plain == "clientid" { "client_id" } else { "client_secret" };
                    warn_of_secret(draft, &place, name, &text);
                    let text = draft.text(&place, &text, super::draft::Writing::Host);
                    oauth.insert(name.to_owned(), text.into());
                }
                ("scope" | "scopes", _) => add_scopes(&words(value), &mut oauth),
                ("enabled", _) => (),
                (
                    "authorizationurl"
                    | "tokenurl"
                    | "registrationurl"
                    | "issuer"
                    | "authservermetadataurl",
                    _,
                ) => draft.note(&place, FOUND),
                _ => draft.note(&place, "left out"),
            }
        }
        server.insert("oauth".to_owned(), or_true(oauth));
    }
}

/// Leaves the sign-in out where a header has the credential already: only one can be sent.
pub(super) fn settle(draft: &mut Draft, at: &str, server: &mut Fields) {
    let is_it = |name: &str| name.eq_ignore_ascii_case("authorization");
    let headers = server.get("headers").and_then(Value::as_object);
    let has_header = headers.is_some_and(|all| all.keys().any(|name| is_it(name)));
    let forwarded = server.get("forward_headers").and_then(Value::as_array);
    let mut forwarded = forwarded.into_iter().flatten().filter_map(Value::as_str);
    if (has_header || forwarded.any(is_it)) && server.shift_remove("oauth").is_some() {
        server.shift_remove("credentials");
        let what = "left out: the header Authorization has the credential";
        draft.note(&format!("{at}.oauth"), what);
    }
}

/// The texts of a list, or of one text with spaces between them.
fn words(value: &Value) -> Vec<String> {
    match value {
        Value::Array(words) => words.iter().filter_map(plain_text).collect(),
        Value::Null
        | Value::Bool(_)
        | Value::Number(_)
        | Value::String(_)
        | Value::Object(_) => plain_text(value).into_iter().collect(),
    }
}

fn add_scopes(scopes: &[String], oauth: &mut Fields) {
    let scopes: Vec<&str> = scopes.iter().flat_map(|it| it.split_whitespace()).collect();
    if !scopes.is_empty() {
        oauth.insert("scopes".to_owned(), json!(scopes));
    }
}

fn or_true(oauth: Fields) -> Value {
    if oauth.is_empty() { Value::Bool(true) } else { oauth.into() }
}
