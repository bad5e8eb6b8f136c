//! The files of credentials in `state_dir`: sealed, a file each, and locked while one gateway of
//! several renews what is in it.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use ring::digest::{SHA256, digest};

use crate::limits::{CREDENTIALS_LOCK_INTERVAL, CREDENTIALS_LOCK_TIMEOUT};
use crate::protocol::credentials_id::CredentialsId;
use crate::protocol::sealed::Sealer;
use crate::protocol::server_name::ServerName;
use crate::state::StateDir;
use crate::state::framed::Form;
use crate::sync::Mutex;
use crate::upstream::http_client::fetcher::{RunningFetches, time_left};

use super::Owner;

const SEALED_FORM: Form = Form { name: "oauth", version: 1 };
/// The purpose of the key of these files, so that it opens no other.
const PURPOSE: &str = "oauth credentials";
const LOCK_MODE: u32 = 0o600;
const DIRECTORY_MODE: u32 = 0o700;

/// The files of all servers.
pub(super) struct Store {
    path: Option<PathBuf>,
    /// Tells that nothing is waited for any more.
    running: Arc<RunningFetches>,
    /// Made with the first file: most gateways need none.
    sealer: Mutex<Option<Arc<Sealer>>>,
}

/// One file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FileName(String);

/// A file as it was at one moment, to tell if it has changed since.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    inode: u64,
    changed_s: i64,
    changed_ns: i64,
}

