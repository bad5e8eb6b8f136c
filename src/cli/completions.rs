//! Pure: `trunkline completions` and `trunkline man`: the help's text for shells and for `man`.

use super::command::{Name, Shell};
use super::help;

/// A command as its help describes it.
#[derive(Debug)]
struct Described {
    name: &'static str,
    about: String,
    options: Vec<Opt>,
}

#[derive(Debug)]
struct Opt {
    short: Option<&'static str>,
    long: &'static str,
    /// The kind of value behind the option, if it takes one.
    value: Option<&'static str>,
    about: String,
}

impl Opt {
    /// True if the value is a file or a folder.
    fn is_path(&self) -> bool {
        matches!(self.value, Some("FILE" | "FOLDER"))
    }
}

/// The lines of a part of a help text.
fn part<'a>(text: &'a str, title: &str) -> impl Iterator<Item = &'a str> {
    let lines = text.lines().skip_while(move |line| *line != title).skip(1);
    lines.take_while(|line| line.starts_with("  "))
}

/// Words and their descriptions: a line each, and further lines that continue it.
fn entries(text: &'static str, title: &str) -> Vec<(&'static str, String)> {
    let mut entries: Vec<(&'static str, String)> = Vec::new();
    for line in part(text, title) {
        let line = line.strip_prefix("  ").unwrap_or(line);
        if let (true, Some((_, about))) = (line.starts_with(' '), entries.last_mut()) {
            about.push(' ');
            about.push_str(line.trim());
        } else {
            let (words, about) = line.split_once("   ").unwrap_or((line, ""));
            entries.push((words.trim(), about.trim().to_owned()));
        }
    }
    entries
}

fn options(text: &'static str) -> Vec<Opt> {
    let read = |(words, about): (&'static str, String)| {
        let mut opt = Opt { short: None, long: "", value: None, about };
        for word in words.split([' ', ',']).filter(|word| !word.is_empty()) {
            if let Some(long) = word.strip_prefix("--") {
                opt.long = long;
            } else if let Some(short) = word.strip_prefix('-') {
                opt.short = Some(short);
            } else {
                opt.value = Some(word);
            }
        }
        (!opt.long.is_empty()).then_some(opt)
    };
    entries(text, "Options:").into_iter().filter_map(read).collect()
}

fn described() -> Vec<Described> {
    let describe = |(name, about): (&'static str, String)| {
        let text = help::text(Some(Name::parse(name).ok()?));
        Some(Described { name, about, options: options(text) })
    };
    entries(help::text(None), "Commands:").into_iter().filter_map(describe).collect()
}

/// A completion script for the shell.
pub(super) fn script(shell: Shell) -> String {
    let commands = described();
    match shell {
        Shell::Bash => bash(&commands),
        Shell::Zsh => zsh(&commands),
        Shell::Fish => fish(&commands),
    }
}

fn bash(commands: &[Described]) -> String {
    let words = |options: &[Opt]| {
        let each = options.iter().map(|opt| format!("--{}", opt.long));
        each.collect::<Vec<_>>().join(" ")
    };
    let names: Vec<&str> = commands.iter().map(|command| command.name).collect();
    let mut cases = String::new();
    for Described { name, options, .. } in commands {
        cases.push_str(&format!(
            "        {name}) words=\"{}\" ;;\n",
            further(name, &words(options))
        ));
    }
    let all = names.join(" ");
    let (paths, others) = before_values(commands);
    let own = words(&options(help::text(None)));
    format!(
        "# Completes trunkline in bash: eval \"$(trunkline completions bash)\"\n\
         _trunkline() {{\n    \
             local current=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}}\n    \
             local command= words= word\n    \
             case $before in\n        \
                 {paths}|import) COMPREPLY=($(compgen -f -- \"$current\")); return ;;\n        \
                 {others}) COMPREPLY=(); return ;;\n    \
             esac\n    \
             for word in \"${{COMP_WORDS[@]:1:COMP_CWORD-1}}\"; do\n        \
                 case $word in -*) ;; *) command=$word; break ;; esac\n    \
             done\n    \
             case $command in\n        \
                 '') words=\"{all} {own}\" ;;\n{cases}    \
             esac\n    \
             COMPREPLY=($(compgen -W \"$words\" -- \"$current\"))\n\
         }}\n\
         complete -F _trunkline trunkline\n"
    )
}

/// Patterns of the options with a path behind them, and of those with another value, for which
/// there are no words.
fn before_values(commands: &[Described]) -> (String, String) {
    let own = options(help::text(None));
    let all = commands.iter().flat_map(|command| &command.options).chain(&own);
    let [mut paths, mut others] = [const { Vec::new() }; 2];
    for opt in all.filter(|opt| opt.value.is_some()) {
        let short = opt.short.map(|short| format!("-{short}"));
        let words = short.into_iter().chain([format!("--{}", opt.long)]);
        if opt.is_path() { paths.extend(words) } else { others.extend(words) }
    }
    let pattern = |mut words: Vec<String>| {
        words.sort();
        words.dedup();
        words.join("|")
    };
    (pattern(paths), pattern(others))
}

/// The words that may follow a command, besides its options.
fn further(name: &str, options: &str) -> String {
    let words = match name {
        "completions" => "bash zsh fish ",
        "pins" => "list diff accept ",
        _ => "",
    };
    format!("{words}{options}")
}

fn zsh(commands: &[Described]) -> String {
    let quoted =
        |text: &str| text.replace('\'', "'\\''").replace(['[', ']'], "").replace(':', "\\:");
    let names: String = commands
        .iter()
        .map(|it| format!("        '{}:{}'\n", it.name, quoted(&it.about)))
        .collect();
    let mut cases = String::new();
    for Described { name, options, .. } in commands {
        let mut words = String::new();
        for opt in options {
            let value = match (opt.value, opt.is_path()) {
                (None, _) => String::new(),
                (Some(value), true) => format!(":{value}:_files"),
                (Some(value), false) => format!(":{value}:"),
            };
            words.push_str(&format!(
                " \\\n            '--{}[{}]{value}'",
                opt.long,
                quoted(&opt.about)
            ));
        }
        let more = match *name {
            "completions" => "'1:shell:(bash zsh fish)'",
            "pins" => "'1:what:(list diff accept)'",
            _ => "'*:: :_files'",
        };
        cases.push_str(&format!("        {name}) _arguments {more}{words} ;;\n"));
    }
    format!(
        "#compdef trunkline\n\
         # Completes trunkline in zsh: put it as _trunkline into a folder of $fpath.\n\
         _trunkline() {{\n    \
             local -a commands=(\n{names}    )\n    \
             if (( CURRENT == 2 )); then\n        \
                 _describe command commands\n        \
                 return\n    \
             fi\n    \
             local command=$words[2]\n    \
             shift words; (( CURRENT-- ))\n    \
             case $command in\n{cases}    \
             esac\n\
         }}\n\
         if [ \"$funcstack[1]\" = _trunkline ]; then _trunkline \"$@\"; else compdef _trunkline trunkline; fi\n"
    )
}

fn fish(commands: &[Described]) -> String {
    let quoted = |text: &str| text.replace('\\', "\\\\").replace('\'', "\\'");
    let mut out = String::from(
        "# Completes trunkline in fish: trunkline completions fish > \
         ~/.config/fish/completions/trunkline.fish\ncomplete -c trunkline -f\n",
    );
    let mut option = |when: &str, opt: &Opt| {
        let short = opt.short.map(|short| format!(" -s {short}")).unwrap_or_default();
        let value = match (opt.value, opt.is_path()) {
            (None, _) => "",
            (Some(_), true) => " -r -F",
            (Some(_), false) => " -x",
        };
        let (long, about) = (opt.long, quoted(&opt.about));
        out.push_str(&format!(
            "complete -c trunkline -n '{when}'{short} -l {long}{value} -d '{about}'\n"
        ));
    };
    for opt in options(help::text(None)) {
        option("__fish_use_subcommand", &opt);
    }
    for Described { name, options, .. } in commands {
        for opt in options {
            option(&format!("__fish_seen_subcommand_from {name}"), opt);
        }
    }
    for Described { name, about, .. } in commands {
        let about = quoted(about);
        out.push_str(&format!(
            "complete -c trunkline -n __fish_use_subcommand -a {name} -d '{about}'\n"
        ));
        let words = further(name, "");
        if !words.is_empty() {
            out.push_str(&format!(
                "complete -c trunkline -n '__fish_seen_subcommand_from {name}' -a '{words}'\n"
            ));
        }
    }
    out
}

/// The manual page.
pub(super) fn manual() -> String {
    let roff = |text: &str| {
        let lines = text.lines().map(|line| {
            let line = line.replace('\\', "\\e").replace('-', "\\-");
            // At the beginning of a line these characters would begin requests.
            if line.starts_with(['.', '\'']) {
                format!("\\&{line}\n")
            } else {
                format!("{line}\n")
            }
        });
        lines.collect::<String>()
    };
    let version = env!("CARGO_PKG_VERSION");
    let mut out = format!(
        ".TH TRUNKLINE 1 \"\" \"trunkline {version}\" \"User Commands\"\n.SH NAME\ntrunkline \\- an MCP \
         gateway: many MCP servers behind one address\n.SH SYNOPSIS\n.B trunkline\n[\\fICOMMAND\\fR] \
         [\\fIOPTIONS\\fR]\n.SH DESCRIPTION\n.nf\n{}.fi\n",
        roff(help::text(None))
    );
    for Described { name, .. } in described() {
        let Ok(command) = Name::parse(name) else { continue };
        let title = name.to_uppercase();
        out.push_str(&format!(
            ".SH {}\n.nf\n{}.fi\n",
            roff(&title).trim_end(),
            roff(help::text(Some(command)))
        ));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_is_described_by_its_help() {
        let commands = described();
        let n_listed = entries(help::text(None), "Commands:").len();
        assert_eq!(commands.len(), n_listed, "{commands:?}");
        assert!(n_listed > 8);
        for command in &commands {
            assert!(!command.about.is_empty(), "{}", command.name);
            let help = command.options.iter().find(|opt| opt.long == "help");
            assert_eq!(help.and_then(|it| it.short), Some("h"), "{}", command.name);
        }
        let call = commands.iter().find(|it| it.name == "call").unwrap();
        let config = call.options.iter().find(|it| it.long == "config").unwrap();
        assert_eq!((config.short, config.value), (Some("c"), Some("FILE")));
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let script = script(shell);
            for command in &commands {
                assert!(script.contains(command.name), "{shell:?} {}", command.name);
            }
            assert!(script.contains("json"));
        }
        assert!(manual().contains(".SH NEW\\-KEY\n"));
    }
}
