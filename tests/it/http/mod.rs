//! The engine as its clients meet it.

pub(crate) mod hostile_clients;
pub(crate) mod socket_mode;
