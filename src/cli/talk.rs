//! Pure: the arguments of commands that talk to a gateway, or to the servers of a configuration.

use std::path::PathBuf;

use lexopt::prelude::{Long, Short, Value};

use super::command::{At, Call, Command, Name, Output, Shell, Talk};

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
            Long("json") if name.row().has_json => output = Output::Json,
            Long("save") if is_call => {
                save = Some(PathBuf::from(words.value().map_err(sentence)?));
            }
            Long("no-ask") if is_call => never_ask = true,
            Value(word) if values.len() < name.row().values_max => {
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
    let at = || at.unwrap_or_else(|| At::Config(config_default()));
    Ok(match name {
        Name::NewKey => Command::NewKey { output },
        Name::Completions => Command::Completions(shell(values.next())?),
        Name::Man => Command::Man,
        Name::Help => Command::Help(values.next().map(|word| Name::parse(&word)).transpose()?),
        Name::Tools => Command::Talk(Talk::Tools { at: at(), server: values.next(), output }),
        Name::Call => {
            let name = values.next().ok_or("call: say which tool: trunkline call NAME")?;
            let arguments = values.collect();
            Command::Talk(Talk::Call(Call {
                at: at(),
                name,
                arguments,
                output,
                save,
                never_ask,
            }))
        }
        Name::Status => Command::Talk(Talk::Status { at: at(), output }),
        Name::Reload => Command::Talk(Talk::Reload { at: at() }),
        // All but the first are read in `arguments.rs`, and do not come here.
        Name::Stdio
        | Name::Serve
        | Name::Demo
        | Name::HashKey
        | Name::Import
        | Name::Pins
        | Name::Login
        | Name::Logout
        | Name::Check => Command::Talk(Talk::Stdio { at: at() }),
    })
}

fn shell(word: Option<String>) -> Result<Shell, String> {
    let word = word.ok_or("completions: say which shell: bash, zsh or fish")?;
    Shell::parse(&word).ok_or_else(|| {
        format!("completions: {word:?} is none of the shells bash, zsh and fish")
    })
}

/// The fault of the words, as a sentence without its full stop.
pub(super) fn sentence(error: lexopt::Error) -> String {
    error.to_string()
}
