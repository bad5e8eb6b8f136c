//! Log lines about pins.

use super::kept::Seen;
use super::subject::Subject;
use crate::config::Pin;
use crate::limits::{PINNED_TOOLS_MAX, PINS_BYTES_MAX};
use crate::protocol::server_name::ServerName;
use crate::telemetry::redact;

/// Items that one line of the log names.
const TOLD_TOOLS_MAX: usize = 8;
/// Characters of each name.
const TOLD_NAME_CHARS_MAX: usize = 128;

/// The findings of one comparison of a server's items with their pins.
#[derive(Debug, Default)]
pub(super) struct News<'a> {
    /// Items that are pinned now for the first time, in their present form.
    new: Vec<(Subject, &'a str)>,
    n_restored: usize,
    n_unpinned: usize,
    /// Changed items that were not logged yet.
    changed: Vec<(Subject, &'a str)>,
    /// Items that wait to be accepted and were not logged yet.
    waiting: Vec<(Subject, &'a str)>,
    /// Items that were not known before.
    pub(super) unknown: Vec<(Subject, &'a str)>,
}

impl<'a> News<'a> {
    pub(super) fn note(&mut self, subject: Subject, own: &'a str, seen: Seen) {
        match seen {
            Seen::Same | Seen::Changed => (),
            Seen::New => {
                self.new.push((subject, own));
                self.unknown.push((subject, own));
            }
            Seen::NewUnpinned => {
                self.waiting.push((subject, own));
                self.unknown.push((subject, own));
            }
            Seen::Restored => self.n_restored += 1,
            Seen::Anew => self.changed.push((subject, own)),
            Seen::Unpinned => self.n_unpinned += 1,
        }
    }

    /// Logs one line for each kind of finding, with any number of items: a server may change all
    /// its tools every second.
    pub(super) fn tell(&self, server: &ServerName, pin: Pin, is_lost: bool) {
        let (n_new, n_restored) = (self.new.len(), self.n_restored);
        if n_new > 0 {
            let named = first_of(&self.new);
            log::info!(target: "pins", "{server}: items pinned as they are now: {n_new}: {named}");
        }
        if n_restored > 0 {
            log::info!(target: "pins", "{server}: items that are again what they were: {n_restored}");
        }
        if self.n_unpinned > 0 {
            log::warn!(
                target: "pins",
                "{server}: items over what is pinned of a server ({PINNED_TOOLS_MAX} of a kind, \
                 {PINS_BYTES_MAX} bytes): {}; they are {}",
                self.n_unpinned,
                done(pin)
            );
        }
        let done = done(pin);
        let what = match is_lost {
            true => format!(
                "what was pinned is lost, so nobody knows whether items have changed: they {done}"
            ),
            false => format!("items have changed since they were pinned, and {done}"),
        };
        tell_of(server, &what, &self.changed);
        tell_of(server, &format!("items are not pinned, and {done}"), &self.waiting);
    }
}

fn tell_of(server: &ServerName, what: &str, items: &[(Subject, &str)]) {
    if items.is_empty() {
        return;
    }
    log::warn!(
        target: "pins",
        "{server}: {what}: {}. What it is: trunkline pins diff {server}. To accept them as they are \
         now: trunkline pins accept {server} [TOOL]",
        first_of(items)
    );
}

/// The names of the first items, and the number of the others.
fn first_of(items: &[(Subject, &str)]) -> String {
    let name = |(subject, own): &(Subject, &str)| match subject {
        // A server may give a tool any name.
        Subject::Tool => format!("{:?}", redact::excerpt(own, TOLD_NAME_CHARS_MAX)),
        Subject::Prompt | Subject::Resource | Subject::Template | Subject::Instructions => {
            redact::excerpt(&subject.named(own), TOLD_NAME_CHARS_MAX)
        }
    };
    let named: Vec<String> = items.iter().take(TOLD_TOOLS_MAX).map(name).collect();
    let more = match items.len().saturating_sub(TOLD_TOOLS_MAX) {
        0 => String::new(),
        n => format!(" and {n} more"),
    };
    format!("{}{more}", named.join(", "))
}

/// Logs that an item with a similar name has gone: the trusted item may stand under the new name
/// now, of which no pin says anything.
pub(super) fn of_similar(server: &ServerName, subject: Subject, own: &str, like: &str) {
    log::warn!(
        target: "pins",
        "{server}: {} is new, and {like:?}, which has a similar name and a pin, has gone: it may be \
         the same one, changed, under another name",
        subject.named(own)
    );
}

fn done(pin: Pin) -> &'static str {
    if pin.withholds() { "are withheld" } else { "are served" }
}
