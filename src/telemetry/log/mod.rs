//! Log lines: made by the threads that log, written to standard error by the `log` thread.
//!
//! A line goes into a bounded queue, so that no thread that logs waits for standard error, and no
//! lock is held across I/O. A full queue drops lines and counts them.

mod fields;
mod journal;
mod line;

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use log::{Level, LevelFilter, Log, Metadata, Record};
use simplelog::{ConfigBuilder, FormatItem, WriteLogger};
use time::macros::format_description;

pub use fields::Fields;

use super::redact::{Secrets, SecretsInUse};
use crate::config::{LogConfig, LogFormat, Secret};
use crate::limits::{LOG_LINE_BYTES_MAX, LOG_QUEUE_LINES_MAX};
use crate::sync::RwLock;
use crate::thread::{self, Joined};

/// The time for which the last lines may be written when the program ends.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);
/// The bytes up to which lines are written together: one system call for a burst.
const WRITE_BYTES_MAX: usize = 64 * 1024;

/// Keeps the log running. Dropping it writes the queued lines, within a second.
#[derive(Debug)]
pub struct LogGuard {
    control: LogControl,
    queue: Sender<Item>,
    written: Receiver<()>,
    thread: Option<Joined>,
}

/// Starts the log thread and makes it the process's log; panics become log lines too.
///
/// # Errors
/// The system refuses another thread, or there is a log already.
pub fn start(config: LogConfig) -> io::Result<LogGuard> {
    let (queue, items) = bounded(LOG_QUEUE_LINES_MAX);
    let (done, written) = bounded(1);
    let n_dropped = Arc::new(AtomicU64::new(0));
    let control = LogControl::new(config.level);
    let lines = Lines { queue: queue.clone(), n_dropped: n_dropped.clone() };
    let is_journal = journal::is_standard_error();
    let direct = Direct { format: config.format, is_journal, control: control.clone(), lines };
    let logger = Logger::new(direct.clone());
    let thread = thread::spawn("log", move || {
        run(&items, &n_dropped, config.format, &mut io::stderr());
        // If the guard gave up, nothing waits for this any more.
        done.try_send(()).ok();
    })?;
    let guard = LogGuard { control, queue, written, thread: Some(thread) };
    log::set_boxed_logger(Box::new(logger)).map_err(io::Error::other)?;
    // It is set once, as the logger is.
    DIRECT.get_or_init(|| direct);
    log::set_max_level(config.level);
    std::panic::set_hook(Box::new(log_panic));
    Ok(guard)
}

impl LogGuard {
    /// The handle that changes the running log.
    pub fn control(&self) -> LogControl {
        self.control.clone()
    }
}

/// A handle that changes the running log. Cheap to clone.
#[derive(Debug, Clone)]
pub struct LogControl {
    secrets: Arc<RwLock<Secrets>>,
    /// The least important level that is written, as its number.
    level: Arc<AtomicUsize>,
}

impl LogControl {
    fn new(level: LevelFilter) -> LogControl {
        let secrets = Arc::new(RwLock::new(Secrets::default().for_all_servers()));
        let control = LogControl { secrets, level: Arc::default() };
        control.level.store(number(level), Ordering::Relaxed);
        control
    }

    /// Sets the configured secrets, which must not stand in a line from here on.
    pub fn set_secrets(&self, secrets: &[Secret]) {
        self.secrets.write().configure(secrets);
    }

    fn learn(&self, secret: &Secret) {
        self.secrets.read().learn(secret.clone());
    }

    /// Sets the least important level that is written from here on.
    pub fn set_level(&self, level: LevelFilter) {
        self.level.store(number(level), Ordering::Relaxed);
        log::set_max_level(level);
    }

    fn level(&self) -> LevelFilter {
        let number_now = self.level.load(Ordering::Relaxed);
        LevelFilter::iter().find(|it| number(*it) == number_now).unwrap_or(LevelFilter::Info)
    }
}

fn number(level: LevelFilter) -> usize {
    LevelFilter::iter().position(|it| it == level).unwrap_or_default()
}

impl Drop for LogGuard {
    fn drop(&mut self) {
        let deadline = Instant::now() + FLUSH_TIMEOUT;
        let told = self.queue.send_deadline(Item::Stop, deadline).is_ok();
        let ended = told && self.written.recv_deadline(deadline).is_ok();
        if let Some(thread) = self.thread.take()
            && !ended
        {
            // The reader of standard error has stopped reading: the program must still end.
            thread.detach();
        }
    }
}

fn log_panic(info: &std::panic::PanicHookInfo<'_>) {
    let thread = std::thread::current();
    let name = thread.name().unwrap_or("without a name");
    let what = info.payload_as_str().unwrap_or("a value that is no text");
    let place = info.location().map(ToString::to_string).unwrap_or_default();
    log::error!(target: "trunkline::panic", "thread {name} panicked at {place}: {what}");
}

#[derive(Debug)]
enum Item {
    Line(String),
    Stop,
}

/// The sending end of the queue.
#[derive(Debug, Clone)]
struct Lines {
    queue: Sender<Item>,
    n_dropped: Arc<AtomicU64>,
}

