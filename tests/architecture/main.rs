//! The architecture as tests over the sources: who may use whom, and what must be absent.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails where it is surprised"
)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use modules::{Circle, Modules};
use source::{Source, is_word_byte};

mod map;
mod modules;
mod source;

/// What the two ends of the wire may name, towards servers and towards clients.
const ENDS_USE: [&str; 13] = [
    "budget",
    "config",
    "error",
    "limits",
    "oauth",
    "protocol",
    "fair_shares",
    "secret",
    "sync",
    "telemetry",
    "thread",
    "round_robin",
    "wait",
];

/// The same towards servers, where credentials are kept in files. `access` is there only for the
/// token with which a user's upstream was made.
const UPSTREAM_USES: [&str; ENDS_USE.len() + 2] = {
    let mut all = ["state"; ENDS_USE.len() + 2];
    let mut at = 0;
    while at < ENDS_USE.len() {
        all[at] = ENDS_USE[at];
        at += 1;
    }
    all[at] = "access";
    all
};

/// Which modules of the crate each folder (or top file) may name, besides itself. A change here
/// is a change of the architecture: make it in `src/README.md` too.
const MAY_USE: [(&str, &[&str]); 33] = [
    ("limits", &[]),
    ("fair_shares", &["limits"]),
    ("sync", &[]),
    ("round_robin", &[]),
    ("budget", &["limits", "protocol", "fair_shares", "sync"]),
    ("thread", &["limits"]),
    ("wait", &["limits", "sync"]),
    ("protocol", &["limits"]),
    ("error", &["limits", "protocol", "wait"]),
    ("secret", &[]),
    ("oauth", &["limits", "protocol", "secret", "sync"]),
    ("config", &["limits", "protocol", "error", "oauth", "secret"]),
    ("telemetry", &["config", "error", "limits", "protocol", "sync", "thread"]),
    ("access", &["config", "error", "limits", "protocol", "sync", "telemetry"]),
    (
        "resource_server",
        &[
            "access",
            "config",
            "fair_shares",
            "limits",
            "oauth",
            "protocol",
            "secret",
            "state",
            "sync",
            "telemetry",
            "thread",
        ],
    ),
    ("state", &["limits", "sync", "telemetry", "thread"]),
    (
        "session",
        &[
            // Only for the token that opened a session.
            "access",
            "error",
            "limits",
            "protocol",
            "fair_shares",
            "state",
            "sync",
            "telemetry",
            "thread",
            "wait",
        ],
    ),
    (
        "catalogue",
        // `upstream` in refresher/ only: see below.
        &[
            "access",
            "budget",
            "config",
            "error",
            "limits",
            "protocol",
            "fair_shares",
            "state",
            "sync",
            "telemetry",
            "thread",
            "upstream",
            "wait",
        ],
    ),
    ("upstream", &UPSTREAM_USES),
    ("http", &ENDS_USE),
    (
        "pipeline",
        &[
            "access",
            "budget",
            "catalogue",
            "config",
            "error",
            "limits",
            "oauth",
            "protocol",
            "session",
            "fair_shares",
            "sync",
            "telemetry",
            "thread",
            "upstream",
            "wait",
        ],
    ),
    (
        "downstream",
        &[
            "access",
            "config",
            "error",
            "http",
            "limits",
            "oauth",
            "pipeline",
            "protocol",
            "resource_server",
            "session",
            "fair_shares",
            "sync",
            "telemetry",
            "thread",
            "wait",
        ],
    ),
    // The built-in server is a server of its own: it uses the engine and the rules of origins.
    ("demo", &["access", "http", "limits", "protocol", "sync", "telemetry", "thread", "wait"]),
    (
        "listening",
        &[
            "access",
            "config",
            "downstream",
            "http",
            "limits",
            "resource_server",
            "telemetry",
            "thread",
        ],
    ),
    (
        "gateway",
        &[
            "access",
            "catalogue",
            "config",
            "downstream",
            "error",
            "handover",
            "http",
            "limits",
            "oauth",
            "pipeline",
            "protocol",
            "reload",
            "resource_server",
            "listening",
            "session",
            "state",
            "sync",
            "telemetry",
            "thread",
            "upstream",
            "wait",
        ],
    ),
    ("service_manager", &["limits", "telemetry", "thread"]),
    ("handover", &["http", "limits", "service_manager", "telemetry", "thread"]),
    (
        "run",
        &[
            "config",
            "gateway",
            "handover",
            "reload",
            "service_manager",
            "listening",
            "telemetry",
            "thread",
        ],
    ),
    (
        "reload",
        &[
            "catalogue",
            "config",
            "downstream",
            "limits",
            "pipeline",
            "resource_server",
            "service_manager",
            "listening",
            "telemetry",
            "thread",
            "upstream",
        ],
    ),
    (
        "cli",
        &[
            "access",
            "budget",
            "catalogue",
            "config",
            "demo",
            "downstream",
            "error",
            "gateway",
            "handover",
            "limits",
            "oauth",
            "pipeline",
            "protocol",
            "reload",
            "run",
            "listening",
            "session",
            "state",
            "telemetry",
            "thread",
            "upstream",
            "wait",
        ],
    ),
    ("main", &["cli", "config", "error", "gateway", "telemetry", "thread"]),
    ("lib", &[]),
    ("build", &[]),
];

