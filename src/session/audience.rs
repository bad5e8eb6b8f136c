//! Pure: which sessions a message that belongs to no call goes to, and what each of them is sent.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::entry::Entry;
use super::table::Table;
use super::{EncodedEvent, Session, SessionId};
use crate::protocol::call::PrincipalId;
use crate::protocol::credentials_id::CredentialsId;
use crate::protocol::jsonrpc::notification;
use crate::protocol::listening::subscription_ended;
use crate::protocol::log_level::LogLevel;
use crate::protocol::method::notification::RESOURCES_UPDATED;
use crate::protocol::raw::{Raw, RawObject, string};
use crate::protocol::server_name::ServerName;
use crate::protocol::session_route::SessionKind;
use crate::protocol::sse;
use crate::protocol::view::ViewId;

/// The session with a server that clients share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shared {
    /// The server.
    pub server: ServerName,
    /// The clients that share the session.
    pub by: SharedBy,
}

/// The clients that share the session with a server, among those that keep sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SharedBy {
    /// All clients.
    EveryClient,
    /// Clients that declare neither sampling nor elicitation nor roots.
    ClientsThatCannotBeAsked,
    /// No client: each has its own session.
    NoClient,
}

/// The level of a log message, by which sessions take it or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogWish {
    /// The message's level; none for a message that is no log message.
    pub level: Option<LogLevel>,
    /// The level that is assumed for sessions whose client has set none; without it they take
    /// every message.
    pub unsaid: Option<LogLevel>,
}

/// The sessions that are told of a message that belongs to no call.
#[derive(Debug, Clone)]
pub enum Audience {
    /// Every session that may see the server.
    Hearing(ServerName),
    /// Sessions that may see the server, and whose lists of it are those of this view.
    Seeing(ServerName, ViewId),
    /// Sessions that may see the server, reach it with these credentials, and want such a log
    /// message.
    User(ServerName, CredentialsId, LogWish),
    /// Sessions of this principal that may see the server, have no session of their own with it,
    /// and want such a log message.
    Of(Shared, LogWish, PrincipalId),
    /// As `Of`, for the one principal to which all of these sessions belong, with a message that
    /// names no call. If they belong to several principals, or to another than the one that
    /// called lately, no session is told, and the message is counted.
    Only {
        /// The session that clients share.
        shared: Shared,
        /// The log message's level.
        log: LogWish,
        /// The only principal that has called lately, if any has.
        caller: Option<PrincipalId>,
        /// The number of messages that no session was told.
        unattributed: Arc<AtomicU64>,
    },
    /// One session, if it may still see the server.
    One(SessionId, ServerName),
}

/// The session with a server over which something was said of a resource.
#[derive(Debug, Clone)]
pub enum HeardOver {
    /// The one that clients share.
    Shared,
    /// The one that the clients of one user share.
    User(CredentialsId),
    /// The own one of the client that has this session.
    Own(SessionId),
}

impl Table {
    /// Sends a message that belongs to no call to one client, once it has introduced itself.
    pub(super) fn tell_one(&mut self, id: &str, message: &str) {
        let Some(entry) = self.entries.get_mut(id) else { return };
        if entry.session.caller().is_some() {
            entry.tell(message, &sse::event("", message).into());
        }
    }

    /// Sends a message to an audience, to each session on its newest stream only (2025-11-25,
    /// basic/transports, Multiple Connections).
    pub(super) fn tell(&mut self, to: &Audience, message: &str, now: Instant) {
        let event = EncodedEvent::from(sse::event("", message));
        let may_see = |session: &Session, server: &ServerName| {
            session.hears_of(server) && session.caller().is_some()
        };
        let shares = |session: &Session, shared: &Shared| {
            may_see(session, &shared.server) && session.shares(shared.by)
        };
        match to {
            Audience::One(id, server) => {
                if self.hears(id, server)
                    && let Some(entry) = self.entries.get_mut(id)
                {
                    entry.tell(message, &event);
                }
            }
            Audience::Hearing(server) => {
                for entry in self.entries.values_mut().filter(|it| may_see(&it.session, server))
                {
                    entry.tell(message, &event);
                }
            }
            Audience::Seeing(server, view) => {
                for entry in self.entries.values_mut() {
                    if may_see(&entry.session, server) && entry.session.sees(server, *view) {
                        entry.tell(message, &event);
                    }
                }
            }
            Audience::User(server, user, log) => {
                for entry in self.entries.values_mut() {
                    if may_see(&entry.session, server)
                        && entry.session.wants(*log)
                        && entry.session.user_at(server) == Some(*user)
                    {
                        entry.tell(message, &event);
                    }
                }
            }
            Audience::Of(shared, log, principal) => {
                for entry in self.entries.values_mut() {
                    if shares(&entry.session, shared)
                        && entry.session.wants(*log)
                        && entry.session.principal_id() == *principal
                    {
                        entry.tell(message, &event);
                    }
                }
            }
            Audience::Only { shared, log, caller, unattributed } => {
                let mut whose = caller.clone();
                let is_party =
                    |entry: &&Entry| shares(&entry.session, shared) && entry.is_present(now);
                let sharing = self.entries.values().filter(is_party);
                for principal in sharing.map(|entry| entry.session.principal_id()) {
                    if *whose.get_or_insert_with(|| principal.clone()) != principal {
                        unattributed.fetch_add(1, Ordering::Relaxed);
                        return;
                    }
                }
                for entry in self.entries.values_mut() {
                    if shares(&entry.session, shared) && entry.session.wants(*log) {
                        entry.tell(message, &event);
                    }
                }
            }
        }
    }

