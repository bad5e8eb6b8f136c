//! What the gateway says besides its calls: cancellations, answers to an upstream's own
//! requests, the end of a session that nobody could use, and clients' notifications. It never
//! takes a slot, never keeps a call waiting, and is dropped when it cannot be delivered soon.
//! Notifications have a queue of their own, so that none of them takes the place of an answer.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use ureq::http::{HeaderMap, Method};

use crate::limits::{
    CONTROL_LANES_MAX, CONTROL_NOTIFICATIONS_MAX, CONTROL_QUEUE_MESSAGES_MAX, CONTROL_TIMEOUT,
};
use crate::protocol::call::PrincipalId;
use crate::telemetry::Seldom;
use crate::telemetry::redact::Secrets;
use crate::thread::{Joined, spawn};
use crate::wait::{Interrupted, Wait};

use super::redirect::Endpoint;
use super::{AgentFactory, HttpConnection, HttpRequest};
use crate::upstream::failure::Failure;
use crate::upstream::fair_queue::FairQueue;

/// One message on its way.
pub(crate) struct Message {
    pub(crate) method: Method,
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) headers: Arc<HeaderMap>,
    pub(crate) body: Option<String>,
}

/// The control lane of one upstream. Its threads start with the first message.
pub(crate) struct Control {
    name: String,
    factory: AgentFactory,
    secrets: Arc<Secrets>,
    queue: Arc<Queue>,
    /// Lines about messages that were dropped.
    dropped: Seldom,
}

/// What waits to be sent.
struct Queue {
    state: Mutex<State>,
    /// There may be something to send.
    more: Condvar,
}

struct State {
    /// Cancellations, answers, and the ends of sessions: what calls, or a server's memory, depend
    /// on. They go before all notifications.
    needed: FairQueue<PrincipalId, Message>,
    /// What clients tell of their own accord.
    notifications: FairQueue<PrincipalId, Message>,
    workers: Vec<Joined>,
    /// Workers with nothing to send.
    n_idle: usize,
    /// Workers that send a notification: one is always left for what is needed.
    n_notifying: usize,
    /// What the workers wait on at present.
    waits: Vec<Arc<Wait>>,
    stopped: bool,
}

/// A message that is to be sent next.
struct Next {
    message: Message,
    is_notification: bool,
}

impl State {
    fn next(&mut self) -> Option<Next> {
        if let Some(message) = self.needed.pop() {
            return Some(Next { message, is_notification: false });
        }
        if self.n_notifying + 1 >= CONTROL_LANES_MAX {
            return None;
        }
        let message = self.notifications.pop()?;
        self.n_notifying += 1;
        Some(Next { message, is_notification: true })
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the next message; none once the lane is closed.
    fn next(&self) -> Option<Next> {
        let mut state = self.lock();
        while !state.stopped {
            if let Some(next) = state.next() {
                return Some(next);
            }
            state.n_idle += 1;
            state = self.more.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.n_idle -= 1;
        }
        None
    }
}

impl Control {
    pub(crate) fn new(name: String, factory: AgentFactory, secrets: Arc<Secrets>) -> Control {
        let state = State {
            needed: FairQueue::new(CONTROL_QUEUE_MESSAGES_MAX),
            notifications: FairQueue::new(CONTROL_NOTIFICATIONS_MAX),
            workers: Vec::new(),
            n_idle: 0,
            n_notifying: 0,
            waits: Vec::new(),
            stopped: false,
        };
        let queue = Arc::new(Queue { state: Mutex::new(state), more: Condvar::new() });
        Control { name, factory, secrets, queue, dropped: Seldom::default() }
    }

    /// Sends some time soon what a call or a session depends on. `charged`: whose share of the
    /// queue it takes.
    pub(crate) fn send(&self, charged: Option<&PrincipalId>, message: Message) {
        self.put(|state| state.needed.push(charged, message).is_ok());
    }

    /// Sends a client's notification some time soon, if its principal has not too many waiting.
    pub(crate) fn notify(&self, whose: &PrincipalId, message: Message) {
        self.put(|state| state.notifications.push(Some(whose), message).is_ok());
    }

    fn put(&self, push: impl FnOnce(&mut State) -> bool) {
        let mut state = self.queue.lock();
        if state.stopped {
            return;
        }
        if !push(&mut state)
            && let Some(more) = self.dropped.turn()
        {
            log::warn!(target: "upstream", "too many control messages wait: one is dropped{more}");
        }
        let n_waiting = state.needed.len() + state.notifications.len();
        // One that was woken and does not run yet counts as idle.
        if n_waiting > state.n_idle && state.workers.len() < CONTROL_LANES_MAX {
            let (factory, secrets) = (self.factory.clone(), self.secrets.clone());
            let queue = self.queue.clone();
            let worker = spawn(&self.name, move || run(&factory, &secrets, &queue));
            state.workers.extend(worker.ok());
        }
        self.queue.more.notify_one();
    }

    /// Ends the threads; what waits is not sent any more.
    pub(crate) fn close(&self) {
        let workers = {
            let mut state = self.queue.lock();
            state.needed.clear();
            state.notifications.clear();
            state.stopped = true;
            state.waits.iter().for_each(|wait| wait.interrupt(Interrupted::Stopping));
            self.queue.more.notify_all();
            std::mem::take(&mut state.workers)
        };
        drop(workers);
    }
}

fn run(factory: &AgentFactory, secrets: &Secrets, queue: &Queue) {
    let mut connection = HttpConnection::default();
    while let Some(Next { message, is_notification }) = queue.next() {
        if let Ok(wait) = Wait::plain(CONTROL_TIMEOUT) {
            {
                let mut state = queue.lock();
                if state.stopped {
                    return;
                }
                state.waits.push(wait.clone());
            }
            if let Err(failure) = deliver(&mut connection, factory, &message, &wait) {
                connection.reset();
                log::debug!(target: "upstream", "a control message failed: {}",
                    secrets.scrub_for_operator(&failure.message));
            }
            queue.lock().waits.retain(|other| !Arc::ptr_eq(other, &wait));
        }
        if is_notification {
            queue.lock().n_notifying -= 1;
        }
    }
}

fn deliver(
    connection: &mut HttpConnection,
    factory: &AgentFactory,
    message: &Message,
    wait: &Arc<Wait>,
) -> Result<(), Failure> {
    let ask = HttpRequest {
        method: &message.method,
        endpoint: &message.endpoint,
        headers: &message.headers,
        body: message.body.as_deref(),
    };
    let mut answer = connection.client(factory).run(wait, ask)?;
    // Read so that the connection can be used again; what it says does not matter.
    answer.read_to_end(crate::limits::UPSTREAM_DRAIN_BYTES_MAX, "a bound")?;
    Ok(())
}
