//! The listening socket, TCP or Unix.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::Ordering;

use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::inherited::{Inherited, PassedOn};
use super::socket::Socket;
use super::socket_file::{self, SocketFile};
use super::{Listen, Peer};
use crate::config;
use crate::limits::{Limits, SEND_BUFFER_BYTES};

/// Connections that the kernel holds until they are accepted.
const BACKLOG: i32 = 1024;
/// Descriptors of everything besides connections: children's pipes, streams of servers, files.
const DESCRIPTORS_BESIDE: usize = 256;

/// A bound socket that accepts without blocking.
#[derive(Debug)]
pub(crate) struct Listener {
    fd: OwnedFd,
    address: config::Listen,
    file: Option<SocketFile>,
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Listener {
    /// Binds and listens.
    pub(crate) fn bind(listen: &Listen) -> io::Result<Listener> {
        let bound = match listen {
            Listen::Tcp(address) => bind_tcp(*address),
            Listen::Unix { path, mode, group } => bind_unix(path, *mode, group.as_deref()),
        };
        bound.map_err(|error| {
            io::Error::new(error.kind(), format!("cannot listen on {listen}: {error}"))
        })
    }

    /// Takes a socket that already listens.
    pub(crate) fn take(inherited: Inherited) -> io::Result<Listener> {
        let Inherited { fd, address, owns_file } = inherited;
        rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&fd, true)?;
        let file = match &address {
            config::Listen::Tcp(_) => {
                set_for_connections(&fd)?;
                None
            }
            config::Listen::Unix(path) => owns_file.then(|| {
                let file = SocketFile::of(path);
                // The other process may go on alone: the file belongs to it until this process
                // serves.
                file.is_removed.store(false, Ordering::SeqCst);
                file
            }),
        };
        Ok(Listener { fd, address, file })
    }

    /// The same socket for another process.
    pub(crate) fn pass_on(&self) -> io::Result<PassedOn> {
        let file = self.file.as_ref().map(|file| file.is_removed.clone());
        Ok(PassedOn { fd: self.fd.try_clone()?, file })
    }

    /// `127.0.0.1:4000` or `unix:/path`.
    pub(crate) fn address_text(&self) -> String {
        self.address.to_string()
    }

    /// The port, for TCP.
    pub(crate) fn port(&self) -> Option<u16> {
        match &self.address {
            config::Listen::Tcp(address) => Some(address.port()),
            config::Listen::Unix(_) => None,
        }
    }

    /// The next connection that waits.
    pub(crate) fn accept(&self) -> io::Result<(Socket, Peer)> {
        let (fd, address) = rustix::net::acceptfrom_with(&self.fd, SocketFlags::CLOEXEC)?;
        let peer = match address.map(SocketAddr::try_from) {
            Some(Ok(address)) => Peer::Ip(unmapped(address.ip())),
            Some(Err(_)) | None => Peer::Unix,
        };
        if peer == Peer::Unix {
            // Accepted Unix sockets do not inherit the size. A larger buffer works as well.
            sockopt::set_socket_send_buffer_size(&fd, SEND_BUFFER_BYTES).ok();
        }
        Ok((Socket::from(fd), peer))
    }
}

/// A peer of a dual-stack listener shows as `::ffff:a.b.c.d`.
fn unmapped(ip: IpAddr) -> IpAddr {
    ip.to_canonical()
}

const FLAGS: SocketFlags = SocketFlags::CLOEXEC.union(SocketFlags::NONBLOCK);

fn bind_tcp(address: SocketAddr) -> io::Result<Listener> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let fd = rustix::net::socket_with(family, SocketType::STREAM, FLAGS, None)?;
    sockopt::set_socket_reuseaddr(&fd, true)?;
    set_for_connections(&fd)?;
    rustix::net::bind(&fd, &address)?;
    rustix::net::listen(&fd, BACKLOG)?;
    let bound = SocketAddr::try_from(rustix::net::getsockname(&fd)?)?;
    Ok(Listener { fd, address: config::Listen::Tcp(bound), file: None })
}

/// Sets options that accepted sockets inherit, which saves a call per connection. There is no
/// send timeout among them because every write is polled with a deadline of its own.
fn set_for_connections(fd: &OwnedFd) -> io::Result<()> {
    sockopt::set_tcp_nodelay(fd, true)?;
    sockopt::set_socket_send_buffer_size(fd, SEND_BUFFER_BYTES)?;
    Ok(sockopt::set_socket_keepalive(fd, true)?)
}

fn bind_unix(path: &Path, mode: u32, group: Option<&str>) -> io::Result<Listener> {
    let (fd, file) = socket_file::bind(path, mode, group, FLAGS)?;
    rustix::net::listen(&fd, BACKLOG)?;
    let address = config::Listen::Unix(path.to_path_buf());
    Ok(Listener { fd, address, file: Some(file) })
}

/// Lifts the soft limit on descriptors to the hard one: connections and streams need many. Logs a
/// warning where the configured bounds need even more.
pub(crate) fn raise_descriptor_limit(limits: &Limits) {
    let limit = getrlimit(Resource::Nofile);
    let mut current = limit.current;
    if limit.current != limit.maximum {
        let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
        match setrlimit(Resource::Nofile, raised) {
            Ok(()) => current = limit.maximum,
            Err(error) => {
                log::warn!("the limit on open files stays at {:?}: {error}", limit.current);
            }
        }
    }
    let wanted = descriptors_wanted(limits);
    if let Some(current) = current
        && current < wanted
    {
        log::warn!(
            "limits.connections and limits.streams may need {wanted} open files, and this process \
             may have {current}: what is beyond that is refused; raise LimitNOFILE (systemd) or \
             ulimit -Hn, or lower the limits"
        );
    }
}

/// A connection whose request is in work needs descriptors for its socket, one to a server, and a
/// bell.
fn descriptors_wanted(limits: &Limits) -> u64 {
    let connections = limits.connections.saturating_mul(3);
    let wanted = connections.saturating_add(limits.streams).saturating_add(DESCRIPTORS_BESIDE);
    u64::try_from(wanted).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mapped_peers_are_ipv4() {
        let text = |ip: &str| unmapped(ip.parse().unwrap()).to_string();
        assert_eq!(text("::ffff:10.1.2.3"), "10.1.2.3");
        assert_eq!(text("::1"), "::1");
    }

    #[test]
    fn an_error_names_the_address() {
        let first = Listener::bind(&Listen::Tcp("127.0.0.1:0".parse().unwrap())).unwrap();
        let port = first.port().unwrap();
        let again = Listen::Tcp(([127, 0, 0, 1], port).into());
        let error = Listener::bind(&again).unwrap_err().to_string();
        assert!(error.starts_with(&format!("cannot listen on {again}: ")), "{error}");
    }

    #[test]
    fn a_socket_file_is_replaced_only_when_nobody_answers_it() {
        let dir = std::env::temp_dir().join(format!("trunkline-bind-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("socket");
        let listen = Listen::Unix { path: path.clone(), mode: 0o600, group: None };
        let first = Listener::bind(&listen).unwrap();
        let error = Listener::bind(&listen).unwrap_err();
        assert!(error.to_string().contains("another process listens"), "{error}");
        drop(first);
        assert!(!path.exists());
        // A process that was killed leaves its file behind.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        drop(Listener::bind(&listen).unwrap());
        std::fs::write(&path, "precious").unwrap();
        assert!(Listener::bind(&listen).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