    /// Tells subscribed sessions that a resource has changed, each under the URI with which it
    /// subscribed: all that subscribed over the session that carried the notification. Only
    /// sessions that may still see the server are told.
    pub(super) fn updated(&mut self, server: &ServerName, heard: &HeardOver, params: &Raw) {
        let Ok(fields) = RawObject::parse(params.get()) else { return };
        let Ok(Some(uri)) = fields.string("uri") else { return };
        let key = (server.clone(), uri);
        let over = match heard {
            HeardOver::Own(_) => SessionKind::Own,
            HeardOver::Shared | HeardOver::User(_) => SessionKind::Shared,
        };
        let is_meant = |id: &SessionId, session: &Session| match heard {
            // Whoever reaches the server with credentials of its own has not subscribed there.
            HeardOver::Shared => true,
            HeardOver::User(user) => session.user_at(server) == Some(*user),
            HeardOver::Own(own) => own == id,
        };
        // An event that is the same for many is encoded once, and shared.
        let mut events: HashMap<String, (String, EncodedEvent)> = HashMap::new();
        let entries = self.entries.iter_mut();
        for (_, entry) in entries.filter(|(id, entry)| is_meant(id, &entry.session)) {
            let Some(asked) = entry.session.subscriptions.asked(&key, over) else { continue };
            if !entry.session.hears_of(server) {
                continue;
            }
            let (message, event) = events.entry(asked).or_insert_with_key(|asked| {
                let mut fields = fields.clone();
                fields.set("uri", string(asked));
                let message = notification(RESOURCES_UPDATED, Some(&fields.to_text()));
                let event = EncodedEvent::from(sse::event("", &message));
                (message, event)
            });
            entry.tell(message, event);
        }
    }

    /// Ends `subscriptions/listen` streams, after their response.
    pub(super) fn end_listening(&mut self) {
        for entry in self.entries.values_mut() {
            let Some(id) = entry.session.listening.get().map(|it| it.id.clone()) else {
                continue;
            };
            let last = sse::event("", &subscription_ended(&id));
            entry.send(&last.into());
            for stream in entry.streams.values() {
                stream.close();
            }
        }
    }

    /// Sends a message to one session's client. False where it has no stream.
    pub(super) fn send(&mut self, id: &str, message: &str) -> bool {
        let event = EncodedEvent::from(sse::event("", message));
        self.entries.get_mut(id).is_some_and(|entry| entry.send(&event))
    }

    /// True if there is a session of that id that may see the server.
    pub(super) fn hears(&self, id: &str, server: &ServerName) -> bool {
        self.entries.get(id).is_some_and(|entry| entry.session.hears_of(server))
    }
}

#[cfg(test)]
mod tests {
    use crate::sync::Mutex;
    use std::sync::atomic::Ordering;
    use std::time::{Duration, Instant};

    use super::super::table::{Bounds, Table};
    use super::super::{EncodedEvent, EventSink, Owner, Transport};
    use super::*;
    use crate::limits::ABSENT_SESSION_TIME;
    use crate::protocol::call::Caller;

    #[derive(Default)]
    struct Sink(Mutex<usize>);

    impl EventSink for Sink {
        fn send(&self, _: EncodedEvent) -> bool {
            *self.0.lock() += 1;
            true
        }
        fn close(&self) {}
        fn is_open(&self) -> bool {
            true
        }
    }

    #[test]
    fn a_client_that_went_without_a_word_keeps_nothing_from_the_one_that_is_there() {
        let server = ServerName::parse("a").unwrap();
        let idle = 10 * ABSENT_SESSION_TIME;
        let mut table = Table::new(Bounds { sessions: 3, sessions_per_key: 3, idle });
        let begun = Instant::now();
        for id in ["gone", "here"] {
            let owner = Owner {
                principal: None,
                only: None,
                narrowed: None,
                visible_servers: [server.clone()].into(),
                admission: 0,
                charged: None,
                lease: None,
                user: None,
            };
            let (door, caller) = (Transport::StreamableHttp, Some(Caller::plain()));
            table.open(begun, id.into(), door, owner, caller).unwrap();
        }
        let sink = Arc::new(Sink::default());
        assert!(table.attach("here", 1, sink.clone()));
        let (by, unattributed) =
            (SharedBy::ClientsThatCannotBeAsked, Arc::new(AtomicU64::new(0)));
        let to = Audience::Only {
            shared: Shared { server, by },
            log: LogWish { level: None, unsaid: None },
            caller: None,
            unattributed: unattributed.clone(),
        };
        // The message may be about the session that was present a moment ago.
        table.tell(&to, "{}", begun + ABSENT_SESSION_TIME - Duration::from_secs(1));
        assert_eq!((*sink.0.lock(), unattributed.load(Ordering::Relaxed)), (0, 1));
        table.tell(&to, "{}", begun + ABSENT_SESSION_TIME + Duration::from_secs(1));
        assert_eq!((*sink.0.lock(), unattributed.load(Ordering::Relaxed)), (1, 1));
    }
}
