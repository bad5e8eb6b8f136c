//! A session with a server: how it is opened, what waits for answers in it, where its messages
//! go, what is subscribed to over it.

pub(super) mod auto_transport;
pub(super) mod capacity;
pub(super) mod context;
pub(super) mod correlation;
pub(super) mod desired_subscriptions;
pub(super) mod dispatch;
pub(super) mod either_era;
pub(super) mod era;
pub(super) mod listen_filter;
pub(super) mod negotiate;
pub(super) mod pending;
pub(super) mod pool;
pub(super) mod renewal;
pub(super) mod resubscribe;
pub(super) mod single_flight;
pub(super) mod stateless;
pub(super) mod stateless_dispatch;
pub(super) mod subscribe;
