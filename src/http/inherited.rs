//! A listening socket that another process has opened: the service manager, or the process that
//! this one replaces. Connections wait in the socket while no process accepts, so that none is
//! refused.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use listenfd::ListenFd;
use rustix::net::sockopt::socket_acceptconn;
use rustix::net::{SocketAddrUnix, getsockname};

use crate::config::Listen;

/// A socket that already listens.
#[derive(Debug)]
pub struct Inherited {
    pub(super) fd: OwnedFd,
    pub(super) address: Listen,
    /// True if this process removes the file of the Unix socket at its end.
    pub(super) owns_file: bool,
}

impl Inherited {
    /// The socket that the service manager passes (`LISTEN_FDS`, sd_listen_fds(3)), if it passes
    /// one. Removes the variables from the environment, so it is called before there are threads.
    ///
    /// # Errors
    /// The passed descriptor cannot be listened on.
    pub fn from_manager() -> io::Result<Option<Inherited>> {
        let mut passed = ListenFd::from_env();
        if passed.len() > 1 {
            return Err(io::Error::new(
                ErrorKind::InvalidInput,
                format!("{} sockets are passed (LISTEN_FDS); one is served", passed.len()),
            ));
        }
        let fd: Option<OwnedFd> = match passed.take_tcp_listener(0) {
            Ok(tcp) => tcp.map(OwnedFd::from),
            Err(_) => passed.take_unix_listener(0)?.map(OwnedFd::from),
        };
        fd.map(|fd| Inherited::new(fd, false)).transpose()
    }

    /// A socket that was passed in any other way.
    ///
    /// # Errors
    /// The socket does not listen, or has no name.
    pub fn new(fd: OwnedFd, owns_file: bool) -> io::Result<Inherited> {
        if !socket_acceptconn(&fd)? {
            let what = "the socket that is passed does not listen";
            return Err(io::Error::new(ErrorKind::InvalidInput, what));
        }
        let bound = getsockname(&fd)?;
        let address = match SocketAddr::try_from(bound.clone()) {
            Ok(address) => Listen::Tcp(address),
            Err(_) => {
                let path = SocketAddrUnix::try_from(bound)?
                    .path()
                    .map(|path| PathBuf::from(std::ffi::OsStr::from_bytes(path.to_bytes())));
                // The number of a socket in the abstract name space says as much as its name.
                Listen::Unix(path.unwrap_or_else(|| PathBuf::from("@")))
            }
        };
        Ok(Inherited { fd, address, owns_file })
    }

    /// True if the socket listens at `listen`; port 0 is any port.
    pub fn is_at(&self, listen: &Listen) -> bool {
        match (&self.address, listen) {
            (Listen::Tcp(own), Listen::Tcp(wanted)) => {
                own.ip() == wanted.ip() && (wanted.port() == 0 || own.port() == wanted.port())
            }
            (Listen::Unix(own), Listen::Unix(wanted)) => own == wanted,
            (Listen::Tcp(_), Listen::Unix(_)) | (Listen::Unix(_), Listen::Tcp(_)) => false,
        }
    }

    /// The address at which the socket listens.
    pub fn address(&self) -> &Listen {
        &self.address
    }
}

/// The listening socket as it is handed to another process. While this value lives, connections
/// go on arriving in the socket, even if no process accepts them.
#[derive(Debug)]
pub struct PassedOn {
    pub(super) fd: OwnedFd,
    pub(super) file: Option<Arc<AtomicBool>>,
}

impl PassedOn {
    /// True if the last process that serves a Unix socket is to remove its file.
    pub fn owns_file(&self) -> bool {
        self.file.is_some()
    }

    /// Notes that this process serves the socket from here on, and removes its file at the end.
    pub fn taken_over(&self) {
        if let Some(removed) = &self.file {
            removed.store(true, Ordering::SeqCst);
        }
    }

    /// Notes that another process serves the socket from here on, and removes its file at the
    /// end.
    pub fn given_up(&self) {
        if let Some(removed) = &self.file {
            removed.store(false, Ordering::SeqCst);
        }
    }
}

impl AsFd for PassedOn {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn only_what_listens_is_taken() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let stream = TcpStream::connect(address).unwrap();
        let taken = Inherited::new(listener.into(), false).unwrap();
        assert_eq!(taken.address(), &Listen::Tcp(address));
        assert!(Inherited::new(stream.into(), false).is_err());
        let at = |text: &str| taken.is_at(&Listen::parse(text).unwrap());
        assert!(at(&address.to_string()) && at("127.0.0.1:0"));
        assert!(!at("127.0.0.2:0") && !at("127.0.0.1:1") && !at("unix:/a"));
    }
}
