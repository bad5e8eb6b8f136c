//! A caching resolver for ureq, which asks on every call: one thread resolves, a caller waits
//! until its own deadline.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, bounded};
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

use crate::error::Stage;
use crate::limits::{RESOLVER_QUEUE_NAMES_MAX, RESOLVER_TTL};
use crate::thread::{Joined, spawn};
use crate::wait::Wait;

use super::transport::{Watch, paused};

/// A name that was resolved so many times `RESOLVER_TTL` ago is waited for again; before that
/// the old addresses serve while new ones are fetched.
const STALE_TTLS: u32 = 10;

/// The names known, and the way to the thread that resolves.
pub(super) struct Names {
    known: Mutex<HashMap<String, Entry>>,
    queue: Option<Sender<String>>,
    busy: Arc<AtomicBool>,
    thread: Mutex<Option<Joined>>,
}

#[derive(Default)]
struct Entry {
    addresses: Vec<IpAddr>,
    resolved_at: Option<Instant>,
    asked: bool,
    waiting: Vec<Arc<Wait>>,
}

impl Names {
    /// Starts the thread `resolve`.
    pub(super) fn start() -> std::io::Result<Arc<Names>> {
        let (queue, names) = bounded(RESOLVER_QUEUE_NAMES_MAX);
        let busy = Arc::new(AtomicBool::new(false));
        let this = Arc::new(Names {
            known: Mutex::new(HashMap::new()),
            queue: Some(queue),
            busy: busy.clone(),
            thread: Mutex::new(None),
        });
        let known = Arc::downgrade(&this);
        let thread = spawn("resolve", move || run(&known, &names, &busy))?;
        *this.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
        Ok(this)
    }

    fn known(&self) -> MutexGuard<'_, HashMap<String, Entry>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The addresses of `host`; empty when it has none.
    fn find(&self, host: &str, watch: &Watch) -> Result<Vec<IpAddr>, ureq::Error> {
        let mut asked = false;
        loop {
            {
                let mut known = self.known();
                let entry = known.entry(host.to_owned()).or_default();
                let age = entry.resolved_at.map(|at| at.elapsed());
                let usable = age.is_some_and(|age| age < RESOLVER_TTL * STALE_TTLS);
                let fresh = age.is_some_and(|age| age < RESOLVER_TTL);
                if !fresh && !entry.asked && !asked {
                    entry.asked = self.ask(host);
                }
                if usable || !entry.asked {
                    return Ok(entry.addresses.clone());
                }
                asked = true;
                let Some(wait) = watch.wait() else { return Err(paused()) };
                if !entry.waiting.iter().any(|other| Arc::ptr_eq(other, &wait)) {
                    entry.waiting.push(wait);
                }
            }
            watch.sleep(None)?;
        }
    }

    fn ask(&self, host: &str) -> bool {
        self.queue.as_ref().is_some_and(|queue| queue.try_send(host.to_owned()).is_ok())
    }

    fn learn(&self, host: &str, addresses: Vec<IpAddr>) {
        let mut known = self.known();
        let entry = known.entry(host.to_owned()).or_default();
        entry.asked = false;
        // What was known serves on when the name cannot be resolved at present.
        if !addresses.is_empty() {
            entry.addresses = addresses;
            entry.resolved_at = Some(Instant::now());
        }
        for wait in entry.waiting.drain(..) {
            wait.bell().ring();
        }
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        self.queue = None;
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && self.busy.load(Ordering::Acquire)
        {
            // The system's resolver cannot be interrupted and may take half a minute.
            thread.detach();
        }
    }
}

fn run(names: &std::sync::Weak<Names>, queue: &Receiver<String>, busy: &AtomicBool) {
    while let Ok(host) = queue.recv() {
        busy.store(true, Ordering::Release);
        let found = (host.as_str(), 0_u16).to_socket_addrs();
        let mut addresses: Vec<IpAddr> = Vec::new();
        for address in found.into_iter().flatten() {
            if !addresses.contains(&address.ip()) {
                addresses.push(address.ip());
            }
        }
        if let Some(names) = names.upgrade() {
            names.learn(&host, addresses);
        }
        busy.store(false, Ordering::Release);
    }
}

/// What one Agent resolves with: the shared names, and the wait of the call that it serves.
#[derive(Clone)]
pub(super) struct AgentResolver {
    pub(super) names: Arc<Names>,
    pub(super) watch: Arc<Watch>,
}

impl std::fmt::Debug for AgentResolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AgentResolver")
    }
}

impl Resolver for AgentResolver {
    fn resolve(
        &self,
        uri: &Uri,
        _: &Config,
        _: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        self.watch.set_stage(Stage::Resolve);
        let port = uri.port_u16().unwrap_or(match uri.scheme_str() {
            Some("https") => 443,
            _ => 80,
        });
        let host = uri.host().unwrap_or_default();
        let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
        let addresses = if let Ok(address) = host.parse::<IpAddr>() {
            vec![address]
        } else if host.eq_ignore_ascii_case("localhost") {
            vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]
        } else {
            self.names.find(host, &self.watch)?
        };
        let mut found = self.empty();
        let room = 16;
        for address in addresses.into_iter().take(room) {
            found.push(SocketAddr::new(address, port));
        }
        if found.is_empty() { Err(ureq::Error::HostNotFound) } else { Ok(found) }
    }
}
