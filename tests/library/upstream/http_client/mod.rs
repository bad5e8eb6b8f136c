//! Connections to servers.

pub(crate) mod connecting;
pub(crate) mod redirects;
