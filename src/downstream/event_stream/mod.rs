//! The hub: one thread that holds every long-lived SSE response.
//!
//! A sender puts an event into the queue of one client and goes on; the hub writes when the
//! client's socket takes it. A client that does not read fills its queue and is dropped, so that
//! it costs no other client anything.

pub(super) mod hub_thread;

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, MutexGuard};
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;

use crate::access::policy::OptionalLease;
use crate::fair_shares::{NotTaken, Shares};
use crate::http::Stream;
use crate::limits::Limits;
use crate::protocol::call::PrincipalId;
use crate::session::EncodedEvent;
use crate::sync::{Condvar, Mutex};
use crate::telemetry::rejected::{self, Reason};
use crate::thread::{self, Joined, StopReason};
use crate::wait::Bell;

use hub_thread::Worker;

/// The hub's own bell among the descriptors; streams count from 1.
const BELL: u64 = 0;

/// The stream has ended; nothing more can be sent on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gone;

impl fmt::Display for Gone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the stream has ended")
    }
}

/// The reason why there is no place for a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// `limits.streams` are open, or the hub is ending.
    Streams,
    /// The principal holds its share of the streams, which is this many now.
    Share(usize),
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Streams => f.write_str("limits.streams is reached"),
            Self::Share(share) => {
                write!(f, "your streams are your share of limits.streams, which is {share} now")
            }
        }
    }
}

/// Called once, by the hub, when a stream has ended.
pub type OnEnd = Box<dyn FnOnce() + Send>;

/// The events that wait to be written to one client.
#[derive(Debug, Default)]
struct Queue {
    /// The waiting events; the first is being written.
    events: VecDeque<EncodedEvent>,
    /// Bytes of all but the first.
    bytes_behind: usize,
    /// True while the client takes no bytes.
    stalled: bool,
    /// True if the stream ends when the queue is empty.
    closing: bool,
    /// True if the stream has ended, or shall end at once.
    ended: bool,
}

impl Queue {
    /// True if the queue takes an event of so many bytes. A queue that the hub has not come to
    /// yet does not show that its client reads slowly: a notice that is followed at once by a
    /// large result must not cost the client its stream.
    fn has_room(&self, bytes: usize, bytes_max: usize) -> bool {
        self.events.is_empty()
            || self.bytes_behind + bytes <= bytes_max
            || (!self.stalled && self.bytes_behind <= bytes_max)
    }

    fn push(&mut self, event: EncodedEvent) {
        if !self.events.is_empty() {
            self.bytes_behind += event.len();
        }
        self.events.push_back(event);
    }

    fn pop(&mut self) {
        self.events.pop_front();
        let first = self.events.front().map_or(0, EncodedEvent::len);
        self.bytes_behind = self.bytes_behind.saturating_sub(first);
    }

    fn end(&mut self) {
        *self = Queue { ended: true, ..Queue::default() };
    }
}

/// One stream, shared by the hub and its senders.
#[derive(Debug)]
struct Client {
    id: u64,
    /// The name of the client's transport, for the log.
    door: &'static str,
    /// The principal in whose share the place counts.
    charged: Option<PrincipalId>,
    /// The access token with whose end the stream ends.
    lease: OptionalLease,
    queue: Mutex<Queue>,
    /// True if the hub's inbox names this stream already.
    announced: AtomicBool,
}

impl Client {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock()
    }
}

/// The end of all streams.
#[derive(Debug, Clone)]
struct Closing {
    last: Option<EncodedEvent>,
    deadline: Instant,
}

/// Messages to the hub. Bounded by `limits.streams`.
#[derive(Default)]
struct Inbox {
    opened: Vec<(Arc<Client>, Stream, OnEnd)>,
    announced: Vec<u64>,
    closing: Option<Closing>,
    /// True if the hub takes no more streams.
    closed: bool,
    /// True if the hub has no streams left.
    ended: bool,
}

