//! Who asks, and with whose credentials: users who sign in at the gateway, and sign-in at servers.

pub(crate) mod resource_server;
mod upstream_sign_in;
