//! What belongs to one way of reaching a server.

pub(crate) mod children;
pub(crate) mod refused_heads;
pub(crate) mod slow_children;
pub(crate) mod tls;
