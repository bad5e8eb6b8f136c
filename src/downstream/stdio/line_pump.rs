//! Copies a client's lines from and to standard input and output, or other ends.

use std::io::{self, BufRead, Read as _, Write};
use std::sync::Arc;

use super::LineClient;
use super::line_queue::{LineQueue, Next};

/// Gives the client's lines to the server, until their end. A line longer than
/// `limits.body_bytes` is refused and skipped.
///
/// # Errors
/// The lines cannot be read.
pub fn read_lines(mut input: impl BufRead, client: &Arc<LineClient>) -> io::Result<()> {
    let bytes_max = client.line_bytes_max();
    let most = u64::try_from(bytes_max).unwrap_or(u64::MAX);
    let mut line = Vec::new();
    loop {
        line.clear();
        if input.by_ref().take(most).read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        if line.len() < bytes_max || line.ends_with(b"\n") {
            client.take(&line);
            // A large buffer is not kept for small lines that follow.
            line.shrink_to(LINE_ROOM_BYTES);
            continue;
        }
        client
            .refuse(&format!("The line is longer than limits.body_bytes ({bytes_max} bytes)."));
        while !line.ends_with(b"\n") {
            line.clear();
            if input.by_ref().take(most).read_until(b'\n', &mut line)? == 0 {
                return Ok(());
            }
        }
    }
}

/// Writes the queued lines, until the queue's end.
///
/// # Errors
/// A line cannot be written: the reader is gone.
pub fn write_lines(out: &LineQueue, mut output: impl Write) -> io::Result<()> {
    while let Next::Event(event) = out.next(None) {
        let mut pieces = Vec::new();
        event.add_lines_to(&mut pieces);
        for piece in pieces {
            output.write_all(piece)?;
        }
        output.flush()?;
    }
    Ok(())
}

/// The bytes of the buffer that is kept for the next line.
const LINE_ROOM_BYTES: usize = 64 * 1024;
