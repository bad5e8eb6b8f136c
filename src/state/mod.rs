//! Files in `state_dir`, which outlive the process. Each is written whole beside the old one and
//! renamed over it, names its kind, and has a checksum; an unusable file is set aside, and the
//! gateway starts without it. The users of these files know their content.

pub mod framed;
mod ids;
mod pace;
mod writer;

use std::fs::{DirBuilder, File, Metadata, OpenOptions, Permissions, TryLockError};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::{Path, PathBuf};
use std::sync::MutexGuard;
use std::time::{SystemTime, UNIX_EPOCH};

use ring::rand::{SecureRandom as _, SystemRandom};

use crate::limits::{STATE_FILE_BYTES_MAX, STATE_SET_ASIDE_MAX};
use crate::sync::Mutex;
use framed::{Form, Unusable};

pub use ids::Id;
pub use writer::{LISTS, Writer, Written, start};

/// Only the owner may read and write the files.
const FILE_MODE: u32 = 0o600;
const DIRECTORY_MODE: u32 = 0o700;
/// The permissions by which others could change files in a directory.
const WRITABLE_BY_OTHERS: u32 = 0o022;

const LOCK: &str = "lock";
const SESSION_KEY: &str = "session-key";
const SESSION_KEY_FORM: Form = Form { name: "session-key", version: 1 };
const OAUTH_KEY: &str = "oauth-key";
const OAUTH_KEY_FORM: Form = Form { name: "oauth-key", version: 1 };
/// The ending of the name of a file that was set aside, before the time.
const ASIDE: &str = ".corrupt-";
const TEMPORARY: &str = ".tmp";

/// The directory, which belongs to this process alone while this value lives.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    /// The locked file; the system unlocks it when the process ends in any way.
    lock: Mutex<Option<File>>,
    /// True if the directory belongs to another gateway: nothing in it is written, removed or set
    /// aside.
    is_read_only: bool,
    /// True if every read is refused, as a disk may do for a while.
    #[cfg(test)]
    pub(crate) refuses_reads: std::sync::atomic::AtomicBool,
}

impl StateDir {
    /// Opens the directory, and creates it where there is none.
    ///
    /// # Errors
    /// Another gateway uses it, or it cannot be created or read. A disk that cannot be written to
    /// is only a warning: the existing files are used.
    pub fn open(path: &Path) -> io::Result<StateDir> {
        StateDir::open_after(path, None)
    }

    /// As [`StateDir::open`], after another process that has handed its lock over: the lock
    /// belongs to both until that process has ended.
    ///
    /// # Errors
    /// As [`StateDir::open`].
    pub fn open_after(path: &Path, left: Option<OwnedFd>) -> io::Result<StateDir> {
        let told = |error: io::Error| {
            let what = if error.kind() == ErrorKind::AlreadyExists {
                "it is not a directory".to_owned()
            } else if error.kind() == ErrorKind::NotADirectory {
                "a part of it is not a directory".to_owned()
            } else {
                error.to_string()
            };
            io::Error::new(error.kind(), format!("state_dir {}: {what}", path.display()))
        };
        let made = DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(path);
        let path = path.to_path_buf();
        if let Err(error) = made {
            if !is_of_the_disk(&error) {
                return Err(told(failed("it cannot be made", error)));
            }
            log::warn!(target: "state", "state_dir {}: {error}; nothing is kept", path.display());
            return Ok(StateDir::of(path, None));
        }
        let mode = path
            .metadata()
            .map_err(|error| told(failed("it cannot be read", error)))?
            .permissions()
            .mode();
        if mode & WRITABLE_BY_OTHERS != 0 {
            log::warn!(
                target: "state",
                "state_dir {} can be written to by others (mode {:o})", path.display(), mode & 0o777
            );
        }
        let left = left.map(File::from).filter(|left| is_same_file(left, &path.join(LOCK)));
        let lock = match left.map_or_else(|| lock(&path.join(LOCK)), Ok) {
            Ok(lock) => Some(lock),
            Err(error) if is_of_the_disk(&error) => {
                log::warn!(target: "state", "state_dir {}: {error}", path.display());
                None
            }
            Err(error) => return Err(told(error)),
        };
        let directory = StateDir::of(path, lock);
        directory.remove_where(|name| name.starts_with('.') && name.ends_with(TEMPORARY));
        Ok(directory)
    }

