//! Parses the words of the command line to a [`Command`].

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

use lexopt::prelude::{Long, Short, Value};

use super::command::{ComeBack, Command, Contact, Name, Output, Pins, ReadBy};
use super::talk::{self, sentence};
use crate::config::Listen;

/// Words after `pins`: `accept SERVER TOOL`, `diff SERVER TOOL`.
const PINS_WORDS_MAX: usize = 3;
/// The configuration's file if no word names one; [`CONFIG_VARIABLE`] names another.
const CONFIG_DEFAULT: &str = "config.json";
const CONFIG_VARIABLE: &str = "TRUNKLINE_CONFIG";

/// The configuration's file if the arguments name none.
pub(super) fn config_default() -> PathBuf {
    let named = std::env::var_os(CONFIG_VARIABLE).filter(|name| !name.is_empty());
    named.map_or_else(|| PathBuf::from(CONFIG_DEFAULT), PathBuf::from)
}

/// True if a word in a command's place is the file of a configuration.
fn is_file(word: &str) -> bool {
    word.contains(['/', '.'])
}

/// The word as a name, which is a text.
///
/// # Errors
/// The word is not UTF-8.
fn named(word: OsString, kind: &str) -> Result<String, String> {
    word.into_string().map_err(|word| format!("no {kind} is called {}", word.display()))
}

/// Parses the arguments. `config_default` gives the configuration's file if they name none.
///
/// # Errors
/// The fault, as a sentence without its full stop.
pub(super) fn command(
    arguments: impl IntoIterator<Item = OsString>,
    config_default: impl FnOnce() -> PathBuf,
) -> Result<Command, String> {
    let mut words = lexopt::Parser::from_args(arguments);
    let mut name = None;
    let mut given = Given::default();
    while let Some(word) = words.next().map_err(sentence)? {
        // `serve` is the default command, so its options come without it too.
        let serves = matches!(name, None | Some(Name::Serve));
        match word {
            Short('h') | Long("help") => return Ok(Command::Help(name)),
            Short('V') | Long("version") => return Ok(Command::Version),
            Short('c') | Long("config") if name.is_none_or(Name::has_config) => {
                name = name.or(Some(Name::Serve));
                given.config = Some(PathBuf::from(words.value().map_err(sentence)?));
            }
            Long("no-connect") if name == Some(Name::Check) => given.contact = Contact::None,
            Long("connect") if name == Some(Name::Check) => given.contact = Contact::All,
            Long("json") if name == Some(Name::Check) => given.output = Output::Json,
            Value(word) if name == Some(Name::Pins) && given.pins.len() < PINS_WORDS_MAX => {
                given.pins.push(named(word, "server or tool")?);
            }
            Long("user") if name == Some(Name::Logout) => {
                given.user = Some(text_of(&mut words)?);
            }
            Long("paste") if name == Some(Name::Login) => given.come_back = ComeBack::Paste,
            Value(word)
                if matches!(name, Some(Name::Login | Name::Logout))
                    && given.server.is_none() =>
            {
                given.server = Some(named(word, "server")?);
            }
            Value(word) if name == Some(Name::Import) && given.import.is_none() => {
                given.import = Some(word);
            }
            Long("listen") if serves => {
                name = Some(Name::Serve);
                let text = text_of(&mut words)?;
                given.listen = Some(Listen::of_words(&text).ok_or_else(|| {
                    format!("--listen: not an address and port, nor a port: {text:?}")
                })?);
            }
            Long("http") if name == Some(Name::Demo) => {
                let text = text_of(&mut words)?;
                given.http = Some(demo_address(&text).ok_or_else(|| {
                    format!("--http: not an address and port, nor a port: {text:?}")
                })?);
            }
            Value(word) if name.is_none() && is_file(&word.to_string_lossy()) => {
                name = Some(Name::Serve);
                given.config = Some(PathBuf::from(word));
            }
            Value(word) if name.is_none() => {
                let word = Name::parse(&word.to_string_lossy())?;
                if word.row().read_by == ReadBy::Talk {
                    return talk::parse(word, words, config_default);
                }
                name = Some(word);
            }
            Value(word)
                if matches!(name, Some(Name::Serve | Name::Check))
                    && given.config.is_none() =>
            {
                given.config = Some(PathBuf::from(word));
            }
            other @ (Short(_) | Long(_) | Value(_)) => {
                return Err(sentence(other.unexpected()));
            }
        }
    }
    given.into_command(name, config_default)
}

