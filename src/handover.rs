//! Hands the service over to a new process at the same address, so that an upgrade refuses no
//! client: the old process starts the program anew, passes it the listening socket, and goes on
//! serving its own connections.
//!
//! A pair of sockets connects the two processes; it is the new one's standard input. Over it go
//! the listeners, the lock on `state_dir` and the key of sessions; back comes a message that the
//! new process serves. A new process that does not come so far (its configuration is bad, say) is
//! ended, and the old one goes on.

use std::io::{self, IoSlice, IoSliceMut, Read as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};

use super::service_manager;
use crate::http::{Inherited, PassedOn};
use crate::limits::{FOLLOWED_TIMEOUT, FOLLOWER_END_TIMEOUT, FOLLOWER_START_TIMEOUT};
use crate::thread::StopReason;

/// A variable that is set for a process that replaces another one.
const FOLLOWS: &str = "TRUNKLINE_FOLLOWS";
/// The beginning of the first message. A version with another meaning has another text.
const GREETING: &[u8] = b"trunkline follow 1\n";
/// The message of the new process.
const SERVING: &[u8] = b"serving";
/// Descriptors that are handed over: the listener, that of `admin_listen` where there is one, and
/// the lock where there is one.
const DESCRIPTORS_MAX: usize = 3;
/// Bytes of the longest message.
const MESSAGE_BYTES_MAX: usize = 128;
/// The time between two checks that a process has ended.
const END_TICK: Duration = Duration::from_millis(5);
/// The time between two checks for a reason to stop while another process starts.
const START_TICK: Duration = Duration::from_millis(100);
/// Bytes that tell who removes the files of Unix sockets, and if there is an `admin_listen`.
const FLAGS: usize = 3;
/// Bytes of the key of sessions.
const KEY_BYTES: usize = 32;

/// The parts that a process takes over from another one; all none where it starts alone.
#[derive(Debug, Default)]
pub struct Inheritance {
    /// The socket that it serves.
    pub listener: Option<Inherited>,
    /// The socket of `admin_listen`, where the one before had one.
    pub admin_listener: Option<Inherited>,
    /// The lock on `state_dir`.
    pub lock: Option<OwnedFd>,
    /// The key with which session ids are made, so that sessions go on.
    pub session_key: Option<[u8; KEY_BYTES]>,
    /// The process that waits for the message that this one serves.
    pub predecessor: Option<Predecessor>,
}

/// The parts that a process leaves to the one that replaces it.
#[derive(Debug)]
pub struct Estate {
    /// The socket that it serves; none where the engine keeps it.
    pub listener: Option<PassedOn>,
    /// The socket of `admin_listen`.
    pub admin_listener: Option<PassedOn>,
    /// The lock on `state_dir`.
    pub lock: Option<OwnedFd>,
    /// The key with which session ids are made.
    pub session_key: [u8; KEY_BYTES],
    /// The time for which the old process may go on after it is replaced.
    pub leave: Duration,
}

/// The process that this one replaces.
#[derive(Debug)]
pub struct Predecessor(OwnedFd);

impl Inheritance {
    /// The parts that this process was started with: by the one that it replaces, or by the
    /// service manager. Called before there are threads.
    ///
    /// # Errors
    /// A passed descriptor is of no use.
    pub fn take() -> io::Result<Inheritance> {
        if std::env::var_os(FOLLOWS).is_some() {
            return from_predecessor();
        }
        let listener = Inherited::from_manager()?;
        Ok(Inheritance { listener, ..Inheritance::default() })
    }
}

impl Predecessor {
    /// Tells the old process that this one serves. Returns once the old process has told the
    /// service manager which process is the service, or is gone.
    pub fn serving(self) {
        let flags = SendFlags::NOSIGNAL;
        if rustix::net::send(&self.0, SERVING, flags).is_ok() {
            // The other end sends nothing more, and closes.
            wait_readable(self.0.as_fd(), FOLLOWED_TIMEOUT).ok();
        }
    }
}