    /// The lock, for another process.
    ///
    /// # Errors
    /// The system gives no descriptor.
    pub fn lock(&self) -> io::Result<Option<OwnedFd>> {
        self.held().as_ref().map(|lock| lock.try_clone().map(OwnedFd::from)).transpose()
    }

    /// Gives the lock up to another process. This process still writes its last files.
    pub fn give_lock_up(&self) {
        self.held().take();
    }

    fn held(&self) -> MutexGuard<'_, Option<File>> {
        self.lock.lock()
    }

    /// A directory that another gateway may use: for reading, and for files that both write, or that
    /// the other gateway takes.
    pub fn of_another(path: &Path) -> StateDir {
        StateDir::of(path.to_path_buf(), None)
    }

    /// As [`StateDir::open`], for a gateway with one client: where another gateway uses the
    /// directory, its files are read, and nothing is written.
    ///
    /// # Errors
    /// The directory cannot be created or read.
    pub fn open_or_read(path: &Path) -> io::Result<StateDir> {
        match StateDir::open(path) {
            Err(error) if error.kind() == ErrorKind::ResourceBusy => {
                Ok(StateDir::read_only(path))
            }
            opened => opened,
        }
    }

    /// A directory in which nothing is written, removed or set aside.
    pub fn read_only(path: &Path) -> StateDir {
        StateDir { is_read_only: true, ..StateDir::of_another(path) }
    }

    fn of(path: PathBuf, lock: Option<File>) -> StateDir {
        StateDir {
            path,
            lock: Mutex::new(lock),
            is_read_only: false,
            #[cfg(test)]
            refuses_reads: false.into(),
        }
    }

    /// The key with which session ids are made: that of the first start.
    ///
    /// # Errors
    /// The system gives no randomness.
    pub fn session_key(&self) -> io::Result<[u8; 32]> {
        let (key, written) = self.key(SESSION_KEY, SESSION_KEY_FORM)?;
        if let Err(error) = written
            && error.kind() != ErrorKind::AlreadyExists
        {
            log::warn!(
                target: "state",
                "{SESSION_KEY} cannot be written, so sessions end with this process: {error}"
            );
        }
        Ok(key)
    }

    /// The key with which credentials at servers are sealed: that of the first use. The caller
    /// sees to it that no other process makes one at the same time.
    ///
    /// # Errors
    /// The system gives no randomness, or the key cannot be kept: what is sealed with it could
    /// never be opened.
    pub fn oauth_key(&self) -> io::Result<[u8; 32]> {
        let (key, written) = self.key(OAUTH_KEY, OAUTH_KEY_FORM)?;
        written.map(|()| key)
    }

    /// The key of [`StateDir::oauth_key`], if it is there: nobody is waited for to read it.
    pub fn known_oauth_key(&self) -> Option<[u8; 32]> {
        let body = self.look_at(OAUTH_KEY, OAUTH_KEY_FORM).ok()??;
        self.tighten(OAUTH_KEY);
        body.try_into().ok()
    }

    /// The key in a file, which is made where there is none, and what came of writing it.
    fn key(&self, name: &str, form: Form) -> io::Result<([u8; 32], io::Result<()>)> {
        let key = |body: Vec<u8>| <[u8; 32]>::try_from(body).ok();
        self.tighten(name);
        if let Some(key) = self.read(name, form).and_then(key) {
            return Ok((key, Ok(())));
        }
        let mut key = [0; 32];
        SystemRandom::new()
            .fill(&mut key)
            .map_err(|_| io::Error::other("the system gives no randomness"))?;
        // A key that exists and cannot be read may be readable at the next start.
        let written = if self.path.join(name).exists() {
            Err(io::Error::new(ErrorKind::AlreadyExists, format!("{name} cannot be read")))
        } else {
            self.replace(name, &form.frame(&key))
        };
        Ok((key, written))
    }

    /// Takes others' permissions to a file away, with a warning, if there were any.
    fn tighten(&self, name: &str) {
        if self.is_read_only {
            return;
        }
        let path = self.path.join(name);
        let Ok(what) = path.symlink_metadata() else { return };
        let mode = what.permissions().mode() & 0o777;
        if !what.is_file() || mode & !FILE_MODE == 0 {
            return;
        }
        match std::fs::set_permissions(&path, Permissions::from_mode(FILE_MODE)) {
            Ok(()) => log::warn!(
                target: "state",
                "{name} was open to others (mode {mode:o}) and is its owner's alone now: if \
                 somebody may have read it, remove it, which ends all sessions or sign-ins"
            ),
            Err(error) => log::warn!(
                target: "state",
                "{name} is open to others (mode {mode:o}), which cannot be changed: {error}"
            ),
        }
    }

    /// The body of a file. None where there is no such file, or an unusable one: that is set
    /// aside, with a warning.
    pub fn read(&self, name: &str, form: Form) -> Option<Vec<u8>> {
        self.read_now(name, form).unwrap_or_else(|error| {
            log::warn!(target: "state", "{name} cannot be read: {error}");
            None
        })
    }

    /// As [`StateDir::read`], for callers that can read a file later.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn read_now(&self, name: &str, form: Form) -> io::Result<Option<Vec<u8>>> {
        match self.try_read(name, form) {
            Ok(body) => Ok(body),
            Err(Failure::Unusable(why)) => {
                self.set_aside(name, &why.to_string());
                Ok(None)
            }
            Err(Failure::Disk(error)) => Err(error),
        }
    }

    /// As [`StateDir::read`], and leaves an unusable file where it is.
    ///
    /// # Errors
    /// The reason why the file cannot be used or read.
    pub fn look_at(&self, name: &str, form: Form) -> Result<Option<Vec<u8>>, String> {
        self.try_read(name, form).map_err(|failure| match failure {
            Failure::Unusable(why) => why.to_string(),
            Failure::Disk(error) => error.to_string(),
        })
    }

    fn try_read(&self, name: &str, form: Form) -> Result<Option<Vec<u8>>, Failure> {
        let Some(file) = self.bytes_of(name)? else { return Ok(None) };
        Ok(Some(form.body(&file)?.to_vec()))
    }

    fn bytes_of(&self, name: &str) -> Result<Option<Vec<u8>>, Failure> {
        let path = self.path.join(name);
        let what = match path.symlink_metadata() {
            Ok(what) => what,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        // The type is checked before the file is opened: opening a pipe could wait for ever.
        if !what.is_file() {
            return Err(Unusable::NoFile.into());
        }
        if what.len() > STATE_FILE_BYTES_MAX {
            return Err(Unusable::TooLarge(what.len()).into());
        }
        #[cfg(test)]
        if self.refuses_reads.load(std::sync::atomic::Ordering::Relaxed) {
            return Err(io::Error::other("refused").into());
        }
        let mut bytes = Vec::new();
        File::open(path)?.take(STATE_FILE_BYTES_MAX).read_to_end(&mut bytes)?;
        Ok(Some(bytes))
    }

    /// Writes a file whole: after a crash at any moment there is the old one or the new one.
    ///
    /// # Errors
    /// The disk is full, or refuses for another reason; or the file has more bytes than are ever
    /// read. The old file stays.
    pub fn replace(&self, name: &str, file: &[u8]) -> io::Result<()> {
        if u64::try_from(file.len()).is_ok_and(|n| n > STATE_FILE_BYTES_MAX) {
            let what = format!("it has more than {STATE_FILE_BYTES_MAX} bytes");
            return Err(io::Error::new(ErrorKind::FileTooLarge, what));
        }
        if self.is_read_only {
            return Ok(());
        }
        let temporary = self.path.join(format!(".{name}.{}{TEMPORARY}", std::process::id()));
        let written = self.put(&temporary, name, file);
        if written.is_err() {
            // A half written file is of no use.
            std::fs::remove_file(&temporary).ok();
        }
        written
    }

    fn put(&self, temporary: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
        // Removes an earlier process's file. The new file is created, so that it follows no
        // planted link.
        std::fs::remove_file(temporary).ok();
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(FILE_MODE).open(temporary)?;
        file.write_all(bytes)?;
        self.give(&file)?;
        // The data is synced before the file gets its name, so that no crash gives the name to an
        // empty file.
        file.sync_all()?;
        std::fs::rename(temporary, self.path.join(name))?;
        File::open(&self.path)?.sync_all()
    }

    /// Gives a file to the directory's owner, where root writes for the gateway of another user,
    /// which could not read it.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn give(&self, file: &File) -> io::Result<()> {
        let (directory, made) = (std::fs::metadata(&self.path)?, file.metadata()?);
        if made.uid() == 0 && directory.uid() != 0 {
            std::os::unix::fs::fchown(file, Some(directory.uid()), Some(directory.gid()))?;
        }
        Ok(())
    }

    /// Removes a file, if it exists.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        if self.is_read_only {
            return Ok(());
        }
        match std::fs::remove_file(self.path.join(name)) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// The time at which a file was written last, if it exists.
    pub fn changed_at(&self, name: &str) -> Option<SystemTime> {
        self.path.join(name).metadata().ok()?.modified().ok()
    }

    /// The names of all files.
    pub fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.path).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
    }

    /// Removes the files for which `is_unwanted` is true.
    pub fn remove_where(&self, is_unwanted: impl Fn(&str) -> bool) {
        for name in self.names().iter().filter(|name| is_unwanted(name)) {
            if let Err(error) = self.remove(name) {
                log::warn!(target: "state", "{name} cannot be removed: {error}");
            }
        }
    }

    /// Keeps an unusable file under another name, for the operator. The oldest of such files are
    /// removed.
    pub fn set_aside(&self, name: &str, why: &str) {
        if self.is_read_only {
            log::warn!(target: "state", "{name} cannot be used: {why}");
            return;
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        // The time has equal length for centuries, so that the names sort by time.
        let aside = format!("{name}{ASIDE}{:019}", now.as_nanos());
        let lost = consequence(name);
        match std::fs::rename(self.path.join(name), self.path.join(&aside)) {
            Ok(()) => {
                log::warn!(target: "state", "{name} is set aside as {aside}: {why}{lost}")
            }
            Err(error) => log::warn!(
                target: "state",
                "{name} cannot be used: {why}; nor set aside: {error}{lost}"
            ),
        }
        let time = |name: &str| Some(name.rsplit_once(ASIDE)?.1.to_owned());
        let mut kept: Vec<_> =
            self.names().into_iter().filter_map(|name| Some((time(&name)?, name))).collect();
        kept.sort();
        let n_over = kept.len().saturating_sub(STATE_SET_ASIDE_MAX);
        for (_, name) in kept.iter().take(n_over) {
            let path = self.path.join(name);
            // A folder with content stays: it is not the gateway's.
            if std::fs::remove_file(&path).is_err() && std::fs::remove_dir(&path).is_err() {
                log::warn!(target: "state", "{name} cannot be removed");
            }
        }
    }
}

