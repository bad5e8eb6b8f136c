//! The end of sessions' streams and calls when the process ends, or when another one takes its
//! place: clients then open their streams again, and reach the other process.

use super::{Session, Sessions};
use crate::wait::Interrupted;

impl Sessions {
    /// Ends the streams of all sessions that have no call in flight: messages of a call may use
    /// its session's stream. Over HTTP+SSE that ends the session, whose messages would go to the
    /// other process; over Streamable HTTP the session goes on there.
    pub fn close_idle_streams(&self) {
        let view = self.view.read();
        let idle: Vec<_> = view.values().filter(|it| !it.has_calls()).cloned().collect();
        drop(view);
        idle.iter().for_each(|session| session.close_streams());
    }

    /// Ends every call of every session, because the process stops. The server connections of
    /// other calls are cut elsewhere; a call that waits for an answer of its client has none.
    pub fn interrupt_calls(&self) {
        let view = self.view.read();
        let sessions: Vec<_> = view.values().cloned().collect();
        drop(view);
        for session in sessions {
            let calls = session.calls.lock();
            calls.values().for_each(|wait| wait.interrupt(Interrupted::Stopping));
        }
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