/// A file that no other process renews, until this is dropped.
pub(super) struct Locked(#[expect(dead_code, reason = "the lock ends with the file")] File);

impl FileName {
    /// The credentials of an owner at a server.
    pub(super) fn of_credentials(server: &ServerName, owner: Owner) -> FileName {
        let whose = match owner {
            Owner::Gateway => "gateway".to_owned(),
            Owner::User(id) => id.to_string(),
        };
        FileName(format!("{}{whose}", before_owner(server)))
    }

    /// The registrations at the authorization servers of a server.
    pub(super) fn of_registrations(server: &ServerName) -> FileName {
        FileName(format!("oauth-clients-{}", named(server)))
    }
}

/// The part of a file's name before its owner.
fn before_owner(server: &ServerName) -> String {
    format!("oauth-{}-", named(server))
}

/// A server's name as a part of a file's name: names that differ in case only are told apart on
/// every file system.
fn named(server: &ServerName) -> String {
    let digest = digest(&SHA256, server.as_str().as_bytes());
    let short: String = digest.as_ref().iter().take(4).map(|b| format!("{b:02x}")).collect();
    format!("{}-{short}", server.as_str())
}

impl Store {
    pub(super) fn new(path: Option<PathBuf>, running: Arc<RunningFetches>) -> Store {
        Store { path, running, sealer: Mutex::default() }
    }

    fn directory(&self) -> io::Result<(StateDir, &Path)> {
        let path = self.path.as_deref();
        let path = path.ok_or_else(|| io::Error::other("there is no state_dir"))?;
        Ok((StateDir::of_another(path), path))
    }

    fn sealer(&self) -> io::Result<Arc<Sealer>> {
        if let Some(sealer) = &*self.sealer.lock() {
            return Ok(sealer.clone());
        }
        let (directory, path) = self.directory()?;
        DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(path)?;
        let key = match directory.known_oauth_key() {
            Some(key) => key,
            None => {
                // Two processes must not make a key each.
                let _locked = self.lock_name("oauth-key")?;
                directory.oauth_key()?
            }
        };
        let sealer = Arc::new(Sealer::new(&key, PURPOSE));
        *self.sealer.lock() = Some(sealer.clone());
        Ok(sealer)
    }

    /// Locks a file against other processes, and other threads of this one.
    ///
    /// # Errors
    /// Somebody has it for too long, or the disk refuses.
    pub(super) fn lock(&self, name: &FileName) -> io::Result<Locked> {
        let (_, path) = self.directory()?;
        DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(path)?;
        self.lock_name(&name.0)
    }

    fn lock_name(&self, name: &str) -> io::Result<Locked> {
        let (directory, path) = self.directory()?;
        let of_lock =
            |error: io::Error| io::Error::new(error.kind(), format!("{name}.lock: {error}"));
        let mut options = OpenOptions::new();
        let options = options.write(true).create(true).truncate(false).mode(LOCK_MODE);
        let file = options.open(path.join(format!("{name}.lock"))).map_err(of_lock)?;
        // A command that root runs must not shut the gateway of another user out.
        directory.give(&file).map_err(of_lock)?;
        let until = Instant::now() + time_left(CREDENTIALS_LOCK_TIMEOUT);
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Locked(file)),
                Err(TryLockError::WouldBlock)
                    if Instant::now() < until && !self.running.is_stopped() =>
                {
                    std::thread::sleep(CREDENTIALS_LOCK_INTERVAL);
                }
                Err(TryLockError::WouldBlock) => {
                    let what = format!(
                        "{name}.lock is held for too long, by another process or another renewal"
                    );
                    return Err(io::Error::new(io::ErrorKind::ResourceBusy, what));
                }
                Err(TryLockError::Error(error)) => return Err(of_lock(error)),
            }
        }
    }

    /// The text in a file. None where there is no such file, or one that does not open: that one
    /// is set aside.
    ///
    /// # Errors
    /// The disk refuses.
    pub(super) fn read(&self, name: &FileName) -> io::Result<Option<String>> {
        let Ok((directory, _)) = self.directory() else { return Ok(None) };
        if self.stamp(name)?.is_none() {
            return Ok(None);
        }
        let body = directory
            .read_now(&name.0, SEALED_FORM)
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", name.0)))?;
        let Some(body) = body else { return Ok(None) };
        let sealed = String::from_utf8(body).ok();
        let sealer = self.sealer()?;
        let text = sealed.and_then(|sealed| sealer.open_as(&name.0, &sealed));
        if text.is_none() {
            self.set_aside(name, "it was sealed with another key, or is another file's");
        }
        Ok(text)
    }

    /// The users with credentials at a server.
    pub(super) fn users_at(&self, server: &ServerName) -> Vec<CredentialsId> {
        let Ok((directory, _)) = self.directory() else { return Vec::new() };
        let prefix = before_owner(server);
        let names = directory.names();
        let owners = names.iter().filter_map(|name| name.strip_prefix(&prefix));
        let mut users: Vec<_> = owners.filter_map(CredentialsId::parse).collect();
        users.sort();
        users
    }

    /// Keeps a file of no use under another name.
    pub(super) fn set_aside(&self, name: &FileName, why: &str) {
        if let Ok((directory, _)) = self.directory() {
            directory.set_aside(&name.0, why);
        }
    }

    /// Writes a file whole.
    ///
    /// # Errors
    /// The disk refuses; the old file stays.
    pub(super) fn write(&self, name: &FileName, text: &str) -> io::Result<()> {
        let sealed = self.sealer()?.seal_as(&name.0, text);
        let (directory, _) = self.directory()?;
        directory.replace(&name.0, &SEALED_FORM.frame(sealed.as_bytes()))
    }

    /// Removes a file, if it exists.
    ///
    /// # Errors
    /// The disk refuses.
    pub(super) fn remove(&self, name: &FileName) -> io::Result<()> {
        let (directory, _) = self.directory()?;
        directory.remove(&name.0)
    }

    /// The mark that tells a file from the one that is written after it; none where there is none.
    ///
    /// # Errors
    /// The disk refuses to say.
    pub(super) fn stamp(&self, name: &FileName) -> io::Result<Option<Stamp>> {
        let Some(path) = &self.path else { return Ok(None) };
        match path.join(&name.0).symlink_metadata() {
            Ok(what) => Ok(Some(Stamp {
                inode: what.ino(),
                changed_s: what.ctime(),
                changed_ns: what.ctime_nsec(),
            })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str) -> PathBuf {
        let path =
            std::env::temp_dir().join(format!("trunkline-{name}-{}", std::process::id()));
        std::fs::remove_dir_all(&path).ok();
        path
    }

    #[test]
    fn files_are_sealed_and_their_owners_alone_and_one_that_does_not_open_is_set_aside() {
        use std::os::unix::fs::PermissionsExt as _;
        let path = folder("oauth-store");
        let store = Store::new(Some(path.clone()), Arc::default());
        let name = FileName::of_credentials(&ServerName::parse("s").unwrap(), Owner::Gateway);
        assert_eq!(store.read(&name).unwrap(), None);
        drop(store.lock(&name).unwrap());
        store.write(&name, "a token").unwrap();
        let before = store.stamp(&name).unwrap();
        assert_eq!(
            Store::new(Some(path.clone()), Arc::default()).read(&name).unwrap().unwrap(),
            "a token"
        );
        for entry in std::fs::read_dir(&path).unwrap() {
            let entry = entry.unwrap();
            let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
            assert_eq!(mode, 0o600, "{:?}", entry.path());
            let bytes = std::fs::read(entry.path()).unwrap();
            assert!(!String::from_utf8_lossy(&bytes).contains("a token"));
        }
        store.write(&name, "another").unwrap();
        assert_ne!(store.stamp(&name).unwrap(), before);
        // A file in the place of another one is of no use there.
        let other_name = FileName::of_registrations(&ServerName::parse("s").unwrap());
        std::fs::copy(path.join(&name.0), path.join(&other_name.0)).unwrap();
        assert_eq!(store.read(&other_name).unwrap(), None);
        assert_eq!(store.read(&name).unwrap().as_deref(), Some("another"));
        std::fs::remove_file(path.join("oauth-key")).unwrap();
        let other = Store::new(Some(path.clone()), Arc::default());
        assert_eq!(other.read(&name).unwrap(), None);
        assert_eq!(other.stamp(&name).unwrap(), None);
        std::fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn files_that_root_makes_are_those_of_the_directorys_owner() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        const OTHER: u32 = 65_534;
        let path = folder("oauth-owner");
        std::fs::create_dir(&path).unwrap();
        std::os::unix::fs::chown(&path, Some(OTHER), Some(OTHER)).unwrap();
        let store = Store::new(Some(path.clone()), Arc::default());
        let name = FileName::of_registrations(&ServerName::parse("s").unwrap());
        drop(store.lock(&name).unwrap());
        store.write(&name, "a token").unwrap();
        let entries: Vec<_> = std::fs::read_dir(&path).unwrap().map(Result::unwrap).collect();
        assert_eq!(entries.len(), 4, "a file and a key, with their locks: {entries:?}");
        for entry in entries {
            let what = entry.metadata().unwrap();
            assert_eq!((what.uid(), what.gid()), (OTHER, OTHER), "{:?}", entry.path());
        }
        std::fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn a_key_that_is_there_is_read_beside_its_lock_and_what_cannot_be_locked_is_named() {
        let path = folder("oauth-key");
        let store = Store::new(Some(path.clone()), Arc::default());
        let name = FileName::of_registrations(&ServerName::parse("s").unwrap());
        store.write(&name, "a token").unwrap();
        let _held = store.lock_name("oauth-key").unwrap();
        let began = Instant::now();
        let other = Store::new(Some(path.clone()), Arc::default());
        assert_eq!(other.read(&name).unwrap().as_deref(), Some("a token"));
        assert!(began.elapsed() < CREDENTIALS_LOCK_TIMEOUT / 4);
        std::fs::create_dir(path.join(format!("{}.lock", name.0))).unwrap();
        let error = other.lock(&name).err().unwrap().to_string();
        assert!(error.starts_with(&format!("{}.lock: ", name.0)), "{error}");
        std::fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn a_locked_file_is_nobody_elses() {
        let path = folder("oauth-lock");
        let (one, two) = (
            Store::new(Some(path.clone()), Arc::default()),
            Store::new(Some(path.clone()), Arc::default()),
        );
        let name = FileName::of_registrations(&ServerName::parse("s").unwrap());
        let held = one.lock(&name).unwrap();
        let (tell, told) = crossbeam_channel::bounded(1);
        let waiting = crate::thread::spawn("waits", move || {
            drop(two.lock(&name).unwrap());
            tell.send(()).unwrap();
        });
        let wait = std::time::Duration::from_millis(150);
        assert!(told.recv_timeout(wait).is_err(), "it waits");
        drop(held);
        assert!(told.recv_timeout(wait * 30).is_ok());
        drop(waiting.unwrap());
        std::fs::remove_dir_all(path).unwrap();
    }
}
