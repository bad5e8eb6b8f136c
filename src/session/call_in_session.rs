//! A guard of a call in flight of a session.

use std::sync::Arc;

use super::Session;
use crate::protocol::jsonrpc::RequestId;

/// A guard of a call in flight: on drop it removes the call from the session's calls.
#[derive(Debug)]
pub struct CallInSession {
    pub(super) session: Arc<Session>,
    pub(super) id: RequestId,
}

impl Drop for CallInSession {
    fn drop(&mut self) {
        let mut calls = self.session.calls.lock();
        calls.remove(&self.id);
        drop(calls);
        self.session.touch();
    }
}
