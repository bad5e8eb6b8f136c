//! The commands of the program.

pub(crate) mod check;
pub(crate) mod commands;
pub(crate) mod exit_codes;
pub(crate) mod import;
pub(crate) mod program;
pub(crate) mod running_gateways;
