//! Shows a page to the person at this machine, by the program of `$BROWSER`: never through a shell.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::limits::{BROWSER_START_TIME, BROWSERS_MAX};
use crate::sync::Mutex;
use crate::thread::{Joined, spawn};

/// The time between two looks at a program that was started.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// The variables of the environment that a browser needs. The others stay here: in them are the
/// secrets that the configuration takes from the environment.
const NEEDED: [&str; 11] = [
    "PATH",
    "HOME",
    "USER",
    "LANG",
    "TMPDIR",
    "BROWSER",
    "DISPLAY",
    "WAYLAND_DISPLAY",
    "XAUTHORITY",
    "DBUS_SESSION_BUS_ADDRESS",
    "LANGUAGE",
];
/// The beginnings of the names of other such variables.
const NEEDED_BEGINNINGS: [&str; 2] = ["LC_", "XDG_"];

/// The programs that run.
#[derive(Default)]
pub(super) struct Browsers {
    running: Arc<Mutex<Running>>,
}

#[derive(Default)]
struct Running {
    children: Vec<Child>,
    /// Waits for the programs to end, while there are any.
    reaper: Option<Joined>,
    is_stopped: bool,
}

impl Browsers {
    /// Opens a page by the first of the alternatives that can. The programs may go on.
    ///
    /// # Errors
    /// None of them can; the text says why.
    pub(super) fn open(&self, browser: &str, url: &str) -> Result<(), String> {
        let mut failed = None;
        for alternative in alternatives(browser) {
            match self.try_one(&alternative, url) {
                Ok(()) => return Ok(()),
                Err(what) => failed = Some(what),
            }
        }
        Err(failed.unwrap_or_else(|| "$BROWSER names no program".to_owned()))
    }

    fn try_one(&self, words: &[String], url: &str) -> Result<(), String> {
        let words = with_url(words, url);
        let Some((program, arguments)) = words.split_first() else {
            return Err("$BROWSER names no program".to_owned());
        };
        if self.running.lock().children.len() >= BROWSERS_MAX {
            return Err(format!("{BROWSERS_MAX} programs of $BROWSER run already"));
        }
        let started = start(program, arguments);
        let mut child = started.map_err(|error| format!("$BROWSER ({program}): {error}"))?;
        let until = Instant::now() + BROWSER_START_TIME;
        // One that cannot open the page ends soon; a window may stay open for hours.
        while Instant::now() < until {
            match child.try_wait() {
                Ok(Some(status)) if status.success() => return Ok(()),
                Ok(Some(status)) => {
                    return Err(format!("$BROWSER ({program}) failed: {status}"));
                }
                Ok(None) => std::thread::sleep(LOOK_INTERVAL),
                Err(error) => return Err(format!("$BROWSER ({program}): {error}")),
            }
            if self.running.lock().is_stopped {
                break;
            }
        }
        self.keep(child);
        Ok(())
    }

    /// Has somebody wait for its end.
    fn keep(&self, child: Child) {
        let mut running = self.running.lock();
        running.children.push(child);
        let is_reaped = running.reaper.as_ref().is_some_and(|reaper| !reaper.is_finished());
        if !is_reaped && !running.is_stopped {
            let shared = self.running.clone();
            running.reaper = spawn("oauth-browser", move || reap(&shared)).ok();
        }
    }

    /// Waits for no program any more; they go on.
    pub(super) fn stop(&self) {
        let reaper = {
            let mut running = self.running.lock();
            running.is_stopped = true;
            running.reaper.take()
        };
        drop(reaper);
    }
}

fn start(program: &str, arguments: &[String]) -> io::Result<Child> {
    Command::new(program)
        .args(arguments)
        .env_clear()
        .envs(std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(is_needed)))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // What ends the gateway at its terminal does not end the browser.
        .process_group(0)
        .spawn()
}