/// The reason why no other process replaces this one.
#[derive(Debug)]
pub enum NotFollowed {
    /// The other process does not serve; the text gives the reason.
    Failed(String),
    /// There was a reason to stop before the other process served.
    Stopped(StopReason),
}

impl From<String> for NotFollowed {
    fn from(why: String) -> NotFollowed {
        NotFollowed::Failed(why)
    }
}

/// Starts the program anew, as this process was started, and waits until the new one serves, or
/// there is a reason to `stop`. Then the new process is the service.
///
/// # Errors
/// The new process does not serve; no part of it is left.
pub fn start(
    estate: &Estate,
    stop: impl Fn() -> Option<StopReason>,
) -> Result<(), NotFollowed> {
    let Some(listener) = &estate.listener else {
        return Err("this engine does not hand its socket over".to_owned().into());
    };
    let (ours, theirs) = rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
    .map_err(|error| format!("no pair of sockets: {error}"))?;
    send_estate(&ours, listener, estate)
        .map_err(|error| format!("nothing can be handed over: {error}"))?;
    let mut child = spawn(theirs).map_err(|error| format!("it cannot be started: {error}"))?;
    await_word(&ours, &stop).map_err(|wait| match wait {
        Wait::Ended(why) => NotFollowed::Failed(format!("{why}{}", end(&mut child))),
        Wait::Over(why) => {
            ask_to_end(&child);
            NotFollowed::Failed(format!("{why}{}", end(&mut child)))
        }
        Wait::Stopped(reason) => {
            ask_to_end(&child);
            end(&mut child);
            NotFollowed::Stopped(reason)
        }
    })?;
    listener.given_up();
    if let Some(admin) = &estate.admin_listener {
        admin.given_up();
    }
    let pid = child.id();
    service_manager::followed_by(pid);
    log::info!("process {pid} serves from here on; this one ends with what it has");
    // The end of the connection tells the new process that it is the service from here on.
    drop(ours);
    Ok(())
}

/// Sends SIGTERM, as a service manager does, so that the process ends its children.
fn ask_to_end(child: &Child) {
    let pid = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw);
    if let Some(pid) = pid {
        // The process may have ended by itself.
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).ok();
    }
}

/// Ends a new process that does not serve; returns how it has ended.
fn end(child: &mut Child) -> String {
    // Mostly it is about to end by itself, and its exit code shows the reason.
    let deadline = Instant::now() + FOLLOWER_END_TIMEOUT;
    while Instant::now() < deadline && matches!(child.try_wait(), Ok(None)) {
        std::thread::park_timeout(END_TICK);
    }
    child.kill().ok();
    child.wait().map(|status| format!(" ({status})")).unwrap_or_default()
}

fn spawn(stdin: OwnedFd) -> io::Result<Child> {
    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_default();
    let rest: Vec<_> = arguments.collect();
    let start = |program: &std::ffi::OsStr, stdin: OwnedFd| {
        Command::new(program)
            .args(&rest)
            .env(FOLLOWS, "1")
            // The variable names the process that the manager has started.
            .env_remove("WATCHDOG_PID")
            .stdin(Stdio::from(stdin))
            .spawn()
    };
    // The program is started by its name, so that the present file runs: a newer version, most
    // likely.
    match start(&name, stdin.try_clone()?) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            start(std::env::current_exe()?.as_os_str(), stdin)
        }
        started => started,
    }
}

