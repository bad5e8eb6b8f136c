//! What the gateway says besides its calls: cancellations, answers to an upstream's own
//! requests, and the end of a session that nobody could use. It never takes a slot, never keeps
//! a call waiting, and is dropped when it cannot be delivered soon.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use ureq::http::{HeaderMap, Method};

use crate::limits::{CONTROL_LANES_MAX, CONTROL_QUEUE_MESSAGES_MAX, CONTROL_TIMEOUT};
use crate::telemetry::Seldom;
use crate::telemetry::redact::Secrets;
use crate::thread::{Joined, spawn};
use crate::wait::{Interrupted, Wait};

use super::connection::Trouble;
use super::exchange::{AgentFactory, Ask, Lane};
use super::redirect::Endpoint;

/// One message on its way.
pub(super) struct Message {
    pub(super) method: Method,
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) headers: Arc<HeaderMap>,
    pub(super) body: Option<String>,
}

/// The control lane of one upstream. Its threads start with the first message.
pub(super) struct Control {
    name: String,
    factory: AgentFactory,
    secrets: Arc<Secrets>,
    state: Arc<Mutex<State>>,
    /// Lines about messages that were dropped.
    dropped: Seldom,
}

#[derive(Default)]
struct State {
    /// Made with the first message; a full queue takes room.
    queue: Option<(Sender<Message>, Receiver<Message>)>,
    workers: Vec<Joined>,
    /// What the workers wait on at present.
    waits: Vec<Arc<Wait>>,
    stopped: bool,
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Control {
    pub(super) fn new(name: String, factory: AgentFactory, secrets: Arc<Secrets>) -> Control {
        Control { name, factory, secrets, state: Arc::default(), dropped: Seldom::default() }
    }

    /// Sends a message some time soon, if that is possible.
    pub(super) fn send(&self, message: Message) {
        let mut state = lock(&self.state);
        if state.stopped {
            return;
        }
        let (queue, messages) =
            state.queue.get_or_insert_with(|| bounded(CONTROL_QUEUE_MESSAGES_MAX)).clone();
        if let Err(TrySendError::Full(_)) = queue.try_send(message)
            && let Some(more) = self.dropped.turn()
        {
            log::warn!(target: "upstream", "too many control messages wait: one is dropped{more}");
        }
        let wanted = !queue.is_empty() && state.workers.len() < CONTROL_LANES_MAX;
        if wanted || state.workers.is_empty() {
            let factory = self.factory.clone();
            let (secrets, shared) = (self.secrets.clone(), self.state.clone());
            let worker = spawn(&self.name, move || run(&factory, &secrets, &messages, &shared));
            state.workers.extend(worker.ok());
        }
    }

    /// Ends the threads; what waits is not sent any more.
    pub(super) fn close(&self) {
        let workers = {
            let mut state = lock(&self.state);
            state.queue = None;
            state.stopped = true;
            state.waits.iter().for_each(|wait| wait.interrupt(Interrupted::Stopping));
            std::mem::take(&mut state.workers)
        };
        drop(workers);
    }
}

fn run(
    factory: &AgentFactory,
    secrets: &Secrets,
    messages: &Receiver<Message>,
    state: &Mutex<State>,
) {
    let mut lane = Lane::default();
    while let Ok(message) = messages.recv() {
        let Ok(wait) = Wait::plain(CONTROL_TIMEOUT) else { continue };
        {
            let mut state = lock(state);
            if state.stopped {
                return;
            }
            state.waits.push(wait.clone());
        }
        if let Err(trouble) = deliver(&mut lane, factory, &message, &wait) {
            lane.reset();
            log::debug!(target: "upstream", "a control message failed: {}",
                secrets.scrub_cut(&trouble.message));
        }
        lock(state).waits.retain(|other| !Arc::ptr_eq(other, &wait));
    }
}

fn deliver(
    lane: &mut Lane,
    factory: &AgentFactory,
    message: &Message,
    wait: &Arc<Wait>,
) -> Result<(), Trouble> {
    let ask = Ask {
        method: &message.method,
        endpoint: &message.endpoint,
        headers: &message.headers,
        body: message.body.as_deref(),
    };
    let mut answer = lane.client(factory).run(wait, ask, &mut || ())?;
    // Read so that the connection can be used again; what it says does not matter.
    answer.read_to_end(crate::limits::UPSTREAM_DRAIN_BYTES_MAX, "a bound", &mut || ())?;
    Ok(())
}
