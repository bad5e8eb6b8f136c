//! What becomes of a call between its client and its server.

pub(crate) mod links;
pub(crate) mod log_levels;
pub(crate) mod passing_through;
pub(crate) mod task_owners;
pub(crate) mod tasks;
