//! The configuration of a gateway that stands in front of one other, for `--url`.

use std::sync::Arc;

use serde_json::json;

use super::{Config, Overrides, Problem, Role};
use crate::protocol::server_name::ServerName;

/// The variable with the key for the other gateway.
pub const KEY_VARIABLE: &str = "TRUNKLINE_KEY";
/// The name of the other gateway if its host is no name.
const NAME: &str = "gateway";
/// Longer than the other gateway's own bounds on the time of calls, so that those come first.
const TIMEOUT_MS: u64 = 30 * 60 * 1000;
const TIMEOUT_MAX_MS: u64 = 12 * 60 * 60 * 1000;
/// The most calls at once: as many as one client may have in flight.
const IN_FLIGHT_MAX: usize = 256;

impl Config {
    /// The configuration of a gateway in front of the one at this URL, with this key. A URL
    /// without a path gets `/mcp`. Names are the other gateway's own.
    ///
    /// # Errors
    /// The URL or the key cannot be used.
    pub fn in_front_of(url: &str, key: Option<&str>) -> Result<Config, Vec<Problem>> {
        let headers = match key {
            Some(_) => json!({ "Authorization": "Bearer ${KEY}" }),
            None => json!({}),
        };
        let text = json!({
            "prefix": "never",
            "log": { "level": "warn" },
            "mcp_servers": { name_of_gateway(url): {
                "url": "${URL}",
                "headers": headers,
                "required": true,
                "timeout_ms": TIMEOUT_MS,
                "timeout_max_ms": TIMEOUT_MAX_MS,
                "max_in_flight": IN_FLIGHT_MAX,
            } },
        });
        let url = with_path(url);
        let value = |name: &str| match name {
            "URL" => Some(url.clone()),
            "KEY" => key.map(str::to_owned),
            _ => None,
        };
        let mut config = Config::parse(&text.to_string(), &value, &Overrides::default())?;
        for upstream in &mut config.upstreams {
            Arc::make_mut(upstream).role = Role::OtherGateway;
        }
        Ok(config)
    }
}

/// The name of the gateway at this URL in messages: its host and port.
pub fn name_of_gateway(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = host.rsplit('@').next().unwrap_or_default();
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    let name: String = host.chars().map(plain).collect();
    let name = ServerName::parse(name.trim_matches('-'));
    name.map_or_else(|| NAME.to_owned(), |name| name.as_str().to_owned())
}

/// The URL with the path of the gateway's usual endpoint, if it has none.
fn with_path(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    match rest.split_once('/') {
        None => format!("{url}/mcp"),
        Some((_, "")) => format!("{url}mcp"),
        Some(_) => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Target;

    #[test]
    fn a_url_without_a_path_leads_to_the_usual_endpoint() {
        for (url, expected) in [
            ("http://h:1", "http://h:1/mcp"),
            ("https://h/", "https://h/mcp"),
            ("http://h/mcp/one", "http://h/mcp/one"),
        ] {
            let config = Config::in_front_of(url, Some("a key that is long enough")).unwrap();
            let Target::Http(target) = &config.upstreams[0].target else { panic!() };
            assert_eq!(target.url, expected);
            assert_eq!(target.headers[0].1.expose(), "Bearer a key that is long enough");
        }
        assert!(Config::in_front_of("nonsense", None).is_err());
    }

    #[test]
    fn a_gateway_is_called_by_its_host() {
        for (url, name) in [
            ("http://h.example:1/mcp", "h-example-1"),
            ("https://user:secret@[::1]:4000", "1--4000"),
            ("http://mcp", "gateway"),
            ("", "gateway"),
        ] {
            assert_eq!(name_of_gateway(url), name, "{url}");
        }
    }
}
