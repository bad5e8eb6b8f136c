//! The hub's thread: waits for sockets, the bell and the next sweep, and writes.

use std::collections::HashMap;
use std::io::{self, ErrorKind, IoSlice};
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;

use super::{BELL, Client, Closing, Hub, Inbox, OnEnd};
use crate::http::Stream;
use crate::limits::LEASE_CHECK_INTERVAL;
use crate::session::EncodedEvent;
use crate::telemetry::rejected::{self, Reason};

/// The comment that a silent stream is sent, so that proxies and clients see that it lives.
const HEARTBEAT: &[u8] = b":\n\n";
/// Readiness taken from the kernel at once.
const READY_MAX: usize = 256;
/// Events handed to the kernel at once.
const WRITE_EVENTS_MAX: usize = 16;
/// Writes to one stream before the others have their turn.
const WRITES_A_TURN_MAX: usize = 64;
/// Bytes of a client that are read and thrown away at once. No honest client sends so many.
const WASTE_BYTES_MAX: usize = 64 * 1024;
/// The number of searches for silent and stalled streams in one heartbeat.
const SWEEPS_PER_HEARTBEAT: u32 = 8;

/// One stream as the hub sees it.
struct Entry {
    client: Arc<Client>,
    stream: Stream,
    on_end: OnEnd,
    /// Bytes of the first event that are written already.
    written: usize,
    last_write: Instant,
    /// The time since when the client takes no bytes.
    stalled_since: Option<Instant>,
}

/// The result of working on a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Stays,
    Ends,
}

/// The state of the hub's thread.
pub(super) struct Worker {
    hub: Arc<Hub>,
    epoll: OwnedFd,
    entries: HashMap<u64, Entry>,
    heartbeat: EncodedEvent,
    sweep_interval: Duration,
    next_sweep: Instant,
    next_lease_check: Instant,
    closing: Option<Closing>,
}

/// However the thread ends, no sender still believes that its stream lives.
impl Drop for Worker {
    fn drop(&mut self) {
        let opened = {
            let mut inbox = self.hub.inbox.lock();
            inbox.closed = true;
            std::mem::take(&mut inbox.opened)
        };
        for (client, stream, on_end) in opened {
            self.insert(client, stream, on_end);
        }
        let left: Vec<_> = self.entries.keys().copied().collect();
        left.into_iter().for_each(|id| self.end(id));
        self.hub.inbox.lock().ended = true;
        self.hub.ended.notify_all();
    }
}

