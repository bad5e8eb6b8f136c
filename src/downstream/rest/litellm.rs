//! LiteLLM's REST dialect: the members beside its lists, and its words for failures.

use std::collections::HashMap;

use super::query_value;
use crate::downstream::status_codes::{Problem, TIMEOUT_WORD};
use crate::error::{HttpRefusal, Stage};
use crate::pipeline::{Health, ItemList, Listing};
use crate::protocol::raw;

/// LiteLLM's word for an error, where it has its own.
pub(crate) fn word(code: &'static str) -> &'static str {
    match code {
        "unknown_server" => "server_not_found",
        other => other,
    }
}

/// The server of a list request. The id comes before the name, and an empty one does not count.
pub(crate) fn server_asked_for(query: Option<&str>) -> Option<String> {
    let asked =
        query_value(query, "server_id").or_else(|| query_value(query, "mcp_server_name"));
    asked.filter(|asked| !asked.is_empty())
}

/// The text behind the tools. A list of one server does not name others.
///
/// # Errors
/// That server has failed, and its list is not known.
pub(crate) fn list_end(list: &ItemList, is_of_one: bool) -> Result<String, Problem> {
    let mut counts: HashMap<&str, usize> = HashMap::new();
    for item in &list.items {
        *counts.entry(item.server.as_str()).or_default() += 1;
    }
    let faults: Vec<(&Listing, &'static str)> =
        list.servers.iter().filter_map(|it| Some((it, fault(&it.health)?))).collect();
    let has_failed = list.items.is_empty() && !faults.is_empty();
    if let (true, true, Some((listing, word))) = (is_of_one, has_failed, faults.first()) {
        return Err(Problem::unlisted(&listing.server, word, &said(&listing.health)));
    }
    let (error, message) = if has_failed {
        let each = faults.iter().map(|(listing, word)| format!("{}: {word}", shown(listing)));
        let each = each.collect::<Vec<String>>().join("; ");
        ("\"partial_failure\"", format!("Failed to get tools from servers: {each}"))
    } else {
        ("null", "Successfully retrieved tools".to_owned())
    };
    let mut end = format!(",\"error\":{error},\"message\":{}", raw::string(&message));
    if !is_of_one {
        let outcome = |listing: &Listing| {
            let n_tools = counts.get(listing.server.as_str()).copied().unwrap_or_default();
            (shown(listing).to_owned(), outcome(listing, n_tools))
        };
        let outcomes: serde_json::Map<_, _> = list.servers.iter().map(outcome).collect();
        end.push_str(&format!(",\"server_outcomes\":{}", serde_json::Value::Object(outcomes)));
    }
    end.push('}');
    Ok(end)
}

/// The server's name in the names of its tools.
fn shown(listing: &Listing) -> &str {
    listing.alias.as_deref().unwrap_or(listing.server.as_str())
}

/// The state of a server. A server that has failed may still have tools in the list: those that
/// it listed before.
fn outcome(listing: &Listing, n_tools: usize) -> serde_json::Value {
    let Some(word) = fault(&listing.health) else {
        return serde_json::json!({ "status": "ok", "tool_count": n_tools });
    };
    let mut outcome = serde_json::json!({ "status": word });
    if let (Some(status), Some(fields)) =
        (refused_with(&listing.health), outcome.as_object_mut())
    {
        fields.insert("http_status".to_owned(), status.into());
    }
    outcome
}

fn refused_with(health: &Health) -> Option<u16> {
    match health {
        Health::Failed { refusal: Some(refusal), .. } => Some(refusal.status),
        Health::Failed { refusal: None, .. } | Health::Connecting | Health::Well => None,
    }
}

/// The word for a server's fault.
fn fault(health: &Health) -> Option<&'static str> {
    match health {
        Health::Well => None,
        Health::Connecting => Some(TIMEOUT_WORD),
        Health::Failed { refusal: Some(refusal), .. } => Some(refused(refusal)),
        Health::Failed { stage, refusal: None, .. } => Some(match stage {
            Stage::Resolve | Stage::Spawn | Stage::Connect | Stage::Tls | Stage::Send => {
                "unreachable"
            }
            Stage::Authorization => "auth_required",
            Stage::Handshake
            | Stage::Slot
            | Stage::Answer
            | Stage::Read
            | Stage::Parse
            | Stage::List => "upstream_error",
        }),
    }
}

fn refused(refusal: &HttpRefusal) -> &'static str {
    match refusal.status {
        401 => "auth_required",
        403 => "forbidden",
        429 => "rate_limited",
        _ => "upstream_error",
    }
}

/// The failure of a server that is not well.
fn said(health: &Health) -> String {
    match health {
        Health::Failed { stage, message, .. } => format!("{stage}: {message}"),
        Health::Connecting => "it has not answered yet".to_owned(),
        Health::Well => "it answers".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_is_asked_for_by_id_or_by_name() {
        for (query, expected) in [
            (None, None),
            (Some("server_id=a&mcp_server_name=b"), Some("a")),
            (Some("mcp_server_name=b"), Some("b")),
            (Some("server_id="), None),
            (Some("server=a"), None),
        ] {
            assert_eq!(server_asked_for(query).as_deref(), expected, "{query:?}");
        }
    }

    #[test]
    fn every_failure_has_one_of_its_words() {
        let failed = |stage, status: Option<u16>| {
            let refusal = status.map(|status| {
                Box::new(HttpRefusal { status, www_authenticate: None, retry_after: None })
            });
            Health::Failed { stage, message: "m".to_owned(), refusal }
        };
        for (health, word) in [
            (Health::Well, None),
            (Health::Connecting, Some("timeout")),
            (failed(Stage::Connect, None), Some("unreachable")),
            (failed(Stage::Parse, None), Some("upstream_error")),
            (failed(Stage::Handshake, Some(401)), Some("auth_required")),
            (failed(Stage::Handshake, Some(403)), Some("forbidden")),
            (failed(Stage::Handshake, Some(429)), Some("rate_limited")),
            (failed(Stage::Handshake, Some(418)), Some("upstream_error")),
        ] {
            assert_eq!(fault(&health), word, "{health:?}");
        }
    }
}
