//! Who it is: users who sign in at the gateway with access tokens.

pub(crate) mod resource_server;