impl Worker {
    /// # Errors
    /// The process has no descriptor left.
    pub(super) fn new(hub: Arc<Hub>) -> io::Result<Worker> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let data = epoll::EventData::new_u64(BELL);
        epoll::add(&epoll, &hub.bell, data, epoll::EventFlags::IN)?;
        let quickest = hub.limits.heartbeat.min(hub.limits.write);
        let sweep_interval = (quickest / SWEEPS_PER_HEARTBEAT)
            .clamp(Duration::from_millis(1), LEASE_CHECK_INTERVAL);
        Ok(Worker {
            hub,
            epoll,
            entries: HashMap::new(),
            heartbeat: EncodedEvent::from(HEARTBEAT),
            sweep_interval,
            next_sweep: Instant::now() + sweep_interval,
            next_lease_check: Instant::now() + LEASE_CHECK_INTERVAL,
            closing: None,
        })
    }

    /// Runs until all streams are closed.
    pub(super) fn run(&mut self) {
        let mut ready = Vec::with_capacity(READY_MAX);
        loop {
            self.wait(&mut ready);
            for event in ready.drain(..) {
                match event.data.u64() {
                    BELL => self.hub.bell.clear(),
                    id => self.look_at(id, event.flags),
                }
            }
            self.empty_inbox();
            let now = Instant::now();
            if now >= self.next_sweep {
                self.next_sweep = now + self.sweep_interval;
                self.sweep(now);
            }
            if now >= self.next_lease_check {
                self.next_lease_check = now + LEASE_CHECK_INTERVAL;
                self.end_with_leases();
            }
            match &self.closing {
                Some(closing) if self.entries.is_empty() || now >= closing.deadline => return,
                Some(_) | None => (),
            }
        }
    }

    fn wait(&self, ready: &mut Vec<epoll::Event>) {
        let until = match &self.closing {
            Some(closing) => self.next_sweep.min(closing.deadline),
            None => self.next_sweep,
        };
        // There is no stream to sweep or to wake for.
        let idle = self.entries.is_empty() && self.closing.is_none();
        let left = until.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).ok().filter(|_| !idle);
        match epoll::wait(&self.epoll, spare_capacity(ready), timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => (),
            // This does not happen to the gateway's own descriptor; the panic stops the program.
            Err(error) => panic!("epoll: {error}"),
        }
    }

    fn empty_inbox(&mut self) {
        // The flag is cleared before the inbox is read, so that a later sender rings anew.
        self.hub.rung.store(false, Ordering::SeqCst);
        let (opened, announced, closing) = {
            let mut inbox = self.hub.inbox.lock();
            let Inbox { opened, announced, closing, closed: _, ended: _ } = &mut *inbox;
            (std::mem::take(opened), std::mem::take(announced), closing.take())
        };
        for (client, stream, on_end) in opened {
            self.register(client, stream, on_end);
        }
        for id in announced {
            if let Some(entry) = self.entries.get(&id) {
                entry.client.announced.store(false, Ordering::SeqCst);
                self.flush(id);
            }
        }
        if let Some(closing) = closing {
            self.close_all(closing);
        }
    }

    fn insert(&mut self, client: Arc<Client>, stream: Stream, on_end: OnEnd) -> u64 {
        let id = client.id;
        let last_write = Instant::now();
        let entry =
            Entry { client, stream, on_end, written: 0, last_write, stalled_since: None };
        self.entries.insert(id, entry);
        id
    }

    fn register(&mut self, client: Arc<Client>, stream: Stream, on_end: OnEnd) {
        let id = self.insert(client, stream, on_end);
        let Some(entry) = self.entries.get(&id) else { return };
        // Edge-triggered: one call for the whole life of a stream.
        let flags = epoll::EventFlags::IN
            | epoll::EventFlags::OUT
            | epoll::EventFlags::RDHUP
            | epoll::EventFlags::ET;
        let data = epoll::EventData::new_u64(id);
        if let Err(error) = epoll::add(&self.epoll, entry.stream.as_fd(), data, flags) {
            log::warn!("cannot watch a stream: {error}");
            self.end(id);
        }
    }

    fn look_at(&mut self, id: u64, flags: epoll::EventFlags) {
        let Some(entry) = self.entries.get(&id) else { return };
        let gone = epoll::EventFlags::RDHUP | epoll::EventFlags::HUP | epoll::EventFlags::ERR;
        let next = if flags.intersects(gone) {
            Next::Ends
        } else if flags.contains(epoll::EventFlags::IN) {
            throw_away(&entry.stream)
        } else {
            Next::Stays
        };
        match next {
            Next::Ends => self.end(id),
            Next::Stays if flags.contains(epoll::EventFlags::OUT) => self.flush(id),
            Next::Stays => (),
        }
    }

    fn flush(&mut self, id: u64) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let mut writes = 0;
        let next = loop {
            match entry.write_some() {
                Ok(true) if writes < WRITES_A_TURN_MAX => writes += 1,
                Ok(true) => {
                    self.hub.announce(&entry.client);
                    break Next::Stays;
                }
                Ok(false) => break entry.next_when_idle(),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    entry.stalled_since.get_or_insert_with(Instant::now);
                    entry.client.queue().stalled = true;
                    break Next::Stays;
                }
                Err(_) => break Next::Ends,
            }
        };
        if next == Next::Ends {
            self.end(id);
        }
    }

    /// Sends heartbeats on silent streams, and drops stalled clients.
    fn sweep(&mut self, now: Instant) {
        let (heartbeat, write) = (self.hub.limits.heartbeat, self.hub.limits.write);
        let mut silent = Vec::new();
        let mut stalled = Vec::new();
        for (&id, entry) in &self.entries {
            match entry.stalled_since {
                Some(since) if now >= since + write => stalled.push(id),
                Some(_) => (),
                None if now >= entry.last_write + heartbeat => silent.push(id),
                None => (),
            }
        }
        for id in stalled {
            rejected::count(Reason::NotReading);
            if let Some(entry) = self.entries.get(&id) {
                log::warn!(target: "streams", "a client's {} stream was dropped: it has read \
                    nothing for limits.write_ms ({} ms)", entry.client.door, write.as_millis());
            }
            self.end(id);
        }
        for id in silent {
            if let Some(entry) = self.entries.get(&id) {
                let mut queue = entry.client.queue();
                if queue.events.is_empty() && !queue.ended {
                    queue.push(self.heartbeat.clone());
                }
            }
            self.flush(id);
        }
    }

    /// Ends streams whose access tokens have ended, after what is queued: the client opens another
    /// one with its next token.
    fn end_with_leases(&mut self) {
        let is_over =
            |entry: &Entry| entry.client.lease.as_ref().is_some_and(|lease| !lease.is_good());
        let over: Vec<u64> = self
            .entries
            .iter()
            .filter(|(_, entry)| is_over(entry))
            .map(|(id, _)| *id)
            .collect();
        for id in over {
            if let Some(entry) = self.entries.get(&id) {
                entry.client.queue().closing = true;
            }
            self.flush(id);
        }
    }

    fn close_all(&mut self, closing: Closing) {
        let ids: Vec<_> = self.entries.keys().copied().collect();
        for id in ids {
            if let Some(entry) = self.entries.get(&id) {
                let mut queue = entry.client.queue();
                if let (Some(last), false, false) = (&closing.last, queue.closing, queue.ended)
                {
                    queue.push(last.clone());
                }
                queue.closing = true;
            }
            self.flush(id);
        }
        self.closing = Some(closing);
    }

    fn end(&mut self, id: u64) {
        let Some(entry) = self.entries.remove(&id) else { return };
        entry.client.queue().end();
        // The client's bytes are read first: closing with bytes unread would destroy events that
        // are on their way to it.
        throw_away(&entry.stream);
        drop(entry.stream);
        self.hub.places.lock().give_back_of(entry.client.charged.as_ref(), 1);
        if catch_unwind(AssertUnwindSafe(entry.on_end)).is_err() {
            log::error!("the end of a stream could not be told: a panic");
        }
    }
}

