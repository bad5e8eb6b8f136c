//! The arguments of commands that talk to a gateway, or to the servers of a configuration. Pure.

use std::path::PathBuf;

use lexopt::prelude::{Long, Short, Value};

use super::arguments::{Command, Name, Output, sentence};
use super::completions::Shell;

/// The target of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum At {
    /// The servers, or the gateway, of this configuration.
    Config(PathBuf),
    /// A running gateway, or any MCP server over HTTP.
    Url(String),
}

impl At {
    /// The target for one server: another gateway has an endpoint of its own for it.
    pub(super) fn of_server(&self, server: Option<&str>) -> At {
        match (self, server) {
            (At::Url(url), Some(server)) => {
                let rest = url.split_once("://").map_or(url.as_str(), |(_, rest)| rest);
                let path = rest.trim_end_matches('/').split_once('/').map(|(_, path)| path);
                let mcp = if path.is_some() { "" } else { "/mcp" };
                At::Url(format!("{}{mcp}/{server}", url.trim_end_matches('/')))
            }
            (At::Url(_), None) | (At::Config(_), _) => self.clone(),
        }
    }
}

/// A command that talks to the target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Talk {
    Stdio { at: At },
    Tools { at: At, server: Option<String>, output: Output },
    Call(Call),
    Status { at: At, output: Output },
    Reload { at: At },
}

/// One call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Call {
    pub(super) at: At,
    pub(super) name: String,
    /// Objects, `key=value`, or `-`.
    pub(super) arguments: Vec<String>,
    pub(super) output: Output,
    /// The folder for images and other files.
    pub(super) save: Option<PathBuf>,
    /// True if the user is asked no questions.
    pub(super) never_ask: bool,
}

/// Parses the words behind the command's name.
///
/// # Errors
/// The fault, as a sentence without its full stop.
pub(super) fn parse(
    name: Name,
    mut words: lexopt::Parser,
    config_default: impl FnOnce() -> PathBuf,
) -> Result<Command, String> {
    let (mut at, mut output, mut save, mut never_ask) = (None, Output::Text, None, false);
    let mut values = Vec::new();
    let is_call = name == Name::Call;
    while let Some(word) = words.next().map_err(sentence)? {
        match word {
            Short('h') | Long("help") => return Ok(Command::Help(Some(name))),
            Short('V') | Long("version") => return Ok(Command::Version),
            Short('c') | Long("config") if at.is_none() => {
                at = Some(At::Config(PathBuf::from(words.value().map_err(sentence)?)));
            }
            Long("url") if at.is_none() => {
                let url = words.value().and_then(|text| Ok(text.into_string()?));
                at = Some(At::Url(url.map_err(sentence)?));
            }
            Short('c') | Long("config" | "url") => {
                return Err("one --config or one --url is enough".to_owned());
            }
            Long("json") if has_json(name) => output = Output::Json,
            Long("save") if is_call => {
                save = Some(PathBuf::from(words.value().map_err(sentence)?));
            }
            Long("no-ask") if is_call => never_ask = true,
            Value(word) if values.len() < values_max(name) => {
                values.push(
                    word.into_string()
                        .map_err(|word| format!("{} is not UTF-8", word.display()))?,
                );
            }
            other @ (Short(_) | Long(_) | Value(_)) => {
                return Err(sentence(other.unexpected()));
            }
        }
    }
    let mut values = values.into_iter();
    if let Some(command) = of_itself(name, output, &mut values)? {
        return Ok(command);
    }
    let at = at.unwrap_or_else(|| At::Config(config_default()));
    Ok(Command::Talk(match name {
        Name::Tools => Talk::Tools { at, server: values.next(), output },
        Name::Call => {
            let name = values.next().ok_or("call: say which tool: trunkline call NAME")?;
            let arguments = values.collect();
            Talk::Call(Call { at, name, arguments, output, save, never_ask })
        }
        Name::Status => Talk::Status { at, output },
        Name::Reload => Talk::Reload { at },
        // The other commands talk to no gateway, and do not come here.
        Name::Stdio
        | Name::Serve
        | Name::Demo
        | Name::HashKey
        | Name::Import
        | Name::Check
        | Name::Pins
        | Name::NewKey
        | Name::Completions
        | Name::Man
        | Name::Help => Talk::Stdio { at },
    }))
}

/// Commands that need no gateway.
fn of_itself(
    name: Name,
    output: Output,
    values: &mut impl Iterator<Item = String>,
) -> Result<Option<Command>, String> {
    Ok(match name {
        Name::NewKey => Some(Command::NewKey { output }),
        Name::Completions => {
            let shell =
                values.next().ok_or("completions: say which shell: bash, zsh or fish")?;
            let shell = Shell::parse(&shell).ok_or_else(|| {
                format!("completions: {shell:?} is none of the shells bash, zsh and fish")
            })?;
            Some(Command::Completions(shell))
        }
        Name::Man => Some(Command::Man),
        Name::Help => {
            Some(Command::Help(values.next().map(|word| Name::parse(&word)).transpose()?))
        }
        Name::Stdio
        | Name::Tools
        | Name::Call
        | Name::Status
        | Name::Reload
        | Name::Serve
        | Name::Demo
        | Name::HashKey
        | Name::Import
        | Name::Check
        | Name::Pins => None,
    })
}

fn has_json(name: Name) -> bool {
    matches!(name, Name::Tools | Name::Call | Name::Status | Name::NewKey)
}

/// The number of words that may follow.
fn values_max(name: Name) -> usize {
    match name {
        Name::Call => usize::MAX,
        Name::Tools | Name::Completions | Name::Help => 1,
        Name::Stdio
        | Name::Status
        | Name::Reload
        | Name::Serve
        | Name::Demo
        | Name::HashKey
        | Name::Import
        | Name::Check
        | Name::Pins
        | Name::NewKey
        | Name::Man => 0,
    }
}
