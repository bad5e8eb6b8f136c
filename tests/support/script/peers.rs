//! What a scripted server remembers of each session: what was received on it, who it is, what it
//! subscribed to, and the streams on which the server speaks unasked.

use std::collections::BTreeSet;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Instant;

use serde_json::{Value, json};

use super::{PATIENCE, Script};
use crate::wait_until;

/// A message that reached the server.
#[derive(Debug, Clone)]
pub struct Received {
    /// The session it came on; a child's is its process id.
    pub peer: String,
    pub message: Value,
    /// The message as it came.
    pub text: String,
}

/// One session.
#[derive(Debug, Default)]
pub(super) struct Peer {
    /// The parameters of its `initialize`.
    pub(super) initialize: Value,
    subscriptions: BTreeSet<String>,
}

/// An open stream.
#[derive(Debug)]
pub(super) struct Stream {
    peer: String,
    sender: Sender<String>,
}

/// A notification, as a whole message.
pub(super) fn notification(method: &str, params: &Value) -> String {
    let mut message = json!({ "jsonrpc": "2.0", "method": method });
    if !params.is_null() {
        message["params"] = params.clone();
    }
    message.to_string()
}

impl Script {
    /// Everything that was received so far, in its order.
    pub fn received(&self) -> Vec<Received> {
        self.lock().received.clone()
    }

    /// A stream of that session for messages that belong to no request.
    pub fn open_stream(&self, peer: &str) -> Receiver<String> {
        let (sender, receiver) = channel();
        self.lock().streams.push(Stream { peer: peer.to_owned(), sender });
        self.changed.notify_all();
        receiver
    }

    /// Streams opened and not known to be closed.
    pub fn n_streams(&self) -> usize {
        self.lock().streams.len()
    }

    /// The session is over: its streams end.
    pub fn forget_peer(&self, peer: &str) {
        let mut state = self.lock();
        state.streams.retain(|stream| stream.peer != peer);
        state.peers.remove(peer);
        self.changed.notify_all();
    }

    /// Tells every open stream that the tools have changed, once there is one: what is said before
    /// that, nobody hears.
    pub fn announce_change(&self) {
        wait_until("somebody listens to the server", || {
            !self.lock().streams.is_empty() || !self.listens().is_empty()
        });
        self.tell_streams(r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#);
    }

    /// Sends a notification to every open stream; null parameters are left out.
    pub fn emit(&self, method: &str, params: &Value) {
        self.emit_text(&notification(method, params));
    }

    fn tell_streams(&self, message: &str) {
        self.tell_listens(message);
        self.lock().streams.retain(|stream| stream.sender.send(message.to_owned()).is_ok());
    }

    /// Sends a message to the open streams of that session; says how many those are.
    pub(super) fn tell_streams_of(&self, peer: &str, message: &str) -> usize {
        let state = self.lock();
        let of_peer = state.streams.iter().filter(|stream| stream.peer == peer);
        of_peer.filter(|stream| stream.sender.send(message.to_owned()).is_ok()).count()
    }

    /// Sends a message as it stands to every open stream.
    pub fn emit_text(&self, message: &str) {
        self.tell_streams(message);
    }

    /// Sends a notification to that session's stream, once it has one.
    #[track_caller]
    pub fn emit_to(&self, peer: &str, method: &str, params: &Value) {
        self.send_to(peer, &notification(method, params));
    }

    /// Tells the sessions that have subscribed to it, on their streams, that a resource has
    /// changed; says how many those are.
    #[track_caller]
    pub fn touch(&self, uri: &str) -> usize {
        let subscribed = |peer: &&Peer| peer.subscriptions.contains(uri);
        let peers: Vec<String> = {
            let state = self.lock();
            let peers = state.peers.iter().filter(|(_, peer)| subscribed(peer));
            peers.map(|(id, _)| id.clone()).collect()
        };
        for peer in &peers {
            let updated =
                notification("notifications/resources/updated", &json!({ "uri": uri }));
            self.send_to(peer, &updated);
        }
        peers.len() + self.tell_listens_of(uri)
    }

    #[track_caller]
    pub(super) fn send_to(&self, peer: &str, message: &str) {
        drop(self.stream_of(peer).send(message.to_owned()));
    }

    /// The newest stream of that session, waited for.
    #[track_caller]
    fn stream_of(&self, peer: &str) -> Sender<String> {
        let deadline = Instant::now() + PATIENCE;
        let mut state = self.lock();
        loop {
            if let Some(stream) = state.streams.iter().rev().find(|stream| stream.peer == peer)
            {
                return stream.sender.clone();
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "session {peer:?} has no stream");
            state = self.changed.wait_timeout(state, left).unwrap().0;
        }
    }

    pub(super) fn subscribe(&self, peer: &str, params: &Value, wanted: bool) -> String {
        let uri = params["uri"].as_str().unwrap_or_default().to_owned();
        let mut state = self.lock();
        let subscriptions = &mut state.peers.entry(peer.to_owned()).or_default().subscriptions;
        if wanted {
            subscriptions.insert(uri);
        } else {
            subscriptions.remove(&uri);
        }
        "{}".to_owned()
    }
}