impl Entry {
    /// Writes as much as the kernel takes at once; false when no event waits.
    fn write_some(&mut self) -> io::Result<bool> {
        let events: Vec<EncodedEvent> = {
            let mut queue = self.client.queue();
            // The kernel may say otherwise: it is not known yet what the client has taken
            // meanwhile.
            queue.stalled = false;
            queue.events.iter().take(WRITE_EVENTS_MAX).cloned().collect()
        };
        if events.is_empty() {
            return Ok(false);
        }
        let mut written = self.written;
        let mut pieces = Vec::with_capacity(4 * events.len());
        events.iter().for_each(|event| event.add_to(&mut pieces));
        let mut pieces: Vec<_> = pieces.into_iter().map(IoSlice::new).collect();
        let mut pieces = pieces.as_mut_slice();
        IoSlice::advance_slices(&mut pieces, written);
        let sent = self.stream.write_now(pieces)?;
        self.last_write = Instant::now();
        self.stalled_since = None;
        written += sent;
        let mut queue = self.client.queue();
        for event in &events {
            if queue.ended || written < event.len() {
                break;
            }
            written -= event.len();
            queue.pop();
        }
        self.written = written;
        Ok(true)
    }

    fn next_when_idle(&self) -> Next {
        let queue = self.client.queue();
        if queue.ended || (queue.closing && queue.events.is_empty()) {
            Next::Ends
        } else {
            Next::Stays
        }
    }
}

/// Reads a client's bytes and forgets them.
fn throw_away(stream: &Stream) -> Next {
    let mut waste = [0; 4096];
    let mut left = WASTE_BYTES_MAX;
    while left > 0 {
        match stream.read_now(&mut waste) {
            Ok(received @ 1..) => left = left.saturating_sub(received),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Next::Stays,
            Ok(_) | Err(_) => return Next::Ends,
        }
    }
    Next::Ends
}