struct Hub {
    limits: Arc<Limits>,
    inbox: Mutex<Inbox>,
    /// [`Inbox::ended`] has become true.
    ended: Condvar,
    bell: Bell,
    rung: AtomicBool,
    places: Mutex<Shares<PrincipalId>>,
    last_id: AtomicU64,
}

impl Hub {
    /// Wakes the hub, unless it was woken and has not looked yet.
    fn wake(&self) {
        if !self.rung.swap(true, Ordering::SeqCst) {
            self.bell.ring();
        }
    }

    fn announce(&self, client: &Client) {
        if !client.announced.swap(true, Ordering::SeqCst) {
            self.inbox.lock().announced.push(client.id);
            self.wake();
        }
    }

    fn close(&self, closing: Closing) {
        let mut inbox = self.inbox.lock();
        inbox.closed = true;
        inbox.closing.get_or_insert(closing);
        drop(inbox);
        self.wake();
    }
}

/// Ends the hub when the last [`Streams`] is gone.
struct CloseOnDrop(Arc<Hub>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.close(Closing { last: None, deadline: Instant::now() });
    }
}

/// The open streams. Cheap to clone; with the last clone the hub ends.
#[derive(Clone)]
pub struct Streams {
    hub: Arc<Hub>,
    _close: Arc<CloseOnDrop>,
}

impl fmt::Debug for Streams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Streams").field("count", &self.count()).finish_non_exhaustive()
    }
}

impl Streams {
    /// Starts the hub's thread. `stop` is told when it ends.
    ///
    /// # Errors
    /// The system gives no thread or descriptor.
    pub fn start(
        limits: Arc<Limits>,
        stop: Sender<StopReason>,
    ) -> io::Result<(Streams, Joined)> {
        let places = Mutex::new(Shares::long_held(limits.streams));
        let hub = Arc::new(Hub {
            limits,
            inbox: Mutex::default(),
            ended: Condvar::new(),
            bell: Bell::new()?,
            rung: AtomicBool::new(false),
            places,
            last_id: AtomicU64::new(BELL),
        });
        let mut worker = Worker::new(Arc::clone(&hub))?;
        let joined = thread::spawn_owner("streams", stop, move || worker.run())?;
        let close = Arc::new(CloseOnDrop(Arc::clone(&hub)));
        Ok((Streams { hub, _close: close }, joined))
    }

    /// A place for one more stream, to be taken before the client is promised one.
    ///
    /// # Errors
    /// There is none.
    pub fn reserve(&self) -> Result<Place, Full> {
        self.reserve_for(None)
    }

    /// As [`Streams::reserve`], for a principal that has a share of the streams.
    ///
    /// # Errors
    /// There is none, or none for that principal.
    pub fn reserve_for(&self, charged: Option<&PrincipalId>) -> Result<Place, Full> {
        let (taken, share) = {
            let mut places = self.hub.places.lock();
            (places.take_of(charged, 1), places.share_of(charged))
        };
        taken.map_err(|why| match why {
            NotTaken::Full => Full::Streams,
            NotTaken::ShareHeld => Full::Share(share),
        })?;
        // From here on dropping the place gives it back.
        let (hub, charged) = (Some(Arc::clone(&self.hub)), charged.cloned());
        let place = Place { hub, charged, lease: None };
        if self.hub.inbox.lock().closed {
            return Err(Full::Streams);
        }
        Ok(place)
    }

    /// Takes a detached connection over; `door` names its transport. `on_end` is called once, by
    /// the hub, when the client has gone, was dropped or was closed.
    ///
    /// # Errors
    /// There is no place for it; the connection ends and `on_end` is not called.
    pub fn open(
        &self,
        door: &'static str,
        stream: Stream,
        on_end: OnEnd,
    ) -> Result<StreamHandle, Full> {
        self.reserve()?.open(door, stream, on_end)
    }

    /// The number of open streams.
    pub fn count(&self) -> usize {
        self.hub.places.lock().taken()
    }

