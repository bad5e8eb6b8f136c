//! The doors of the gateway.

pub(crate) mod admin;
pub(crate) mod console;
pub(crate) mod keep_alive;
pub(crate) mod legacy;
pub(crate) mod one_server;
pub(crate) mod quirks;
pub(crate) mod rest;
pub(crate) mod stateless;
pub(crate) mod stdio;
pub(crate) mod told;
