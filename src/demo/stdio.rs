//! The demo server over standard input and output: one JSON-RPC message on each line.

use std::collections::HashMap;
use std::io::{self, BufRead, Read, Write};
use std::time::SystemTime;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use super::{Answer, Demo, SlowCall, refusal};
use crate::protocol::jsonrpc::{RequestId, code};
use crate::thread::{self, Joined};

/// The most bytes of one line. Longer ones are refused and skipped.
const LINE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// The most slow calls at once; each has a thread.
const SLOW_CALLS_MAX: usize = 32;
/// The most lines that wait to be written; a thread with one more waits.
const OUTBOX_LINES_MAX: usize = 64;

/// Serves until the end of `input`, or until `output` breaks. Slow calls end then too.
///
/// # Errors
/// `input` cannot be read, or the system refuses a thread.
pub fn serve(mut input: impl BufRead, output: impl Write + Send + 'static) -> io::Result<()> {
    let (outbox, lines) = bounded(OUTBOX_LINES_MAX);
    let writer = thread::spawn("demo-out", move || write_lines(&lines, output))?;
    let mut shell = Shell { running: HashMap::new(), outbox, _writer: writer };
    let mut demo = Demo::new();
    let mut line = Vec::new();
    loop {
        let answers = match read_line(&mut input, &mut line)? {
            Line::End => return Ok(()),
            Line::TooLong => {
                let what = format!("The line is longer than {LINE_BYTES_MAX} bytes.");
                vec![refusal(None, code::PARSE_ERROR, &what)]
            }
            Line::Whole => match std::str::from_utf8(&line).map(str::trim) {
                Ok("") => continue,
                Ok(text) => demo.answer(text, SystemTime::now()),
                Err(_) => {
                    vec![refusal(None, code::PARSE_ERROR, "The line is not in UTF-8.")]
                }
            },
        };
        for answer in answers {
            if shell.apply(answer).is_err() {
                return Ok(());
            }
        }
    }
}

enum Line {
    Whole,
    TooLong,
    End,
}

fn read_line(input: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<Line> {
    let most = u64::try_from(LINE_BYTES_MAX).unwrap_or(u64::MAX);
    line.clear();
    if input.by_ref().take(most).read_until(b'\n', line)? == 0 {
        return Ok(Line::End);
    }
    if line.len() < LINE_BYTES_MAX || line.ends_with(b"\n") {
        return Ok(Line::Whole);
    }
    loop {
        line.clear();
        let n_read = input.by_ref().take(most).read_until(b'\n', line)?;
        if n_read == 0 || line.ends_with(b"\n") {
            return Ok(Line::TooLong);
        }
    }
}

/// Owns the output, so that a client which reads slowly delays only the senders of lines. Ends
/// when there are no senders any more, or the output breaks.
fn write_lines(lines: &Receiver<String>, mut output: impl Write) {
    for mut line in lines {
        line.push('\n');
        if output.write_all(line.as_bytes()).and_then(|()| output.flush()).is_err() {
            return;
        }
    }
}

/// The error that the output has broken.
struct Gone;

/// The threads beside the reader. Fields are dropped in this order.
struct Shell {
    /// 1. The slow calls end; they hold clones of the outbox.
    running: HashMap<RequestId, Running>,
    /// 2. The last sender of lines is dropped, which ends the writer's loop.
    outbox: Sender<String>,
    /// 3. The last lines are written.
    _writer: Joined,
}

/// A slow call. Fields are dropped in this order.
struct Running {
    /// 1. The drop wakes the call.
    _cancel: Sender<()>,
    /// 2. The call ends.
    thread: Joined,
}

impl Shell {
    fn apply(&mut self, answer: Answer) -> Result<(), Gone> {
        match answer {
            Answer::Text(text) => self.outbox.send(text).map_err(|_| Gone),
            Answer::Slow(call) => self.start(call),
            Answer::Cancel(id) => {
                drop(self.running.remove(&id));
                Ok(())
            }
        }
    }

    fn start(&mut self, call: SlowCall) -> Result<(), Gone> {
        self.running.retain(|_, running| !running.thread.is_finished());
        if self.running.contains_key(call.id()) {
            let what = "A request with this id is being answered.";
            return self.apply(call.refuse(code::INVALID_REQUEST, what));
        }
        if self.running.len() >= SLOW_CALLS_MAX {
            let what = format!("{SLOW_CALLS_MAX} slow calls are running already.");
            return self.apply(call.refuse(code::INTERNAL_ERROR, &what));
        }
        let (cancel, cancelled) = bounded(0);
        let (outbox, id) = (self.outbox.clone(), call.id().clone());
        let refused = call.refuse(code::INTERNAL_ERROR, "The system refuses another thread.");
        match thread::spawn("demo-slow", move || run_slow(&call, &cancelled, &outbox)) {
            Ok(thread) => {
                self.running.insert(id, Running { _cancel: cancel, thread });
                Ok(())
            }
            Err(_) => self.apply(refused),
        }
    }
}

/// Runs a slow call. A cancelled call sends nothing more (2025-11-25,
/// basic/utilities/cancellation).
fn run_slow(call: &SlowCall, cancelled: &Receiver<()>, outbox: &Sender<String>) {
    for step in 1..=call.steps() {
        match cancelled.recv_timeout(call.step_time()) {
            Err(RecvTimeoutError::Timeout) => (),
            Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
        }
        if let Some(progress) = call.progress(step)
            && outbox.send(progress).is_err()
        {
            return;
        }
    }
    // If the reader is gone, the result is not needed.
    outbox.send(call.result()).ok();
}
