//! A connected socket, TCP or Unix: reads, writes and waits with deadlines.
//!
//! The descriptor itself stays blocking, so that a thread may wait for a kept-alive connection's
//! next request with one `recv`. All other calls ask not to be blocked and poll, because socket
//! timeouts start anew with every call and so bound no total time.

use std::io::{self, ErrorKind, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown, sockopt};

/// Bytes per millisecond over a whole answer; a client that reads more slowly is cut off, however
/// steadily it reads.
const WRITE_BYTES_PER_MS_MIN: usize = 16;
/// Pieces handed to the kernel at once.
const WRITE_PIECES_MAX: usize = 64;

/// A connected socket.
#[derive(Debug)]
pub(crate) struct Socket(OwnedFd);

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<OwnedFd> for Socket {
    fn from(fd: OwnedFd) -> Socket {
        Socket(fd)
    }
}

/// Waits until `fd` is ready for `flags`; false when `deadline` passes before.
pub(crate) fn wait_ready(
    fd: BorrowedFd<'_>,
    flags: PollFlags,
    deadline: Instant,
) -> io::Result<bool> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).unwrap_or(Timespec { tv_sec: 0, tv_nsec: 0 });
        match poll(&mut [PollFd::from_borrowed_fd(fd, flags)], Some(&timeout)) {
            Ok(0) if Instant::now() >= deadline => return Ok(false),
            Ok(0) | Err(Errno::INTR) => (),
            Ok(_) => return Ok(true),
            Err(error) => return Err(error.into()),
        }
    }
}

impl Socket {
    /// Sets the time for which [`Socket::recv_idle`] waits.
    pub(crate) fn set_idle_timeout(&self, idle: Duration) -> io::Result<()> {
        // A timeout of zero would mean none.
        let idle = idle.max(Duration::from_millis(1));
        Ok(sockopt::set_socket_timeout(&self.0, sockopt::Timeout::Recv, Some(idle))?)
    }

    /// Waits for bytes until the idle timeout. 0 is the client's end.
    pub(crate) fn recv_idle(&self, into: &mut [u8]) -> io::Result<usize> {
        self.recv(into, RecvFlags::empty())
    }

    /// Takes the bytes that have arrived. 0 is the client's end.
    pub(crate) fn recv_now(&self, into: &mut [u8]) -> io::Result<usize> {
        self.recv(into, RecvFlags::DONTWAIT)
    }

    fn recv(&self, into: &mut [u8], flags: RecvFlags) -> io::Result<usize> {
        loop {
            match rustix::net::recv(&self.0, &mut *into, flags) {
                Ok((read, _)) => return Ok(read),
                Err(Errno::INTR) => (),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Waits for bytes until `deadline`. 0 is the client's end.
    ///
    /// # Errors
    /// [`ErrorKind::TimedOut`] when no byte came in time.
    pub(crate) fn recv_until(&self, into: &mut [u8], deadline: Instant) -> io::Result<usize> {
        self.until(deadline, || self.recv_now(into))
    }

    /// As [`Socket::recv_until`], into the room that `into` has left.
    pub(crate) fn append_until(
        &self,
        into: &mut Vec<u8>,
        deadline: Instant,
    ) -> io::Result<usize> {
        self.until(deadline, || {
            let room = spare_capacity(into);
            Ok(rustix::net::recv(&self.0, room, RecvFlags::DONTWAIT)?.1)
        })
    }

    fn until(
        &self,
        deadline: Instant,
        mut recv: impl FnMut() -> io::Result<usize>,
    ) -> io::Result<usize> {
        loop {
            match recv() {
                Err(error) if error.kind() == ErrorKind::Interrupted => (),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if !wait_ready(self.as_fd(), PollFlags::IN, deadline)? {
                        return Err(ErrorKind::TimedOut.into());
                    }
                }
                // A sender of single bytes never lets the wait above time out.
                Ok(_) if Instant::now() >= deadline => return Err(ErrorKind::TimedOut.into()),
                result => return result,
            }
        }
    }

    /// Hands over as many bytes as the kernel takes at once.
    pub(crate) fn send_now(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        let pieces = pieces.get(..WRITE_PIECES_MAX).unwrap_or(pieces);
        loop {
            let sent = match pieces {
                [one] => rustix::net::send(&self.0, one, flags),
                many => {
                    let mut control = SendAncillaryBuffer::default();
                    rustix::net::sendmsg(&self.0, many, &mut control, flags)
                }
            };
            match sent {
                Ok(sent) => return Ok(sent),
                Err(Errno::INTR) => (),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Writes all of `pieces`.
    ///
    /// # Errors
    /// The client is gone, took nothing for `stall`, or is too slow over the whole.
    pub(crate) fn send_all(
        &self,
        mut pieces: &mut [IoSlice<'_>],
        stall: Duration,
    ) -> io::Result<()> {
        let bytes: usize = pieces.iter().map(|piece| piece.len()).sum();
        let mut left = bytes;
        // The clock is read only for a client that does not take all at once.
        let mut latest = None;
        while left > 0 {
            match self.send_now(pieces) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(sent) => {
                    left = left.saturating_sub(sent);
                    IoSlice::advance_slices(&mut pieces, sent);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    let now = Instant::now();
                    let latest = *latest.get_or_insert_with(|| now + stall + slowest(bytes));
                    let deadline = latest.min(now + stall);
                    if !wait_ready(self.as_fd(), PollFlags::OUT, deadline)? {
                        return Err(ErrorKind::TimedOut.into());
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// True if the client has closed its sending side, or both.
    pub(crate) fn hung_up(&self) -> bool {
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let mut fds = [PollFd::from_borrowed_fd(self.as_fd(), PollFlags::RDHUP)];
        matches!(poll(&mut fds, Some(&now)), Ok(ready) if ready > 0)
    }

    /// Ends one direction or both. Does nothing on a socket that has ended already.
    pub(crate) fn shutdown(&self, how: Shutdown) {
        rustix::net::shutdown(&self.0, how).ok();
    }
}

/// The time that an answer of so many bytes may take beyond the bound on one stall.
fn slowest(bytes: usize) -> Duration {
    let millis = bytes.checked_div(WRITE_BYTES_PER_MS_MIN).unwrap_or(0);
    Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    fn pair() -> (Socket, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Socket::from(OwnedFd::from(ours)), theirs)
    }

    #[test]
    fn a_reader_that_never_reads_is_cut_off_at_the_stall() {
        let (ours, _theirs) = pair();
        let body = vec![0; 4 << 20];
        let begun = Instant::now();
        let sent = ours.send_all(&mut [IoSlice::new(&body)], Duration::from_millis(30));
        assert_eq!(sent.unwrap_err().kind(), ErrorKind::TimedOut);
        assert!(begun.elapsed() < Duration::from_secs(1));
    }

    #[test]
    fn silence_and_dripping_end_at_the_deadline() {
        let (ours, mut theirs) = pair();
        let deadline = Instant::now() + Duration::from_millis(20);
        let silent = ours.recv_until(&mut [0; 8], deadline);
        assert_eq!(silent.unwrap_err().kind(), ErrorKind::TimedOut);
        theirs.write_all(b"x").unwrap();
        let late = ours.recv_until(&mut [0; 8], deadline);
        assert_eq!(late.unwrap_err().kind(), ErrorKind::TimedOut);
    }

    #[test]
    fn a_hang_up_is_seen() {
        let (ours, theirs) = pair();
        assert!(!ours.hung_up());
        drop(theirs);
        assert!(ours.hung_up());
    }
}
