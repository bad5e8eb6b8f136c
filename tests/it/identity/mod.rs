//! Who asks, and with whose credentials: sign-in at servers.

mod upstream_sign_in;
