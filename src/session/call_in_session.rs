//! A call in flight of a session, which leaves the session when it is dropped.

use std::sync::Arc;

use super::Session;
use crate::protocol::jsonrpc::RequestId;
/// A guard of a call in flight.
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