    /// Ends all streams in order: the queued events go out, then `last`, then the end. Streams
    /// that are not written by `deadline` are cut. Returns when no stream is left; the hub ends.
    pub fn close_all(&self, last: Option<Arc<[u8]>>, deadline: Instant) {
        self.hub.close(Closing { last: last.map(EncodedEvent::from), deadline });
        // The hub itself cuts at the deadline; the rest is for a hub that has died.
        let give_up = deadline + Duration::from_secs(1);
        drop(self.hub.ended.wait_until(self.hub.inbox.lock(), give_up, |inbox| inbox.ended));
    }
}

/// A place for one stream, given back on drop.
pub struct Place {
    hub: Option<Arc<Hub>>,
    charged: Option<PrincipalId>,
    lease: OptionalLease,
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Place").finish_non_exhaustive()
    }
}

impl Place {
    /// The same place for a stream that ends with an access token.
    pub fn leased(mut self, lease: OptionalLease) -> Place {
        self.lease = lease;
        self
    }

    /// As [`Streams::open`].
    ///
    /// # Errors
    /// The hub is ending.
    pub fn open(
        mut self,
        door: &'static str,
        stream: Stream,
        on_end: OnEnd,
    ) -> Result<StreamHandle, Full> {
        let hub = self.hub.as_ref().map(Arc::clone).ok_or(Full::Streams)?;
        let id = hub.last_id.fetch_add(1, Ordering::Relaxed) + 1;
        let (queue, announced) = (Mutex::default(), AtomicBool::new(false));
        let (charged, lease) = (self.charged.clone(), self.lease.take());
        let client = Arc::new(Client { id, door, charged, lease, queue, announced });
        {
            let mut inbox = hub.inbox.lock();
            if inbox.closed {
                return Err(Full::Streams);
            }
            inbox.opened.push((Arc::clone(&client), stream, on_end));
        }
        hub.wake();
        // From here on the hub gives the place back.
        self.hub = None;
        Ok(StreamHandle { hub, client })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(hub) = &self.hub {
            hub.places.lock().give_back_of(self.charged.as_ref(), 1);
        }
    }
}

/// The sending end of one open stream.
#[derive(Clone)]
pub struct StreamHandle {
    hub: Arc<Hub>,
    client: Arc<Client>,
}

impl fmt::Debug for StreamHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamHandle").field("id", &self.client.id).finish_non_exhaustive()
    }
}

impl StreamHandle {
    /// Queues an event, written as it is. Never waits. An event of any size may be the first
    /// in the queue; behind it `limits.stream_queue_bytes` may wait, and a client that takes
    /// nothing while more would wait is dropped.
    ///
    /// # Errors
    /// The stream has ended, or did by this event.
    pub fn send(&self, event: impl Into<EncodedEvent>) -> Result<(), Gone> {
        let event = event.into();
        if event.is_empty() {
            return Ok(());
        }
        let bytes_max = self.hub.limits.stream_queue_bytes;
        let fits = {
            let mut queue = self.client.queue();
            if queue.ended || queue.closing {
                return Err(Gone);
            }
            let fits = queue.has_room(event.len(), bytes_max);
            if fits {
                queue.push(event);
            } else {
                queue.end();
            }
            fits
        };
        self.hub.announce(&self.client);
        if fits {
            return Ok(());
        }
        rejected::count(Reason::NotReading);
        log::warn!(target: "streams", "a client's {} stream was dropped: it does not read, and \
            more than limits.stream_queue_bytes ({bytes_max} bytes) would wait", self.client.door);
        Err(Gone)
    }

    /// Ends the stream after what is queued.
    pub fn close(&self) {
        self.client.queue().closing = true;
        self.hub.announce(&self.client);
    }

    /// True if more can be sent.
    pub fn is_open(&self) -> bool {
        let queue = self.client.queue();
        !queue.ended && !queue.closing
    }

    /// A number that no other stream of this hub has.
    pub fn id(&self) -> u64 {
        self.client.id
    }
}