impl Lines {
    fn push(&self, line: String) {
        if self.queue.try_send(Item::Line(line)).is_err() {
            self.n_dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The log thread: writes until it is told to stop.
fn run(items: &Receiver<Item>, n_dropped: &AtomicU64, format: LogFormat, out: &mut dyn Write) {
    let mut buffer = String::new();
    let mut stopped = false;
    while !stopped {
        let Ok(first) = items.recv() else { return };
        let mut next = Some(first);
        while let Some(item) = next {
            match item {
                Item::Line(line) => buffer.push_str(&line),
                Item::Stop => stopped = true,
            }
            let room = !stopped && buffer.len() < WRITE_BYTES_MAX;
            next = if room { items.try_recv().ok() } else { None };
        }
        let n_lines = n_dropped.swap(0, Ordering::Relaxed);
        if n_lines > 0 {
            buffer.push_str(&line::dropped(format, n_lines));
        }
        // There is no other place to report that standard error is broken.
        out.write_all(buffer.as_bytes()).ok();
        buffer.clear();
    }
}

/// The log for lines with fields.
#[derive(Debug, Clone)]
struct Direct {
    format: LogFormat,
    /// True if standard error is the journal, which keeps the time itself and takes a priority.
    is_journal: bool,
    control: LogControl,
    lines: Lines,
}

static DIRECT: OnceLock<Direct> = OnceLock::new();

impl Direct {
    /// Queues a line, with its priority before it for the journal.
    fn push(&self, level: Level, line: String) {
        self.lines.push(if self.is_journal {
            format!("{}{line}", journal::priority(level))
        } else {
            line
        });
    }

    fn text_line(&self, level: Level, target: &str, message: &str) -> String {
        let clean = line::text_message(message);
        if self.is_journal {
            format!("{target}: {clean}\n")
        } else {
            line::text(level, target, &clean)
        }
    }
}

/// Keeps a secret that was not configured, such as an access token, out of all lines from here on.
/// The oldest ones make room.
pub fn learn(secret: &Secret) {
    if let Some(direct) = DIRECT.get() {
        direct.control.learn(secret);
    }
}

/// Keeps the secrets that an owner has in use out of all lines.
pub fn heed(in_use: &Arc<SecretsInUse>) {
    if let Some(direct) = DIRECT.get() {
        direct.control.secrets.read().heed(in_use);
    }
}

/// Logs a line with fields: as an object where the log is JSON, else as its text.
pub fn event(
    level: Level,
    target: &str,
    text: impl FnOnce() -> String,
    write: impl FnOnce(&mut Fields<'_>),
) {
    let Some(direct) = DIRECT.get().filter(|direct| level <= direct.control.level()) else {
        return;
    };
    let secrets = direct.control.secrets.read();
    let line = match direct.format {
        LogFormat::Json => {
            let mut fields = Fields::new(level, &secrets);
            write(&mut fields);
            fields.into_line()
        }
        LogFormat::Text => direct.text_line(level, target, &secrets.scrub(&text())),
    };
    drop(secrets);
    direct.push(level, line);
}

/// The logger behind the `log` macros.
struct Logger {
    direct: Direct,
    form: Form,
}

/// RFC 3339 in UTC with milliseconds, the form of the time in every other line.
const MILLISECONDS: &[FormatItem<'static>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");

/// The beginnings of the targets of libraries' lines.
const LIBRARIES: [&str; 4] = ["ureq", "rustls", "webpki", "tiny_http"];

enum Form {
    Text(Box<WriteLogger<LineWriter>>),
    Journal,
    Json,
}

impl Logger {
    fn new(direct: Direct) -> Logger {
        let form = match direct.format {
            LogFormat::Json => Form::Json,
            LogFormat::Text if direct.is_journal => Form::Journal,
            LogFormat::Text => {
                let looks = ConfigBuilder::new()
                    .set_time_format_custom(MILLISECONDS)
                    .set_target_level(LevelFilter::Error)
                    .set_thread_level(LevelFilter::Off)
                    .set_location_level(LevelFilter::Off)
                    .build();
                let writer = LineWriter { lines: direct.lines.clone(), line: Vec::new() };
                Form::Text(WriteLogger::new(LevelFilter::Trace, looks, writer))
            }
        };
        Logger { direct, form }
    }
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let (level, wanted) = (metadata.level(), self.direct.control.level());
        let admitted = if LIBRARIES.iter().any(|name| metadata.target().starts_with(name)) {
            // Libraries know nothing of our secrets, and at the level `trace` they dump requests
            // byte by byte, in which no secret would be found.
            if wanted == LevelFilter::Trace {
                LevelFilter::Debug
            } else {
                wanted.min(LevelFilter::Info)
            }
        } else {
            wanted
        };
        level <= admitted
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let message = record.args().to_string();
        let message = {
            let secrets = self.direct.control.secrets.read();
            secrets.scrub_cut(&message).into_owned()
        };
        match &self.form {
            Form::Text(writer) => {
                let clean = line::text_message(&message);
                // The message is formatted before: no code that can panic runs under the writer's
                // lock.
                writer.log(
                    &Record::builder()
                        .metadata(record.metadata().clone())
                        .args(format_args!("{clean}"))
                        .build(),
                );
            }
            Form::Journal => {
                let line = self.direct.text_line(record.level(), record.target(), &message);
                self.direct.push(record.level(), line);
            }
            Form::Json => {
                let line = line::json(record.level(), record.target(), &message);
                self.direct.push(record.level(), line);
            }
        }
    }

    fn flush(&self) {}
}

/// Collects simplelog's pieces until the line is whole; a message has no line ends of its own
/// here.
struct LineWriter {
    lines: Lines,
    line: Vec<u8>,
}

impl Write for LineWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.line.extend_from_slice(bytes);
        if bytes.ends_with(b"\n") {
            let mut line =
                String::from_utf8_lossy(&std::mem::take(&mut self.line)).into_owned();
            if line.len() > LOG_LINE_BYTES_MAX {
                line.truncate(line.floor_char_boundary(LOG_LINE_BYTES_MAX - 1));
                line.push('\n');
            }
            self.lines.push(line);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
