//! One child process: its start, its pipes, and its end. It has a process group of its own, so
//! that whatever it starts ends with it.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::io::ioctl_fionread;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, kill_process_group, pidfd_open, waitid,
};

use crate::config::StdioTarget;
use crate::error::Stage;
use crate::limits::{CHILD_EXIT_SEEN, CHILD_GRACE};
use crate::protocol::call::{CallSink, PrincipalId};
use crate::protocol::jsonrpc::RpcError;
use crate::protocol::raw::{Raw, on_one_line};
use crate::thread::spawn;
use crate::wait::Wait;

use super::era_noise::EraNoise;
use super::outbox::{Outbox, Said};
use super::pipes;
use super::stderr::StderrRing;
use crate::upstream::failure::{Failure, FailureKind};
use crate::upstream::session::context::{NEVER, SessionContext};
use crate::upstream::session::correlation::Interest;
use crate::upstream::session::dispatch::MessageSender;
use crate::upstream::session::pending::PendingRequests;
use crate::upstream::transport::http::StreamThread;

/// What every child gets from our own environment; the rest is configured.
const INHERITED: [&str; 4] = ["PATH", "HOME", "LANG", "TZ"];
/// Between two looks at a child that should end: whether it must end at once meanwhile, and
/// whether it has, where the kernel cannot report that.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// Why a child could not be started: the system does not say which file it misses.
fn not_started(target: &StdioTarget, error: &std::io::Error) -> String {
    let StdioTarget { command, env, cwd, folder, .. } = target;
    if let Some(cwd) = cwd.as_ref().or(folder.as_ref()).filter(|cwd| !cwd.is_dir()) {
        return format!("cannot start {command:?}: its cwd {} is no folder", cwd.display());
    }
    if error.kind() != std::io::ErrorKind::NotFound {
        return format!("cannot start {command:?}: {error}");
    }
    if command.contains('/') {
        let what = match Path::new(command).exists() {
            true => "the interpreter in its first line is not there",
            false => "there is no such file",
        };
        return format!("cannot start {command:?}: {what}");
    }
    let configured = env.iter().find(|(name, _)| name == "PATH");
    let path = match configured {
        Some((_, path)) => path.expose().to_owned(),
        None => std::env::var("PATH").unwrap_or_default(),
    };
    format!("command {command:?} not found in PATH={path}")
}

/// A child that was started.
pub(crate) struct Child {
    pub(crate) shared: Arc<ChildShared>,
    process: Mutex<Option<Running>>,
}

/// What only the end of the child takes apart.
struct Running {
    process: std::process::Child,
    /// Its standard input once more, which tells how much of it was read; until contact is made.
    unread: Option<OwnedFd>,
    writer: StreamThread,
    readers: Vec<StreamThread>,
}

/// What the child's threads and the calls share.
pub(crate) struct ChildShared {
    pub(crate) context: Arc<SessionContext>,
    pub(crate) pending: PendingRequests,
    outbox: Mutex<Outbox>,
    /// What the writing thread waits on.
    pub(crate) writer: Arc<Wait>,
    /// Its output has ended.
    pub(crate) at_end: AtomicBool,
    /// It was found to keep no session.
    modern: AtomicBool,
    /// The gateway ends it.
    is_ending: AtomicBool,
    /// What the question about its era makes it complain of.
    pub(crate) noise: Arc<EraNoise>,
    has_answered: AtomicBool,
    /// Lines of its output that were no messages.
    nonsense: AtomicUsize,
    lost: Mutex<Option<Failure>>,
    pid: Pid,
    /// Readable once the child has ended; old kernels have none.
    pidfd: Option<OwnedFd>,
}

