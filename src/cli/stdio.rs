//! `trunkline stdio`: the gateway for hosts that can only start commands.

use std::io::{self, BufReader};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, bounded};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use super::{At, loaded, serve_with_log};
use crate::config::{Config, Problem};
use crate::downstream::stdio::line_pump::{read_lines, write_lines};
use crate::gateway::Gateway;
use crate::handover::Inheritance;
use crate::limits::{STDIO_FIRST_LISTS_TIMEOUT, STDIO_LAST_WRITES_TIMEOUT};
use crate::listening::Clients;
use crate::reload::{self, Source};
use crate::telemetry::log::LogControl;
use crate::thread::{self, Joined, StopReason};

/// Reasons to stop that may wait.
const STOP_REASONS_MAX: usize = 8;

pub(super) fn run(at: &At) -> ExitCode {
    let (config, source) = match loaded(at) {
        Ok(loaded) => loaded,
        Err(code) => return ExitCode::from(code),
    };
    let warning = |warning: &Problem| match at {
        At::Config(path) => warning.in_file(path.display()),
        At::Url(_) => warning.to_string(),
    };
    serve_with_log(config, warning, |config, log| serve(config, source, log))
}

/// Serves until its host is gone: until the end of its input, or of its output's reader.
fn serve(config: Config, source: Option<Source>, log: LogControl) -> io::Result<StopReason> {
    let (stop, stopped) = bounded(STOP_REASONS_MAX);
    let (options, wishes) = bounded(1);
    let _signals =
        thread::watch_signals(stop.clone(), source.is_some().then(|| options.clone()))?;
    let (alone, clients) = (Inheritance::default(), Clients::OneOfLines);
    let mut served = config.clone();
    // Its host lists right after the start, and often only then. A gateway in front of another
    // waits for that one as for any required server.
    if source.is_some() {
        served.first_list = served.first_list.max(STDIO_FIRST_LISTS_TIMEOUT);
    }
    let gateway = Gateway::start(served, clients, alone, stop.clone(), stopped)?;
    let reloading = source
        .map(|source| reload::start(source, config, gateway.parts(), log, wishes, stop.clone()))
        .transpose()?;
    let Some(client) = gateway.line_client().cloned() else {
        return Err(io::Error::other("no client of lines is served"));
    };
    let (out, told) = (client.out().clone(), stop.clone());
    let writing = thread::spawn("stdio-out", move || {
        if write_lines(&out, io::stdout()).is_err() {
            out.break_off();
            host_has_gone(&told);
        }
    })?;
    let reading = thread::spawn("stdio-in", move || {
        if let Err(error) = read_lines(BufReader::new(io::stdin()), &client) {
            log::warn!(target: "stdio", "standard input cannot be read: {error}");
        }
        stop.try_send(StopReason::InputEnded).ok();
        // Calls in flight are still answered, if the host reads.
        let output = io::stdout();
        let mut output = [PollFd::new(&output, PollFlags::empty())];
        while poll(&mut output, None) == Err(Errno::INTR) {}
        host_has_gone(&stop);
    })?;
    let reason = loop {
        match gateway.wait() {
            StopReason::Upgrade => {
                log::warn!("SIGUSR2: this is not followed by another process");
            }
            reason @ (StopReason::Signal
            | StopReason::InputEnded
            | StopReason::OwnerEnded(_)) => break reason,
        }
    };
    gateway.stop(reloading);
    last_writes(writing);
    // The thread reads for as long as its host writes.
    reading.detach();
    Ok(reason)
}

/// Stops at once: the host does not read any more.
fn host_has_gone(stop: &Sender<StopReason>) {
    // The second reason acts as a second signal does.
    stop.try_send(StopReason::InputEnded).ok();
    stop.try_send(StopReason::Signal).ok();
}

/// Waits for the last lines to be written, but not for a host that does not read.
fn last_writes(writing: Joined) {
    let until = Instant::now() + STDIO_LAST_WRITES_TIMEOUT;
    while !writing.is_finished() && Instant::now() < until {
        std::thread::park_timeout(Duration::from_millis(5));
    }
    if !writing.is_finished() {
        writing.detach();
    }
}
