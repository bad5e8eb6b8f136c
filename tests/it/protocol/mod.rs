//! Any client with any server, and what the wire of each revision wants.

pub(crate) mod conversations;
pub(crate) mod eras;
pub(crate) mod one_line;
pub(crate) mod schemas;
