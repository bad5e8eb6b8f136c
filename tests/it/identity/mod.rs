//! Who asks, and with whose credentials: sign-in at servers, and users who sign in at the gateway.

pub(crate) mod resource_server;
mod upstream_sign_in;
