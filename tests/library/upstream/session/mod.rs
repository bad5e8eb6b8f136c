//! Sessions with servers.

pub(crate) mod eras;
pub(crate) mod forged;
pub(crate) mod listening;
pub(crate) mod lost;
pub(crate) mod memory;
pub(crate) mod own;
pub(crate) mod questions;
pub(crate) mod repeated_secrets;
pub(crate) mod secrets;
pub(crate) mod subscriptions;
