//! Who asks, and with whose credentials: sign-in at servers.

mod login_command;
mod sign_in_pages;
mod upstream_grants;
mod upstream_sign_in;
mod waiting_for_sign_in;
