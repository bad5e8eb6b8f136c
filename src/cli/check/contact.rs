//! First contact with all servers at once, made by the same supervisors as in `serve`.

use std::collections::{BTreeMap, HashSet};
use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{bounded, select};

use crate::access::glob::Globs;
use crate::budget::Budget;
use crate::cli::complain;
use crate::config::{Config, Target, UpstreamConfig};
use crate::limits::{CHECK_REPORTS_MAX, CHECK_SLOW_AFTER};
use crate::protocol::call::{Kind, Notice};
use crate::protocol::credentials_id::CredentialsId;
use crate::protocol::listed_item::ReadItem;
use crate::protocol::question::Question;
use crate::protocol::revision::Revision;
use crate::protocol::server_name::ServerName;
use crate::thread::watch_signals;
use crate::upstream::authorization::{Authorizations, Setup, SignInStatus};
use crate::upstream::{Event, FailureReport, Report, ServerEvents, Upstream, Upstreams, Wire};

/// The time between two pictures of the spinner.
const SPIN_INTERVAL: Duration = Duration::from_millis(120);
const PICTURES: [char; 8] = ['⠋', '⠙', '⠸', '⠴', '⠦', '⠇', '⠏', '⠛'];
/// The most servers that are named while they are awaited.
const NAMED_MAX: usize = 4;

/// The result for one server.
pub(super) struct Finding {
    pub(super) config: Arc<UpstreamConfig>,
    /// `http`, `sse`, `stdio`, or `auto` while it is not known.
    pub(super) transport: &'static str,
    /// The negotiated revision, once the server has answered the handshake.
    pub(super) revision: Option<Revision>,
    /// The server's name and version, an object's text.
    pub(super) server_info: Option<String>,
    /// The time from the start until the server had answered the handshake.
    pub(super) contact: Option<Duration>,
    /// The latency of the last answer.
    pub(super) latency: Option<Duration>,
    /// Items that clients can be given, by list.
    pub(super) counts: Vec<(Kind, usize)>,
    /// The number of tools that the configuration admits, if it names some.
    pub(super) n_admitted: Option<usize>,
    /// The server's own names of the tools that the configuration admits.
    pub(super) tools: Vec<String>,
    /// Globs of the configuration that match no tool.
    pub(super) idle_globs: Vec<String>,
    /// Items that clients cannot be given, because they violate the schema.
    pub(super) n_malformed: usize,
    /// Items over the bounds.
    pub(super) n_left_out: usize,
    /// The failure, if there is one.
    pub(super) failure: Option<FailureReport>,
    /// How the gateway's sign-in there is, where it has one.
    pub(super) sign_in: Option<SignInStatus>,
    /// The last lines of a child's standard error.
    pub(super) stderr: Vec<String>,
    /// True if nobody was contacted, because only users reach the server, with credentials of
    /// their own.
    pub(super) is_for_users: bool,
}

impl Finding {
    pub(super) fn is_well(&self) -> bool {
        self.failure.is_none()
    }

    /// Compares the globs of the configuration with the server's tools.
    fn look_at_globs(&mut self, tools: &[ReadItem]) {
        let names = || tools.iter().flatten().map(|(name, _)| name.as_str());
        let admits = Globs::new(self.config.tools.as_deref().unwrap_or_default());
        let admitted = names().filter(|name| admits.admits(name));
        self.tools = admitted.map(str::to_owned).collect();
        let Some(globs) = &self.config.tools else { return };
        self.n_admitted = Some(self.tools.len());
        let is_idle = |glob: &&String| {
            let own = Globs::new(&[glob.strip_prefix('!').unwrap_or(glob)]);
            !names().any(|name| own.admits(name))
        };
        self.idle_globs = globs.iter().filter(is_idle).cloned().collect();
    }
}

/// The receiver of servers' messages when there is no client: it drops them.
struct Nobody;

impl ServerEvents for Nobody {
    fn notice_of_user(
        &self,
        _: &ServerName,
        _: Option<&Arc<str>>,
        _: CredentialsId,
        _: Notice,
    ) {
    }

    fn users_there(&self) -> HashSet<(ServerName, CredentialsId)> {
        HashSet::new()
    }

    fn notice(&self, _: &ServerName, _: Option<&Arc<str>>, _: Notice, _: Wire) {}

    fn unattributed(&self, _: &ServerName) {}

    fn ask(&self, _: &ServerName, _: &Arc<str>, _: Question) {}
}

/// Contacts all servers, and gives each finding to `found` as it comes. None if a signal came
/// first.
///
/// # Errors
/// The process has no thread or descriptor left.
pub(super) fn all(
    config: &Config,
    found: impl Fn(&Finding) -> u8,
) -> io::Result<Option<Vec<Finding>>> {
    let (stop, stopped) = bounded(1);
    // Children are ended whatever ends the check.
    let _signals = watch_signals(stop, None)?;
    let (reports, news) = bounded(CHECK_REPORTS_MAX);
    let limits = Arc::new(config.limits.clone());
    let buffered = Budget::new(limits.buffered_bytes);
    let began = Instant::now();
    let upstreams = Upstreams::start(
        &config.upstreams,
        limits,
        buffered,
        reports,
        Arc::new(Nobody),
        BTreeMap::new(),
        Authorizations::start(Setup::of(config, None, None))?,
    )?;
    let mut waiting = Waiting::new(config, began);
    let mut findings = Vec::new();
    for config in config.upstreams.iter().filter(|it| it.is_per_user()) {
        let Some(upstream) = upstreams.get(&config.name) else { continue };
        let finding = finding(config.clone(), &upstream, 0);
        found(&finding);
        findings.push(finding);
    }
    while !waiting.names.is_empty() {
        select! {
            recv(news) -> report => {
                let Ok(report) = report else { break };
                if let Some(finding) = waiting.heard(report, &upstreams) {
                    waiting.clear();
                    found(&finding);
                    findings.push(finding);
                }
            }
            recv(stopped) -> _ => {
                waiting.clear();
                upstreams.stop();
                return Ok(None);
            }
            default(SPIN_INTERVAL) => (),
        }
        waiting.draw();
    }
    waiting.clear();
    upstreams.stop();
    Ok(Some(findings))
}

