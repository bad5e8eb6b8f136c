//! Reads the configuration again while the gateway runs: on SIGHUP, and when the file changes, if
//! the configuration asks for that. An invalid file changes nothing; a valid one touches only the
//! servers and keys that differ.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::service_manager;
use crate::catalogue::refresher::Configure;
use crate::config::{Changes, Config, Overrides, Problem, Reloaded, UpstreamConfig};
use crate::downstream::Front;
use crate::limits::{RELOAD_RETRY_INTERVAL, RELOAD_STOP_TIMEOUT, WATCH_INTERVAL};
use crate::listening::{Clients, admission};
use crate::pipeline::AccessLog;
use crate::resource_server::ResourceServer;
use crate::telemetry::counters::reloads;
use crate::telemetry::log::LogControl;
use crate::thread::{self, Joined, StopReason};
use crate::upstream::Upstreams;

/// The time for the catalogue's thread to apply a configuration.
const CONFIGURE_TIMEOUT: Duration = Duration::from_secs(10);
/// The sleep of the thread where it waits for SIGHUP alone.
const UNWATCHED_INTERVAL: Duration = Duration::from_secs(3600);

/// The source of the configuration.
#[derive(Debug)]
pub struct Source {
    path: PathBuf,
    overrides: Overrides,
    /// The file's state when it was read last, taken before the reading, so that a change
    /// meanwhile is seen at the next look.
    read: Option<Stamp>,
}

impl Source {
    /// A file, and the values of the command line that replace the file's.
    pub fn new(path: PathBuf, overrides: Overrides) -> Source {
        Source { path, overrides, read: None }
    }

    /// Reads and checks the file.
    ///
    /// # Errors
    /// Every problem found, or one that the file cannot be read.
    pub fn load(&mut self) -> Result<Config, Vec<Problem>> {
        self.read = self.look();
        Config::load(&self.path, &self.overrides)
    }

    fn look(&self) -> Option<Stamp> {
        std::fs::metadata(&self.path).ok().map(|file| Stamp::of(&file))
    }
}

/// The reading of the configuration again, with the running one.
pub struct Reload {
    source: Source,
    running: Config,
    parts: Parts,
    log: LogControl,
    /// The file's changed state at the last look: the file is read once its state stays the same
    /// from one look to the next.
    unsettled: Option<Stamp>,
    /// True if the last configuration was applied in part only.
    is_partial: bool,
}

/// Ends the sign-ins of users whose key is in the configuration no more. One client of lines comes
/// without a key, so its configuration says nothing of keys.
pub(crate) fn end_sign_ins_without_key(
    config: &Config,
    clients: Clients,
    upstreams: &Upstreams,
) {
    match clients {
        Clients::OverHttp => upstreams.end_sign_ins_without_key(config),
        Clients::OneOfLines | Clients::OneOfFewLines => (),
    }
}

/// The parts of the gateway that a reload changes.
#[derive(Debug)]
pub struct Parts {
    pub(crate) clients: Clients,
    /// The clients' side: admission and sessions.
    pub(crate) front: Arc<Front>,
    pub(crate) upstreams: Arc<Upstreams>,
    pub(crate) resource_server: Arc<ResourceServer>,
    /// The sender to the catalogue's thread.
    pub(crate) configure: Sender<Configure>,
}

impl Parts {
    /// Clients' wishes to read the configuration again, each with the sender for the result.
    pub fn wishes(&self) -> Receiver<Sender<Reloaded>> {
        let (wish, wishes) = bounded(1);
        self.front.reload.get_or_init(|| wish);
        wishes
    }

    /// Changes from one configuration to the next, without a wait for a server.
    ///
    /// # Errors
    /// The system refuses a thread or a descriptor, or the program ends meanwhile; the text says
    /// which. A part of the configuration may have been applied before that.
    pub fn configure(
        &self,
        old: &Config,
        new: &Config,
        changes: Changes,
    ) -> Result<(), String> {
        // Rights are narrowed before there is more to see.
        if new.oauth.is_none() {
            self.resource_server.rest();
        }
        let admitted = admission(new, &self.resource_server).map_err(|it| it.to_string())?;
        let readmitted = self.front.readmit(admitted, |key| changes.ends(key));
        self.upstreams.authorizations().follow(new);
        let pipeline = &self.front.pipeline;
        pipeline.configure(new.quotas(), AccessLog::of(new.log));
        // Upstreams come before the next snapshot, so that all items that it shows can be called.
        self.upstreams.configure(&new.upstreams).map_err(|error| error.to_string())?;
        end_sign_ins_without_key(new, self.clients, &self.upstreams);
        let (done, shown) = bounded(1);
        let wanted =
            Configure { naming: new.naming.clone(), upstreams: new.upstreams.clone(), done };
        self.configure
            .send_timeout(wanted, CONFIGURE_TIMEOUT)
            .map_err(|_| "the catalogue's thread takes no more")?;
        shown
            .recv_timeout(CONFIGURE_TIMEOUT)
            .map_err(|_| "the catalogue's thread gives no answer")?;
        for server in &old.upstreams {
            let is_there = |it: &&Arc<UpstreamConfig>| {
                it.name == server.name && it.target.is_same_server(&server.target)
            };
            if !new.upstreams.iter().any(|it| is_there(&it)) {
                pipeline.forget_tasks(&server.name);
            }
        }
        self.front
            .rescope(readmitted, move |key| changes.ends(key))
            .map_err(|error| error.to_string())
    }
}

/// The reloading thread. Dropping it ends it; a reload that is under way is finished.
#[derive(Debug)]
pub struct Reloading {
    /// Dropped first, which ends the thread.
    alive: Sender<()>,
    joined: Joined,
}