fn is_needed(name: &str) -> bool {
    NEEDED.contains(&name) || NEEDED_BEGINNINGS.iter().any(|begin| name.starts_with(begin))
}

fn reap(running: &Mutex<Running>) {
    loop {
        {
            let mut running = running.lock();
            running.children.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
            if running.children.is_empty() || running.is_stopped {
                running.reaper = None;
                return;
            }
        }
        std::thread::sleep(LOOK_INTERVAL * 4);
    }
}

/// The programs of `$BROWSER`, each with its arguments: there is a colon between them. Quotes and
/// backslashes count as in a shell, nothing else does.
fn alternatives(browser: &str) -> Vec<Vec<String>> {
    let (mut all, mut words, mut word) = (Vec::new(), Vec::new(), None::<String>);
    let mut quote = None;
    let mut rest = browser.chars();
    while let Some(c) = rest.next() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some('\''), c) => word.get_or_insert_default().push(c),
            (_, '\\') => word.get_or_insert_default().extend(rest.next()),
            (Some(_), c) => word.get_or_insert_default().push(c),
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, ':') => {
                words.extend(word.take());
                all.push(std::mem::take(&mut words));
            }
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (None, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    all.push(words);
    all.retain(|words| !words.is_empty());
    all
}

/// The words with the URL in place of `%s`, or behind them where they have none.
fn with_url(words: &[String], url: &str) -> Vec<String> {
    let mut all: Vec<String> = words.iter().map(|word| word.replace("%s", url)).collect();
    if !words.iter().any(|word| word.contains("%s")) {
        all.push(url.to_owned());
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        let mut all = alternatives(text);
        assert!(all.len() < 2, "{all:?}");
        all.pop().unwrap_or_default()
    }

    #[test]
    fn a_command_line_is_split_as_a_shell_would_and_nothing_in_it_is_run() {
        for (text, expected) in [
            ("firefox", vec!["firefox"]),
            ("  a  b ", vec!["a", "b"]),
            ("'/my path/b' \"x y\" z\\ z", vec!["/my path/b", "x y", "z z"]),
            ("a '' b", vec!["a", "", "b"]),
            ("a $(touch x) `y`; z", vec!["a", "$(touch", "x)", "`y`;", "z"]),
            ("\"a\\\"b\" 'c\\d'", vec!["a\"b", "c\\d"]),
            ("b \"--proxy=h:1\" 'c:d' e\\:f", vec!["b", "--proxy=h:1", "c:d", "e:f"]),
            ("", vec![]),
        ] {
            assert_eq!(words(text), expected, "{text}");
        }
        assert_eq!(alternatives("a %s:b::c d").len(), 3);
        let url = "https://as/?a=1&b=%s";
        assert_eq!(with_url(&words("b --new %s"), url), ["b", "--new", url]);
        assert_eq!(with_url(&words("b"), url), ["b", url]);
    }

    #[test]
    fn the_program_gets_the_variables_that_a_browser_needs_and_no_others() {
        let path = std::env::temp_dir().join(format!("trunkline-env-{}", std::process::id()));
        let command = format!("sh -c 'env > {}'", path.display());
        let browsers = Browsers::default();
        browsers.open(&command, "https://as/").unwrap();
        let told = std::fs::read_to_string(&path).unwrap();
        browsers.stop();
        std::fs::remove_file(&path).unwrap();
        assert!(told.contains("PATH="), "{told}");
        // Cargo sets it for tests.
        assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some());
        assert!(!told.contains("CARGO_"), "{told}");
    }

    #[test]
    fn the_first_program_that_can_opens_the_page() {
        let browsers = Browsers::default();
        assert!(browsers.open("/nonexistent/browser:false:true", "https://as/").is_ok());
        let error = browsers.open("/nonexistent/browser:false", "https://as/").unwrap_err();
        assert!(error.contains("false"), "{error}");
        assert!(browsers.open("", "https://as/").is_err());
        browsers.stop();
    }
}
