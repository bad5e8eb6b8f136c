//! The gateway as a process: its start, reloads, upgrades and end, and what it holds.

pub(crate) mod cut_off;
pub(crate) mod fairness;
pub(crate) mod memory;
pub(crate) mod narrowing;
pub(crate) mod process_one;
pub(crate) mod reload;
pub(crate) mod service_manager;
pub(crate) mod start_order;
pub(crate) mod stopping;
pub(crate) mod upgrade;
