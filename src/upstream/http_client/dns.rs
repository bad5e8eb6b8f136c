//! A caching resolver for ureq, which asks on every call: few threads resolve, so that one name
//! which hangs holds up no other; a caller waits until its own deadline.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, bounded};
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

use crate::error::Stage;
use crate::limits::{RESOLVER_QUEUE_NAMES_MAX, RESOLVER_THREADS_MAX, RESOLVER_TTL};
use crate::thread::{Joined, spawn};
use crate::wait::{Wait, Woken};

use super::in_flight::{InFlight, paused};

/// A name that was resolved so many times `RESOLVER_TTL` ago is waited for again; before that
/// the old addresses serve while new ones are fetched.
const STALE_TTLS: u32 = 10;

/// The names known, and the way to the thread that resolves.
pub(crate) struct DnsCache {
    known: Mutex<HashMap<String, Entry>>,
    queue: Option<Sender<String>>,
    /// For further threads.
    asked: Receiver<String>,
    lookup: Lookup,
    /// Threads that resolve at present.
    busy: Arc<AtomicUsize>,
    threads: Mutex<Vec<Joined>>,
}

/// What the system says of a name.
type Lookup = fn(&str) -> Vec<IpAddr>;

#[derive(Default)]
struct Entry {
    addresses: Vec<IpAddr>,
    resolved_at: Option<Instant>,
    asked: bool,
    waiting: Vec<Arc<Wait>>,
}

impl DnsCache {
    /// Starts the first thread `resolve`.
    pub(crate) fn start() -> std::io::Result<Arc<DnsCache>> {
        DnsCache::with(system_lookup)
    }

    fn with(lookup: Lookup) -> std::io::Result<Arc<DnsCache>> {
        let (queue, asked) = bounded(RESOLVER_QUEUE_NAMES_MAX);
        let this = Arc::new(DnsCache {
            known: Mutex::new(HashMap::new()),
            queue: Some(queue),
            asked,
            lookup,
            busy: Arc::default(),
            threads: Mutex::default(),
        });
        this.add_thread()?;
        Ok(this)
    }

    /// Starts one more thread, unless there is one for every name that waits, or no more may be.
    fn add_thread(self: &Arc<DnsCache>) -> std::io::Result<()> {
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = threads.len().saturating_sub(self.busy.load(Ordering::Acquire));
        let is_enough = !threads.is_empty() && self.asked.len() <= idle;
        if is_enough || threads.len() >= RESOLVER_THREADS_MAX {
            return Ok(());
        }
        let (known, asked) = (Arc::downgrade(self), self.asked.clone());
        let (lookup, busy) = (self.lookup, self.busy.clone());
        threads.push(spawn("resolve", move || run(&known, &asked, lookup, &busy))?);
        Ok(())
    }

    fn known(&self) -> MutexGuard<'_, HashMap<String, Entry>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The addresses of `host`; empty when it has none.
    pub(super) fn find(
        self: &Arc<DnsCache>,
        host: &str,
        watch: &InFlight,
    ) -> Result<Vec<IpAddr>, ureq::Error> {
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
                    // Without another thread the name waits for those there are.
                    self.add_thread().ok();
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
            if watch.sleep(None)? == Woken::Bell {
                // It may have rung for something else, too.
                watch.miss_bell();
            }
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

impl Drop for DnsCache {
    fn drop(&mut self) {
        self.queue = None;
        let threads = self.threads.get_mut().unwrap_or_else(PoisonError::into_inner);
        if self.busy.load(Ordering::Acquire) > 0 {
            // The system's resolver cannot be interrupted and may take half a minute.
            threads.drain(..).for_each(Joined::detach);
        }
    }
}

fn run(names: &Weak<DnsCache>, asked: &Receiver<String>, lookup: Lookup, busy: &AtomicUsize) {
    while let Ok(host) = asked.recv() {
        busy.fetch_add(1, Ordering::AcqRel);
        let addresses = lookup(&host);
        if let Some(names) = names.upgrade() {
            names.learn(&host, addresses);
        }
        busy.fetch_sub(1, Ordering::AcqRel);
    }
}

fn system_lookup(host: &str) -> Vec<IpAddr> {
    let found = (host, 0_u16).to_socket_addrs();
    let mut addresses: Vec<IpAddr> = Vec::new();
    for address in found.into_iter().flatten() {
        if !addresses.contains(&address.ip()) {
            addresses.push(address.ip());
        }
    }
    addresses
}

/// What one Agent resolves with: the shared names, and the wait of the call that it serves.
#[derive(Clone)]
pub(crate) struct AgentResolver {
    pub(crate) names: Arc<DnsCache>,
    pub(crate) watch: Arc<InFlight>,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wait::Interrupted;
    use std::time::Duration;

    fn lookup(host: &str) -> Vec<IpAddr> {
        if host.starts_with("hangs") {
            std::thread::sleep(Duration::from_secs(6));
        }
        vec![Ipv4Addr::LOCALHOST.into()]
    }

    #[test]
    fn a_name_that_hangs_costs_its_caller_the_deadline_and_no_other_name_anything() {
        let names = DnsCache::with(lookup).unwrap();
        let began = Instant::now();
        for host in ["hangs", "hangs-too", "hangs"] {
            let (watch, wait) = (InFlight::default(), Wait::plain(Duration::from_millis(50)));
            watch.begin(&wait.unwrap());
            assert!(names.find(host, &watch).is_err());
            assert_eq!(watch.interrupted(), Some(Interrupted::Deadline));
        }
        let watch = InFlight::default();
        watch.begin(&Wait::plain(Duration::from_secs(4)).unwrap());
        let localhost: IpAddr = Ipv4Addr::LOCALHOST.into();
        assert_eq!(names.find("well", &watch).unwrap(), [localhost]);
        drop(names);
        assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    }
}
