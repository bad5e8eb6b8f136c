//! What is shared of a session with a server, and what is one client's own.

pub(crate) mod hearing;
pub(crate) mod isolation;
pub(crate) mod own;
pub(crate) mod subscriptions;