/// Folders whose files all decide on values alone; elsewhere a file that does says so: its first line begins `//! Pure:`.
const PURE_FOLDERS: [&str; 3] = ["protocol", "access", "oauth"];

/// Where HTTP status codes may stand, besides `http/`.
const STATUS_FILES: [&str; 14] = [
    // What a running gateway answers to a command.
    "cli/running.rs",
    // What a server's refusal means to whoever configured it.
    "upstream/advice.rs",
    "downstream/status_codes.rs",
    "downstream/token_problems.rs",
    "downstream/rest/litellm.rs",
    "upstream/transport/streamable_http.rs",
    "upstream/authorization/refusal.rs",
    "upstream/http_client/collector.rs",
    "upstream/transport/refused_status.rs",
    "upstream/transport/http_sse.rs",
    "upstream/http_client/redirect.rs",
    "upstream/transport/stateless_http.rs",
    "demo/http.rs",
    // What an answer of an authorization server's means is read from its status.
    "oauth/fetch.rs",
];

/// Numbers that look like a status and are none: the file, the number, and what it is.
const NO_STATUSES: [(&str, u32, &str); 2] = [
    ("telemetry/timestamp.rs", 400, "years in a cycle of the calendar"),
    ("telemetry/counters/histogram.rs", 500, "microseconds"),
];

/// Files that begin this program anew, and start no other.
const FILES_BEGINNING_THIS_PROGRAM: [&str; 3] =
    ["cli/allocator.rs", "cli/init.rs", "handover.rs"];

/// The codes that give an HTTP status away.
const STATUSES: [u32; 18] =
    [400, 401, 403, 404, 405, 406, 408, 409, 413, 415, 429, 431, 500, 501, 502, 503, 504, 505];

/// Neighbours in a folder of `src/` that use each other all the same: the folder, the two, and how that comes. A pair that
/// is none any more is taken out.
const KNOWN_CIRCLES: [(&str, &str, &str, &str); 13] = [
    (
        "downstream",
        "stateless",
        "stdio",
        "an answer of a stateless request is a POST's or lines of the one client of stdio",
    ),
    ("protocol", "call", "modern", "a call knows what its caller declares"),
    (
        "session",
        "encoded_event",
        "event_logs",
        "an event knows its place among what logs hold, and logs hold events",
    ),
    (
        "session",
        "event_logs",
        "resumable",
        "the oldest event of all logs is dropped from the stream that has it",
    ),
    (
        "upstream",
        "call",
        "session",
        "a call goes over a session, whose places are a fair queue",
    ),
    ("upstream", "call", "status", "the breaker tells what state it is in"),
    (
        "upstream",
        "failure",
        "transport",
        "whether a refusal is of the moment is read from its status",
    ),
    (
        "upstream",
        "session",
        "supervisor",
        "a session of a client's own has a supervisor, which opens it",
    ),
    (
        "upstream",
        "session",
        "transport",
        "a session tries transports, and a transport dispatches into its session",
    ),
    ("upstream/session", "capacity", "pool", "room is made by closing a session of the pool"),
    (
        "upstream/transport",
        "http",
        "refused_status",
        "a refusal is read with the address that refused",
    ),
    (
        "upstream/transport",
        "listen_stream",
        "stateless_http",
        "a listening stream is opened by a request",
    ),
    (
        "upstream/transport/stdio",
        "pipes",
        "process",
        "the threads of a child's pipes know the child",
    ),
];

/// The longest file, in lines. A longer one is two nouns.
const FILE_LINES_MAX: usize = 600;