/// The words behind a command's name.
#[derive(Default)]
struct Given {
    config: Option<PathBuf>,
    listen: Option<Listen>,
    http: Option<SocketAddr>,
    /// The words behind `pins`.
    pins: Vec<String>,
    contact: Contact,
    output: Output,
    /// The server to sign in at, or out of.
    server: Option<String>,
    /// The user to sign out.
    user: Option<String>,
    come_back: ComeBack,
    /// The file to import.
    import: Option<OsString>,
}

impl Given {
    fn into_command(
        self,
        name: Option<Name>,
        config_default: impl FnOnce() -> PathBuf,
    ) -> Result<Command, String> {
        let config = self.config.unwrap_or_else(config_default);
        Ok(match name {
            None | Some(Name::Serve) => Command::Serve { config, listen: self.listen },
            Some(Name::Pins) => Command::Pins { config, what: Pins::parse(self.pins)? },
            Some(Name::Demo) => Command::Demo { http: self.http },
            Some(Name::HashKey) => Command::HashKey,
            Some(Name::Check) => {
                Command::Check { config, contact: self.contact, output: self.output }
            }
            Some(Name::Login) => Command::Login {
                config,
                server: self
                    .server
                    .ok_or("login: say at which server: trunkline login NAME")?,
                come_back: self.come_back,
            },
            Some(Name::Logout) => Command::Logout {
                config,
                server: self
                    .server
                    .ok_or("logout: say of which server: trunkline logout NAME")?,
                user: self.user,
            },
            Some(Name::Import) => Command::Import {
                file: self.import.ok_or("import: say which file, or - for standard input")?,
            },
            Some(
                Name::Stdio
                | Name::Tools
                | Name::Call
                | Name::Status
                | Name::Reload
                | Name::NewKey
                | Name::Completions
                | Name::Man
                | Name::Help,
            ) => return Err("a command comes before its options".to_owned()),
        })
    }
}

/// Parses an address for the demo server.
fn demo_address(text: &str) -> Option<SocketAddr> {
    match Listen::of_words(text)? {
        Listen::Tcp(address) => Some(address),
        Listen::Unix(_) => None,
    }
}

