//! What a process that another one follows does with the streams of its sessions: their clients
//! open them again, and find the other one.

use std::sync::PoisonError;

use super::{Session, Sessions};

impl Sessions {
    /// Ends the streams of all sessions that have no call in flight: what a call says may go on
    /// its session's stream. Over HTTP+SSE that ends the session, whose messages would go to
    /// the other process; over Streamable HTTP the session goes on there.
    pub fn close_idle_streams(&self) {
        let view = self.view.read().unwrap_or_else(PoisonError::into_inner);
        let idle: Vec<_> = view.values().filter(|it| !it.has_calls()).cloned().collect();
        drop(view);
        idle.iter().for_each(|session| session.close_streams());
    }
}

impl Session {
    fn close_streams(&self) {
        if let Some(stream) = self.stream() {
            stream.close();
        }
        self.kept.close_listeners();
    }
}