enum Failure {
    Unusable(Unusable),
    Disk(io::Error),
}

impl From<Unusable> for Failure {
    fn from(why: Unusable) -> Failure {
        Failure::Unusable(why)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        Failure::Disk(error)
    }
}

/// The consequence of a file's loss, where its name does not show it.
fn consequence(name: &str) -> &'static str {
    match name {
        SESSION_KEY => "; all sessions of before are lost",
        OAUTH_KEY => "; all sign-ins at servers of before are lost",
        ids::NAME => {
            "; sessions whose end stood in it and is not read are valid again until they expire"
        }
        _ => "",
    }
}

/// The error with the action that failed; an error whose kind says enough stays unchanged.
fn failed(what: &str, error: io::Error) -> io::Error {
    if matches!(error.kind(), ErrorKind::AlreadyExists | ErrorKind::NotADirectory) {
        return error;
    }
    io::Error::new(error.kind(), format!("{what}: {error}"))
}

/// True if the disk is full or cannot be written to, which is no reason not to serve.
fn is_of_the_disk(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ReadOnlyFilesystem | ErrorKind::StorageFull | ErrorKind::QuotaExceeded
    )
}

fn is_same_file(open: &File, path: &Path) -> bool {
    let id = |file: &Metadata| (file.dev(), file.ino());
    let ids = (open.metadata().map(|it| id(&it)), path.metadata().map(|it| id(&it)));
    matches!(ids, (Ok(one), Ok(two)) if one == two)
}

fn lock(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let told = |error| failed(&format!("{LOCK} in it cannot be opened for writing"), error);
    let file = match options.write(true).create(true).truncate(false).mode(FILE_MODE).open(path)
    {
        // A file that was created before can be locked all the same.
        Err(error) if is_of_the_disk(&error) => File::open(path).map_err(|_| told(error))?,
        opened => opened.map_err(told)?,
    };
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            Err(io::Error::new(ErrorKind::ResourceBusy, "another gateway is using it"))
        }
        Err(TryLockError::Error(error)) => {
            Err(failed(&format!("{LOCK} in it cannot be locked"), error))
        }
    }
}

#[cfg(test)]
mod tests;