/// The servers that have not answered yet.
struct Waiting {
    began: Instant,
    names: Vec<ServerName>,
    /// The time after which each had answered the handshake.
    contact: BTreeMap<ServerName, Duration>,
    is_terminal: bool,
    picture: usize,
    drawn_at: Option<Instant>,
    /// True once a line without a spinner has said that some servers take long.
    is_slowness_told: bool,
    are_starting: Vec<ServerName>,
}

impl Waiting {
    fn new(config: &Config, began: Instant) -> Waiting {
        let is_child = |it: &&Arc<UpstreamConfig>| matches!(it.target, Target::Stdio(_));
        let children = config.upstreams.iter().filter(is_child);
        let contacted = config.upstreams.iter().filter(|it| !it.is_per_user());
        Waiting {
            began,
            names: contacted.map(|it| it.name.clone()).collect(),
            contact: BTreeMap::new(),
            is_terminal: io::stderr().is_terminal(),
            picture: 0,
            drawn_at: None,
            is_slowness_told: false,
            are_starting: children.map(|it| it.name.clone()).collect(),
        }
    }

    /// The finding about a server once its report is complete.
    fn heard(&mut self, report: Report, upstreams: &Upstreams) -> Option<Finding> {
        let name = &report.config.name;
        let upstream = upstreams.get(name)?;
        if !self.names.contains(name) {
            return None;
        }
        let mut finding = match report.event {
            Event::Ready { .. } => {
                self.contact.entry(name.clone()).or_insert_with(|| self.began.elapsed());
                return None;
            }
            Event::Lists { lists, left_out, .. } => {
                let mut finding = finding(report.config.clone(), &upstream, left_out);
                for (kind, items) in lists {
                    if kind == Kind::Tool {
                        finding.look_at_globs(&items);
                    }
                    let n_good = items.iter().filter(|item| item.is_ok()).count();
                    finding.n_malformed += items.len() - n_good;
                    finding.counts.push((kind, n_good));
                }
                finding.failure =
                    upstream.status().unread.into_iter().next().map(|it| it.failure);
                finding
            }
            Event::Failed { failure, .. } => {
                let finding = finding(report.config.clone(), &upstream, 0);
                Finding { failure: Some(failure), ..finding }
            }
            Event::View { .. } | Event::ViewFailed | Event::NoView { .. } => return None,
        };
        finding.contact = self.contact.get(name).copied();
        self.names.retain(|it| it != name);
        Some(finding)
    }

    fn draw(&mut self) {
        if self.names.is_empty() {
            return;
        }
        if !self.is_terminal {
            return self.tell_slowness();
        }
        if self.drawn_at.is_some_and(|at| at.elapsed() < SPIN_INTERVAL) {
            return;
        }
        self.drawn_at = Some(Instant::now());
        self.picture = (self.picture + 1) % PICTURES.len();
        let picture = PICTURES.get(self.picture).copied().unwrap_or(' ');
        let text = format!("\r{picture} {}\x1b[K", self.text());
        // The spinner is for a person who may not look.
        write!(io::stderr(), "{text}").ok();
    }

    fn tell_slowness(&mut self) {
        if !self.is_slowness_told && self.began.elapsed() >= CHECK_SLOW_AFTER {
            self.is_slowness_told = true;
            complain(&format!("trunkline: check: {}", self.text()));
        }
    }

    fn text(&self) -> String {
        let names = self.names.iter().take(NAMED_MAX).map(ServerName::as_str);
        let mut names: String = names.collect::<Vec<_>>().join(", ");
        if self.names.len() > NAMED_MAX {
            names.push_str(&format!(" and {} more", self.names.len() - NAMED_MAX));
        }
        let seconds = self.began.elapsed().as_secs();
        let is_start = self
            .names
            .iter()
            .any(|name| self.are_starting.contains(name) && !self.contact.contains_key(name));
        let hint = if is_start && self.began.elapsed() >= CHECK_SLOW_AFTER {
            "; a first start with npx, uvx or docker loads the package"
        } else {
            ""
        };
        format!("waiting for {names} ({seconds} s{hint})")
    }

    /// Removes the spinner before other text is written.
    fn clear(&mut self) {
        if self.drawn_at.take().is_some() {
            write!(io::stderr(), "\r\x1b[K").ok();
        }
    }
}

fn finding(config: Arc<UpstreamConfig>, upstream: &Upstream, n_left_out: usize) -> Finding {
    let status = upstream.status();
    Finding {
        config,
        transport: status.transport,
        revision: status.revision,
        server_info: status.server_info.map(|info| info.get().to_owned()),
        contact: None,
        latency: status.latency,
        counts: Vec::new(),
        n_admitted: None,
        tools: Vec::new(),
        idle_globs: Vec::new(),
        n_malformed: 0,
        n_left_out,
        failure: None,
        sign_in: upstream.authorization().map(|it| it.status()),
        stderr: status.stderr,
        is_for_users: upstream.config().is_per_user(),
    }
}