/// The text behind an option.
fn text_of(words: &mut lexopt::Parser) -> Result<String, String> {
    words.value().and_then(|text| Ok(text.into_string()?)).map_err(sentence)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Command, String> {
        let words = line.split_whitespace().map(OsString::from);
        command(words, || PathBuf::from("config.json"))
    }

    #[test]
    fn serve_is_the_default_command() {
        let default = Command::Serve { config: "config.json".into(), listen: None };
        assert_eq!(parse(""), Ok(default.clone()));
        assert_eq!(parse("serve"), Ok(default));
        let listen = Listen::parse("127.0.0.1:1");
        let other = Command::Serve { config: "f".into(), listen };
        assert_eq!(parse("--config f --listen 127.0.0.1:1"), Ok(other.clone()));
        assert_eq!(parse("serve --listen=127.0.0.1:1 --config=f"), Ok(other));
    }

    #[test]
    fn a_file_is_named_in_every_usual_way() {
        let serve = |config: &str, listen: &str| {
            let listen = Some(listen).filter(|text| !text.is_empty());
            let listen = listen.map(|text| Listen::parse(text).unwrap());
            Ok(Command::Serve { config: config.into(), listen })
        };
        for line in ["./f", "a/f", "f.json", "serve f", "-c f", "-cf", "serve -c f"] {
            let config = line.rsplit(' ').next().unwrap().trim_start_matches("-c");
            assert_eq!(parse(line), serve(config, ""), "{line}");
        }
        assert_eq!(parse("f.json --listen 80"), serve("f.json", "127.0.0.1:80"));
        assert_eq!(parse("--listen :80 -c f"), serve("f", "127.0.0.1:80"));
        let check = |config: &str, contact, output| {
            Ok(Command::Check { config: config.into(), contact, output })
        };
        assert_eq!(parse("check"), check("config.json", Contact::All, Output::Text));
        assert_eq!(parse("check f --no-connect"), check("f", Contact::None, Output::Text));
        assert_eq!(parse("check -c f --json"), check("f", Contact::All, Output::Json));
    }

    #[test]
    fn every_command_is_read() {
        assert_eq!(parse("demo"), Ok(Command::Demo { http: None }));
        for (text, address) in [
            ("127.0.0.1:7000", "127.0.0.1:7000"),
            ("localhost:7000", "127.0.0.1:7000"),
            (":7000", "127.0.0.1:7000"),
            ("7000", "127.0.0.1:7000"),
            ("[::1]:7000", "[::1]:7000"),
            ("0.0.0.0:0", "0.0.0.0:0"),
        ] {
            let http = address.parse().ok();
            assert_eq!(parse(&format!("demo --http {text}")), Ok(Command::Demo { http }));
        }
        assert_eq!(parse("hash-key"), Ok(Command::HashKey));
        for file in ["mcp.json", "-"] {
            let import = Command::Import { file: file.into() };
            assert_eq!(parse(&format!("import {file}")), Ok(import));
        }
        let accept = |config: &str, tool: Option<&str>| {
            let tool = tool.map(str::to_owned);
            let what = Pins::Accept { server: "s".to_owned(), tool };
            Ok(Command::Pins { config: config.into(), what })
        };
        assert_eq!(parse("pins accept s"), accept("config.json", None));
        assert_eq!(parse("pins accept s t --config f"), accept("f", Some("t")));
        assert_eq!(parse("pins --config=f accept s -- --t"), accept("f", Some("--t")));
        let login = |come_back| {
            let (config, server) = ("f".into(), "s".to_owned());
            Ok(Command::Login { config, server, come_back })
        };
        assert_eq!(parse("login s -c f"), login(ComeBack::Browser));
        assert_eq!(parse("login --paste --config f s"), login(ComeBack::Paste));
        let logout = |user: Option<&str>| {
            let (config, server) = ("config.json".into(), "s".to_owned());
            Ok(Command::Logout { config, server, user: user.map(str::to_owned) })
        };
        assert_eq!(parse("logout s"), logout(None));
        assert_eq!(parse("logout --user a@idp s"), logout(Some("a@idp")));
        let pins = |what| Ok(Command::Pins { config: "config.json".into(), what });
        assert_eq!(parse("pins list"), pins(Pins::List));
        let diff = |tool: Option<&str>| Pins::Diff {
            server: "s".to_owned(),
            tool: tool.map(str::to_owned),
        };
        assert_eq!(parse("pins diff s"), pins(diff(None)));
        assert_eq!(parse("pins diff s t"), pins(diff(Some("t"))));
        assert_eq!(parse("-V"), Ok(Command::Version));
        assert_eq!(parse("serve --version"), Ok(Command::Version));
        assert_eq!(parse("-h"), Ok(Command::Help(None)));
        assert_eq!(parse("demo --help"), Ok(Command::Help(Some(Name::Demo))));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (line, part) in [
            ("frobnicate", "\"frobnicate\""),
            ("call", "which tool"),
            ("check --listen 1", "--listen"),
            ("check a.json b.json", "b.json"),
            ("serve --json", "--json"),
            ("serve x y", "y"),
            ("--config", "--config"),
            ("--listen nowhere", "\"nowhere\""),
            ("--colour", "--colour"),
            ("--http 127.0.0.1:1", "--http"),
            ("demo --config f", "--config"),
            ("demo --http a:1", "\"a:1\""),
            ("demo --http unix:/x", "unix:/x"),
            ("demo --http :", "\":\""),
            ("demo --http 65536", "65536"),
            ("hash-key secret", "secret"),
            ("import", "which file"),
            ("import a b", "b"),
            ("--config f demo", "demo"),
            ("login", "login NAME"),
            ("login a b", "b"),
            ("logout", "logout NAME"),
            ("logout a --paste", "--paste"),
            ("logout a --user", "--user"),
            ("login a --user b", "--user"),
            ("pins", "SERVER"),
            ("pins accept", "SERVER"),
            ("pins diff", "SERVER"),
            ("pins list s", "\"s\""),
            ("pins frobnicate s", "\"frobnicate\""),
            ("pins accept s t u", "u"),
            ("pins accept s --listen x", "--listen"),
        ] {
            let error = parse(line).expect_err(line);
            assert!(error.contains(part), "{line}: {error}");
        }
    }
}