impl Child {
    /// Starts the child and the threads of its pipes.
    pub(crate) fn start(
        context: &Arc<SessionContext>,
        target: &StdioTarget,
        stderr: &Arc<StderrRing>,
    ) -> Result<Arc<Child>, Failure> {
        let failed = |error: std::io::Error| {
            Failure::new(FailureKind::Broke, Stage::Spawn, not_started(target, &error))
        };
        let writer = Wait::plain(NEVER).map_err(failed)?;
        let mut process = command(target).and_then(|mut it| it.spawn()).map_err(failed)?;
        let pipes = (process.stdin.take(), process.stdout.take(), process.stderr.take());
        let (Some(stdin), Some(stdout), Some(errors)) = pipes else {
            // All three were asked for, so this cannot be; but no child may be left behind.
            process.kill().and_then(|()| process.wait().map(drop)).ok();
            return Err(failed(std::io::ErrorKind::BrokenPipe.into()));
        };
        let pid = Pid::from_child(&process);
        let unread = stdin.as_fd().try_clone_to_owned().ok();
        let noise = Arc::<EraNoise>::default();
        let shared = Arc::new(ChildShared {
            context: context.clone(),
            pending: PendingRequests::default(),
            outbox: Mutex::default(),
            writer: writer.clone(),
            at_end: AtomicBool::new(false),
            modern: AtomicBool::new(false),
            is_ending: AtomicBool::new(false),
            noise: noise.clone(),
            has_answered: AtomicBool::new(false),
            nonsense: AtomicUsize::new(0),
            lost: Mutex::new(None),
            pid,
            pidfd: pidfd_open(pid, PidfdFlags::empty()).ok(),
        });
        let mut running = Running {
            process,
            unread,
            writer: StreamThread { wait: writer, thread: None },
            readers: Vec::with_capacity(2),
        };
        let started = (|| {
            let mine = shared.clone();
            let thread =
                spawn(&context.thread_name("out"), move || pipes::write(&mine, stdin))?;
            running.writer.thread = Some(thread);
            let (mine, wait) = (shared.clone(), Wait::plain(NEVER)?);
            let reader = wait.clone();
            let thread =
                spawn(&context.thread_name("in"), move || pipes::read(&mine, stdout, &reader))?;
            running.readers.push(StreamThread { wait, thread: Some(thread) });
            let (ring, wait) = (stderr.clone(), Wait::plain(NEVER)?);
            let (reader, mine) = (wait.clone(), context.clone());
            let thread = spawn(&context.thread_name("err"), move || {
                pipes::keep_errors(&mine, errors, &reader, &ring, &noise);
            })?;
            running.readers.push(StreamThread { wait, thread: Some(thread) });
            Ok(())
        })();
        let child = Arc::new(Child { shared, process: Mutex::new(Some(running)) });
        started.map_err(|error| {
            child.end();
            failed(error)
        })?;
        Ok(child)
    }

    /// Sends a request whose answer is looked for in the inboxes.
    pub(crate) fn ask(
        &self,
        id: u64,
        text: String,
        interest: Interest,
        wait: &Arc<Wait>,
    ) -> Result<(), Failure> {
        self.shared.pending.register(id, wait, interest)?;
        self.shared.queue(Said::Request(id), None, text)
    }

    /// Whether the child, or what runs in its place, has read all that was written to it. Taken
    /// for read where the system does not say.
    pub(crate) fn has_read(&self) -> bool {
        let is_written = self.shared.outbox().is_written();
        let process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        let unread = process.as_ref().and_then(|running| running.unread.as_ref());
        is_written
            && unread.and_then(|fd| ioctl_fionread(fd).ok()).is_none_or(|bytes| bytes == 0)
    }

    /// It has answered: what it has read is of no interest from here on.
    pub(crate) fn is_in_contact(&self) {
        let mut process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(running) = process.as_mut() {
            running.unread = None;
        }
        self.shared.has_answered.store(true, Ordering::Release);
        self.shared.noise.made_contact(Instant::now());
    }

    /// Sends a request, for which that one is charged, and waits for its answer.
    pub(crate) fn call(
        &self,
        id: u64,
        charged: Option<&PrincipalId>,
        text: String,
        interest: Interest,
        wait: &Arc<Wait>,
        sink: &dyn CallSink,
    ) -> Result<Result<Raw, RpcError>, Failure> {
        let waiting = self.shared.pending.enter(id, wait, interest)?;
        self.shared.queue(Said::Request(id), charged, text)?;
        let answer = waiting.answer(wait, sink);
        answer.map_err(|failure| match self.shared.take_back(id) {
            true => Failure { sent: false, ..failure },
            false => failure,
        })
    }

    /// Sends a message that wants no answer.
    pub(crate) fn say(&self, text: String) -> Result<(), Failure> {
        self.shared.say(text)
    }

    /// Sends a client's notification, if its principal has not too many waiting.
    pub(crate) fn notify(&self, whose: &PrincipalId, text: String) -> Result<(), Failure> {
        self.shared.queue(Said::Notification, Some(whose), text)
    }

    /// Why the child cannot be used any more, if so.
    pub(crate) fn death(&self) -> Option<Failure> {
        self.shared.lost().clone()
    }

    /// Ends the child and everything it started, and waits for that; at most twice
    /// `CHILD_GRACE`.
    pub(crate) fn end(&self) {
        let running = self.process.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(Running { mut process, unread, writer, readers }) = running else { return };
        self.shared.is_ending.store(true, Ordering::Release);
        // With its thread, the child's standard input is closed: the polite way to say it.
        drop(unread);
        drop(writer);
        let shared = &self.shared;
        if !shared.wait_for_exit(CHILD_GRACE) {
            kill_process_group(shared.pid, Signal::TERM).ok();
            shared.wait_for_exit(CHILD_GRACE);
        }
        // Before it is reaped, so that its number cannot belong to anybody else by then. Also
        // for a child that has ended, because what it started may not have.
        kill_process_group(shared.pid, Signal::KILL).ok();
        process.wait().ok();
        drop(readers);
        shared.lose("it was ended");
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.end();
    }
}

impl ChildShared {
    fn outbox(&self) -> MutexGuard<'_, Outbox> {
        self.outbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lost(&self) -> MutexGuard<'_, Option<Failure>> {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a message that wants no answer into the queue of those to be written.
    pub(crate) fn say(&self, text: String) -> Result<(), Failure> {
        self.queue(Said::Message, self.context.charged(), text)
    }

