//! What outlives the process: files in `state_dir`. Each is written whole beside the old one and
//! renamed over it, says what it is, and carries a checksum; one that cannot be used is set aside,
//! and the gateway starts without it. What these files hold is known to those who ask for them.

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

/// Nobody else's business.
const FILE_MODE: u32 = 0o600;
const DIRECTORY_MODE: u32 = 0o700;
/// The bits by which others could change what is in a directory.
const WRITABLE_BY_OTHERS: u32 = 0o022;

const LOCK: &str = "lock";
const SESSION_KEY: &str = "session-key";
const SESSION_KEY_FORM: Form = Form { name: "session-key", version: 1 };
/// Ends the name of a file that was set aside, before the time.
const ASIDE: &str = ".corrupt-";
const TEMPORARY: &str = ".tmp";

/// The directory, which is this process's alone while this lives.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    /// Locked; the system lets go of it when the process ends, however it ends.
    lock: Mutex<Option<File>>,
    /// It is another gateway's: nothing in it is written, removed or set aside.
    is_read_only: bool,
    /// Has every read refused, as a disk may do for a while.
    #[cfg(test)]
    pub(crate) refuses_reads: std::sync::atomic::AtomicBool,
}

impl StateDir {
    /// Opens the directory, and makes it where there is none.
    ///
    /// # Errors
    /// Another gateway has it, or it cannot be made or read. That its disk cannot be written to
    /// is a warning: what is there is used.
    pub fn open(path: &Path) -> io::Result<StateDir> {
        StateDir::open_after(path, None)
    }

    /// As [`StateDir::open`], after another process that has handed its lock over: the lock
    /// belongs to both until that one has ended.
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

    /// The lock, to be handed to another process.
    ///
    /// # Errors
    /// The system gives no descriptor.
    pub fn lock(&self) -> io::Result<Option<OwnedFd>> {
        self.held().as_ref().map(|lock| lock.try_clone().map(OwnedFd::from)).transpose()
    }

    /// Another process has the lock from here on. This one still writes what it has to.
    pub fn give_lock_up(&self) {
        self.held().take();
    }

