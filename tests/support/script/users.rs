//! A scripted server that tells its users apart: by what each request, or the environment of its
//! process, says of who reaches it. What it lists, answers and tells names that user.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::offers::{Offer, offer};
use super::peers::notification;
use super::{Script, State};
use crate::http::Head;

/// Who reached the server.
#[derive(Debug, Default)]
pub(super) struct Users {
    /// The header that names the user; none while users are not told apart.
    header: Option<String>,
    /// The user of each session, request or process.
    of_peer: BTreeMap<String, String>,
    seen: BTreeSet<String>,
    /// Sessions that more than one user has used: peer, first user, other user.
    mixed: Vec<(String, String, String)>,
    /// The heads of all requests, where they have any.
    heads: Vec<Head>,
}

/// The name of a user, of what stands in a header.
fn user_in(value: &str) -> String {
    value.strip_prefix("Bearer ").unwrap_or(value).to_owned()
}

/// The user whose alone an item is, if it is one user's.
fn owner(name: &str) -> Option<&str> {
    name.strip_prefix("of_").or_else(|| name.strip_prefix("user://")?.split('/').next())
}

impl Users {
    pub(super) fn of(&self, peer: &str) -> Option<&str> {
        self.of_peer.get(peer).map(String::as_str)
    }
}

impl State {
    /// True unless the item is another user's.
    pub(super) fn shows_to_user(&self, peer: &str, name: &str) -> bool {
        let Some(owner) = owner(name).filter(|_| self.users.header.is_some()) else {
            return true;
        };
        self.users.of(peer) == Some(owner)
    }

    /// What the server calls itself towards that peer: with its user, where it tells them apart.
    pub(super) fn label_for(&self, peer: &str) -> String {
        match self.users.of(peer) {
            Some(user) => format!("{} for {user}", self.label),
            None => self.label.clone(),
        }
    }
}

impl Script {
    /// Tells users apart by this header from now on: each has a tool and a prompt `of_USER`, a
    /// resource `user://USER/notes` and a template `user://USER/{id}` that nobody else sees.
    pub fn tell_users_by(&self, header: &str) {
        self.lock().users.header = Some(header.to_owned());
    }

    /// Notes who uses a session, or sent a request.
    pub fn reached_by(&self, peer: &str, head: &Head) {
        let mut state = self.lock();
        state.users.heads.push(head.clone());
        let Some(header) = state.users.header.clone() else { return };
        let value = head.header(&header).map(str::to_owned);
        drop(state);
        self.used_by(peer, value.as_deref());
    }

    /// Notes the user of a session or of a process; none where nobody is named.
    pub fn used_by(&self, peer: &str, value: Option<&str>) {
        let user = value.map_or_else(|| "nobody".to_owned(), user_in);
        let mut state = self.lock();
        let known = state.users.of_peer.get(peer).cloned();
        match known {
            None => drop(state.users.of_peer.insert(peer.to_owned(), user.clone())),
            Some(known) if known == user => (),
            Some(known) => state.users.mixed.push((peer.to_owned(), known, user.clone())),
        }
        if state.users.seen.insert(user.clone()) {
            let offers = &mut state.offers;
            for (key, name) in [
                ("tools", format!("of_{user}")),
                ("prompts", format!("of_{user}")),
                ("resources", format!("user://{user}/notes")),
                ("resourceTemplates", format!("user://{user}/{{id}}")),
            ] {
                let Offer { name, text } = offer(key, &name);
                offers.list_mut(key).push(Offer { name, text });
            }
        }
    }

    /// One more tool that only this user sees, and word of it on this user's streams alone; says
    /// to how many.
    pub fn change_for(&self, user: &str, more: &str) -> usize {
        let name = format!("of_{user}");
        let text = json!({
            "name": format!("more_{more}"),
            "description": name,
            "inputSchema": { "type": "object", "properties": {} },
        });
        let offer = Offer { name, text: text.to_string() };
        self.lock().offers.list_mut("tools").push(offer);
        self.tell_user(user, "notifications/tools/list_changed", &json!({}))
    }

    /// Tells every stream of this user; says how many those are.
    pub fn tell_user(&self, user: &str, method: &str, params: &Value) -> usize {
        let peers: Vec<String> = {
            let state = self.lock();
            let of_user = state.users.of_peer.iter().filter(|(_, of)| *of == user);
            of_user.map(|(peer, _)| peer.clone()).collect()
        };
        let message = notification(method, params);
        let told = peers.iter().map(|peer| {
            self.tell_streams_of(peer, &message) + self.tell_listen_of(peer, method, params)
        });
        told.sum()
    }

    /// Those who have reached the server so far.
    pub fn users(&self) -> BTreeSet<String> {
        self.lock().users.seen.clone()
    }

    /// The sessions that more than one user has used.
    pub fn mixed(&self) -> Vec<(String, String, String)> {
        self.lock().users.mixed.clone()
    }

    /// The heads of all requests so far.
    pub fn heads(&self) -> Vec<Head> {
        self.lock().users.heads.clone()
    }

    /// The user of a session.
    pub fn user_of(&self, peer: &str) -> Option<String> {
        self.lock().users.of(peer).map(str::to_owned)
    }
}
