//! Pure: the commands as values, and the table of their names.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::config::Listen;

/// A command of the program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Command {
    Help(Option<Name>),
    Version,
    Serve { config: PathBuf, listen: Option<Listen> },
    Demo { http: Option<SocketAddr> },
    HashKey,
    Import { file: OsString },
    Pins { config: PathBuf, what: Pins },
    Check { config: PathBuf, contact: Contact, output: Output },
    Login { config: PathBuf, server: String, come_back: ComeBack },
    Logout { config: PathBuf, server: String, user: Option<String> },
    Talk(Talk),
    NewKey { output: Output },
    Completions(Shell),
    Man,
}

/// The servers that `check` contacts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Contact {
    #[default]
    All,
    None,
}

/// The form of a result.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Output {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

/// How a browser that has signed in comes back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum ComeBack {
    /// By itself, to this machine or to the running gateway.
    #[default]
    Browser,
    /// Somebody pastes where it ended.
    Paste,
}

/// An action on pins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Pins {
    List,
    Diff { server: String, tool: Option<String> },
    Accept { server: String, tool: Option<String> },
}

impl Pins {
    /// Reads the words behind `pins`.
    ///
    /// # Errors
    /// The fault, as a sentence without its full stop.
    pub(super) fn parse(words: Vec<String>) -> Result<Pins, String> {
        let mut words = words.into_iter();
        match (words.next().as_deref(), words.next(), words.next()) {
            (Some("list"), None, _) => Ok(Pins::List),
            (Some("list"), Some(word), _) => Err(format!("pins list: unexpected {word:?}")),
            (Some("diff"), Some(server), tool) => Ok(Pins::Diff { server, tool }),
            (Some("accept"), Some(server), tool) => Ok(Pins::Accept { server, tool }),
            (Some("accept" | "diff") | None, _, _) => Err("pins: say what: pins list, \
                pins diff SERVER [TOOL], or pins accept SERVER [TOOL]"
                .into()),
            (Some(word), _, _) => Err(format!(
                "pins: there is no command {word:?}; there are: list, diff, accept"
            )),
        }
    }
}

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

/// A shell that completes words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shell {
    Bash,
    Zsh,
    Fish,
}

impl Shell {
    pub(super) fn parse(word: &str) -> Option<Shell> {
        match word {
            "bash" => Some(Shell::Bash),
            "zsh" => Some(Shell::Zsh),
            "fish" => Some(Shell::Fish),
            _ => None,
        }
    }
}

/// A command by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Name {
    Serve,
    Demo,
    HashKey,
    Import,
    Pins,
    Check,
    Login,
    Logout,
    Stdio,
    Tools,
    Call,
    Status,
    Reload,
    NewKey,
    Completions,
    Man,
    Help,
}

/// The file that reads the words behind a command's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReadBy {
    /// In `arguments.rs`; the command reads a configuration.
    ArgumentsWithConfig,
    /// In `arguments.rs`; the command reads no configuration.
    Arguments,
    /// In `talk.rs`.
    Talk,
}

/// The properties of a command.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row {
    /// The name as it is written.
    pub(super) word: &'static str,
    pub(super) read_by: ReadBy,
    /// Words without a dash that may follow, of a command that is read in `talk.rs`.
    pub(super) values_max: usize,
    /// True if `--json` may follow, of a command that is read in `talk.rs`.
    pub(super) has_json: bool,
}

impl Name {
    /// All commands.
    const ALL: [Name; 17] = [
        Name::Serve,
        Name::Demo,
        Name::HashKey,
        Name::Import,
        Name::Pins,
        Name::Check,
        Name::Login,
        Name::Logout,
        Name::Stdio,
        Name::Tools,
        Name::Call,
        Name::Status,
        Name::Reload,
        Name::NewKey,
        Name::Completions,
        Name::Man,
        Name::Help,
    ];

    /// The row of the table of commands.
    pub(super) const fn row(self) -> Row {
        const fn row(word: &'static str, read_by: ReadBy) -> Row {
            Row { word, read_by, values_max: 0, has_json: false }
        }
        match self {
            Self::Serve => row("serve", ReadBy::ArgumentsWithConfig),
            Self::Demo => row("demo", ReadBy::Arguments),
            Self::HashKey => row("hash-key", ReadBy::Arguments),
            Self::Import => row("import", ReadBy::Arguments),
            Self::Pins => row("pins", ReadBy::ArgumentsWithConfig),
            Self::Check => row("check", ReadBy::ArgumentsWithConfig),
            Self::Login => row("login", ReadBy::ArgumentsWithConfig),
            Self::Logout => row("logout", ReadBy::ArgumentsWithConfig),
            Self::Stdio => row("stdio", ReadBy::Talk),
            Self::Tools => Row { values_max: 1, has_json: true, ..row("tools", ReadBy::Talk) },
            Self::Call => {
                Row { values_max: usize::MAX, has_json: true, ..row("call", ReadBy::Talk) }
            }
            Self::Status => Row { has_json: true, ..row("status", ReadBy::Talk) },
            Self::Reload => row("reload", ReadBy::Talk),
            Self::NewKey => Row { has_json: true, ..row("new-key", ReadBy::Talk) },
            Self::Completions => Row { values_max: 1, ..row("completions", ReadBy::Talk) },
            Self::Man => row("man", ReadBy::Talk),
            Self::Help => Row { values_max: 1, ..row("help", ReadBy::Talk) },
        }
    }

    /// The command of that name.
    ///
    /// # Errors
    /// There is none; the text says so.
    pub(super) fn parse(word: &str) -> Result<Name, String> {
        let found = Name::ALL.into_iter().find(|name| name.row().word == word);
        found.ok_or_else(|| format!("there is no command {word:?}"))
    }

    /// True if the command is read in `arguments.rs` and reads a configuration.
    pub(super) fn has_config(self) -> bool {
        self.row().read_by == ReadBy::ArgumentsWithConfig
    }
}
