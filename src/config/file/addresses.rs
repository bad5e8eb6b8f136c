//! The addresses on which a configured gateway listens, read from a file whose other values may
//! be invalid: a command to a running gateway needs only its address, in any environment, and the
//! file may have changed since the gateway read it.

use std::path::Path;

use serde::de::IgnoredAny;

use super::expand::{Outside, expand};
use super::place::{Aim, Source};
use crate::config::{Config, Listen, Problem};

/// The addresses that a file gives.
#[derive(Debug)]
pub struct Addresses {
    /// The value of `listen`, or its default.
    ///
    /// # Errors
    /// The value cannot be used, or not be resolved in this environment.
    pub listen: Result<Listen, Problem>,
    /// The value of `admin_listen`, where it can be used.
    pub admin_listen: Option<Listen>,
}

impl Config {
    /// Reads the addresses of a file, and no other value.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn addresses(path: &Path) -> Result<Addresses, Problem> {
        let text = std::fs::read_to_string(path).map_err(crate::config::unreadable)?;
        let path = std::path::absolute(path).map_err(crate::config::unreadable)?;
        let environment = |name: &str| std::env::var(name).ok();
        Ok(addresses(&text, Outside { environment: &environment, folder: path.parent() }))
    }
}

fn addresses(text: &str, outside: Outside<'_>) -> Addresses {
    let source = Source::new(text);
    let of = |at: &str| {
        let written = source.value(at)?;
        let read = read(written, outside).map_err(|what| Problem {
            place: source.find(at, Aim::Value),
            ..Problem::new(at, what)
        });
        Some(read)
    };
    // Half a file may lack the address: the default may be another gateway's.
    let is_whole = || serde_json::from_str::<IgnoredAny>(text).is_ok();
    let none = || match is_whole() {
        true => Ok(Listen::DEFAULT),
        false => Err(Problem::new("", "is no JSON, and no \"listen\" is found in it")),
    };
    Addresses {
        listen: of("/listen").unwrap_or_else(none),
        admin_listen: of("/admin_listen").and_then(Result::ok),
    }
}

/// Reads an address as it stands in the file, with its quotes.
fn read(written: &str, outside: Outside<'_>) -> Result<Listen, String> {
    let text: String =
        serde_json::from_str(written).map_err(|_| "must be a string".to_owned())?;
    let expanded = expand(&text, outside)?;
    Listen::parse(&expanded.value).ok_or_else(|| format!("not an address and port: {text:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Addresses {
        let environment = |name: &str| (name == "PORT").then(|| "5".to_owned());
        addresses(text, Outside { environment: &environment, folder: None })
    }

    #[test]
    fn an_address_is_found_whatever_else_the_file_says() {
        for text in [
            r#"{"listen":"127.0.0.1:5","api_keys":[{"key":"${UNSET}"}]}"#,
            r#"{"listen":"localhost:${PORT}","colour":1,"mcp_servers":3}"#,
            "{\"mcp_servers\":{\"a\":{\"listen\":\"h\"}},\n \"listen\": \"127.0.0.1:5\"",
            "// x\n{\"listen\":\"127.0.0.1:5\" \"log\":{",
        ] {
            assert_eq!(of(text).listen.unwrap().to_string(), "127.0.0.1:5", "{text}");
        }
        for text in ["{}", "{\"mcp_servers\":{\"listen\":\"h:1\"}}"] {
            assert_eq!(of(text).listen.unwrap(), Listen::DEFAULT, "{text}");
        }
        for text in ["", "{", "{\"mcp_servers\":{\"listen\":\"h:1\"", "listen: 1\n"] {
            assert!(of(text).listen.unwrap_err().what.contains("no JSON"), "{text}");
        }
    }

    #[test]
    fn one_that_cannot_be_resolved_is_told_and_the_other_one_is_not() {
        let found = of(r#"{"listen":"${UNSET}:1","admin_listen":"unix:/run/x"}"#);
        assert!(found.listen.unwrap_err().what.contains("UNSET is not set"));
        assert_eq!(found.admin_listen.unwrap().to_string(), "unix:/run/x");
        let found = of(r#"{"listen":4000,"admin_listen":"${UNSET}"}"#);
        assert!(found.listen.is_err() && found.admin_listen.is_none());
    }
}
