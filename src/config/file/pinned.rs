//! The servers with pins and their `state_dir`, read from a file whose other values may be
//! invalid: a reviewer of pins may lack the gateway's variables.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::expand::{Outside, expand};
use crate::config::{Config, Overrides, Pin, Problem};
use crate::protocol::server_name::ServerName;

/// A server and the treatment of its changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PinnedServer {
    /// The server's NAME.
    pub name: ServerName,
    /// The treatment.
    pub pin: Pin,
}

impl Config {
    /// Reads `state_dir`, and the servers with their pins.
    ///
    /// # Errors
    /// Every problem of the file, where it is no object of JSON, or has no `state_dir` that can be
    /// resolved here.
    pub fn pinned(path: &Path) -> Result<(Option<PathBuf>, Vec<PinnedServer>), Vec<Problem>> {
        match Config::load(path, &Overrides::default()) {
            Ok(config) => {
                let servers = config.upstreams.iter();
                let of = |it: &std::sync::Arc<crate::config::UpstreamConfig>| PinnedServer {
                    name: it.name.clone(),
                    pin: it.pin,
                };
                Ok((config.state_dir.clone(), servers.map(of).collect()))
            }
            Err(problems) => {
                let text = std::fs::read_to_string(path).unwrap_or_default();
                let folder = std::path::absolute(path).unwrap_or_default();
                let environment = |name: &str| std::env::var(name).ok();
                let outside = Outside { environment: &environment, folder: folder.parent() };
                let found = of_text(&text, outside).ok_or(problems);
                found.map(|(state_dir, servers)| (Some(state_dir), servers))
            }
        }
    }
}

fn of_text(text: &str, outside: Outside<'_>) -> Option<(PathBuf, Vec<PinnedServer>)> {
    let file: Value = serde_json::from_str(text).ok()?;
    let path = expand(file.get("state_dir")?.as_str()?, outside).ok()?.value;
    let state_dir = outside.folder.map_or_else(|| PathBuf::from(&path), |it| it.join(&path));
    let servers = file.get("mcp_servers").or_else(|| file.get("mcpServers"))?.as_object()?;
    let of = |(name, server): (&String, &Value)| {
        let word = server.get("pin").and_then(Value::as_str).unwrap_or("off");
        let pin = Pin::ALL.into_iter().find(|pin| pin.as_str() == word)?;
        Some(PinnedServer { name: ServerName::parse(name)?, pin })
    };
    Some((state_dir, servers.iter().filter_map(of).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_are_found_whatever_else_the_file_says() {
        let environment = |_: &str| None;
        let outside = Outside { environment: &environment, folder: Some(Path::new("/etc/t")) };
        let (state_dir, servers) = of_text(
            r#"{"state_dir":"state","api_keys":[{"key":"${UNSET}"}],"colour":1,"mcp_servers":{
                "a":{"url":"${UNSET}","pin":"enforce"},"b":{"command":"x"},"c":{"pin":"loose"}}}"#,
            outside,
        )
        .unwrap();
        assert_eq!(state_dir, Path::new("/etc/t/state"));
        let servers: Vec<_> = servers.iter().map(|it| (it.name.as_str(), it.pin)).collect();
        assert_eq!(servers, [("a", Pin::Enforce), ("b", Pin::Off)]);
        for text in [
            "",
            "{",
            "[]",
            r#"{"state_dir":"${UNSET}","mcp_servers":{}}"#,
            r#"{"mcp_servers":{}}"#,
        ] {
            assert_eq!(of_text(text, outside), None, "{text}");
        }
    }
}
