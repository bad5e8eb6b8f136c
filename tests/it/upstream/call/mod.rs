//! Which calls a server gets, and when they end.

pub(crate) mod circuit_breaker;
pub(crate) mod deadlines;
pub(crate) mod fairness;
