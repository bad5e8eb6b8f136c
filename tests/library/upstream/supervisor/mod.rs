//! What the supervisor reads, keeps up and tries again.

pub(crate) mod lists;
pub(crate) mod lists_and_level;
pub(crate) mod pace;