fn send_estate(channel: &OwnedFd, listener: &PassedOn, estate: &Estate) -> io::Result<()> {
    let admin = estate.admin_listener.as_ref();
    let flags = [listener.owns_file(), admin.is_some(), admin.is_some_and(PassedOn::owns_file)]
        .map(u8::from);
    let pieces = [GREETING, &flags, &estate.session_key].map(IoSlice::new);
    let mut descriptors = vec![listener.as_fd()];
    descriptors.extend(admin.map(AsFd::as_fd));
    descriptors.extend(estate.lock.as_ref().map(AsFd::as_fd));
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(io::Error::other("too many descriptors"));
    }
    rustix::net::sendmsg(channel, &pieces, &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// The end of the wait for the message that the new process serves, without that message.
enum Wait {
    /// The new process has ended, or is about to.
    Ended(String),
    /// The time is over, and the new process is still there.
    Over(String),
    /// This process is to stop.
    Stopped(StopReason),
}

fn await_word(channel: &OwnedFd, stop: impl Fn() -> Option<StopReason>) -> Result<(), Wait> {
    let over = |error: &dyn std::fmt::Display| Wait::Over(error.to_string());
    let deadline = Instant::now() + FOLLOWER_START_TIMEOUT;
    while !wait_readable(channel.as_fd(), START_TICK).map_err(|error| over(&error))? {
        if let Some(reason) = stop() {
            return Err(Wait::Stopped(reason));
        }
        if Instant::now() >= deadline {
            let seconds = FOLLOWER_START_TIMEOUT.as_secs();
            return Err(over(&format_args!("it does not serve after {seconds} s")));
        }
    }
    let mut word = [0; MESSAGE_BYTES_MAX];
    match rustix::net::recv(channel, &mut word[..], RecvFlags::empty()) {
        Ok((read, _)) if word.get(..read) == Some(SERVING) => Ok(()),
        Ok((0, _)) => Err(Wait::Ended("it has ended; see its own lines above".to_owned())),
        Ok(_) => Err(over(&"it is not known to this version what it says")),
        Err(error) => Err(over(&error)),
    }
}

fn from_predecessor() -> io::Result<Inheritance> {
    let channel = io::stdin().as_fd().try_clone_to_owned()?;
    // From here on standard input is as under a service manager.
    rustix::stdio::dup2_stdin(std::fs::File::open("/dev/null")?)?;
    let mut message = [0; MESSAGE_BYTES_MAX];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let read = rustix::net::recvmsg(
        &channel,
        &mut [IoSliceMut::new(&mut message)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )?
    .bytes;
    let mut descriptors = control
        .drain()
        .filter_map(|part| {
            let RecvAncillaryMessage::ScmRights(descriptors) = part else { return None };
            Some(descriptors)
        })
        .flatten();
    let odd = || io::Error::other("what the process before this one hands over is not known");
    let listener = descriptors.next().ok_or_else(odd)?;
    let mut rest =
        message.get(..read).and_then(|it| it.strip_prefix(GREETING)).ok_or_else(odd)?;
    let (mut flags, mut key) = ([0; FLAGS], [0; KEY_BYTES]);
    rest.read_exact(&mut flags).and_then(|()| rest.read_exact(&mut key))?;
    let [owns_file, has_admin, admin_owns_file] = flags.map(|flag| flag != 0);
    let admin_listener = if has_admin {
        let admin = descriptors.next().ok_or_else(odd)?;
        Some(Inherited::new(admin, admin_owns_file)?)
    } else {
        None
    };
    let lock = descriptors.next();
    Ok(Inheritance {
        listener: Some(Inherited::new(listener, owns_file)?),
        admin_listener,
        lock,
        session_key: Some(key),
        predecessor: Some(Predecessor(channel)),
    })
}

/// Waits until there are bytes to read, or the other end has closed; false when the time is over.
fn wait_readable(channel: BorrowedFd<'_>, within: Duration) -> io::Result<bool> {
    let deadline = Instant::now() + within;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).unwrap_or(Timespec { tv_sec: 0, tv_nsec: 0 });
        match poll(&mut [PollFd::from_borrowed_fd(channel, PollFlags::IN)], Some(&timeout)) {
            Ok(0) if left.is_zero() => return Ok(false),
            Ok(0) | Err(Errno::INTR) => (),
            Ok(_) => return Ok(true),
            Err(error) => return Err(error.into()),
        }
    }
}
