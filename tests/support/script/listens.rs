//! The subscriptions of a scripted modern server: open `subscriptions/listen` requests and what
//! is told on them.

use std::sync::mpsc::{Receiver, Sender, channel};

use serde_json::{Value, json};

use super::Script;
use super::modern::check_envelope;

/// An open subscription.
#[derive(Debug)]
pub(super) struct Listen {
    peer: String,
    /// The request's id, as text.
    id: String,
    filter: Value,
    sender: Sender<String>,
}

impl Listen {
    /// Whether that request opened it.
    pub(super) fn is_of(&self, peer: &str, id: &str) -> bool {
        self.peer == peer && self.id == id
    }

    fn wants(&self, method: &str, uri: Option<&str>) -> bool {
        let flag = |key: &str| self.filter[key] == true;
        match method {
            "notifications/tools/list_changed" => flag("toolsListChanged"),
            "notifications/prompts/list_changed" => flag("promptsListChanged"),
            "notifications/resources/list_changed" => flag("resourcesListChanged"),
            "notifications/resources/updated" => {
                let uris = self.filter["resourceSubscriptions"].as_array();
                uris.is_some_and(|uris| uris.iter().any(|wanted| wanted.as_str() == uri))
            }
            _ => false,
        }
    }

    fn tell(&self, method: &str, params: &Value) -> bool {
        let mut params = if params.is_null() { json!({}) } else { params.clone() };
        let id: Value = serde_json::from_str(&self.id).unwrap();
        params["_meta"]["io.modelcontextprotocol/subscriptionId"] = id;
        let message = json!({ "jsonrpc": "2.0", "method": method, "params": params });
        self.sender.send(message.to_string()).is_ok()
    }
}

impl Script {
    /// Opens a subscription. Everything that is to be said on it comes out of the receiver, the
    /// acknowledgement first; its end is the subscription's. None if the message is no request
    /// for one, or not a good one.
    pub fn open_listen(&self, peer: &str, text: &str) -> Option<Receiver<String>> {
        let message: Value = serde_json::from_str(text).ok()?;
        let method = message["method"].as_str()?;
        if method != "subscriptions/listen"
            || check_envelope(method, &message["params"]).is_err()
        {
            return None;
        }
        self.note_received(peer, text, Some(method), &message["params"]);
        let (sender, receiver) = channel();
        let filter = message["params"]["notifications"].clone();
        let (peer, id) = (peer.to_owned(), message["id"].to_string());
        let listen = Listen { peer, id, filter: filter.clone(), sender };
        listen.tell(
            "notifications/subscriptions/acknowledged",
            &json!({ "notifications": filter }),
        );
        self.lock().listens.push(listen);
        self.changed.notify_all();
        Some(receiver)
    }

    /// What the open subscriptions want.
    pub fn listens(&self) -> Vec<Value> {
        self.lock().listens.iter().map(|listen| listen.filter.clone()).collect()
    }

    /// Ends every subscription in order.
    pub fn end_listens(&self) {
        for listen in self.lock().listens.drain(..) {
            let id: Value = serde_json::from_str(&listen.id).unwrap();
            let meta = json!({ "io.modelcontextprotocol/subscriptionId": id });
            let result = json!({ "resultType": "complete", "_meta": meta });
            let message = json!({ "jsonrpc": "2.0", "id": id, "result": result });
            drop(listen.sender.send(message.to_string()));
        }
    }

    /// The peer is gone: its calls are cancelled and its subscriptions over.
    pub fn hang_up(&self, peer: &str) {
        let mut state = self.lock();
        let super::State { slow, seen, listens, .. } = &mut *state;
        for call in slow.iter_mut().filter(|call| call.peer == peer) {
            call.cancelled = true;
            seen.cancelled.push(call.label.clone());
        }
        listens.retain(|listen| listen.peer != peer);
        self.changed.notify_all();
    }

    pub(super) fn tell_listens(&self, message: &str) {
        let message: Value = serde_json::from_str(message).unwrap();
        let method = message["method"].as_str().unwrap_or_default();
        let mut state = self.lock();
        state.listens.retain(|listen| {
            !listen.wants(method, None) || listen.tell(method, &message["params"])
        });
    }

    /// Tells the subscription of that request, if it wants to hear of it; says how many it told.
    pub(super) fn tell_listen_of(&self, peer: &str, method: &str, params: &Value) -> usize {
        let state = self.lock();
        let of_peer = state.listens.iter().filter(|listen| listen.peer == peer);
        let wants = of_peer.filter(|listen| listen.wants(method, params["uri"].as_str()));
        wants.filter(|listen| listen.tell(method, params)).count()
    }

    /// Tells the subscriptions to that resource; says how many those are.
    pub(super) fn tell_listens_of(&self, uri: &str) -> usize {
        let method = "notifications/resources/updated";
        let state = self.lock();
        let told = state.listens.iter().filter(|listen| listen.wants(method, Some(uri)));
        told.filter(|listen| listen.tell(method, &json!({ "uri": uri }))).count()
    }
}