/// All sources, read once for all rules.
static SOURCES: LazyLock<Vec<Source>> = LazyLock::new(|| {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../src");
    let mut paths = Vec::new();
    collect(&root, &mut paths);
    paths.sort();
    assert!(paths.len() > 5, "the sources are at {}", root.display());
    let all = paths.iter().map(|path| Source::read(&root, path));
    all.filter(|source| !is_of_tests(&source.path)).collect()
});

fn collect(folder: &Path, paths: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, paths);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            paths.push(path);
        }
    }
}

/// Fails with every sentence that `rule` finds about a file.
#[track_caller]
fn hold(what: &str, rule: impl Fn(&Source) -> Vec<String>) {
    let found: Vec<String> = SOURCES
        .iter()
        .flat_map(|source| {
            let told = rule(source);
            told.into_iter()
                .map(|text| format!("src/{}: {text}", source.path))
                .collect::<Vec<_>>()
        })
        .collect();
    assert!(found.is_empty(), "{what}:\n{}", found.join("\n"));
}

/// A finding if the code names any of these.
fn names(source: &Source, words: &[&str]) -> Vec<String> {
    words
        .iter()
        .filter(|word| source.names(word))
        .map(|word| format!("names `{word}`"))
        .collect()
}

#[test]
fn layers_use_only_what_they_may() {
    let crate_modules: BTreeSet<&str> = MAY_USE.iter().map(|(name, _)| *name).collect();
    hold("a use that MAY_USE does not have", |source| {
        let Some((_, allowed)) = MAY_USE.iter().find(|(name, _)| *name == source.layer())
        else {
            return vec![format!("`{}` is not in MAY_USE", source.layer())];
        };
        let used = source.uses_of_crate();
        let foreign = used.iter().filter(|name| {
            *name != source.layer()
                && !allowed.contains(&name.as_str())
                && (crate_modules.contains(name.as_str())
                    || name.starts_with(char::is_lowercase))
        });
        foreign.map(|name| format!("uses crate::{name}")).collect()
    });
}

#[test]
fn the_catalogue_asks_upstreams_in_one_file() {
    hold("only the refresher asks for lists", |source| {
        let may =
            source.layer() != "catalogue" || source.path.starts_with("catalogue/refresher/");
        if may || !source.uses_of_crate().contains("upstream") {
            return Vec::new();
        }
        vec!["uses crate::upstream".to_owned()]
    });
}

#[test]
fn the_http_engine_is_named_in_one_folder() {
    hold("the engine is named in http/ alone", |source| {
        if source.layer() == "http" {
            Vec::new()
        } else {
            names(source, &["httparse", "tiny_http"])
        }
    });
}

#[test]
fn upstreams_and_processes_are_reached_from_one_folder() {
    hold("ureq and std::process::Command are for upstream/ alone", |source| {
        if source.layer() == "upstream" {
            return Vec::new();
        }
        let mut found = names(source, &["ureq"]);
        let commands = source.imports_of("std::process");
        let begins_anew = FILES_BEGINNING_THIS_PROGRAM.contains(&source.path.as_str());
        if commands.contains("Command") && !begins_anew {
            found.push("names std::process::Command".to_owned());
        }
        found
    });
}

#[test]
fn dates_of_revisions_live_in_one_file() {
    // Put together, so that this file does not break its own rule when it is read.
    let dates = [
        ("2024", "11-05"),
        ("2025", "03-26"),
        ("2025", "06-18"),
        ("2025", "11-25"),
        ("2026", "07-28"),
    ];
    hold("a revision's date outside protocol/revision.rs", |source| {
        if source.path == "protocol/revision.rs" {
            return Vec::new();
        }
        let is_there = |date: &String| source.code_with_strings().contains(date.as_str());
        let written = dates.iter().map(|(year, day)| format!("{year}-{day}"));
        written.filter(is_there).map(|date| format!("has the date {date}")).collect()
    });
}

/// True for `tests.rs` and the files of a folder `tests`, which are declared under `#[cfg(test)]`.
fn is_of_tests(path: &str) -> bool {
    path.ends_with("/tests.rs") || path.contains("/tests/")
}

