//! How often a server is tried again.

pub(crate) mod refusing;
pub(crate) mod retrying;