impl Reloading {
    /// Ends the thread for the program's end, without a wait for a long reload.
    pub fn end(self) {
        drop(self.alive);
        let until = Instant::now() + RELOAD_STOP_TIMEOUT;
        while !self.joined.is_finished() && Instant::now() < until {
            std::thread::park_timeout(Duration::from_millis(5));
        }
        if !self.joined.is_finished() {
            log::warn!("a reload is still under way; it is not waited for");
            self.joined.detach();
        }
    }
}

/// The properties by which two states of a file differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    changed: (i64, i64),
    bytes: u64,
    inode: (u64, u64),
}

impl Stamp {
    fn of(file: &Metadata) -> Stamp {
        Stamp {
            changed: (file.mtime(), file.mtime_nsec()),
            bytes: file.len(),
            inode: (file.dev(), file.ino()),
        }
    }
}

/// Starts the thread. Each message of `wishes` is a wish to read the configuration again.
///
/// # Errors
/// The system refuses a thread.
pub fn start(
    source: Source,
    running: Config,
    parts: Parts,
    log: LogControl,
    wishes: Receiver<()>,
    stop: Sender<StopReason>,
) -> io::Result<Reloading> {
    reloads::succeeded();
    let reload = Reload { source, running, parts, log, unsettled: None, is_partial: false };
    let (alive, ended) = bounded(0);
    let asked = reload.parts.wishes();
    let run = move || reload.run(&wishes, &asked, &ended);
    let joined = thread::spawn_owner("reload", stop, run)?;
    Ok(Reloading { alive, joined })
}

impl Reload {
    fn run(
        mut self,
        wishes: &Receiver<()>,
        asked: &Receiver<Sender<Reloaded>>,
        ended: &Receiver<()>,
    ) {
        loop {
            let interval = match (self.is_partial, self.running.watch) {
                (true, _) => RELOAD_RETRY_INTERVAL,
                (false, true) => WATCH_INTERVAL,
                (false, false) => UNWATCHED_INTERVAL,
            };
            crossbeam_channel::select! {
                recv(wishes) -> wish => match wish {
                    Ok(()) => drop(self.reload()),
                    Err(_) => return,
                },
                recv(asked) -> told => match told {
                    // The client may have given up.
                    Ok(told) => drop(told.try_send(self.reload())),
                    Err(_) => return,
                },
                recv(ended) -> _ => return,
                default(interval) => if self.is_partial || (self.running.watch && self.has_changed()) {
                    drop(self.reload());
                },
            }
        }
    }

    /// True if the file has changed, and stayed the same since the last look. A file that is gone
    /// for a moment, while an editor replaces it, has not changed.
    fn has_changed(&mut self) -> bool {
        let now = self.source.look();
        if now.is_none() || now == self.source.read {
            self.unsettled = None;
            return false;
        }
        if self.unsettled == now {
            return true;
        }
        self.unsettled = now;
        false
    }

    fn reload(&mut self) -> Reloaded {
        service_manager::reloading();
        let reloaded = self.read_again();
        service_manager::ready();
        reloaded
    }

    fn read_again(&mut self) -> Reloaded {
        self.unsettled = None;
        let read = self.source.load();
        let path = self.source.path.display();
        let followed = read.and_then(|mut config| {
            let changes = config.follow(&self.running).map_err(|problem| vec![problem])?;
            Ok((config, changes))
        });
        let (config, changes) = match followed {
            Ok(followed) => followed,
            Err(problems) => {
                reloads::failed();
                let problems: Vec<String> =
                    problems.iter().map(|problem| problem.in_file(&path)).collect();
                refuse(&path.to_string(), &problems);
                return Reloaded::Refused(problems);
            }
        };
        let warnings: Vec<String> =
            config.warnings.iter().map(|warning| warning.in_file(&path)).collect();
        for warning in &warnings {
            log::warn!("{warning}");
        }
        for key in &changes.at_next_start {
            log::warn!("{path}: {key} differs; it takes effect at the next start");
        }
        let (took, changed) = (Instant::now(), changes.to_string());
        let at_next_start = changes.at_next_start.clone();
        // The new secrets are hidden before any line of the new configuration; the old ones stay
        // hidden, because servers that end now may still repeat them.
        let (mut secrets, old) = (config.secrets(), self.running.secrets());
        secrets.extend(old);
        self.log.set_secrets(&secrets);
        if let Err(what) = self.apply(&config, changes) {
            self.is_partial = true;
            reloads::failed();
            let again = RELOAD_RETRY_INTERVAL.as_secs();
            log::error!(
                "{path}: the configuration was taken over in part only: {what}; the next try \
                 comes in {again} s"
            );
            return Reloaded::InPart(what);
        }
        self.is_partial = false;
        reloads::succeeded();
        log::info!("{path} was read again in {} ms: {changed}", took.elapsed().as_millis());
        self.running = config;
        Reloaded::Taken { changes: changed, warnings, at_next_start }
    }

    fn apply(&self, config: &Config, changes: Changes) -> Result<(), String> {
        if changes.is_nothing() && !self.is_partial {
            return Ok(());
        }
        self.parts.configure(&self.running, config, changes)?;
        self.log.set_level(config.log.level);
        Ok(())
    }
}

/// A bad file changes nothing, and all that is wrong with it is said.
fn refuse(path: &str, problems: &[String]) {
    for problem in problems {
        log::error!("{problem}");
    }
    log::error!("{path}: the configuration stays as it was (problems: {})", problems.len());
}
