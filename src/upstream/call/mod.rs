//! One call on its way to a server: admitted by the circuit breaker, given a permit, sent over a
//! session, reported.

pub(super) mod breaker_guard;
pub(super) mod circuit_breaker;
pub(super) mod concurrency;
pub(super) mod fair_queue;
pub(super) mod waiting_calls;
