//! The name of a server.

use std::fmt;

use crate::limits::SERVER_NAME_BYTES_MAX;

/// A server's key under `mcp_servers` in `config.json`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServerName(std::sync::Arc<str>);

/// Names with which the gateway's own paths begin.
const RESERVED: [&str; 4] = ["tools", "sse", "messages", "mcp"];

impl ServerName {
    /// Returns the name, if the text is one: letters, digits, `_` and `-`, never empty, not
    /// reserved, [`SERVER_NAME_BYTES_MAX`] bytes at most.
    pub fn parse(text: &str) -> Option<ServerName> {
        let ok = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        let reserved = RESERVED.iter().any(|name| name.eq_ignore_ascii_case(text));
        let fits = !text.is_empty() && text.len() <= SERVER_NAME_BYTES_MAX;
        let valid = fits && !reserved && text.chars().all(ok);
        valid.then(|| ServerName(text.into()))
    }

    /// A valid name made from a text of another host's file: every character that a name may not
    /// have becomes `_`.
    pub fn like(text: &str) -> Option<ServerName> {
        let ok = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        let plain: String = text.trim().chars().map(|c| if ok(c) { c } else { '_' }).collect();
        let plain = plain.get(..plain.len().min(SERVER_NAME_BYTES_MAX))?;
        let has_more = plain.contains(|c: char| c.is_ascii_alphanumeric());
        let named =
            || ServerName::parse(plain).or_else(|| ServerName::parse(&format!("{plain}_")));
        if has_more { named() } else { None }
    }

    /// The name as it is written in the configuration.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ServerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::borrow::Borrow<str> for ServerName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::ServerName;

    #[test]
    fn only_letters_digits_dash_and_underscore_make_a_name() {
        for good in ["a", "my_mcp-server", "9"] {
            assert!(ServerName::parse(good).is_some(), "{good}");
        }
        for bad in ["", "a b", "é", "a/b", "tools", "MCP", "a.b"] {
            assert!(ServerName::parse(bad).is_none(), "{bad}");
        }
        for (text, like) in [
            ("my.server", "my_server"),
            ("@scope/my server", "_scope_my_server"),
            (" a b ", "a_b"),
            ("tools", "tools_"),
            ("café", "caf_"),
        ] {
            assert_eq!(ServerName::like(text).unwrap().as_str(), like);
        }
        assert!(ServerName::like("").is_none() && ServerName::like("é").is_none());
        assert_eq!(ServerName::like(&"a".repeat(129)).unwrap().as_str(), "a".repeat(128));
        assert!(ServerName::parse(&"a".repeat(128)).is_some());
        assert!(ServerName::parse(&"a".repeat(129)).is_none());
    }
}
