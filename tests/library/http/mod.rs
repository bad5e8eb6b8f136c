//! The HTTP engine on a real port.

pub(crate) mod bounds_named;
pub(crate) mod buffered;
pub(crate) mod engine;
pub(crate) mod hostile;