#[test]
fn test_files_are_compiled_for_tests_alone() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../src");
    let mut paths = Vec::new();
    collect(&root, &mut paths);
    let declared = "#[cfg(test)]\nmod tests;";
    let mut wrong = Vec::new();
    for path in paths.iter().filter_map(|path| path.strip_prefix(&root).ok()?.to_str()) {
        let Some((folder, _)) = path.rsplit_once("/tests.rs").or(path.split_once("/tests/"))
        else {
            continue;
        };
        let parents = [format!("{folder}/mod.rs"), format!("{folder}.rs")];
        let is_declared = |parent: &String| {
            let text = std::fs::read_to_string(root.join(parent)).unwrap_or_default();
            let lines = text.lines().filter(|line| !line.starts_with("#[path"));
            lines.collect::<Vec<_>>().join("\n").contains(declared)
        };
        if !parents.iter().any(is_declared) {
            wrong.push(path);
        }
    }
    assert!(wrong.is_empty(), "declared without #[cfg(test)]:\n{}", wrong.join("\n"));
}

#[test]
fn revisions_have_no_order() {
    hold("a revision is no number", |source| {
        if source.path != "protocol/revision.rs" {
            return Vec::new();
        }
        let before = source.code().split("enum Revision").next().unwrap_or_default();
        let derive = before.rsplit("#[derive").next().unwrap_or_default();
        let mut found = Vec::new();
        if derive.contains("Ord") {
            found.push("Revision derives an order".to_owned());
        }
        if source.code().contains("Ord for Revision") {
            found.push("Revision has an order".to_owned());
        }
        found
    });
}

#[test]
fn eras_are_told_apart_at_the_edges() {
    hold("nobody matches on Era between the edges", |source| {
        let edges = ["protocol", "downstream", "upstream"];
        if edges.contains(&source.layer()) || !source.code().contains("Era::") {
            return Vec::new();
        }
        vec!["matches on Era".to_owned()]
    });
}

#[test]
fn http_statuses_stand_where_answers_are_made_and_read() {
    hold("an HTTP status outside its places", |source| {
        let allowed = source.layer() == "http" || STATUS_FILES.contains(&source.path.as_str());
        if allowed || source.layer() == "limits" {
            return Vec::new();
        }
        let mut found = names(source, &["StatusCode"]);
        let literals = source.integer_literals();
        let is_none = |number: &u32| {
            NO_STATUSES.iter().any(|(path, known, _)| *path == source.path && known == number)
        };
        let statuses =
            literals.iter().filter(|number| STATUSES.contains(number) && !is_none(number));
        found.extend(statuses.map(|number| format!("has the number {number}")));
        found
    });
}

#[test]
fn threads_are_started_in_one_file() {
    hold("threads start through crate::thread alone", |source| {
        if source.path == "thread.rs" {
            return Vec::new();
        }
        let starts = ["spawn", "Builder", "scope"];
        let imported = source.imports_of("std::thread");
        let mut found: Vec<String> = starts
            .iter()
            .filter(|name| imported.contains(**name))
            .map(|name| format!("names std::thread::{name}"))
            .collect();
        let whole = source.imports_of("std").contains("thread")
            && !source.code().contains("std::thread::");
        if whole
            && starts.iter().any(|name| source.code().contains(&format!("thread::{name}(")))
        {
            found.push("starts a thread of std".to_owned());
        }
        found
    });
}

#[test]
fn locks_are_those_that_nothing_poisons() {
    hold("locks come from sync.rs", |source| {
        // Still the standard library's there.
        if ["sync", "upstream", "wait"].contains(&source.layer()) {
            return Vec::new();
        }
        let imported = source.imports_of("std::sync");
        let locks = ["Mutex", "RwLock", "Condvar", "PoisonError"];
        let named = locks.iter().filter(|name| imported.contains(**name));
        named.map(|name| format!("names std::sync::{name}")).collect()
    });
}

#[test]
fn values_in_values_out() {
    hold("pure files do no I/O, start no thread, read no clock, write no log", |source| {
        if !PURE_FOLDERS.contains(&source.layer()) && !source.says_pure() {
            return Vec::new();
        }
        let forbidden = [
            "std::net::TcpStream",
            "std::net::TcpListener",
            "std::net::UdpSocket",
            "std::fs",
            "std::thread",
            "std::process",
            "std::io::stdin",
            "Instant::now",
            "SystemTime::now",
            "std::env",
            "log::",
            "crossbeam_channel",
            "rustix",
        ];
        let code = source.code();
        let is_there = |word: &&&str| source.names_path(word, code);
        let mut found: Vec<String> =
            forbidden.iter().filter(is_there).map(|word| format!("names {word}")).collect();
        if code.contains(".elapsed()") {
            found.push("reads the clock: .elapsed()".to_owned());
        }
        found
    });
}

