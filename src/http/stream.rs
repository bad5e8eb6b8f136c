//! A connection that has left the pool, as the thread of long-lived responses holds it.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use rustix::net::Shutdown;

use super::socket::Socket;

/// A detached connection, TCP or Unix. No call on it blocks. Dropping it ends the connection.
#[derive(Debug)]
pub struct Stream(Arc<Socket>);

impl Stream {
    /// Takes over a connection.
    pub(crate) fn new(socket: Arc<Socket>) -> Stream {
        Stream(socket)
    }

    /// Takes the bytes that the client has sent. 0 is the client's end.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] when there are none; else the connection is broken.
    pub fn read_now(&self, into: &mut [u8]) -> io::Result<usize> {
        self.0.recv_now(into)
    }

    /// Hands over as many bytes of `pieces` as the kernel takes at once.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] when the kernel takes none; else the connection is broken.
    pub fn write_now(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.send_now(pieces)
    }

    /// True if the client has gone.
    pub fn client_gone(&self) -> bool {
        self.0.hung_up()
    }

    /// Tells the client that no more comes.
    pub fn finish(&self) {
        self.0.shutdown(Shutdown::Write);
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // A watcher of the descriptor keeps it open; the client must see the end.
        self.0.shutdown(Shutdown::Both);
    }
}
