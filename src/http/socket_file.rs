//! The file of a Unix socket: taken over from the dead, removed at the end.

use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

/// A socket file, removed at the end unless somebody else has put theirs in its place.
#[derive(Debug)]
pub(crate) struct SocketFile {
    /// Where it is.
    pub(crate) path: PathBuf,
    inode: Option<u64>,
}

impl SocketFile {
    /// The file that was bound just now.
    pub(crate) fn of(path: &Path) -> SocketFile {
        let inode = std::fs::symlink_metadata(path).map(|meta| meta.ino()).ok();
        SocketFile { path: path.to_owned(), inode }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let inode = std::fs::symlink_metadata(&self.path).map(|meta| meta.ino()).ok();
        if inode.is_some() && inode == self.inode {
            // Gone already is as good.
            drop(std::fs::remove_file(&self.path));
        }
    }
}

/// Removes the socket file of a process that has ended; never one that is answered, nor any
/// other file.
pub(crate) fn remove_stale(path: &Path) -> io::Result<()> {
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