#[test]
fn purity_is_claimed_in_one_form() {
    hold("a file that decides on values alone begins `//! Pure:`", |source| {
        let claims =
            source.header().any(|line| line.ends_with("Pure.") || line.contains("Pure:"));
        if claims && !source.says_pure() {
            vec!["says that it is pure in another form".to_owned()]
        } else {
            Vec::new()
        }
    });
}

#[test]
fn neighbours_do_not_use_each_other() {
    let circles = Modules::read(&SOURCES).circles();
    let is_known = |it: &&Circle| {
        KNOWN_CIRCLES.iter().any(|(folder, one, two, _)| {
            (*folder, *one, *two) == (&it.folder, &it.between.0, &it.between.1)
        })
    };
    let new: Vec<String> = circles
        .iter()
        .filter(|it| !is_known(it))
        .map(|it| {
            let ((one, two), folder, [there, back]) = (&it.between, &it.folder, &it.by);
            format!("src/{folder}: {one} and {two}: {there}; {back}")
        })
        .collect();
    assert!(new.is_empty(), "neighbours that use each other:\n{}", new.join("\n"));
    let is_open = |(folder, one, two, _): &&(&str, &str, &str, &str)| {
        !circles
            .iter()
            .any(|it| (&*it.folder, &*it.between.0, &*it.between.1) == (*folder, *one, *two))
    };
    let open: Vec<_> = KNOWN_CIRCLES.iter().filter(is_open).collect();
    assert!(open.is_empty(), "these do not use each other any more: {open:?}");
}

#[test]
fn every_file_says_what_it_is_for() {
    hold("a file begins with `//!`", |source| {
        // The crate's own front page is the architecture document.
        let begins = source.text.starts_with("//! ")
            || source.text.starts_with("#![doc = include_str!(\"README.md\")]");
        if begins { Vec::new() } else { vec!["does not begin with `//!`".to_owned()] }
    });
}

#[test]
fn files_stay_short() {
    hold("a long file is two nouns", |source| {
        let n = source.text.lines().count();
        if n <= FILE_LINES_MAX { Vec::new() } else { vec![format!("has {n} lines")] }
    });
}

#[test]
fn names_say_something() {
    hold("no name that says nothing", |source| {
        let empty = ["utils", "util", "helpers", "helper", "common", "types", "misc"];
        let in_path = source.path.trim_end_matches(".rs").split('/');
        let mut found: Vec<String> = in_path
            .filter(|part| empty.contains(part))
            .map(|part| format!("is called {part}"))
            .collect();
        for name in empty {
            if source.code().contains(&format!("mod {name} {{"))
                || source.code().contains(&format!("mod {name};"))
            {
                found.push(format!("has a module {name}"));
            }
        }
        found
    });
}

#[test]
fn nothing_is_unwrapped_outside_tests() {
    hold("a failure is handled or explained", |source| {
        let there = source.code().contains(".unwrap()");
        if there { vec!["has .unwrap()".to_owned()] } else { Vec::new() }
    });
}

#[test]
fn nothing_is_left_to_do() {
    hold("no notes to oneself", |source| {
        let notes = [["TO", "DO"].concat(), ["FIX", "ME"].concat(), ["XX", "X"].concat()];
        let is_note = |note: &&String| {
            source.text.match_indices(note.as_str()).any(|(at, found)| {
                let bytes = source.text.as_bytes();
                let free = |at: Option<&u8>| at.is_none_or(|byte| !is_word_byte(*byte));
                free(at.checked_sub(1).and_then(|at| bytes.get(at)))
                    && free(bytes.get(at + found.len()))
            })
        };
        notes.iter().filter(is_note).map(|note| format!("has {note}")).collect()
    });
}

#[test]
fn the_list_of_modules_is_only_a_list() {
    hold("lib.rs lists modules and nothing else", |source| {
        if source.path != "lib.rs" {
            return Vec::new();
        }
        let is_listed = |line: &&str| {
            let line = line.trim();
            line.is_empty()
                || line.starts_with("pub mod ")
                || line.starts_with("mod ")
                || line.starts_with("#!")
                || line.starts_with("#[")
        };
        let other = source.code().lines().filter(|line| !is_listed(line)).map(str::to_owned);
        other.map(|line| format!("has {line:?}")).collect()
    });
}