    fn queue(
        &self,
        said: Said,
        charged: Option<&PrincipalId>,
        text: String,
    ) -> Result<(), Failure> {
        let mut line = match on_one_line(&text) {
            std::borrow::Cow::Borrowed(_) => text,
            std::borrow::Cow::Owned(line) => line,
        };
        line.push('\n');
        {
            let mut outbox = self.outbox();
            if !outbox.push(said, charged, line) {
                let (lines, bytes) = outbox.counts();
                let what = format!(
                    "{lines} messages of {bytes} bytes wait to be written to {}",
                    self.context.name()
                );
                return Err(Failure::new(FailureKind::Overloaded, Stage::Send, what));
            }
        }
        self.writer.bell().ring();
        Ok(())
    }

    /// The next line to be written.
    pub(crate) fn next_line(&self) -> Option<String> {
        self.outbox().next()
    }

    /// Takes a request out of the queue whose answer nobody waits for any more; false if it is
    /// too late for that.
    fn take_back(&self, id: u64) -> bool {
        self.outbox().take_back(id)
    }

    /// What is readable once the child has ended.
    pub(crate) fn pidfd(&self) -> Option<&OwnedFd> {
        self.pidfd.as_ref()
    }

    /// How the child ended, if it has; it is not reaped by that.
    pub(crate) fn exit(&self) -> Option<String> {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        let status = waitid(WaitId::Pid(self.pid), options).ok()??;
        if let Some(code) = status.exit_status() {
            return Some(format!("it exited with status {code}"));
        }
        let signal = status.terminating_signal()?;
        Some(format!("it was ended by signal {signal}"))
    }

    /// Waits for the child's end; false if it has not come by then.
    pub(crate) fn wait_for_exit(&self, patience: Duration) -> bool {
        let Ok(wait) = Wait::plain(patience) else { return self.exit().is_some() };
        let fd = self.pidfd.as_ref().map(|fd| (fd.as_fd(), PollFlags::IN));
        loop {
            if self.exit().is_some() {
                return true;
            }
            let hurry = self.context.hurry.load(Ordering::Relaxed);
            if hurry || wait.until(fd, Some(LOOK_INTERVAL)).is_err() {
                return self.exit().is_some();
            }
        }
    }

    /// The child is no longer of use: says why, fails its calls, and tells the supervisor.
    pub(crate) fn lose(&self, otherwise: &str) {
        self.lose_because(self.exit().unwrap_or_else(|| otherwise.to_owned()));
    }

    /// [`ChildShared::lose`] for a reason that holds however the child ends.
    pub(crate) fn lose_because(&self, message: String) {
        let failure = {
            let mut lost = self.lost();
            let new = || Failure::new(FailureKind::Broke, Stage::Read, message);
            lost.get_or_insert_with(new).clone()
        };
        self.pending.lose(&failure);
        self.context.mailbox.idle.bell().ring();
    }

    /// [`ChildShared::lose`], after the child has had a moment to end, so that its exit is told.
    pub(crate) fn lose_soon(&self, otherwise: &str) {
        self.wait_for_exit(CHILD_EXIT_SEEN);
        self.lose(otherwise);
    }

    /// From here on what it says is what a modern server says.
    pub(crate) fn speak_modern(&self) {
        self.modern.store(true, Ordering::Release);
    }

    pub(crate) fn is_modern(&self) -> bool {
        self.modern.load(Ordering::Acquire)
    }

    /// Whether what it says and does from here on is because the gateway ends it.
    pub(crate) fn is_ending(&self) -> bool {
        self.is_ending.load(Ordering::Acquire) || self.context.mailbox.is_stopped()
    }

    /// Whether contact was made.
    pub(crate) fn has_answered(&self) -> bool {
        self.has_answered.load(Ordering::Acquire)
    }

    pub(crate) fn note_nonsense(&self) {
        self.nonsense.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn nonsense_lines(&self) -> usize {
        self.nonsense.load(Ordering::Relaxed)
    }

    pub(crate) fn note_end(&self) {
        self.at_end.store(true, Ordering::Release);
        self.writer.bell().ring();
    }
}

impl MessageSender for ChildShared {
    fn say(&self, text: String) {
        // A full queue means that the child does not read; it will not miss this.
        ChildShared::say(self, text).ok();
    }
}

fn command(target: &StdioTarget) -> std::io::Result<Command> {
    let mut command = if target.command == "trunkline" {
        Command::new(std::env::current_exe()?)
    } else {
        Command::new(&target.command)
    };
    command.args(&target.args).env_clear();
    for name in INHERITED {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    for (name, value) in &target.env {
        command.env(name, value.expose());
    }
    if let Some(folder) = target.cwd.as_ref().or(target.folder.as_ref()) {
        command.current_dir(folder);
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.process_group(0);
    Ok(command)
}
