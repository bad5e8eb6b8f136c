//! Servers, as callers of the gateway meet them.

pub(crate) mod call;
pub(crate) mod every_transport;
pub(crate) mod hostile;
pub(crate) mod session;
pub(crate) mod speech;
pub(crate) mod supervisor;
pub(crate) mod transport;
