//! The upstream side against servers and children that follow a script.

pub(crate) mod http_client;
pub(crate) mod rig;
pub(crate) mod session;
pub(crate) mod stateless_rig;
pub(crate) mod supervisor;
pub(crate) mod transport;
pub(crate) mod worlds;