    fn held(&self) -> MutexGuard<'_, Option<File>> {
        // Nothing between two changes can panic.
        self.lock.lock()
    }

    /// A directory that somebody else may have: for reading, and for what is written for that one
    /// to take. Nothing in it is set aside or removed.
    pub fn of_another(path: &Path) -> StateDir {
        StateDir::of(path.to_path_buf(), None)
    }

    /// As [`StateDir::open`], for a gateway that is one client's: where another gateway has the
    /// directory, what that one keeps is read, and nothing is written.
    ///
    /// # Errors
    /// It cannot be made or read.
    pub fn open_or_read(path: &Path) -> io::Result<StateDir> {
        match StateDir::open(path) {
            Err(error) if error.kind() == ErrorKind::ResourceBusy => {
                Ok(StateDir::read_only(path))
            }
            opened => opened,
        }
    }

    /// A directory of which nothing is written, removed or set aside.
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

    /// The key that session ids are made with: the one of the first start.
    ///
    /// # Errors
    /// The system gives no randomness.
    pub fn session_key(&self) -> io::Result<[u8; 32]> {
        let key = |body: Vec<u8>| <[u8; 32]>::try_from(body).ok();
        self.tighten(SESSION_KEY);
        if let Some(key) = self.read(SESSION_KEY, SESSION_KEY_FORM).and_then(key) {
            return Ok(key);
        }
        let mut key = [0; 32];
        SystemRandom::new()
            .fill(&mut key)
            .map_err(|_| io::Error::other("the system gives no randomness"))?;
        // One that is there and cannot be read may be readable at the next start.
        if !self.path.join(SESSION_KEY).exists()
            && let Err(error) = self.replace(SESSION_KEY, &SESSION_KEY_FORM.frame(&key))
        {
            log::warn!(
                target: "state",
                "{SESSION_KEY} cannot be written, so sessions end with this process: {error}"
            );
        }
        Ok(key)
    }

    /// Takes a file from everybody else, with a warning, if others had any right to it.
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
                 somebody may have read it, remove it, which ends all sessions"
            ),
            Err(error) => log::warn!(
                target: "state",
                "{name} is open to others (mode {mode:o}), which cannot be changed: {error}"
            ),
        }
    }

    /// The body of a file. None where there is no such file, or none that can be used: that one
    /// is set aside, with a warning.
    pub fn read(&self, name: &str, form: Form) -> Option<Vec<u8>> {
        self.read_now(name, form).unwrap_or_else(|error| {
            log::warn!(target: "state", "{name} cannot be read: {error}");
            None
        })
    }

    /// Like [`StateDir::read`], for whom it matters whether a file may be readable later.
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

    /// Like [`StateDir::read`], and leaves a file that cannot be used where it is.
    ///
    /// # Errors
    /// Why the file cannot be used or read.
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
        // Looked at before it is opened: to open a pipe could wait for ever.
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
    /// read. The old file stands.
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
            // What is half written is of no use.
            std::fs::remove_file(&temporary).ok();
        }
        written
    }

    fn put(&self, temporary: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
        // What an earlier process has left. A new file follows no link that somebody put there.
        std::fs::remove_file(temporary).ok();
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(FILE_MODE).open(temporary)?;
        file.write_all(bytes)?;
        self.give(&file)?;
        // Before it has its name, so that no crash gives the name to an empty file.
        file.sync_all()?;
        std::fs::rename(temporary, self.path.join(name))?;
        File::open(&self.path)?.sync_all()
    }

    /// Gives a file to whom the directory belongs, where root writes for the gateway of another
    /// user: that one could not read it.
    fn give(&self, file: &File) -> io::Result<()> {
        let (directory, made) = (std::fs::metadata(&self.path)?, file.metadata()?);
        if made.uid() == 0 && directory.uid() != 0 {
            std::os::unix::fs::fchown(file, Some(directory.uid()), Some(directory.gid()))?;
        }
        Ok(())
    }

    /// Removes a file, if it is there.
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

    /// When a file was written last, if it is there.
    pub fn changed_at(&self, name: &str) -> Option<SystemTime> {
        self.path.join(name).metadata().ok()?.modified().ok()
    }

    /// The names of all files.
    pub fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.path).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
    }

    /// Removes the files that nobody wants any more.
    pub fn remove_where(&self, is_unwanted: impl Fn(&str) -> bool) {
        for name in self.names().iter().filter(|name| is_unwanted(name)) {
            if let Err(error) = self.remove(name) {
                log::warn!(target: "state", "{name} cannot be removed: {error}");
            }
        }
    }

    /// Keeps a file that cannot be used under another name, for somebody to look at. The oldest
    /// of those go.
    pub fn set_aside(&self, name: &str, why: &str) {
        if self.is_read_only {
            log::warn!(target: "state", "{name} cannot be used: {why}");
            return;
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        // Of equal length for centuries, so that they sort by time.
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
            // A folder that has something in it stays: it is nothing of ours.
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

/// What the loss of a file means, where its name does not say it.
fn consequence(name: &str) -> &'static str {
    match name {
        SESSION_KEY => "; all sessions of before are lost",
        ids::NAME => {
            "; sessions whose end stood in it and is not read are valid again until they expire"
        }
        _ => "",
    }
}

/// The error with what was being done; what says enough by its kind stays as it is.
fn failed(what: &str, error: io::Error) -> io::Error {
    if matches!(error.kind(), ErrorKind::AlreadyExists | ErrorKind::NotADirectory) {
        return error;
    }
    io::Error::new(error.kind(), format!("{what}: {error}"))
}

/// Whether the disk is full or cannot be written to: no reason not to serve.
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
        // One that was made before can be locked all the same.
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
