//! What the threads of a child's pipes do. The pipes are non-blocking and polled, so that a
//! process which the child left behind with a pipe in its hands cannot hold a thread.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::process::{ChildStderr, ChildStdin, ChildStdout};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use rustix::event::PollFlags;
use rustix::io::ioctl_fionbio;

use crate::error::Stage;
use crate::limits::{
    CHILD_BACKOFF_RESET_AFTER, CHILD_EXIT_SEEN, CHILD_LINE_ENDLESS_FACTOR,
    CHILD_STDERR_LINE_BYTES_MAX, CHILD_STDERR_LINES_LOGGED_MAX, UPSTREAM_BUFFER_BYTES,
};
use crate::protocol::raw::Keeper;
use crate::telemetry::Seldom;
use crate::wait::{Wait, Woken};

use super::era_noise::EraNoise;
use super::process::ChildLink;
use super::stderr::StderrRing;
use crate::upstream::failure::{Failure, cut, malformed};
use crate::upstream::http_client::message_bytes::{Held, exhausted};
use crate::upstream::message::{self, Incoming, id_of_oversized, id_of_unreadable};
use crate::upstream::session::context::{SessionContext, pause};
use crate::upstream::session::dispatch::hear_shared;
use crate::upstream::session::stateless_dispatch::hear_child;
use crate::upstream::transport::throttle::Throttle;

/// Bytes of a line's beginning, and of its end, that are looked at when it is too long.
const LINE_END_BYTES: usize = 256;

/// Writes the messages of the outbox until the child has ended or is ended.
pub(crate) fn write(transport: &ChildLink, mut stdin: ChildStdin) {
    if ioctl_fionbio(&stdin, true).is_err() {
        return transport.lose("its input could not be set up");
    }
    let wait = transport.writer.clone();
    loop {
        let Some(line) = transport.next_line() else {
            let pidfd = transport.pidfd().map(|fd| (fd.as_fd(), PollFlags::IN));
            match wait.until(pidfd, None) {
                Ok(Woken::Ready) => break,
                Ok(Woken::Bell | Woken::Tick) => continue,
                Err(_) => return,
            }
        };
        match write_line(&mut stdin, line.as_bytes(), &wait) {
            Ok(true) => (),
            Ok(false) => return,
            Err(_) => {
                transport.lose_soon("it closed its input");
                return;
            }
        }
    }
    // It has ended, but what it wrote before may still be in the pipe.
    let patience = Wait::plain(CHILD_EXIT_SEEN);
    while let Ok(patience) = &patience
        && !transport.at_end.load(Ordering::Acquire)
        && !patience.left().is_zero()
    {
        if wait.until(None, Some(patience.left())).is_err() {
            return;
        }
    }
    transport.lose("it ended");
}

