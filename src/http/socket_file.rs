//! The file of a Unix socket: created with its permissions, taken over from a process that has
//! ended, removed at the end.

use std::fs::Permissions;
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

/// A socket file, removed at the end unless another process has put its own in its place.
#[derive(Debug)]
pub(crate) struct SocketFile {
    /// The file's path.
    pub(crate) path: PathBuf,
    inode: Option<u64>,
    /// True if the file is removed at the end: false when another process serves it.
    pub(crate) is_removed: Arc<AtomicBool>,
}

impl SocketFile {
    /// The file that was bound just now, or that another process has left to this one.
    pub(crate) fn of(path: &Path) -> SocketFile {
        let inode = std::fs::symlink_metadata(path).map(|meta| meta.ino()).ok();
        let is_removed = Arc::new(AtomicBool::new(true));
        SocketFile { path: path.to_owned(), inode, is_removed }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let inode = std::fs::symlink_metadata(&self.path).map(|meta| meta.ino()).ok();
        let is_ours = inode.is_some() && inode == self.inode;
        if is_ours && self.is_removed.load(Ordering::SeqCst) {
            // A file that is gone already is as good.
            drop(std::fs::remove_file(&self.path));
        }
    }
}

/// Binds a socket to a file with these permissions, whatever the umask; it does not listen yet.
/// The file is never more open than that: it is created with the permissions less the umask, and
/// the permissions that the umask has taken are added before a client could connect.
pub(crate) fn bind(
    path: &Path,
    mode: u32,
    group: Option<&str>,
    flags: SocketFlags,
) -> io::Result<(OwnedFd, SocketFile)> {
    let address = SocketAddrUnix::new(path)?;
    let group = group.map(group_id).transpose()?;
    let fd = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::fs::fchmod(&fd, Mode::from_raw_mode(mode))?;
    match rustix::net::bind(&fd, &address) {
        Err(Errno::ADDRINUSE) => {
            remove_stale(path)?;
            rustix::net::bind(&fd, &address)?;
        }
        bound => bound?,
    }
    let file = SocketFile::of(path);
    if let Some(group) = group {
        // The group is set before the permissions, which are that group's then.
        std::os::unix::fs::chown(path, None, Some(group)).map_err(|error| {
            io::Error::new(error.kind(), format!("its group cannot be {group}: {error}"))
        })?;
    }
    std::fs::set_permissions(path, Permissions::from_mode(mode))?;
    Ok((fd, file))
}

/// The number of a group, which may be given by its name in `/etc/group`: a static binary has no
/// other source.
fn group_id(group: &str) -> io::Result<u32> {
    if let Ok(number) = group.parse() {
        return Ok(number);
    }
    let groups = std::fs::read_to_string("/etc/group")?;
    let ids = groups.lines().filter_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(group)).then(|| fields.nth(1)?.parse().ok())?
    });
    ids.into_iter().next().ok_or_else(|| {
        io::Error::new(ErrorKind::NotFound, format!("/etc/group has no group {group:?}"))
    })
}

/// Removes the socket file of a process that has ended; never a file whose socket answers, nor
/// any other file.
fn remove_stale(path: &Path) -> io::Result<()> {
    if !std::fs::symlink_metadata(path)?.file_type().is_socket() {
        return Err(io::Error::new(ErrorKind::AlreadyExists, "the file is not a socket"));
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path)
        }
        Err(error) => Err(error),
        Ok(_) => Err(io::Error::new(ErrorKind::AddrInUse, "another process listens on it")),
    }
}
