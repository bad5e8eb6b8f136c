//! A connection that has left the pool: what the hub of long-lived responses holds.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use rustix::net::Shutdown;

use super::socket::Socket;

/// A detached connection, TCP or Unix. Nothing on it blocks. Dropping it ends it.
#[derive(Debug)]
pub struct Stream(Arc<Socket>);

impl Stream {
    /// Takes over a connection.
    pub(crate) fn new(socket: Arc<Socket>) -> Stream {
        Stream(socket)
    }

    /// Takes what the client has sent. 0 is the client's end.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] when there is nothing; else the connection is broken.
    pub fn read_now(&self, into: &mut [u8]) -> io::Result<usize> {
        self.0.recv_now(into)
    }

    /// Hands over what the kernel takes at once of `pieces`.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] when it takes nothing; else the connection is broken.
    pub fn write_now(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.send_now(pieces)
    }

    /// Whether the client has gone.
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
        // Whoever still watches the descriptor keeps it open; the client must see the end.
        self.0.shutdown(Shutdown::Both);
    }
}