/// False when the wait was interrupted.
fn write_line(stdin: &mut ChildStdin, line: &[u8], wait: &Wait) -> std::io::Result<bool> {
    let mut rest = line;
    while !rest.is_empty() {
        match stdin.write(rest) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(n) => rest = rest.get(n..).unwrap_or_default(),
            Err(error) if error.kind() == ErrorKind::Interrupted => (),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                if wait.until(Some((stdin.as_fd(), PollFlags::OUT)), None).is_err() {
                    return Ok(false);
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

/// Reads the child's messages until its output ends.
pub(crate) fn read(transport: &Arc<ChildLink>, stdout: ChildStdout, wait: &Wait) {
    let bytes_max = transport.context.limits.upstream_event_bytes;
    let mut lines = Lines::new(bytes_max);
    let mut held = Held::new(&transport.context.buffered, None);
    let (mut throttle, talk) = (Throttle::default(), Talk::default());
    let ended = read_pieces(stdout, wait, &mut throttle, &mut |piece, throttle| {
        if held.grow_to(lines.line.len().saturating_add(piece.len())).is_err() {
            lines.give_up();
        }
        lines.feed(piece, &mut |line| {
            let (bytes, answered) = (line.bytes(), transport.pending.n_answered());
            take_line(transport, line, &held.take(), &talk);
            if transport.pending.n_answered() == answered {
                throttle.heard(bytes);
            }
        });
        if lines.head.is_some() {
            // Only the ends of it are kept.
            drop(held.take());
        }
        lines.skipped <= bytes_max.saturating_mul(CHILD_LINE_ENDLESS_FACTOR)
    });
    match ended {
        Ended::Closed => {
            transport.note_end();
            transport.lose_soon("it closed its output");
        }
        Ended::GaveUp => transport.lose_because(format!(
            "a line of its output has no end (limits.upstream_event_bytes, {bytes_max} bytes)"
        )),
        Ended::Interrupted => (),
    }
}

/// Lines of the log about what a child says.
#[derive(Default)]
struct Talk {
    nonsense: Seldom,
    too_long: Seldom,
}

/// The text of a line; of one that cannot be used, the call that it may be for is told.
fn text_of(transport: &ChildLink, line: Line, talk: &Talk) -> Option<Arc<String>> {
    let name = transport.context.name();
    let (head, tail, bytes_max) = match line {
        Line::Whole(bytes) => match String::from_utf8(bytes) {
            Ok(text) => return Some(Arc::new(text)),
            Err(error) => {
                transport.note_nonsense();
                let text = String::from_utf8_lossy(error.as_bytes());
                if let Some(id) = id_of_unreadable(&text) {
                    transport.pending.fail(Some(id), &malformed("it is not UTF-8"));
                } else if let Some(more) = talk.nonsense.turn() {
                    log::warn!(target: "upstream", "{name}: a line is not UTF-8{more}");
                }
                return None;
            }
        },
        Line::TooLong { head, tail, bytes_max } => (head, tail, bytes_max),
    };
    let failure = match bytes_max {
        Some(max) => {
            let what =
                format!("a line is longer than limits.upstream_event_bytes ({max} bytes)");
            Failure { stage: Stage::Read, ..Failure::nonsense(what) }
        }
        None => exhausted(),
    };
    if let Some(more) = talk.too_long.turn() {
        log::warn!(target: "upstream", "{name}: {}{more}", failure.message);
    }
    let (head, tail) = (String::from_utf8_lossy(&head), String::from_utf8_lossy(&tail));
    transport.pending.fail(id_of_oversized(&head, &tail), &failure);
    None
}

fn take_line(transport: &Arc<ChildLink>, line: Line, keeper: &Option<Keeper>, talk: &Talk) {
    let name = transport.context.name();
    let Some(text) = text_of(transport, line, talk) else { return };
    if text.trim().is_empty() {
        return;
    }
    let max = transport.context.limits.upstream_result_bytes;
    let go_on = || !transport.context.mailbox.is_stopped();
    // Where it does not go on, nobody waits for it any more.
    let _stopped = message::read_kept(&text, keeper, &go_on, |incoming| {
        if let Incoming::Answer { id: Some(id), outcome: Ok(result) } = &incoming
            && result.get().len() > max
        {
            return transport.pending.fail(Some(*id), &Failure::too_large(max));
        }
        let left = if transport.is_modern() {
            hear_child(transport, incoming)
        } else {
            hear_shared(&transport.context, &transport.pending, incoming, transport)
        };
        if let Some(
            Incoming::Nonsense(_) | Incoming::Answer { .. } | Incoming::Malformed { .. },
        ) = left
        {
            transport.note_nonsense();
            if let Some(more) = talk.nonsense.turn() {
                // From its first answer on it may be part of a result.
                let text = if transport.has_answered() {
                    format!("a line of {} bytes", text.len())
                } else {
                    cut(&transport.context.secrets.scrub_for_operator(&text))
                };
                log::warn!(target: "upstream", "{name}: on its output is no message: {text}{more}");
            }
        }
    });
}

/// Keeps and logs the lines of the child's standard error.
pub(crate) fn keep_errors(
    context: &SessionContext,
    mut stderr: ChildStderr,
    wait: &Wait,
    ring: &StderrRing,
    noise: &EraNoise,
) {
    let mut lines = Lines::new(CHILD_STDERR_LINE_BYTES_MAX);
    let mut throttle = Throttle::default();
    let talk = Seldom::up_to(CHILD_STDERR_LINES_LOGGED_MAX);
    let (mut n_repeated, began) = (0_usize, Instant::now());
    let mut keep = |piece: &[u8], throttle: &mut Throttle| {
        lines.feed(piece, &mut |line| {
            throttle.heard(line.bytes());
            let (bytes, end) = match line {
                Line::Whole(bytes) => (bytes, ""),
                Line::TooLong { head, .. } => (head, "…"),
            };
            let text = format!("{}{end}", String::from_utf8_lossy(&bytes).trim_end());
            // Many a child tells all of its environment when it fails.
            let text = context.secrets.scrub_for_operator(&text);
            if noise.is_noise(&text, Instant::now()) {
                return;
            }
            // What goes on to be well is heard again.
            if ring.is_repeated(&text) && began.elapsed() < CHILD_BACKOFF_RESET_AFTER {
                n_repeated += 1;
            } else if let Some(more) = talk.turn() {
                log::info!(target: "upstream", "{}: {text}{more}", context.name());
            }
            ring.push(text.into_owned());
        });
        if lines.head.is_some() {
            throttle.heard(piece.len());
        }
        true
    };
    if matches!(read_pieces(&mut stderr, wait, &mut throttle, &mut keep), Ended::Interrupted) {
        // The last words of a child that has ended may still be in the pipe, which does not block.
        let mut last = vec![0_u8; UPSTREAM_BUFFER_BYTES];
        let n = stderr.read(&mut last).unwrap_or_default();
        keep(last.get(..n).unwrap_or_default(), &mut throttle);
    }
    if n_repeated > 0 {
        log::debug!(target: "upstream", "{}: {n_repeated} lines were written at the last start \
            too, and are not logged again", context.name());
    }
}

/// Why a pipe is read no more.
#[derive(Debug, PartialEq, Eq)]
enum Ended {
    Closed,
    /// The one who takes wants no more.
    GaveUp,
    Interrupted,
}

/// Reads a pipe to its end, or until `take` wants no more; no faster than `throttle` lets.
fn read_pieces(
    mut pipe: impl Read + AsFd,
    wait: &Wait,
    throttle: &mut Throttle,
    take: &mut dyn FnMut(&[u8], &mut Throttle) -> bool,
) -> Ended {
    if ioctl_fionbio(&pipe, true).is_err() {
        return Ended::Closed;
    }
    let mut buffer = vec![0_u8; UPSTREAM_BUFFER_BYTES];
    loop {
        // What a process that the child left behind writes may never end.
        if wait.check().is_err() {
            return Ended::Interrupted;
        }
        if let Some(time) = throttle.rest()
            && pause(wait, time).is_err()
        {
            return Ended::Interrupted;
        }
        match pipe.read(&mut buffer) {
            Ok(0) => return Ended::Closed,
            Ok(n) => {
                if !take(buffer.get(..n).unwrap_or_default(), throttle) {
                    return Ended::GaveUp;
                }
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => (),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                if wait.until(Some((pipe.as_fd(), PollFlags::IN)), None).is_err() {
                    return Ended::Interrupted;
                }
            }
            Err(_) => return Ended::Closed,
        }
    }
}

/// A line without its end.
#[derive(Debug, PartialEq)]
enum Line {
    Whole(Vec<u8>),
    /// Only its two ends were kept.
    TooLong {
        head: Vec<u8>,
        tail: Vec<u8>,
        /// The bound, or none if there was no room for the line.
        bytes_max: Option<usize>,
    },
}

impl Line {
    /// What was kept of it.
    fn bytes(&self) -> usize {
        match self {
            Self::Whole(line) => line.len(),
            Self::TooLong { head, tail, .. } => head.len() + tail.len(),
        }
    }
}

/// Cuts pieces into lines of a bounded length.
#[derive(Debug)]
struct Lines {
    bytes_max: usize,
    line: Vec<u8>,
    /// The beginning of a line that is too long; `line` then holds its end.
    head: Option<Vec<u8>>,
    /// That is because there was no room for it.
    given_up: bool,
    /// Bytes of the present line that were not kept.
    skipped: usize,
}

impl Lines {
    fn new(bytes_max: usize) -> Lines {
        Lines { bytes_max, line: Vec::new(), head: None, given_up: false, skipped: 0 }
    }

    fn feed(&mut self, mut piece: &[u8], give: &mut dyn FnMut(Line)) {
        while let Some(end) = piece.iter().position(|byte| *byte == b'\n') {
            let (part, rest) = piece.split_at(end);
            self.add(part);
            let line = std::mem::take(&mut self.line);
            self.skipped = 0;
            let bytes_max = (!std::mem::take(&mut self.given_up)).then_some(self.bytes_max);
            give(match self.head.take() {
                None => Line::Whole(line),
                Some(head) => Line::TooLong { head, tail: line, bytes_max },
            });
            piece = rest.get(1..).unwrap_or_default();
        }
        self.add(piece);
    }

    fn add(&mut self, part: &[u8]) {
        if self.head.is_none() && self.line.len() + part.len() > self.bytes_max {
            self.keep_head(part);
        }
        self.line.extend_from_slice(part);
        if self.head.is_some() && self.line.len() > LINE_END_BYTES {
            let spare = self.line.len() - LINE_END_BYTES;
            self.line.drain(..spare);
            self.skipped = self.skipped.saturating_add(spare);
        }
    }

    fn keep_head(&mut self, part: &[u8]) {
        let mut head = std::mem::take(&mut self.line);
        head.extend_from_slice(part.get(..LINE_END_BYTES).unwrap_or(part));
        head.truncate(LINE_END_BYTES.max(CHILD_STDERR_LINE_BYTES_MAX));
        head.shrink_to_fit();
        self.head = Some(head);
    }

    /// There is no room for the line that is being read: only its ends are kept.
    fn give_up(&mut self) {
        if self.head.is_none() {
            self.keep_head(&[]);
            self.given_up = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(bytes_max: usize, pieces: &[&str]) -> Vec<Line> {
        let mut got = Vec::new();
        let mut lines = Lines::new(bytes_max);
        for piece in pieces {
            lines.feed(piece.as_bytes(), &mut |line| got.push(line));
        }
        got
    }

    #[test]
    fn lines_are_found_wherever_they_are_cut() {
        let whole = |text: &str| Line::Whole(text.as_bytes().to_vec());
        assert_eq!(lines(10, &["a", "b\nc\n", "d"]), [whole("ab"), whole("c")]);
        assert_eq!(lines(10, &["\n\n"]), [whole(""), whole("")]);
    }

    #[test]
    fn a_line_that_is_too_long_keeps_its_ends_only_and_the_next_is_whole() {
        let long = "x".repeat(5000);
        let got = lines(4100, &["begin", &long, &long, "end\nnext\n"]);
        let [Line::TooLong { head, tail, .. }, Line::Whole(next)] = &got[..] else {
            panic!("{got:?}");
        };
        assert!(head.starts_with(b"begin") && tail.ends_with(b"xend"));
        assert_eq!((tail.len(), next.as_slice()), (LINE_END_BYTES, b"next".as_slice()));
    }
}
